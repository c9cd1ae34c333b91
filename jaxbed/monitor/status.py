"""What the monitor knows right now, shared between the watch loop and the page."""

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from jaxbed.monitor.alerts import Event
from jaxbed.monitor.observation import Observation
from jaxbed.monitor.rules import STALE
from jaxbed.whole_files import plain

EVENTS = 40
"""How many events are kept: the newest; of older ones those that are still open."""
UNSEEN_S = 3.0
"""A danger that frames did not let judge for so long is no longer taken for absent."""
SILENT_S = 10.0
"""A watch loop that has said nothing for so long is taken for dead."""


class Status:
    """The latest observation, picture and events. Any thread may call any method.

    The watch loop writes and must never wait: what takes time is done in the reader's thread.

    Attributes:
        wants_picture: whether `show` is to be given pictures; False in no-frames mode, where a
            picture that is given all the same is dropped.
        thresholds: by danger the scores above which an alert begins and below which it ends, in
            0..1; shown beside the scores.
    """

    def __init__(
        self,
        *,
        wants_picture: bool = True,
        thresholds: Mapping[str, tuple[float, float]] | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self.wants_picture = wants_picture
        self.thresholds = dict(thresholds or {})
        self._now, self._wall = now, wall
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {"state": "starting", "fps": 0.0, "dropped": 0}
        self._shown_s: float | None = None
        self._observation: Observation | None = None
        self._latency_ms, self._frame_s = math.nan, math.nan
        self._judged_s: dict[str, float] = {}
        self._picture: bytes | None = None
        self._events: dict[str, Event] = {}
        self._acknowledged_s: dict[str, float] = {}
        # A page must not take the events of a restarted monitor for those it has.
        self._run, self._changes = secrets.token_hex(4), 0

    def show(
        self,
        *,
        state: str,
        observation: Observation | None,
        latency_ms: float,
        fps: float,
        dropped: int,
        picture: bytes | None,
    ) -> None:
        """Takes what was found in a frame, or that no frame came.

        Args:
            state: the kind of the danger that is on; else "OK", "STALE", "starting" or "stopped".
            observation: what a new frame shows; None without one, which keeps the one before.
            latency_ms: of the newest frame, from capture to decision.
            fps: frames judged per second.
            dropped: frames that were passed over for newer ones, since the start.
            picture: a JPEG file of the frame; None keeps the one before.
        """
        now = self._now()
        with self._lock:
            self._shown_s = now
            self._shown = {"state": state.lower(), "fps": fps, "dropped": dropped}
            if observation is not None:
                self._observation, self._latency_ms = observation, latency_ms
                self._frame_s = now - (latency_ms / 1e3 if math.isfinite(latency_ms) else 0.0)
                for kind, score in observation.scores.items():
                    if math.isfinite(score) or kind not in self._judged_s:
                        self._judged_s[kind] = self._frame_s
            if picture is not None and self.wants_picture:
                self._picture = picture

    def add_event(self, event: Event) -> None:
        """Takes a new event, or how one with the same id is by now."""
        with self._lock:
            self._events[str(event.id)] = event
            self._changes += 1
            if len(self._events) > EVENTS:
                old = list(self._events)[:-1]  # never the one that just came
                closed = [id for id in old if self._events[id].end_s is not None]
                dropped = (closed or old)[0]
                del self._events[dropped]
                self._acknowledged_s.pop(dropped, None)

    def acknowledge(self, event_id: Any) -> bool:
        """Marks an event as seen by a person; False if there is no such event."""
        with self._lock:
            known = str(event_id) in self._events
            if known and str(event_id) not in self._acknowledged_s:
                self._acknowledged_s[str(event_id)] = self._now()
                self._changes += 1
            return known

    def picture(self) -> bytes | None:
        """Returns the newest picture, a JPEG file."""
        with self._lock:
            return self._picture

    def snapshot(self, seen: str | None = None) -> dict[str, Any]:
        """Returns all that the page shows, in what JSON can hold: null for NaN and infinity.

        Args:
            seen: `events_version` of the events that the reader has; they are left out while
                nothing about them has changed.

        Returns:
            Ages and durations in seconds, and events' times as seconds since 1970 by this
            machine's clock as it is set now. `level` is what the state means to a person:
            "starting", "stopped" (the watch loop says nothing, or has ended), "stale", "danger",
            "unsure" (nothing dangerous, yet something cannot be judged) or "ok". What was found in
            the last frame is left out when it says nothing of the present.
        """
        now, wall = self._now(), self._wall()
        with self._lock:
            shown, shown_s, frame_s = self._shown, self._shown_s, self._frame_s
            found, latency_ms = self._observation, self._latency_ms
            has_picture = self._picture is not None
            judged_s, events = dict(self._judged_s), list(self._events.values())
            acknowledged_s, version = dict(self._acknowledged_s), f"{self._run}.{self._changes}"
        lasting = {event.kind for event in events if event.end_s is None}
        unseen = [kind for kind, at in judged_s.items() if frame_s - at > UNSEEN_S]
        silent = shown_s is not None and now - shown_s > SILENT_S
        level = _level(shown["state"], silent=silent, lasting=lasting, unseen=unseen)
        blind = level in ("starting", "stopped", "stale") or STALE in lasting
        if found is None or blind:
            found = Observation({}, np.zeros((0, 5), np.float32), {}, {})
        told = {
            **shown,
            "now": wall,
            "level": level,
            "blind": blind,
            "frame_age_s": max(now - frame_s, 0.0),
            "unseen": unseen,
            "scores": found.scores,
            "posture": found.posture,
            "face_state": found.face_state,
            "faces": len(found.faces),
            "note": found.note,
            "thresholds": self.thresholds,
            "latency_ms": latency_ms,
            "pictures": self.wants_picture,
            "has_picture": has_picture,
            "events_version": version,
        }
        if seen != version:
            events.sort(key=lambda event: event.onset_s, reverse=True)
            told["events"] = [
                _event(event, now, wall - now, acknowledged_s.get(str(event.id)))
                for event in events
            ]
        return plain(told)


def _level(state: str, *, silent: bool, lasting: Set[str], unseen: Sequence[str]) -> str:
    if silent:
        return "stopped"
    if state in ("starting", "stopped", STALE):
        return state
    # Any other word is a danger's: one that is not known here must not look like none.
    if state != "ok" or lasting - {STALE}:
        return "danger"
    return "unsure" if unseen or STALE in lasting else "ok"


def _event(event: Event, now: float, to_wall: float, acknowledged_s: float | None) -> dict:
    end_s = now if event.end_s is None else event.end_s
    return {
        "id": str(event.id),
        "kind": event.kind,
        "priority": event.priority,
        "onset": event.onset_s + to_wall,
        "raised_after_s": event.raised_s - event.onset_s,
        "open": event.end_s is None,
        "duration_s": max(end_s - event.onset_s, 0.0),
        "rule": event.rule,
        "evidence": [(round(at - event.onset_s, 2), round(s, 3)) for at, s in event.evidence],
        "acknowledged": None if acknowledged_s is None else acknowledged_s + to_wall,
    }
