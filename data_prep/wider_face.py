"""Prepares photographs with faces in the layout of WIDER FACE as `wider_face`.

Source: http://shuoyang1213.me/WIDERFACE (Yang et al., "WIDER FACE: a face detection benchmark",
CVPR 2016), for research; the authors ask for a citation and name no licence.

    python -m data_prep.wider_face --raw WIDER_train --out prepared/wider_face

RAW holds images/EVENT/*.jpg. Labels are either those of the authors, wider_face_train_bbx_gt.txt
(a file's name, the number of faces, a line for each: left, top, width, height, six attributes), or
label.txt of RetinaFace, which has five landmarks too ("# FILE", then lines of left, top, width,
height, five times x, y and a flag, blur). Faces that the authors call invalid, that are smaller
than --least-px in the prepared image or do not fit into --most-faces are left out and counted, as
are lines that cannot be understood.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.infant_danger import fitted, read_colour
from data_prep.night_images import check_size, silence
from jaxbed.cli import run
from jaxbed.data.depth import Size
from jaxbed.data.infant_danger import FaceImages
from jaxbed.errors import InputError

NAME = "wider_face"
HOMEPAGE = "http://shuoyang1213.me/WIDERFACE"
_LISTS = ("label.txt", "wider_face_*_bbx_gt.txt")
_ATTRIBUTES = 6
_INVALID = 3  # place among the attributes


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the photographs lie and where the prepared set goes."""

    raw: Path
    """The folder that holds images/EVENT."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    labels: Path | None = None
    """The list of faces; by default label.txt or wider_face_*_bbx_gt.txt in --raw, beside it or in
    wider_face_split beside it."""
    size: Size = (320, 320)
    """Height and width of the prepared images in pixels, their proportions kept."""
    most_faces: int = 50
    """Faces of an image that are kept, the largest."""
    least_px: float = 6.0
    """Longer side of the smallest face that is kept, in the prepared image."""
    most_images: int | None = None
    """Stop after so many images."""


class Face(NamedTuple):
    """A line of the list: box f64[4] and landmarks f64[5,2] in pixels, NaN where not told."""

    box: np.ndarray
    landmarks: np.ndarray


def main(config: Config) -> None:
    """Reads, checks and writes the photographs."""
    from jaxbed.data.prepared import complete_or_absent, summary
    from jaxbed.data.prepared_infant_danger import faces_table, write_face_images

    check_size(config.size)
    if config.most_faces < 1 or not 0 <= config.least_px < math.inf:
        raise InputError("--most-faces must be at least 1, and --least-px 0 or more pixels.")
    with complete_or_absent(config.out) as partial:
        images, read, counts = read_faces(config)
        write_face_images(images, partial, frames_read=read, homepage=HOMEPAGE)
    height, width = config.size
    told = ", ".join(f"{number:,} {what}" for what, number in counts.items())
    records = f"{height} x {width} pixels"
    print(summary(faces_table(images), read, records=records), f"  {told}", config.out, sep="\n")


def read_faces(config: Config) -> tuple[FaceImages, int, Counter]:
    """Reads the list and its photographs.

    Returns:
        The images; how many the list names; and how many faces were kept and left out, why.

    Raises:
        InputError: there is no list, it names no face, or no photograph can be read.
    """
    path = config.labels or _find_list(config.raw)
    listed, bad = read_list(path)
    silence()
    counts = Counter({"faces kept": 0})
    counts["lines not understood"] = len(bad)
    kept, skipped = [], [f"{path.name}: {line}" for line in bad]
    for file, faces in tqdm(listed[: config.most_images], desc="reading photographs", disable=None):
        try:
            image = read_colour(_image(config.raw, file))
        except ValueError as error:
            skipped.append(f"{file}: {error}")
            continue
        small, content = fitted(image, config.size)
        boxes, landmarks = _moved(faces, content, image.shape[:2])
        chosen = _chosen(boxes, config, counts)
        kept.append((small, boxes[chosen], landmarks[chosen], PurePosixPath(file).parent.name))
    if not kept:
        raise InputError(
            f"{config.raw} holds none of the {len(listed):,} photographs that {path} names "
            f"({skipped[-1] if skipped else 'it names none'}); point --raw at the folder of images."
        )
    most = max(1, *(len(boxes) for _, boxes, _, _ in kept)) if kept else 1
    images = FaceImages(
        name=NAME,
        image=np.stack([image for image, *_ in kept]),
        boxes_px=np.stack([_filled(boxes, most) for _, boxes, _, _ in kept]),
        landmarks_px=np.stack([_filled(points, most) for _, _, points, _ in kept]),
        subject=np.array([event for *_, event in kept]),
        skipped=tuple(skipped),
    )
    return images, len(listed[: config.most_images]), +counts


def read_list(path: Path) -> tuple[list[tuple[str, list[Face]]], list[str]]:
    """Reads a list of faces, of either kind.

    Returns:
        For every photograph its file and its faces; and what could not be understood, by line.

    Raises:
        InputError: it is no such list.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); point --labels at the list.") from error
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    bad: list[str] = []
    marked = bool(filled) and filled[0][1].startswith("#")
    photographs: dict[str, list[Face]] = {}
    for file, faces in (_with_landmarks if marked else _counted)(filled, bad):
        photographs.setdefault(file, []).extend(faces)
    if not photographs:
        raise InputError(
            f"{path} names no photograph; expected the lines of wider_face_train_bbx_gt.txt or of "
            "RetinaFace's label.txt; point --labels at one of them."
        )
    return list(photographs.items()), bad


def _with_landmarks(
    lines: list[tuple[int, str]], bad: list[str]
) -> Iterator[tuple[str, list[Face]]]:
    """Reads "# FILE" and lines of 4 + 15 + 1 numbers; those without landmarks hold -1."""
    file = None
    for number, line in lines:
        if line.startswith("#"):
            file = line.lstrip("# ")
            yield file, []
            continue
        values = _numbers(line)
        if file is None or values is None or len(values) not in (4, 19, 20):
            bad.append(f"line {number}: {line[:60]!r}")
            continue
        points = np.full((5, 2), np.nan)
        if len(values) > 4:
            points = np.reshape(values[4:19], (5, 3))[:, :2]
            points = np.where((points < 0).any(axis=1, keepdims=True), np.nan, points)
        yield from _face(file, values, points, number, line, bad)


def _counted(lines: list[tuple[int, str]], bad: list[str]) -> Iterator[tuple[str, list[Face]]]:
    """Reads FILE, the number of faces and a line for each; the number 0 has a line of zeros."""
    file, left = None, 0
    for number, line in lines:
        values = _numbers(line)
        if values is None and "." in line:
            file, left = line, -1
            yield file, []
        elif file is not None and left == -1 and values is not None and len(values) == 1:
            left = max(1, int(values[0]))
        elif file is not None and left > 0 and values is not None and len(values) >= 4:
            left -= 1
            attributes = values[4 : 4 + _ATTRIBUTES]
            nothing = not any(values[:4])
            if nothing or (len(attributes) == _ATTRIBUTES and attributes[_INVALID] == 1):
                continue
            yield from _face(file, values, np.full((5, 2), np.nan), number, line, bad)
        else:
            bad.append(f"line {number}: {line[:60]!r}")


def _face(
    file: str, values: list[float], points: np.ndarray, number: int, line: str, bad: list[str]
) -> Iterator[tuple[str, list[Face]]]:
    left, top, width, height = values[:4]
    if width <= 0 or height <= 0:
        bad.append(f"line {number}: {line[:60]!r}, a box without an area")
        return
    yield file, [Face(np.array([left, top, left + width, top + height]), points)]


def _numbers(line: str) -> list[float] | None:
    try:
        values = [float(part) for part in line.split()]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _moved(
    faces: list[Face], content: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Finds faces in the prepared image: f32[n,4], cut at the photograph's edges, f32[n,5,2]."""
    scale = (content[2:] - content[:2]) / np.array(size[::-1])
    boxes = np.array([face.box for face in faces]).reshape(-1, 2, 2)
    points = np.array([face.landmarks for face in faces]).reshape(-1, 5, 2)
    boxes = np.clip(boxes, 0, np.array(size[::-1])) * scale + content[:2]
    return boxes.reshape(-1, 4).astype(np.float32), (points * scale + content[:2]).astype("f4")


def _chosen(boxes: np.ndarray, config: Config, counts: Counter) -> np.ndarray:
    """Picks the largest faces that are large enough, and counts the others."""
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    large = np.flatnonzero((side >= config.least_px) & (area > 0))
    chosen = large[np.argsort(-side[large], kind="stable")][: config.most_faces]
    counts["faces kept"] += len(chosen)
    counts["faces too small"] += len(boxes) - len(large)
    counts["faces too many"] += len(large) - len(chosen)
    return np.sort(chosen)


def _filled(values: np.ndarray, rows: int) -> np.ndarray:
    filled = np.full((rows, *values.shape[1:]), np.nan, np.float32)
    filled[: len(values)] = values
    return filled


def _find_list(raw: Path) -> Path:
    for folder in (raw, raw.parent, raw.parent / "wider_face_split"):
        for pattern in _LISTS:
            found = sorted(folder.glob(pattern))
            if found:
                return found[0]
    raise InputError(
        f"{raw} has no list of faces ({' or '.join(_LISTS)}) in it, beside it or in "
        "wider_face_split beside it; name it with --labels."
    )


def _image(raw: Path, file: str) -> Path:
    """Finds a photograph. Raises ValueError for a name that leads out of the folder."""
    named = PurePosixPath(file)
    if named.is_absolute() or ".." in named.parts:
        raise ValueError("is named outside the folder")
    inside = raw / "images" / named
    return inside if inside.exists() else raw / named


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
