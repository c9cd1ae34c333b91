"""Compares the alerts of a watch with what was really going on in a film.

An episode of danger is due when it lasts as long as its rule waits, the frames that the rule needs
included. It is answered if an event of its kind is on at any time between its onset and its end.
An event that overlaps no episode of its kind is a false alarm, and so is one that was raised more
than a second before the episode that it overlaps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxbed.data.crib import Episode
from jaxbed.monitor.rules import STALE, Rule

_EARLY_S = 1.0
_LATE_S = 1.0  # an event may follow its episode's last frame by so much


class Answer(NamedTuple):
    """What became of an episode.

    Attributes:
        film: its name.
        kind: of danger.
        onset_s: when it began.
        lasted_s: how long it went on.
        due: whether the rule had time to fire.
        events: how many events of its kind were on during it.
        delay_s: from its onset to the first of them; NaN without any, 0 if it was on before.
    """

    film: str
    kind: str
    onset_s: float
    lasted_s: float
    due: bool
    events: int
    delay_s: float


class FalseAlarm(NamedTuple):
    """An event without its danger: in which film, of which kind, raised when."""

    film: str
    kind: str
    raised_s: float


class Judged(NamedTuple):
    """What all films came to.

    Attributes:
        answers: of all episodes.
        false_alarms: in all films.
        stale: events that told the monitor was blind.
        hours: of film.
    """

    answers: tuple[Answer, ...]
    false_alarms: tuple[FalseAlarm, ...]
    stale: int
    hours: float

    def sensitivity(self, kind: str | None = None) -> tuple[int, int]:
        """Returns how many due episodes were answered, and how many there were."""
        due = [a for a in self.answers if a.due and kind in (None, a.kind)]
        return sum(a.events > 0 for a in due), len(due)

    def delays_s(self, kind: str | None = None) -> np.ndarray:
        """Returns the times to alert of the due episodes that were answered."""
        due = [a for a in self.answers if a.due and kind in (None, a.kind)]
        return np.array([a.delay_s for a in due if a.events])


def events_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Puts the onset and the end of every event together, from the lines of a log."""
    merged: dict[int, dict[str, Any]] = {}
    for line in records:
        merged.setdefault(line["id"], {}).update(line)
    return list(merged.values())


def compare(
    film: str,
    episodes: Sequence[Episode],
    events: Sequence[Mapping[str, Any]],
    *,
    rules: Sequence[Rule],
    frame_hz: float,
    seconds: float,
) -> Judged:
    """Compares one film's events with its episodes.

    Args:
        film: its name.
        episodes: what is true.
        events: as of `events_of`, in seconds of the film.
        rules: that raised them.
        frame_hz: frames per second.
        seconds: how long the film is.
    """
    by_kind = {rule.kind: rule for rule in rules}
    answers = []
    for episode in episodes:
        rule = by_kind.get(episode.kind)
        if rule is None:
            continue
        # What goes on when the film ends was seen for so long only.
        lasted_s = min(episode.end_s, seconds) - episode.onset_s
        on = [e for e in events if e["kind"] == episode.kind and _overlap(e, episode)]
        delays = [max(0.0, e["raised_s"] - episode.onset_s) for e in on]
        answers.append(
            Answer(
                film,
                episode.kind,
                episode.onset_s,
                lasted_s,
                due=lasted_s >= rule.delay_s + rule.needed / frame_hz,
                events=len(on),
                delay_s=min(delays, default=math.nan),
            )
        )
    false_alarms = [
        FalseAlarm(film, event["kind"], event["raised_s"])
        for event in events
        if event["kind"] in by_kind and not _justified(event, episodes)
    ]
    stale = sum(event["kind"] == STALE for event in events)
    return Judged(tuple(answers), tuple(false_alarms), stale, seconds / 3600)


def together(parts: Sequence[Judged]) -> Judged:
    """Adds films up."""
    return Judged(
        sum((part.answers for part in parts), ()),
        sum((part.false_alarms for part in parts), ()),
        sum(part.stale for part in parts),
        sum(part.hours for part in parts),
    )


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Clopper and Pearson); NaN for none."""
    if not count:
        return math.nan, math.nan
    low = stats.beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def rate_interval(count: int, hours: float) -> tuple[float, float]:
    """Returns the 95 % interval of a rate per hour, of a Poisson process (Garwood)."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low / hours), float(stats.chi2.ppf(0.975, 2 * count + 2) / 2 / hours)


def _overlap(event: Mapping[str, Any], episode: Episode) -> bool:
    end_s = math.inf if event.get("end_s") is None else event["end_s"]
    return event["raised_s"] < episode.end_s + _LATE_S and end_s > episode.onset_s


def _justified(event: Mapping[str, Any], episodes: Sequence[Episode]) -> bool:
    return any(
        episode.kind == event["kind"]
        and _overlap(event, episode)
        and event["raised_s"] >= episode.onset_s - _EARLY_S
        for episode in episodes
    )
