"""Any pressure mat in one canonical frame, and back.

R rows, C columns, H and W those of another mat. The canonical frame is the bed seen from above:
row 0 at the head, not mirrored (a supine person's right arm lies on the left of the map), and an
empty mat reads 0.

A network trained on one mat meets others in further steps, each a function of its own so that a
study can leave any of them out; in this order: `median_filtered`, `resampled`, `centred`,
`square_rooted`. They are ours; no paper that this project rebuilds has them.
"""

import dataclasses
from typing import Literal, TypeVar

import numpy as np
from scipy import ndimage

Array = TypeVar("Array")
"""A NumPy or a JAX array: the two ways of the canonical frame take either and return its like."""

Pitch = float | tuple[float, float]
"""Distance between neighbouring cells in mm: both ways, or (down, across)."""


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


def median_filtered(maps: np.ndarray, cells: int = 3) -> np.ndarray:
    """Replaces every reading by the median of its neighbourhood: hot and dead cells vanish.

    Args:
        maps: real[...,R,C].
        cells: side of the neighbourhood, odd. A limb narrower than half of it vanishes as well.

    Returns:
        f32[...,R,C]; beyond the border the readings are mirrored.
    """
    size = (1,) * (maps.ndim - 2) + (cells, cells)
    return ndimage.median_filter(maps.astype(np.float32), size)


def resampled(
    maps: np.ndarray,
    pitch_mm: Pitch,
    size: tuple[int, int],
    to_pitch_mm: Pitch,
    *,
    corner_mm: tuple[float, float] | None = None,
) -> np.ndarray:
    """Reads maps of one mat on the grid of another that lies on the same bed.

    Where the other mat is coarser, a cell is the mean over its area; where it is as fine or
    finer, the readings are interpolated linearly at its centre. Off the first mat nothing presses.

    Args:
        maps: real[...,R,C] >= 0, in the canonical frame.
        pitch_mm: of the mat they come from.
        size: (H, W) of the other mat.
        to_pitch_mm: of the other mat.
        corner_mm: (down, across), where the outer corner of the other mat's first cell lies, from
            that of this mat's. (0, 0) puts corner on corner. None puts middle on middle:
            `centring_corner`.

    Returns:
        f32[...,H,W]: pressure, so that a body reads the same on either mat whatever the area
        of their cells.
    """
    pitches, to_pitches = _both_ways(pitch_mm), _both_ways(to_pitch_mm)
    if corner_mm is None:
        corner_mm = centring_corner(maps.shape[-2:], pitch_mm, size, to_pitch_mm)
    down, across = (
        _weights(*axis)
        for axis in zip(maps.shape[-2:], pitches, size, to_pitches, corner_mm, strict=True)
    )
    return down @ maps.astype(np.float32) @ across.T


def centring_corner(
    size: tuple[int, int], pitch_mm: Pitch, to_size: tuple[int, int], to_pitch_mm: Pitch
) -> tuple[float, float]:
    """Tells where a mat begins whose middle lies on that of another one.

    Args:
        size: (R, C) of the mat that is measured from.
        pitch_mm: of that mat.
        to_size: (H, W) of the mat laid on its middle.
        to_pitch_mm: of that mat.

    Returns:
        (down, across) in mm between their first corners, to a whole cell of the finer mat: mats
        of one pitch are then padded or cropped and no reading is mixed with the next. A place
        (x, y) on the first mat is (x - across, y - down) on the other.
    """
    corner = []
    for cells, pitch, to_cells, to_pitch in zip(
        size, _both_ways(pitch_mm), to_size, _both_ways(to_pitch_mm), strict=True
    ):
        finer = min(pitch, to_pitch)
        corner.append(round((cells * pitch - to_cells * to_pitch) / 2 / finer) * finer)
    return corner[0], corner[1]


def centring_shift(maps: np.ndarray) -> np.ndarray:
    """Tells how far the centre of pressure lies from the middle of the mat.

    Args:
        maps: real[...,R,C] >= 0. Filter hot cells first: they count like a body.

    Returns:
        i64[...,2], (down, across): the whole cells that bring it there; 0 for an empty mat.
    """
    total = maps.sum(axis=(-2, -1), dtype=np.float64)
    shift = []
    for axis in (-2, -1):
        cells = np.arange(maps.shape[axis])
        moment = maps.sum(axis=-3 - axis, dtype=np.float64) @ cells
        middle = (len(cells) - 1) / 2
        shift.append(middle - np.where(total > 0, moment / np.where(total > 0, total, 1), middle))
    return np.rint(np.stack(shift, axis=-1)).astype(np.int64)


def shifted(maps: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Moves maps by whole cells. What leaves the mat is lost, what enters reads 0.

    Args:
        maps: real[...,R,C].
        by: int[...,2], (down, across).

    Returns:
        real[...,R,C].
    """
    for axis in (-2, -1):
        cells = maps.shape[axis]
        source = np.arange(cells) - by[..., axis, None]
        source = np.expand_dims(source, -3 - axis)
        there = (source >= 0) & (source < cells)
        taken = np.take_along_axis(maps, np.clip(source, 0, cells - 1), axis=axis)
        maps = np.where(there, taken, maps.dtype.type(0))
    return maps


def centred(maps: np.ndarray) -> np.ndarray:
    """Moves each map's centre of pressure to the middle of the mat.

    Args:
        maps: real[...,R,C] >= 0.

    Returns:
        real[...,R,C].
    """
    return shifted(maps, centring_shift(maps))


def square_rooted(maps: np.ndarray) -> np.ndarray:
    """Takes the root of every reading: a head or an arm counts beside the hips.

    Args:
        maps: real[...,R,C] >= 0.

    Returns:
        f32[...,R,C].
    """
    return np.sqrt(maps.astype(np.float32))


def _both_ways(pitch_mm: Pitch) -> tuple[float, float]:
    return pitch_mm if isinstance(pitch_mm, tuple) else (pitch_mm, pitch_mm)


def _weights(cells: int, pitch: float, to_cells: int, to_pitch: float, corner: float) -> np.ndarray:
    """Weighs the cells of one row of a mat in those of another: f32[to_cells,cells]."""
    # In cells of the first mat, so that equal pitches give weights of exactly 0 and 1.
    each, starts = to_pitch / pitch, np.arange(cells)
    low = (corner / pitch + np.arange(to_cells) * each)[:, None]
    if each > 1:
        shared = np.minimum(low + each, starts + 1) - np.maximum(low, starts)
        weights = shared.clip(0) / each
    else:
        centre = low + each / 2 - 0.5
        on_mat = (centre >= -0.5) & (centre < cells - 0.5)
        weights = (1 - abs(centre.clip(0, cells - 1) - starts)).clip(0) * on_mat
    return weights.astype(np.float32)
