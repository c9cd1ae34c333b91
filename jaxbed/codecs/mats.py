"""Any pressure mat in one canonical frame, and back.

R rows, C columns. The canonical frame is the bed seen from above: row 0 at the head, not
mirrored (a supine person's right arm lies on the left of the map), and an empty mat reads 0.
"""

import dataclasses
from typing import Literal, TypeVar

import numpy as np

Array = TypeVar("Array")
"""A NumPy or a JAX array: the functions take either and return its like."""


@dataclasses.dataclass(frozen=True)
class Mounting:
    """How a mat's readings are stored.

    Attributes:
        head: which end of the bed row 0 lies at: "up" for the head, "down" for the feet.
        mirrored: whether the stored map is a mirror image of the bed seen from above. A mat
            that is only turned by 180 degrees is not mirrored.
        baseline: what a cell that carries nothing reads, >= 0, in raw counts.
    """

    head: Literal["up", "down"]
    mirrored: bool
    baseline: float = 0.0

    def __post_init__(self):
        if self.head not in ("up", "down"):
            raise ValueError(f"head must be 'up' or 'down', got {self.head!r}")


def to_canonical(raw: Array, mounting: Mounting) -> Array:
    """Brings raw readings into the canonical frame.

    Args:
        raw: real[...,R,C], readings as stored.
        mounting: how they are stored.

    Returns:
        f32[...,R,C] >= 0: turned, unmirrored, the baseline removed. What reads below the
        baseline is noise of an empty cell and becomes 0.
    """
    return _turn(raw.astype(np.float32) - mounting.baseline, mounting).clip(0)


def from_canonical(pressure: Array, mounting: Mounting) -> Array:
    """Stores canonical maps the way a mat does: undoes `to_canonical`.

    Args:
        pressure: f32[...,R,C] >= 0, in the canonical frame.
        mounting: how the mat stores its readings.

    Returns:
        f32[...,R,C] >= baseline. Exactly the readings `to_canonical` was given, where those
        were at or above the baseline.
    """
    return _turn(pressure.astype(np.float32), mounting) + mounting.baseline


def _turn(maps: Array, mounting: Mounting) -> Array:
    """Turns and mirrors maps between a mat's frame and the canonical one; its own inverse."""
    head_down = mounting.head == "down"
    if head_down:
        maps = maps[..., ::-1, :]
    # Half a turn flips the columns as well, a mirror flips them (back).
    if head_down != mounting.mirrored:
        maps = maps[..., ::-1]
    return maps
