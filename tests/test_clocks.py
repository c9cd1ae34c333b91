"""Clocks against made-up time, counters and memory against programs of known size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.clocks import (
    RecompilationCounter,
    Timing,
    compare,
    compile_timed,
    memory_of,
    time_step,
)


class Machine:
    """A clock, and work that takes a known time on it."""

    def __init__(self):
        self.now_s = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def work(self, name: str, durations_ms):
        durations = iter(durations_ms)

        def run():
            self.log.append(name)
            self.now_s += next(durations) / 1000

        return run


def test_median_and_p90_are_those_of_the_calls():
    timing = Timing(tuple(float(ms) for ms in range(11)))
    assert (timing.median_ms, timing.p90_ms, timing.n) == (5.0, 9.0, 11)


def test_the_first_calls_are_not_kept():
    machine = Machine()
    run = machine.work("step", [5000, 900, 10, 30, 20])
    timing = time_step(run, calls=3, warm_up=2, clock=machine.clock)
    assert timing.durations_ms == pytest.approx((10, 30, 20))


def test_a_call_is_waited_for():
    class Pending:
        done = False

        def block_until_ready(self):
            self.done = True
            return self

    outputs = []

    def run():
        outputs.append({"loss": Pending()})
        return outputs[-1]

    time_step(run, calls=2, warm_up=1)
    compare({"a": run}, rounds=1, warm_up=1)
    assert len(outputs) == 5
    assert all(output["loss"].done for output in outputs)


def test_arguments_reach_the_function():
    timing = time_step(jax.jit(lambda x, y: x @ y), jnp.ones((2, 3)), jnp.ones((3, 2)), calls=2)
    assert timing.n == 2
    assert min(timing.durations_ms) > 0


def test_every_round_calls_every_variant_once_and_not_always_in_the_same_order():
    machine = Machine()
    variants = {name: machine.work(name, [1.0] * 50) for name in "abc"}
    compare(variants, rounds=20, warm_up=2, clock=machine.clock)
    assert machine.log[:6] == list("aabbcc")
    rounds = [tuple(machine.log[i : i + 3]) for i in range(6, 66, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_the_ratio_survives_a_machine_that_slows_down(rng):
    machine = Machine()
    # Both variants suffer the same drift from 1 to 3 and noise of their own.
    drift = np.linspace(1, 3, 100)
    base = 10 * drift * rng.lognormal(0, 0.02, 100)
    half = 5 * drift * rng.lognormal(0, 0.02, 100)
    variants = {"base": machine.work("base", base), "half": machine.work("half", half)}
    result = compare(variants, rounds=100, warm_up=0, clock=machine.clock)
    assert list(result) == ["base", "half"]
    yardstick, other = result["base"], result["half"]
    assert (yardstick.ratio, yardstick.ratio_low, yardstick.ratio_high) == (1, 1, 1)
    assert other.timing.durations_ms == pytest.approx(half)
    assert other.ratio == pytest.approx(np.median(half) / np.median(base))
    assert 0.45 < other.ratio_low < 0.5 < other.ratio_high < 0.55


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(rng):
    covered = 0
    for trial in range(60):
        machine = Machine()
        variants = {
            "base": machine.work("base", rng.lognormal(0, 0.2, 30)),
            "slow": machine.work("slow", 1.3 * rng.lognormal(0, 0.2, 30)),
        }
        slow = compare(variants, rounds=30, warm_up=0, seed=trial, clock=machine.clock)["slow"]
        covered += slow.ratio_low <= 1.3 <= slow.ratio_high
    assert covered >= 51  # 57 expected; 51 is three standard deviations below


def test_the_same_seed_gives_the_same_interval(rng):
    durations = rng.lognormal(0, 0.3, (2, 15))

    def once(seed):
        machine = Machine()
        variants = {"a": machine.work("a", durations[0]), "b": machine.work("b", durations[1])}
        return compare(variants, rounds=15, warm_up=0, seed=seed, clock=machine.clock)["b"]

    assert once(1) == once(1)
    assert once(1).ratio == pytest.approx(once(2).ratio)
    assert once(1).ratio_low != pytest.approx(once(2).ratio_low)


def test_compiling_runs_nothing_and_keeps_the_options_of_jit():
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    compiled, seconds = compile_timed(step, jax.ShapeDtypeStruct((64, 64), jnp.float32))
    assert seconds > 0
    x = jnp.zeros((64, 64))
    np.testing.assert_array_equal(compiled(x), np.ones((64, 64)))
    assert x.is_deleted()
    plain, _ = compile_timed(lambda x: x + 1, x := jnp.zeros(3))
    np.testing.assert_array_equal(plain(x), np.ones(3))


def test_only_what_compiles_inside_the_block_counts():
    double = jax.jit(lambda x: 2 * x)
    short, long = np.zeros(3, np.float32), np.zeros(4, np.float32)
    with RecompilationCounter() as first:
        double(short)
    with RecompilationCounter() as again:
        double(short)
    with RecompilationCounter() as other_shape:
        double(short)
        double(long)
    jax.jit(lambda x: 3 * x)(short)
    assert (first.count, again.count, other_shape.count) == (1, 0, 1)


def test_memory_is_arguments_outputs_and_temporaries_less_what_is_reused():
    kib = 1024
    x = jax.ShapeDtypeStruct((256, kib), jnp.float32)  # 1 MiB
    kept, _ = compile_timed(jax.jit(lambda x: x + 1), x)
    donated, _ = compile_timed(jax.jit(lambda x: x + 1, donate_argnums=0), x)
    assert memory_of(kept) == 2 * kib * kib
    assert memory_of(donated) == kib * kib
    # The inner product, 256 x 256, is no output and has to lie somewhere.
    busy, _ = compile_timed(lambda x: (x @ x.T) @ x, x)
    assert memory_of(busy) >= 2 * kib * kib + 256 * kib
