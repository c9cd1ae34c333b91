"""When to alert: a pure state machine from scores over time to events.

`step` takes a state, a time and the scores of a frame, and returns the next state and the events
that began or ended. It reads no clock: time is whatever the caller says, seconds that never run
backwards, so that nothing happens when somebody sets the clock on the wall.

A danger passes through three phases:

    calm -> suspected   `needed` of the last `of` judged frames score `enter` or more
    suspected -> alert  that lasts `delay_s` after the first of these frames, and still holds
    suspected -> calm   `needed` frames score `exit` or less, none between them `enter` or more
    alert -> calm       the same, and it lasts `clear_s`

Scores between `exit` and `enter` change nothing. A frame that cannot be judged counts for nothing,
neither way, but votes before a gap of more than `stale_s` are forgotten. So no alert comes of a
single frame, and a danger that flickers stays one event.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxbed.errors import InputError
from jaxbed.monitor.rules import DANGERS as DANGERS
from jaxbed.monitor.rules import PRIORITIES, STALE
from jaxbed.monitor.rules import Rule as Rule

POINTS = 64
"""The most points of an event's evidence; longer ones are thinned out evenly."""
_BACK = 2  # new frames that end a stale event; one may be the last that a dying stream gave


class Event(NamedTuple):
    """One episode of a danger; the same `id` comes back when it ends.

    Attributes:
        id: counts up.
        kind: the danger, or STALE.
        priority: one of PRIORITIES.
        onset_s: when the danger was first seen; of a stale event, when the last new frame came.
        end_s: when it was first seen to be over; None while it lasts.
        raised_s: when the event was raised.
        rule: which thresholds fired, a sentence; and why it ended.
        evidence: (time_s, score) of judged frames, POINTS at most.
    """

    id: int
    kind: str
    priority: str
    onset_s: float
    end_s: float | None
    raised_s: float
    rule: str
    evidence: tuple[tuple[float, float], ...]


class _Evidence(NamedTuple):
    """Every `stride`-th of `seen` points, and the last one."""

    points: tuple[tuple[float, float], ...] = ()
    stride: int = 1
    seen: int = 0
    last: tuple[float, float] | None = None

    def add(self, point: tuple[float, float]) -> "_Evidence":
        points, stride = self.points, self.stride
        if self.seen % stride == 0:
            points += (point,)
        if len(points) == POINTS:  # the last one needs a place too
            points, stride = points[::2], 2 * stride
        return _Evidence(points, stride, self.seen + 1, point)

    def told(self) -> tuple[tuple[float, float], ...]:
        return self.points if self.points[-1:] == (self.last,) else (*self.points, self.last)


class _Track(NamedTuple):
    """What is known of one danger.

    Attributes:
        votes: (time_s, score) of the last judged frames.
        onset_s: None when calm.
        evidence: from the onset on.
        clear_frames: how many frames have spoken against it, none since for it.
        clear_from_s: when the first of these was.
        ready_s: nothing is raised before; the end of the cooldown.
        event: what was raised and has not ended.
    """

    votes: tuple[tuple[float, float], ...] = ()
    onset_s: float | None = None
    evidence: _Evidence = _Evidence()
    clear_frames: int = 0
    clear_from_s: float = 0.0
    ready_s: float = -math.inf
    event: Event | None = None


class _Sight(NamedTuple):
    """When something was seen last, and how many new frames came in a stale event."""

    seen_s: float
    back_frames: int = 0
    back_from_s: float = 0.0
    event: Event | None = None


class State(NamedTuple):
    """All that the next step needs. Made by `start`."""

    rules: tuple[Rule, ...]
    stale_s: float
    next_id: int
    tracks: tuple[_Track, ...]
    sight: _Sight


def start(
    rules: Sequence[Rule], *, stale_s: float, time_s: float = 0.0, first_id: int = 1
) -> State:
    """Returns the state before the first frame.

    Args:
        rules: one for each danger.
        stale_s: without a new frame for so long a STALE event is raised.
        time_s: now.
        first_id: of the first event.

    Raises:
        InputError: a rule cannot be, or two are of the same kind.
    """
    check(rules, stale_s=stale_s)
    return State(tuple(rules), stale_s, first_id, (_Track(),) * len(rules), _Sight(time_s))


def check(rules: Sequence[Rule], *, stale_s: float) -> None:
    """Refuses what `start` refuses."""
    for rule in rules:
        rule.check()
    kinds = [rule.kind for rule in rules]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"each danger may have one alert rule only, found {', '.join(kinds)}.")
    if not 0 < stale_s < math.inf:
        raise InputError(f"--stale-s is {stale_s}; give seconds above 0.")


def step(
    state: State,
    time_s: float,
    scores: Mapping[str, float] | None,
    *,
    blind: str = "no frame comes",
) -> tuple[State, list[Event]]:
    """Takes a frame, or only that time has passed.

    Args:
        state: made by `start` or the last step.
        time_s: when the frame was captured; without a frame, now.
        scores: by kind, probabilities; one that is missing, not a number or outside [0, 1] was
            not judged. None without a new frame that could be looked at.
        blind: why there is none, for the sentence of a stale event.

    Returns:
        The next state, and the events that were raised or, with `end_s`, ended; the most urgent
        first.
    """
    changes: list[Event] = []
    sight, next_id = _look(state, time_s, scores is not None, blind, changes)
    tracks = []
    for rule, track in zip(state.rules, state.tracks, strict=True):
        score = None if scores is None else _judged(scores.get(rule.kind, math.nan))
        track = _wait(rule, track, time_s, changes)
        if score is not None:
            track = _vote(rule, track, time_s, score, state.stale_s)
            track = _decide(rule, track, next_id, changes)
            next_id += track.event is not None and track.event.id == next_id
        tracks.append(track)
    state = State(state.rules, state.stale_s, next_id, tuple(tracks), sight)
    return state, sorted(changes, key=_urgency)


def finish(
    state: State, time_s: float, *, why: str = "the monitor stopped"
) -> tuple[State, list[Event]]:
    """Ends all events, because nothing comes after."""
    changes = [_ended(event, time_s, why) for event in open_events(state)]
    tracks = tuple(track._replace(event=None, onset_s=None, votes=()) for track in state.tracks)
    return state._replace(tracks=tracks, sight=state.sight._replace(event=None)), changes


def open_events(state: State) -> list[Event]:
    """Returns the events that last, with their evidence so far, the most urgent first."""
    events = [_so_far(track) for track in state.tracks if track.event]
    if state.sight.event:
        events.append(state.sight.event)
    return sorted(events, key=_urgency)


def _urgency(event: Event) -> tuple[int, float]:
    return PRIORITIES.index(event.priority), event.onset_s


def _judged(score: float) -> float | None:
    """Returns a probability, or None for what is none."""
    try:
        score = float(score)
    except (TypeError, ValueError):
        return None
    return score if 0 <= score <= 1 else None


def _look(
    state: State, time_s: float, new: bool, blind: str, changes: list[Event]
) -> tuple[_Sight, int]:
    """Raises and ends the stale event."""
    sight, next_id = state.sight, state.next_id
    silent_s = time_s - sight.seen_s
    if sight.event is None and silent_s >= state.stale_s:
        told = f"{blind}: nothing new for {silent_s:.1f} s (rule: {state.stale_s:g} s)"
        event = Event(next_id, STALE, "high", sight.seen_s, None, time_s, told, ())
        sight, next_id = sight._replace(event=event, back_frames=0), next_id + 1
        changes.append(event)
    if not new:
        return sight, next_id
    if sight.event is not None:
        again = sight.back_frames == 0 or silent_s >= state.stale_s
        sight = sight._replace(
            back_frames=1 if again else sight.back_frames + 1,
            back_from_s=time_s if again else sight.back_from_s,
        )
        if sight.back_frames >= _BACK:
            changes.append(_ended(sight.event, sight.back_from_s, "new frames come"))
            sight = sight._replace(event=None)
    return sight._replace(seen_s=max(time_s, sight.seen_s)), next_id


def _wait(rule: Rule, track: _Track, time_s: float, changes: list[Event]) -> _Track:
    """Ends an event whose danger could not be judged for long."""
    if track.event is None or rule.lost_s is None or not track.votes:
        return track
    silent_s = time_s - track.votes[-1][0]
    if silent_s <= rule.lost_s:
        return track
    why = f"it could not be judged for {silent_s:.1f} s"
    changes.append(_ended(_so_far(track), time_s, why))
    return _Track(ready_s=time_s + rule.cooldown_s)


def _vote(rule: Rule, track: _Track, time_s: float, score: float, stale_s: float) -> _Track:
    """Counts a judged frame."""
    votes = track.votes
    if votes and time_s - votes[-1][0] > stale_s:
        votes = ()
        track = track._replace(clear_frames=0) if track.event else _Track(ready_s=track.ready_s)
    time_s = max(time_s, votes[-1][0]) if votes else time_s
    votes = (*votes, (time_s, score))[-rule.of :]
    track = track._replace(votes=votes)
    if track.onset_s is not None:
        track = track._replace(evidence=track.evidence.add((time_s, score)))
    elif _holds(rule, votes):
        onset_s = next(at for at, vote in votes if vote >= rule.enter)
        evidence = _Evidence()
        for vote in votes:
            evidence = evidence.add(vote) if vote[0] >= onset_s else evidence
        track = track._replace(onset_s=onset_s, evidence=evidence)
    if score >= rule.enter:
        return track._replace(clear_frames=0)
    if score <= rule.exit:
        first = track.clear_from_s if track.clear_frames else time_s
        return track._replace(clear_frames=track.clear_frames + 1, clear_from_s=first)
    return track


def _decide(rule: Rule, track: _Track, next_id: int, changes: list[Event]) -> _Track:
    """Moves to the phase that the votes call for."""
    time_s = track.votes[-1][0]
    if track.onset_s is None:
        return track
    if track.clear_frames >= rule.needed:
        if track.event is None:
            return _Track(ready_s=track.ready_s)
        clear_s = time_s - track.clear_from_s
        if clear_s < rule.clear_s:
            return track
        why = f"{track.clear_frames} judged frames were at most {rule.exit:g}, for {clear_s:.1f} s"
        changes.append(_ended(_so_far(track), track.clear_from_s, why))
        return _Track(ready_s=time_s + rule.cooldown_s)
    lasted_s = time_s - track.onset_s
    if track.event or lasted_s < rule.delay_s or time_s < track.ready_s:
        return track
    if not _holds(rule, track.votes):
        return track
    hits = sum(score >= rule.enter for _, score in track.votes)
    told = (
        f"{rule.explanation}: {hits} of the last {len(track.votes)} judged frames were at least "
        f"{rule.enter:g}, {lasted_s:.1f} s after the first (rule: {rule.needed} of {rule.of}, "
        f"{rule.delay_s:g} s)"
    )
    evidence = track.evidence.told()
    event = Event(next_id, rule.kind, rule.priority, track.onset_s, None, time_s, told, evidence)
    changes.append(event)
    return track._replace(event=event)


def _holds(rule: Rule, votes: Sequence[tuple[float, float]]) -> bool:
    return sum(score >= rule.enter for _, score in votes) >= rule.needed


def _so_far(track: _Track) -> Event:
    return track.event._replace(evidence=track.evidence.told())


def _ended(event: Event, end_s: float, why: str) -> Event:
    return event._replace(end_s=end_s, rule=f"{event.rule}; ended: {why}")
