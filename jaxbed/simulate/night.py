"""Night infrared images of simulated sleepers, with and without a blanket.

A camera at the end or at the side of the bed sees an adult by the light of its own lamp. The
pictures exercise a pipeline and carry exact labels; they prove nothing about people.

N images, h w height and width in pixels. Metres, the bed frame of `jaxbed.simulate.body`.

Source of the setting (cameras at the end and at the side, four postures, blanket on and off):
Wang, Liu, Xu, Zhao and Xu, "A deep learning-based method for nighttime sleep posture
recognition".
"""

from typing import NamedTuple

import numpy as np

from jaxbed.data.night import POSTURES, NightImages
from jaxbed.simulate.bedroom import (
    Room,
    Scene,
    measure,
    pull_up,
    put_aside,
    render_scene,
    sample_room,
)
from jaxbed.simulate.body import Bodies, forward_kinematics, sample_subjects
from jaxbed.simulate.infrared import CAMERAS, SENSOR, NightSensor
from jaxbed.simulate.looks import Look, sample_look
from jaxbed.simulate.sleeper import join, lie_in_bed, split

_CHUNK = 32  # bodies that settle at once: keeps the arrays in the cache
_PAIRS = 2 * len(POSTURES)
_BODY, _LOOK, _ROOM, _ORDER, _IMAGE = range(5)  # streams of randomness of a subject


class _Shot(NamedTuple):
    """What an image is to show: index into POSTURES, blanket or not, index of the camera."""

    posture: int
    blanket: bool
    camera: int


def simulate_night_images(
    *,
    subjects: int,
    images_per_subject: int,
    size: tuple[int, int] = (96, 96),
    cameras: tuple[str, ...] = CAMERAS,
    sensor: NightSensor = SENSOR,
    seed: int = 0,
) -> NightImages:
    """Simulates sleepers under night cameras.

    Every subject is an adult of its own size and look who sleeps in a room of its own for
    every camera. Of every eight successive images of a subject, one is of every posture with
    and one without a blanket, in random order, and the cameras take turns. An image depends
    only on seed, subject and its number, not on how many are asked for.

    Args:
        subjects: number of subjects.
        images_per_subject: images of each.
        size: (height, width) of the images.
        cameras: some of CAMERAS.
        sensor: how the cameras read the light.
        seed: of all randomness.

    Returns:
        The images, subject by subject, with the camera of each in `extra`. A recording is what
        one camera sees of one subject.
    """
    if subjects < 1 or images_per_subject < 1:
        raise ValueError(
            f"need at least 1 subject and 1 image, found {subjects} and {images_per_subject}"
        )
    check_view(size, cameras)
    count = subjects * images_per_subject
    owner, number = np.divmod(np.arange(count), images_per_subject)
    shots = [
        shot for s in range(subjects) for shot in _plan(seed, s, images_per_subject, len(cameras))
    ]
    people = [sample_sleeper(seed, s) for s in range(subjects)]
    rooms = {
        (s, c): sample_bedroom(seed, s, where, size)
        for s in range(subjects)
        for c, where in enumerate(cameras)
    }
    image = np.empty((count, *size), np.uint8)
    for first in range(0, count, _CHUNK):
        part = range(first, min(first + _CHUNK, count))
        rngs = [stream(seed, owner[n], _IMAGE, number[n]) for n in part]
        bodies = join([people[owner[n]][0] for n in part])
        postures = [POSTURES[shots[n].posture] for n in part]
        lengths = [rooms[owner[n], shots[n].camera].bed.length_m for n in part]
        rest = lie_in_bed(rngs, bodies, postures, np.array(lengths))
        figures = split(forward_kinematics(bodies, rest.angles, rest.root_m))
        for n, rng, figure in zip(part, rngs, figures, strict=True):
            room, look = rooms[owner[n], shots[n].camera], people[owner[n]][1]
            blanket = pull_up(rng, room, figure) if shots[n].blanket else put_aside(rng, room)
            light, _ = render_scene(Scene(room, figure, look, blanket))
            image[n] = sensor.read(rng, light * (room.exposure / measure(light)))
    where = np.array(cameras)[[shot.camera for shot in shots]]
    subject = np.array([f"sim-{s:03d}" for s in range(subjects)])[owner]
    return NightImages(
        name="simulated",
        image=image,
        posture=np.array([shot.posture for shot in shots], np.int32),
        blanket=np.array([shot.blanket for shot in shots], np.int32),
        subject=subject,
        recording=np.array([f"{s}-{c}" for s, c in zip(subject, where, strict=True)]),
        extra={"camera": where},
    )


def check_view(size: tuple, cameras: tuple[str, ...]) -> None:
    """Raises ValueError for images and cameras that cannot be simulated."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), found {size}")
    if not cameras or set(cameras) - set(CAMERAS) or len(set(cameras)) < len(cameras):
        raise ValueError(f"cameras must be some of {CAMERAS}, each once, found {cameras}")


def stream(seed: int, *index: int) -> np.random.Generator:
    """Makes the random numbers of one thing, independent of those of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=index))


def sample_sleeper(seed: int, subject: int) -> tuple[Bodies, Look]:
    """Draws one subject: a body, and how it looks."""
    body = sample_subjects(stream(seed, subject, _BODY), 1)
    return body, sample_look(stream(seed, subject, _LOOK))


def sample_bedroom(seed: int, subject: int, where: str, size: tuple[int, int]) -> Room:
    """Draws the room in which a subject sleeps before one of CAMERAS."""
    return sample_room(stream(seed, subject, _ROOM, CAMERAS.index(where)), where, size)


def _plan(seed: int, subject: int, images: int, cameras: int) -> list[_Shot]:
    """Plans the images of a subject, balanced in posture, blanket and camera."""
    shots = []
    for block in range(-(-images // _PAIRS)):
        round_, turn = divmod(block, cameras)
        first = stream(seed, subject, _ORDER, 0, round_).permutation(_PAIRS)
        for pair in stream(seed, subject, _ORDER, 1, block).permutation(_PAIRS):
            shots.append(_Shot(pair // 2, bool(pair % 2), (first[pair] + turn) % cameras))
    return shots[:images]
