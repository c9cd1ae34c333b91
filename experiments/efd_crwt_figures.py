"""The pictures of `python -m experiments.efd_crwt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbed import figures, report
from jaxbed.data.pressure import POSTURES, PressureMaps
from jaxbed.tasks.efd import to_native
from jaxbed.training.logs import read_metrics
from jaxbed.training.loop import Trainer

if TYPE_CHECKING:
    from experiments.efd_crwt import Config
    from experiments.efd_crwt_study import Trained

SHOWN = 6  # test maps in the picture


def reconstructions(
    config: Config,
    maps: PressureMaps,
    arrays: dict[str, Any],
    trainer: Trainer,
    trained: Mapping[tuple[int, str], Trained],
    watched: Mapping[tuple[int, str], dict[str, np.ndarray]],
) -> report.Figure:
    """Draws test maps, keypoints on them, stage 1's mask and every arm's reconstruction."""
    pressure = arrays["watch"]["pressure"]
    chosen = np.linspace(0, len(pressure) - 1, SHOWN).astype(int)
    seed, arm = config.seed, config.arms[0]

    def native(outputs: np.ndarray) -> np.ndarray:
        return np.asarray(to_native(jnp.asarray(outputs), maps.mat.size))

    rows = {"input": pressure[chosen]}
    phase, state = trained[seed, arm].stage1
    if arm != "plain":
        logits = trainer.predict(phase, state.variables, {"pressure": pressure[chosen]})["map"]
        rows["stage 1: contact"] = native(np.asarray(jax.nn.softmax(logits))[..., 1])
    for name in config.arms:
        rows[f"rebuilt: {name}"] = native(watched[seed, name]["map"][chosen, ..., 0])

    outputs = {name: value[chosen] for name, value in watched[seed, arm].items()}
    strengths = outputs["keypoints"][..., 0]
    people = "People the network has not seen" if config.protocol == "subject" else "Test maps"
    path = figures.pressure_grid(
        config.workdir / "figures" / "reconstructions.png",
        rows,
        title=f"{people} ({maps.name})",
        columns=_labels(arrays, chosen),
        scale="share of the full scale, or probability of contact",
        keypoints=figures.Keypoints("input", in_sensors(outputs, maps.mat.size), strengths),
    )
    return report.Figure(
        path,
        "Test maps as the mat measured them, with the keypoints found on them (dots; brighter "
        "where there is more pressure), the contact mask of stage 1, and the maps rebuilt from "
        "nothing but the keypoints.",
    )


def curves(config: Config) -> report.Figure:
    """Draws the course of the reconstruction errors, as the paper's Fig. 5 does."""
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        _curves(config),
        title="Test maps during training (mean over seeds)",
        xlabel="training steps, both stages",
        marks={"transfer": config.stage1_steps},
    )
    return report.Figure(
        path,
        "Reconstruction errors on the watched test maps while training, as in the paper's Fig. "
        "5; the arm crwt classifies before the mark and cannot be scored there.",
    )


def keypoint_spread(
    config: Config, maps: PressureMaps, pressure: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> report.Figure:
    """Draws where keypoints lie over the watched maps f32[N,R,C]."""
    path = figures.keypoint_spread(
        config.workdir / "figures" / "keypoint_spread.png",
        in_sensors(outputs, maps.mat.size),
        pressure.mean(axis=0),
        title=f"Keypoints of arm {config.arms[0]} over the test maps",
    )
    return report.Figure(
        path,
        "Where each keypoint lies on average, and how far it moves from person to person and "
        "pose to pose.",
    )


def scores(
    config: Config, arms: Mapping[str, Mapping[str, float]], base: Mapping[str, Mapping[str, float]]
) -> report.Figure:
    """Draws L2 and SSIM of the arms beside the baselines."""
    beside = {**arms, **base}
    path = figures.bars(
        config.workdir / "figures" / "scores.png",
        {k.upper(): {name: beside[name][k] for name in beside} for k in ("l2", "ssim")},
        title="Reconstruction of test maps, at the mat's own resolution",
        baselines=tuple(base),
    )
    return report.Figure(
        path,
        "The trained arms beside two baselines without a network: the mean training map, and a "
        "principal component analysis. L2 is better when lower, SSIM when higher.",
    )


def in_sensors(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Converts a network's keypoints to places on the mat.

    Args:
        outputs: `keypoints` f32[N,K,3] (pressure, row / h, column / w), counted from the middle
            of the first heatmap pixel, which covers several sensors; `heatmaps` f32[N,h,w,K].
        size: (height, width) of the mat in sensors.

    Returns:
        f32[N,K,2], (row, column) from the middle of the first sensor.
    """
    middle = 0.5 / np.asarray(outputs["heatmaps"].shape[1:3])
    return (outputs["keypoints"][..., 1:] + middle) * np.asarray(size) - 0.5


def _labels(arrays: dict[str, Any], chosen: np.ndarray) -> list[str]:
    posture, subject = arrays["watch_posture"][chosen], arrays["watch_subject"][chosen]
    return [f"{who}\n{POSTURES[p]}" for who, p in zip(subject, posture, strict=True)]


def _curves(config: Config) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Collects the evaluations of every arm, averaged over seeds, on one axis of steps."""
    panels: dict[str, dict] = {"L1": {}, "L2": {}, "1 - SSIM": {}}
    lines = [x for x in read_metrics(config.workdir) if x["kind"] == "eval" and "ssim" in x]
    for arm in config.arms:
        by_step: dict[int, list[dict]] = {}
        for line in lines:
            _, its_arm, stage = line["phase"].split("/")
            if its_arm == arm:
                step = line["step"] + (config.stage1_steps if stage == "stage2" else 0)
                by_step.setdefault(step, []).append(line)
        steps = np.array(sorted(by_step))
        for name, panel in panels.items():
            values = [
                np.mean([1 - x["ssim"] if "SSIM" in name else x[name.lower()] for x in by_step[s]])
                for s in steps
            ]
            panel[arm] = (steps, np.array(values))
    return panels
