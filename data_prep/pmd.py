"""Prepares PMD 1.0.0, pressure maps of people in bed, as `experiment_i` and `experiment_ii`.

    python -m data_prep.pmd --raw pmd-1.0.0 --out prepared/pmd

Source: M. B. Pouyan, J. Birjandtalab, M. Heydarzadeh, M. Nourani, S. Ostadabbas, "A pressure
map dataset for posture and subject analytics", IEEE BHI 2017;
https://physionet.org/content/pmd/1.0.0/. Licence: Open Data Commons Attribution (ODC-By) 1.0.
"""

import dataclasses
import hashlib
import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxbed.cli import run
from jaxbed.codecs.mats import Mounting, to_canonical
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError

HOMEPAGE = "https://physionet.org/content/pmd/1.0.0/"
LICENCE = "Open Data Commons Attribution License v1.0; attribute Pouyan et al., IEEE BHI 2017."
LISTING = "SHA256SUMS.txt"
PITCH_MM = 25.4
HIGHEST = 4095  # the converter's; the documented ranges (1000, 500) are exceeded now and then


@dataclasses.dataclass(frozen=True)
class Config:
    """Where PMD lies and where the prepared sets go."""

    raw: Path
    """The unpacked PMD folder (the one that holds SHA256SUMS.txt), or a .tar.xz of it."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    verify: bool = True
    """Check every file against SHA256SUMS.txt and the counts against the published set. Turn
    off only for a copy that was edited on purpose: unreadable frames are then left out, counted
    and listed."""


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


def main(config: Config) -> None:
    """Reads, checks and writes both experiments."""
    from jaxbed.data.prepared import complete_or_absent, write_pressure_maps

    with complete_or_absent(config.out) as partial:
        recordings = read_recordings(config.raw, verify=config.verify)
        for experiment in EXPERIMENTS:
            maps, read = assemble(experiment, recordings, config)
            write_pressure_maps(
                maps, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE
            )
            print(summary(maps, read))
    print(config.out)


def read_recordings(raw: Path, *, verify: bool) -> dict[str, list[Recording]]:
    """Reads every recording of both experiments.

    Args:
        raw: the PMD folder, or a .tar.xz of it.
        verify: whether every file must be the published one.

    Returns:
        The recordings of each experiment by its name, by subject and code.

    Raises:
        InputError: if this is not PMD, or if a file is missing, changed or superfluous.
    """
    digests, listing = {}, None
    recordings = {experiment.name: [] for experiment in EXPERIMENTS}
    for file, content in tqdm(_files(raw), desc="reading PMD", unit=" files", disable=None):
        if file in digests:
            raise InputError(f"{raw} holds {file} twice; download PMD 1.0.0 again.")
        digests[file] = hashlib.sha256(content).hexdigest()
        if file == LISTING:
            listing = content
        for experiment in EXPERIMENTS:
            if match := experiment.files.fullmatch(file):
                recordings[experiment.name].append(_recording(experiment, match, content))
    if not any(recordings.values()):
        raise InputError(
            f"{raw} holds no recording such as experiment-i/S1/1.txt, so it is not PMD 1.0.0; "
            f"point --raw at the folder that holds {LISTING}, or at a .tar.xz of it."
        )
    if verify:
        _check_digests(raw, listing, digests)
    return {
        name: sorted(found, key=lambda recording: _natural(recording.file))
        for name, found in recordings.items()
    }


def assemble(
    experiment: Experiment, recordings: Mapping[str, list[Recording]], config: Config
) -> tuple[PressureMaps, int]:
    """Joins the recordings of one experiment.

    Returns:
        The maps, and how many frames there were before any was left out.

    Raises:
        InputError: if no good frame is left, or not the published number of them.
    """
    found = recordings[experiment.name]
    skipped = tuple(line for recording in found for line in recording.skipped)
    read = sum(recording.read for recording in found)
    kept = sum(len(recording.frame) for recording in found)
    if kept == 0:
        raise InputError(
            f"{config.raw} holds no good frame of {experiment.name} in {len(found)} files"
            f"{f' ({skipped[0]})' if skipped else ''}; download PMD 1.0.0 again."
        )
    if config.verify and kept != experiment.good_frames:
        raise InputError(
            f"{config.raw} holds {kept:,} good frames of {experiment.name}, but PMD 1.0.0 has "
            f"{experiment.good_frames:,}, so {LISTING} is not the published one; download "
            "PMD 1.0.0 again, or pass --no-verify for a copy that was edited on purpose."
        )
    return _joined(experiment, [r for r in found if len(r.frame)], skipped), read


def summary(maps: PressureMaps, read: int) -> str:
    """Tells in one line what was read, kept and left out."""
    return (
        f"{maps.name}: {read:,} frames read, {len(maps):,} kept, {read - len(maps):,} left out, "
        f"{len(set(maps.subject))} subjects, {maps.mat.rows} x {maps.mat.columns} cells"
    )


def _joined(
    experiment: Experiment, recordings: list[Recording], skipped: tuple[str, ...]
) -> PressureMaps:
    codes = tuple(experiment.positions)
    positions = [experiment.positions[recording.code] for recording in recordings]

    def per_frame(values: Iterable) -> np.ndarray:
        return np.repeat(np.array(list(values)), [len(r.frame) for r in recordings])

    extra = {
        "file": per_frame(recording.file for recording in recordings),
        "frame": np.concatenate([recording.frame for recording in recordings]),
        "incline_deg": per_frame(np.float32(p.incline_deg) for p in positions),
        "roll_deg": per_frame(np.float32(p.roll_deg) for p in positions),
    }
    if any(recording.mattress for recording in recordings):
        extra["mattress"] = per_frame(recording.mattress for recording in recordings)
    return PressureMaps(
        name=experiment.name,
        mat=experiment.mat,
        pressure=np.concatenate([recording.pressure for recording in recordings]),
        subject=per_frame(recording.subject for recording in recordings),
        posture=per_frame(np.int32(POSTURES.index(p.posture)) for p in positions),
        label=per_frame(np.int32(codes.index(recording.code)) for recording in recordings),
        label_names=tuple(
            position.describe(code) for code, position in experiment.positions.items()
        ),
        skipped=skipped,
        extra=extra,
    )


def _recording(experiment: Experiment, match: re.Match, content: bytes) -> Recording:
    """Reads one file and keeps its good frames."""
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


def _parse(
    experiment: Experiment, content: bytes
) -> tuple[np.ndarray, np.ndarray, int, list[str]]:
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
        blocks = [lines]
    frames, numbers, reasons = [], [], []
    for number, block in enumerate(blocks):
        try:
            rows = [_parse_line(line, experiment.values_per_line) for line in block]
            frames.append(np.concatenate(rows).reshape(size))
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


def _parse_line(line: bytes, count: int) -> np.ndarray:
    """Reads the whole numbers of a line. Raises ValueError telling what is wrong with it."""
    stray = line.translate(None, b"0123456789 \t\r")
    if stray:
        raise ValueError(
            f"holds {stray[:20].decode('ascii', 'replace')!r} among its values, which are to be "
            f"whole numbers from 0 to {HIGHEST}"
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


def _files(raw: Path) -> Iterator[tuple[str, bytes]]:
    """Gives the path in the data set and the content of every file of PMD."""
    if raw.is_dir():
        return _files_of_folder(raw)
    if not raw.exists():
        raise InputError(
            f"{raw} does not exist; point --raw at the PMD folder, or at a .tar.xz of it."
        )
    return _files_of_archive(raw)


def _files_of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    # Only what belongs to PMD: the folder might be somebody's home.
    for pattern in ("*.txt", "*.docx", "experiment-*/**/*"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def _files_of_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Reads the archive from end to end; nothing is unpacked to disk."""
    try:
        with tarfile.open(archive, "r:xz") as members:
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(
                        f"{archive} holds {member.name!r}, which leads out of the archive, so "
                        "it is not PMD 1.0.0; download it again."
                    )
                if member.isfile():
                    # The archive holds one folder, whatever its name.
                    yield "/".join(path.parts[1:]), members.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"{archive} is not a complete .tar.xz archive ({error}); download it again."
        ) from error


def _check_digests(raw: Path, listing: bytes | None, digests: Mapping[str, str]) -> None:
    """Raises InputError unless the files are those of the listing."""
    advice = (
        "download PMD 1.0.0 again, or pass --no-verify for a copy that was edited on purpose"
    )
    if listing is None:
        raise InputError(f"{raw} holds no {LISTING} to check its files against; {advice}.")
    published = {}
    for line in listing.decode("utf-8", "replace").splitlines():
        digest, _, file = line.partition(" ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not file.strip():
            raise InputError(f"{raw}/{LISTING} holds the line {line[:80]!r}; {advice}.")
        published[file.strip()] = digest
    problems = (
        ("misses {} listed files, first {}", published.keys() - digests.keys()),
        (
            "holds {} files whose SHA-256 is not the listed one, first {}",
            {f for f in published.keys() & digests.keys() if published[f] != digests[f]},
        ),
        (
            "holds {} recordings that are not listed, first {}",
            {
                file
                for file in digests.keys() - published.keys()
                if any(experiment.files.fullmatch(file) for experiment in EXPERIMENTS)
            },
        ),
    )
    for sentence, files in problems:
        if files:
            what = sentence.format(len(files), min(files, key=_natural))
            raise InputError(f"{raw} {what} ({LISTING}); {advice}.")


def _natural(file: str) -> list:
    """Sorts S2 before S10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file)]


def _runs(numbers: np.ndarray) -> str:
    """Writes ascending numbers as runs: "0-1, 5"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
