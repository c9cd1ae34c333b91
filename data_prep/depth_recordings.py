"""What depth data sets have in common: shrinking frames, moving joints along, joining recordings.

n frames of a recording, H W height and width in pixels before, h w after.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxbed.data.depth import DepthFrames
from jaxbed.errors import InputError

Size = tuple[int, int]
"""(height, width) in pixels."""


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


def shrunk(depth: np.ndarray, size: Size) -> np.ndarray:
    """Shrinks frames to the pixels nearest to the new ones' centres.

    Every value is one that the camera measured. A mean over the old pixels would mix a limb
    with what lies behind it: in UTD-MHAD at 96 x 128, 0.4 % of the means are more than 50 mm
    from every old pixel near by.

    Args:
        depth: [...,H,W].
        size: (h, w), not larger than (H, W).

    Returns:
        [...,h,w], a copy.
    """
    rows, columns = (
        (np.arange(new) + 0.5) * old // new for new, old in zip(size, depth.shape[-2:], strict=True)
    )
    return depth[..., rows.astype(int)[:, None], columns.astype(int)]


def moved(joints_px: np.ndarray, camera: Size, size: Size) -> np.ndarray:
    """Moves joints to where they lie in shrunk frames.

    Args:
        joints_px: f64[...,2], (x to the right, y down) in frames of size `camera`, 0 at the
            centre of the first pixel; NaN where missing.
        camera: (H, W).
        size: (h, w).

    Returns:
        f32[...,2], the same in frames of size `size`; NaN where missing or outside the frame.
    """
    factor = np.array([size[1] / camera[1], size[0] / camera[0]])
    joints = ((joints_px + 0.5) * factor - 0.5).astype(np.float32)
    inside = (joints >= -0.5) & (joints < np.array([size[1] - 0.5, size[0] - 0.5], np.float32))
    return np.where(inside.all(axis=-1, keepdims=True), joints, np.float32(np.nan))


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
