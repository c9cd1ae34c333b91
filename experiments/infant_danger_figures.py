"""The pictures of `python -m experiments.infant_danger`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from experiments import sleep_posture_plots as draw
from jaxbed import figures, report
from jaxbed.data.crib import read_truth
from jaxbed.training.logs import read_metrics
from jaxbed.whole_files import write_whole

if TYPE_CHECKING:
    from experiments.infant_danger import Config
    from experiments.infant_danger_data import Side
    from experiments.infant_danger_scores import Found, Named
    from experiments.infant_danger_study import Trained
    from experiments.infant_danger_videos import Watched

_RIGHT, _WRONG, _TRUE = "#0072B2", "#D55E00", "#E69F00"
_DPI = 110
_SHOWN = 10


def confusion(config: Config, name: str, named: Named) -> report.Figure:
    """Draws a classifier's confusion matrix."""
    path = draw.matrices(
        config.workdir / "figures" / f"confusion_{name}.png",
        {name: named.counts},
        named.classes,
        title=f"What the {name} is taken for",
    )
    return report.Figure(path, f"Share of the test images of a {name} class (row) named so.")


def curves(config: Config, trained: Mapping[str, Trained]) -> report.Figure:
    """Draws the course of training."""
    lines = read_metrics(config.workdir)
    names = [name for name, of in trained.items() if of.phase is not None]
    panels: dict[str, dict] = {"training loss": {}, "watched: accuracy; recall of anchors": {}}
    for name in names:
        for panel, kind, quantity in (
            ("training loss", "train", "loss"),
            (
                "watched: accuracy; recall of anchors",
                "eval",
                "recall" if name == "detector" else "accuracy",
            ),
        ):
            own = [line for line in lines if (line["kind"], line["phase"]) == (kind, name)]
            steps = np.array([line["step"] for line in own])
            panels[panel][name] = (steps, np.array([line[quantity] for line in own]))
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        panels,
        title="Course of training",
        xlabel="training steps",
    )
    return report.Figure(path, "Losses of different tasks are not comparable.")


def faces_found(config: Config, side: Side, found: Found, threshold: float) -> report.Figure:
    """Draws test images at even distances with their faces and what was found."""
    chosen = np.linspace(0, len(side.test["image"]) - 1, _SHOWN).astype(int)
    height, width = side.test["image"].shape[1:3]
    columns = _SHOWN // 2
    size = (2.3 * columns, 2 * 2.3 * height / width + 0.5)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for ax, i in zip(fig.subplots(2, columns).ravel(), chosen, strict=True):
        ax.imshow(side.test["image"][i])
        ax.set(xticks=[], yticks=[])
        for box in found.faces[i]:
            _rectangle(ax, box, _TRUE, "--")
        for box, score in zip(*found.boxes[i], strict=True):
            if score >= threshold:
                _rectangle(ax, box, _RIGHT, "-")
                ax.text(box[0], box[1] - 2, f"{score:.2f}", color=_RIGHT, fontsize=7)
    fig.suptitle("Faces of test images (dashed) and boxes found (blue, with score)", fontsize=11)
    path = config.workdir / "figures" / "faces.png"
    write_whole(path, lambda partial: fig.savefig(partial, format="png"))
    return report.Figure(
        path, "Test images at even distances, not chosen for their result; covered faces are faces."
    )


def timelines(config: Config, folder: Path, watched: Watched) -> report.Figure:
    """Draws scores of the first films over time, with true episodes and events."""
    names = list(watched.scores)[:4]
    kinds = [rule.kind for rule in watched.rules]
    fig = Figure(figsize=(9, 1.9 * len(names) + 0.6), dpi=_DPI, layout="constrained")
    axes = fig.subplots(len(names), 1, squeeze=False)[:, 0]
    for ax, name in zip(axes, names, strict=True):
        times_s, scores = watched.scores[name]
        episodes = read_truth(folder / f"{name}.mp4")
        for row, kind in enumerate(kinds):
            base = len(kinds) - 1 - row
            ax.plot(times_s, base + 0.8 * scores[kind], color="0.3", linewidth=0.8)
            for episode in episodes:
                if episode.kind == kind:
                    span = (episode.onset_s, episode.end_s - episode.onset_s)
                    ax.broken_barh([span], (base, 0.8), color=_TRUE, alpha=0.3, linewidth=0)
            for event in watched.events[name]:
                if event["kind"] == kind:
                    ax.plot([event["raised_s"]] * 2, [base, base + 0.8], color=_WRONG, linewidth=2)
        ax.set_yticks(np.arange(len(kinds)) + 0.4, kinds[::-1], fontsize=8)
        ax.tick_params(axis="y", length=0)
        ax.set_title(name, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds", fontsize=9)
    fig.suptitle("Scores (grey), true episodes (yellow) and alerts (orange)", fontsize=11)
    path = config.workdir / "figures" / "films.png"
    write_whole(path, lambda partial: fig.savefig(partial, format="png"))
    return report.Figure(
        path,
        "Each row is a danger, its score from 0 to 1; where there is no line it could not be "
        "judged. An alert is drawn when it is raised.",
    )


def _rectangle(ax, box: Sequence[float], colour: str, style: str) -> None:
    left, top, right, bottom = box
    ax.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color=colour,
        linestyle=style,
        linewidth=1.2,
    )
