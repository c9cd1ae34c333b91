"""What was measured of the regression networks, row by row.

A group is what was measured in turns: one pass with one batch size in one dtype.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxbed.efficiency.breakdown import ModuleTime
from jaxbed.efficiency.clocks import Timing


class Group(NamedTuple):
    """What was measured in turns."""

    direction: str
    batch_size: int
    dtype: str


@dataclass(frozen=True)
class Total:
    """One network under one lowering.

    Attributes:
        kind: of the network.
        direction: "forward" or "train".
        batch_size: clips per call.
        dtype: computed in.
        lowering: of the convolutions.
        params: number of parameters.
        macs_nominal: of one call, every tap.
        macs_exact: of one call, taps on padding left out.
        conv_bytes: that the convolutions have to move, layer by layer.
        norm_bytes: that normalisation and ReLU move beside, if they are not fused.
        bound_ms: least time, layer by layer, normalisation and ReLU fused.
        bound_unfused_ms: least time if they are not.
        nominal_ms: least time, fused, if taps on padding are computed too.
        nominal_unfused_ms: least time of both.
        memory_bytes: that one device needs for a call.
        durations_ms: one per call; what is in the same place in another Total of the group was
            measured in the same round.
    """

    kind: str
    direction: str
    batch_size: int
    dtype: str
    lowering: str
    params: int
    macs_nominal: int
    macs_exact: int
    conv_bytes: int
    norm_bytes: int
    bound_ms: float
    bound_unfused_ms: float
    nominal_ms: float
    nominal_unfused_ms: float
    memory_bytes: int
    durations_ms: tuple[float, ...]

    @property
    def group(self) -> Group:
        """What it was measured in turns with."""
        return Group(self.direction, self.batch_size, self.dtype)

    @property
    def ms(self) -> float:
        """Median duration."""
        return Timing(self.durations_ms).median_ms


@dataclass(frozen=True)
class LayerTime:
    """One layer of one network under one lowering, measured alone.

    Attributes:
        kind: as in Total, and so are direction, batch_size, dtype, lowering.
        layer: its module.
        kernel: taps in frames, height and width, such as "1x3x1".
        inputs: channels.
        outputs: channels.
        params: number of parameters, those of the normalisation included.
        macs_nominal: as in Total.
        macs_exact: as in Total.
        conv_bytes: as in Total.
        norm_bytes: as in Total.
        bound_ms: of the convolution.
        bound_unfused_ms: of convolution, normalisation and ReLU, not fused.
        arithmetic_ms: what the MACs alone take under the ceiling.
        conv_ms: median of the convolution.
        norm_ms: median of what follows it: bias, normalisation and ReLU.
    """

    kind: str
    direction: str
    batch_size: int
    dtype: str
    lowering: str
    layer: str
    kernel: str
    inputs: int
    outputs: int
    params: int
    macs_nominal: int
    macs_exact: int
    conv_bytes: int
    norm_bytes: int
    bound_ms: float
    bound_unfused_ms: float
    arithmetic_ms: float
    conv_ms: float
    norm_ms: float

    @property
    def group(self) -> Group:
        """What it was measured in turns with."""
        return Group(self.direction, self.batch_size, self.dtype)

    @property
    def gflop_per_s(self) -> float:
        """Exact FLOPs of the convolution over its time."""
        return 2 * self.macs_exact / self.conv_ms / 1e6

    @property
    def intensity(self) -> float:
        """Exact FLOPs of the convolution per byte it has to move."""
        return 2 * self.macs_exact / self.conv_bytes

    @property
    def bound_fraction(self) -> float:
        """The convolution's least time over its time."""
        return self.bound_ms / self.conv_ms


@dataclass(frozen=True)
class Traced:
    """Where a profile says that the time of a network goes.

    Attributes:
        kind: as in Total, and so are direction, batch_size, dtype, lowering.
        step_ms: with operations kept apart, which takes longer than otherwise.
        coverage: share of it that operations explain.
        modules: the longest first; empty where the profile was refused.
        refused: why.
    """

    kind: str
    direction: str
    batch_size: int
    dtype: str
    lowering: str
    step_ms: float
    coverage: float
    modules: tuple[ModuleTime, ...]
    refused: str = ""


@dataclass
class Measured:
    """All that was measured so far."""

    totals: list[Total] = field(default_factory=list)
    layers: list[LayerTime] = field(default_factory=list)
    traces: list[Traced] = field(default_factory=list)

    @property
    def groups(self) -> list[Group]:
        """In the order they were measured."""
        return list(dict.fromkeys(total.group for total in self.totals))

    def add(self, other: "Measured") -> None:
        """Takes over another's rows."""
        self.totals += other.totals
        self.layers += other.layers
        self.traces += other.traces


def best(totals: Iterable[Total], group: Group) -> dict[str, Total]:
    """Returns each kind's fastest lowering in a group."""
    fastest: dict[str, Total] = {}
    for total in totals:
        known = fastest.get(total.kind)
        if total.group == group and (known is None or total.ms < known.ms):
            fastest[total.kind] = total
    return fastest


def in_lax(totals: Iterable[Total], group: Group) -> dict[str, Total]:
    """Returns each kind's total under plain lax, empty where that was not measured."""
    return {t.kind: t for t in totals if t.group == group and t.lowering == "lax"}


def layers_of(measured: Measured, total: Total) -> list[LayerTime]:
    """Returns the layers of a network under its lowering, in their order."""
    return [
        row
        for row in measured.layers
        if (row.group, row.kind, row.lowering) == (total.group, total.kind, total.lowering)
    ]
