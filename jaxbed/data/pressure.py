"""Sets of pressure maps, held in memory.

N maps, R rows, C columns, J joints. Every map is in the canonical frame: seen from above,
row 0 at the head, not mirrored (a supine person's right arm lies on the left of the map),
baseline removed, so that an empty mat reads 0.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

POSTURES = ("supine", "prone", "left", "right")
"""Whole-body postures; "left" is lying on the left side."""


@dataclasses.dataclass(frozen=True)
class Mat:
    """A pressure mat in the canonical frame.

    Attributes:
        rows: sensor rows, head to foot.
        columns: sensor columns, left to right as seen from above.
        pitch_mm: distance between neighbouring sensors, both ways.
        unit: what a value counts: "count" (uncalibrated) or "kpa".
        full_scale: the value at which maps are clipped before they are scaled to [0, 1].
    """

    rows: int
    columns: int
    pitch_mm: float
    unit: str
    full_scale: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a map in sensors."""
        return self.rows, self.columns


@dataclasses.dataclass(frozen=True)
class PressureMaps:
    """Pressure maps with their labels.

    Attributes:
        name: name of the set, for reports.
        mat: the mat all maps come from.
        pressure: f32[N,R,C] >= 0, in the mat's unit.
        subject: str[N], who lies there; the unit of a split.
        posture: i32[N], index into POSTURES.
        label: i32[N], index into `label_names`: the set's own, finer classes.
        label_names: names of the finer classes.
        joints_mm: f32[N,J,2], (x to the right, y to the feet) from the outer corner of the
            mat's first sensor at the top left; NaN where unknown. None without joints.
        skipped: what was left out on reading and why, one line each.
        extra: what else the set tells of each map, str[N], i32[N] or f32[N] by name, for
            example incline_deg or file; NaN where unknown.
    """

    name: str
    mat: Mat
    pressure: np.ndarray
    subject: np.ndarray
    posture: np.ndarray
    label: np.ndarray
    label_names: tuple[str, ...]
    joints_mm: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pressure)


def scaled(maps: PressureMaps) -> np.ndarray:
    """Clips maps at the mat's full scale and stretches each to [0, 1].

    Returns:
        f32[N,R,C]; a map without any pressure stays 0.

    Source: the EFD paper's min-max scaling. The clip is ours: single sensors read far above
    the rest and would make the body vanish.
    """
    clipped = np.minimum(maps.pressure, maps.mat.full_scale)
    low = clipped.min(axis=(1, 2), keepdims=True)
    span = clipped.max(axis=(1, 2), keepdims=True) - low
    return ((clipped - low) / np.where(span > 0, span, 1)).astype(np.float32)
