"""Makes every camera's frames alike: three channels of 8 bits and one size all night.

H W height and width in pixels, C channels.
"""

import zlib

import cv2
import numpy as np

from jaxbed.monitor.remarks import Remarks

LEAST_SIDE_PX = 16
_HASHED_BYTES = 1 << 20


class Normaliser:
    """Converts frames to u8[H,W,3], blue green red, of the size of the first one."""

    def __init__(self, remarks: Remarks, name: str):
        self._remarks, self._name = remarks, name
        self._size: tuple[int, int] | None = None
        self._bits = 8

    def convert(self, frame: np.ndarray) -> np.ndarray | None:
        """Converts a frame; None for one that shows nothing that can be used.

        A frame of another size is scaled into the first one's, black beside it, so that nothing
        is squeezed and what is compiled for a size stays. (FFmpeg streams that change size
        underway are an exception: OpenCV squeezes them itself.)

        Args:
            frame: u8 or u16, [H,W] or [H,W,C] with 1, 3 or 4 channels.
        """
        if not isinstance(frame, np.ndarray) or frame.ndim not in (2, 3) or not frame.size:
            return self._skip("it is not an image")
        channels = 1 if frame.ndim == 2 else frame.shape[2]
        if channels not in (1, 3, 4):
            return self._skip(f"it has {channels} channels, expected 1, 3 or 4")
        if min(frame.shape[:2]) < LEAST_SIDE_PX:
            return self._skip(f"its {frame.shape[0]} x {frame.shape[1]} pixels are too few")
        if frame.dtype == np.uint16:
            frame = self._to_8_bits(frame)
        elif frame.dtype != np.uint8:
            return self._skip(f"its levels are {frame.dtype}, expected 8 or 16 bits")
        if channels == 1:
            self._remarks.say("grey", f"{self._name}: frames are grey; taken as they are.")
            frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        elif channels == 4:
            frame = np.ascontiguousarray(frame[..., :3])
        self._size = self._size or frame.shape[:2]
        if frame.shape[:2] != self._size:
            self._remarks.say(
                "size",
                f"{self._name}: frames change from {_told(self._size)} to "
                f"{_told(frame.shape)} pixels; they are scaled to the first size.",
            )
            frame = fit(frame, self._size)
        return frame

    def _to_8_bits(self, frame: np.ndarray) -> np.ndarray:
        # Cameras of 10 to 14 bits leave the upper ones empty. The scale never goes back, so that
        # the picture does not flicker with its brightest pixel.
        self._bits = max(self._bits, int(frame.max()).bit_length())
        self._remarks.say("bits", f"{self._name}: frames have 16 bits; 8 of them are used.")
        return (frame >> (self._bits - 8)).astype(np.uint8)

    def _skip(self, why: str) -> None:
        self._remarks.say(
            "unusable", f"{self._name}: a frame is left out: {why}; later ones are not told of."
        )


def fit(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales u8[H,W,3] into `size` (height, width), in its middle, with black on two sides."""
    height, width = size
    scale = min(height / frame.shape[0], width / frame.shape[1])
    inner = [max(1, round(side * scale)) for side in frame.shape[:2]]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted[top : top + inner[0], left : left + inner[1]] = cv2.resize(
        frame, inner[::-1], interpolation=method
    )
    return fitted


def signature(frame: np.ndarray) -> int:
    """Returns a number that a camera which still works changes from frame to frame.

    It covers every row of a small frame and evenly spread rows of one above a megabyte: the
    noise of a sensor is everywhere.
    """
    every = -(-frame.nbytes // _HASHED_BYTES)
    return zlib.crc32(np.ascontiguousarray(frame[::every]))


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
