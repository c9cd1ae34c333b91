"""Prepares babyPose, depth videos of preterm infants with their joints, as `babypose`.

    python -m data_prep.babypose --raw babyPose --out prepared/babypose

Source: L. Migliorelli, S. Moccia, R. Pietrini, V. P. Carnielli, E. Frontoni, "The babyPose
dataset", Data in Brief 33, 2020; https://doi.org/10.5281/zenodo.3891404, which tells the
licence. Needs the extra `babypose`: pip install -e '.[babypose]'.
"""

import dataclasses
import io
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.babypose_sheet import number_in, read_sheet
from data_prep.depth_recordings import Recording, check_size, joined
from data_prep.raw_files import IMAGE_FORMATS, check_name, read_bytes
from jaxbed.cli import run
from jaxbed.data.depth import JOINTS, DepthFrames, Size, moved, shrunk
from jaxbed.errors import InputError, short

NAME = "babypose"
HOMEPAGE = "https://doi.org/10.5281/zenodo.3891404"
LICENCE = "As the Zenodo record 3891404 states; cite Migliorelli et al., Data in Brief 33, 2020."
CAMERA = (480, 640)
"""(height, width) of a frame in pixels."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Where babyPose lies and where the prepared set goes."""

    raw: Path
    """The folder that holds a folder for each infant, with its frames and its .xlsx sheet."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    size: Size = (96, 128)
    """Height and width of the prepared frames in pixels; the camera's are 480 and 640."""
    frames: str = "*.png"
    """Which files in an infant's folder, at any depth, are frames. Needed where a folder holds
    each frame twice, for example with 8 and with 16 bits."""
    mm_per_level: float = 1.0
    """How many millimetres one grey level stands for."""
    joint_order: tuple[str, ...] = ()
    """The 12 joints in the order of a sheet's last 24 columns (x and y of the first, x and y of
    the second, ...), for sheets that do not name them; "right_shoulder left_elbow ..."."""


def main(config: Config) -> None:
    """Reads, checks and writes the infants' frames."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_depth import summary, write_depth_frames

    check_size(config.size, CAMERA)
    if not (config.mm_per_level > 0 and math.isfinite(config.mm_per_level)):
        raise InputError(f"--mm-per-level must be above 0, not {config.mm_per_level}; change it.")
    if not config.frames or Path(config.frames).is_absolute():
        raise InputError(
            f"--frames must match files inside an infant's folder, but is {config.frames!r}; give "
            "a pattern such as '*.png'."
        )
    if config.joint_order and sorted(config.joint_order) != sorted(JOINTS):
        raise InputError(
            f"--joint-order names {' '.join(config.joint_order)}, but must name each of "
            f"{' '.join(JOINTS)} once; change it."
        )
    with complete_or_absent(config.out) as partial:
        frames, read = read_infants(config)
        write_depth_frames(frames, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE)
    print(summary(frames, read), config.out, sep="\n")


def read_infants(config: Config) -> tuple[DepthFrames, int]:
    """Reads every infant's frames. An unreadable one is left out and listed.

    Returns:
        The frames, and how many there were before any was left out.

    Raises:
        InputError: if this is not babyPose, if a sheet does not fit the frames beside it, or if
            no frame can be read.
    """
    if not config.raw.is_dir():
        raise InputError(f"{config.raw} is not a folder; point --raw at that of babyPose.")
    infants = sorted(
        (
            folder
            for folder in config.raw.iterdir()
            if folder.is_dir() and (_files(folder, "*.xlsx") or _files(folder, config.frames))
        ),
        key=lambda folder: (number_in(folder.name) or 0, folder.name),
    )
    if not infants:
        raise InputError(
            f"{config.raw} holds no folder with an .xlsx sheet and frames, so it is not babyPose; "
            "point --raw at the folder that holds a folder for each infant."
        )
    recordings, skipped, read = [], [], 0
    for folder in infants:
        check_name(folder.name, config.raw)
        files, joints_px = annotated_frames(folder, config)
        whole, unreadable = _read_infant(folder, files, joints_px, config)
        recordings += whole
        skipped += unreadable
        read += len(files)
    if not recordings:
        raise InputError(
            f"{config.raw} holds no readable frame among {read:,} ({skipped[0]}); download "
            "babyPose again."
        )
    return joined(NAME, recordings, skipped), read


def annotated_frames(folder: Path, config: Config) -> tuple[dict[int, Path], np.ndarray]:
    """Finds an infant's n frames and what its sheet tells of each.

    Returns:
        The frames' files by number, ascending; and their joints, f64[n,12,2], (x, y) in pixels
        of the camera's frame.

    Raises:
        InputError: if there is not one sheet with one row for each frame.
    """
    sheets = _files(folder, "*.xlsx")
    if len(sheets) != 1:
        raise InputError(
            f"{folder} holds {len(sheets)} .xlsx sheets, but an infant has one; put its sheet "
            "there, or remove the others."
        )
    files = _numbered(folder, config.frames)
    sheet = read_sheet(sheets[0], config.joint_order)
    if sheet.frame is None and len(sheet.joints_px) != len(files):
        raise InputError(
            f"{sheets[0]} has {len(sheet.joints_px):,} rows of joints for the {len(files):,} "
            f"frames that {folder} holds ({config.frames}), and does not number them; complete "
            "the folder or the sheet, or choose the frames with --frames."
        )
    rows = list(files) if sheet.frame is None else sheet.frame
    row_of = {number: row for row, number in enumerate(rows)}
    if len(row_of) < len(rows) or row_of.keys() != files.keys():
        raise InputError(
            f"{sheets[0]} does not fit the frames of {folder} ({config.frames}): without a row "
            f"are frames {_some(files.keys() - row_of.keys())}, without a frame the rows of "
            f"{_some(row_of.keys() - files.keys())}, with two rows "
            f"{_some(number for number in row_of if rows.count(number) > 1)}; complete the "
            "folder or the sheet, or choose the frames with --frames."
        )
    return files, sheet.joints_px[[row_of[number] for number in files]]


def read_frame(path: Path, config: Config) -> np.ndarray:
    """Reads u16[h,w], mm. Raises ValueError telling why it cannot."""
    content = read_bytes(path)
    levels = None  # stays so where the image is another one, which is not unpacked
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # Pillow's, of damage and of large images
            Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image,
        ):
            mode, (width, height) = image.mode, image.size
            if mode in ("L", "I;16") and (height, width) == CAMERA:
                levels = np.asarray(image)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"is not a complete image ({short(error)})") from error
    if levels is None:
        raise ValueError(
            f"is a {height} x {width} image of mode {mode} instead of a "
            f"{CAMERA[0]} x {CAMERA[1]} one with 8 or 16 bits of grey"
        )
    depth_mm = np.rint(shrunk(levels, config.size) * config.mm_per_level)
    return np.minimum(depth_mm, np.iinfo(np.uint16).max).astype(np.uint16)


def _read_infant(
    folder: Path, files: Mapping[int, Path], joints_px: np.ndarray, config: Config
) -> tuple[list[Recording], list[str]]:
    """Reads an infant's frames.

    Returns:
        The recordings, one unless frames are lacking between others; and which frames were left
        out, and why.
    """
    depth, good, skipped = [], [], []
    for i, path in enumerate(tqdm(files.values(), desc=f"reading {folder.name}", disable=None)):
        try:
            depth.append(read_frame(path, config))
            good.append(i)
        except ValueError as error:
            skipped.append(f"{path.relative_to(config.raw).as_posix()}: {error}")
    if not good:
        return [], skipped
    depth, joints = np.stack(depth), moved(joints_px[good], CAMERA, config.size)
    number = np.array(list(files), np.int32)
    usual_step = np.quantile(np.diff(number), 0.5, method="lower") if len(number) > 1 else 1
    number = number[good]
    ends = np.flatnonzero(np.diff(number) > 1.5 * usual_step) + 1
    recordings = [
        Recording(
            name=f"{folder.name}_part{i}",
            subject=folder.name,
            depth_mm=depth[first:end],
            joints_px=joints[first:end],
            extra={"frame": number[first:end]},
        )
        for i, (first, end) in enumerate(itertools.pairwise([0, *ends, len(good)]), start=1)
    ]
    return recordings, skipped


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Lists an infant's frames by the last number in their names, ascending."""
    files = {}
    for path in _files(folder, pattern):
        number = number_in(path.name)
        if number is None:
            raise InputError(
                f"{path} has no number of at most 9 digits in its name; number it as the other "
                "frames, or choose the frames with --frames."
            )
        if number in files:
            raise InputError(
                f"{folder} holds frame {number} twice, as {files[number].name} and {path.name}; "
                "tell with --frames which of them to read."
            )
        files[number] = path
    return dict(sorted(files.items()))


def _files(folder: Path, pattern: str) -> list[Path]:
    """Lists the files of a folder, at any depth, less those that systems hide there."""
    found = sorted(
        path
        for path in folder.rglob(pattern)
        if path.is_file() and not path.name.startswith((".", "~"))
    )
    for path in found:
        check_name(path.relative_to(folder).as_posix(), folder)
    return found


def _some(numbers: Iterable[int]) -> str:
    """Names the first of some numbers: "3, 4, 5 and 17 more"."""
    numbers = sorted(numbers)
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{', '.join(map(str, numbers[:5]))}{more}" or "none"


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
