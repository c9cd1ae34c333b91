"""Outlines of body parts on a pressure mat: where a head, a torso or a limb lies.

N points, P vertices. Places are (x to the right, y to the feet) in mm from the outer corner of
the mat's first sensor at the top left, in the canonical frame, as the joints of `pressure` are.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxbed.errors import InputError, short

PARTS = ("head", "torso", "upper_arms", "lower_arms", "upper_legs", "lower_legs")
"""Body parts; lower arms include the hands, upper legs the buttocks, lower legs the feet."""

FILE = "segments.json"
_FAR_MM, _MOST_BYTES = 1e6, 32_000_000


@dataclasses.dataclass(frozen=True)
class Outline:
    """One body part, or one of a pair, of somebody in one pose.

    Attributes:
        subject: who it is, as in `PressureMaps.subject`; "" where that is not told.
        pose: how they lie, one of `PressureMaps.label_names`.
        part: one of PARTS.
        corners_mm: f32[P,2], P >= 3, the vertices in order; the last one joins the first.
    """

    subject: str
    pose: str
    part: str
    corners_mm: np.ndarray


def write_outlines(outlines: Sequence[Outline], folder: Path) -> None:
    """Writes outlines beside the prepared sets of a folder, as segments.json."""
    segments = [
        {
            "subject": outline.subject,
            "pose": outline.pose,
            "part": outline.part,
            "corners_mm": [[round(float(x), 1), round(float(y), 1)] for x, y in outline.corners_mm],
        }
        for outline in outlines
    ]
    text = json.dumps({"segments": segments}, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_outlines(folder: Path) -> tuple[Outline, ...]:
    """Reads the outlines beside the prepared sets of a folder.

    Args:
        folder: the --out of the command that prepared the sets.

    Raises:
        InputError: if there are none, or if the file is damaged.
    """
    path = Path(folder) / FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(_damaged(path, ValueError(f"more than {_MOST_BYTES:,} bytes")))
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} holds no {FILE}; make it with `python -m data_prep.popu --raw PoPu --out "
            f"{folder}` from data that have outlines of body parts."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(_damaged(path, error)) from error
    try:
        return tuple(_outline(segment) for segment in json.loads(text)["segments"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(_damaged(path, error)) from error


def part_at(points_mm: np.ndarray, outlines: Sequence[Outline]) -> np.ndarray:
    """Tells which body part each point lies in.

    Args:
        points_mm: f32[N,2], (x, y).
        outlines: those of one person in one pose.

    Returns:
        i32[N], index into PARTS; -1 beside the body and where a coordinate is NaN. Where
        outlines overlap, the smallest one counts: an arm lies on the torso.
    """
    part = np.full(len(points_mm), -1, np.int32)
    for outline in sorted(outlines, key=lambda outline: -_area(outline.corners_mm)):
        part[_inside(np.asarray(points_mm), outline.corners_mm)] = PARTS.index(outline.part)
    return part


def _inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Tells whether points lie in a polygon: a ray to the right leaves it an odd number of times.

    Args:
        points: f32[N,2].
        corners: f32[P,2].

    Returns:
        bool[N].
    """
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)
    where = x0 + (y - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
    return (crosses & (x < where)).sum(axis=1) % 2 == 1


def _area(corners: np.ndarray) -> float:
    """Measures a polygon that does not cross itself, by the shoelace formula."""
    x, y = corners.astype(np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _outline(segment: dict) -> Outline:
    """Takes a segment for what it is. Raises ValueError, KeyError or TypeError."""
    corners = np.array(segment["corners_mm"], np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"an outline has corners of shape {corners.shape}")
    if not (np.abs(corners) < _FAR_MM).all():
        raise ValueError("an outline has corners that are no places on a mat")
    if segment["part"] not in PARTS:
        raise ValueError(f"{segment['part']!r} is no body part")
    return Outline(
        str(segment["subject"]), str(segment["pose"]), segment["part"], corners.astype(np.float32)
    )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} does not hold outlines of body parts ({type(error).__name__}: {short(error)}); "
        "remove its folder and run the command that prepared it again."
    )
