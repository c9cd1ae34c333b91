"""Prepares the frames of any pressure mat as `mat_folder`.

    python -m data_prep.mat_folder --raw my_mat --out prepared/my_mat

The folder holds
  mat.json    rows, columns, pitch_mm, head ("up": row 0 lies at the head; or "down"), mirrored
              (true if the frames are mirror images of the bed seen from above), baseline (what
              an empty cell reads) and saturation (the highest reading)
  labels.csv  columns file, subject, posture (supine, prone, left or right: the side that is
              lain on) and, if you like, blanket; one line a frame
  frames      one rows x columns matrix a file, comma-separated .csv or .npy
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.raw_files import csv_lines, is_file, read_bytes
from jaxbed.cli import run
from jaxbed.codecs.mats import Mounting, to_canonical
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError, short

NAME = "mat_folder"


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the frames lie and where the prepared set goes."""

    raw: Path
    """The folder that holds mat.json, labels.csv and the frames."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""


class Label(NamedTuple):
    """A line of labels.csv."""

    file: str
    subject: str
    posture: str
    blanket: str


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_MAT_KEYS = {
    "rows": (_is_count, "a whole number above 0"),
    "columns": (_is_count, "a whole number above 0"),
    "pitch_mm": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "head": (lambda value: value in ("up", "down"), '"up" or "down"'),
    "mirrored": (lambda value: isinstance(value, bool), "true or false"),
    "baseline": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "saturation": (lambda value: _is_number(value) and value > 0, "a number above 0"),
}


def main(config: Config) -> None:
    """Reads, checks and writes the frames of a folder."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_pressure import summary, write_pressure_maps

    with complete_or_absent(config.out) as partial:
        if not config.raw.is_dir():
            raise InputError(
                f"{config.raw} is not a folder; point --raw at the one that holds mat.json, "
                "labels.csv and the frames."
            )
        mat, mounting = read_mat(config.raw / "mat.json")
        labels = read_labels(config.raw / "labels.csv")
        maps = read_frames(config.raw, labels, mat, mounting)
        write_pressure_maps(maps, partial, frames_read=len(labels))
    print(summary(maps, len(labels)), config.out, sep="\n")


def read_mat(path: Path) -> tuple[Mat, Mounting]:
    """Reads mat.json.

    Returns:
        The mat in the canonical frame, and how its readings are stored.

    Raises:
        InputError: if the file is not a description of a mat.
    """
    try:
        facts = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); mend it.") from error
    if not isinstance(facts, dict) or facts.keys() != _MAT_KEYS.keys():
        found = ", ".join(sorted(facts)) if isinstance(facts, dict) else type(facts).__name__
        raise InputError(
            f"{path} must hold exactly the keys {', '.join(_MAT_KEYS)}, but holds "
            f"{short(found) or 'none'}; add or remove keys."
        )
    for key, (holds, expected) in _MAT_KEYS.items():
        if not holds(facts[key]):
            raise InputError(
                f"{path} has {key} {short(json.dumps(facts[key]))}, which must be {expected}; "
                "mend it."
            )
    if facts["saturation"] <= facts["baseline"]:
        raise InputError(
            f"{path} has saturation {facts['saturation']}, which must be above the baseline "
            f"{facts['baseline']}; mend it."
        )
    mat = Mat(
        rows=facts["rows"],
        columns=facts["columns"],
        pitch_mm=float(facts["pitch_mm"]),
        unit="count",
        full_scale=float(facts["saturation"] - facts["baseline"]),
    )
    mounting = Mounting(
        head=facts["head"], mirrored=facts["mirrored"], baseline=float(facts["baseline"])
    )
    return mat, mounting


def read_labels(path: Path) -> list[Label]:
    """Reads labels.csv.

    Raises:
        InputError: if a column or a frame is missing, or if a line cannot be understood.
    """
    lines = csv_lines(path, _content(path))
    header = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in ("file", "subject", "posture") if name not in header]
    if missing:
        raise InputError(
            f"{path} must open with a line that names the columns file, subject and posture, "
            f"but names {short(', '.join(header)) or 'none'}; add {', '.join(missing)}."
        )
    if len(lines) == 1:
        raise InputError(f"{path} names no frame; add a line for each.")
    labels = [
        _label(path, number, dict(zip(header, cells, strict=False))) for number, cells in lines[1:]
    ]
    _check_files(path, labels)
    return labels


def read_frames(
    folder: Path, labels: Sequence[Label], mat: Mat, mounting: Mounting
) -> PressureMaps:
    """Reads the labelled frames. An unreadable one is left out and listed.

    Raises:
        InputError: if not one frame can be read.
    """
    kept, frames, skipped = [], [], []
    for label in tqdm(labels, desc="reading frames", disable=None):
        try:
            raw = _read_matrix(folder / label.file, mat.size)
            pressure = to_canonical(raw, mounting)
            if not pressure.any():
                raise ValueError(f"no cell reads above the baseline {mounting.baseline:g}")
        except ValueError as error:
            skipped.append(f"{label.file}: {short(error)}")
        else:
            kept.append(label)
            frames.append(pressure)
    if not frames:
        raise InputError(
            f"{folder} holds no readable frame among {len(labels)} ({skipped[0]}); mend the "
            "frames or mat.json."
        )
    posture = np.array([POSTURES.index(label.posture) for label in kept], np.int32)
    extra = {"file": np.array([label.file for label in kept])}
    if any(label.blanket for label in kept):
        extra["blanket"] = np.array([label.blanket for label in kept])
    return PressureMaps(
        name=NAME,
        mat=mat,
        pressure=np.stack(frames),
        subject=np.array([label.subject for label in kept]),
        posture=posture,
        label=posture,
        label_names=POSTURES,
        skipped=tuple(skipped),
        extra=extra,
    )


def _label(path: Path, line: int, cells: dict[str, str]) -> Label:
    label = Label(**{name: cells.get(name, "").strip() for name in Label._fields})
    if not label.file or not label.subject:
        raise InputError(f"{path} line {line} must name a file and a subject; fill them in.")
    if label.posture not in POSTURES:
        raise InputError(
            f"{path} line {line} has the posture {label.posture!r}, which must be one of "
            f"{', '.join(POSTURES)}; mend it."
        )
    if not label.file.endswith((".csv", ".npy")):
        raise InputError(
            f"{path} line {line} names {label.file!r}, which must end in .csv or .npy; "
            "convert the frame."
        )
    if PurePosixPath(label.file).is_absolute() or ".." in PurePosixPath(label.file).parts:
        raise InputError(
            f"{path} line {line} names {label.file!r}, which must lie inside the folder; move "
            "the frame there."
        )
    return label


def _check_files(path: Path, labels: Sequence[Label]) -> None:
    names = [label.file for label in labels]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path} names {twice[0]} more than once; remove a line.")
    absent = [name for name in names if not is_file(path.parent / name)]
    if absent:
        raise InputError(
            f"{path} names {len(absent)} of {len(names)} frames that are not in "
            f"{path.parent}, first {absent[0]}; add them or remove their lines."
        )


def _read_matrix(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Reads f32[R,C]. Raises ValueError telling why it cannot."""
    if path.suffix == ".npy":
        try:
            # Mapped: a damaged header may claim any size.
            values = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # such a header makes NumPy raise nearly anything
            raise ValueError(short(error)) from error
    else:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
        if not any(lines):
            raise ValueError("is empty")
        values = np.loadtxt(lines, delimiter=",", ndmin=2)
    if values.shape != size:
        raise ValueError(f"holds a matrix of shape {values.shape} instead of {size}")
    if values.dtype.kind not in "uif":
        raise ValueError(f"holds {values.dtype} instead of numbers")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused next
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    if (values < 0).any():
        raise ValueError(f"holds the negative reading {values.min():g}")
    return values


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except ValueError as error:
        raise InputError(f"{path} {error}; write it (see --help).") from error


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
