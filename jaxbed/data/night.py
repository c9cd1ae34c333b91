"""Sets of night images of sleepers with posture and blanket, held in memory.

N images, H W height and width in pixels.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxbed.data.pressure import POSTURES as POSTURES

UNKNOWN = -1
"""A label that the data do not tell."""


@dataclasses.dataclass(frozen=True)
class NightImages:
    """Images of sleepers with their labels.

    Attributes:
        name: name of the set, for reports.
        image: u8[N,H,W], grey, as the camera sees it; not mirrored.
        posture: i32[N], index into POSTURES.
        blanket: i32[N], 1 with a blanket on, 0 without, UNKNOWN where not told.
        subject: str[N], who lies there; the unit of a split.
        recording: str[N], which recording an image is of, or "" for single images.
        skipped: what was left out on reading and why, one line each.
        extra: what else the set tells of each image, str[N], i32[N] or f32[N] by name, for
            example camera, file or time_s; NaN where unknown.
    """

    name: str
    image: np.ndarray
    posture: np.ndarray
    blanket: np.ndarray
    subject: np.ndarray
    recording: np.ndarray
    skipped: tuple[str, ...] = ()
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[1:]
