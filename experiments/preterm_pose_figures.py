"""The pictures of `python -m experiments.preterm_pose`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxbed import figures, report
from jaxbed.data.depth import LIMBS, DepthFrames
from jaxbed.training.logs import read_metrics

if TYPE_CHECKING:
    from experiments.preterm_pose import Config
    from experiments.preterm_pose_study import Sides, Trained

SHOWN = 6  # test frames in the picture


def skeletons(
    config: Config, frames: DepthFrames, sides: Sides, trained: Mapping[str, Trained]
) -> report.Figure:
    """Draws test frames with the annotated and the found limbs on them."""
    chosen = np.linspace(0, len(sides.test_frames) - 1, SHOWN).astype(int)
    at = sides.test_frames[chosen]
    rows = {"annotated": frames.joints_px[at]}
    rows |= {name: result.joints_px[chosen] for name, result in trained.items()}
    path = figures.skeletons(
        config.workdir / "figures" / "skeletons.png",
        frames.depth_mm[at],
        {name: joints.reshape(SHOWN, len(LIMBS), 3, 2) for name, joints in rows.items()},
        title=f"Test frames ({frames.name})",
        columns=[
            f"{s}\n{r}" for s, r in zip(frames.subject[at], frames.recording[at], strict=True)
        ],
        limbs=LIMBS,
    )
    return report.Figure(
        path,
        "Test frames with the limbs that the annotation has, and those found by detection "
        "alone and by every regression network. A limb that is not drawn was reported missing.",
    )


def boxplots(config: Config, rmsd: Mapping[str, np.ndarray]) -> report.Figure:
    """Draws the RMSD per limb, as the paper's Fig. 4 does."""
    panels = {
        limb: {name: values[np.isfinite(values[:, i]), i] for name, values in rmsd.items()}
        for i, limb in enumerate(LIMBS)
    }
    path = figures.boxes(
        config.workdir / "figures" / "rmsd.png",
        panels,
        title="RMSD per limb over test frames, pixels at 128x96",
    )
    return report.Figure(
        path,
        "Median, quartiles, and whiskers at 1.5 interquartile ranges of every limb's RMSD over "
        "the test frames in which it was found.",
    )


def curves(config: Config) -> report.Figure:
    """Draws the losses while training."""
    lines = read_metrics(config.workdir)
    names = ["detection", *(f"regression/{kind}" for kind in config.kinds)]
    panels = {}
    for title, kind in {"training loss": "train", "watched loss": "eval"}.items():
        panels[title] = {}
        for name in names:
            points = [
                (m["step"], m["loss"]) for m in lines if (m["phase"], m["kind"]) == (name, kind)
            ]
            panels[title][name] = tuple(np.array(points, np.float64).reshape(-1, 2).T)
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        panels,
        title="Course of training",
        xlabel="training steps",
        log=True,
    )
    return report.Figure(path, "Cross-entropy of detection and squared error of regression.")
