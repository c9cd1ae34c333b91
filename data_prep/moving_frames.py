"""Which frames of a night's video follow movement, and where in them the sleeper is.

h w height and width of a frame in pixels.

Of every interval one frame I is looked at and compared with I', the one `lag` earlier:

    D(x, y) = 1 where |I(x, y) - I'(x, y)| > T1, otherwise 0     (eq. 1)
    I is kept when the sum of D is at least T2                   (eq. 2)

so that a posture held for an hour gives some images and not thousands. Where D is 1 the sleeper
has moved: that region is cut out.

Source: "A deep learning-based method for nighttime sleep posture recognition" (Wang, Liu, Xu,
Zhao, Xu), data collection, eqs. 1 and 2: an interval of 1 s, a lag of 1.5 s. The paper publishes
neither T1 nor T2 nor how the region is found; here T2 is a share of the pixels, and the region a
square around what moved, specks left out.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from jaxbed.errors import InputError

_SLACK_S = 5e-4
"""Files round the times of their frames to milliseconds."""

_MOST_FPS = 1000
_JOINED = 1 / 20
"""Moving pixels are one patch when this share of the frame's shorter side bridges them."""

_SPECK = 1 / 4
"""Patches with less than this share of the largest one's moving pixels are no sleeper."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which frames are looked at, and when one is kept.

    Attributes:
        t1: grey levels that a pixel must have changed by more than.
        t2: how many pixels must have: below 1 their share, from 1 on their number.
        interval_s: one frame is looked at in each such time.
        lag_s: how long before it the frame is that it is compared with.
    """

    t1: float
    t2: float
    interval_s: float
    lag_s: float

    def check(self) -> None:
        """Refuses what cannot be."""
        wanted = {
            "--t1": (self.t1, 0 <= self.t1 < 255, "of 0 to 255 grey levels"),
            "--t2": (self.t2, self.t2 > 0, "above 0, a share of the pixels or their number"),
            "--interval-s": (self.interval_s, self.interval_s >= 0.01, "of at least 0.01 s"),
            "--lag-s": (self.lag_s, 0.01 <= self.lag_s <= 600, "of 0.01 to 600 s"),
        }
        for flag, (value, holds, expected) in wanted.items():
            if not (holds and math.isfinite(value)):
                raise InputError(f"{flag} must be a number {expected}, not {value}; change it.")

    def needed_px(self, pixels: int) -> int:
        """Returns how many of a frame's pixels must move, T2."""
        return math.ceil(self.t2 * pixels - 1e-9) if self.t2 < 1 else math.ceil(self.t2)


class Look(NamedTuple):
    """A frame that is looked at.

    Attributes:
        time_s: since the first frame.
        frame: u8[h,w].
        moving: bool[h,w], D of eq. 1; None where no frame of the lag's age is known.
    """

    time_s: float
    frame: np.ndarray
    moving: np.ndarray | None


class Box(NamedTuple):
    """A region of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """Cuts it out of [h,w]."""
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]


class Looks:
    """Picks from frames, offered in order of time, those that are looked at.

    The frames wanted are the first ones at or after 0, 1, 2, ... intervals, and those at or after
    the same times less the lag, to compare with. Only the latter are kept, and only until they are
    older than the lag: at most lag / interval + 2 frames, however long the video is.

    Attributes:
        earlier: (time in seconds, u8[h,w]) of the frames to compare with, oldest first.
    """

    def __init__(self, rule: Rule):
        self._rule = rule
        self._next_look_s = 0.0
        first = math.ceil((rule.lag_s - _SLACK_S) / rule.interval_s)
        self._next_earlier_s = first * rule.interval_s - rule.lag_s
        self.earlier: deque[tuple[float, np.ndarray]] = deque()

    def offer(self, time_s: float, retrieve: Callable[[], np.ndarray | None]) -> Look | None:
        """Takes the next frame.

        Args:
            time_s: when it was seen, later than the one before.
            retrieve: gives it as u8[h,w], or None where it is damaged; called only if wanted.

        Returns:
            The frame beside its difference, if it is one to look at.
        """
        rule, now_s = self._rule, time_s + _SLACK_S
        if now_s < min(self._next_look_s, self._next_earlier_s):
            return None
        frame = retrieve()
        if frame is None:
            return None  # the next one stands in for it
        if now_s >= self._next_earlier_s:
            self.earlier.append((time_s, frame))
            turn = math.floor((now_s + rule.lag_s) / rule.interval_s) + 1
            self._next_earlier_s = turn * rule.interval_s - rule.lag_s
        if now_s < self._next_look_s:
            return None
        turn = math.floor(now_s / rule.interval_s)
        self._next_look_s = (turn + 1) * rule.interval_s
        while self.earlier and self.earlier[0][0] + _SLACK_S < turn * rule.interval_s - rule.lag_s:
            self.earlier.popleft()
        return Look(time_s, frame, self._moving(time_s, frame))

    def _moving(self, time_s: float, frame: np.ndarray) -> np.ndarray | None:
        if not self.earlier:
            return None
        earlier_s, earlier = self.earlier[0]
        # Where frames are missing, the nearest one may be far from the lag's age.
        usable = self._rule.lag_s / 2 <= time_s - earlier_s <= self._rule.lag_s * 2
        if not usable or earlier.shape != frame.shape:
            return None
        return moving_pixels(frame, earlier, self._rule.t1)


def frame_times(video: cv2.VideoCapture) -> Iterator[float]:
    """Grabs frame after frame of a video and tells when each was seen.

    Time stamps that do not advance (absent, or begun anew where recordings were joined) are
    replaced by the frame rate.

    Yields:
        Seconds since the first frame.

    Raises:
        ValueError: if the file tells neither time stamps nor a frame rate.
    """
    time_s, last_s, fps = 0.0, None, video.get(cv2.CAP_PROP_FPS)
    while video.grab():
        stamp_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if last_s is not None:
            step_s = stamp_s - last_s
            if not (step_s > 0 and math.isfinite(step_s)):
                if not 0 < fps <= _MOST_FPS:
                    raise ValueError("tells neither the times of its frames nor a frame rate")
                step_s = 1 / fps
            time_s += step_s
        last_s = stamp_s
        yield time_s


def moving_pixels(frame: np.ndarray, earlier: np.ndarray, t1: float) -> np.ndarray:
    """Returns D of eq. 1, bool[h,w], of two frames u8[h,w]."""
    return cv2.absdiff(frame, earlier) > t1


def target_region(moving: np.ndarray, *, margin: float, least: float) -> Box:
    """Finds the region that the sleeper moved in.

    Args:
        moving: bool[h,w], D of eq. 1, at least one pixel of it.
        margin: what is added on each side, as a share of the region's longer side.
        least: shortest side of the region, as a share of the frame's shorter one: who moves an arm
            is not an arm.

    Returns:
        A square around the patches of moving pixels, but for small ones. Who moves far leaves two
        patches, where he was and where he is. Less than a square only where the frame has no room
        for one.
    """
    reach = 2 * math.ceil(min(moving.shape) * _JOINED / 2) + 1
    near = cv2.dilate(moving.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, parts = cv2.connectedComponents(near)
    counts = np.bincount(parts[moving])
    large = np.flatnonzero(counts >= _SPECK * counts.max())
    rows, columns = np.nonzero(moving & np.isin(parts, large))
    (top, bottom), (left, right) = ((x.min(), x.max() + 1) for x in (rows, columns))
    side = max(bottom - top, right - left) * (1 + 2 * margin)
    side = math.ceil(max(side, least * min(moving.shape)))
    (top, height), (left, width) = (
        _within((low + high) / 2, side, room)
        for low, high, room in zip((top, left), (bottom, right), moving.shape, strict=True)
    )
    return Box(top, left, height, width)


def _within(centre: float, length: int, room: int) -> tuple[int, int]:
    """Returns the beginning and length of a stretch around a centre, moved into 0 to `room`."""
    length = min(length, room)
    return min(max(round(centre - length / 2), 0), room - length), length
