"""The pictures of `python -m experiments.sleep_posture`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from experiments import sleep_posture_plots as draw
from experiments.sleep_posture_attention import feature_map_of, grad_cam
from experiments.sleep_posture_claims import (
    BEST_WEIGHT,
    TABLE_I,
    Scores,
    mean_of_arm,
    mean_score,
)
from experiments.sleep_posture_costs import Costs
from experiments.sleep_posture_scores import Judged, found_by
from jaxbed import figures, report
from jaxbed.data.night import POSTURES
from jaxbed.tasks.sleep_posture import resized, standardised
from jaxbed.training.logs import read_metrics

if TYPE_CHECKING:
    from experiments.sleep_posture import Config
    from experiments.sleep_posture_study import Sides, Trained

SHOWN = 16  # test images in the picture, in two rows
_BLANKET = {1: "blanket", 0: "no blanket", -1: ""}


def examples(config: Config, sides: Sides, label: str, trained: Trained) -> report.Figure:
    """Draws test images from the first to the last with what was found on them."""
    found, test = found_by(trained.outputs), sides.test
    chosen = np.linspace(0, len(test["image"]) - 1, SHOWN).astype(int)
    cells = []
    for i in chosen:
        true, seen = POSTURES[test["posture"][i]], POSTURES[found.posture[i]]
        told = f"{_words(seen, found.blanket, i)}\n(is {_words(true, test['blanket'], i)})"
        cells.append(draw.Cell(test["image"][i], told, seen == true))
    half = SHOWN // 2
    path = draw.image_grid(
        config.workdir / "figures" / "examples.png",
        {"": cells[:half], " ": cells[half:]},
        title=f"What {label} finds on test images (blue: posture right, orange: wrong)",
    )
    return report.Figure(
        path,
        "Test images at even distances, not chosen for their result: what was found, and below "
        "it what is true.",
    )


def attention(config: Config, sides: Sides, trained: Mapping[str, Trained]) -> report.Figure:
    """Draws Grad-CAM of every network on one test image of every kind."""
    chosen = one_of_each(sides.test["posture"], sides.test["blanket"])
    image, true = sides.test["image"][chosen], sides.test["posture"][chosen]
    shown = standardised(resized(jnp.asarray(image), config.image_size))[..., None]
    rows = {
        "image": [
            draw.Cell(picture, _words(POSTURES[t], sides.test["blanket"], i).replace(", ", "\n"))
            for picture, t, i in zip(image, true, chosen, strict=True)
        ]
    }
    for label, run in trained.items():
        network, found = run.phase.network, found_by(run.outputs).posture[chosen]
        at = feature_map_of(network, config.image_size[0])
        heat = grad_cam(network, run.variables, shown, jnp.asarray(found), at=at)
        rows[label] = [
            draw.Cell(picture, POSTURES[f], bool(f == t), h)
            for picture, f, t, h in zip(image, found, true, heat, strict=True)
        ]
    path = draw.image_grid(
        config.workdir / "figures" / "attention.png",
        rows,
        title="Where the networks look (Grad-CAM of the posture found)",
    )
    return report.Figure(
        path,
        "Bright: what speaks most for the posture that was found (blue: rightly, orange: "
        "wrongly); dark all over where no place does. Grad-CAM at the last feature map of the "
        "posture's branch that has at least six rows; the first test image of every posture with "
        "and without a blanket.",
    )


def one_of_each(posture: np.ndarray, blanket: np.ndarray) -> np.ndarray:
    """Returns the index of the first image of every posture and blanket there is."""
    kinds = np.stack([posture, -blanket], axis=1)
    return np.unique(kinds, axis=0, return_index=True)[1]


def confusion(config: Config, counts: Mapping[str, np.ndarray]) -> report.Figure:
    """Draws the confusion matrices."""
    path = draw.matrices(
        config.workdir / "figures" / "confusion.png",
        counts,
        POSTURES,
        title="Which posture is taken for which",
    )
    return report.Figure(path, "Share of the test images of a posture (row) in which it was found.")


def scores(config: Config, judged: Judged) -> report.Figure:
    """Draws the shares of all and of every posture, arms and baselines."""
    beside = judged.intervals
    panels = {
        quantity: {who: of[quantity].mean for who, of in beside.items()}
        for quantity in ("posture", *POSTURES)
        if np.isfinite(beside["majority"][quantity].mean)
    }
    published = TABLE_I["dl"] if "dl" in beside else {}
    path = figures.bars(
        config.workdir / "figures" / "scores.png",
        panels,
        title="Postures recognised on the test images, %",
        baselines=("majority", "nearest"),
        published={name: published[name] for name in panels if name in published},
    )
    return report.Figure(
        path,
        "The arms beside two baselines without a network: the commonest training posture, and "
        "that of the most similar training image. Dashed: the paper's network on the paper's "
        "data.",
    )


def curves(config: Config, labels: Sequence[str]) -> report.Figure:
    """Draws the course of training, averaged over seeds."""
    lines = read_metrics(config.workdir)
    wanted = {
        "training loss": ("train", "loss"),
        "watched postures, share right": ("eval", "posture"),
    }
    panels: dict[str, dict] = {}
    for title, (kind, quantity) in wanted.items():
        panels[title] = {}
        for label in labels:
            by_step: dict[int, list[float]] = {}
            for line in lines:
                if line["kind"] == kind and line["phase"].partition("/")[2] == label:
                    by_step.setdefault(line["step"], []).append(line[quantity])
            steps = sorted(by_step)
            values = [np.mean(by_step[step]) for step in steps]
            panels[title][label] = (np.array(steps), np.array(values))
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        panels,
        title="Course of training (mean over seeds)",
        xlabel="training steps",
    )
    return report.Figure(
        path,
        "Losses of networks with and without the blanket's task are not comparable: theirs "
        "holds its part. Right: some of the test images, which change nothing else.",
    )


def cost(config: Config, all_scores: Scores, costs: Costs) -> report.Figure:
    """Draws accuracy over what it costs: counted, to train, to use."""
    kinds = {
        "million MACs of one image (exact)": {
            arm: c.macs_exact / 1e6 for arm, c in costs.trained.items()
        },
        f"training step of {config.batch_size}, ms": {
            arm: c.timing.median_ms for arm, c in costs.stepped.items()
        },
        "one image, ms (median)": {arm: c.timing.median_ms for arm, c in costs.predicted.items()},
    }
    path = draw.points(
        config.workdir / "figures" / "accuracy_cost.png",
        {
            kind: {arm: (x, mean_of_arm(all_scores, arm)) for arm, x in of.items()}
            for kind, of in kinds.items()
        },
        title="Accuracy beside cost",
        ylabel="postures recognised, %",
    )
    return report.Figure(
        path, "Postures recognised over what a network costs; further up and left is better."
    )


def weight_sweep(config: Config, all_scores: Scores, weights: Mapping[str, float]) -> report.Figure:
    """Draws accuracy over the blanket's weight, as the paper's Fig. 3 does."""
    panels: dict[str, dict] = {}
    for title, quantity in {"postures, %": "posture", "blankets, %": "blanket"}.items():
        panels[title] = {}
        for arm in config.arms:
            labels = sorted((x for x in weights if x.startswith(f"{arm}_w")), key=weights.get)
            x = np.array([weights[label] for label in labels])
            mean = [mean_score(all_scores[label], quantity) for label in labels]
            panels[title][f"{arm}, mean" if config.seeds > 1 else arm] = (x, np.array(mean))
            for i in range(config.seeds if config.seeds > 1 else 0):
                each = [all_scores[label][i][quantity] for label in labels]
                panels[title][f"{arm}, seed {config.seed + i}"] = (x, np.array(each))
    path = figures.curves(
        config.workdir / "figures" / "blanket_weight.png",
        panels,
        title="Accuracy by weight of the blanket's loss (posture's weight 1)",
        xlabel="weight of the blanket's loss",
        marks={"published best": BEST_WEIGHT},
    )
    return report.Figure(path, "The paper's Fig. 3: recognition on test images by blanket weight.")


def _words(posture: str, blanket: np.ndarray | None, i: int) -> str:
    told = "" if blanket is None else _BLANKET[int(blanket[i])]
    return f"{posture}, {told}" if told else posture
