"""Prepared sets of named images and of images with faces, written and read.

Images H W pixels high and wide, G faces of an image.
"""

from pathlib import Path

import numpy as np

from jaxbed.data import prepared
from jaxbed.data.infant_danger import FaceImages, NamedImages
from jaxbed.data.prepared import Table

_NAMED_BY = {
    "face crops": "data_prep.infant_danger --faces FOLDER",
    "images of postures": "data_prep.infant_danger --postures FOLDER",
}
_FACES_BY = {"WIDER FACE": "data_prep.wider_face --raw FOLDER"}


def write_named_images(images: NamedImages, folder: Path, *, frames_read: int) -> None:
    """Writes a set below a folder.

    Args:
        images: the set, at least one image; its name becomes the folder's.
        folder: an existing folder that does not hold a set of this name yet.
        frames_read: how many images the raw data held, those left out included.

    Raises:
        OSError: if the disk is full.
    """
    prepared.write_table(
        named_table(images),
        folder,
        description=f"Images with a class each: {', '.join(images.classes)}.",
        frames_read=frames_read,
        licence="",
        homepage="",
    )


def read_named_images(folder: Path, name: str, classes: tuple[str, ...]) -> NamedImages:
    """Reads a prepared set into memory.

    Args:
        folder: the --out of the command that prepared the set.
        name: the set's name: "infant_faces" or "infant_postures".
        classes: which it must be of.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """

    def assemble(table: Table) -> NamedImages:
        columns = table.columns
        if table.class_names["label"] != classes:
            raise ValueError(f"its classes are not {', '.join(classes)}")
        if not np.isin(columns["label"], np.arange(len(classes))).all():
            raise ValueError("an image has none of the classes")
        _check_images(columns["image"], table)
        return NamedImages(
            name=table.name,
            classes=classes,
            image=columns["image"],
            label=columns["label"].astype(np.int32),
            box_px=columns["box_px"],
            subject=columns["subject"],
            skipped=table.skipped,
        )

    return prepared.read_table(folder, name, assemble, made_by=_NAMED_BY)


def write_face_images(
    images: FaceImages, folder: Path, *, frames_read: int, licence: str = "", homepage: str = ""
) -> None:
    """Writes a set of images with faces; the arguments are those of `write_named_images`."""
    prepared.write_table(
        faces_table(images),
        folder,
        description=f"Images with boxes and landmarks of their faces, from {images.name}.",
        frames_read=frames_read,
        licence=licence,
        homepage=homepage,
    )


def read_face_images(folder: Path, name: str) -> FaceImages:
    """Reads a prepared set of images with faces into memory.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """

    def assemble(table: Table) -> FaceImages:
        columns = table.columns
        _check_images(columns["image"], table)
        boxes, landmarks = columns["boxes_px"], columns["landmarks_px"]
        if boxes.shape[2:] != (4,) or landmarks.shape != (*boxes.shape[:2], 5, 2):
            raise ValueError(f"boxes are {boxes.shape} and landmarks {landmarks.shape}")
        return FaceImages(
            name=table.name,
            image=columns["image"],
            boxes_px=boxes,
            landmarks_px=landmarks,
            subject=columns["subject"],
            skipped=table.skipped,
        )

    return prepared.read_table(folder, name, assemble, made_by=_FACES_BY)


def named_table(images: NamedImages) -> Table:
    """Names the arrays of a set as they are stored."""
    return Table(
        name=images.name,
        columns={
            "image": images.image,
            "label": images.label,
            "box_px": images.box_px,
            "subject": images.subject,
        },
        class_names={"label": images.classes},
        facts=_size(images.image),
        skipped=images.skipped,
    )


def faces_table(images: FaceImages) -> Table:
    """Names the arrays of a set as they are stored."""
    return Table(
        name=images.name,
        columns={
            "image": images.image,
            "boxes_px": images.boxes_px,
            "landmarks_px": images.landmarks_px,
            "subject": images.subject,
        },
        class_names={},
        facts=_size(images.image),
        skipped=images.skipped,
    )


def _size(image: np.ndarray) -> dict[str, int]:
    return {"height": image.shape[1], "width": image.shape[2]}


def _check_images(image: np.ndarray, table: Table) -> None:
    size = (table.facts["height"], table.facts["width"], 3)
    if image.dtype != np.uint8 or image.shape[1:] != size:
        raise ValueError(
            f"images are {image.dtype} of {image.shape[1:]}, metadata.json says uint8 of {size}"
        )
