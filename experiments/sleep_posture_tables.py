"""The tables in the report of `python -m experiments.sleep_posture`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.sleep_posture_claims import TABLE_I, Scores, mean_of_arm, paired
from experiments.sleep_posture_costs import Costs
from experiments.sleep_posture_scores import QUANTITIES, Judged
from experiments.sleep_posture_scores import over_seeds as averaged
from jaxbed.data.night import POSTURES
from jaxbed.data.splits import Split
from jaxbed.report_text import number, table
from jaxbed.training.loop import Trainer

if TYPE_CHECKING:
    from experiments.sleep_posture import Config

_LISTED = 20  # lines


def accuracy(config: Config, judged: Judged, split: Split) -> str:
    """Percent right of every arm and baseline, and below each arm what the paper prints."""
    rows = []
    for who, of in judged.intervals.items():
        rows.append([who, *(str(of[q]) if q in of else "" for q in QUANTITIES)])
        if who in TABLE_I:
            printed = TABLE_I[who]
            cells = (f"{printed[q]:.2f}" if q in printed else "" for q in QUANTITIES)
            rows.append(["*published*", *cells])
    seeds = f"{config.seeds} seed{'s' if config.seeds > 1 else ''}"
    what, units = judged.units
    told = (
        f"Percent of the test images recognised, mean over {seeds}, split {split.description}, "
        f"with a 95 % interval that resamples {what} ({units}); of every posture its recall. "
        "majority and nearest need no network: the commonest training label, and that of the "
        "most similar training image. The published rows are of the paper's own images, split "
        "by image so that sleepers are on both sides."
    )
    return f"{told}\n\n{table(['', *QUANTITIES], rows)}"


def beside_each_other(
    config: Config, judged: Judged, weights: Mapping[str, float]
) -> dict[str, str]:
    """Every weight, every seed, and differences, as far as there are several to compare."""
    sections = {}
    if weights:
        sections["Weight of the blanket"] = _weights(judged.scores, weights)
    if config.seeds > 1:
        sections["Every seed"] = _seeds(config, judged.scores)
    if judged.gaps:
        sections["Differences"] = _differences(judged)
    return sections


def _weights(scores: Scores, weights: Mapping[str, float]) -> str:
    rows = []
    for label, weight in weights.items():
        means = (averaged([s[q] for s in scores[label]]) for q in ("posture", "blanket"))
        rows.append([label, f"{weight:g}", *map(str, means)])
    told = "Mean over seeds, with a 95 % t-interval over them where there are several."
    return f"{told}\n\n{table(['', 'weight', 'postures, %', 'blankets, %'], rows)}"


def _seeds(config: Config, scores: Scores) -> str:
    """Postures recognised with every seed, mean and standard deviation."""
    rows = []
    for label, parts in scores.items():
        values = [part["posture"] for part in parts]
        spread = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        rows.append([label, *(f"{value:.2f}" for value in values), spread])
    seeds = range(config.seed, config.seed + config.seeds)
    head = ["postures, %", *(f"seed {seed}" for seed in seeds), "mean ± standard deviation"]
    return table(head, rows)


def _differences(judged: Judged) -> str:
    """Differences between labels within every seed, which share data, split and order."""
    rows = []
    for (label, other), over_people in judged.gaps.items():
        gains = paired(judged.scores, label, other)
        told = ", ".join(f"{gain:+.2f}" for gain in gains)
        over_seeds = str(averaged(gains)) if len(gains) > 1 else ""
        rows.append([f"{label} - {other}", told, over_seeds, str(over_people)])
    told = (
        "Points of postures recognised, by seed; their mean with a 95 % t-interval over seeds; and "
        f"with one that resamples {judged.units[0]}, which does not hold what another seed would "
        "change. The paper: multi_task - resnet 2.17, dl - multi_task 1.24, dl - resnet 3.41."
    )
    heads = ["", "by seed", "over seeds", f"over {judged.units[0]}"]
    return f"{told}\n\n{table(heads, rows)}"


def cost(config: Config, scores: Scores, costs: Costs) -> str:
    """What every arm recognises and what it costs."""
    rows = []
    for arm, counted in costs.trained.items():
        step = costs.stepped[arm]
        p50, p95 = np.percentile(costs.predicted[arm].timing.durations_ms, [50, 95])
        rows.append(
            [
                arm,
                f"{mean_of_arm(scores, arm):.2f}",
                *(number(n) for n in (counted.params, counted.macs_nominal, counted.macs_exact)),
                f"{step.timing.median_ms:.1f}",
                f"{step.ratio:.2f} ({step.ratio_low:.2f} to {step.ratio_high:.2f})",
                f"{1e3 * config.batch_size / step.timing.median_ms:.0f}",
                f"{p50:.2f} / {p95:.2f}",
            ]
        )
    height, width = config.image_size
    told = (
        f"At {height}x{width} and width {config.width}, {config.dtype}. A training step of "
        f"{config.batch_size} images with augmentation, and one image from grey levels to "
        "logits; all arms in turns, on the machine named below."
    )
    first = next(iter(costs.trained))
    heads = ["", "postures, %", "parameters", "MACs nominal", "MACs exact"]
    heads += ["training step, ms", f"of {first}'s", "examples/s", "one image, p50 / p95 ms"]
    return f"{told}\n\n{table(heads, rows)}"


def confusions(counts: Mapping[str, np.ndarray]) -> str:
    """Counts of what was found (columns) where something is true (rows)."""
    parts = ["Test images, all seeds together; rows are what is true, columns what was found."]
    for label, matrix in counts.items():
        rows = [[name, *map(str, row)] for name, row in zip(POSTURES, matrix.tolist(), strict=True)]
        parts.append(table([label, *POSTURES], rows))
    return "\n\n".join(parts)


def listed(lines: Sequence[str]) -> str:
    """Lists the first lines, and says how many more there are."""
    more = len(lines) - _LISTED
    told = [f"- {line}" for line in lines[:_LISTED]]
    return "\n".join([*told, *([f"- and {more} more"] if more > 0 else [])])


def clock(trainer: Trainer) -> str:
    """Seconds by activity."""
    rows = [[name, f"{s:.1f}"] for name, s in sorted(trainer.clock.seconds.items())]
    return table(["activity", "seconds"], rows)
