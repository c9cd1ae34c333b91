"""Watches a source all night: newest frame, observation, alerts, log, and again.

The observer runs in a thread of its own. While it thinks, or hangs, time goes on: a monitor that
cannot judge what it sees raises STALE like one without a camera.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxbed.errors import InputError
from jaxbed.monitor import alerts
from jaxbed.monitor.alerts import Event
from jaxbed.monitor.asking import Asking
from jaxbed.monitor.events import EventLog, WallTime
from jaxbed.monitor.latency import Histogram
from jaxbed.monitor.notify import Notifier
from jaxbed.monitor.observation import Observation, Observer
from jaxbed.monitor.outlets import Now, Outlets
from jaxbed.monitor.overlay import VideoFile
from jaxbed.monitor.rules import STALE, Rule
from jaxbed.monitor.source import Frame, Source
from jaxbed.monitor.stopping import signals_set
from jaxbed.monitor.terminal import Terminal

_TICK_S = 0.1
_SHOWN_S = 1.0  # what was found in a frame is shown so long at least


class Summary(NamedTuple):
    """What a watch came to.

    Attributes:
        source: its name.
        ended: "the source ended" or "the monitor stopped".
        seconds: how long it took.
        frames: frames that were judged.
        unchanged: frames that were the same as the one before, and not judged.
        dropped: frames that newer ones replaced.
        damaged: reads that gave no usable frame.
        failed: frames that the observer failed at.
        reconnects: how often the source was lost.
        fps: judged frames per second.
        latency_p50_ms: from capture to decision; NaN without frames.
        latency_p95_ms: the time that 95 % stay below.
        latency_p99_ms: the time that 99 % stay below.
        latency_most_ms: the longest.
        events: how many of each kind were raised.
        stale_s: how long the monitor was blind, in stale events.
        unwritten: lines of the log that never reached the disk.
    """

    source: str
    ended: str
    seconds: float
    frames: int
    unchanged: int
    dropped: int
    damaged: int
    failed: int
    reconnects: int
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    latency_most_ms: float
    events: Mapping[str, int]
    stale_s: float
    unwritten: int


def watch(
    source: Source,
    observer: Observer,
    *,
    rules: Sequence[Rule] = alerts.DANGERS,
    stale_s: float = 10.0,
    events: EventLog | None = None,
    notifier: Notifier | None = None,
    status: Any = None,
    video: VideoFile | None = None,
    no_frames: bool = False,
    terminal: Terminal | None = None,
    clock: Callable[[], float] = time.monotonic,
    stop: threading.Event | None = None,
) -> Summary:
    """Watches until the source ends, `stop` is set or a signal (SIGINT, SIGTERM, SIGHUP) asks.

    Then open events end, and all that was passed in is closed.

    Args:
        source: where frames come from; started here unless it runs.
        observer: judges a frame. Let it compile before: what it takes is time without eyes.
        rules: when to alert.
        stale_s: without a new frame that can be judged for so long, STALE is raised.
        events: the log.
        notifier: is told of every onset and end.
        status: what a page shows, `jaxbed.monitor.status.Status`.
        video: gets every judged frame with what was found drawn on it.
        no_frames: no picture leaves this function: none goes to `status`, and `video` is refused.
        terminal: for state and messages; None for standard error.
        clock: seconds, monotonic; the source's.
        stop: ends the watch when it is set.

    Raises:
        InputError: a rule cannot be, or a video is asked for without frames.
    """
    if no_frames and video is not None:
        raise InputError("--no-frames and --video exclude each other; leave one of them out.")
    alerts.check(rules, stale_s=stale_s)
    stop = stop or threading.Event()
    outlets = Outlets(
        log=events,
        notifier=notifier,
        status=status,
        video=video,
        terminal=terminal or Terminal(),
        wall=WallTime(clock),
        pictures=not no_frames,
        enter={rule.kind: rule.enter for rule in rules},
    )
    source.start()
    first_id = events.next_id if events else 1
    state = alerts.start(rules, stale_s=stale_s, time_s=source.now_s(), first_id=first_id)
    watching, ended = _Watch(source, state, outlets, clock), "the monitor broke off"
    with signals_set(stop):
        try:
            ended = watching.run(observer, stop)
        finally:
            watching.close(ended)
    unwritten = events.waiting + events.lost if events else 0
    return watching.summary(ended, unwritten)


class _Watch:
    """The loop and what it counts."""

    def __init__(
        self, source: Source, state: alerts.State, outlets: Outlets, clock: Callable[[], float]
    ):
        self._source, self._state, self._outlets, self._clock = source, state, outlets, clock
        self._begun_s = self._shown_s = clock()
        self._decided_s = self._interval_s = self._latency_ms = math.nan
        self._latency, self._events, self._stale_s = Histogram(), Counter(), 0.0
        self._unchanged = self._failed = 0
        self._why_blind = ""  # what became of the frames since the last one that was judged

    def run(self, observer: Observer, stop: threading.Event) -> str:
        """Goes from frame to frame; returns why no more."""
        asking = Asking(observer)
        try:
            while not stop.is_set():
                frame = self._source.newest(_TICK_S)
                if frame is None and self._source.ended:
                    return "the source ended"
                if frame is not None and frame.changed:
                    self._look(frame, asking, stop)
                    continue
                if frame is not None:
                    self._unchanged += 1
                    self._why_blind = "the picture does not change"
                self._pass(self._why_blind or "no frame comes")
        finally:
            asking.close()
        return "the monitor stopped"

    def _look(self, frame: Frame, asking: Asking, stop: threading.Event) -> None:
        """Has a frame judged, and decides."""
        asking.ask(frame.image)
        while (found := asking.answer(_TICK_S)) is None:
            if stop.is_set():
                return
            self._pass("judging a frame takes long")
        if isinstance(found, Exception):
            self._failed += 1
            self._why_blind = "frames come but cannot be judged"
            self._outlets.remarks.say(
                "failed", f"a frame could not be judged ({found!r}); later ones are tried too."
            )
            self._pass(self._why_blind)
            return
        self._why_blind = ""
        self._state, changes = alerts.step(self._state, frame.time_s, found.scores)
        now = self._clock()
        self._latency_ms = 1000 * (now - frame.captured_s)
        self._latency.add(self._latency_ms)
        self._count_interval(now)
        self._tell(changes)
        self._show(now, found, frame)

    def _pass(self, blind: str) -> None:
        """Lets time pass without a frame that could be judged."""
        self._state, changes = alerts.step(self._state, self._source.now_s(), None, blind=blind)
        self._tell(changes)
        now = self._clock()
        if changes or now - self._shown_s >= _SHOWN_S:
            self._show(now)

    def _tell(self, changes: Sequence[Event]) -> None:
        for event in changes:
            if event.end_s is None:
                self._events[event.kind] += 1
            elif event.kind == STALE:
                self._stale_s += event.end_s - event.onset_s
            self._outlets.tell(event, self._source.started_s)
        self._outlets.speak(self._source.remarks)

    def _show(
        self, now: float, found: Observation | None = None, frame: Frame | None = None
    ) -> None:
        self._shown_s = now
        lasting = alerts.open_events(self._state)
        if lasting:
            word = "STALE" if lasting[0].kind == STALE else lasting[0].kind
        else:
            word = "OK" if self._latency.count else "STARTING"
        self._outlets.show(self._now(now, word, found), frame)

    def _now(self, now: float, word: str, found: Observation | None) -> Now:
        since_s = max(self._interval_s, now - self._decided_s)
        fps = 0.0 if math.isnan(since_s) else 1 / max(since_s, 1e-6)
        return Now(now, word, found, self._latency_ms, fps, self._source.dropped)

    def _count_interval(self, now: float) -> None:
        """Keeps a mean of the times between decisions that follows the last ten or so."""
        interval_s = now - self._decided_s
        kept = interval_s if math.isnan(self._interval_s) else self._interval_s
        self._interval_s = 0.9 * kept + 0.1 * interval_s
        self._decided_s = now

    def close(self, why: str) -> None:
        """Ends the open events and closes everything."""
        self._state, changes = alerts.finish(self._state, self._source.now_s(), why=why)
        self._tell(changes)
        self._outlets.show(self._now(self._clock(), "stopped", None))
        self._outlets.close(self._source)

    def summary(self, ended: str, unwritten: int) -> Summary:
        """Returns what was counted."""
        seconds = self._clock() - self._begun_s
        source, latency = self._source, self._latency
        return Summary(
            source=source.name,
            ended=ended,
            seconds=seconds,
            frames=latency.count,
            unchanged=self._unchanged,
            dropped=source.dropped,
            damaged=source.damaged,
            failed=self._failed,
            reconnects=source.reconnects,
            fps=latency.count / seconds if seconds > 0 else 0.0,
            latency_p50_ms=latency.percentile_ms(0.50),
            latency_p95_ms=latency.percentile_ms(0.95),
            latency_p99_ms=latency.percentile_ms(0.99),
            latency_most_ms=latency.most_ms,
            events=dict(self._events),
            stale_s=self._stale_s,
            unwritten=unwritten,
        )
