"""Prepares PoPu, pressure maps from over and under a mattress, as `popu_over` and `popu_under`.

    python -m data_prep.popu --raw preview_data.zip --out prepared/popu

Source: L. Fonseca, F. Ribeiro, J. Metrolho et al., "PoPu-Data: a multilayered, simultaneously
collected lying position dataset", Data 8(7):120, 2023; https://github.com/rdionisio1403/PoPu.
Licence: CC0 1.0.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.popu_format import (
    DEAD_BELOW,
    POSES,
    PRESSURE,
    SEGMENTS,
    SHEETS,
    Recording,
    Sheet,
    read_outlines,
    read_recording,
)
from data_prep.raw_files import check_name, read_bytes, unzipped
from jaxbed.cli import run
from jaxbed.codecs.mats import to_canonical
from jaxbed.data.body_parts import FILE, Outline, write_outlines
from jaxbed.data.pressure import POSTURES, PressureMaps
from jaxbed.errors import InputError

HOMEPAGE = "https://github.com/rdionisio1403/PoPu"
LICENCE = "Creative Commons Zero v1.0 Universal (CC0 1.0)."


@dataclasses.dataclass(frozen=True)
class Config:
    """Where PoPu lies and where the prepared sets go."""

    raw: Path
    """The folder that holds tactilus_data, sensomatt_data and segmentation_data, or a .zip of
    it: the whole set or its preview."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""


def main(config: Config) -> None:
    """Reads, checks and writes the maps of both mats and the outlines of body parts."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_pressure import summary, write_pressure_maps

    lines = []
    with complete_or_absent(config.out) as partial:
        recordings, outlines, skipped = read_files(config.raw)
        for sheet in SHEETS:
            if found := recordings[sheet.name]:
                maps, read = assemble(sheet, found, config.raw)
                write_pressure_maps(
                    maps, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE
                )
                lines.append(summary(maps, read))
        if outlines:
            write_outlines(outlines, partial)
    lines.append(_told(outlines, skipped))
    print(*lines, config.out, sep="\n")


def read_files(raw: Path) -> tuple[dict[str, list[Recording]], list[Outline], list[str]]:
    """Reads every file of the set.

    Args:
        raw: the folder of PoPu, or a .zip of it.

    Returns:
        The recordings of each mat by its name, in the order of volunteers and files; the outlines
        of body parts; and which of these were left out and why.

    Raises:
        InputError: if this is not PoPu, or if a file is there twice.
    """
    recordings = {sheet.name: {} for sheet in SHEETS}
    outlines, skipped = {}, []
    for file, content in tqdm(_files(raw), desc="reading PoPu", unit=" files", disable=None):
        if match := PRESSURE.fullmatch(file):
            (sheet,) = (x for x in SHEETS if x.sensor == match["sensor"].lower())
            recording = read_recording(sheet, match, content)
            _put(recordings[sheet.name], recording.file, recording, raw)
        elif match := SEGMENTS.fullmatch(file):
            found, reasons = read_outlines(match, content)
            skipped += reasons
            _put(outlines, f"{match['volunteer'] or ''}/{match['pose'].lower()}", found, raw)
    if not any(recordings.values()):
        raise InputError(
            f"{raw} holds no recording such as tactilus_data/4/left1_0.json, so it is not PoPu; "
            "point --raw at the folder that holds tactilus_data and sensomatt_data, or at a .zip "
            "of it."
        )
    return (
        {
            name: [by_file[file] for file in sorted(by_file, key=_natural)]
            for name, by_file in recordings.items()
        },
        [outline for key in sorted(outlines, key=_natural) for outline in outlines[key]],
        skipped,
    )


def assemble(sheet: Sheet, recordings: Sequence[Recording], raw: Path) -> tuple[PressureMaps, int]:
    """Joins the recordings of one mat.

    Args:
        sheet: the mat.
        recordings: its recordings.
        raw: where they lie, for messages.

    Returns:
        The maps, and how many snapshots there were before any was left out.

    Raises:
        InputError: if no snapshot of a pose is left, or if there is none of the empty mat.
    """
    read = sum(recording.read for recording in recordings)
    skipped = [line for recording in recordings for line in recording.skipped]
    posed = [r for r in recordings if r.pose in POSES and len(r.frame)]
    if not posed:
        raise InputError(
            f"{raw} holds no good snapshot of {sheet.sensor} in {len(recordings)} files"
            f"{f' ({skipped[0]})' if skipped else ''}; download PoPu again."
        )
    empty = _empty_readings(sheet, recordings, raw)
    usual = np.median(list(empty.values()), axis=0)
    readings = np.concatenate([recording.readings for recording in posed])
    who = _per_frame(posed, (recording.volunteer for recording in posed))
    pressure = np.empty(readings.shape, np.float32)
    for volunteer in dict.fromkeys(who.tolist()):
        theirs, folder = who == volunteer, f"{sheet.sensor}_data/{volunteer}"
        if volunteer not in empty:
            skipped.append(
                f"{folder}: no snapshot of the empty mat; the median of the other volunteers' is "
                "taken off instead"
            )
        pressure[theirs], remarks = _pressure(sheet, readings[theirs], empty.get(volunteer, usual))
        skipped += [f"{folder}: {remark}" for remark in remarks]
    skipped += [
        f"{r.file}: {len(r.frame)} snapshots of the empty mat, which are taken off the others"
        for r in recordings
        if r.pose == "empty"
    ]
    return _joined(sheet, posed, pressure, skipped), read


def filled(maps: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """Fills broken cells with the mean of the sound ones around them.

    Args:
        maps: f32[n,R,C].
        broken: bool[R,C].

    Returns:
        f32[n,R,C]; a cell without a sound neighbour among the eight reads 0.
    """
    out = maps.copy()
    for row, column in np.argwhere(broken):
        around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        sound = ~broken[around]
        out[:, row, column] = maps[:, *around][:, sound].mean(axis=1) if sound.any() else 0
    return out


def _empty_readings(
    sheet: Sheet, recordings: Sequence[Recording], raw: Path
) -> dict[str, np.ndarray]:
    """Averages what the cells of the empty mat read: f32[R,C] by volunteer."""
    empty = {}
    for recording in recordings:
        if recording.pose == "empty" and len(recording.frame):
            empty.setdefault(recording.volunteer, []).append(recording.readings)
    if not empty:
        raise InputError(
            f"{raw} holds no recording of the empty mat such as {sheet.sensor}_data/4/empty1.json, "
            "which tells what each cell reads without a load; add one."
        )
    return {
        volunteer: np.concatenate(readings).mean(axis=0, dtype=np.float32)
        for volunteer, readings in empty.items()
    }


def _pressure(
    sheet: Sheet, readings: np.ndarray, empty: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Makes canonical maps of one volunteer's readings.

    Args:
        sheet: the mat.
        readings: i16[n,R,C].
        empty: f32[R,C], what its cells read without a load.

    Returns:
        f32[n,R,C]; and which cells were found dead.
    """
    pressure = readings - empty
    dead = (pressure < -DEAD_BELOW).any(axis=0)
    remarks = [
        f"stored row {row}, column {column} falls to {-pressure[:, row, column].min():.0f} below "
        "what it reads empty, so it is dead; its neighbours' mean is put there"
        for row, column in np.argwhere(dead)
    ]
    dead[:, list(sheet.leaking)] = True
    return to_canonical(filled(pressure, dead), sheet.mounting), remarks


def _per_frame(recordings: Sequence[Recording], values: Iterable) -> np.ndarray:
    return np.repeat(np.array(list(values)), [len(r.frame) for r in recordings])


def _joined(
    sheet: Sheet, recordings: Sequence[Recording], pressure: np.ndarray, skipped: Sequence[str]
) -> PressureMaps:
    return PressureMaps(
        name=sheet.name,
        mat=sheet.mat,
        pressure=pressure,
        subject=_per_frame(recordings, (r.volunteer for r in recordings)),
        posture=_per_frame(recordings, (np.int32(POSTURES.index(r.pose[:-1])) for r in recordings)),
        label=_per_frame(recordings, (np.int32(POSES.index(r.pose)) for r in recordings)),
        label_names=POSES,
        skipped=tuple(skipped),
        extra={
            "file": _per_frame(recordings, (r.file for r in recordings)),
            "frame": np.concatenate([r.frame for r in recordings]),
            "take": _per_frame(recordings, (np.int32(r.take) for r in recordings)),
            "sex": _per_frame(recordings, (r.sex for r in recordings)),
            "height_cm": _per_frame(recordings, (np.float32(r.height_cm) for r in recordings)),
            "weight_kg": _per_frame(recordings, (np.float32(r.weight_kg) for r in recordings)),
        },
    )


def _files(raw: Path) -> Iterator[tuple[str, bytes]]:
    """Gives the path and the content of every .json file, less those that systems hide."""
    if not raw.exists():
        raise InputError(f"{raw} does not exist; point --raw at the download.")
    found = _files_of_folder(raw) if raw.is_dir() else unzipped(raw, _is_json)
    try:
        for file, content in found:
            check_name(file, raw)
            yield file, content
    except ValueError as error:
        raise InputError(
            f"{raw} is not a complete .zip archive ({error}); download it again."
        ) from error


def _files_of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        if _is_json(file) and path.is_file():
            try:
                yield file, read_bytes(path)
            except ValueError as error:
                raise InputError(f"{path} {error}; download it again.") from error


def _is_json(file: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in file.split("/"))
    return file.lower().endswith(".json") and not hidden


def _put(by_key: dict, key: str, value: object, raw: Path) -> None:
    if key in by_key:
        raise InputError(f"{raw} holds {key} twice; point --raw at one copy of PoPu.")
    by_key[key] = value


def _told(outlines: Sequence[Outline], skipped: Sequence[str]) -> str:
    """Tells which outlines were read and what was left out."""
    poses = {(outline.subject, outline.pose) for outline in outlines}
    whose = "" if all(o.subject for o in outlines) else ", some of which name no volunteer"
    lines = [f"{FILE}: {len(outlines):,} outlines of body parts in {len(poses):,} poses{whose}"]
    lines += [f"  left out: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        lines.append(f"  left out: {len(skipped) - 3} more outlines or files of them")
    return "\n".join(lines)


def _natural(file: str) -> list:
    """Sorts volunteer 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file)]


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
