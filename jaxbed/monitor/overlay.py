"""Draws what was found on a copy of a frame, and keeps such frames as a video."""

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from jaxbed.errors import InputError
from jaxbed.monitor.observation import Observation

_GREEN, _RED, _GREY, _WHITE = (80, 200, 80), (60, 60, 235), (150, 150, 150), (255, 255, 255)
_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_FREE_BYTES = 64 << 20
_GAP_S = 1.0


def draw(
    frame: np.ndarray,
    observation: Observation,
    *,
    state: str,
    enter: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Draws faces, scores and the state on a copy of a frame.

    Args:
        frame: u8[H,W,3], blue green red.
        observation: what was found in it.
        state: "OK", "STALE" or the danger that is on.
        enter: by danger the score from which it alerts; bars above it are red.

    Returns:
        u8[H,W,3].
    """
    drawn = frame.copy()
    height, width = drawn.shape[:2]
    unit = max(height, 120) / 480  # of text and lines
    for x1, y1, x2, y2, score in np.asarray(observation.faces, float).reshape(-1, 5):
        corners = np.array([x1, y1, x2, y2])
        if not np.isfinite(corners).all():
            continue
        left, top, right, bottom = (int(c) for c in corners.clip(-width, 2 * width + 2 * height))
        cv2.rectangle(drawn, (left, top), (right, bottom), _GREEN, max(1, round(2 * unit)))
        _write(drawn, f"{score:.2f}", (left, top - round(4 * unit)), 0.45 * unit, _GREEN)
    colour = {"OK": _GREEN, "STALE": _GREY}.get(state.upper(), _RED)
    bar = round(30 * unit)
    cv2.rectangle(drawn, (0, 0), (width, bar), (0, 0, 0), cv2.FILLED)
    posture = max(observation.posture, key=observation.posture.get, default="")
    text = "   ".join(part for part in (state.upper(), posture, observation.note) if part)
    _write(drawn, text, (round(8 * unit), round(21 * unit)), 0.6 * unit, colour)
    for row, (kind, score) in enumerate(sorted(observation.scores.items())):
        _draw_score(drawn, row, kind, score, (enter or {}).get(kind, 0.5), unit)
    return drawn


def _draw_score(
    drawn: np.ndarray, row: int, kind: str, score: float, enter: float, unit: float
) -> None:
    """Draws a danger's name and a bar as long as its score; none where it was not judged."""
    base = drawn.shape[0] - round((10 + 20 * row) * unit)
    left, full = round(100 * unit), round(100 * unit)
    _write(drawn, kind, (round(8 * unit), base), 0.45 * unit, _WHITE)
    top = base - round(10 * unit)
    cv2.rectangle(drawn, (left, top), (left + full, base), _GREY, 1)
    if math.isfinite(score):
        colour = _RED if score >= enter else _GREEN
        end = left + round(full * min(max(score, 0.0), 1.0))
        cv2.rectangle(drawn, (left, top), (end, base), colour, cv2.FILLED)
    told = f"{score:.2f}" if math.isfinite(score) else "?"
    _write(drawn, told, (left + full + round(6 * unit), base), 0.45 * unit, _WHITE)


def _write(
    drawn: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int]
) -> None:
    text = "".join(c if " " <= c <= "~" else "?" for c in text)  # OpenCV's letters are these
    thickness = max(1, round(2 * scale))
    cv2.putText(
        drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness + 2, cv2.LINE_AA
    )
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


class VideoFile:
    """Writes frames that come now and then as a video that plays at the right speed.

    An .mkv or .avi can be played even when the monitor was killed; an .mp4 only once it was
    closed.
    """

    def __init__(self, path: Path, *, fps: float = 10.0):
        """Checks that a video can be written; the file is made with the first frame.

        Raises:
            InputError: if the name or the folder is unfit.
        """
        if path.suffix.lower() not in _CODECS:
            raise InputError(f"--video {path} must end in one of {', '.join(_CODECS)}.")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise InputError(
                f"--video {path}: its folder is not there or may not be written to; name another."
            )
        if not 1 <= fps <= 120:
            raise InputError(f"--video-fps is {fps}; give 1 to 120 frames per second.")
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._written, self._start_s = 0, 0.0

    def write(self, image: np.ndarray, time_s: float) -> None:
        """Adds u8[H,W,3] as often as it fills the time since the last one, 1 s at most.

        Raises:
            OSError: no video can be written, or the disk is nearly full; what was written stays.
        """
        if self._writer is None:
            self._open(image, time_s)
        due = math.floor((time_s - self._start_s) * self._fps) + 1 - self._written
        if due > _GAP_S * self._fps:
            left_out = due - max(1, round(_GAP_S * self._fps))
            self._start_s += left_out / self._fps
            due -= left_out
        for _ in range(due):
            # OpenCV does not tell of a full disk; and events need what is left of it.
            if self._written % 50 == 0 and shutil.disk_usage(self._path.parent).free < _FREE_BYTES:
                raise OSError(f"{self._path}: less than {_FREE_BYTES >> 20} MiB are free")
            self._writer.write(image)
            self._written += 1

    def close(self) -> None:
        """Completes the file. A second call does nothing."""
        if self._writer is not None:
            self._writer.release()

    def _open(self, image: np.ndarray, time_s: float) -> None:
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        size = image.shape[1::-1]
        self._writer = cv2.VideoWriter(
            os.fspath(self._path), cv2.CAP_FFMPEG, codec, self._fps, size
        )
        self._start_s = time_s
        if not self._writer.isOpened():
            raise OSError(f"{self._path}: OpenCV cannot write such a video")
