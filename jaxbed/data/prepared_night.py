"""Prepared sets of night images, written and read.

Images H W pixels high and wide.
"""

from pathlib import Path

import numpy as np

from jaxbed.data import prepared
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages
from jaxbed.data.prepared import Table

_MADE_BY = {
    "videos": "data_prep.sleep_video --raw FOLDER",
    "labelled images": "data_prep.image_folder --raw FOLDER",
    "SLP": "data_prep.slp --raw SLP",
}

_BLANKET = {"1": "on", "0": "off", str(UNKNOWN): "unknown"}


def write_night_images(
    images: NightImages,
    folder: Path,
    *,
    frames_read: int,
    licence: str = "",
    homepage: str = "",
) -> None:
    """Writes a set of night images below a folder.

    Args:
        images: the set, at least one image; its name becomes the folder's.
        folder: an existing folder that does not hold a set of this name yet.
        frames_read: how many frames the raw data held, the skipped ones included.
        licence: terms of the data, kept beside them as the file LICENSE.
        homepage: where the raw data come from.

    Raises:
        OSError: if the disk is full.
    """
    prepared.write_table(
        _table(images),
        folder,
        description=f"Night images of sleepers with posture and blanket, from {images.name}.",
        frames_read=frames_read,
        licence=licence,
        homepage=homepage,
    )


def read_night_images(folder: Path, name: str) -> NightImages:
    """Reads a prepared set into memory.

    Args:
        folder: the --out of the command that prepared the set.
        name: the set's name: "sleep_video", "image_folder", "slp_ir" or "slp_depth".

    Returns:
        The images, in the order they were written in.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """
    return prepared.read_table(folder, name, _images, made_by=_MADE_BY)


def summary(images: NightImages, frames_read: int) -> str:
    """Tells what was read, kept and left out, with the first reasons."""
    height, width = images.size
    records = f"{height} x {width} pixels"
    recordings = set(images.recording) - {""}
    if recordings:
        records = f"{len(recordings)} recordings, {records}"
    return prepared.summary(_table(images), frames_read, records=records)


def _table(images: NightImages) -> Table:
    """Names the arrays of a set as they are stored."""
    height, width = images.size
    return Table(
        name=images.name,
        columns={
            "image": images.image,
            "posture": images.posture,
            "blanket": images.blanket,
            "subject": images.subject,
            "recording": images.recording,
            **images.extra,
        },
        class_names={"posture": POSTURES},
        facts={"height": height, "width": width, "blanket": _BLANKET},
        skipped=images.skipped,
    )


def _images(table: Table) -> NightImages:
    """Takes the columns of a set for what they are. Any exception means a damaged set."""
    columns, facts = dict(table.columns), table.facts
    image, blanket = columns.pop("image"), columns.pop("blanket")
    size = (facts["height"], facts["width"])
    if image.dtype != np.uint8 or image.shape[1:] != size:
        raise ValueError(
            f"images are {image.dtype} of {image.shape[1:]}, metadata.json says uint8 of {size}"
        )
    if table.class_names["posture"] != POSTURES:
        raise ValueError(f"the postures are not {', '.join(POSTURES)}")
    if facts["blanket"] != _BLANKET or not np.isin(blanket, (0, 1, UNKNOWN)).all():
        raise ValueError(f"the blankets are not 0, 1 and {UNKNOWN}")
    return NightImages(
        name=table.name,
        image=image,
        posture=columns.pop("posture").astype(np.int32),
        blanket=blanket,
        subject=columns.pop("subject"),
        recording=columns.pop("recording"),
        skipped=table.skipped,
        extra=columns,
    )
