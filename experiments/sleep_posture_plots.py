"""How the sleep posture study draws; what it draws is in sleep_posture_figures.

n images of R rows and C columns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxbed.whole_files import write_whole

# Okabe and Ito: people with a colour-vision deficiency can tell them apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RIGHT, _WRONG = "#0072B2", "#D55E00"
_DPI = 110


class Cell(NamedTuple):
    """One image of a grid.

    Attributes:
        image: u8[R,C].
        label: what stands below it.
        right: whether that is right; None where there is nothing to judge.
        heat: f32[r,c] in [0, 1], laid over the image; None for none.
    """

    image: np.ndarray
    label: str
    right: bool | None = None
    heat: np.ndarray | None = None


def image_grid(path: Path, rows: Mapping[str, Sequence[Cell]], *, title: str) -> Path:
    """Draws images with labels, blue where right and orange where wrong.

    Args:
        path: the PNG to write.
        rows: equally many cells each, by name; the name stands in front unless it is empty.
        title: of the whole figure.
    """
    columns = len(next(iter(rows.values())))
    height, width = next(iter(rows.values()))[0].image.shape
    size = (1.45 * columns + 1.0, (1.45 * height / width + 0.3) * len(rows) + 0.6)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = fig.subplots(len(rows), columns, squeeze=False)
    for line, (name, cells) in zip(axes, rows.items(), strict=True):
        for ax, cell in zip(line, cells, strict=True):
            _show(ax, cell)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
    return _save(fig, path, title=title)


def matrices(
    path: Path, counts: Mapping[str, np.ndarray], names: Sequence[str], *, title: str
) -> Path:
    """Draws confusion matrices side by side, as shares of what is true.

    Args:
        path: the PNG to write.
        counts: i64[k,k] by name; rows are what is true, columns what was found.
        names: of the k classes.
        title: of the whole figure.
    """
    fig = Figure(figsize=(2.9 * len(counts) + 0.8, 3.3), dpi=_DPI, layout="constrained")
    axes = fig.subplots(1, len(counts), squeeze=False)[0]
    for ax, (name, matrix) in zip(axes, counts.items(), strict=True):
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 0.6 else "black"
            told = f"{100 * value:.0f} %" if matrix[row].sum() else "–"
            ax.text(column, row, told, ha="center", va="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [], fontsize=8)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("found", fontsize=9)
    axes[0].set_ylabel("true", fontsize=9)
    return _save(fig, path, title=title)


def points(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    title: str,
    ylabel: str,
) -> Path:
    """Draws a named point per network, one panel per kind of cost.

    Args:
        path: the PNG to write.
        panels: per cost, (x, y) by name; every panel has the same names.
        title: of the whole figure.
        ylabel: what y is, with its unit.
    """
    fig = Figure(figsize=(3.4 * len(panels) + 0.6, 3.6), dpi=_DPI, layout="constrained")
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (cost, places) in zip(axes, panels.items(), strict=True):
        for i, (name, (x, y)) in enumerate(places.items()):
            colour = _COLOURS[i % len(_COLOURS)]
            ax.scatter([x], [y], s=40, color=colour, label=name, zorder=2)
        ax.margins(x=0.2, y=0.2)
        ax.set_xlim(left=0)
        ax.set_xlabel(cost, fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(ylabel, fontsize=9)
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(len(names), 5),
        frameon=False,
        fontsize=9,
    )
    return _save(fig, path, title=title)


def _show(ax: Axes, cell: Cell) -> None:
    height, width = cell.image.shape
    low, high = np.percentile(cell.image, [1, 99])
    ax.imshow(cell.image, cmap="gray", vmin=low, vmax=max(high, low + 1))
    if cell.heat is not None:
        where = (-0.5, width - 0.5, height - 0.5, -0.5)
        ax.imshow(
            cell.heat,
            cmap="inferno",
            vmin=0,
            vmax=1,
            alpha=0.5,
            extent=where,
            interpolation="bilinear",
        )
    ax.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    colour = "black" if cell.right is None else _RIGHT if cell.right else _WRONG
    ax.set_xlabel(cell.label, fontsize=8, color=colour, labelpad=2)
    for side in ax.spines.values():
        side.set(edgecolor=colour, visible=cell.right is not None, linewidth=1.5)


def _save(fig: Figure, path: Path, *, title: str) -> Path:
    fig.suptitle(title, fontsize=11)
    write_whole(path, lambda partial: fig.savefig(partial, format="png"))
    return path
