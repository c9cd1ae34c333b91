"""Plays a script: an infant in a crib before a camera, at any time.

h w height and width of an image, K channels of light. Metres, the bed frame of
`jaxbed.simulate.body`; times in seconds.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.simulate.body import Bodies
from jaxbed.simulate.camera import Camera
from jaxbed.simulate.crib_acts import Act, Unrest, sample_cover, sample_unrest
from jaxbed.simulate.crib_camera import sample_camera, sample_position
from jaxbed.simulate.crib_covers import Cloth, sample_cloth_of_blanket
from jaxbed.simulate.crib_light import Daylight, sample_light
from jaxbed.simulate.crib_looks import InfantLook
from jaxbed.simulate.crib_room import Crib
from jaxbed.simulate.crib_scene import FaceTruth, Scene, find_face, render_scene
from jaxbed.simulate.crib_script import Script, acts_of
from jaxbed.simulate.face import Expression, pacifier, sample_pacifier
from jaxbed.simulate.infant_poses import Pose, Wish, sample_infant_poses
from jaxbed.simulate.infrared import Lamp

_RESTS, _POSES = 12, 3  # drawn poses, of which some are taken
_WAYS = {"stomach": ("stomach",), "sitting": ("sitting",), "standing": ("sitting", "standing")}
"""Postures that an infant who lies on its back goes through."""


class Moment(NamedTuple):
    """What a camera sees, and what is true of it.

    Attributes:
        light: f32[h,w,K], before the sensor.
        face: what is true of the face.
        posture: one of POSTURES, the nearest in time.
        has_pacifier: whether there is one in the mouth.
    """

    light: np.ndarray
    face: FaceTruth
    posture: str
    has_pacifier: bool

    def fade(self, last: "Moment", share: float) -> "Moment":
        """The moment at a share within [0, 1) of the way to another one."""
        light = self.light + np.float32(share) * (last.light - self.light)
        if not self.face.visible or not last.face.visible:
            return (self if share < 0.5 else last)._replace(light=light)
        box, landmarks = (
            np.float32(a + share * (b - a))
            for a, b in ((self.face.box, last.face.box), (self.face.landmarks, last.face.landmarks))
        )
        covered = self.face.covered + share * (last.face.covered - self.face.covered)
        return self._replace(light=light, face=FaceTruth(True, covered, box, landmarks))


class Kind(NamedTuple):
    """What two pictures that fade into each other must agree in."""

    moves: bool
    night: bool
    pacifier: bool
    act: int


@dataclasses.dataclass(frozen=True)
class Stage:
    """What stays the same through a video.

    Attributes:
        infant: one body.
        look: what it looks like.
        crib: where it is.
        camera: what sees it.
        cloth: of its blanket.
        rest: how it lies on its back.
        poses: some of every other posture, each of one body.
        unrest: how it wriggles.
        asleep: whether its eyes are closed while it lies.
        day: the light.
        night: the same.
        pacifier: f64[4,4], colours.
    """

    infant: Bodies
    look: InfantLook
    crib: Crib
    camera: Camera
    cloth: Cloth
    rest: Pose
    poses: dict[str, list[Pose]]
    unrest: Unrest
    asleep: bool
    day: Daylight
    night: Lamp
    pacifier: np.ndarray


def set_stage(
    rng: np.random.Generator,
    infant: Bodies,
    look: InfantLook,
    crib: Crib,
    view: str,
    size: tuple[int, int],
) -> Stage:
    """Draws a camera, and poses that it sees the face in if there are such."""
    position = sample_position(rng, view, crib)
    poses = {}
    for posture, count in (("back", _RESTS), *((name, _POSES) for name in _WAYS)):
        wishes = [Wish(posture, position, bool(rng.random() < 0.5)) for _ in range(count)]
        drawn = sample_infant_poses([rng] * count, infant, wishes, crib)
        poses[posture] = [Pose(drawn.angles[[n]], drawn.root_m[[n]]) for n in range(count)]
    figures = {name: [pose.figures(infant)[0] for pose in some] for name, some in poses.items()}
    camera = sample_camera(rng, view, crib, position, figures["back"], "body", size)
    stage = Stage(
        infant=infant,
        look=look,
        crib=crib,
        camera=camera,
        cloth=sample_cloth_of_blanket(rng),
        rest=poses["back"][0],
        poses={posture: poses[posture] for posture in _WAYS},
        unrest=sample_unrest(rng),
        asleep=bool(rng.random() < 0.5),
        day=sample_light(rng, "day", camera),
        night=sample_light(rng, "night", camera),
        pacifier=sample_pacifier(rng),
    )
    rest = _best_rest(stage, poses["back"])
    shown = [rest.figures(infant)[0], *(figure for name in _WAYS for figure in figures[name])]
    camera = sample_camera(rng, view, crib, position, shown, "body", size)
    return dataclasses.replace(
        stage, rest=rest, camera=camera, night=sample_light(rng, "night", camera)
    )


def _best_rest(stage: Stage, rests: list[Pose]) -> Pose:
    """The one of some rests in which most of the face is seen."""

    def seen(pose: Pose) -> float:
        face = find_face(_scene(stage, pose, 0.0))
        width, height = face.box[2:] - face.box[:2]
        return float(np.nan_to_num(width * height * (1 - face.covered)))

    return max(rests, key=seen)


def _scene(stage: Stage, pose: Pose, time_s: float) -> Scene:
    """The infant in a pose, by day, with nothing else."""
    return Scene(
        crib=stage.crib,
        camera=stage.camera,
        figure=stage.unrest.figure(stage.infant, pose, time_s),
        look=stage.look,
        expression=Expression(),
        light=stage.day,
        cloth=stage.cloth,
    )


class Player:
    """Draws a stage at any time of a script.

    Covers are drawn at random when they are first wanted, act after act.
    """

    def __init__(self, rng: np.random.Generator, stage: Stage, script: Script):
        self.stage = stage
        self.script = script
        self._rngs = rng.spawn(len(acts_of(script)))
        self._planned = list(acts_of(script))
        self._spans_s = np.array([Act(episode).span_s for episode in self._planned]).reshape(-1, 2)
        self._acts: dict[int, Act] = {}

    def kind_at(self, time_s: float) -> Kind:
        """What is going on."""
        number = self._number_at(time_s)
        moves = number is not None and self._act(number).moves_at(time_s)
        holds = {e.kind for e in self.script.episodes if e.onset_s <= time_s < e.end_s}
        return Kind(moves, "night" in holds, "pacifier" in holds, -1 if number is None else number)

    def draw(self, time_s: float) -> Moment:
        """Draws one moment."""
        stage, kind = self.stage, self.kind_at(time_s)
        act = self._act(kind.act) if kind.act >= 0 else None
        pose, posture = stage.rest, "back"
        if act and act.poses:
            pose = act.pose_at(stage.infant, stage.rest, time_s)
            posture = ("back", *_WAYS[act.episode.kind])[int(act.stop_at(time_s) + 0.5)]
        scene = _scene(stage, pose, time_s)
        scene = dataclasses.replace(
            scene,
            expression=Expression(0.0 if stage.asleep and pose is stage.rest else 0.9),
            light=stage.night if kind.night else stage.day,
            pacifier=pacifier(scene.figure, stage.pacifier) if kind.pacifier else None,
        )
        if act:
            scene = act.cover(scene, time_s)
        light, face = render_scene(scene)
        return Moment(light, face, posture, kind.pacifier)

    def _number_at(self, time_s: float) -> int | None:
        """Which act is going on, if any."""
        begin, end = self._spans_s.T
        going_on = np.flatnonzero((begin <= time_s) & (time_s < end))
        return int(going_on[0]) if len(going_on) else None

    def _act(self, number: int) -> Act:
        if number not in self._acts:
            episode, rng = self._planned[number], self._rngs[number]
            if episode.kind in _WAYS:
                drawn = [self.stage.poses[posture] for posture in _WAYS[episode.kind]]
                poses = tuple(some[rng.integers(len(some))] for some in drawn)
                self._acts[number] = Act(episode, poses)
            else:
                times = episode.onset_s, episode.end_s
                free = [_scene(self.stage, self.stage.rest, time_s) for time_s in times]
                self._acts[number] = sample_cover(rng, episode, *free)
        return self._acts[number]
