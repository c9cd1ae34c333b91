"""The files of PoPu: how its two mats store their readings, and its outlines of body parts.

n snapshots, R rows, C columns.
"""

import dataclasses
import json
import re
from typing import Any

import numpy as np

from jaxbed.codecs.mats import Mounting
from jaxbed.data.body_parts import PARTS, Outline
from jaxbed.data.pressure import POSTURES, Mat
from jaxbed.errors import short

POSES = tuple(f"{posture}{variation}" for posture in POSTURES for variation in range(1, 8))
"""The 28 poses; 6 and 7 of each posture are those on a pillow."""

DEAD_BELOW = 20
"""A load only ever raises a reading: a cell that falls so far below its empty one is dead."""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One of the two mats.

    Attributes:
        name: the prepared set's.
        sensor: what its files and keys are called by.
        mat: the mat in the canonical frame.
        mounting: how its readings are stored, once each cell's empty reading is taken off.
        leaking: columns whose readings are not those of what lies there.
    """

    name: str
    sensor: str
    mat: Mat
    mounting: Mounting
    leaking: tuple[int, ...] = ()


# Pitches are estimates, since no file tells them: see README.md.
OVER = Sheet(
    name="popu_over",
    sensor="tactilus",
    mat=Mat(rows=64, columns=27, pitch_mm=25.4, unit="count", full_scale=104.0),
    mounting=Mounting(head="up", mirrored=False),
    leaking=(0,),
)
UNDER = Sheet(
    name="popu_under",
    sensor="sensomatt",
    mat=Mat(rows=12, columns=6, pitch_mm=120.0, unit="count", full_scale=16.0),
    mounting=Mounting(head="down", mirrored=True),
)
SHEETS = (OVER, UNDER)

PRESSURE = re.compile(
    r"(?:.*/)?(?P<sensor>tactilus|sensomatt)_data/(?P<volunteer>[^/]+)/(?P<stem>[^/]+)\.json",
    re.IGNORECASE,
)
SEGMENTS = re.compile(
    r"(?:.*/)?segmentation_data/(?:(?P<volunteer>[^/]+)/)?(?P<pose>[a-z]+\d+)[^/]*\.json",
    re.IGNORECASE,
)

# Where the mat lies in the pictures that the outlines were drawn on, in pixels. No file tells it:
# found by laying the outlines over the pictures that show them.
_PICTURE = (1168, 527)
_MAT_TOP, _MAT_LEFT, _MAT_HEIGHT, _MAT_WIDTH = 31.7, 33.6, 1104.1, 462.2


@dataclasses.dataclass(frozen=True)
class Recording:
    """What one file of a mat holds.

    Attributes:
        file: its path in the data set.
        volunteer: who lies there.
        pose: one of POSES; "empty" for the empty mat; "" where the snapshots are of no use.
        take: which of the three recordings of a pose, from 0.
        readings: i16[n,R,C], the good snapshots as stored.
        frame: i32[n], their numbers.
        read: how many snapshots there are, good or not; a file that cannot be read counts as one.
        sex: of the volunteer; "" where it is not told.
        height_cm: of the volunteer; NaN where it is not told.
        weight_kg: of the volunteer; NaN where it is not told.
        skipped: what was left out and why.
    """

    file: str
    volunteer: str
    pose: str
    take: int
    readings: np.ndarray
    frame: np.ndarray
    read: int
    sex: str = ""
    height_cm: float = np.nan
    weight_kg: float = np.nan
    skipped: tuple[str, ...] = ()


def read_recording(sheet: Sheet, match: re.Match, content: bytes) -> Recording:
    """Reads one file of a mat and keeps its good snapshots.

    Args:
        sheet: the mat.
        match: the file's path, matched by PRESSURE.
        content: the file's.

    Returns:
        The recording, which may be left without a snapshot.
    """
    file = f"{sheet.sensor}_data/{match['volunteer']}/{match['stem']}.json"
    take = re.search("_([0-9]{1,6})$", match["stem"])
    none = Recording(
        file=file,
        volunteer=match["volunteer"],
        pose="",
        take=int(take[1]) if take else 0,
        readings=np.zeros((0, *sheet.mat.size), np.int16),
        frame=np.zeros(0, np.int32),
        read=1,
    )
    try:
        facts = _facts(sheet, match, content)
    except ValueError as error:
        return dataclasses.replace(none, skipped=(f"{file}: {error}",))
    read = len(facts["snapshots"])
    try:
        pose = _pose(facts)
    except ValueError as error:
        return dataclasses.replace(none, read=read, skipped=(f"{file}: {read} snapshots {error}",))
    good, skipped = {}, []
    for number, snapshot in facts["snapshots"].items():
        try:
            if not re.fullmatch("[0-9]{1,6}", number):
                raise ValueError("is not numbered")
            good[int(number)] = _snapshot(sheet, snapshot)
        except ValueError as error:
            skipped.append(f"{file} snapshot {number[:20]!r}: {error}")
    frame = sorted(good)
    return dataclasses.replace(
        none,
        pose=pose,
        readings=np.array([good[n] for n in frame], np.int16).reshape(-1, *sheet.mat.size),
        frame=np.array(frame, np.int32),
        read=read,
        sex=_word(facts.get("sex")),
        height_cm=_number(facts.get("height")),
        weight_kg=_number(facts.get("weight")),
        skipped=tuple(skipped),
    )


def read_outlines(match: re.Match, content: bytes) -> tuple[list[Outline], list[str]]:
    """Reads the outlines of body parts of one file.

    Args:
        match: the file's path, matched by SEGMENTS.
        content: the file's.

    Returns:
        The outlines in mm on the mat over the mattress, and what was left out and why.
    """
    folder = f"{match['volunteer']}/" if match["volunteer"] else ""
    file = f"segmentation_data/{folder}{match.string.rpartition('/')[2]}"
    pose = match["pose"].lower()
    try:
        if pose not in POSES:
            raise ValueError(f"{pose} is none of the 28 poses")
        drawn = _drawn(_json(content))
    except ValueError as error:
        return [], [f"{file}: {error}"]
    outlines, skipped = [], []
    for number, polygon in enumerate(drawn):
        try:
            part, corners_mm = _polygon(polygon)
        except ValueError as error:
            skipped.append(f"{file} outline {number}: {error}")
        else:
            outlines.append(Outline(match["volunteer"] or "", pose, part, corners_mm))
    return outlines, skipped


def _facts(sheet: Sheet, match: re.Match, content: bytes) -> dict[str, Any]:
    """Reads what a file of a mat tells. Raises ValueError telling what is wrong with it."""
    facts = _json(content)
    keys = ("volunteer_id", f"{sheet.sensor}_rows", f"{sheet.sensor}_columns", "snapshots")
    if not isinstance(facts, dict) or any(key not in facts for key in keys):
        raise ValueError(f"lacks one of the keys {', '.join(keys)}")
    if str(facts["volunteer_id"]) != match["volunteer"]:
        raise ValueError(f"is of volunteer {short(facts['volunteer_id'])}, whose folder is another")
    size = (facts[keys[1]], facts[keys[2]])
    if size != sheet.mat.size:
        found = short(f"{size[0]} x {size[1]}")
        raise ValueError(f"is of {found} cells instead of {sheet.mat.size}")
    if not isinstance(facts["snapshots"], dict) or not facts["snapshots"]:
        raise ValueError("holds no snapshots by their numbers")
    return facts


def _pose(facts: dict[str, Any]) -> str:
    """Tells the pose of a recording. Raises ValueError where it is of no use."""
    if "position" not in facts:
        raise ValueError("without a position")
    position = str(facts["position"]).strip().lower()
    if position == "empty":
        return position
    pose = f"{position}{facts.get('variation', '')}"
    if pose not in POSES:
        raise ValueError(f"of '{short(pose)}', which is none of the 28 poses")
    return pose


def _snapshot(sheet: Sheet, snapshot: Any) -> np.ndarray:
    """Reads i16[R,C]. Raises ValueError telling what is wrong with it."""
    key = f"{sheet.sensor}_readings"
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get(key), list):
        raise ValueError(f"lacks {key}")
    values, cells = snapshot[key], sheet.mat.rows * sheet.mat.columns
    if len(values) != cells:
        raise ValueError(f"holds {len(values)} readings instead of {cells}")
    if {type(value) for value in values} != {int} or min(values) < 0 or max(values) > 4095:
        raise ValueError("holds readings that are not whole numbers from 0 to 4095")
    return np.array(values, np.int16).reshape(sheet.mat.size)


def _drawn(tasks: Any) -> list:
    """Finds the polygons in what the drawing tool stored. Raises ValueError without any."""
    task = tasks[0] if isinstance(tasks, list) and len(tasks) == 1 else tasks
    if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
        raise ValueError("lacks the key annotations")
    drawn = [
        polygon
        for annotation in task["annotations"]
        if isinstance(annotation, dict) and isinstance(annotation.get("result"), list)
        for polygon in annotation["result"]
    ]
    if not drawn:
        raise ValueError("holds no outline")
    return drawn


def _polygon(polygon: Any) -> tuple[str, np.ndarray]:
    """Reads a part and f32[P,2] in mm. Raises ValueError telling what is wrong with it."""
    try:
        size = (polygon["original_height"], polygon["original_width"])
        (name,) = polygon["value"]["polygonlabels"]
        share = np.array(polygon["value"]["points"], np.float64) / 100
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError("lacks its size, its label or its points") from error
    part = str(name).lower().replace(" ", "_")
    if part not in PARTS:
        raise ValueError(f"is labelled '{short(name)}', which is no body part")
    if size != _PICTURE:
        found = short(f"{size[0]} x {size[1]}")
        raise ValueError(f"is drawn on {found} pixels instead of {_PICTURE}")
    if share.ndim != 2 or share.shape[1] != 2 or len(share) < 3 or not (abs(share) < 100).all():
        raise ValueError("holds fewer than three points, or some that are no places")
    across = (share[:, 0] * _PICTURE[1] - _MAT_LEFT) / _MAT_WIDTH * OVER.mat.columns
    down = (share[:, 1] * _PICTURE[0] - _MAT_TOP) / _MAT_HEIGHT * OVER.mat.rows
    return part, np.stack([across, down], axis=1).astype(np.float32) * OVER.mat.pitch_mm


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error


def _word(value: Any) -> str:
    """Takes a short text without control characters for what it is, and all else for nothing."""
    is_word = isinstance(value, str) and value.isprintable() and len(value) <= 40
    return value if is_word else ""


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e6 else np.nan
