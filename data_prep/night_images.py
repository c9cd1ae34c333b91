"""What the sets of night images have in common: reading, joining and looking at images.

N images, h w height and width of a camera's image in pixels, H W those of a prepared one.
"""

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.night_labels import Label
from data_prep.raw_files import IMAGE_FORMATS
from jaxbed.data.depth import Size
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages
from jaxbed.errors import InputError, short

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm")
"""How the names of image files end, in small letters."""

LEAST_SIDE_PX = 16
MOST_SIDE_PX = 2048
MOST_PIXELS = 64_000_000
MOST_BYTES = 512_000_000
_STRETCH_PERCENT = (0.1, 99.9)

_SHOWN, _COLUMNS, _TILE_PX, _LINE_PX = 40, 8, 160, 15
_BLANKET = {1: "blanket on", 0: "blanket off", UNKNOWN: "blanket unknown"}


class Picture(NamedTuple):
    """An image with its labels, as `NightImages` wants it.

    Attributes:
        image: u8[H,W].
        label: posture, blanket and subject.
        recording: which recording it is of, or "" for a single image.
        extra: what else is known of it, text or number by name.
    """

    image: np.ndarray
    label: Label
    recording: str
    extra: Mapping[str, str | int | float]


def check_size(size: Size) -> None:
    """Refuses a --size that no image can sensibly have."""
    if not all(LEAST_SIDE_PX <= side <= MOST_SIDE_PX for side in size):
        raise InputError(
            f"--size {size[0]} {size[1]} must be a height and a width of {LEAST_SIDE_PX} to "
            f"{MOST_SIDE_PX} pixels; choose such a size."
        )


def silence() -> None:
    """Keeps OpenCV and FFmpeg from telling of every damaged record by themselves."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_grey(path: Path) -> np.ndarray:
    """Reads an image file of 8 or 16 bits, grey or in colour.

    Returns:
        u8[h,w]; transparency is ignored, and more than 8 bits are stretched, see `grey`.

    Raises:
        ValueError: telling why it cannot be read.
    """
    return grey(read_levels(path))


def read_levels(path: Path) -> np.ndarray:
    """Reads an image file of 8 or 16 bits as it is.

    Returns:
        [h,w], or [h,w,3] in blue, green and red; transparency is ignored.

    Raises:
        ValueError: telling why it cannot be read.
    """
    content = _content(path)
    trouble = ""
    try:
        with warnings.catch_warnings():
            # Pillow's, of damage that it mends and at 90 million pixels; the limit here is below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    trouble = f"of more than {MOST_PIXELS:,} pixels"
                elif min(width, height) < LEAST_SIDE_PX:
                    trouble = f"of fewer than {LEAST_SIDE_PX} pixels on a side"
                else:
                    image.load()  # refuses half a file, of which OpenCV would show the half
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"is not a complete image ({short(error)})") from error
    if trouble:
        raise ValueError(f"is a {height} x {width} image, {trouble}")
    try:  # OpenCV: Pillow cuts 16 bits of colour down to 8
        levels = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
        )
    except cv2.error:
        levels = None
    if levels is None:
        raise ValueError(
            f"is a {image.format} image of mode {image.mode}, which OpenCV cannot read"
        )
    return levels


def grey(levels: np.ndarray) -> np.ndarray:
    """Makes grey levels of 8 bits.

    Args:
        levels: [h,w] or [h,w,3] (blue, green, red), numbers. Those of more than 8 bits are
            stretched, so that the 0.1 % darkest pixels become 0 and the 0.1 % brightest 255: such
            files seldom use their whole range.

    Returns:
        u8[h,w].

    Raises:
        ValueError: if it shows nothing.
    """
    if levels.ndim == 3:
        try:
            levels = cv2.cvtColor(levels, cv2.COLOR_BGR2GRAY)
        except cv2.error as error:
            raise ValueError(f"holds colours as {levels.dtype}, which cannot be read") from error
    if levels.dtype != np.uint8:
        if not np.isfinite(levels).all():
            raise ValueError("holds values that are not finite")
        dark, bright = np.percentile(levels, _STRETCH_PERCENT)
        share = (levels - dark) / max(bright - dark, np.finfo(np.float64).tiny)
        levels = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    if levels.min() == levels.max():
        raise ValueError("shows nothing: all of its pixels are alike")
    return levels


def resized(image: np.ndarray, size: Size) -> np.ndarray:
    """Resizes u8[h,w] to u8[H,W]: means over areas, or bilinear where it grows."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=kind)


def joined(name: str, pictures: Sequence[Picture], skipped: Sequence[str]) -> NightImages:
    """Joins pictures, at least one, to a set."""
    return NightImages(
        name=name,
        image=np.stack([picture.image for picture in pictures]),
        posture=np.array([picture.label.posture for picture in pictures], np.int32),
        blanket=np.array([picture.label.blanket for picture in pictures], np.int32),
        subject=np.array([picture.label.subject for picture in pictures]),
        recording=np.array([picture.recording for picture in pictures]),
        skipped=tuple(skipped),
        extra={
            column: _column([picture.extra[column] for picture in pictures])
            for column in pictures[0].extra
        },
    )


def write_set(
    images: NightImages, folder: Path, *, read: int, licence: str = "", homepage: str = ""
) -> None:
    """Writes a set and, beside it, a contact sheet to look at."""
    from jaxbed.data.prepared_night import write_night_images

    write_night_images(images, folder, frames_read=read, licence=licence, homepage=homepage)
    contact_sheet(images).save(folder / f"{images.name}_contact_sheet.png")


def told(images: NightImages, read: int) -> str:
    """Tells what was prepared, and what is amiss for training."""
    from jaxbed.data.prepared_night import summary

    counts = np.bincount(images.posture, minlength=len(POSTURES))
    postures = ", ".join(f"{n:,} {name}" for name, n in zip(POSTURES, counts, strict=True))
    blankets = ", ".join(f"{(images.blanket == n).sum():,} {word}" for n, word in _BLANKET.items())
    lines = [summary(images, read), f"  {postures}; {blankets}"]
    absent = [name for name, count in zip(POSTURES, counts, strict=True) if not count]
    if absent:
        lines.append(f"warning: no image shows {' or '.join(absent)}; nothing can learn it here")
    if len(set(images.subject)) == 1:
        lines.append(
            f"warning: {images.subject[0]} is the only subject; a split by subject needs another"
        )
    return "\n".join(lines)


def contact_sheet(images: NightImages) -> Image.Image:
    """Draws some 40 images with their labels, those of each posture and blanket together."""
    order = np.lexsort((images.subject, images.blanket, images.posture))
    shown = order[np.linspace(0, len(order) - 1, min(len(order), _SHOWN)).round().astype(int)]
    height, width = images.size
    scale = _TILE_PX / max(height, width)
    tile = max(round(height * scale), 1), max(round(width * scale), 1)
    columns, rows = min(_COLUMNS, len(shown)), math.ceil(len(shown) / _COLUMNS)
    # As wide as the words need, however narrow the images are.
    step = tile[0] + 2 * _LINE_PX + 8, max(tile[1], _TILE_PX) + 4
    sheet = Image.new("L", (columns * step[1], rows * step[0]), 255)
    for place, i in enumerate(shown):
        top, left = place // _COLUMNS * step[0], place % _COLUMNS * step[1]
        text = Image.new("L", (step[1] - 4, 2 * _LINE_PX), 255)  # cuts words that are too long
        words = f"{POSTURES[images.posture[i]]}, {_BLANKET[int(images.blanket[i])]}"
        draw = ImageDraw.Draw(text)
        for line, part in enumerate((words, str(images.subject[i]))):
            draw.text((2, line * _LINE_PX), part, fill=0, font=ImageFont.load_default(12))
        sheet.paste(Image.fromarray(resized(images.image[i], tile)), (left, top))
        sheet.paste(text, (left, top + tile[0] + 2))
    return sheet


def _content(path: Path) -> bytes:
    try:
        bytes_ = path.stat().st_size
        if bytes_ > MOST_BYTES:
            raise ValueError(f"has {bytes_:,} bytes, above {MOST_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from error
    if not content:
        raise ValueError("is empty")
    return content


def _column(values: Sequence[str | int | float]) -> np.ndarray:
    column = np.array(values)
    return column.astype({"i": np.int32, "f": np.float32}.get(column.dtype.kind, column.dtype))
