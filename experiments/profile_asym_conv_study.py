"""The work of `python -m experiments.profile_asym_conv`: compiles, measures in turns, traces."""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import profile_asym_conv_report as written
from experiments.bench_networks import Runner, check_batch_size, preterm_regression
from experiments.profile_asym_conv import Config
from experiments.profile_asym_conv_layers import (
    FRAMES,
    Layer,
    Work,
    conv_shapes,
    convolution,
    epilogue,
    epilogue_variables,
    network_layers,
    work_of,
)
from experiments.profile_asym_conv_measured import Group, LayerTime, Measured, Total, Traced, best
from jaxbed import report
from jaxbed.efficiency import breakdown, ceilings, trace
from jaxbed.efficiency.breakdown import ModuleTime
from jaxbed.efficiency.ceilings import Ceilings
from jaxbed.efficiency.clocks import compare, memory_of
from jaxbed.efficiency.count import count, count_params
from jaxbed.errors import InputError
from jaxbed.ops import conv3d, forms
from jaxbed.training.step import Devices

_ROUNDS = (3, 100)

# Networks, whose ratios are the verdict, take so many turns in a round, and layers one.
_NETWORK_TURNS = 2

_TRACED_STEPS = 1
_CEILING_CALLS = 30

# The first call of a program that takes longer than this is as good as any later one.
_LONG_S = 0.5

# A sample of a layer lasts about this long: it is called so often, and waited for once.
_SAMPLE_S, _MOST_CALLS = 0.005, 50


def run(config: Config) -> tuple[Path, str]:
    """Measures every group; returns the report's path and its summary."""
    lowerings = _lowerings(config.lowerings)
    if "standard" not in config.kinds:
        raise InputError("--kinds lacks standard, which the others are compared with; add it.")
    for batch_size in config.batch_sizes:
        check_batch_size(batch_size, flag="--batch-sizes")
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    # Else a program kept from before a module was renamed would come back with its old names.
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    measured = _stored(config.workdir) if config.resume else Measured()
    product = itertools.product(config.passes, config.batch_sizes, config.dtypes)
    groups = [group for group in itertools.starmap(Group, product) if group not in measured.groups]
    limits = ceilings.measure(config.dtypes, calls=_CEILING_CALLS)
    begin = time.monotonic()
    for number, group in enumerate(groups):
        _tell(f"{', '.join(map(str, group))} ({number + 1} of {len(groups)})")
        measured.add(measure_group(config, group, lowerings, limits))
        written.write(config, measured, limits, finished=False)
        left_s = (time.monotonic() - begin) / (number + 1) * (len(groups) - number - 1)
        _tell(f"  written; about {left_s / 60:.0f} min left")
    return written.write(config, measured, limits, finished=True)


def measure_group(
    config: Config, group: Group, lowerings: tuple[str, ...], limits: Ceilings
) -> Measured:
    """Measures networks and layers in turns, then traces the networks."""
    clips = (group.batch_size, FRAMES, *config.image_size)
    networks = _networks(config, group, lowerings)
    convs, epilogues = _layer_programs(config, group, lowerings, clips)
    _tell(f"  {len(networks)} networks and {len(convs) + len(epilogues)} parts compiled")
    round_s = _prepare([*convs.values(), *epilogues.values()])
    round_s += _NETWORK_TURNS * _prepare(networks.values())
    fewest, most = _ROUNDS
    rounds = min(max(int(config.seconds / round_s), fewest), most)
    _tell(f"  measuring {rounds} rounds of {round_s:.0f} s")
    turns = {(*name, n): networks[name] for n in range(_NETWORK_TURNS) for name in networks}
    compared = compare({**turns, **convs, **epilogues}, rounds=rounds, warm_up=0)

    measured = Measured()
    for (kind, lowering), runner in networks.items():
        identity = {"kind": kind, **group._asdict(), "lowering": lowering}
        works = []
        for layer in network_layers(kind, config.widths):
            work = work_of(layer, group.direction, clips, group.dtype)
            conv, after = (_conv_key(layer), lowering), _epilogue_key(layer)
            conv_ms = compared[conv].timing.median_ms / convs[conv].calls
            norm_ms = compared[after].timing.median_ms / epilogues[after].calls
            measured.layers.append(
                _layer_time(identity, layer, work, limits, conv_ms=conv_ms, norm_ms=norm_ms)
            )
            works.append(work)
        durations_ms = tuple(
            duration_ms
            for turn in range(_NETWORK_TURNS)
            for duration_ms in compared[kind, lowering, turn].timing.durations_ms
        )
        measured.totals.append(_total(identity, runner, works, limits, durations_ms))
    if group.batch_size == max(config.batch_sizes):
        for total in best(measured.totals, group).values():
            measured.traces.append(_traced(networks[total.kind, total.lowering], total))
    return measured


def _layer_time(
    identity: dict[str, Any],
    layer: Layer,
    work: Work,
    limits: Ceilings,
    *,
    conv_ms: float,
    norm_ms: float,
) -> LayerTime:
    dtype = identity["dtype"]
    return LayerTime(
        **identity,
        layer=layer.name,
        kernel="x".join(map(str, layer.kernel)),
        inputs=layer.inputs,
        outputs=layer.outputs,
        params=layer.params,
        **dataclasses.asdict(work),
        bound_ms=work.least_ms(limits, dtype, fused=True),
        bound_unfused_ms=work.least_ms(limits, dtype, fused=False),
        arithmetic_ms=2e3 * work.macs_exact / limits.flop_per_s[dtype],
        conv_ms=conv_ms,
        norm_ms=norm_ms,
    )


def _total(
    identity: dict[str, Any],
    runner: Runner,
    works: list[Work],
    limits: Ceilings,
    durations_ms: tuple[float, ...],
) -> Total:
    def least_ms(**how: bool) -> float:
        return sum(work.least_ms(limits, identity["dtype"], **how) for work in works)

    macs = count(runner.fn, *runner.args)
    return Total(
        **identity,
        params=count_params(runner.params),
        macs_nominal=macs.macs_nominal,
        macs_exact=macs.macs_exact,
        conv_bytes=sum(work.conv_bytes for work in works),
        norm_bytes=sum(work.norm_bytes for work in works),
        bound_ms=least_ms(fused=True),
        bound_unfused_ms=least_ms(fused=False),
        nominal_ms=least_ms(fused=True, nominal=True),
        nominal_unfused_ms=least_ms(fused=False, nominal=True),
        memory_bytes=memory_of(runner.compiled),
        durations_ms=durations_ms,
    )


def _networks(
    config: Config, group: Group, lowerings: tuple[str, ...]
) -> dict[tuple[str, str], Runner]:
    """Compiles every network under every lowering."""
    runners = {}
    for kind, lowering in itertools.product(config.kinds, lowerings):
        runner = Runner(
            preterm_regression(kind, size=config.image_size, widths=config.widths),
            group.direction,
            batch_size=group.batch_size,
            dtype=group.dtype,
            tx=optax.trace(decay=0.98),  # as published
        )
        runner.compile(lowering=lowering)
        runners[kind, lowering] = runner
    return runners


class Repeated:
    """Calls a program several times and leaves the waiting to the caller.

    What it takes to dispatch a call is then hidden behind the work of the call before. On
    several CPU devices each call is waited for: calls that sum over the devices and do not
    depend on each other can take all threads for the first halves of two sums, and then
    neither ends.

    Attributes:
        calls: of the program in one call of this.
    """

    def __init__(self, program: Callable[..., Any], *args: Any):
        self.calls = 1
        self._program, self._args = program, args
        self._waits = jax.default_backend() == "cpu" and jax.device_count() > 1

    def __call__(self) -> Any:
        """Returns what the last call made."""
        for _ in range(self.calls):
            result = self._program(*self._args)
            if self._waits:
                jax.block_until_ready(result)
        return result


def _layer_programs(
    config: Config, group: Group, lowerings: tuple[str, ...], clips: tuple[int, int, int, int]
) -> tuple[dict[tuple[Layer, str], Repeated], dict[Layer, Repeated]]:
    """Compiles every convolution and what follows it; layers that are alike share a program."""
    devices = Devices("jit")
    rng = np.random.default_rng(0)
    arrays: dict[tuple[int, ...], jax.Array] = {}

    def clip(shape: tuple[int, ...]) -> jax.Array:
        if shape not in arrays:
            drawn = jnp.asarray(rng.standard_normal(shape, np.float32), group.dtype)
            arrays[shape] = jax.device_put(drawn, devices.split)
        return arrays[shape]

    trains = group.direction == "train"
    convs, epilogues = {}, {}
    layers = [x for kind in config.kinds for x in network_layers(kind, config.widths)]
    for layer in dict.fromkeys(map(_conv_key, layers)):
        x, kernel, y = conv_shapes(layer, clips)
        weights = rng.standard_normal(kernel, np.float32) / np.sqrt(layer.weights / layer.outputs)
        args = [clip(x), jax.device_put(weights, devices.replicated), *([clip(y)] * trains)]
        for lowering in lowerings:
            with forms.forced(lowering):
                program = jax.jit(convolution(layer, group.direction)).lower(*args).compile()
            convs[layer, lowering] = Repeated(program, *args)
    for layer in dict.fromkeys(map(_epilogue_key, layers)):
        y = clip((*clips, layer.outputs))
        args = [y, jax.device_put(epilogue_variables(layer), devices.replicated), *([y] * trains)]
        program = jax.jit(epilogue(layer, group.direction)).lower(*args).compile()
        epilogues[layer] = Repeated(program, *args)
    return convs, epilogues


def _conv_key(layer: Layer) -> Layer:
    return layer._replace(name="", normalised=False)


def _epilogue_key(layer: Layer) -> Layer:
    return Layer("", (1, 1, 1), layer.outputs, layer.outputs, layer.normalised, first=False)


def _prepare(programs: Iterable[Runner | Repeated]) -> float:
    """Warms programs up, settles how often a sample calls them; returns the seconds of all."""
    all_s = 0.0
    for program in programs:
        took_s = _call_s(program)
        if took_s < _LONG_S:
            took_s = _call_s(program)
        if isinstance(program, Repeated):
            program.calls = min(max(1, round(_SAMPLE_S / took_s)), _MOST_CALLS)
            took_s *= program.calls
        all_s += took_s
    return all_s


def _call_s(program: Runner | Repeated) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - begin


def _traced(runner: Runner, total: Total) -> Traced:
    """Profiles a network under its best lowering."""
    runner.compile(lowering=total.lowering, options=trace.per_operation_options())
    identity = {"kind": total.kind, **total.group._asdict(), "lowering": total.lowering}
    try:
        profiled = trace.profile(runner.compiled, runner, steps=_TRACED_STEPS)
    except ValueError as error:
        return Traced(**identity, step_ms=0.0, coverage=0.0, modules=(), refused=str(error))
    modules = breakdown.by_module(profiled, count(runner.fn, *runner.args), depth=3)
    return Traced(
        **identity,
        step_ms=profiled.step_ms,
        coverage=profiled.coverage,
        modules=tuple(modules),
    )


def _lowerings(asked: tuple[str, ...]) -> tuple[str, ...]:
    offered = ("auto", *conv3d.FORMS)
    if asked == ("all",):
        return offered
    for lowering in asked:
        if lowering not in offered:
            raise InputError(
                f"--lowerings names {lowering!r}, but there are only {', '.join(offered)} and all."
            )
    return asked


def _stored(workdir: Path) -> Measured:
    """Reads what an earlier run measured."""
    path = workdir / "report.json"
    if not path.exists():
        return Measured()
    rows = json.loads(path.read_text())["measured"]
    totals = [
        Total(**{**row, "durations_ms": tuple(row["durations_ms"])}) for row in rows["totals"]
    ]
    traces = [
        Traced(**{**row, "modules": tuple(ModuleTime(**m) for m in row["modules"])})
        for row in rows["traces"]
    ]
    return Measured(totals, [LayerTime(**row) for row in rows["layers"]], traces)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
