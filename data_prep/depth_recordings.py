"""What depth data sets have in common: recordings, and joining them to a set.

n frames of a recording, h w height and width in pixels.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxbed.data.depth import DepthFrames, Size
from jaxbed.errors import InputError


@dataclasses.dataclass(frozen=True)
class Recording:
    """Consecutive frames of one person, as `DepthFrames` wants them.

    Attributes:
        name: the recording's, unique in its set.
        subject: who it shows.
        depth_mm: u16[n,h,w], 0 where nothing was measured.
        joints_px: f32[n,12,2], in the order of JOINTS; NaN where missing.
        extra: what else is known of each frame, n values by name.
    """

    name: str
    subject: str
    depth_mm: np.ndarray
    joints_px: np.ndarray
    extra: Mapping[str, np.ndarray]


def check_size(size: Size, camera: Size) -> None:
    """Refuses a --size that is empty or larger than the camera's."""
    if not all(1 <= side <= most for side, most in zip(size, camera, strict=True)):
        raise InputError(
            f"--size {size[0]} {size[1]} must be a height and a width of at least 1 pixel and at "
            f"most the camera's {camera[0]} {camera[1]}; choose such a size."
        )


def joined(name: str, recordings: Sequence[Recording], skipped: Sequence[str]) -> DepthFrames:
    """Joins recordings, at least one, to a set."""
    lengths = [len(recording.depth_mm) for recording in recordings]
    return DepthFrames(
        name=name,
        depth_mm=np.concatenate([recording.depth_mm for recording in recordings]),
        joints_px=np.concatenate([recording.joints_px for recording in recordings]),
        subject=np.repeat([recording.subject for recording in recordings], lengths),
        recording=np.repeat([recording.name for recording in recordings], lengths),
        skipped=tuple(skipped),
        extra={
            column: np.concatenate([recording.extra[column] for recording in recordings])
            for column in recordings[0].extra
        },
    )
