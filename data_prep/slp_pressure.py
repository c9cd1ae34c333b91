"""Prepares the pressure maps of SLP with joints, people in bed under three covers, as `slp_pm`.

    python -m data_prep.slp_pressure --raw SLP --out prepared/slp_pm

Source and licence: those of data_prep.slp. The joints were annotated by hand on the colour images
without a cover; every person's homography takes them to the mat, which adds an error of its own.
Only danaLab has pressure maps.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io.matlab import MatReadError, loadmat
from tqdm import tqdm

from data_prep.slp import COVERS, DOUBTFUL, HOMEPAGE, LICENCE, POSES, posture
from jaxbed.cli import run
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError

LAB = "danaLab"
MAT = Mat(rows=192, columns=84, pitch_mm=10.2, unit="kpa", full_scale=15.0)
"""Full scale: four standard deviations above the mean, as the authors' code states both."""
JOINTS = 14
"""In the order of jaxbed.simulate.skeleton.JOINTS, that of the Leeds Sports Pose set."""

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, NotImplementedError, MatReadError)


@dataclasses.dataclass(frozen=True)
class Config:
    """Where SLP lies and where the prepared set goes."""

    raw: Path
    """The folder that holds the folder danaLab, or danaLab itself."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    keep_subject_7: bool = False
    """Keep subject 7, whose left and right joints were reported to be exchanged."""


class Person(NamedTuple):
    """What SLP tells of a person besides the maps.

    Attributes:
        joints_mm: f32[45,14,2], of every pose, as PressureMaps has them.
        kpa: f64[3,45], of one count, by cover and pose.
    """

    joints_mm: np.ndarray
    kpa: np.ndarray


def main(config: Config) -> None:
    """Reads, checks and writes the maps."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_pressure import summary, write_pressure_maps

    with complete_or_absent(config.out) as partial:
        maps, read = read_maps(config)
        write_pressure_maps(maps, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE)
    print(summary(maps, read), config.out, sep="\n")


def read_maps(config: Config) -> tuple[PressureMaps, int]:
    """Reads every map. An unreadable one, or one of an unreadable person, is left out and listed.

    Returns:
        The maps, and how many there were before any was left out.

    Raises:
        InputError: if this is not SLP with its pressure maps, or if no map can be read.
    """
    root = config.raw if config.raw.resolve().name == LAB else config.raw / LAB
    people = sorted(root.glob("[0-9]" * 5))
    rows, skipped, read = [], [], 0
    for folder in tqdm(people, desc="reading SLP", unit=" people", disable=None):
        files = [
            (cover, path)
            for cover in COVERS
            for path in sorted((folder / "PMarray" / cover).glob("[0-9]" * 6 + ".npy"))
        ]
        read += len(files)
        if (LAB, folder.name) == DOUBTFUL and not config.keep_subject_7:
            told = "joints were reported to be mirrored (--keep-subject-7 keeps them)"
            skipped.append(f"{LAB}/{folder.name}: {len(files)} maps; {told}")
            continue
        try:
            person = read_person(folder)
        except _UNREADABLE as error:
            skipped.append(f"{LAB}/{folder.name}: {len(files)} maps; {_told(error)}")
            continue
        for cover, path in files:
            try:
                rows.append(_row(person, folder.name, cover, path))
            except _UNREADABLE as error:
                skipped.append(f"{_name(path)}: {_told(error)}")
    if not rows:
        why = f" ({skipped[-1]})" if skipped else ""
        raise InputError(
            f"{config.raw} holds no readable map such as {LAB}/00001/PMarray/uncover/000001.npy"
            f"{why}; point --raw at the folder of SLP that holds {LAB}."
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    label = np.array(columns["posture"], np.int32)
    maps = PressureMaps(
        name="slp_pm",
        mat=MAT,
        pressure=np.stack(columns["pressure"]),
        subject=np.array(columns["subject"]),
        posture=label,
        label=label.copy(),
        label_names=POSTURES,
        joints_mm=np.stack(columns["joints_mm"]),
        skipped=tuple(skipped),
        extra={
            "cover": np.array(columns["cover"]),
            "pose": np.array(columns["pose"], np.int32),
            "file": np.array(columns["file"]),
        },
    )
    return maps, read


def read_person(folder: Path) -> Person:
    """Reads joints, homography and calibration of one person.

    Raises:
        One of _UNREADABLE: a file cannot be used.
    """
    joints = np.asarray(loadmat(str(folder / "joints_gt_RGB.mat"))["joints_gt"], np.float64)
    if joints.shape != (3, JOINTS, POSES):
        raise ValueError(f"joints_gt_RGB.mat holds {joints.shape}, not {(3, JOINTS, POSES)}")
    to_mat = np.load(folder / "align_PTr_RGB.npy").astype(np.float64)
    if to_mat.shape != (3, 3) or not abs(np.linalg.det(to_mat)) > 0:
        raise ValueError("align_PTr_RGB.npy holds no homography")
    kpa = np.load(folder / "PMcali.npy").astype(np.float64)
    if kpa.shape != (len(COVERS), POSES) or not (kpa > 0).all():
        raise ValueError(f"PMcali.npy holds {kpa.shape} and not {len(COVERS)} x {POSES} scales")
    return Person(on_mat_mm(joints[:2].T, to_mat), kpa)


def on_mat_mm(joints_px: np.ndarray, to_mat: np.ndarray) -> np.ndarray:
    """Takes joints from the colour image to the mat.

    Args:
        joints_px: f64[...,2], (x, y), 1 at the centre of the image's first pixel.
        to_mat: f64[3,3], takes (x, y) with 0 there to (column, row) of the map, 0 at the centre
            of its first sensor.

    Returns:
        f32[...,2], in millimetres from the outer corner of the first sensor.
    """
    ones = np.ones_like(joints_px[..., :1])
    at = np.concatenate([joints_px - 1, ones], axis=-1) @ to_mat.T
    return ((at[..., :2] / at[..., 2:] + 0.5) * MAT.pitch_mm).astype(np.float32)


def _row(person: Person, subject: str, cover: str, path: Path) -> dict:
    """Reads one map with its labels."""
    pose = int(path.stem)
    if not 1 <= pose <= POSES:
        raise ValueError(f"is numbered {pose}, but there are {POSES} poses")
    counts = np.load(path)
    if counts.shape != MAT.size or not np.issubdtype(counts.dtype, np.number):
        raise ValueError(f"holds {counts.dtype}{counts.shape}, not numbers {MAT.size}")
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise ValueError("holds values below 0 or none at all")
    return {
        "pressure": (counts * person.kpa[[*COVERS].index(cover), pose - 1]).astype(np.float32),
        "subject": f"{LAB}_{subject}",
        "posture": posture(pose),
        "joints_mm": person.joints_mm[pose - 1],
        "cover": cover,
        "pose": pose,
        "file": _name(path),
    }


def _name(path: Path) -> str:
    """Tells where a map lies within SLP."""
    return "/".join((LAB, *path.parts[-4:]))


def _told(error: Exception) -> str:
    """Tells an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
