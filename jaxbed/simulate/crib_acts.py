"""What an infant does in its crib and what comes over its face, at any time of a script.

N bodies, D degrees of freedom. Metres, the bed frame of `jaxbed.simulate.body`; times in
seconds.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.data.crib import Episode
from jaxbed.simulate.bedding import Blanket
from jaxbed.simulate.body import Bodies, Figure
from jaxbed.simulate.crib_covers import (
    edge_places,
    lay_on_face,
    length_to_hips,
    pull_to,
    sample_blanket,
)
from jaxbed.simulate.crib_scene import Scene, find_face
from jaxbed.simulate.crib_script import LEADS_S, MOVE_S
from jaxbed.simulate.crib_stage import sample_thing
from jaxbed.simulate.face import Part, head_axes
from jaxbed.simulate.infant_poses import Pose, rise
from jaxbed.simulate.lying import lie_down
from jaxbed.simulate.skeleton import FLESH, FREEDOM_INDEX, FREEDOMS

_OVERHEAD_DEG = {
    "shoulder_abduction": 150,
    "shoulder_rotation": -80,
    "elbow_flexion": 30,
    "hip_flexion": 10,
    "knee_flexion": 20,
}
"""What the limbs do halfway through a turn: with the arms overhead, none is in the way."""
_OVERHEAD = np.radians([_OVERHEAD_DEG.get(f.name.partition("_")[2], 0.0) for f in FREEDOMS])
_LEGS_OF_TURN = 4  # between whose ends a turn is straight: limbs give way to the trunk there
_LIMBS = np.array([freedom.name.startswith(("left_", "right_")) for freedom in FREEDOMS])
_PELVIS = [FREEDOM_INDEX[name] for name in ("yaw", "pitch", "roll")]
_BREATHES = np.array([[flesh.bone in ("chest", "abdomen")] for flesh in FLESH])
_SWELLS = 0.02  # by how much the trunk grows thicker on breathing in
_BREATHS_HZ = (0.4, 0.7)
_WRIGGLES_RAD = np.radians(np.where(_LIMBS, 5.0, 1.2))
_WRIGGLES_RAD[_PELVIS] = 0.0
_WRIGGLES_HZ = (0.05, 0.35)
_AWAY_M = 0.5  # from where a cover comes
_TRIES = 12  # to find a cover that hides the face
_HIDES = 0.75  # how much of it
_HALF, _HALVINGS = 0.5, 8


class Unrest(NamedTuple):
    """Small movements of who is at rest: rates f64[2,D], phases f64[2,D], breaths per second."""

    rate_hz: np.ndarray
    phase: np.ndarray
    breath_hz: float

    def figure(self, infant: Bodies, pose: Pose, time_s: float) -> Figure:
        """One body in a pose f64[1,D], wriggling and breathing."""
        waves = np.sin(2 * np.pi * self.rate_hz * time_s + self.phase)
        angles = pose.angles + _WRIGGLES_RAD * waves.mean(axis=0)
        figure = Pose(angles, pose.root_m).figures(infant)[0]
        breath = np.sin(2 * np.pi * self.breath_hz * time_s)
        radii = figure.radii_m * (1 + _SWELLS * breath * _BREATHES)
        return dataclasses.replace(figure, radii_m=radii)


def sample_unrest(rng: np.random.Generator) -> Unrest:
    """Draws how an infant wriggles and breathes."""
    shape = 2, len(FREEDOMS)
    return Unrest(
        rng.uniform(*_WRIGGLES_HZ, shape),
        rng.uniform(0, 2 * np.pi, shape),
        rng.uniform(*_BREATHS_HZ),
    )


def move(infant: Bodies, first: Pose, last: Pose, share: float) -> Pose:
    """The pose at a share within [0, 1] of the way from one to another, each f64[1,D].

    The pelvis turns the shorter way; who turns over rests on the trunk meanwhile.
    """
    share = share * share * (3 - 2 * share)
    change = last.angles - first.angles
    change[:, _PELVIS] -= 2 * np.pi * np.rint(change[:, _PELVIS] / (2 * np.pi))
    root = first.root_m + share * (last.root_m - first.root_m)
    if np.cos(change[0, FREEDOM_INDEX["roll"]]) < 0:
        angles, root[:, 2] = _turn_over(infant, first, last, change, share)
        return Pose(angles, root)
    angles = first.angles + share * change
    bent = rise(infant, Pose(angles, root))
    # Ends as it begins: on the mattress, but as deep in it as there.
    root[:, 2] += (bent.root_m - root)[:, 2] * min(1.0, 10 * share, 10 * (1 - share))
    return Pose(angles, root)


def _turn_over(
    infant: Bodies, first: Pose, last: Pose, change: np.ndarray, share: float
) -> tuple[np.ndarray, float]:
    """Angles f64[1,D] and height of the hips on the way from back to stomach or back again."""
    knots = np.linspace(0, 1, _LEGS_OF_TURN + 1)
    angles = first.angles + knots[:, None] * change
    angles += np.sin(np.pi * knots[:, None]) ** 2 * _LIMBS * (_OVERHEAD - angles)
    angles[1:-1], figure = lie_down(infant, angles[1:-1], head_rests=False)
    height = np.concatenate([first.root_m[:, 2], figure.origins_m[:, 0, 2], last.root_m[:, 2]])
    leg = min(int(share * _LEGS_OF_TURN), _LEGS_OF_TURN - 1)
    done = share * _LEGS_OF_TURN - leg
    now = angles[[leg]] + done * (angles[[leg + 1]] - angles[[leg]])
    return now, height[leg] + done * (height[leg + 1] - height[leg])


@dataclasses.dataclass(frozen=True)
class Act:
    """An episode with poses or a cover.

    Attributes:
        episode: when it wholly holds.
        poses: what the infant goes through to get there, the last of which holds; empty if it
            stays on its back.
        part: a toy, a pillow or a hand where it covers the face, or None.
        away_m: f64[3], from where to where that comes and goes.
        blanket: a blanket that is pulled over the face, or None.
        half: f64[2], how far the cover has come when it just covers half of the face, and when
            it just does not any more.
    """

    episode: Episode
    poses: tuple[Pose, ...] = ()
    part: Part | None = None
    away_m: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    blanket: Blanket | None = None
    half: tuple[float, float] = (0.5, 0.5)

    @property
    def span_s(self) -> tuple[float, float]:
        """From when to when it has to do with anything."""
        lead = LEADS_S[self.episode.kind]
        return self.episode.onset_s - lead, self.episode.end_s + lead

    def moves_at(self, time_s: float) -> bool:
        """Whether something is under way."""
        (begin, end), (_, onset, cease) = self.span_s, self.episode
        if self.episode.kind == "hand":
            return begin <= time_s < end
        tail = 0.0 if self.poses else _tail_s(self.episode)
        return begin <= time_s < onset + tail or cease - tail <= time_s < end

    def stop_at(self, time_s: float) -> float:
        """How many of the poses the infant has gone through."""
        begin, end = self.span_s
        done = min(time_s - begin, end - time_s) / LEADS_S[self.episode.kind]
        return len(self.poses) * float(np.clip(done, 0, 1))

    def pose_at(self, infant: Bodies, rest: Pose, time_s: float) -> Pose:
        """The infant, who rests in a pose before and after the act."""
        stops = (rest, *self.poses)
        done = self.stop_at(time_s) if self.poses else 0.0
        leg = min(int(done), len(stops) - 1)
        if leg == done:
            return stops[leg]
        return move(infant, stops[leg], stops[leg + 1], done - leg)

    def cover(self, scene: Scene, time_s: float) -> Scene:
        """Adds what of the cover there is at a time."""
        begin, end = self.span_s
        if not begin <= time_s < end:
            return scene
        if self.episode.kind == "hand":
            share = (time_s - begin) / (end - begin)
            ends = self.part.ends_m + (2 * share - 1) * self.away_m
            return dataclasses.replace(scene, parts=(self.part._replace(ends_m=ends),))
        return self.cover_by(scene, self.come_at(time_s))

    def come_at(self, time_s: float) -> float:
        """How far the cover has come, within [0, 1]."""
        (begin, end), (_, onset, cease) = self.span_s, self.episode
        tail = _tail_s(self.episode)
        knots = [begin, onset, onset + tail, cease - tail, cease, end]
        return float(np.interp(time_s, knots, [0, self.half[0], 1, 1, self.half[1], 0]))

    def cover_by(self, scene: Scene, come: float) -> Scene:
        """Adds the cover when it has come a part of its way, within [0, 1]."""
        if self.blanket:
            place = edge_places(scene.figure)["whole"]
            foot = np.array([place[0], -scene.crib.length_m / 2 + 0.1, 0])
            edge, length = foot + come * (place - foot), length_to_hips(scene.figure, place)
            cloth = pull_to(self.blanket, scene.figure, edge, length)
            return dataclasses.replace(scene, blanket=cloth, pacifier=None)
        if self.part is None:
            return scene
        ends = self.part.ends_m + (1 - come) * self.away_m
        return dataclasses.replace(scene, parts=(self.part._replace(ends_m=ends),))


def _tail_s(episode: Episode) -> float:
    """How long a cover goes on to come after it hides half of the face."""
    return min(0.4 * MOVE_S, (episode.end_s - episode.onset_s) / 3)


def sample_cover(rng: np.random.Generator, episode: Episode, onset: Scene, end: Scene) -> Act:
    """Draws a cover that comes over a face and hides it, or a hand that passes before it.

    Args:
        rng: where the randomness comes from.
        episode: of the kind "occluded" or "hand".
        onset: the infant at the onset, its face free.
        end: the same at the end.
    """
    kinds = ("hand",) if episode.kind == "hand" else ("blanket", "toy", "hand", "pillow")
    best, most = None, -1.0
    for _ in range(_TRIES):
        kind = str(rng.choice(kinds))
        if kind == "blanket":
            act = Act(episode, blanket=sample_blanket(rng, onset.crib))
        else:
            thing = sample_thing(rng, onset, kind)
            part = lay_on_face(rng, onset.figure, thing, onset.camera.position_m)
            act = Act(episode, part=part, away_m=_sample_away(rng, onset))
        hides = np.nan_to_num(find_face(act.cover_by(onset, 1.0)).covered)
        if hides > most:
            best, most = act, hides
        if hides >= _HIDES:
            break
    if episode.kind == "hand":
        return dataclasses.replace(best, away_m=best.away_m * (1, 1, 0))
    return dataclasses.replace(best, half=(_half_way(best, onset)[1], _half_way(best, end)[0]))


def _half_way(act: Act, scene: Scene) -> tuple[float, float]:
    """How far a cover has come when it does not quite hide half of the face, and when it does."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        hides = find_face(act.cover_by(scene, middle)).covered >= _HALF
        low, high = (low, middle) if hides else (middle, high)
    return low, high


def _sample_away(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Draws f64[3], from where something comes: aside and a little up, not out of the camera."""
    middle, axes, _ = head_axes(scene.figure)
    ahead = scene.camera.position_m - middle
    aside = np.cross(ahead, rng.normal(size=3))
    away = aside / np.linalg.norm(aside) + 0.4 * axes[:, 2]
    away[2] = abs(away[2]) + 0.2
    return _AWAY_M * away / np.linalg.norm(away)
