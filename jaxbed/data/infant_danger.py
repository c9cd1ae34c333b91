"""Images that the networks of the infant danger monitor learn from, held in memory.

N images, H W their height and width in pixels, G faces of an image. Coordinates are as in
jaxbed.data.crib.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.data.crib import UNKNOWN, CribImages


@dataclasses.dataclass(frozen=True)
class NamedImages:
    """Images with a class each.

    Attributes:
        name: of the set, for reports.
        classes: names of the classes, by index.
        image: u8[N,H,W,3], RGB.
        label: i32[N], index into `classes`.
        box_px: f32[N,4], what the label is about: a face, or the whole image.
        subject: str[N], whom it shows, or where it comes from; the unit of a split.
        skipped: what was left out on reading and why, one line each.
    """

    name: str
    classes: tuple[str, ...]
    image: np.ndarray
    label: np.ndarray
    box_px: np.ndarray
    subject: np.ndarray
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image)


@dataclasses.dataclass(frozen=True)
class FaceImages:
    """Images with all their faces.

    Attributes:
        name: of the set, for reports.
        image: u8[N,H,W,3], RGB.
        boxes_px: f32[N,G,4], NaN where an image has fewer faces.
        landmarks_px: f32[N,G,5,2], NaN likewise and where a face has none.
        subject: str[N], as of NamedImages.
        skipped: what was left out on reading and why, one line each.
    """

    name: str
    image: np.ndarray
    boxes_px: np.ndarray
    landmarks_px: np.ndarray
    subject: np.ndarray
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image)


class Parts(NamedTuple):
    """A set of crib images by what can be learned from it."""

    detector: FaceImages
    face: NamedImages
    posture: NamedImages


def parts_of(images: CribImages, *, classes: dict[str, tuple[str, ...]]) -> Parts:
    """Takes crib images apart.

    Args:
        images: the set.
        classes: names of the states of a face and of the postures, under "face" and "posture".

    Returns:
        All images with their face, if it is visible, covered or not; those with a visible face
        and what is over it; and all with the posture.
    """
    seen = np.flatnonzero(images.face != UNKNOWN)
    height, width = images.size
    whole = np.broadcast_to(np.float32([0, 0, width, height]), (len(images), 4))
    detector = FaceImages(
        images.name,
        images.image,
        images.face_box[:, None].astype(np.float32),
        images.landmarks[:, None].astype(np.float32),
        images.subject,
        images.skipped,
    )
    face = NamedImages(
        images.name,
        classes["face"],
        images.image[seen],
        images.face[seen],
        images.face_box[seen].astype(np.float32),
        images.subject[seen],
        images.skipped,
    )
    posture = NamedImages(
        images.name,
        classes["posture"],
        images.image,
        images.posture,
        whole,
        images.subject,
        images.skipped,
    )
    return Parts(detector, face, posture)
