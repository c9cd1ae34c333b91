"""Prepares SLP, people in bed under three covers, as `slp_ir` or `slp_depth`.

    python -m data_prep.slp --raw SLP --out prepared/slp
    python -m data_prep.slp --raw SLP --modality depth --out prepared/slp_depth

Source: S. Liu, X. Huang, N. Fu, C. Li, Z. Su, S. Ostadabbas, "Simultaneously-collected multimodal
lying pose dataset: towards in-bed human pose monitoring under adverse vision conditions", 2020,
arXiv 2008.08735; https://github.com/ostadabbas/SLP-Dataset-and-Code. Licence: as the authors state
it to those who ask them for the data.
"""

import dataclasses
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.night_images import (
    Picture,
    check_size,
    joined,
    read_grey,
    resized,
    silence,
    told,
    write_set,
)
from data_prep.night_labels import Label
from jaxbed.cli import run
from jaxbed.data.depth import Size
from jaxbed.data.night import POSTURES, NightImages
from jaxbed.errors import InputError

HOMEPAGE = "https://web.northeastern.edu/ostadabbas/2019/06/27/multimodal-in-bed-pose-estimation/"
LICENCE = "As the authors of SLP state on handing it out; cite Liu et al., arXiv 2008.08735, 2020."

LABS = ("danaLab", "simLab")
COVERS = {"uncover": 0, "cover1": 1, "cover2": 1}
"""Whether a blanket is on, by the folder: cover1 is a thin sheet, cover2 a blanket."""
POSES = 45
"""Poses of a person: 1 to 15 supine, 16 to 30 on the left side, 31 to 45 on the right."""
DOUBTFUL = ("danaLab", "00007")
"""Whose joints were reported to be mirrored (issue 1 of the authors' repository)."""

_FOLDERS = {"ir": "IR", "depth": "depth"}
_FILE = re.compile(r"image_(\d{6})\.png")


@dataclasses.dataclass(frozen=True)
class Config:
    """Where SLP lies and where the prepared set goes."""

    raw: Path
    """The folder that holds the folders danaLab and simLab, or one of them."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    modality: Literal["ir", "depth"] = "ir"
    """Which images: of the thermal or of the depth camera."""
    keep_subject_7: bool = False
    """Keep subject 7 of danaLab, whose left and right are in doubt."""
    size: Size = (256, 256)
    """Height and width of the prepared images in pixels; other shapes are squeezed into it."""


class Entry(NamedTuple):
    """An image of SLP.

    Attributes:
        path: where it lies.
        lab: "danaLab" or "simLab".
        subject: the number of the person there, five digits.
        cover: a key of COVERS.
        pose: from 1.
    """

    path: Path
    lab: str
    subject: str
    cover: str
    pose: int


def main(config: Config) -> None:
    """Reads, checks and writes the images."""
    from jaxbed.data.prepared import complete_or_absent

    check_size(config.size)
    with complete_or_absent(config.out) as partial:
        images, read = read_images(config)
        write_set(images, partial, read=read, licence=LICENCE, homepage=HOMEPAGE)
    print(told(images, read), config.out, sep="\n")


def read_images(config: Config) -> tuple[NightImages, int]:
    """Reads every image. An unreadable one is left out and listed.

    Returns:
        The images, and how many there were before any was left out.

    Raises:
        InputError: if this is not SLP, or if no image can be read.
    """
    entries, skipped = found_images(config.raw, _FOLDERS[config.modality])
    read = len(entries)
    doubtful = [entry for entry in entries if (entry.lab, entry.subject) == DOUBTFUL]
    if doubtful and not config.keep_subject_7:
        entries = [entry for entry in entries if (entry.lab, entry.subject) != DOUBTFUL]
        skipped.insert(
            0,
            f"{'/'.join(DOUBTFUL)}: {len(doubtful)} images; labels were reported to be mirrored, "
            "left for right (--keep-subject-7 keeps them)",
        )
    silence()
    pictures = []
    for entry in tqdm(entries, desc="reading SLP", unit=" images", disable=None):
        try:
            if not 1 <= entry.pose <= POSES:
                raise ValueError(f"is numbered {entry.pose}, but there are {POSES} poses")
            image = resized(read_grey(entry.path), config.size)
        except ValueError as error:
            skipped.append(f"{_name(entry)}: {error}")
        else:
            pictures.append(_picture(entry, image))
    if not pictures:
        raise InputError(
            f"{config.raw} holds no readable image among {read:,} ({skipped[-1]}); unpack SLP "
            "again."
        )
    return joined(f"slp_{config.modality}", pictures, skipped), read


def found_images(raw: Path, modality: str) -> tuple[list[Entry], list[str]]:
    """Finds the images of one camera.

    Args:
        raw: the folder of SLP, or of one of its labs.
        modality: the camera's folder, "IR" or "depth".

    Returns:
        The images, in order; and which folders lack some.

    Raises:
        InputError: if this is not SLP.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder; point --raw at that of SLP.")
    root = raw.resolve()
    labs = [root] if root.name in LABS else [root / lab for lab in LABS if (root / lab).is_dir()]
    entries, remarks = [], []
    for lab in labs:
        for subject in sorted(x for x in lab.iterdir() if re.fullmatch(r"\d{5}", x.name)):
            for cover in COVERS:
                folder = subject / modality / cover
                found = [
                    Entry(path, lab.name, subject.name, cover, int(match[1]))
                    for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
                    if (match := _FILE.fullmatch(path.name))
                ]
                if len(found) < POSES:
                    place = f"{lab.name}/{subject.name}/{modality}/{cover}"
                    remarks.append(f"{place}: holds {len(found)} of {POSES} images")
                entries += found
    if not entries:
        raise InputError(
            f"{raw} holds no image such as danaLab/00001/{modality}/uncover/image_000001.png, so "
            "it is not SLP; point --raw at the folder that holds the folders danaLab and simLab."
        )
    return entries, remarks


def posture(pose: int) -> int:
    """Tells the posture of a pose from 1 to 45, as an index into POSTURES."""
    return POSTURES.index(("supine", "left", "right")[(pose - 1) // (POSES // 3)])


def _picture(entry: Entry, image: np.ndarray) -> Picture:
    return Picture(
        image=image,
        label=Label(posture(entry.pose), COVERS[entry.cover], f"{entry.lab}_{entry.subject}"),
        recording="",
        extra={"cover": entry.cover, "pose": entry.pose, "file": _name(entry)},
    )


def _name(entry: Entry) -> str:
    """Tells where an image lies within SLP."""
    return "/".join((entry.lab, *entry.path.parts[-4:]))


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
