"""Prepares labelled images of sleepers as `image_folder`.

    python -m data_prep.image_folder --raw my_images --out prepared/my_images

The folder holds POSTURE/BLANKET/SUBJECT_anything.png: how somebody lies (supine, prone, left or
right: the side that is lain on), whether a blanket is on (on, off or unknown), and who it is, up
to the first underscore. Or else --labels names a CSV with the columns file, subject, posture and,
if you like, blanket; one line an image.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from data_prep import night_labels
from data_prep.night_images import (
    SUFFIXES,
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
from data_prep.raw_files import check_name
from jaxbed.cli import run
from jaxbed.data.depth import Size
from jaxbed.data.night import NightImages
from jaxbed.errors import InputError

NAME = "image_folder"


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the images lie and where the prepared set goes."""

    raw: Path
    """The folder that holds the images."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    labels: Path | None = None
    """A CSV that tells what the images show; without it, their folders do."""
    size: Size = (256, 256)
    """Height and width of the prepared images in pixels; other shapes are squeezed into it."""


def main(config: Config) -> None:
    """Reads, checks and writes the images."""
    from jaxbed.data.prepared import complete_or_absent

    check_size(config.size)
    with complete_or_absent(config.out) as partial:
        images, read = read_images(config)
        write_set(images, partial, read=read)
    print(told(images, read), config.out, sep="\n")


def read_images(config: Config) -> tuple[NightImages, int]:
    """Reads every image. An unreadable one is left out and listed.

    Returns:
        The images, and how many there were before any was left out.

    Raises:
        InputError: if a label cannot be understood, or if no image can be read.
    """
    if not config.raw.is_dir():
        raise InputError(f"{config.raw} is not a folder; point --raw at that of the images.")
    if config.labels is not None:
        labels, skipped = listed_images(config.labels, config.raw), []
    else:
        labels, skipped = found_images(config.raw)
    silence()
    pictures = []
    for file, label in tqdm(labels.items(), desc="reading images", disable=None):
        try:
            image = resized(read_grey(config.raw / file), config.size)
        except ValueError as error:
            skipped.append(f"{file}: {error}")
        else:
            pictures.append(Picture(image, label, recording="", extra={"file": file}))
    if not pictures:
        raise InputError(
            f"{config.raw} holds no readable image among {len(labels):,} ({skipped[-1]}); mend "
            "the files."
        )
    return joined(NAME, pictures, skipped), len(labels)


def found_images(raw: Path) -> tuple[dict[str, Label], list[str]]:
    """Finds the images of a folder POSTURE/BLANKET/SUBJECT_anything and what they show.

    Returns:
        Labels by file; and which folders are empty, which files no images.

    Raises:
        InputError: if there is no image, or if a name cannot be understood.
    """
    labels, remarks = {}, []
    for folder in _folders(raw):
        posture = night_labels.posture(folder.name, folder)
        loose = _images(folder)
        if loose:
            raise InputError(
                f"{loose[0]} lies in no folder that tells of a blanket; move the images of "
                f"{folder} into its folders on, off or unknown."
            )
        blankets = _folders(folder)
        if not blankets:
            remarks.append(f"{folder.name}: an empty folder")
        for inner in blankets:
            blanket = night_labels.blanket(inner.name, inner)
            images = _images(inner)
            if not images:
                remarks.append(f"{folder.name}/{inner.name}: a folder without images")
            for path in images:
                check_name(path.relative_to(raw).as_posix(), raw)
                label = Label(posture, blanket, _subject(path))
                labels[path.relative_to(raw).as_posix()] = label
    if not labels:
        told = f" ({'; '.join(remarks)})" if remarks else ""
        raise InputError(
            f"{raw} holds no image such as POSTURE/BLANKET/SUBJECT_1.png{told}; order the images "
            "so, or tell with --labels what they show."
        )
    return labels, remarks


def listed_images(labels: Path, raw: Path) -> Mapping[str, Label]:
    """Reads which images of a folder a CSV names and what they show.

    Raises:
        InputError: if a line cannot be understood, or if two name the same image.
    """
    found = {}
    for row in night_labels.read_rows(labels, ("file", "subject", "posture")):
        label = night_labels.label(row)
        file = night_labels.listed_file(row, "file", raw)
        if file in found:
            raise InputError(
                f"{row.where} names {file}, which a line above it names as well; remove a line."
            )
        found[file] = label
    return found


def _subject(path: Path) -> str:
    subject, underscore, _ = path.stem.partition("_")
    if not (subject and underscore):
        raise InputError(
            f"{path} does not tell whom it shows; name it SUBJECT_anything{path.suffix}, or give "
            "--labels."
        )
    return subject


def _folders(folder: Path) -> list[Path]:
    """Lists the folders in one, less those that systems hide or add there."""
    return sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith((".", "__")))


def _images(folder: Path) -> list[Path]:
    """Lists the images in a folder, less those that systems hide there."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
