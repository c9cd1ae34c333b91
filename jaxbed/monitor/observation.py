"""What is seen in one frame: the border between the monitor and the networks it asks.

H W height and width of a frame in pixels, n faces.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Observation(NamedTuple):
    """What was found in a frame.

    Attributes:
        scores: probability of each danger within [0, 1], by kind ("occluded", "stomach",
            "standing"); NaN where it cannot be judged, for example because no face was found.
        faces: f32[n,5], corners x1, y1, x2, y2 in pixels from the frame's top left, and score.
        posture: probability of each posture.
        face_state: probability of each state of the face; empty when no face was found.
        note: what a person should know of this frame, or "".
    """

    scores: Mapping[str, float]
    faces: np.ndarray
    posture: Mapping[str, float]
    face_state: Mapping[str, float]
    note: str = ""


Observer = Callable[[np.ndarray], Observation]
"""Takes a frame u8[H,W,3], blue green red, and tells what it shows."""
