"""Sets of depth recordings with joints, held in memory.

N frames, H W height and width in pixels (h w after shrinking), C clips, T frames of a clip.
Pixel coordinates are (x to the right, y down) with 0 at the centre of the first pixel.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxbed.errors import InputError

LIMBS = ("right_arm", "left_arm", "right_leg", "left_leg")
"""Sides are named as the data's own annotation names them."""

JOINTS = (
    *("right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle"),
)
"""Limb after limb, from the trunk outwards."""


Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclasses.dataclass(frozen=True)
class DepthFrames:
    """Depth frames with their joints.

    Attributes:
        name: name of the set, for reports.
        depth_mm: u16[N,H,W], distance from the camera's plane; 0 where nothing was measured.
        joints_px: f32[N,12,2], in the order of JOINTS; NaN where missing or hidden.
        subject: str[N], who lies there; the unit of a split.
        recording: str[N], which recording a frame is of. The frames of a recording lie one
            after the other in order of time, at one interval.
        skipped: what was left out on reading and why, one line each.
        extra: what else the set tells of each frame, str[N], i32[N] or f32[N] by name.
    """

    name: str
    depth_mm: np.ndarray
    joints_px: np.ndarray
    subject: np.ndarray
    recording: np.ndarray
    skipped: tuple[str, ...] = ()
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.depth_mm)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth_mm.shape[1:]


class Clips:
    """Clips of frames that are held once: what takes an array of clips takes this too.

    Neighbouring clips share all frames but one, so clips of their own would be as many times
    larger as a clip is long.

    Attributes:
        frames: [N,...], one entry per frame.
        index: i32[C,T], the frames of every clip.
    """

    def __init__(self, frames: np.ndarray, index: np.ndarray):
        self.frames = frames
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """Returns [n,T,...] for any one-dimensional index that keeps the axis."""
        return self.frames[self.index[chosen]]


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
    with np.errstate(over="ignore"):  # becomes infinite, which lies outside
        joints = ((joints_px + 0.5) * factor - 0.5).astype(np.float32)
    inside = (joints >= -0.5) & (joints < np.array([size[1] - 0.5, size[0] - 0.5], np.float32))
    return np.where(inside.all(axis=-1, keepdims=True), joints, np.float32(np.nan))


def resized(frames: DepthFrames, size: Size) -> DepthFrames:
    """Shrinks a whole set.

    Raises:
        InputError: `size` is larger than the set's.
    """
    if any(new > old for new, old in zip(size, frames.size, strict=True)):
        raise InputError(
            f"--image-size is {size[0]} {size[1]}, but the images of {frames.name} are "
            f"{frames.size[0]} {frames.size[1]}; take that, or less."
        )
    return dataclasses.replace(
        frames,
        depth_mm=shrunk(frames.depth_mm, size),
        joints_px=moved(frames.joints_px, frames.size, size),
    )


def clips(recording: np.ndarray, *, length: int, shift: int) -> np.ndarray:
    """Cuts recordings into clips of consecutive frames.

    Args:
        recording: str[N], which recording a frame is of, equal ones adjacent.
        length: frames in a clip, >= 1.
        shift: frames from the start of a clip to that of the next one: 1 for all clips,
            `length` for clips without a common frame.

    Returns:
        i32[C,length], indices of frames; a recording's last frames that fill no clip, and
        recordings shorter than a clip, are left out.

    Raises:
        InputError: no recording is as long as a clip.
    """
    ends = np.flatnonzero(recording[1:] != recording[:-1]) + 1
    bounds = [0, *ends.tolist(), len(recording)]
    starts = [
        start
        for first, end in zip(bounds[:-1], bounds[1:], strict=True)
        for start in range(first, end - length + 1, shift)
    ]
    if not starts:
        longest = max(np.diff(bounds), default=0)
        raise InputError(
            f"a clip is {length} frames long and the longest recording {longest}; use longer "
            "recordings."
        )
    return (np.array(starts)[:, None] + np.arange(length)).astype(np.int32)
