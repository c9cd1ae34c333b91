"""The figures of `python -m experiments.profile_asym_conv`; they need matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.profile_asym_conv_measured import Group, Measured, best, layers_of
from jaxbed.efficiency.ceilings import Ceilings, ridge
from jaxbed.whole_files import write_whole

# Okabe and Ito: people with a colour-vision deficiency can tell them apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_REST = "0.85"
_MARKERS = {"standard": "s", "asymmetric": "o", "lean": "^"}
_PASSES = {"forward": "prediction", "train": "training"}


def all_figures(
    folder: Path, measured: Measured, limits: Ceilings, groups: Sequence[Group]
) -> list[tuple[Path, str]]:
    """Draws both figures for every dtype.

    Args:
        folder: to draw into.
        measured: everything.
        limits: the machine's ceilings.
        groups: to draw: of one batch size.

    Returns:
        Path and caption of each figure.
    """
    drawn = []
    for dtype in dict.fromkeys(group.dtype for group in groups):
        shown = [group for group in groups if group.dtype == dtype]
        path = time_per_layer(folder / f"time_per_layer_{dtype}.png", measured, shown)
        caption = (
            f"Time by layer, {dtype}, batch {shown[0].batch_size}, the best lowering of each "
            "network. Hatched: bias, normalisation and ReLU. Lines: the bound, fused."
        )
        drawn.append((path, caption))
        path = roofline(folder / f"roofline_{dtype}.png", measured, limits, shown)
        caption = (
            f"Convolutions under the measured ceilings, {dtype}, batch {shown[0].batch_size}; the "
            "larger the mark, the longer it takes."
        )
        drawn.append((path, caption))
    return drawn


def time_per_layer(path: Path, measured: Measured, groups: Sequence[Group]) -> Path:
    """Stacks the times of the layers, a bar for each network, a panel for each pass."""
    fig = Figure(figsize=(3.6 * len(groups) + 2.0, 5.2), dpi=120, layout="constrained")
    axes = fig.subplots(1, len(groups), squeeze=False)[0]
    stages = list(dict.fromkeys(row.layer.split("/")[0] for row in measured.layers))
    colours = dict(zip(stages, np.resize(_COLOURS, len(stages)), strict=True))
    for ax, group in zip(axes, groups, strict=True):
        for place, total in enumerate(best(measured.totals, group).values()):
            below = 0.0
            for row in layers_of(measured, total):
                colour = colours[row.layer.split("/")[0]]
                edge = {"edgecolor": "white", "linewidth": 0.6}
                ax.bar(place, row.conv_ms, bottom=below, color=colour, **edge)
                below += row.conv_ms
                ax.bar(place, row.norm_ms, bottom=below, color=colour, hatch="////", **edge)
                below += row.norm_ms
            ax.bar(place, max(total.ms - below, 0.0), bottom=below, color=_REST)
            ax.hlines(total.bound_ms, place - 0.4, place + 0.4, color="black", linewidth=1.5)
            ax.text(place, max(total.ms, below), f"{total.ms:,.0f}", ha="center", va="bottom")
        kinds = list(best(measured.totals, group))
        ax.set_xticks(range(len(kinds)), kinds)
        ax.margins(y=0.08)
        _frame(ax, title=_PASSES[group.direction], ylabel="ms")
    handles = [Patch(color=colour, label=stage) for stage, colour in colours.items()]
    handles.append(
        Patch(facecolor="0.6", edgecolor="white", hatch="////", label="bias, norm, ReLU")
    )
    handles.append(Patch(color=_REST, label="the rest"))
    handles.append(Line2D([], [], color="black", label="bound, fused"))
    fig.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    return _save(fig, path)


def roofline(path: Path, measured: Measured, limits: Ceilings, groups: Sequence[Group]) -> Path:
    """Draws every convolution's GFLOP/s over its FLOPs per byte, under the ceilings."""
    fig = Figure(figsize=(4.6 * len(groups), 4.4), dpi=120, layout="constrained")
    axes = fig.subplots(1, len(groups), squeeze=False)[0]
    for ax, group in zip(axes, groups, strict=True):
        fastest = best(measured.totals, group)
        rows = {kind: layers_of(measured, total) for kind, total in fastest.items()}
        longest = max(row.conv_ms for of in rows.values() for row in of)
        at = ridge(limits, group.dtype)
        reach = [row.intensity for of in rows.values() for row in of] + [at]
        x = np.geomspace(min(reach) / 2, 2 * max(reach), 200)
        peak = limits.flop_per_s[group.dtype] / 1e9
        ax.plot(x, np.minimum(peak, x * limits.bytes_per_s / 1e9), color="black", linewidth=1)
        for (kind, layers), colour in zip(rows.items(), _COLOURS, strict=False):
            ax.scatter(
                [row.intensity for row in layers],
                [row.gflop_per_s for row in layers],
                s=[15 + 150 * row.conv_ms / longest for row in layers],
                marker=_MARKERS[kind],
                color=colour,
                alpha=0.7,
                linewidths=0,
                label=kind,
            )
        ax.set(xscale="log", yscale="log", xlabel="exact FLOPs per byte")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.set_ylim(top=1.5 * peak)
        _frame(ax, title=_PASSES[group.direction], ylabel="exact GFLOP/s")
    axes[0].legend(frameon=False, loc="lower right", fontsize="small")
    return _save(fig, path)


def _frame(ax: Axes, *, title: str, ylabel: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)


def _save(fig: Figure, path: Path) -> Path:
    write_whole(path, lambda partial: fig.savefig(partial, format="png"))
    return path
