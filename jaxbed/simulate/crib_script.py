"""What happens in a crib through a video: dangers, and what only looks like one.

Times in seconds. An infant lies on its back with a free face unless the script says otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxbed.data.crib import DANGERS, Episode

MOVE_S = 1.2
"""How long a movement to another posture takes, and how long a cover takes to come and to go."""

LEADS_S = {
    "occluded": MOVE_S,
    "stomach": MOVE_S,
    "standing": 2 * MOVE_S,
    "sitting": MOVE_S,
    "hand": 0.0,
}
"""Kinds of which one goes on at a time, and how long they take to begin and to cease."""

OVERLAYS = ("pacifier", "night", "shake", "glitch")
"""Kinds that go on beside all others: a pacifier in the mouth, infrared light, a camera that
shakes, and a single frame that is black, torn or noise."""

_DANGER_S, _PAUSE_S = (5.0, 20.0), (4.0, 16.0)
_SPANS_S = {"hand": (0.5, 0.9), "sitting": (5.0, 15.0)}  # a hand passes before the face
_STILL_S = 0.2  # at least, between two movements


class Script(NamedTuple):
    """What happens through a video.

    Attributes:
        seconds: length of the video.
        episodes: what happens; the kinds of LEADS_S and OVERLAYS. A posture or a cover wholly
            holds from onset to end and comes and goes before and after that; a glitch is in the
            first frame at or after its onset.
    """

    seconds: float
    episodes: tuple[Episode, ...]

    def dangers(self, frame_hz: float) -> list[Episode]:
        """Episodes of danger, by onset, at the times of the frames of a video."""
        return [
            episode._replace(
                onset_s=first_frame(episode.onset_s, frame_hz) / frame_hz,
                end_s=first_frame(episode.end_s, frame_hz) / frame_hz,
            )
            for episode in sorted(self.episodes, key=lambda episode: episode.onset_s)
            if episode.kind in DANGERS
        ]


def first_frame(time_s: float, frame_hz: float) -> int:
    """The first frame at or after a time."""
    return int(np.ceil(time_s * frame_hz - 1e-6))


def sample_script(rng: np.random.Generator, minutes: float) -> Script:
    """Draws what happens through some minutes.

    Episodes of danger alternate at random with an infant that sits, hands that pass before the
    face, and stillness; now and then there is a pacifier, a glitch, a shaking camera, and once
    at most the light goes from day to night. All kinds of danger come before any comes again,
    but one that does not fit any more is left out; pauses are shorter in less than a minute.

    Args:
        rng: where the randomness comes from.
        minutes: length, positive.
    """
    if not minutes > 0:
        raise ValueError(f"need a positive length, found {minutes} minutes")
    seconds = 60.0 * minutes
    episodes, now, full = [], 1.0, False
    while not full:
        full = True
        for kind in rng.permutation([*DANGERS, "sitting", "hand", "hand"]):
            pause_s = min(1.0, minutes) * rng.uniform(*_PAUSE_S)
            onset = now + LEADS_S[kind] + pause_s
            least_s, most_s = _SPANS_S.get(kind, _DANGER_S)
            latest = seconds - _STILL_S - LEADS_S[kind]
            if onset + least_s < latest:
                end = min(onset + rng.uniform(least_s, most_s), latest)
                episodes.append(Episode(str(kind), round(onset, 1), round(end, 1)))
                now, full = end + LEADS_S[kind], False
    episodes += [*_overlays(rng, "pacifier", seconds, 40.0, (8.0, 40.0))]
    episodes += [*_overlays(rng, "glitch", seconds, 20.0, (0.1, 0.1))]
    episodes += [*_overlays(rng, "shake", seconds, 60.0, (0.6, 2.0))]
    dusk = rng.uniform(-0.5, 1.5) * seconds
    if dusk < seconds:
        episodes.append(Episode("night", max(round(dusk, 1), 0.0), seconds))
    return Script(seconds, tuple(sorted(episodes, key=lambda episode: episode.onset_s)))


def _overlays(rng, kind: str, seconds: float, pause_s: float, spans_s: tuple[float, float]):
    """Yields episodes that do not overlap, a pause of some length apart in the mean."""
    now = rng.exponential(pause_s)
    while True:
        end = now + rng.uniform(*spans_s)
        if end > seconds:
            return
        yield Episode(kind, round(now, 1), round(end, 1))
        now = end + 0.5 + rng.exponential(pause_s)


def check_script(script: Script) -> None:
    """Raises ValueError for a script that cannot be played."""
    if not script.seconds > 0:
        raise ValueError(f"a script needs a positive length, found {script.seconds} s")
    for episode in script.episodes:
        if episode.kind not in (*LEADS_S, *OVERLAYS):
            raise ValueError(f"a kind is one of {(*LEADS_S, *OVERLAYS)}, found {episode}")
        if not 0 <= episode.onset_s < episode.end_s:
            raise ValueError(f"an episode begins at or after 0 s and ends later, found {episode}")
    acts = acts_of(script)
    before = 0.0
    for act in acts:
        if act.onset_s - LEADS_S[act.kind] < before:
            raise ValueError(
                f"{act} needs {LEADS_S[act.kind]} s to begin and comes too early after {before} s"
            )
        before = act.end_s + LEADS_S[act.kind]


def acts_of(script: Script) -> Sequence[Episode]:
    """Episodes of LEADS_S, by onset."""
    acts = (episode for episode in script.episodes if episode.kind in LEADS_S)
    return sorted(acts, key=lambda episode: episode.onset_s)
