"""What a step takes on more devices than there are: computation plus ring all-reduce.

In a ring of n devices that sum up S bytes, every device sends 2 (n - 1) messages of S / n bytes
to its neighbour (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
workstations", Journal of Parallel and Distributed Computing 69(2), 2009). The model knows no
contention, no slower links between hosts, and no straggler.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """From a device to its neighbour.

    Attributes:
        bytes_per_s: one way.
        latency_s: of a message.
    """

    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True)
class Prediction:
    """One number of devices.

    Attributes:
        devices: how many.
        compute_s: a device's own work in a step.
        sums_s: all sums of a step, one after the other.
        efficiency_low: speed-up over one device as a share of `devices`, where computation waits
            for every sum.
        efficiency_high: where it waits for none until the end.
    """

    devices: int
    compute_s: float
    sums_s: float
    efficiency_low: float
    efficiency_high: float


def ring_s(devices: int, sums_bytes: Sequence[int], link: Link) -> float:
    """Returns the seconds that all-reduces take one after the other.

    Args:
        devices: in the ring.
        sums_bytes: size of every all-reduce.
        link: between neighbours.
    """
    messages = 2 * (devices - 1)
    latency_s = messages * link.latency_s * len(sums_bytes)
    return latency_s + messages / devices * sum(sums_bytes) / link.bytes_per_s


def weak(devices: int, compute_s: float, sums_bytes: Sequence[int], link: Link) -> Prediction:
    """Predicts a batch that grows with the devices.

    Args:
        devices: how many.
        compute_s: one device's step on its own batch.
        sums_bytes: as of `ring_s`, for a step.
        link: between neighbours.
    """
    return _prediction(devices, compute_s, sums_bytes, link)


def strong(devices: int, compute_s: float, sums_bytes: Sequence[int], link: Link) -> Prediction:
    """Predicts a batch that the devices divide; its computation is taken to divide as well.

    Args:
        devices: how many.
        compute_s: one device's step on the whole batch.
        sums_bytes: as of `ring_s`, for a step.
        link: between neighbours.
    """
    return _prediction(devices, compute_s / devices, sums_bytes, link)


def _prediction(
    devices: int, compute_s: float, sums_bytes: Sequence[int], link: Link
) -> Prediction:
    """Without sums the devices would be fully used, so the rest of a step is what is lost."""
    sums_s = ring_s(devices, sums_bytes, link)
    return Prediction(
        devices=devices,
        compute_s=compute_s,
        sums_s=sums_s,
        efficiency_low=compute_s / (compute_s + sums_s),
        efficiency_high=compute_s / max(compute_s, sums_s),
    )
