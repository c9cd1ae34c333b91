"""Prepares PMD 1.0.0, pressure maps of people in bed, as `experiment_i` and `experiment_ii`.

    python -m data_prep.pmd --raw pmd-1.0.0 --out prepared/pmd

Source: M. B. Pouyan, J. Birjandtalab, M. Heydarzadeh, M. Nourani, S. Ostadabbas, "A pressure
map dataset for posture and subject analytics", IEEE BHI 2017;
https://physionet.org/content/pmd/1.0.0/. Licence: Open Data Commons Attribution (ODC-By) 1.0.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.pmd_format import EXPERIMENTS, Experiment, Recording, read_recording
from data_prep.raw_files import check_digests, files
from jaxbed.cli import run
from jaxbed.data.pressure import POSTURES, PressureMaps
from jaxbed.errors import InputError

HOMEPAGE = "https://physionet.org/content/pmd/1.0.0/"
LICENCE = "Open Data Commons Attribution License v1.0; attribute Pouyan et al., IEEE BHI 2017."
LISTING = "SHA256SUMS.txt"
FILES = ("*.txt", "*.docx", "experiment-*/**/*")


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


def main(config: Config) -> None:
    """Reads, checks and writes both experiments."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_pressure import summary, write_pressure_maps

    lines = []
    with complete_or_absent(config.out) as partial:
        recordings = read_recordings(config.raw, verify=config.verify)
        for experiment in EXPERIMENTS:
            maps, read = assemble(experiment, recordings, config)
            write_pressure_maps(maps, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE)
            lines.append(summary(maps, read))
    print(*lines, config.out, sep="\n")


def read_recordings(raw: Path, *, verify: bool) -> dict[str, list[Recording]]:
    """Reads every recording of both experiments.

    Args:
        raw: the PMD folder, or a .tar.xz of it.
        verify: whether every file must be the published one.

    Returns:
        The recordings of each experiment by its name, in the order of subjects and codes.

    Raises:
        InputError: if this is not PMD, or if a file is missing or changed.
    """
    digests, listing = {}, b""
    recordings = {experiment.name: {} for experiment in EXPERIMENTS}
    for file, content in tqdm(files(raw, FILES), desc="reading PMD", unit=" files", disable=None):
        if file in digests:
            raise InputError(f"{raw} holds {file} twice; download PMD 1.0.0 again.")
        digests[file] = hashlib.sha256(content).hexdigest()
        if file == LISTING:
            listing = content
        for experiment in EXPERIMENTS:
            if match := experiment.files.fullmatch(file):
                recordings[experiment.name][file] = read_recording(experiment, match, content)
    if not any(recordings.values()):
        raise InputError(
            f"{raw} holds no recording such as experiment-i/S1/1.txt, so it is not PMD 1.0.0; "
            f"point --raw at the folder that holds {LISTING}, or at a .tar.xz of it."
        )
    if verify:
        if not listing:
            raise InputError(
                f"{raw} holds no {LISTING} to check its files against; download PMD 1.0.0 "
                "again, or pass --no-verify for a copy that was edited on purpose."
            )
        check_digests(listing, digests, f"{raw}, {LISTING}")
    return {
        name: [by_file[file] for file in sorted(by_file, key=_natural)]
        for name, by_file in recordings.items()
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


def _natural(file: str) -> list:
    """Sorts S2 before S10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file)]


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
