"""A traced step by module, beside its MACs, as table and figure."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxbed.efficiency.count import Count
from jaxbed.efficiency.trace import Operation, Trace


@dataclass(frozen=True)
class ModuleTime:
    """What one module takes of a step.

    Attributes:
        module: path, cut to the depth asked for; "(outside)" for loss, optimiser and other
            work outside every module, "(unnamed)" for what the compiler does not name.
        ms: per step.
        share: of the step.
        macs_nominal: of a step, all devices.
        macs_exact: likewise, taps on padding left out.
        gflop_per_s: nominal FLOPs over time; copies and elementwise work are in the time.
    """

    module: str
    ms: float
    share: float
    macs_nominal: int
    macs_exact: int
    gflop_per_s: float


def by_module(trace: Trace, counted: Count, *, depth: int = 3) -> list[ModuleTime]:
    """Adds operations up by module and sets them beside the MACs.

    Args:
        trace: of a step.
        counted: of the same step, all devices.
        depth: names of a module path to tell apart, the network's own included.

    Returns:
        The longest first; every module that takes time or MACs.
    """
    ms: dict[str, float] = defaultdict(float)
    for operation in trace.operations:
        name = _cut(operation.module, depth) if operation.op_name else "(unnamed)"
        ms[name] += operation.ms
    macs = defaultdict(lambda: (0, 0))
    for path, (nominal, exact) in counted.by_module.items():
        name = _cut(path, depth)
        macs[name] = (macs[name][0] + nominal, macs[name][1] + exact)
    rows = [
        ModuleTime(
            module=name,
            ms=ms[name],
            share=ms[name] / trace.step_ms,
            macs_nominal=macs[name][0],
            macs_exact=macs[name][1],
            gflop_per_s=2 * macs[name][0] / ms[name] / 1e6 if ms[name] else 0.0,
        )
        for name in ms.keys() | macs.keys()
    ]
    return sorted(rows, key=lambda row: (-row.ms, row.module))


def write_csv(rows: Iterable[Operation | ModuleTime], path: Path) -> None:
    """Writes rows of one kind, at least one, with their field names as header."""
    table = [asdict(row) for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def figure(traces: Mapping[str, list[ModuleTime]], path: Path, *, most: int = 12) -> None:
    """Draws stacked bars of milliseconds by module; needs matplotlib.

    Args:
        traces: label of a bar to its modules.
        path: of the image.
        most: modules with a colour of their own; the rest is "(other)".
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    total: Counter[str] = Counter()
    for rows in traces.values():
        total.update({row.module: row.ms for row in rows})
    shown = [module for module, _ in total.most_common(most)]
    fig = Figure(figsize=(3.5 + 1.5 * len(traces), 6), layout="constrained")
    axes = fig.subplots()
    below = [0.0] * len(traces)
    for n, module in enumerate([*shown, "(other)"]):
        heights = [
            sum(row.ms for row in rows if _shown_as(row.module, shown) == module)
            for rows in traces.values()
        ]
        colour = "0.85" if module == "(other)" else colormaps["tab20"](n % 20)
        axes.bar(list(traces), heights, bottom=below, color=colour, label=module)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_ylabel("time of a step (ms)")
    fig.legend(loc="outside right upper", reverse=True, fontsize="small")
    fig.savefig(path, dpi=120)


def _shown_as(module: str, shown: list[str]) -> str:
    return module if module in shown else "(other)"


def _cut(path: str, depth: int) -> str:
    return "/".join(path.split("/")[:depth]) or "(outside)"
