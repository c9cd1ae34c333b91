"""Videos of simulated infants in cribs, after a script of dangers and what only looks like one.

The pictures exercise a pipeline and carry exact labels; they prove nothing about people.

h w height and width in pixels, K channels of light. Frames are made one by one, so that memory
does not grow with their number.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jaxbed.data.crib import LIGHTS, POSTURES, CribTruth, Episode, write_truth
from jaxbed.errors import InputError
from jaxbed.simulate.crib import check_view, face_state, sample_subject, sample_surroundings
from jaxbed.simulate.crib_light import develop, sample_exposure
from jaxbed.simulate.crib_player import Moment, Player, set_stage
from jaxbed.simulate.crib_script import Script, check_script, first_frame, sample_script
from jaxbed.simulate.night import stream

CAMERAS = ("above", "foot", "side", "corner")
"""Views of videos; a low camera would see little of who lies behind the rails."""

_VIDEO, _SCRIPT = 30, 31  # streams of randomness of a subject
_FIRST_NIGHT = 1000  # of videos, so that their cribs are not those of images
_STILL_HZ = 2.0  # at which a picture is drawn while nothing is under way
_ADAPTS_S, _DAZZLED = 0.3, 4.0  # a camera, when the light has changed
_SHAKES = 0.02  # of the width of the picture


class CribFrame(NamedTuple):
    """One frame.

    Attributes:
        time_s: since the first frame.
        image: u8[h,w,3], RGB.
        truth: what is true of it.
    """

    time_s: float
    image: np.ndarray
    truth: CribTruth


def simulate_crib_video(
    script: Script,
    *,
    frame_hz: float = 10.0,
    size: tuple[int, int] = (192, 256),
    view: str | None = None,
    subject: int = 0,
    recording: int = 0,
    seed: int = 0,
) -> Iterator[CribFrame]:
    """Simulates an infant in its crib, frame by frame.

    Body and face of a subject are those of `simulate_crib_images` with the same seed. While
    something is under way every frame is drawn; in between the picture is drawn twice a second
    and fades from one to the next, and the noise of the sensor is new in every frame.

    Args:
        script: what happens.
        frame_hz: frames per second.
        size: (height, width) of the images.
        view: one of CAMERAS, or None to draw it.
        subject: who lies there.
        recording: which one of this subject; every one has poses and a crib of its own.
        seed: of all randomness.

    Returns:
        An iterator over the frames.
    """
    check_script(script)
    if frame_hz <= 0:
        raise ValueError(f"need a positive rate, found {frame_hz} Hz")
    if view is not None and view not in CAMERAS:
        raise ValueError(f"a view of a video is one of {CAMERAS}, found {view!r}")
    check_view(size, (view or CAMERAS[0],))
    stage_rng, film_rng = stream(seed, subject, _VIDEO, recording).spawn(2)
    view = view or str(stage_rng.choice(CAMERAS))

    def frames():
        # Setting the stage takes a while, which is not to pass before the first frame is wanted.
        infant, face = sample_subject(seed, subject)
        look, crib = sample_surroundings(seed, subject, _FIRST_NIGHT + recording, face)
        stage = set_stage(stage_rng, infant, look, crib, view, size)
        yield from _film(film_rng, Player(stage_rng, stage, script), script, frame_hz)

    return frames()


def _film(
    rng: np.random.Generator, player: Player, script: Script, frame_hz: float
) -> Iterator[CribFrame]:
    """Reads the light of frames as a camera does that shakes, adapts and sometimes fails."""
    count = first_frame(script.seconds, frame_hz)
    dangers = [
        (episode.kind, round(episode.onset_s * frame_hz), round(episode.end_s * frame_hz))
        for episode in script.dangers(frame_hz)
    ]
    glitches = {
        first_frame(episode.onset_s, frame_hz)
        for episode in script.episodes
        if episode.kind == "glitch"
    }
    camera = _Camera(rng, script)
    for number, moment in enumerate(_moments(player, count, frame_hz)):
        time_s = number / frame_hz
        held = tuple(kind for kind, onset, end in dangers if onset <= number < end)
        image, shift = camera.take(time_s, moment.light)
        if number in glitches:
            image = _spoil(rng, image)
        yield CribFrame(time_s, image, _truth(moment, shift, held, image.shape[:2]))


class _Camera:
    """A camera that exposes for the first picture by day and for the first one by night."""

    def __init__(self, rng: np.random.Generator, script: Script):
        self.rng = rng
        self.shakes = [e for e in script.episodes if e.kind == "shake"]
        self.nights = [e for e in script.episodes if e.kind == "night"]
        self.exposures = {by_day: sample_exposure(rng, by_day=by_day) for by_day in (True, False)}
        self.gains = {}
        self.rates_hz = rng.uniform(2, 6, 2)

    def take(self, time_s: float, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes u8[h,w,3] of light f32[h,w,K], and tells f64[2], by how much it is shifted."""
        by_day = light.shape[-1] == 3
        if by_day not in self.gains:
            self.gains[by_day] = self.exposures[by_day].gain(light)
        gain = self.gains[by_day]
        for night in self.nights:
            for change_s, darker in ((night.onset_s, True), (night.end_s, False)):
                if 0 < change_s <= time_s:
                    dazzled = np.float32(_DAZZLED ** np.exp((change_s - time_s) / _ADAPTS_S))
                    gain = gain / dazzled if darker else gain * dazzled
        shift = np.zeros(2)
        if any(shake.onset_s <= time_s < shake.end_s for shake in self.shakes):
            swing = np.sin(2 * np.pi * self.rates_hz * time_s)
            shift = _SHAKES * light.shape[1] * (swing + self.rng.normal(0, 0.3, 2))
            light = _shifted(light, shift)
        return develop(self.rng, light * gain), shift


def _shifted(light: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moves a picture f32[h,w,K] to the right and down by some pixels."""
    size = light.shape[1::-1]
    matrix = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    moved = cv2.warpAffine(light, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(light.shape)


def _spoil(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What comes of an image that is lost on its way: black, torn or noise."""
    kind = rng.choice(["black", "torn", "noise"])
    if kind == "black":
        return np.zeros_like(image)
    if kind == "noise":
        return rng.integers(0, 256, image.shape, np.uint8)
    row = rng.integers(len(image) // 4, 3 * len(image) // 4 + 1)
    torn = image.copy()
    torn[row:] = np.roll(image[: len(image) - row], rng.integers(1, image.shape[1]), axis=1)
    return torn


def _moments(player: Player, count: int, frame_hz: float) -> Iterator[Moment]:
    """Yields what is to be seen in every frame.

    While nothing is under way, pictures drawn twice a second fade into each other.
    """
    step = max(1, round(frame_hz / _STILL_HZ))
    number, drawn = 0, None
    while number < count:
        kind = player.kind_at(number / frame_hz)
        last = number
        while last - number < step and last + 1 < count:
            if player.kind_at((last + 1) / frame_hz) != kind or kind.moves:
                break
            last += 1
        first = drawn or player.draw(number / frame_hz)
        if last == number:
            drawn = None
            yield first
            number += 1
            continue
        drawn = player.draw(last / frame_hz)
        for n in range(number, last):
            yield first.fade(drawn, (n - number) / (last - number))
        number = last


def _truth(
    moment: Moment, shift: np.ndarray, dangers: tuple[str, ...], size: tuple[int, int]
) -> CribTruth:
    """What is true of a picture f64[2] pixels aside."""
    face = moment.face
    box = np.clip(face.box + np.tile(shift, 2), 0, [*size[::-1], *size[::-1]])
    return CribTruth(
        posture=POSTURES.index(moment.posture),
        face=face_state(face, moment.has_pacifier),
        covered=face.covered,
        face_box=box.astype(np.float32),
        landmarks=(face.landmarks + shift).astype(np.float32),
        light=LIGHTS.index("day" if moment.light.shape[-1] == 3 else "night"),
        dangers=dangers,
    )


def write_crib_videos(
    folder: Path,
    *,
    videos: int,
    minutes: float = 1.0,
    frame_hz: float = 10.0,
    size: tuple[int, int] = (192, 256),
    first_subject: int = 0,
    seed: int = 0,
) -> list[Path]:
    """Writes videos of infants in cribs as MPEG-4, each of another infant, with their truth.

    Args:
        folder: where to; gets FOLDER/sim-000.mp4 and so on, and beside each the files that
            `jaxbed.data.crib.read_truth` and `read_frames` read. A video appears when it is
            complete, its truth before it.
        videos: how many.
        minutes: length of each; the scripts are drawn.
        frame_hz: frames per second.
        size: (height, width) of the frames.
        first_subject: subject of the first video; those of `simulate_crib_images` with the same
            seed look the same.
        seed: of all randomness.

    Returns:
        The videos written.
    """
    if videos < 1:
        raise ValueError(f"need at least 1 video, found {videos}")
    paths = []
    for subject in range(first_subject, first_subject + videos):
        script = sample_script(stream(seed, subject, _SCRIPT), minutes)
        frames = simulate_crib_video(
            script, frame_hz=frame_hz, size=size, subject=subject, seed=seed
        )
        path = Path(folder) / f"sim-{subject:03d}.mp4"
        write_crib_video(path, frames, script.dangers(frame_hz), frame_hz, size)
        paths.append(path)
    return paths


def write_crib_video(
    path: Path,
    frames: Iterable[CribFrame],
    dangers: Sequence[Episode],
    frame_hz: float,
    size: tuple[int, int],
) -> None:
    """Writes frames of a size (height, width) as one MPEG-4 video with its truth.

    Raises:
        InputError: it cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(partial), codec, frame_hz, size[::-1])
    if not writer.isOpened():
        raise InputError(
            f"{path} cannot be written as MPEG-4; check that there is room and that you may "
            "write there."
        )
    truths = []
    for frame in frames:
        writer.write(np.ascontiguousarray(frame.image[..., ::-1]))
        truths.append((frame.time_s, frame.truth))
    writer.release()
    write_truth(path, dangers, truths)
    partial.replace(path)
