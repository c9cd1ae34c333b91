"""How well faces are found and named, and postures, and how sure that is.

M test images, C classes. All shares are in percent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.infant_danger_networks import DETECTORS, Recipe, detector_input
from experiments.sleep_posture_scores import Interval, resampled
from jaxbed.codecs import boxes
from jaxbed.data.batches import Arrays
from jaxbed.tasks.face_detection import average_precision
from jaxbed.tasks.face_detector import detect

if TYPE_CHECKING:
    from experiments.infant_danger_data import Side
    from experiments.infant_danger_study import Trained

_LEAST_SCORE, _FACES = 0.02, 20  # of the boxes that average precision looks at
_CANDIDATES = 200
_FEWEST_UNITS = 5
IOU = 0.5
"""From which overlap on a face counts as found."""


class Named(NamedTuple):
    """How well a classifier names.

    Attributes:
        classes: names by index.
        intervals: `accuracy`, `balanced` (the mean of all recalls) and the recall of each class:
            its mean, with an interval over subjects.
        counts: i64[C,C], rows are what is true, columns what was found.
        units: what the intervals resample, and how many there are.
        majority: what naming always the commonest training class gets right.
    """

    classes: tuple[str, ...]
    intervals: dict[str, Interval]
    counts: np.ndarray
    units: tuple[str, int]
    majority: float


class Found(NamedTuple):
    """How well a detector finds.

    Attributes:
        average_precision: at IOU.
        recall: share of the faces that are found with at least the score threshold, with an
            interval over subjects.
        precision: share of the boxes with at least that score that are faces.
        boxes: of every test image the boxes f32[n,4] and scores f32[n], the surest first.
        faces: of every test image f32[m,4].
    """

    average_precision: float
    recall: Interval
    precision: float
    boxes: list[tuple[np.ndarray, np.ndarray]]
    faces: list[np.ndarray]


def judge_names(trained: Trained, side: Side, classes: tuple[str, ...], *, seed: int) -> Named:
    """Compares what a classifier named with what is true of the test images."""
    found, true = trained.outputs["logits"].argmax(axis=1), side.test["label"]
    right = 100.0 * (found == true)
    what, unit = units_of(side.test_subject)
    each = {"accuracy": right}
    each |= {name: np.where(true == i, right, np.nan) for i, name in enumerate(classes)}
    intervals = {name: resampled(values, unit, seed=seed) for name, values in each.items()}
    recalls = [intervals[name].mean for name in classes]
    intervals["balanced"] = Interval(float(np.nanmean(recalls)), np.nan, np.nan)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (true, found), 1)
    commonest = np.bincount(side.train["label"]).argmax()
    return Named(
        classes=classes,
        intervals=intervals,
        counts=counts,
        units=(what, len(np.unique(unit))),
        majority=100.0 * float(np.mean(true == commonest)),
    )


def judge_detector(
    variables: Any,
    recipe: Recipe,
    side: Side,
    *,
    seed: int,
    compiler_options: dict[str, Any] | None = None,
) -> Found:
    """Lets a detector look at all test images, one by one, and compares with their faces."""
    kind = DETECTORS[recipe.detector]
    on_device = jax.device_put(variables)
    find = jax.jit(
        partial(
            detect,
            network=recipe.network("detector"),
            network_input=detector_input(kind.mean_bgr),
            levels=kind.levels,
            angles_deg=recipe.angles_deg,
            network_size=kind.network_size,
            score_threshold=_LEAST_SCORE,
            candidates=_CANDIDATES,
            count=_FACES,
        ),
        compiler_options=compiler_options,
    )
    print(f"finding faces in {len(side.test['image'])} images", file=sys.stderr, flush=True)
    found = []
    for image in side.test["image"]:
        faces = jax.device_get(find(on_device, image))
        there = faces.scores > 0
        found.append((faces.boxes_px[there], faces.scores[there]))
    true = [of[np.isfinite(of).all(axis=1)] for of in side.test["boxes_px"]]
    return score_boxes(found, true, side.test_subject, threshold=recipe.score_threshold, seed=seed)


def score_boxes(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    true: Sequence[np.ndarray],
    subject: np.ndarray,
    *,
    threshold: float,
    seed: int,
) -> Found:
    """Compares boxes with faces; see Found for the arguments."""
    unit = units_of(subject)[1]
    hit, owner, right, count = [], [], 0, 0
    for (box, score), faces, who in zip(found, true, unit, strict=True):
        box = box[score >= threshold]
        overlap = boxes.iou(box, faces, np) if len(box) and len(faces) else np.zeros((len(box), 0))
        matched = matches(overlap)
        hit += [100.0 * (face in matched) for face in range(len(faces))]
        owner += [who] * len(faces)
        right, count = right + len(matched), count + len(box)
    recall = (
        resampled(np.array(hit), np.array(owner), seed=seed) if hit else Interval(*3 * [np.nan])
    )
    return Found(
        average_precision=100 * average_precision(found, true, iou_threshold=IOU),
        recall=recall,
        precision=100 * right / count if count else np.nan,
        boxes=list(found),
        faces=list(true),
    )


def matches(overlap: np.ndarray) -> set[int]:
    """Gives each box, the surest first, the face it overlaps most, if that is free and enough.

    Args:
        overlap: f32[n,m], boxes and faces.

    Returns:
        The faces that were given.
    """
    taken: set[int] = set()
    for row in overlap:
        best = int(row.argmax()) if len(row) else -1
        if best >= 0 and row[best] >= IOU:
            taken.add(best)
    return taken


def units_of(subject: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns what intervals resample: subjects, or images where there are fewer than five."""
    if len(set(subject.tolist())) >= _FEWEST_UNITS:
        return "infants", subject
    return "images", np.arange(len(subject))


def results_of(name: str, named: Named) -> dict[str, float]:
    """Returns a classifier's figures by name."""
    results = {f"{name}/{q}_pct": interval.mean for q, interval in named.intervals.items()}
    accuracy = named.intervals["accuracy"]
    results |= {
        f"{name}/accuracy_pct_low": accuracy.low,
        f"{name}/accuracy_pct_high": accuracy.high,
    }
    return results | {f"{name}/majority_pct": named.majority}


def images_of(arrays: Arrays, chosen: Sequence[int]) -> Mapping[str, np.ndarray]:
    """Returns some of the examples."""
    return {name: array[list(chosen)] for name, array in arrays.items()}
