"""Everything a watch tells others: terminal, log, notifications, page and video.

None of them may stop the watch: one that fails is told of once and tried again.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2

from jaxbed.monitor.alerts import Event
from jaxbed.monitor.events import EventLog, WallTime, record
from jaxbed.monitor.notify import Notifier
from jaxbed.monitor.observation import Observation
from jaxbed.monitor.overlay import VideoFile, draw
from jaxbed.monitor.remarks import Remarks
from jaxbed.monitor.source import Frame, Source
from jaxbed.monitor.terminal import Terminal

_PICTURE_S = 0.2  # a page asks for fewer pictures than cameras give
_LINE_S = 0.2


class Now(NamedTuple):
    """What a watch knows at a moment.

    Attributes:
        time_s: by the clock.
        word: "OK", "STALE" or the danger that is on; "STARTING" and "stopped" at the ends.
        found: what the newest frame showed; None when none came for a while.
        latency_ms: from capture to decision.
        fps: judged frames per second.
        dropped: frames passed over so far.
    """

    time_s: float
    word: str
    found: Observation | None
    latency_ms: float
    fps: float
    dropped: int


class Outlets:
    """Whoever is told, and how.

    Attributes:
        remarks: what went wrong in telling.
    """

    def __init__(
        self,
        *,
        log: EventLog | None,
        notifier: Notifier | None,
        status: Any,
        video: VideoFile | None,
        terminal: Terminal,
        wall: WallTime,
        pictures: bool,
        enter: Mapping[str, float],
    ):
        """Takes what may be None, and what is needed to tell.

        Args:
            log: of events.
            notifier: of events.
            status: what a page shows, see `jaxbed.monitor.status.Status`.
            video: gets frames with what was found in them.
            terminal: for lines.
            wall: for times.
            pictures: whether frames may be shown at all.
            enter: by danger the score from which it alerts.
        """
        self.remarks = Remarks()
        self._log, self._notifier, self._status = log, notifier, status
        self._video, self._terminal, self._wall = video, terminal, wall
        self._pictures, self._enter = pictures, enter
        self._pictured_s = self._lined_s = float("-inf")

    def tell(self, event: Event, origin_s: float) -> None:
        """Passes an onset or an end on, to the quickest first."""
        at = self._wall.local(event.raised_s if event.end_s is None else event.end_s)
        if event.end_s is None:
            told = f"ALERT {event.kind.upper()} ({event.priority}): {event.rule}"
        else:
            told = f"over: {event.kind} after {event.end_s - event.onset_s:.1f} s"
        self._terminal.say(f"{at:%H:%M:%S} {told}")
        if self._status is not None:
            self._guard("the page", lambda: self._status.add_event(event))
        line = record(event, wall=self._wall, origin_s=origin_s)
        if self._notifier is not None:
            self._notifier.send(line)
        if self._log is not None:
            self._log.write(line)

    def show(self, now: Now, frame: Frame | None = None) -> None:
        """Shows the state, and the frame that was found to be so."""
        picture = self._picture(now, frame) if frame is not None and self._pictures else None
        if self._status is not None:
            self._guard(
                "the page",
                lambda: self._status.show(
                    state=now.word,
                    observation=now.found,
                    latency_ms=now.latency_ms,
                    fps=now.fps,
                    dropped=now.dropped,
                    picture=picture,
                ),
            )
        if self._terminal.rewrites and now.time_s - self._lined_s >= _LINE_S:
            self._lined_s = now.time_s
            self._guard("the terminal", lambda: self._terminal.show(self._line(now)))

    def speak(self, source: Remarks) -> None:
        """Says what the source and the outlets have to say, and retries what failed."""
        if self._log is not None:
            self._log.retry()
        said = [source, self.remarks]
        said += [part.remarks for part in (self._log, self._notifier) if part is not None]
        for remarks in said:
            for sentence in remarks.take():
                self._terminal.say(sentence)

    def close(self, source: Source) -> None:
        """Closes all, the log first, and the source, which may take long to let go."""
        if self._log is not None:
            self._log.close()
        self._end_video()
        source.close()
        if self._notifier is not None:
            self._notifier.close()
        self.speak(source.remarks)
        self._terminal.close()

    def _line(self, now: Now) -> str:
        scores = now.found.scores.items() if now.found else ()
        told = "".join(f"  {kind} {score:.2f}" for kind, score in scores)
        return (
            f"{self._wall.local(now.time_s):%H:%M:%S} {now.word}{told}  {now.fps:.1f} frames/s  "
            f"{now.latency_ms:.0f} ms  {now.dropped} dropped"
        )

    def _picture(self, now: Now, frame: Frame) -> bytes | None:
        """Draws a frame for those who want it; returns it as a JPEG file for the page."""
        shown = self._status is not None and self._status.wants_picture
        shown = shown and now.time_s - self._pictured_s >= _PICTURE_S
        if not shown and self._video is None:
            return None
        try:
            drawn = draw(frame.image, now.found, state=now.word, enter=self._enter)
        except Exception as error:
            self.remarks.say("drawn", f"a frame could not be drawn ({error!r}); alerts go on.")
            return None
        if self._video is not None:
            try:
                self._video.write(drawn, frame.time_s)
            except Exception as error:
                self.remarks.say("video", f"the video stops here ({error}); alerts go on.")
                self._end_video()
        if not shown:
            return None
        self._pictured_s = now.time_s
        good, picture = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 80])
        return picture.tobytes() if good else None

    def _end_video(self) -> None:
        if self._video is not None:
            self._guard("the video", self._video.close)
            self._video = None

    def _guard(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self.remarks.say(name, f"{name} failed ({error!r}); alerts go on.")
