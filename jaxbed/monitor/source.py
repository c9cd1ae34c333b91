"""Reads a source in a thread of its own, so that whoever asks gets the newest frame at once.

Frames that nobody took in time are dropped, never queued. A live source that is lost is opened
again after growing pauses, for as long as it takes. A read that blocks (a camera that hangs, a
name server that does not answer) blocks the thread only.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from jaxbed.monitor.captures import Capture, MediaTime, Origin, find_origin
from jaxbed.monitor.frames import Normaliser, signature
from jaxbed.monitor.remarks import Remarks

PACES = ("own", "fast")
_FAILURES = 25  # in a row, after which a source is taken for lost or at its end
_PAUSE_S = 0.02  # between failures: some cameras fail at once, and would be asked without a break
_STEADY_S = 5.0  # a source that lived so long is opened again without growing pauses


class Frame(NamedTuple):
    """A frame and when it was seen.

    Attributes:
        image: u8[H,W,3], blue green red; the same size all night.
        number: counts the frames of the source, those dropped included.
        time_s: on the source's timeline, see `Source.now_s`.
        captured_s: by the clock.
        changed: whether it differs from the frame that was taken before.
    """

    image: np.ndarray
    number: int
    time_s: float
    captured_s: float
    changed: bool


class BackOff:
    """Pauses before the next attempt: each about twice the last one, up to a cap.

    A random part keeps many monitors of one camera from calling at the same moment.
    """

    def __init__(self, *, first_s: float = 0.5, cap_s: float = 15.0, seed: int = 0):
        self._first_s, self._cap_s = first_s, cap_s
        self._random = random.Random(seed)
        self._attempt = 0

    def next_s(self) -> float:
        """Returns the next pause: half to all of what the attempt's number allows."""
        whole_s = min(self._cap_s, self._first_s * 2 ** min(self._attempt, 30))
        self._attempt += 1
        return whole_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begins with the shortest pause again."""
        self._attempt = 0


class Source:
    """The newest frame of an origin. Leave its context, or close it, to stop reading.

    Attributes:
        name: for messages.
        live: whether it goes on for ever.
        remarks: what is odd about it.
        dropped: frames that were replaced by newer ones before anybody took them.
        damaged: reads that gave no frame, or none that can be used.
        reconnects: how often it was lost.
        started_s: when reading began, by the clock; 0 of the timeline.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        pace: str = "own",
        back_off: BackOff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepares; `start` begins to read.

        Args:
            origin: made by `find_origin`.
            pace: "own" plays a file as fast as it was filmed and drops what comes too fast;
                "fast" gives every frame as soon as it is asked for, its time being the file's.
                A live source has its own pace only.
            back_off: pauses between attempts to open a live source.
            clock: seconds, monotonic.
        """
        if pace not in PACES:
            raise ValueError(f"pace is one of {PACES}, found {pace!r}")
        self.name, self.live = origin.name, origin.live
        self.remarks = Remarks()
        self.dropped = self.damaged = self.reconnects = 0
        self.started_s = clock()
        self._fast = pace == "fast" and not origin.live
        self._open, self._clock = origin.open, clock
        self._back_off = back_off or BackOff()
        self._normaliser = Normaliser(self.remarks, self.name)
        self._condition = threading.Condition()
        self._stop = threading.Event()
        self._slot: Frame | None = None
        self._slot_signature = self._taken_signature = None
        self._number = self._failures = 0
        self._done, self._time_s = False, self.started_s
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def __enter__(self) -> "Source":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begins to read, unless it has begun."""
        if self._thread.ident is not None:
            return
        self.started_s = self._time_s = self._clock()
        self._thread.start()

    def close(self, wait_s: float = 2.0) -> None:
        """Stops reading. A read that blocks for longer than `wait_s` is left to itself."""
        self._stop.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        with self._condition:
            return self._done and self._slot is None

    def now_s(self) -> float:
        """Returns the time on the source's timeline, which frames and alerts are told in.

        The clock's, but for a file that is read as fast as can be: there the time in the file of
        the frame that was taken last, counted from `started_s`.
        """
        return self._time_s if self._fast else self._clock()

    def newest(self, timeout_s: float) -> Frame | None:
        """Returns the newest frame unless it was taken before, and waits for one if need be.

        Args:
            timeout_s: the longest wait; None comes back after it, or when the source has ended.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._slot or self._done, timeout_s)
            frame, self._slot = self._slot, None
            if frame is None:
                return None
            changed = self._slot_signature != self._taken_signature
            self._taken_signature = self._slot_signature
            self._condition.notify_all()
        if self._fast:
            self._time_s = frame.time_s
            frame = frame._replace(captured_s=self._clock())
        return frame._replace(changed=changed)

    def _run(self) -> None:
        try:
            if self.live:
                self._read_for_ever()
            else:
                self._read_once()
        except Exception as error:  # a thread that dies must not pass for a quiet night
            self.remarks.say("broken", f"{self.name}: reading broke off: {error!r}.")
        finally:
            with self._condition:
                self._done = True
                self._condition.notify_all()

    def _read_for_ever(self) -> None:
        while not self._stop.is_set():
            begun_s, frames = self._clock(), self._number
            try:
                self._follow()
            except Exception as error:  # whatever a driver does, the camera may come back
                self.remarks.say("broken", f"{self.name}: {error!r}; trying again.")
            if self._stop.is_set():
                return
            if self._number > frames:
                self.reconnects += 1
                self.remarks.say("lost", f"{self.name}: no frame comes any more; trying again.")
                if self._clock() - begun_s > _STEADY_S:
                    self._back_off.reset()
            else:
                self.remarks.say("closed", f"{self.name}: cannot be opened or read; trying again.")
            self._stop.wait(self._back_off.next_s())

    def _follow(self) -> None:
        """Reads a live source until it is lost."""
        capture = self._open()
        self._failures = 0
        try:
            while capture.isOpened() and self._failures < _FAILURES and not self._stop.is_set():
                image, captured_s = self._read(capture, self._clock)
                if image is None:
                    self._stop.wait(_PAUSE_S)
                else:
                    self._offer(image, captured_s)
        finally:
            capture.release()

    def _read_once(self) -> None:
        """Reads a file from its first frame to its last."""
        capture = self._open()
        media = MediaTime(capture)
        expected, grabbed, missed = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, 0
        try:
            while missed < _FAILURES and not self._stop.is_set():
                image, due_s = self._read(capture, lambda: self.started_s + media.next_s())
                missed = missed + 1 if due_s is None else 0
                grabbed += due_s is not None
                if image is None:
                    continue
                if not self._fast:
                    self._stop.wait(max(0.0, due_s - self._clock()))
                    due_s = self._clock()
                self._offer(image, due_s)
        finally:
            capture.release()
        if not self._stop.is_set() and grabbed + self.damaged < 0.95 * expected - 1:
            self.remarks.say(
                "short", f"{self.name}: ends after {grabbed:,} of {expected:,.0f} frames."
            )

    def _read(
        self, capture: Capture, when: Callable[[], float]
    ) -> tuple[np.ndarray | None, float | None]:
        """Returns the next image, None if it is damaged, and its time, None if there is none."""
        image = time_s = None
        try:
            if capture.grab():
                time_s = when()
                good, image = capture.retrieve()
                image = self._normaliser.convert(image) if good else None
        except cv2.error:
            image = None
        if image is None:
            self._failures += 1
            return None, time_s
        if self._failures:  # not at the end of a file: what fails there is no frame
            self.damaged += self._failures
            self._failures = 0
            self.remarks.say("damaged", f"{self.name}: damaged frames are left out.")
        return image, time_s

    def _offer(self, image: np.ndarray, time_s: float) -> None:
        """Puts a frame where `newest` finds it."""
        found = signature(image)
        with self._condition:
            if self._fast:
                self._condition.wait_for(lambda: self._slot is None or self._stop.is_set())
            elif self._slot is not None:
                self.dropped += 1
            self._slot = Frame(image, self._number, time_s, time_s, changed=True)
            self._slot_signature = found
            self._number += 1
            self._condition.notify_all()


def open_source(
    source: str,
    *,
    pace: str = "own",
    folder_hz: float = 10.0,
    open_s: float = 5.0,
    read_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    seed: int = 0,
) -> Source:
    """Returns a source, not started yet; see `find_origin` and `Source` for the arguments.

    Raises:
        InputError: it can never work.
    """
    origin = find_origin(source, open_s=open_s, read_s=read_s, folder_hz=folder_hz)
    return Source(origin, pace=pace, back_off=BackOff(seed=seed), clock=clock)
