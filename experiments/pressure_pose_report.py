"""The report of `python -m experiments.pressure_pose`: scores, costs, claims and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import pressure_pose_figures as draw
from experiments.pressure_pose_costs import Costs, claims, measure, published_figures
from experiments.pressure_pose_networks import slimmer
from experiments.pressure_pose_scores import QUANTITIES, Scores, baselines_of, judge
from jaxbed import report
from jaxbed.data.pressure import PressureMaps
from jaxbed.data.splits import Split
from jaxbed.simulate.skeleton import JOINTS
from jaxbed.tasks.pressure_pose import torso_length
from jaxbed.training.loop import Trainer

if TYPE_CHECKING:
    from experiments.pressure_pose import Config
    from experiments.pressure_pose_study import Sides, Trained

_HEADS = {
    "pck05": "PCK@0.05",
    "pck10": "PCK@0.1",
    "pck20": "PCK@0.2",
    "pckh50": "PCKh@0.5",
    "error_mm": "error, mm",
    "error_px": "error, px",
    "missing": "not found, %",
}
_DEFINITIONS = (
    "PCK@a is the share of joints, in percent, found within a times the torso: the longer of the "
    "distances from a shoulder to the opposite hip in that map. PCKh@0.5 takes half of the "
    "distance from the neck to the top of the head, which is longer than the half of a head box "
    "that PCKh has elsewhere. A joint that is not annotated, or not on the mat, does not count; "
    "one that was not found is no hit and has no error. "
)


def write(
    config: Config,
    maps: PressureMaps,
    split: Split,
    sides: Sides,
    trainer: Trainer,
    trained: Mapping[str, Trained],
) -> Path:
    """Measures what is left to measure and writes the workdir's report."""
    from experiments.pressure_pose_study import SKELETON, frame_of

    frame = frame_of(config, maps.mat)
    subject, posture = maps.subject[split.test], maps.posture[split.test]
    found = {arm: run.joints_mm for arm, run in trained.items()}
    found |= baselines_of(sides.train, sides.test)
    true_mm = np.asarray(frame.on_mat(sides.test["joints_mm"]))
    scores = judge(found, true_mm, subject, frame, SKELETON, seed=config.seed)
    costs = measure(config, trainer.devices, frame, sides, trained)
    (config.workdir / "figures").mkdir(exist_ok=True)
    torso = np.asarray(torso_length(true_mm, SKELETON))
    pictures = [
        draw.skeletons(config, maps.mat, sides, posture, subject, found),
        draw.pck_curves(config, found, true_mm, torso),
        draw.accuracy_and_cost(config, scores, costs),
        draw.learning_curves(config),
    ]
    people = len(set(subject.tolist()))
    return report.write_report(
        config.workdir,
        experiment="pressure_pose",
        summary=_summary(config, maps),
        data=report.Data(
            name=maps.name,
            split=split.description,
            subjects_shared=split.subjects_shared,
            train=len(split.train),
            test=len(split.test),
            simulated=config.data == "simulated",
        ),
        results=results_of(scores, costs),
        models=_models(config, costs),
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        published=published_figures(),
        claims=claims(costs),
        why_missing="about keypoints that nobody annotated, or about a network not among --arms",
        figures=pictures,
        sections={
            "Joints found": score_table(scores, people),
            "Joint by joint: PCK@0.2": joint_table(scores, "pck20"),
            "Joint by joint: error in millimetres": joint_table(scores, "error_mm"),
            "Which joints count": _counted(true_mm),
            "Cost": cost_table(costs),
        },
    )


def results_of(scores: Mapping[str, Scores], costs: Costs) -> dict[str, float]:
    """Names what `report.json` tells: of every arm its scores and times."""
    results = {
        f"{name}/{quantity}": s.overall[quantity].mean
        for name, s in scores.items()
        for quantity in QUANTITIES
    }
    for arm, compared in costs.predicted.items():
        for percent in (50, 95):
            ms = float(np.percentile(compared.timing.durations_ms, percent))
            results[f"{arm}/predict_ms_p{percent}"] = ms
        results[f"{arm}/train_step_ms"] = costs.stepped[arm].timing.median_ms
    return results


def score_table(scores: Mapping[str, Scores], people: int) -> str:
    """All joints together."""
    lines = [
        f"{_DEFINITIONS}Means over the test maps with a 95 % interval that resamples people "
        f"({people}; none below 5); one training run each, so it does not hold what another seed "
        "would change. "
        "mean_pose is the mean of the training joints, nearest takes the joints of the most "
        "similar training map.",
        "",
        f"| | {' | '.join(_HEADS[q] for q in QUANTITIES)} |",
        "|---|" + "---|" * len(QUANTITIES),
    ]
    for name, s in scores.items():
        lines.append(f"| {name} | {' | '.join(str(s.overall[q]) for q in QUANTITIES)} |")
    return "\n".join(lines)


def joint_table(scores: Mapping[str, Scores], quantity: str) -> str:
    """One quantity, a joint a line."""
    lines = [f"| | {' | '.join(scores)} |", "|---|" + "---|" * len(scores)]
    for j, joint in enumerate(JOINTS):
        cells = [str(s.joints[quantity][j]) for s in scores.values()]
        lines.append(f"| {joint.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(costs: Costs) -> str:
    """What a map and a step cost, measured in turns."""
    lines = [
        "One map from pressure to joints, p50 / p95, and a training step with augmentation and "
        "targets; all arms in turns. GMAC/s are nominal MACs of one map over its p50.",
        "",
        "| | parameters | MACs, M | one map, ms | GMAC/s | training step, ms | of the first's |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, cost in costs.trained.items():
        ms, step = costs.predicted[arm].timing.durations_ms, costs.stepped[arm]
        p50, p95 = np.percentile(ms, 50), np.percentile(ms, 95)
        ratio = f"{step.ratio:.2f} ({step.ratio_low:.2f} to {step.ratio_high:.2f})"
        cells = [
            f"{cost.params:,}",
            f"{cost.macs_nominal / 1e6:.1f}",
            f"{p50:.1f} / {p95:.1f}",
            f"{cost.macs_nominal / 1e6 / p50:.1f}",
            f"{step.timing.median_ms:.0f}",
            ratio,
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _counted(true_mm: np.ndarray) -> str:
    """Tells how many of each joint are annotated and on the mat."""
    shares = np.isfinite(true_mm).all(axis=-1).mean(axis=0)
    told = ", ".join(
        f"{name.replace('_', ' ')} {share:.0%}" for name, share in zip(JOINTS, shares, strict=True)
    )
    return f"Of the test maps, those in which a joint is annotated and on the mat: {told}."


def _models(config: Config, costs: Costs) -> dict[str, report.ModelCost]:
    height, width = config.image_size
    trained = {f"{arm}_{height}x{width}": cost for arm, cost in costs.trained.items()}
    return trained | {f"{arm}_published_256x256": c for arm, c in costs.published.items()}


def _summary(config: Config, maps: PressureMaps) -> str:
    height, width = config.image_size
    mat = maps.mat
    return (
        f"Supervised networks find {len(JOINTS)} joints on pressure maps, trained on annotated "
        f"joints. Maps of {mat.rows} x {mat.columns} sensors, {mat.pitch_mm:g} mm apart, are "
        f"squeezed into {height}x{width} pixels. {slimmer(config)} {config.steps} steps of "
        f"{config.batch_size} maps with Adam, peak learning rate {config.learning_rate:g}, "
        f"schedule {config.schedule}, Gaussians of {config.sigma_px:g} heatmap pixels, "
        f"which weigh {config.positive_weight:g} times as much at their top, refinement "
        f"{config.refine}, seed {config.seed}. The paper publishes the cost of these networks and "
        "the accuracy of postures told from their joints, but not how well they find the joints."
    )
