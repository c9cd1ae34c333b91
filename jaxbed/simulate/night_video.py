"""Night infrared videos of simulated sleepers who lie still, turn over and lose their blanket.

The pictures exercise a pipeline and carry exact labels; they prove nothing about people.

h w height and width in pixels. Frames are made one by one, so that memory does not grow with
their number.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jaxbed.data.night import POSTURES
from jaxbed.errors import InputError
from jaxbed.simulate.bedding import Blanket, blend
from jaxbed.simulate.bedroom import (
    Room,
    Scene,
    fold,
    measure,
    pull_up,
    put_aside,
    render_scene,
)
from jaxbed.simulate.body import Bodies, forward_kinematics
from jaxbed.simulate.infrared import CAMERAS, SENSOR, NightSensor
from jaxbed.simulate.looks import Look
from jaxbed.simulate.night import check_view, sample_bedroom, sample_sleeper, stream
from jaxbed.simulate.skeleton import FLESH
from jaxbed.simulate.sleeper import Rest, lie_in_bed, turn_over

_VIDEO, _CLIP = 10, 11  # streams of randomness of a subject
_BREATHES = np.array([[flesh.bone in ("chest", "abdomen")] for flesh in FLESH])
_SWELLS = 0.02  # by how much the trunk grows thicker on breathing in
_BREATHS_HZ = (0.2, 0.3)
_TURN_S, _STILL_S = (1.5, 3.0), (4.0, 30.0)
_STAYS = 0.2  # share of movements that only change the blanket


class Phase(NamedTuple):
    """A movement and the stillness after it.

    Attributes:
        posture: what the sleeper turns into, one of POSTURES.
        blanket: whether a blanket is on after the movement.
        turn_s: how long the movement takes; 0 for the first phase, which has none.
        still_s: how long the stillness lasts.
    """

    posture: str
    blanket: bool
    turn_s: float
    still_s: float


class NightFrame(NamedTuple):
    """One frame and what is true of it.

    Attributes:
        image: u8[h,w].
        time_s: since the first frame.
        posture: index into POSTURES; in a movement, what it starts from or leads to, whichever
            is nearer in time.
        blanket: whether it is on, likewise.
        moving: whether the sleeper moves, breathing apart, or the blanket does.
    """

    image: np.ndarray
    time_s: float
    posture: int
    blanket: bool
    moving: bool


def sample_schedule(rng: np.random.Generator) -> Iterator[Phase]:
    """Draws what happens through a night, without end.

    Args:
        rng: where the randomness comes from.

    Yields:
        Phases of some seconds to tens of seconds. Most begin with a turn to another posture;
        some of these, and all others, put the blanket on or off.
    """
    posture, blanket, turn_s = rng.integers(len(POSTURES)), bool(rng.integers(2)), 0.0
    while True:
        yield Phase(POSTURES[posture], blanket, turn_s, rng.uniform(*_STILL_S))
        stays = rng.random() < _STAYS
        if not stays:
            posture = (posture + rng.integers(1, len(POSTURES))) % len(POSTURES)
        blanket ^= stays or rng.random() < 0.3
        turn_s = rng.uniform(*_TURN_S)


def simulate_night_video(
    *,
    seconds: float | None = None,
    schedule: Sequence[Phase] | None = None,
    frame_hz: float = 10.0,
    size: tuple[int, int] = (96, 96),
    camera: str = "end",
    sensor: NightSensor = SENSOR,
    subject: int = 0,
    recording: int = 0,
    seed: int = 0,
) -> Iterator[NightFrame]:
    """Simulates a sleeper under a night camera, frame by frame.

    Body, look and rooms of a subject are those of `simulate_night_images` with the same seed.
    A longer video begins with the shorter one.

    Args:
        seconds: length; the last phase lasts until then. None for the length of the schedule.
        schedule: what happens. None to draw it, without end.
        frame_hz: frames per second.
        size: (height, width) of the images.
        camera: one of CAMERAS.
        sensor: how the camera reads the light.
        subject: who lies there.
        recording: which one of this subject; every one has poses of its own.
        seed: of all randomness.

    Returns:
        An iterator over the frames.
    """
    check_view(size, (camera,))
    if frame_hz <= 0 or (seconds is not None and seconds <= 0):
        raise ValueError(f"need a positive rate and length, found {frame_hz} Hz and {seconds} s")
    if schedule is None and seconds is None:
        raise ValueError("a video without a schedule needs a length in seconds")
    if schedule is not None:
        _check_schedule(schedule)
    script_rng, pose_rng, noise_rng = stream(seed, subject, _VIDEO, recording).spawn(3)
    if seconds is None:
        seconds = sum(phase.turn_s + phase.still_s for phase in schedule)
    if schedule is None:
        phases, blanket_stays = sample_schedule(script_rng), True
    else:
        phases = [*schedule[:-1], schedule[-1]._replace(still_s=np.inf)]
        blanket_stays = any(phase.blanket for phase in phases)
    room = sample_bedroom(seed, subject, camera, size)
    body, look = sample_sleeper(seed, subject)
    aside = fold(pose_rng, room, "foot") if blanket_stays else put_aside(pose_rng, room)
    stage = _Stage(room, body, look, aside)
    moments = _play(pose_rng, stage, phases, frame_hz)
    frames = itertools.islice(moments, round(seconds * frame_hz))
    return _film(frames, room.exposure, sensor, noise_rng)


def _check_schedule(schedule: Sequence[Phase]) -> None:
    if not schedule:
        raise ValueError("a schedule needs a phase at least")
    for number, phase in enumerate(schedule):
        if phase.posture not in POSTURES:
            raise ValueError(f"phase {number}: a posture is one of {POSTURES}, found {phase}")
        if (phase.turn_s > 0) != (number > 0) or phase.turn_s < 0 or phase.still_s < 0:
            raise ValueError(
                f"phase {number}: the first phase has no turn, others one of positive length, "
                f"and no stillness is negative; found {phase}"
            )


class _State(NamedTuple):
    """What a phase leads to: how the body lies, and the blanket, if there is any."""

    phase: Phase
    rest: Rest
    cloth: Blanket | None


class _Stage(NamedTuple):
    """A body in a room, and the blanket when it is off, if there is any."""

    room: Room
    body: Bodies
    look: Look
    aside: Blanket | None

    def light(self, pose: tuple, cloth: Blanket | None, breath: float) -> np.ndarray:
        """Draws f32[h,w] of angles f64[1,D] and root f64[1,3], `breath` within [-1, 1]."""
        figure = forward_kinematics(self.body, *pose)
        radii = figure.radii_m * (1 + _SWELLS * breath * _BREATHES)
        figure = dataclasses.replace(figure, radii_m=radii)
        return render_scene(Scene(self.room, figure, self.look, cloth))[0]

    def next_state(self, rng: np.random.Generator, phase: Phase, last: _State | None) -> _State:
        """Draws what a phase leads to; nobody moves while only the blanket is put on or off."""
        if last and phase.posture == last.phase.posture and phase.blanket != last.phase.blanket:
            rest = last.rest
        else:
            length = np.array([self.room.bed.length_m])
            rest = lie_in_bed([rng], self.body, [phase.posture], length)
        if not phase.blanket:
            return _State(phase, rest, self.aside)
        figure = forward_kinematics(self.body, rest.angles, rest.root_m)
        return _State(phase, rest, pull_up(rng, self.room, figure))


def _play(
    rng: np.random.Generator, stage: _Stage, phases: Iterable[Phase], frame_hz: float
) -> Iterator[tuple[np.ndarray, NightFrame]]:
    """Yields the light f32[h,w] of every frame, and what is true of it, without an image."""
    breath_hz = rng.uniform(*_BREATHS_HZ)
    number, begin_s, last = 0, 0.0, None
    for phase in phases:
        here = stage.next_state(rng.spawn(1)[0], phase, last)
        last = last or here
        turned_s = begin_s + phase.turn_s
        end_s = turned_s + phase.still_s
        moving = []
        while (time_s := number / frame_hz) < turned_s:
            moving.append(time_s)
            number += 1
        share = (np.array(moving) - begin_s) / (phase.turn_s or 1.0)
        breath = np.sin(2 * np.pi * breath_hz * np.array(moving))
        for n, light in enumerate(_turn(stage, last, here, share, breath)):
            now = (last if share[n] < 0.5 else here).phase
            yield light, _truth(moving[n], now, moving=True)

        # So little changes on breathing that a mean of two pictures shows it.
        pose = here.rest.angles, here.rest.root_m
        out, filled = (stage.light(pose, here.cloth, breath) for breath in (-1.0, 1.0))
        while (time_s := number / frame_hz) < end_s:
            share = np.float32(0.5 + 0.5 * np.sin(2 * np.pi * breath_hz * time_s))
            yield out + share * (filled - out), _truth(time_s, phase, moving=False)
            number += 1
        last, begin_s = here, end_s


def _turn(
    stage: _Stage, last: _State, here: _State, share: np.ndarray, breath: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields the light f32[h,w] at shares of a movement, f64[F], and breaths f64[F]."""
    if last.rest is here.rest:
        angles, root = (np.repeat(a, len(share), axis=0) for a in here.rest[2:])
    else:
        angles, root = turn_over(stage.body, last.rest, here.rest, share)
    for n in range(len(share)):
        cloth = blend(last.cloth, here.cloth, share[n]) if here.cloth else None
        yield stage.light((angles[[n]], root[[n]]), cloth, breath[n])


def _truth(time_s: float, phase: Phase, *, moving: bool) -> NightFrame:
    posture = POSTURES.index(phase.posture)
    return NightFrame(np.empty(0), time_s, posture, phase.blanket, moving)


def _film(
    moments: Iterable[tuple[np.ndarray, NightFrame]],
    exposure: float,
    sensor: NightSensor,
    rng: np.random.Generator,
) -> Iterator[NightFrame]:
    """Reads the light of frames, all exposed like the first one."""
    gain = None
    for light, truth in moments:
        gain = gain or exposure / measure(light)
        yield truth._replace(image=sensor.read(rng, light * gain))


def write_night_videos(
    folder: Path,
    *,
    subjects: int,
    clips: int = 2,
    still_s: tuple[float, float] = (2.0, 4.0),
    frame_hz: float = 10.0,
    size: tuple[int, int] = (240, 320),
    cameras: tuple[str, ...] = CAMERAS,
    sensor: NightSensor = SENSOR,
    seed: int = 0,
) -> list[Path]:
    """Writes videos of sleepers, one turn in each, as Motion JPEG.

    A video shows a sleeper who lies still in some other posture, turns into the one that the
    file is named after, and stays in it; the blanket is on or off throughout.

    Args:
        folder: where to; gets FOLDER/SUBJECT/POSTURE/on_00.avi, off_00.avi and so on, and
            FOLDER/turns.csv, which tells from when to when the sleeper of a video turns.
        subjects: number of subjects.
        clips: videos of every subject, posture and blanket; the cameras take turns.
        still_s: least and greatest length of a stillness.
        frame_hz: frames per second.
        size: (height, width) of the frames.
        cameras: some of CAMERAS.
        sensor: how the cameras read the light.
        seed: of all randomness.

    Returns:
        The files written, subject by subject.
    """
    if subjects < 1 or clips < 1:
        raise ValueError(f"need at least 1 subject and 1 clip, found {subjects} and {clips}")
    if not 0 < still_s[0] <= still_s[1]:
        raise ValueError(f"stillness must ascend from above 0 s, found {still_s}")
    check_view(size, cameras)
    paths, turns = [], ["video,begin_s,end_s"]
    scenes = itertools.product(range(subjects), range(len(POSTURES)), (True, False), range(clips))
    for subject, posture, blanket, clip in scenes:
        number = (clip * len(POSTURES) + posture) * 2 + blanket
        rng = stream(seed, subject, _CLIP, number)
        before = (posture + rng.integers(1, len(POSTURES))) % len(POSTURES)
        still = rng.uniform(*still_s, 2)
        turn_s = rng.uniform(*_TURN_S)
        frames = simulate_night_video(
            schedule=[
                Phase(POSTURES[before], blanket, 0.0, still[0]),
                Phase(POSTURES[posture], blanket, turn_s, still[1]),
            ],
            frame_hz=frame_hz,
            size=size,
            camera=cameras[(clip + posture) % len(cameras)],
            sensor=sensor,
            subject=subject,
            recording=number,
            seed=seed,
        )
        name = f"{'on' if blanket else 'off'}_{clip:02d}.avi"
        path = Path(folder) / f"sim-{subject:03d}" / POSTURES[posture] / name
        _write(path, (frame.image for frame in frames), frame_hz, size)
        paths.append(path)
        turns.append(f"{path.relative_to(folder)},{still[0]:.3f},{still[0] + turn_s:.3f}")
    (Path(folder) / "turns.csv").write_text("\n".join(turns) + "\n")
    return paths


def _write(path: Path, images: Iterable[np.ndarray], frame_hz: float, size: tuple) -> None:
    """Writes u8[h,w] images as a video, which appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(partial), codec, frame_hz, size[::-1], isColor=False)
    if not writer.isOpened():
        raise InputError(
            f"{path} cannot be written as Motion JPEG; check that there is room and that you "
            "may write there."
        )
    for image in images:
        writer.write(image)
    writer.release()
    partial.replace(path)
