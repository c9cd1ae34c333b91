"""Which videos of sleepers there are, and what they show when: by their folders, or by a CSV."""

import math
import re
from pathlib import Path
from typing import NamedTuple

from data_prep import night_labels
from data_prep.night_labels import Label, Row
from data_prep.raw_files import check_name
from jaxbed.errors import InputError

SUFFIXES = (
    *(".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".mts"),
    *(".mjpeg", ".h264", ".h265"),
)
"""How the names of videos end, in small letters."""

_NUMBERED = re.compile(r"(?P<blanket>.*?)[\s_-]*\d*")


class Scene(NamedTuple):
    """A stretch of a video of which the labels hold, in seconds from its first frame."""

    start_s: float
    end_s: float
    label: Label


def found_videos(raw: Path) -> dict[str, list[Scene]]:
    """Finds the videos of a folder SUBJECT/POSTURE/BLANKET_NUMBER and what they show.

    Returns:
        The only scene of each video, by its path within the folder.

    Raises:
        InputError: if there is none, or if a name cannot be understood.
    """
    scenes = {}
    for path in sorted(raw.glob("*/*/*")):
        video = path.relative_to(raw)
        hidden = any(part.startswith((".", "__")) for part in video.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        check_name(video.as_posix(), raw)
        subject, posture, _ = video.parts
        label = Label(
            posture=night_labels.posture(posture, path.parent),
            blanket=night_labels.blanket(_NUMBERED.fullmatch(path.stem)["blanket"], path),
            subject=subject,
        )
        scenes[video.as_posix()] = [Scene(0, math.inf, label)]
    if not scenes:
        raise InputError(
            f"{raw} holds no video such as SUBJECT/POSTURE/on_01.mp4 ({', '.join(SUFFIXES)}); "
            "order the videos so, or tell with --labels what they show."
        )
    return scenes


def listed_videos(labels: Path, raw: Path) -> dict[str, list[Scene]]:
    """Reads which videos of a folder a CSV names and what they show when.

    Returns:
        The scenes of each video in order of time, by its path within the folder.

    Raises:
        InputError: if a line cannot be understood, or if two tell of the same moment.
    """
    scenes: dict[str, list[Scene]] = {}
    for row in night_labels.read_rows(labels, ("video", "subject", "posture")):
        scene = Scene(
            _second(row, "start_s", 0.0), _second(row, "end_s", math.inf), night_labels.label(row)
        )
        if scene.start_s >= scene.end_s:
            raise InputError(
                f"{row.where} has start_s {scene.start_s:g} and end_s {scene.end_s:g}, but must "
                "end after its start; mend it."
            )
        video = night_labels.listed_file(row, "video", raw)
        others = scenes.setdefault(video, [])
        if any(scene.start_s < other.end_s and other.start_s < scene.end_s for other in others):
            raise InputError(
                f"{row.where} names a stretch of {video} that a line above it names as well; let "
                "start_s and end_s tell them apart, or remove a line."
            )
        others.append(scene)
    return {video: sorted(listed) for video, listed in scenes.items()}


def _second(row: Row, column: str, otherwise: float) -> float:
    text = row.cells.get(column, "")
    try:
        value = float(text) if text else otherwise
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise InputError(
            f"{row.where} has {column} {text!r}, which must be a number of seconds; mend it."
        )
    return value
