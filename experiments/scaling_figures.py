"""The figure of `python -m experiments.scaling`: measured speed-up, predicted efficiency."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.scaling_model import Prediction
from jaxbed import figures

if TYPE_CHECKING:
    from experiments.scaling_report import Row


def draw(
    workdir: Path,
    title: str,
    rows: Sequence["Row"],
    predicted: Sequence[tuple[str, str, int, Prediction]],
) -> Path:
    """Draws both over the number of devices, as a power of two; returns the PNG's path."""
    measured: dict[str, list[tuple[float, float]]] = defaultdict(list)
    several = len({(row.steps, row.batch_size / row.devices) for row in rows}) > 2
    for row in rows:
        if row.way != "single":
            kind = f", {row.batch_size} examples, {row.steps} at once" if several else ""
            name = f"{row.scaling}, {row.way}{kind if row.scaling == 'strong' else ''}"
            measured[name].append((np.log2(row.devices), row.speed_up))
    expected: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for way, scaling, _, made in predicted:
        at = np.log2(made.devices)
        expected[f"{scaling}, {way}, sums in the way"].append((at, made.efficiency_low))
        expected[f"{scaling}, {way}, sums meanwhile"].append((at, made.efficiency_high))
    name = "_".join(title.split(", "))
    return figures.curves(
        workdir / "figures" / f"{name}.png",
        {
            "measured: speed-up over the single device": _series(measured),
            "predicted: efficiency": _series(expected),
        },
        title=title,
        xlabel="devices, logarithm to base 2",
    )


def _series(
    points: dict[str, list[tuple[float, float]]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Orders points along the axis; those at one place are averaged."""
    series = {}
    for name, own in points.items():
        places = sorted({x for x, _ in own})
        means = [float(np.mean([y for x, y in own if x == place])) for place in places]
        series[name] = (np.array(places), np.array(means))
    return series
