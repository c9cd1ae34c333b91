"""Sets of crib images with posture and face, and what is true of videos from a crib.

N images, H W height and width in pixels, F frames. Points are (x to the right, y down) in pixels
with 0 at the left and upper edge of the first pixel; boxes are (left, top, right, bottom).

Beside a video NAME.mp4 lie NAME.episodes.csv, when there was danger, and NAME.frames.csv, what
every frame shows. The first one has a line `kind,onset_s,end_s` and one line for every episode;
it may be written by hand for a video of one's own, and then the second one is not needed.
"""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxbed.errors import InputError

POSTURES = ("back", "stomach", "sitting", "standing")
FACES = ("clear", "pacifier", "occluded")
"""What is over a face. A pacifier is no danger; whatever else hides half of it is."""
VIEWS = ("above", "foot", "side", "corner", "low")
"""Where the camera hangs."""
LIGHTS = ("day", "night")
"""Colour by day; by night the grey of infrared, the same in all three channels."""
COVERS = ("none", "blanket", "toy", "hand", "pillow")
LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")
"""Sides are the infant's: the first eye is left in the picture of an upright face."""
DANGERS = ("occluded", "stomach", "standing")
"""Kinds of episodes that a caregiver must be told of."""

UNKNOWN = -1
"""A face that is turned away."""

_EPISODE_COLUMNS = ("kind", "onset_s", "end_s")
_NAMES = {"posture": POSTURES, "face": FACES, "light": LIGHTS}
_NUMBERS = (
    *("time_s", "covered", "left", "top", "right", "bottom"),
    *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy"),
)
_FRAME_COLUMNS = ("time_s", *_NAMES, "dangers", *_NUMBERS[1:])


@dataclasses.dataclass(frozen=True)
class CribImages:
    """Images of infants in cribs with their labels.

    Attributes:
        name: name of the set, for reports.
        image: u8[N,H,W,3], RGB.
        posture: i32[N], index into POSTURES.
        face: i32[N], index into FACES; UNKNOWN where the face is not visible.
        visible: bool[N], whether the face is turned to the camera and in the picture, so that
            it is seen unless something covers it.
        covered: f32[N], share within [0, 1] of the face's pixels that are hidden by anything
            but the pacifier and the rails of the crib; NaN where it is not visible.
        face_box: f32[N,4], the face from forehead to chin, also behind its cover; NaN where
            it is not visible.
        landmarks: f32[N,5,2], in the order of LANDMARKS, also behind a cover; NaN likewise.
        subject: str[N], whose face it is; the unit of a split.
        view: i32[N], index into VIEWS.
        light: i32[N], index into LIGHTS.
        skipped: what was left out on reading and why, one line each.
        extra: what else the set tells of each image, by name.
    """

    name: str
    image: np.ndarray
    posture: np.ndarray
    face: np.ndarray
    visible: np.ndarray
    covered: np.ndarray
    face_box: np.ndarray
    landmarks: np.ndarray
    subject: np.ndarray
    view: np.ndarray
    light: np.ndarray
    skipped: tuple[str, ...] = ()
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[1:3]


class Episode(NamedTuple):
    """Something that goes on from one time to another.

    Attributes:
        kind: what; one of DANGERS where a caregiver must be told.
        onset_s: time of the first frame in which it wholly holds.
        end_s: time of the first frame in which it does not any more.
    """

    kind: str
    onset_s: float
    end_s: float


class CribTruth(NamedTuple):
    """What is true of one frame.

    Attributes:
        posture: index into POSTURES; in a movement, what it starts from or leads to, whichever
            is nearer in time.
        face: index into FACES, or UNKNOWN.
        covered: as of CribImages.
        face_box: f32[4], likewise.
        landmarks: f32[5,2], likewise.
        light: index into LIGHTS.
        dangers: which of DANGERS hold.
    """

    posture: int
    face: int
    covered: float
    face_box: np.ndarray
    landmarks: np.ndarray
    light: int
    dangers: tuple[str, ...] = ()


def truth_paths(video: Path) -> tuple[Path, Path]:
    """Names the files with the episodes and with the frames of a video."""
    return video.with_suffix(".episodes.csv"), video.with_suffix(".frames.csv")


def write_truth(
    video: Path, episodes: Sequence[Episode], frames: Sequence[tuple[float, CribTruth]]
) -> None:
    """Writes what is true of a video beside it.

    Args:
        video: path of the video.
        episodes: of DANGERS.
        frames: time in seconds and truth of every frame.
    """
    first, second = truth_paths(video)
    _write(
        first, _EPISODE_COLUMNS, ((e.kind, f"{e.onset_s:.3f}", f"{e.end_s:.3f}") for e in episodes)
    )
    _write(second, _FRAME_COLUMNS, (_row(time_s, truth) for time_s, truth in frames))


def _row(time_s: float, truth: CribTruth) -> list[str]:
    names = [
        kinds[index] if index != UNKNOWN else ""
        for kinds, index in zip(
            _NAMES.values(), (truth.posture, truth.face, truth.light), strict=True
        )
    ]
    numbers = truth.covered, *truth.face_box, *np.ravel(truth.landmarks)
    shown = ["" if np.isnan(number) else f"{number:.2f}" for number in numbers]
    return [f"{time_s:.3f}", *names, " ".join(truth.dangers), *shown]


def _write(path: Path, columns: tuple[str, ...], rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_truth(path: Path) -> list[Episode]:
    """Reads the episodes of a video, written by `write_truth` or by hand.

    Args:
        path: of the video, or of its file of episodes.

    Returns:
        The episodes, by onset.

    Raises:
        InputError: there is no such file, or it cannot be understood.
    """
    path = Path(path)
    path = path if path.suffix == ".csv" else truth_paths(path)[0]
    episodes = []
    for place, row in _read(path, _EPISODE_COLUMNS):
        if row["kind"] not in DANGERS:
            raise InputError(
                f"{place}: the kind of an episode is one of {', '.join(DANGERS)}, found "
                f"{row['kind']!r}; mend the line."
            )
        onset_s, end_s = (_number(place, name, row[name]) for name in _EPISODE_COLUMNS[1:])
        if not 0 <= onset_s < end_s < np.inf:
            raise InputError(
                f"{place}: an episode begins at or after 0 s and ends later, found "
                f"{row['onset_s']} to {row['end_s']}; mend the line."
            )
        episodes.append(Episode(row["kind"], onset_s, end_s))
    return sorted(episodes, key=lambda episode: episode.onset_s)


def read_frames(path: Path) -> tuple[np.ndarray, list[CribTruth]]:
    """Reads what is true of the frames of a video, written by `write_truth`.

    Args:
        path: of the video, or of its file of frames.

    Returns:
        f64[F], times in seconds, ascending, and F truths.

    Raises:
        InputError: there is no such file, or it cannot be understood.
    """
    path = Path(path)
    path = path if path.suffix == ".csv" else truth_paths(path)[1]
    times, frames = [], []
    for place, row in _read(path, _FRAME_COLUMNS):
        index = {name: _index(place, name, row[name]) for name in _NAMES}
        time_s, covered, *rest = (_number(place, name, row[name] or "nan") for name in _NUMBERS)
        if not time_s > (times[-1] if times else -np.inf):
            raise InputError(f"{place}: times must ascend, found {row['time_s']!r}; mend the line.")
        dangers = tuple(row["dangers"].split())
        if set(dangers) - set(DANGERS):
            raise InputError(
                f"{place}: dangers are some of {', '.join(DANGERS)}, found {row['dangers']!r}; "
                "mend the line."
            )
        box, points = np.float32(rest[:4]), np.float32(rest[4:]).reshape(5, 2)
        times.append(time_s)
        frames.append(
            CribTruth(
                index["posture"], index["face"], covered, box, points, index["light"], dangers
            )
        )
    return np.array(times), frames


def _read(path: Path, columns: tuple[str, ...]):
    """Yields where every line is, and the line as a dictionary."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a table with the columns "
            f"{','.join(columns)}: write one, or name another file."
        ) from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if tuple(reader.fieldnames or ()) != columns:
        found = ",".join(reader.fieldnames or ()) or "nothing"
        raise InputError(
            f"{path}: the first line must be {','.join(columns)}, found {found}; mend the line."
        )
    for number, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise InputError(
                f"{path}, line {number}: expected {len(columns)} values, found another number; "
                "mend the line."
            )
        yield f"{path}, line {number}", row


def _number(place: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{place}: {name} must be a number, found {text!r}; mend the line."
        ) from error


def _index(place: str, name: str, text: str) -> int:
    if text == "" and name == "face":
        return UNKNOWN
    if text not in _NAMES[name]:
        raise InputError(
            f"{place}: {name} is one of {', '.join(_NAMES[name])}, found {text!r}; mend the line."
        )
    return _NAMES[name].index(text)
