"""How near joints were found: scores with intervals over people, and what costs nothing.

M test maps, N training maps, J joints. Joints are in millimetres on the mat, (x, y); NaN where
missing. A joint counts where it is annotated and on the mat.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.sleep_posture_scores import Interval, resampled
from jaxbed import baselines
from jaxbed.data.batches import Arrays
from jaxbed.tasks import pressure_pose as task
from jaxbed.tasks.pressure_pose import Frame, Skeleton

PCK = {task.pck_name(share): share for share in task.TORSO_SHARES}
"""Shares of the torso by the name of their score."""
QUANTITIES = (*PCK, "pckh50", "error_mm", "error_px", "missing")
"""What is told of every network: percent, millimetres, input pixels, percent."""

_NEIGHBOUR_CELLS = (48, 48)
_FEWEST_PEOPLE = 5  # that an interval is made of


class Scores(NamedTuple):
    """What was found by one network or baseline.

    Attributes:
        overall: by quantity, over all joints, with intervals over people.
        joints: by quantity, one interval for each of J joints.
    """

    overall: dict[str, Interval]
    joints: dict[str, list[Interval]]


def judge(
    found_mm: Mapping[str, np.ndarray],
    true_mm: np.ndarray,
    subject: np.ndarray,
    frame: Frame,
    skeleton: Skeleton,
    *,
    seed: int,
) -> dict[str, Scores]:
    """Scores what networks and baselines found.

    Args:
        found_mm: f32[M,J,2] by name.
        true_mm: f32[M,J,2].
        subject: str[M], who lies there; the intervals resample people.
        frame: the mat and the input.
        skeleton: what torso and head are.
        seed: of the resampling.
    """
    true_mm = np.asarray(frame.on_mat(true_mm))
    scores = {}
    for name, joints in found_mm.items():
        values = values_of(joints, true_mm, frame, skeleton)
        scores[name] = Scores(
            {q: _over_people(v, subject, seed) for q, v in values.items()},
            {
                q: [_over_people(v[:, j : j + 1], subject, seed) for j in range(v.shape[1])]
                for q, v in values.items()
            },
        )
    return scores


def values_of(
    found_mm: np.ndarray, true_mm: np.ndarray, frame: Frame, skeleton: Skeleton
) -> dict[str, np.ndarray]:
    """Returns f64[M,J] by quantity, NaN where a joint does not count.

    A joint that was not found is no hit, and has no error: `missing` tells how many there are.
    """
    annotated = np.isfinite(true_mm).all(axis=-1)
    distance = np.linalg.norm(found_mm - true_mm, axis=-1)
    pixels = np.asarray(frame.to_px(found_mm)) - np.asarray(frame.to_px(true_mm))
    torso = np.asarray(task.torso_length(true_mm, skeleton))
    head = np.asarray(task.head_length(true_mm, skeleton))

    def share_within(limit: np.ndarray) -> np.ndarray:
        counts = np.asarray(task.countable(true_mm, limit))
        return np.where(counts, 100.0 * (distance <= limit[:, None]), np.nan)

    return {
        **{name: share_within(share * torso) for name, share in PCK.items()},
        "pckh50": share_within(task.HEAD_SHARE * head),
        "error_mm": distance.astype(np.float64),
        "error_px": np.linalg.norm(pixels, axis=-1).astype(np.float64),
        "missing": np.where(annotated, 100.0 * ~np.isfinite(found_mm).all(axis=-1), np.nan),
    }


def _over_people(values: np.ndarray, subject: np.ndarray, seed: int) -> Interval:
    """Averages f64[M,j] over what counts; people are resampled, where there are enough."""
    interval = resampled(values.ravel(), np.repeat(subject, values.shape[1]), seed=seed)
    if len(set(subject.tolist())) < _FEWEST_PEOPLE:
        return Interval(interval.mean, np.nan, np.nan)
    return interval


def curve(found_mm: np.ndarray, true_mm: np.ndarray, torso: np.ndarray, shares: np.ndarray):
    """Returns f64[n], the PCK in percent at n shares of the torso f32[M]."""
    counts = np.asarray(task.countable(true_mm, torso))
    away = np.linalg.norm(found_mm - true_mm, axis=-1) / torso[:, None]
    return np.array([100.0 * (away[counts] <= share).mean() for share in shares])


def baselines_of(train: Arrays, test: Arrays) -> dict[str, np.ndarray]:
    """Finds joints f32[M,J,2] without a network.

    Returns:
        `mean_pose`, the mean of every joint over the training maps, and `nearest`, the joints of
        the training map most like the test map.
    """
    mean = np.nanmean(train["joints_mm"], axis=0)
    alike = baselines.nearest_neighbour(train["pressure"], test["pressure"], size=_NEIGHBOUR_CELLS)
    return {
        "mean_pose": np.broadcast_to(mean, test["joints_mm"].shape),
        "nearest": train["joints_mm"][alike],
    }
