"""The pictures of `python -m experiments.pressure_pose`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from experiments.pressure_pose_scores import Scores, curve
from jaxbed import figures, report
from jaxbed.data.pressure import POSTURES, Mat
from jaxbed.simulate.skeleton import JOINTS
from jaxbed.training.logs import read_metrics

if TYPE_CHECKING:
    from experiments.pressure_pose import Config
    from experiments.pressure_pose_costs import Costs
    from experiments.pressure_pose_study import Sides

SHOWN = 6  # test maps in the picture
CHAINS = {
    "right leg": ("right_hip", "right_knee", "right_ankle"),
    "left leg": ("left_hip", "left_knee", "left_ankle"),
    "right arm": ("right_shoulder", "right_elbow", "right_wrist"),
    "left arm": ("left_shoulder", "left_elbow", "left_wrist"),
}
"""Limbs to draw; the trunk joins the head to the middle of the hips."""


def skeletons(
    config: Config,
    mat: Mat,
    sides: Sides,
    posture: np.ndarray,
    subject: np.ndarray,
    found_mm: Mapping[str, np.ndarray],
) -> report.Figure:
    """Draws annotated and found joints on test maps.

    Args:
        config: of the run.
        mat: the mat.
        sides: the maps.
        posture: i32[M], of the test maps.
        subject: str[M], of the test maps.
        found_mm: f32[M,J,2] by name.
    """
    at = np.linspace(0, len(posture) - 1, SHOWN).astype(int)
    rows = {"annotated": sides.test["joints_mm"], **found_mm}
    # Drawn as depth, of which near is bright: a high pressure is near.
    pressure = sides.test["pressure"][at]
    path = figures.skeletons(
        config.workdir / "figures" / "skeletons.png",
        (1 + 1000 * (1 - pressure)).astype(np.uint16),
        {name: chains(joints[at] / mat.pitch_mm - 0.5) for name, joints in rows.items()},
        title="Test maps",
        columns=[f"{s}\n{POSTURES[p]}" for s, p in zip(subject[at], posture[at], strict=True)],
        limbs=[*CHAINS, "head and trunk"],
    )
    return report.Figure(
        path,
        "Test maps of people never trained on, with the annotated joints, also those beside the "
        "mat, and those that every network and baseline found. A limb is left out where a joint "
        "was not found.",
    )


def chains(joints: np.ndarray) -> np.ndarray:
    """Arranges f32[n,J,2] as limbs f32[n,5,3,2]."""
    at = {name: joints[:, i] for i, name in enumerate(JOINTS)}
    hips = (at["right_hip"] + at["left_hip"]) / 2
    limbs = [np.stack([at[name] for name in chain], axis=1) for chain in CHAINS.values()]
    return np.stack([*limbs, np.stack([at["head_top"], at["neck"], hips], axis=1)], axis=1)


def pck_curves(
    config: Config, found_mm: Mapping[str, np.ndarray], true_mm: np.ndarray, torso: np.ndarray
) -> report.Figure:
    """Draws the PCK over the distance that counts as found."""
    shares = np.linspace(0, 0.5, 51)
    series = {
        name: (shares, curve(joints, true_mm, torso, shares)) for name, joints in found_mm.items()
    }
    path = figures.curves(
        config.workdir / "figures" / "pck.png",
        {"PCK, %": series},
        title="Joints found, over all test maps",
        xlabel="distance, in lengths of the torso",
    )
    return report.Figure(path, "Share of joints that are found no farther away than a distance.")


def accuracy_and_cost(config: Config, scores: Mapping[str, Scores], costs: Costs) -> report.Figure:
    """Draws accuracy beside cost, an arm a line."""
    arms = list(config.arms)
    panels = {
        "PCK@0.2, %": {a: scores[a].overall["pck20"].mean for a in arms},
        "error, mm": {a: scores[a].overall["error_mm"].mean for a in arms},
        "MACs, M": {a: costs.trained[a].macs_nominal / 1e6 for a in arms},
        "training step, ms": {a: costs.stepped[a].timing.median_ms for a in arms},
        "one map, ms": {a: costs.predicted[a].timing.median_ms for a in arms},
    }
    path = figures.bars(
        config.workdir / "figures" / "cost.png", panels, title="Accuracy beside cost, as trained"
    )
    return report.Figure(path, "Accuracy on test maps and what it costs, as trained here.")


def learning_curves(config: Config) -> report.Figure:
    """Draws loss and PCK while training."""
    lines = read_metrics(config.workdir)
    wanted = {
        "training loss": ("train", "loss"),
        "watched loss": ("eval", "loss"),
        "watched PCK@0.2": ("eval", "pck20"),
    }
    panels = {}
    for title, (kind, name) in wanted.items():
        panels[title] = {}
        for arm in config.arms:
            points = [(m["step"], m[name]) for m in lines if (m["phase"], m["kind"]) == (arm, kind)]
            panels[title][arm] = tuple(np.array(points, np.float64).reshape(-1, 2).T)
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        panels,
        title="Course of training",
        xlabel="training steps",
        log=True,
    )
    return report.Figure(
        path,
        "Loss, a sum over the stacks of those networks that have two, and PCK on some test maps.",
    )
