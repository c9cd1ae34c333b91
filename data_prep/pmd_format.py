"""The files of PMD 1.0.0: what their names mean, how their frames are stored, which are bad."""

import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxbed.codecs.mats import Mounting, to_canonical
from jaxbed.data.pressure import Mat

PITCH_MM = 25.4
HIGHEST = 4095  # the converter's; the documented ranges (1000, 500) are exceeded now and then


class Position(NamedTuple):
    """How a person lies, from the tables of experiment-info.docx."""

    posture: str
    incline_deg: int = 0
    roll_deg: int = 0
    fetal: bool = False

    def describe(self, code: str) -> str:
        """Names the position, for example "E1 right, roll 20"."""
        fetal = ", fetal" * self.fetal
        roll = f", roll {self.roll_deg}" if self.roll_deg else ""
        incline = f", bed raised {self.incline_deg}" if self.incline_deg else ""
        return f"{code} {self.posture}{fetal}{roll}{incline}"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One of the two experiments.

    Attributes:
        name: the prepared set's.
        files: path of a recording; names its subject, code and, where known, mattress.
        positions: what a code stands for.
        values_per_line: how many readings a line holds: a whole frame, or one row of it.
        mat: the mat in the canonical frame.
        mounting: how its readings are stored.
        aliases: subjects who are somebody else as well.
        good_frames: how many frames of the published set are good.
    """

    name: str
    files: re.Pattern
    positions: Mapping[str, Position]
    values_per_line: int
    mat: Mat
    mounting: Mounting
    aliases: Mapping[str, str]
    good_frames: int


EXPERIMENT_I = Experiment(
    name="experiment_i",
    files=re.compile(r"experiment-i/(?P<subject>S\d+)/(?P<code>\d+)\.txt"),
    positions={
        "1": Position("supine"),
        "2": Position("right"),
        "3": Position("left"),
        "4": Position("right", roll_deg=30),
        "5": Position("right", roll_deg=60),
        "6": Position("left", roll_deg=30),
        "7": Position("left", roll_deg=60),
        **{str(number): Position("supine") for number in range(8, 13)},
        "13": Position("right", fetal=True),
        "14": Position("left", fetal=True),
        "15": Position("supine", incline_deg=30),
        "16": Position("supine", incline_deg=45),
        "17": Position("supine", incline_deg=60),
    },
    values_per_line=64 * 32,
    mat=Mat(rows=64, columns=32, pitch_mm=PITCH_MM, unit="count", full_scale=500.0),
    mounting=Mounting(head="up", mirrored=True),
    aliases={},
    good_frames=19_563,
)

EXPERIMENT_II = Experiment(
    name="experiment_ii",
    files=re.compile(
        r"experiment-ii/(?P<subject>S\d+)/(?P<mattress>Air|Sponge)_Mat/"
        r"Matrix_(?P=mattress)_(?P<code>[A-Z]\d+)\.txt"
    ),
    positions={
        **{f"B{number}": Position("supine") for number in range(1, 11)},
        **{f"C{number}": Position("right") for number in range(1, 4)},
        **{f"D{number}": Position("left") for number in range(1, 4)},
        "E1": Position("right", roll_deg=20),
        "E2": Position("right", roll_deg=40),
        "E3": Position("left", roll_deg=20),
        "E4": Position("left", roll_deg=40),
        "E5": Position("right", roll_deg=20),
        "E6": Position("left", roll_deg=20),
        **{
            f"F{number}": Position("supine", incline_deg=10 * (number - 1))
            for number in range(1, 8)
        },
    },
    values_per_line=27,
    # The documented range is 0 to 500, of which empty cells take 38 to 50.
    mat=Mat(rows=64, columns=27, pitch_mm=PITCH_MM, unit="count", full_scale=452.0),
    mounting=Mounting(head="down", mirrored=True, baseline=48.0),
    # 52 of the 58 files of S8 are byte for byte those of S4.
    aliases={"S8": "S4"},
    good_frames=462,
)

EXPERIMENTS = (EXPERIMENT_I, EXPERIMENT_II)


@dataclasses.dataclass(frozen=True)
class Recording:
    """What one file holds: n frames of R rows and C columns.

    Attributes:
        file: its path in the data set.
        subject: who lies there.
        code: how, a key of the experiment's positions.
        mattress: "air", "sponge" or "" where it is not told.
        pressure: f32[n,R,C], the good frames in the canonical frame.
        frame: i32[n], their numbers in the file, from 0.
        read: how many frames the file holds, good or not.
        skipped: which of them were left out and why.
    """

    file: str
    subject: str
    code: str
    mattress: str
    pressure: np.ndarray
    frame: np.ndarray
    read: int
    skipped: tuple[str, ...]


def read_recording(experiment: Experiment, match: re.Match, content: bytes) -> Recording:
    """Reads one file and keeps its good frames.

    Args:
        experiment: the experiment it belongs to.
        match: its path in the data set, matched by `experiment.files`.
        content: the file's.

    Returns:
        The recording, which may be left without a frame.
    """
    file, groups = match.string, match.groupdict()
    frames, numbers, read, reasons = _parse(experiment, content)
    if groups["code"] not in experiment.positions:
        good = np.zeros(len(frames), bool)
        reasons = [f"the code {groups['code']} is not documented"]
    else:
        good = _plausible(frames)
        if not good.all():
            reasons.append(
                f"frames {_runs(numbers[~good])}: total pressure not between a third and three "
                "times the median of the file"
            )
    return Recording(
        file=file,
        subject=experiment.aliases.get(groups["subject"], groups["subject"]),
        code=groups["code"],
        mattress=groups.get("mattress", "").lower(),
        pressure=to_canonical(frames[good], experiment.mounting),
        frame=numbers[good],
        read=read,
        skipped=tuple(f"{file}: {reason}" for reason in reasons),
    )


def _parse(experiment: Experiment, content: bytes) -> tuple[np.ndarray, np.ndarray, int, list[str]]:
    """Reads the frames of a file.

    Returns:
        i64[n,R,C], the readable frames; i32[n], their numbers in the file; how many frames
        there are, readable or not; and why the others are not.
    """
    size = experiment.mat.size
    lines = [line for line in content.split(b"\n") if line.strip()]
    if experiment.values_per_line == size[0] * size[1]:
        blocks = [[line] for line in lines]
    else:
        blocks = [lines] if lines else []
    frames, numbers, reasons = [], [], []
    for number, block in enumerate(blocks):
        try:
            frames.append(_parse_frame(block, experiment))
            numbers.append(number)
        except ValueError as error:
            reasons.append(f"frame {number}: {error}")
    shape = (len(frames), *size)
    return (
        np.array(frames, np.int64).reshape(shape),
        np.array(numbers, np.int32),
        len(blocks),
        reasons if blocks else ["holds no frame"],
    )


def _parse_frame(lines: list[bytes], experiment: Experiment) -> np.ndarray:
    """Reads the lines of one frame. Raises ValueError telling what is wrong with them."""
    rows, columns = experiment.mat.size
    expected = rows * columns // experiment.values_per_line
    if len(lines) != expected:
        raise ValueError(f"holds {len(lines)} lines instead of {expected}")
    values = [_parse_line(line, experiment.values_per_line) for line in lines]
    return np.concatenate(values).reshape(rows, columns)


def _parse_line(line: bytes, count: int) -> np.ndarray:
    """Reads the whole numbers of a line. Raises ValueError telling what is wrong with it."""
    stray = line.translate(None, b"0123456789 \t\r")
    if stray:
        raise ValueError(
            f"holds {stray[:20].decode('ascii', 'replace')!r} where only whole numbers from 0 "
            f"to {HIGHEST} belong"
        )
    values = np.fromstring(line, np.int64, sep=" ")
    if len(values) != count:
        raise ValueError(f"holds {len(values)} values on a line instead of {count}")
    if values.max() > HIGHEST:
        raise ValueError(f"holds {values.max()}, above the highest reading {HIGHEST}")
    return values


def _plausible(frames: np.ndarray) -> np.ndarray:
    """Tells good frames from those the mat sent before it had settled.

    Frame 0 of a recording of experiment I is nearly empty and frame 1 is garbage of multiples
    of 256; a few more follow. Good frames lie between 0.63 and 1.4 times the median total of
    their recording, bad ones below 0.03 or above 6.

    Args:
        frames: i64[n,R,C], one recording.

    Returns:
        bool[n].
    """
    if len(frames) == 0:
        return np.zeros(0, bool)
    total = frames.sum(axis=(1, 2))
    median = np.median(total)
    return (total > median / 3) & (total < 3 * median)


def _runs(numbers: np.ndarray) -> str:
    """Writes ascending numbers as runs: "0-1, 5"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
