"""Images of simulated infants in cribs, by day and by night, with posture and face.

An infant lies on its back or stomach, sits or stands at the rail before a camera; its face is
free, holds a pacifier or is covered by something. The pictures exercise a pipeline and carry
exact labels; they prove nothing about people.

N images, h w height and width in pixels. Metres, the bed frame of `jaxbed.simulate.body`.

Source of the setting (a camera over a crib, faces and four postures): "A deep-learning-based
danger monitoring system for infants", thesis.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.data.crib import COVERS, FACES, LIGHTS, POSTURES, UNKNOWN, VIEWS, CribImages
from jaxbed.simulate.body import Bodies, Figure
from jaxbed.simulate.crib_camera import sample_camera, sample_position
from jaxbed.simulate.crib_covers import sample_cloth_of_blanket
from jaxbed.simulate.crib_light import develop, sample_exposure, sample_light
from jaxbed.simulate.crib_looks import InfantLook, sample_crib, sample_look
from jaxbed.simulate.crib_room import Crib
from jaxbed.simulate.crib_scene import FaceTruth, Scene, render_scene
from jaxbed.simulate.crib_stage import cover_face, strew
from jaxbed.simulate.face import (
    Expression,
    Face,
    is_turned_to,
    pacifier,
    sample_face,
    sample_pacifier,
)
from jaxbed.simulate.infant_poses import Wish, sample_crib_infants, sample_infant_poses
from jaxbed.simulate.night import stream

HALF = 0.5
"""Share of a face from which on it counts as occluded."""

_BODY, _NIGHT, _ORDER, _IMAGE = range(20, 24)  # streams of randomness of a subject
_COMBINATIONS = len(POSTURES) * len(FACES)
_TRIES = 4  # to find a pose that shows what is over the face
_SEEN = 0.7  # share of clear faces that are turned to the camera if the posture allows


class Shot(NamedTuple):
    """What an image is to show: indices into POSTURES, FACES, VIEWS and LIGHTS."""

    posture: int
    face: int
    view: int
    light: int


def simulate_crib_images(
    *,
    subjects: int,
    images_per_subject: int,
    size: tuple[int, int] = (192, 256),
    views: tuple[str, ...] = VIEWS,
    seed: int = 0,
) -> CribImages:
    """Simulates infants in cribs.

    Every subject is an infant of its own size and face; every twelve images it has other
    clothes and another crib. Of these twelve, one is to show every posture with every state of
    the face, in random order; views and lights take turns. What an image shows in the end is
    measured in it: faces turn away, and a cover may leave more free than it should. An image
    depends only on seed, subject and its number, not on how many are asked for.

    Args:
        subjects: number of subjects.
        images_per_subject: images of each.
        size: (height, width) of the images.
        views: some of VIEWS.
        seed: of all randomness.

    Returns:
        The images, subject by subject, with what is over the face of each, an index into
        COVERS, as `extra["cover"]`.
    """
    if subjects < 1 or images_per_subject < 1:
        raise ValueError(
            f"need at least 1 subject and 1 image, found {subjects} and {images_per_subject}"
        )
    check_view(size, views)
    images, truths, shots, covers = [], [], [], []
    for subject in range(subjects):
        infant, face = sample_subject(seed, subject)
        for block in range(-(-images_per_subject // _COMBINATIONS)):
            look, crib = sample_surroundings(seed, subject, block, face)
            first = block * _COMBINATIONS
            plan = _plan(seed, subject, block, views)[: images_per_subject - first]
            rngs = [stream(seed, subject, _IMAGE, first + n) for n in range(len(plan))]
            poses = _pose(rngs, infant, crib, plan)
            for rng, shot, pose in zip(rngs, plan, poses, strict=True):
                scene, cover = _stage(rng, look, crib, shot, *pose, size)
                light, truth = render_scene(scene)
                images.append(_read(rng, light))
                truths.append((truth, scene.pacifier is not None))
                covers.append(COVERS.index(cover))
            shots += plan
    states = [face_state(truth, has_pacifier) for truth, has_pacifier in truths]
    truths = [truth for truth, _ in truths]
    return CribImages(
        name="simulated",
        image=np.stack(images),
        posture=np.array([shot.posture for shot in shots], np.int32),
        face=np.array(states, np.int32),
        visible=np.array([truth.visible for truth in truths]),
        covered=np.array([truth.covered for truth in truths], np.float32),
        face_box=np.stack([truth.box for truth in truths]),
        landmarks=np.stack([truth.landmarks for truth in truths]),
        subject=np.repeat([f"sim-{s:03d}" for s in range(subjects)], images_per_subject),
        view=np.array([shot.view for shot in shots], np.int32),
        light=np.array([shot.light for shot in shots], np.int32),
        extra={"cover": np.array(covers, np.int32)},
    )


def check_view(size: tuple, views: tuple[str, ...]) -> None:
    """Raises ValueError for images and views that cannot be simulated."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), found {size}")
    if not views or set(views) - set(VIEWS) or len(set(views)) < len(views):
        raise ValueError(f"views must be some of {VIEWS}, each once, found {views}")


def sample_subject(seed: int, subject: int) -> tuple[Bodies, Face]:
    """Draws one subject: a body and a face."""
    rng = stream(seed, subject, _BODY)
    return sample_crib_infants(rng, 1), sample_face(rng)


def sample_surroundings(seed: int, subject: int, night: int, face: Face) -> tuple[InfantLook, Crib]:
    """Draws what a subject wears some night, and its crib."""
    rng = stream(seed, subject, _NIGHT, night)
    return sample_look(rng, face), sample_crib(rng)


def face_state(truth: FaceTruth, has_pacifier: bool) -> int:
    """Tells the index into FACES, or UNKNOWN."""
    if not truth.visible:
        return UNKNOWN
    if truth.covered >= HALF:
        return FACES.index("occluded")
    return FACES.index("pacifier" if has_pacifier else "clear")


def sample_expression(rng: np.random.Generator, posture: str) -> Expression:
    """Draws what a face does; who lies may sleep."""
    asleep = posture in ("back", "stomach") and rng.random() < 0.5
    mouth = rng.uniform(0.3, 1.0) if rng.random() < 0.2 and not asleep else 0.0
    return Expression(0.0 if asleep else rng.uniform(0.5, 1.0), mouth)


def _plan(seed: int, subject: int, block: int, views: tuple[str, ...]) -> list[Shot]:
    """Plans twelve images, balanced in posture and face, and about so in view and light."""
    rng = stream(seed, subject, _ORDER, block)
    chosen = [VIEWS.index(view) for view in views]
    turn, dark = rng.permutation(_COMBINATIONS), rng.permutation(_COMBINATIONS)
    return [
        Shot(
            int(pair // len(FACES)),
            int(pair % len(FACES)),
            chosen[(turn[n] + block) % len(chosen)],
            int(dark[n] % len(LIGHTS)),
        )
        for n, pair in enumerate(rng.permutation(_COMBINATIONS))
    ]


def _pose(
    rngs: list[np.random.Generator], infant: Bodies, crib: Crib, plan: list[Shot]
) -> list[tuple[np.ndarray, Figure]]:
    """Draws where every camera is and how the infant lies, sits or stands before it."""
    # If something is to be seen on a face, the face is to be seen.
    seen = [
        FACES[shot.face] != "clear" or rng.random() < _SEEN
        for rng, shot in zip(rngs, plan, strict=True)
    ]
    found = [None] * len(plan)
    again = list(range(len(plan)))
    for _ in range(_TRIES):
        where = [sample_position(rngs[n], VIEWS[plan[n].view], crib) for n in again]
        wishes = []
        for n, position in zip(again, where, strict=True):
            towards = position if seen[n] or rngs[n].random() < 0.5 else None
            wishes.append(Wish(POSTURES[plan[n].posture], towards, face_down=not seen[n]))
        poses = sample_infant_poses([rngs[n] for n in again], infant, wishes, crib)
        for n, position, figure in zip(again, where, poses.figures(infant), strict=True):
            found[n] = position, figure
        again = [n for n in again if seen[n] and not is_turned_to(found[n][1], found[n][0])]
        if not again:
            break
    return found


def _stage(
    rng: np.random.Generator,
    look: InfantLook,
    crib: Crib,
    shot: Shot,
    position_m: np.ndarray,
    figure: Figure,
    size: tuple[int, int],
) -> tuple[Scene, str]:
    """Sets a scene up; tells, too, what is over the face, one of COVERS."""
    posture, state = POSTURES[shot.posture], FACES[shot.face]
    framing = rng.choice(["head", "body", "crib"], p=[0.35, 0.4, 0.25])
    camera = sample_camera(rng, VIEWS[shot.view], crib, position_m, [figure], framing, size)
    scene = Scene(
        crib=crib,
        camera=camera,
        figure=figure,
        look=look,
        expression=sample_expression(rng, posture),
        light=sample_light(rng, LIGHTS[shot.light], camera),
        cloth=sample_cloth_of_blanket(rng),
    )
    if state == "pacifier" or (state == "occluded" and rng.random() < 0.25):
        scene = dataclasses.replace(scene, pacifier=pacifier(figure, sample_pacifier(rng)))
    if state == "occluded":
        return cover_face(rng, scene, posture)
    return strew(rng, scene, posture), "none"


def _read(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Exposes and reads light f32[h,w,K] as u8[h,w,3]."""
    exposure = sample_exposure(rng, by_day=light.shape[-1] == 3)
    return develop(rng, light * exposure.gain(light))
