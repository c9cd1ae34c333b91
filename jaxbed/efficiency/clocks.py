"""Wall-clock time of compiled functions, alone and against each other, and their memory.

JAX returns before the device is done, so every call is waited for. The first calls compile
and warm caches and are not kept. The speed of a shared machine drifts by more than most
differences of interest, so variants are measured in turns (A B C, B A C, ...) and stated as
ratios, never as figures from separate runs.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """Durations of the same work, done again and again.

    Attributes:
        durations_ms: one per call, in the order of the calls.
    """

    durations_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The middle duration."""
        return float(np.median(self.durations_ms))

    @property
    def p90_ms(self) -> float:
        """The duration that nine calls in ten stay below."""
        return float(np.percentile(self.durations_ms, 90))

    @property
    def n(self) -> int:
        """The number of calls."""
        return len(self.durations_ms)


@dataclass(frozen=True)
class Comparison:
    """One variant beside the first of its comparison.

    Attributes:
        timing: its own durations.
        ratio: its median over the first variant's; below 1 is faster.
        ratio_low: lower end of the 95 % bootstrap interval of `ratio`.
        ratio_high: upper end.
    """

    timing: Timing
    ratio: float
    ratio_low: float
    ratio_high: float


def compile_timed(fn: Callable, *args: Any) -> tuple[jax.stages.Compiled, float]:
    """Compiles `fn` for arguments like these and says how long that took.

    Tracing and lowering are included. A function that this process compiled before, or
    whose program is in the persistent compilation cache, takes next to no time: measure
    it first, with the cache off.

    Args:
        fn: a function, or one that `jax.jit` made, whose options are kept.
        *args: arrays or `jax.ShapeDtypeStruct`; nothing is executed.

    Returns:
        The executable and the seconds.
    """
    jitted = fn if hasattr(fn, "lower") else jax.jit(fn)
    begin = time.perf_counter()
    compiled = jitted.lower(*args).compile()
    return compiled, time.perf_counter() - begin


def time_step(
    fn: Callable,
    *args: Any,
    calls: int = 20,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Measures calls of `fn(*args)`, each waited for.

    A step that donates its state cannot be called twice on the same one: pass a closure
    that keeps the state it got back.

    Args:
        fn: a compiled function, or one that compiles while warming up.
        *args: its arguments, on the device already if their transfer is not to count.
        calls: calls to measure, at least 1.
        warm_up: calls before them that are not kept.
        clock: seconds, monotonic.
    """
    for _ in range(warm_up):
        jax.block_until_ready(fn(*args))
    return Timing(tuple(_duration_ms(fn, args, clock) for _ in range(calls)))


def compare(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 20,
    warm_up: int = 3,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Comparison]:
    """Measures variants in turns and each one's ratio to the first.

    A round calls every variant once, in an order of its own, so that drift of the machine
    and what one variant leaves in the caches fall on all of them alike. The interval
    resamples whole rounds, which keeps what was measured together together.

    Args:
        variants: name to a function without arguments; the first is the yardstick.
        rounds: measured calls of every variant, at least 1.
        warm_up: calls of every variant before them that are not kept.
        seed: of the orders and of the resampling.
        clock: seconds, monotonic.

    Returns:
        Name to comparison, in the order given; the first one's ratio is 1.
    """
    rng = np.random.default_rng(seed)
    functions = list(variants.values())
    for fn in functions:
        for _ in range(warm_up):
            jax.block_until_ready(fn())
    durations_ms = np.empty((len(functions), rounds))
    for turn in range(rounds):
        for variant in rng.permutation(len(functions)):
            durations_ms[variant, turn] = _duration_ms(functions[variant], (), clock)
    return {
        name: beside(durations_ms[0], own, seed=seed)
        for name, own in zip(variants, durations_ms, strict=True)
    }


def beside(first_ms: np.ndarray, own_ms: np.ndarray, *, seed: int = 0) -> Comparison:
    """States one variant's durations beside another's that were measured in the same rounds.

    Args:
        first_ms: f64[n], the yardstick's.
        own_ms: f64[n], the variant's, in the same order.
        seed: of the resampling.
    """
    rounds = len(own_ms)
    picks = np.random.default_rng(seed).integers(rounds, size=(_RESAMPLES, rounds))
    ratios = np.median(own_ms[picks], axis=1) / np.median(first_ms[picks], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Comparison(
        timing=Timing(tuple(own_ms.tolist())),
        ratio=float(np.median(own_ms) / np.median(first_ms)),
        ratio_low=float(low),
        ratio_high=float(high),
    )


class RecompilationCounter:
    """Counts the programs that are compiled inside a `with` block.

        with RecompilationCounter() as compilations:
            step(state, batch)
        assert compilations.count == 0

    Small programs that eager operations compile count too, and so does one that is loaded
    from the persistent cache. Other threads are not told apart.
    """

    def __init__(self):
        self.count = 0

    def __enter__(self) -> "RecompilationCounter":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_s: float, **_: Any) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"


def memory_of(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes one device needs to run an executable once.

    Arguments, outputs and temporaries, less the outputs that reuse donated arguments. The
    peak that the executable itself reports leaves out the temporaries on CPU.
    """
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _duration_ms(fn: Callable, args: tuple, clock: Callable[[], float]) -> float:
    begin = clock()
    jax.block_until_ready(fn(*args))
    return 1000 * (clock() - begin)
