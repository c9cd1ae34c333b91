"""The report of `python -m experiments.sleep_posture`: scores, costs, claims and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import sleep_posture_figures as draw
from experiments import sleep_posture_tables as tables
from experiments.sleep_posture import Arm
from experiments.sleep_posture_claims import claims
from experiments.sleep_posture_costs import Costs, measure
from experiments.sleep_posture_scores import Judged, judge, sampling_units
from jaxbed import report
from jaxbed.data.night import NightImages
from jaxbed.data.splits import Split
from jaxbed.training.loop import Trainer

if TYPE_CHECKING:
    from experiments.sleep_posture import Config
    from experiments.sleep_posture_study import Run, Sides, Trained


def write(
    config: Config,
    images: NightImages,
    split: Split,
    sides: Sides,
    trainer: Trainer,
    trained: Mapping[Run, Trained],
) -> Path:
    """Measures what is left to measure and writes the workdir's report."""
    judged = judge(trained, sides, sampling_units(images, split.test), seed=config.seed)
    shown = one_per_arm(trained)
    costs = measure(config, trainer.devices, sides, shown)
    compared = {run.label: run.blanket_weight for run in trained}
    weights = compared if config.study == "weights" else {}

    (config.workdir / "figures").mkdir(exist_ok=True)
    pictures = [
        draw.examples(config, sides, *next(iter(shown.items()))),
        draw.scores(config, judged),
        draw.weight_sweep(config, judged.scores, weights)
        if weights
        else draw.cost(config, judged.scores, costs),
        draw.confusion(config, judged.counts),
        draw.attention(config, sides, shown),
        draw.curves(config, list(judged.scores)),
    ]
    height, width = config.image_size
    return report.write_report(
        config.workdir,
        experiment="sleep_posture",
        summary=_summary(config),
        data=report.Data(
            name=images.name,
            split=split.description,
            subjects_shared=split.subjects_shared,
            train=len(split.train),
            test=len(split.test),
            simulated=config.data == "simulated",
        ),
        results=_results(config, judged, costs),
        models={f"{arm}_{height}x{width}": cost for arm, cost in costs.trained.items()}
        | {f"{arm}_published": cost for arm, cost in costs.published.items()},
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        published=report.read_published(
            Path(__file__).with_name("claims.csv"), paper="sleep_posture"
        ),
        claims=claims(
            judged.scores,
            about=f"{images.name} images, split {split.description}, {height}x{width}, width "
            f"{config.width}, {config.steps} steps",
            weights=weights,
        ),
        why_missing="what it is about was not trained; --study tables and --study weights do",
        figures=pictures,
        sections={
            "Beside Tables I and II": tables.accuracy(config, judged, split),
            **tables.beside_each_other(config, judged, weights),
            "Accuracy beside cost": tables.cost(config, judged.scores, costs),
            "Confusion": tables.confusions(judged.counts),
            **({"Left out": tables.listed(images.skipped)} if images.skipped else {}),
            "Where the time went": tables.clock(trainer),
        },
    )


def one_per_arm(trained: Mapping[Run, Trained]) -> dict[Arm, Trained]:
    """Returns the first run of every arm, to be drawn and measured."""
    first: dict[Arm, Trained] = {}
    for run, result in trained.items():
        first.setdefault(run.arm, result)
    return first


def _results(config: Config, judged: Judged, costs: Costs) -> dict[str, float]:
    results = {}
    for who, of in judged.intervals.items():
        results |= {f"{who}/{quantity}_pct": interval.mean for quantity, interval in of.items()}
        results[f"{who}/posture_pct_low"] = of["posture"].low
        results[f"{who}/posture_pct_high"] = of["posture"].high
    for arm in costs.trained:
        step_ms = costs.stepped[arm].timing.median_ms
        p50, p95 = np.percentile(costs.predicted[arm].timing.durations_ms, [50, 95])
        results[f"{arm}/train_step_ms"] = step_ms
        results[f"{arm}/train_examples_per_s"] = 1e3 * config.batch_size / step_ms
        results[f"{arm}/latency_ms_p50"] = float(p50)
        results[f"{arm}/latency_ms_p95"] = float(p95)
    return results


def _summary(config: Config) -> str:
    height, width = config.image_size
    smaller = (height, width, config.width) != (224, 224, 64)
    return (
        "Networks say from one night infrared image how a sleeper lies: supine, prone, on the "
        "left or on the right side. The arm dl is the paper's: features shared with a second "
        "task, whether a blanket is on, a branch for each task, and attention (CBAM) behind all "
        "three parts; multi_task has no attention, attention no second task, and resnet "
        "(ResNet-18), the baseline of Table II, neither. "
        + ("**Images and networks are smaller than the paper's.** " if smaller else "")
        + f"Images {height}x{width} (the paper: 224x224), {config.width} channels in the stem "
        f"(64); {config.steps} steps of {config.batch_size} images, Adam, {config.schedule} "
        f"schedule with a highest learning rate of {config.learning_rate:g} (80 epochs of batch "
        f"64 from 1e-4), blanket weight {_weights(config)} (0.5), {config.init} initial weights "
        f"(ImageNet), {config.dtype}, flips: {config.flips} (vertical), left and right exchanged "
        f"in the label of every mirror image, random crops of at least {config.min_scale:.0%} of "
        f"height and width. Seeds {config.seed} to {config.seed + config.seeds - 1}; the state "
        "of the last step counts."
    )


def _weights(config: Config) -> str:
    of = config.blanket_weights if config.study == "weights" else (config.blanket_weight,)
    return ", ".join(f"{weight:g}" for weight in of)
