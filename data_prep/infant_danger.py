"""Prepares your own images for the infant danger monitor as `infant_faces` and `infant_postures`.

    python -m data_prep.infant_danger --faces FACES --postures POSTURES --out prepared/mine

FACES holds cut-out faces: clear/, pacifier/ and occluded/ (by anything but a pacifier), with some
of the surroundings, about a sixth of the face on every side. POSTURES holds whole images: back/,
stomach/, sitting/ and standing/. Whose picture it is stands in front of the first underscore of
its name (INFANT_anything.jpg), so that nobody is trained and tested on; a picture without one is
taken for that of another infant.
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data_prep.night_images import SUFFIXES, check_size, grey, read_levels, silence
from jaxbed.cli import run
from jaxbed.data.crib import FACES, POSTURES
from jaxbed.data.depth import Size
from jaxbed.data.infant_danger import NamedImages
from jaxbed.errors import InputError

GREY = 124
"""Level of what is added beside an image of other proportions."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the images lie and where the prepared sets go."""

    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    faces: Path | None = None
    """The folder of cut-out faces."""
    postures: Path | None = None
    """The folder of images of postures."""
    face_size: Size = (96, 96)
    """Height and width of the prepared faces in pixels."""
    posture_size: Size = (192, 256)
    """Height and width of the prepared images of postures in pixels."""


def main(config: Config) -> None:
    """Reads, checks and writes the images."""
    from jaxbed.data.prepared import complete_or_absent, summary
    from jaxbed.data.prepared_infant_danger import named_table, write_named_images

    if config.faces is None and config.postures is None:
        raise InputError("there is nothing to prepare; name --faces, --postures or both.")
    check_size(config.face_size)
    check_size(config.posture_size)
    asked = [
        ("infant_faces", config.faces, FACES, config.face_size),
        ("infant_postures", config.postures, POSTURES, config.posture_size),
    ]
    told = []
    with complete_or_absent(config.out) as partial:
        for name, folder, classes, size in asked:
            if folder is None:
                continue
            images, read = read_classes(folder, name, classes, size)
            write_named_images(images, partial, frames_read=read)
            height, width = size
            told += [
                summary(named_table(images), read, records=f"{height} x {width} pixels"),
                f"  {_counts(images)}",
            ]
    print(*told, config.out, sep="\n")


def read_classes(
    folder: Path, name: str, classes: tuple[str, ...], size: Size
) -> tuple[NamedImages, int]:
    """Reads every image of a folder CLASS/INFANT_anything. One that is unreadable is left out.

    Args:
        folder: holds a folder of every class.
        name: of the set.
        classes: their names.
        size: (height, width) that images are brought into, their proportions kept.

    Returns:
        The images, and how many there were before any was left out.

    Raises:
        InputError: a class is missing or has no readable image, or a folder is of none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name that of {', '.join(classes)}.")
    present = {x.name: x for x in folder.iterdir() if x.is_dir() and x.name[0] not in "._"}
    unknown, missing = sorted(present.keys() - set(classes)), sorted(set(classes) - present.keys())
    if unknown or missing:
        raise InputError(
            f"{folder} must hold the folders {', '.join(classes)}, but lacks "
            f"{', '.join(missing) or 'none'} and holds also {', '.join(unknown) or 'none'}; "
            "rename or add them."
        )
    silence()
    read, kept, skipped = 0, [], []
    for label, of in enumerate(classes):
        paths = sorted(p for p in present[of].iterdir() if p.suffix.lower() in SUFFIXES)
        read += len(paths)
        for path in tqdm(paths, desc=f"reading {of}", disable=None):
            try:
                image, box = fitted(read_colour(path), size)
            except ValueError as error:
                skipped.append(f"{of}/{path.name}: {error}")
            else:
                kept.append((image, box, label, path.stem.partition("_")[0]))
        if not any(row[2] == label for row in kept):
            raise InputError(
                f"{present[of]} holds no readable image ({', '.join(SUFFIXES)}); add some, or "
                "mend them."
            )
    image, box, label, subject = zip(*kept, strict=True)
    images = NamedImages(
        name=name,
        classes=classes,
        image=np.stack(image),
        label=np.array(label, np.int32),
        box_px=np.stack(box),
        subject=np.array(subject),
        skipped=tuple(skipped),
    )
    return images, read


def read_colour(path: Path) -> np.ndarray:
    """Reads an image file as RGB u8[h,w,3]; more than 8 bits of colour become grey.

    Raises:
        ValueError: telling why it cannot be read.
    """
    levels = read_levels(path)
    if levels.ndim == 2 or levels.dtype != np.uint8:
        return np.repeat(grey(levels)[..., None], 3, axis=-1)
    if levels.min() == levels.max():
        raise ValueError("shows nothing: all of its pixels are alike")
    return np.ascontiguousarray(levels[..., 2::-1])


def fitted(image: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Brings an image into a size, its proportions kept, with grey on two sides.

    Returns:
        u8[H,W,3], and f32[4], where the image lies in it: left, top, right, bottom.
    """
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (height - rows) // 2, (width - columns) // 2
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.full((height, width, 3), GREY, np.uint8)
    small = cv2.resize(image, (columns, rows), interpolation=kind)
    canvas[top : top + rows, left : left + columns] = small
    return canvas, np.float32([left, top, left + columns, top + rows])


def _counts(images: NamedImages) -> str:
    counts = np.bincount(images.label, minlength=len(images.classes))
    return ", ".join(f"{n:,} {name}" for name, n in zip(images.classes, counts, strict=True))


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
