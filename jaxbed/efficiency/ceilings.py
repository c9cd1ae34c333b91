"""What the machine can do at best, measured, and what that says about a program.

Two ceilings bound every program: arithmetic and memory traffic (Williams, Waterman and
Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009). Both are
measured here through JAX on all devices at once, with the operations that come nearest to
them; a hand-written kernel may do better.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxbed.efficiency.clocks import time_step

# Side of the square matrices: large enough to reach the ceiling, a few milliseconds each.
_SIDE = {"cpu": 1024}
_SIDE_ACCELERATOR = 8192
_COPY_BYTES = {"cpu": 2**27}
_COPY_BYTES_ACCELERATOR = 2**30


@dataclass(frozen=True)
class Ceilings:
    """The most that all devices together were seen to do.

    Attributes:
        flop_per_s: dtype name to the rate of a large matrix product, 2 FLOP per MAC.
        bytes_per_s: read plus written, while a large array is copied.
    """

    flop_per_s: dict[str, float]
    bytes_per_s: float


@dataclass(frozen=True)
class Bound:
    """The least time a program can take.

    Attributes:
        arithmetic_ms: by its FLOPs.
        memory_ms: by its bytes.
    """

    arithmetic_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The larger of the two: at best they overlap entirely."""
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def by(self) -> Literal["arithmetic", "memory"]:
        """Which of the two it is."""
        return "arithmetic" if self.arithmetic_ms >= self.memory_ms else "memory"


def measure(
    dtypes: Sequence[DTypeLike] = (jnp.float32, jnp.bfloat16),
    *,
    side: int | None = None,
    copy_bytes: int | None = None,
    calls: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> Ceilings:
    """Measures both ceilings: the best of some calls.

    Args:
        dtypes: of the matrices. Their products have JAX's default precision, as those of the
            networks do.
        side: of each device's square matrices; None: by backend.
        copy_bytes: of each device's part of the array; None: by backend.
        calls: of every measurement.
        clock: seconds, monotonic.
    """
    backend = jax.default_backend()
    side = side or _SIDE.get(backend, _SIDE_ACCELERATOR)
    copy_bytes = copy_bytes or _COPY_BYTES.get(backend, _COPY_BYTES_ACCELERATOR)
    best = partial(_best_s, calls=calls, clock=clock)
    devices = jax.device_count()
    flop_per_s = {}
    for dtype in dtypes:
        matrices = _on_all_devices((devices, side, side), dtype)
        seconds = best(partial(jax.jit(jnp.matmul), matrices, matrices))
        flop_per_s[jnp.dtype(dtype).name] = devices * 2 * side**3 / seconds
    seconds = best(_Copy(_on_all_devices((devices, copy_bytes // 4), jnp.float32)))
    return Ceilings(flop_per_s, bytes_per_s=devices * 2 * copy_bytes / seconds)


def time_bound(
    flops: float, traffic_bytes: float, *, flop_per_s: float, bytes_per_s: float
) -> Bound:
    """Returns the least time a program can take under two ceilings.

    Args:
        flops: what it has to compute. For a bound that nothing can beat: the exact count.
        traffic_bytes: what it has to read and write; at least its arguments and results.
        flop_per_s: the ceiling of its dtype.
        bytes_per_s: the ceiling of the memory.
    """
    return Bound(1e3 * flops / flop_per_s, 1e3 * traffic_bytes / bytes_per_s)


def ridge(ceilings: Ceilings, dtype: str) -> float:
    """Returns the FLOPs per byte above which arithmetic, not memory, is the bound."""
    return ceilings.flop_per_s[dtype] / ceilings.bytes_per_s


def mfu(flops_nominal: float, ms: float, *, flop_per_s: float) -> float:
    """Returns the model FLOP utilisation: FLOPs of the model per second, over the ceiling.

    The FLOPs are the nominal ones of the mathematics, as the papers count: every kernel tap,
    nothing that is recomputed. A lowering that skips the padding can therefore exceed 1.

    Args:
        flops_nominal: of the work that took `ms`.
        ms: its duration.
        flop_per_s: the ceiling of its dtype.

    Source: Chowdhery et al., "PaLM: scaling language modeling with Pathways", JMLR 24, 2023,
    appendix B.
    """
    return flops_nominal / (ms / 1e3) / flop_per_s


class _Copy:
    """Rewrites one array again and again: a fresh result would measure page faults."""

    def __init__(self, array: jax.Array):
        self._array = array
        self._step = jax.jit(jnp.negative, donate_argnums=0)

    def __call__(self) -> jax.Array:
        self._array = self._step(self._array)
        return self._array


def _on_all_devices(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Returns random numbers, split over the devices along the first axis.

    Numbers that are all alike would flatter a chip whose clock follows its power.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("device"))
    draw = jax.jit(jax.random.uniform, static_argnums=(1, 2), out_shardings=split)
    return draw(jax.random.key(0), shape, dtype)


def _best_s(fn: Callable[[], jax.Array], *, calls: int, clock: Callable[[], float]) -> float:
    return min(time_step(fn, calls=calls, clock=clock).durations_ms) / 1e3
