"""How well postures and blankets were recognised, and how sure that is.

M test images. All shares are in percent, as in the paper. A label of -1 is not known and does not
count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from jaxbed import baselines
from jaxbed.data.batches import Arrays
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages

if TYPE_CHECKING:
    from experiments.sleep_posture_study import Run, Sides, Trained

QUANTITIES = ("posture", *POSTURES, "blanket")
"""What has a score: all postures together, each of them (its recall), the blanket."""

_RESAMPLES = 2000
_NEIGHBOUR_PX = (24, 24)
_FEWEST_UNITS = 5


class Found(NamedTuple):
    """What was recognised.

    Attributes:
        posture: i32[M].
        blanket: i32[M]; None without the task.
    """

    posture: np.ndarray
    blanket: np.ndarray | None


class Interval(NamedTuple):
    """A mean and its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.mean):
            return "–"
        if not np.isfinite(self.low):
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class Judged(NamedTuple):
    """What all runs recognised.

    Attributes:
        scores: by label, one score by quantity for every seed.
        intervals: by label and by baseline, by quantity: the mean over seeds, with an interval
            over the test images' units.
        gaps: by (label, other label), points of postures recognised by which the first is
            above the other: the mean over seeds, with an interval over the same units.
        counts: confusion matrix by label, all seeds together.
        units: what the intervals resample, and how many of them there are.
    """

    scores: dict[str, list[dict[str, float]]]
    intervals: dict[str, dict[str, Interval]]
    gaps: dict[tuple[str, str], Interval]
    counts: dict[str, np.ndarray]
    units: tuple[str, int]


def judge(
    trained: Mapping[Run, Trained], sides: Sides, units: tuple[str, np.ndarray], *, seed: int
) -> Judged:
    """Compares what runs and baselines found with what is true.

    Args:
        trained: seed by seed.
        sides: the images.
        units: of the test images, see `sampling_units`.
        seed: of the resampling.
    """
    runs: dict[str, list[Found]] = {}
    for run, result in trained.items():
        runs.setdefault(run.label, []).append(found_by(result.outputs))
    right = {label: [hits(found, sides.test) for found in of] for label, of in runs.items()}
    each = {label: _over_runs(parts) for label, parts in right.items()}
    for name, found in baselines_of(sides.train, sides.test).items():
        each[name] = hits(found, sides.test)
    what, unit = units
    posture = {label: each[label]["posture"] for label in runs}
    return Judged(
        scores={label: [_means(part) for part in parts] for label, parts in right.items()},
        intervals={
            who: {name: resampled(values, unit, seed=seed) for name, values in of.items()}
            for who, of in each.items()
        },
        gaps={
            (label, other): resampled(posture[label] - posture[other], unit, seed=seed)
            for other, label in combinations(runs, 2)
        },
        counts={
            label: sum(confusion(found.posture, sides.test["posture"]) for found in of)
            for label, of in runs.items()
        },
        units=(what, len(np.unique(unit))),
    )


def _over_runs(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Averages what was right over seeds, image by image."""
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def _means(of: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Averages every quantity over the images that count; NaN where none does."""
    counted = {name: values[np.isfinite(values)] for name, values in of.items()}
    return {name: float(v.mean()) if v.size else np.nan for name, v in counted.items()}


def found_by(outputs: Mapping[str, np.ndarray]) -> Found:
    """Decides: the largest posture logit, a blanket above even odds."""
    blanket = (outputs["blanket"] > 0).astype(np.int32) if "blanket" in outputs else None
    return Found(outputs["posture"].argmax(axis=1).astype(np.int32), blanket)


def baselines_of(train: Arrays, test: Arrays) -> dict[str, Found]:
    """Recognises the test images without a network.

    Returns:
        `majority`, which says of every image what most training images show, and `nearest`,
        which says what the most similar training image shows.
    """
    labels = {name: train[name][train[name] != UNKNOWN] for name in ("posture", "blanket")}
    count = len(test["image"])
    most = {n: baselines.majority(of, count) if len(of) else None for n, of in labels.items()}
    alike = baselines.nearest_neighbour(train["image"], test["image"], size=_NEIGHBOUR_PX)
    blanket = train["blanket"][alike] if len(labels["blanket"]) else None
    return {"majority": Found(**most), "nearest": Found(train["posture"][alike], blanket)}


def hits(found: Found, truth: Arrays) -> dict[str, np.ndarray]:
    """Says of every image whether it was recognised.

    Returns:
        For every quantity f64[M], 100 or 0, NaN where the image does not count.
    """
    right = 100.0 * (found.posture == truth["posture"])
    each = {"posture": right}
    for i, name in enumerate(POSTURES):
        each[name] = np.where(truth["posture"] == i, right, np.nan)
    if found.blanket is not None:
        known = truth["blanket"] != UNKNOWN
        each["blanket"] = np.where(known, 100.0 * (found.blanket == truth["blanket"]), np.nan)
    return each


def confusion(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Counts i64[4,4]: rows are what is true, columns what was found."""
    counts = np.zeros((len(POSTURES), len(POSTURES)), np.int64)
    np.add.at(counts, (true, found), 1)
    return counts


def sampling_units(images: NightImages, chosen: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns what an interval resamples, by name, and the unit of every chosen image.

    A person's images are alike, so people are resampled; where there are fewer than five,
    recordings; and where those are few too, images, whose interval is then too narrow.
    """
    for name, unit in {"people": images.subject, "recordings": images.recording}.items():
        if len(set(unit[chosen].tolist())) >= _FEWEST_UNITS:
            return name, unit[chosen]
    return "images", np.arange(len(chosen))


def resampled(values: np.ndarray, unit: np.ndarray, *, seed: int) -> Interval:
    """Averages over images, with a bootstrap interval that resamples whole units.

    Args:
        values: f64[M], NaN where an image does not count.
        unit: [M], to which unit an image belongs.
        seed: of the resampling.
    """
    _, member = np.unique(unit, return_inverse=True)
    sums = np.bincount(member, np.nan_to_num(values))
    counts = np.bincount(member, np.isfinite(values))
    if not counts.sum():
        return Interval(np.nan, np.nan, np.nan)
    picks = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    drawn = counts[picks].sum(axis=1)
    means = sums[picks].sum(axis=1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def over_seeds(values: Sequence[float]) -> Interval:
    """Averages over seeds, with a t-interval; one seed has none."""
    middle = float(np.mean(values))
    if len(values) < 2:
        return Interval(middle, np.nan, np.nan)
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * spread)
    return Interval(middle, middle - half, middle + half)
