"""Profiles made up by hand, whose table is known, and one that was recorded."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxbed.efficiency import breakdown, trace
from jaxbed.efficiency.count import Count, count
from jaxbed.efficiency.trace import Interval, Operation, Trace, share_time

PROGRAM = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %conv = f32[4]{0} convolution(%x, %x), metadata={op_name="jit(step)/jvp(Net)/head/conv"}
  %scale = f32[4]{0} multiply(%x, %x), metadata={op_name="jit(step)/jvp(Net)/norm/mul"}
  ROOT %sum = f32[4]{0} add(%conv, %scale), metadata={op_name="jit(step)/add"}
}
"""


def event(name: str, begin_ms: float, end_ms: float, **stats):
    return SimpleNamespace(
        name=name,
        start_ns=begin_ms * 1e6,
        duration_ns=(end_ms - begin_ms) * 1e6,
        stats=list(stats.items()),
    )


def operation(name: str, begin_ms: float, end_ms: float, *, device=0, program="jit_step"):
    stats = {"hlo_op": name, "hlo_module": program, "device_ordinal": device}
    return event(name, begin_ms, end_ms, **stats)


def recorded(*threads, plane="/host:CPU"):
    lines = [SimpleNamespace(name=f"thread {n}", events=list(t)) for n, t in enumerate(threads)]
    return SimpleNamespace(planes=[SimpleNamespace(name=plane, lines=lines)])


def ms_of(reduced: Trace) -> dict[str, float]:
    return {operation.name: operation.ms for operation in reduced.operations}


def test_a_loop_is_not_counted_with_its_body():
    runs = [
        Interval("while", "a", 0, 10),
        Interval("body", "a", 0, 4),  # begins with the loop
        Interval("body", "a", 5, 9),
        Interval("inner", "a", 6, 7),
    ]
    assert share_time(runs) == {"while": 2, "body": 7, "inner": 1}


def test_operations_that_overlap_share_their_time():
    runs = [Interval("p", "a", 0, 6), Interval("q", "b", 4, 10), Interval("p", "a", 12, 13)]
    assert share_time(runs) == {"p": 4 + 1 + 1, "q": 1 + 4}


def test_times_add_up_to_the_union_of_the_intervals(rng: np.random.Generator):
    runs, union = [], np.zeros(200, bool)
    for thread in range(3):
        edges = np.sort(rng.choice(200, 20, replace=False))
        for n, (begin, end) in enumerate(edges.reshape(-1, 2)):
            runs.append(Interval(f"{thread}.{n}", thread, float(begin), float(end)))
            union[begin:end] = True
    assert sum(share_time(runs).values()) == pytest.approx(union.sum())


def test_what_is_pending_takes_only_the_time_that_is_left():
    runs = [Interval("p", "a", 0, 2), Interval("q", "a", 5, 6)]
    pending = [Interval("conv", 0, 1, 5), Interval("late", 1, 4, 8)]
    assert share_time(runs, pending) == {"p": 2, "q": 1, "conv": 2.5, "late": 0.5 + 2}


def test_a_convolution_lasts_until_its_result_is_taken_up():
    steps = [event("step", 0, 10, step_num=0)]
    work = [operation("conv", 0, 1), operation("scale", 1, 3), operation("sum", 8, 10)]
    reduced = trace.reduce_profile(recorded(steps, work), PROGRAM)
    assert ms_of(reduced) == pytest.approx({"conv": 1 + 5, "scale": 2, "sum": 2})
    assert (reduced.pending_ms, reduced.coverage) == pytest.approx((5, 1))


def test_an_accelerator_s_gaps_are_nobody_s():
    work = [operation("conv", 0, 1), operation("scale", 1, 7), operation("sum", 8, 10)]
    steps = SimpleNamespace(name="python", events=[event("step", 0, 10, step_num=0)])
    data = recorded(work, plane="/device:GPU:0")
    data.planes.append(SimpleNamespace(name="/host:CPU", lines=[steps]))
    reduced = trace.reduce_profile(data, PROGRAM)
    assert (reduced.pending_ms, reduced.coverage) == pytest.approx((0, 0.9))


def test_steps_and_devices_are_averaged_and_what_lies_outside_is_left_out():
    steps = [event("step", 0, 10, step_num=0), event("step", 20, 30, step_num=1)]
    first = [operation("scale", -5, 10), operation("scale", 12, 18), operation("scale", 20, 30)]
    second = [operation("sum", 0, 10, device=1), operation("scale", 20, 28, device=1)]
    other = [operation("scale", 0, 10, program="jit_other")]
    reduced = trace.reduce_profile(recorded(steps, first, second, other), PROGRAM)
    assert reduced.step_ms == 10
    assert ms_of(reduced) == pytest.approx({"scale": (10 + 10 + 8) / 4, "sum": 10 / 4})
    assert {o.name: o.calls for o in reduced.operations} == {"scale": 3 / 4, "sum": 1 / 4}
    assert reduced.coverage == pytest.approx(38 / 40)


def test_a_table_that_explains_too_little_is_refused():
    steps = [event("step", 0, 10, step_num=0)]
    with pytest.raises(ValueError, match="at least 90% of the step, they cover 80%"):
        trace.reduce_profile(recorded(steps, [operation("scale", 0, 8)]), PROGRAM)
    with pytest.raises(ValueError, match="annotated as 'step', found none"):
        trace.reduce_profile(recorded([operation("scale", 0, 8)]), PROGRAM)


def counted(**by_module: int) -> Count:
    macs = {path.replace("__", "/"): (n, n // 2) for path, n in by_module.items()}
    total = sum(by_module.values())
    return Count(total, total // 2, macs, {}, lower_bound=False)


def a_trace() -> Trace:
    return Trace(
        step_ms=10,
        pending_ms=0,
        operations=(
            Operation("a", "jit(f)/Net/block/Conv_0/conv", "Net/block/Conv_0", 1, 4),
            Operation("b", "jit(f)/Net/block/Conv_1/conv", "Net/block/Conv_1", 1, 2),
            Operation("c", "jit(f)/add", "", 1, 3),
            Operation("d", "", "", 1, 1),
        ),
    )


def test_modules_are_added_up_to_the_depth_asked_for():
    macs = counted(Net__block__Conv_0=3_000_000, Net__block__Conv_1=6_000_000, Net__idle=8)
    rows = {row.module: row for row in breakdown.by_module(a_trace(), macs, depth=2)}
    assert list(rows) == ["Net/block", "(outside)", "(unnamed)", "Net/idle"]
    block = rows["Net/block"]
    assert (block.ms, block.share) == pytest.approx((6, 0.6))
    assert (block.macs_nominal, block.macs_exact) == (9_000_000, 4_500_000)
    assert block.gflop_per_s == pytest.approx(2 * 9e6 / 6e-3 / 1e9)
    assert (rows["Net/idle"].ms, rows["Net/idle"].gflop_per_s) == (0, 0)
    assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_tables_and_figure_are_written(tmp_path):
    rows = breakdown.by_module(a_trace(), counted(Net__block__Conv_0=2), depth=3)
    breakdown.write_csv(rows, tmp_path / "modules.csv")
    with (tmp_path / "modules.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["module"] for row in read] == [row.module for row in rows]
    assert float(read[0]["ms"]) == 4
    pytest.importorskip("matplotlib")
    breakdown.figure({"one": rows, "other": rows}, tmp_path / "modules.png", most=2)
    assert (tmp_path / "modules.png").stat().st_size > 1000


class Looped(nn.Module):
    """A convolution, and a product that is taken again and again."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), name="conv")(x)
        weight = self.param("weight", nn.initializers.orthogonal(), (16, 16))
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ weight), None), x, length=5)
        return x


def test_a_recorded_step_on_two_devices_is_told_by_module(monkeypatch, tmp_path):
    monkeypatch.setattr(trace, "MIN_COVERAGE", 0.0)  # the machine may be busy
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    x = jax.device_put(jnp.ones((4, 64, 64, 8)), split)
    network = Looped()
    params = jax.device_put(network.init(jax.random.key(0), x), jax.NamedSharding(mesh, jax.P()))
    compiled = (
        jax.jit(network.apply)
        .lower(params, x)
        .compile(compiler_options=trace.per_operation_options())
    )
    reduced = trace.profile(compiled, lambda: compiled(params, x), folder=tmp_path)
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert 0 < reduced.coverage <= 1
    assert 0 <= reduced.pending_ms < reduced.step_ms
    modules = {operation.module for operation in reduced.operations}
    assert modules == {"Looped", "Looped/conv"}
    # Each device runs the body five times a step.
    assert max(operation.calls for operation in reduced.operations) == 5
    rows = breakdown.by_module(reduced, count(network.apply, params, x))
    assert {row.module: row.macs_nominal for row in rows} == {
        "Looped/conv": 4 * 64 * 64 * 16 * 8 * 9,
        "Looped": 5 * 4 * 64 * 64 * 16 * 16,
    }
