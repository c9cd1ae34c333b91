"""The files of UTD-MHAD: what their names mean, how frames and skeletons are stored.

T frames of a recording.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.matlab import read_array
from data_prep.raw_files import read_bytes
from jaxbed.data.depth import JOINTS

CAMERA = (240, 320)
"""(height, width) of a frame in pixels."""

FILE = re.compile(
    r"(Depth|Skeleton)/a(?P<action>[1-9]\d{,5})_s(?P<subject>[1-9]\d{,5})_t(?P<trial>[1-9]\d{,5})"
    r"_(depth|skeleton)\.mat"
)
"""Path of a file in the data set."""

SKELETON = (
    *("head", "shoulder_center", "spine", "hip_center"),
    *("left_shoulder", "left_elbow", "left_wrist", "left_hand"),
    *("right_shoulder", "right_elbow", "right_wrist", "right_hand"),
    *("left_hip", "left_knee", "left_ankle", "left_foot"),
    *("right_hip", "right_knee", "right_ankle", "right_foot"),
)
"""The 20 joints of a skeleton. The frames are mirror images of the scene: "left" is the
person's own left and drawn on the left (action 26, a lunge with the left foot, shows it)."""

LAG_FRAMES = 2
"""The skeleton of depth frame n has the number n - 2.

Of the fast wrists (above 2 px a frame at 96 x 128) in the 56 recordings of actions 4, 6, 13, 22,
24, 26 and 27, 11 % lie beside the person at this lag, and 32, 18 and 26 % at lags of 0, 1 and 3.
"""

_FOCAL_PX = 285.63


class Clip(NamedTuple):
    """A recording's names and numbers; sorts as people count."""

    action: int
    subject: int
    trial: int

    @property
    def name(self) -> str:
        """For example "a01_s1_t1"."""
        return f"a{self.action:02d}_s{self.subject}_t{self.trial}"

    def file(self, kind: str) -> str:
        """Path of the "depth" or the "skeleton" in the data set."""
        return f"{kind.title()}/a{self.action}_s{self.subject}_t{self.trial}_{kind}.mat"


def read_depth(path: Path) -> np.ndarray:
    """Reads the frames of a recording.

    Returns:
        u16[T,240,320], mm, 0 where there is nothing of the person.

    Raises:
        ValueError: telling what is wrong with the file.
    """
    frames = read_array(read_bytes(path), "d_depth")
    if frames.ndim != 3 or frames.shape[:2] != CAMERA or frames.dtype != np.uint16:
        raise ValueError(
            f"holds {frames.dtype}{list(frames.shape)} instead of uint16[240, 320, frames]"
        )
    return np.moveaxis(frames, 2, 0)


def read_skeleton(path: Path) -> np.ndarray:
    """Reads the skeletons of a recording.

    Returns:
        f64[T,20,3], metres: x to the right of the frame, y up, z away from the camera.

    Raises:
        ValueError: telling what is wrong with the file.
    """
    skeleton = read_array(read_bytes(path), "d_skel")
    if skeleton.ndim != 3 or skeleton.shape[:2] != (20, 3) or skeleton.dtype.kind != "f":
        raise ValueError(
            f"holds {skeleton.dtype}{list(skeleton.shape)} instead of float64[20, 3, frames]"
        )
    return np.moveaxis(skeleton, 2, 0).astype(np.float64)


def limb_joints(skeleton: np.ndarray) -> np.ndarray:
    """Takes the limbs' joints of skeletons and projects them onto the frame.

    Args:
        skeleton: f64[T,20,3], metres.

    Returns:
        f64[T,12,2], (x, y) in pixels of the frame, in the order of JOINTS; NaN where a joint is
        not in front of the camera.

    Source: the Kinect SDK's NuiTransformSkeletonToDepthImage.
    """
    points = skeleton[:, [SKELETON.index(joint) for joint in JOINTS]]
    distance = np.where(points[..., 2] > 0, points[..., 2], np.nan)
    height, width = CAMERA
    with np.errstate(over="ignore", invalid="ignore"):  # not finite is outside of the frame
        x = width / 2 + _FOCAL_PX * points[..., 0] / distance
        y = height / 2 - _FOCAL_PX * points[..., 1] / distance
    return np.stack([x, y], axis=-1)
