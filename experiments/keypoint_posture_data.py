"""The maps of `python -m experiments.keypoint_posture`: one canonical frame, classes, folds.

N maps of R x C cells of PITCH_MM, whatever mat they come from.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.keypoint_posture import Config, Labels
from jaxbed.codecs import mats
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps, scaled
from jaxbed.errors import InputError

SIZE = (64, 32)
"""Rows and columns of the canonical grid, those of PMD's mat."""
PITCH_MM = 25.4

# What is a plausible part of a body to carry 90 % of its weight, in mm down and across.
_PLAUSIBLE_MM = ((300, 2200), (80, 1100))
# What share of the body's pressure empty cells may read, of the pressed cells may be clipped, and
# what share of the saturation must be reached.
_EMPTY, _CLIPPED, _REACHED = 0.15, 0.5, 0.05
_OTHER_MAT = Mat(rows=54, columns=24, pitch_mm=32.0, unit="kpa", full_scale=8.5)
_SIDES = {"left": "right", "right": "left"}
# PMD's supine positions with one knee up; a mirror makes one of the other. No name tells it, the
# maps do: mirrored maps of either lie nearest to those of the other.
_ONE_KNEE = {"11 supine": "12 supine", "12 supine": "11 supine"}


class Classes(NamedTuple):
    """What maps are sorted into.

    Attributes:
        names: of the classes.
        mirrored: i64[k], what every class is in a mirror.
    """

    names: tuple[str, ...]
    mirrored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Posed:
    """Maps in the canonical frame.

    Attributes:
        name: of the set.
        pressure: f32[N,R,C] in [0, 1].
        subject: str[N].
        label: i32[N] by kind of label, -1 where a map has none of the classes.
        recording: str[N], which maps were taken in one go and are alike.
        frame: i64[N], number of a map within its recording, from 0.
        frames: i64[N], length of the recording a map is of.
    """

    name: str
    pressure: np.ndarray
    subject: np.ndarray
    label: Mapping[Labels, np.ndarray]
    recording: np.ndarray
    frame: np.ndarray
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.pressure)

    def thinned(self, every: int) -> np.ndarray:
        """Returns the indices of every so many frames of each recording, at least one of each."""
        return _every(every, self.frame, self.frames)


def load(config: Config) -> PressureMaps:
    """Simulates or reads the maps that --data names."""
    if config.data == "simulated":
        from jaxbed.simulate.pressure import simulate_pressure_maps

        subjects, each = config.simulated
        print(f"simulating {subjects} sleepers, {each} maps each", file=sys.stderr)
        return simulate_pressure_maps(subjects=subjects, maps_per_subject=each, seed=config.seed)
    name = {"pmd": "experiment_i", "popu": "popu_over", "mat": "mat_folder"}[config.data]
    return _read(config.data_dir, name)


def load_unseen(config: Config) -> dict[str, PressureMaps]:
    """Simulates or reads the mats that are tested on without training, by name; thinned."""
    found = {}
    if config.data == "simulated":
        found["another_mat"] = _another_mat(config)
    folder = config.unseen_pmd
    if folder is None and config.data == "pmd" and (config.data_dir / "experiment_ii").is_dir():
        folder = config.data_dir
    if folder is not None:
        names = ("experiment_ii",) if config.data == "pmd" else ("experiment_i", "experiment_ii")
        found |= {name: _read(folder, name) for name in names}
    if config.unseen_popu is not None:
        found |= {name: _read(config.unseen_popu, name) for name in ("popu_over", "popu_under")}
    if config.unseen_mat is not None:
        found["mat_folder"] = _read(config.unseen_mat, "mat_folder")
    return {name: thinned(maps, config.thin[1]) for name, maps in found.items()}


def _read(folder: Path, name: str) -> PressureMaps:
    from jaxbed.data.prepared_pressure import read_pressure_maps

    if (folder / "mat.json").is_file() or (folder / "labels.csv").is_file():
        raise InputError(
            f"{folder} is a raw mat folder; prepare it with `python -m data_prep.mat_folder --raw "
            f"{folder} --out PREPARED`, which checks mat.json and labels.csv, and name PREPARED."
        )
    return read_pressure_maps(folder, name)


def _another_mat(config: Config) -> PressureMaps:
    """Simulates other sleepers on a coarser, noisier mat."""
    from jaxbed.simulate.pressure import Sensor, simulate_pressure_maps

    subjects, each = config.simulated
    maps = simulate_pressure_maps(
        subjects=max(2, subjects // 4),
        maps_per_subject=each,
        mat=_OTHER_MAT,
        sensor=Sensor(gain=0.6, dead=0.02),
        seed=config.seed + 1,
    )
    return dataclasses.replace(maps, name="simulated, another mat")


def classes_of(maps: PressureMaps, kind: Labels) -> Classes:
    """Names the classes of a set and pairs those that a mirror exchanges.

    Args:
        maps: the set that is trained on.
        kind: its postures, those nobody lies in left out, or its own finer classes.

    Raises:
        InputError: a finer class has a side, but no counterpart.
    """
    if kind == "position":
        names = maps.label_names
    else:
        there = {POSTURES[i] for i in np.unique(maps.posture)}
        # A mirror makes right of left, so where one of them is there are both.
        there |= {_mirrored_name(name, POSTURES) for name in there}
        names = tuple(name for name in POSTURES if name in there)
    pairs = [_mirrored_name(name, names) for name in names]
    if None in pairs:
        raise InputError(
            f"--labels position: what is {names[pairs.index(None)]!r} of {maps.name} in a mirror? "
            "None of its other classes; take --labels posture."
        )
    return Classes(names, np.array([names.index(other) for other in pairs]))


def _mirrored_name(name: str, names: Sequence[str]) -> str | None:
    """Finds the class of the other side, whatever its number: "2 right" and "3 left"."""
    if _ONE_KNEE.get(name) in names:
        return _ONE_KNEE[name]
    words = _words(name)
    if not _SIDES.keys() & set(words):
        return name
    wanted = [_SIDES.get(word, word) for word in words]
    return next((other for other in names if _words(other) == wanted), None)


def _words(name: str) -> list[str]:
    """Splits a name; a number in front of it does not count."""
    words = re.findall(r"[^\W\d_]+|\d+", name.lower())
    return words[1:] if words and words[0].isdigit() else words


def posed(maps: PressureMaps, classes: Mapping[Labels, Classes], steps: Sequence[str]) -> Posed:
    """Brings a set into the canonical frame and numbers its classes as the trained set's are.

    Args:
        maps: any mat's.
        classes: by kind of label, of the set that is trained on.
        steps: of Config.canonical.

    """
    numbers = {}
    for kind, known in classes.items():
        theirs = POSTURES if kind == "posture" else maps.label_names
        own = maps.posture if kind == "posture" else maps.label
        place = [known.names.index(name) if name in known.names else -1 for name in theirs]
        numbers[kind] = np.array(place, np.int32)[own]
    return Posed(maps.name, canonical(maps, steps), maps.subject, numbers, *_recordings(maps))


def taken(maps: PressureMaps, chosen: np.ndarray) -> PressureMaps:
    """Returns some maps i64[n] of a set."""
    fields = ("pressure", "subject", "posture", "label")
    joints = None if maps.joints_mm is None else maps.joints_mm[chosen]
    return dataclasses.replace(
        maps,
        joints_mm=joints,
        extra={name: values[chosen] for name, values in maps.extra.items()},
        **{name: getattr(maps, name)[chosen] for name in fields},
    )


def thinned(maps: PressureMaps, every: int) -> PressureMaps:
    """Returns every so many frames of each recording, at least one of each."""
    _, frame, frames = _recordings(maps)
    return taken(maps, _every(every, frame, frames))


def _every(every: int, frame: np.ndarray, frames: np.ndarray) -> np.ndarray:
    first = np.minimum(every // 4, frames - 1)
    return np.flatnonzero(frame % every == first % every)


def canonical(maps: PressureMaps, steps: Sequence[str]) -> np.ndarray:
    """Brings maps to the canonical grid: f32[N,R,C] in [0, 1]."""
    pressure = maps.pressure
    if "median" in steps:
        pressure = mats.median_filtered(pressure)
    pressure = mats.resampled(pressure, maps.mat.pitch_mm, SIZE, PITCH_MM)
    if "centred" in steps:
        pressure = mats.centred(pressure)
    share = scaled(dataclasses.replace(maps, pressure=pressure))
    return mats.square_rooted(share) if "root" in steps else share


def check_description(maps: PressureMaps) -> None:
    """Refuses a mat whose maps contradict its description.

    Raises:
        InputError: people on it would be giants or dolls, its empty cells carry weight, or nearly
            all of its readings are at the limit or far from it.
    """
    check_size(maps)
    low, high = np.percentile(maps.pressure, [10, 95], axis=(1, 2))
    empty = float(np.median(low / np.maximum(high, 1e-12)))
    if empty > _EMPTY:
        raise InputError(
            f"{maps.name}: a tenth of the cells should carry nothing, but reads {empty:.0%} of "
            "what the body presses; mend the mat's baseline (what an empty cell reads), and "
            "prepare it again."
        )
    top, limit = maps.pressure.max(axis=(1, 2)), maps.mat.full_scale
    clipped = float(np.median((maps.pressure >= limit).sum(axis=(1, 2)) / _pressed(maps.pressure)))
    if clipped > _CLIPPED or np.median(top) < _REACHED * limit:
        raise InputError(
            f"{maps.name}: the highest readings of its maps are about {np.median(top):.4g}, which "
            f"does not go with a saturation of {limit:.4g} above the baseline; mend saturation, "
            "and prepare it again."
        )


def check_size(maps: PressureMaps) -> None:
    """Refuses a mat on which people would be giants or dolls.

    Raises:
        InputError: where 90 % of the pressure lie within a length that nobody has.
    """
    for axis, side, limits in zip((1, 2), ("long", "wide"), _PLAUSIBLE_MM, strict=True):
        spread = maps.pressure.sum(axis=3 - axis, dtype=np.float64).cumsum(axis=1)
        share = spread / np.maximum(spread[:, -1:], 1e-12)
        cells = ((share > 0.05) & (share < 0.95)).sum(axis=1) + 1
        size_mm = float(np.median(cells)) * maps.mat.pitch_mm
        if not limits[0] <= size_mm <= limits[1]:
            raise InputError(
                f"{maps.name}: 90 % of the pressure lie within {size_mm:.0f} mm, which is no body "
                f"({limits[0]} to {limits[1]} mm {side}); its cells are {maps.mat.pitch_mm:g} mm "
                "apart by its description: mend pitch_mm, rows and columns, and prepare it again."
            )


def _pressed(pressure: np.ndarray) -> np.ndarray:
    """Counts the cells f32[N,R,C] that carry something, at least one a map."""
    return np.maximum((pressure > 0).sum(axis=(1, 2)), 1)


def _recordings(maps: PressureMaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names every map's recording, numbers it there, and tells how many maps that has."""
    count = len(maps)
    if "file" not in maps.extra or "frame" not in maps.extra:
        return np.arange(count).astype(str), np.zeros(count, np.int64), np.ones(count, np.int64)
    recording = maps.extra["file"]
    number, length = np.zeros(count, np.int64), np.ones(count, np.int64)
    for file in dict.fromkeys(recording.tolist()):
        frames = np.flatnonzero(recording == file)
        order = np.argsort(maps.extra["frame"][frames], kind="stable")
        number[frames[order]] = np.arange(len(frames))
        length[frames] = len(frames)
    return recording, number, length
