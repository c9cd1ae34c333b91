"""Opens what can be watched: video files, folders of images, webcams and network streams."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from jaxbed.errors import InputError

SCHEMES = ("rtsp", "rtsps", "http", "https")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_MOST_FPS = 1000.0
_FALLBACK_FPS = 25.0


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: D102, N802
    def grab(self) -> bool: ...  # noqa: D102
    def retrieve(self) -> tuple[bool, np.ndarray | None]: ...  # noqa: D102
    def get(self, prop: int) -> float: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


class Origin(NamedTuple):
    """Where frames come from.

    Attributes:
        name: for messages; a password in an address is left out.
        live: whether it goes on for ever and is opened again when it is lost.
        open: opens it; may take long, and what it returns may not be open.
    """

    name: str
    live: bool
    open: Callable[[], Capture]


def find_origin(
    source: str, *, open_s: float = 5.0, read_s: float = 5.0, folder_hz: float = 10.0
) -> Origin:
    """Tells what a source is, and checks that it can be watched as far as that can be known.

    Args:
        source: a video file, a folder of images, the number of a webcam, /dev/video0, or an
            address rtsp://, rtsps://, http:// or https://.
        open_s: how long opening a network stream may take.
        read_s: how long its next frame may take.
        folder_hz: images per second of a folder.

    Raises:
        InputError: it can never work: nothing there, empty, or neither video nor images. A
            camera that does not answer may still come.
    """
    silence()
    if re.fullmatch(r"\d{1,3}", source):
        return Origin(f"webcam {source}", True, lambda: _webcam(int(source)))
    if re.fullmatch(r"/dev/video\d+", source):
        return Origin(source, True, lambda: _webcam(source))
    scheme = re.match(r"([A-Za-z][\w+.-]*)://", source)
    if scheme:
        name = without_password(source)
        if scheme[1].lower() not in SCHEMES:
            raise InputError(
                f"{name} begins with {scheme[1]}://, but a stream must be one of "
                f"{', '.join(SCHEMES)}; change the address."
            )
        return Origin(name, True, lambda: _stream(source, open_s, read_s))
    path = Path(source)
    if path.is_dir():
        return _folder(path, folder_hz)
    return _file(path)


def silence() -> None:
    """Keeps OpenCV and FFmpeg from telling of every damaged frame by themselves."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def without_password(address: str) -> str:
    """Returns an address to show, without user, password and query."""
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return address.partition("://")[0] + "://..."
    return f"{parts.scheme}://{host}{parts.path}"


def _webcam(which: int | str) -> Capture:
    capture = cv2.VideoCapture(which)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # or else frames wait in the driver and grow old
    return capture


def _stream(address: str, open_s: float, read_s: float) -> Capture:
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * open_s)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * read_s)),
    ]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)


def _file(path: Path) -> Origin:
    if not path.exists():
        raise InputError(
            f"{path} does not exist; name a video file, a folder of images, the number of a "
            "webcam, or an address that begins with rtsp:// or http://."
        )
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder; name one that is.")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty; name a video that holds frames.")

    def opened() -> Capture:
        # This backend only: another one takes a_01.avi for the first of a row of images. The
        # whole path, lest FFmpeg reads part of a name as a protocol.
        return cv2.VideoCapture(os.fspath(path.resolve()), cv2.CAP_FFMPEG)

    capture = opened()
    try:
        readable = capture.isOpened() and capture.grab()
    finally:
        capture.release()
    if not readable:
        raise InputError(
            f"{path} is not a video that can be read; convert it, or, if it is an MP4 that is "
            "still being written, wait until it is complete."
        )
    return Origin(str(path), False, opened)


def _folder(path: Path, folder_hz: float) -> Origin:
    if not 0 < folder_hz <= _MOST_FPS:
        raise InputError(f"--folder-hz is {folder_hz}; give images per second, 1 to 1000.")
    images = [x for x in path.iterdir() if x.suffix.lower() in SUFFIXES and x.is_file()]
    if not images:
        raise InputError(f"{path} holds no image ({', '.join(SUFFIXES)}); name a folder that does.")
    images.sort(key=_natural)
    if all(_read_image(image) is None for image in images):
        raise InputError(f"{path} holds {len(images):,} images, but none can be read; mend them.")
    return Origin(str(path), False, lambda: _Images(images, folder_hz))


def _natural(path: Path) -> list:
    """Sorts frame_10 behind frame_9."""
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts]


def _read_image(path: Path) -> np.ndarray | None:
    """Reads u8 or u16[H,W,3]; None for half a file, or one that is no image."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content:
            return None  # a JPEG file without an end, of which libjpeg would tell the terminal
        # Not imread, which makes up what is missing at a file's end.
        encoded = np.frombuffer(content, np.uint8)
        return cv2.imdecode(encoded, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None


class _Images:
    """Reads image files one after the other, like a video."""

    def __init__(self, paths: list[Path], hz: float):
        self._paths, self._hz, self._number = paths, hz, -1

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        self._number += 1
        return self._number < len(self._paths)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        image = _read_image(self._paths[self._number])
        return image is not None, image

    def get(self, prop: int) -> float:
        values = {
            cv2.CAP_PROP_POS_MSEC: 1000 * self._number / self._hz,
            cv2.CAP_PROP_FPS: self._hz,
            cv2.CAP_PROP_FRAME_COUNT: len(self._paths),
        }
        return values[prop]

    def release(self) -> None:
        pass


class MediaTime:
    """Tells when each grabbed frame of a file is due, in seconds after the first.

    Time stamps that do not advance (absent, or begun anew where recordings were joined) are
    replaced by the frame rate.
    """

    def __init__(self, capture: Capture):
        fps = capture.get(cv2.CAP_PROP_FPS)
        self._step_s = 1 / (fps if 0 < fps <= _MOST_FPS else _FALLBACK_FPS)
        self._capture, self._time_s, self._last_s = capture, 0.0, None

    def next_s(self) -> float:
        """Returns the time of the frame that was grabbed last."""
        stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._last_s is not None:
            passed_s = stamp_s - self._last_s
            good = math.isfinite(passed_s) and passed_s > 0
            self._time_s += passed_s if good else self._step_s
        self._last_s = stamp_s
        return self._time_s
