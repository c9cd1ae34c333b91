"""Figures of a report: one function, one PNG.

N examples, n of them shown, K keypoints, R rows and C columns of a pressure map. Keypoints are
(row, column) in sensors, from the centre of the first sensor, at the top left.

Colours are those of Okabe and Ito, which people with a colour-vision deficiency can tell apart.
Nothing goes through pyplot: no state is shared with a caller's own figures.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from PIL import Image

from jaxbed.whole_files import write_whole

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_GREY = "0.6"
_PRESSURE = "magma"
_DOTS = "#56F0FF"  # on none of the map's colours
_DPI = 120


class Keypoints(NamedTuple):
    """Keypoints to draw on the maps of a grid.

    Attributes:
        on: name of the row to draw on.
        positions: f32[n,K,2], see the module.
        strengths: f32[n,K] in [0, 1]; weak ones are small and faint.
    """

    on: str
    positions: np.ndarray
    strengths: np.ndarray


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    title: str,
    xlabel: str,
    log: bool = False,
    marks: Mapping[str, float] | None = None,
) -> Path:
    """Draws curves, one panel per quantity, side by side under one legend.

    Args:
        path: the PNG to write.
        panels: per quantity, (x f32[m], y f32[m]) by name. A name has the same colour in
            every panel; what is not finite is left out.
        title: of the whole figure.
        xlabel: what x is, with its unit.
        log: whether y is on a logarithmic scale.
        marks: positions of vertical lines by label, for example where a stage ends.
    """
    fig = Figure(figsize=(max(4.2 * len(panels), 5.5), 3.8), dpi=_DPI, layout="constrained")
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, (quantity, series) in zip(axes, panels.items(), strict=True):
        for name, (x, y) in series.items():
            style = names.index(name)
            colour, dash = _COLOURS[style % len(_COLOURS)], _DASHES[style % len(_DASHES)]
            ax.plot(x, y, color=colour, linestyle=dash, linewidth=1.6, label=name)
        if log:
            ax.set_yscale("log")
        _plain_frame(ax, title=quantity, xlabel=xlabel)
        ax.grid(color="0.92", linewidth=0.8)
        for label, position in (marks or {}).items():
            _mark(ax, label, position)
    handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    fig.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), 4),
        frameon=False,
        fontsize=9,
    )
    return _save(fig, path, title=title)


def pressure_grid(
    path: Path,
    rows: Mapping[str, np.ndarray],
    *,
    title: str,
    columns: Collection[str],
    scale: str = "pressure, as a share of the full scale",
    keypoints: Keypoints | None = None,
    aspect: float = 1.0,
) -> Path:
    """Draws pressure maps: a row per source, a column per example, on one colour scale.

    Args:
        path: the PNG to write.
        rows: f32[n,R,C] in [0, 1] by name; what lies outside is shown as 0 or 1. R and C may
            differ from row to row.
        title: of the whole figure.
        columns: n labels of the examples.
        scale: what the colours mean.
        keypoints: drawn on one of the rows.
        aspect: height of a cell over its width, for mats with two pitches.

    Raises:
        ValueError: `keypoints.on` is no row.
    """
    if keypoints and keypoints.on not in rows:
        raise ValueError(f"keypoints are to lie on one of {list(rows)}, not {keypoints.on!r}")
    first = next(iter(rows.values()))
    height, width = first.shape[1] * aspect, first.shape[2]
    # Tall or broad, a map has the same area on paper.
    tall, broad = 1.3 * np.sqrt([height / width, width / height])
    size = ((broad + 0.06) * len(columns) + 2.3, (tall + 0.06) * len(rows) + 0.7)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = fig.subplots(len(rows), len(columns), squeeze=False)
    for line, (name, maps) in zip(axes, rows.items(), strict=True):
        for ax, pressure in zip(line, maps, strict=True):
            image = _show_map(ax, pressure, aspect=aspect, top=1.0)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
        if keypoints and keypoints.on == name:
            drawn = zip(line, keypoints.positions, keypoints.strengths, strict=True)
            for ax, positions, strengths in drawn:
                _dots(ax, positions, strengths)
    for ax, label in zip(axes[0], columns, strict=True):
        ax.set_title(label, fontsize=9)
    colours = fig.colorbar(image, ax=axes, aspect=30, pad=0.02, shrink=min(1, 2 / len(rows)))
    colours.set_label(scale, fontsize=8)
    colours.ax.tick_params(labelsize=8)
    return _save(fig, path, title=title)


def keypoint_spread(
    path: Path,
    keypoints: np.ndarray,
    mean_map: np.ndarray,
    *,
    title: str,
    aspect: float = 1.0,
) -> Path:
    """Draws where each keypoint lies over a data set, and how far it wanders.

    On the left every keypoint's mean position with its ellipse of one standard deviation (39
    of 100 positions, were they normal), on the mean map; on the right how many keypoints
    have which spread (root mean square distance from the mean position).

    Args:
        path: the PNG to write.
        keypoints: f32[N,K,2], see the module.
        mean_map: f32[R,C], the mean of the N maps.
        title: of the whole figure.
        aspect: height of a sensor's cell over its width.
    """
    mean = keypoints.mean(axis=0)
    away = keypoints - mean
    covariance = np.einsum("nki,nkj->kij", away, away) / len(keypoints)
    spread = np.sqrt(np.trace(covariance, axis1=1, axis2=2))

    tall = 4.6
    broad = np.clip(tall * mean_map.shape[1] / (mean_map.shape[0] * aspect), 1.8, 6.0)
    fig = Figure(figsize=(broad + 5.0, tall + 0.6), dpi=_DPI, layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(broad, 4.0))
    _show_map(left, mean_map, aspect=aspect, top=max(float(mean_map.max()), 1e-6))
    for centre, matrix in zip(mean, covariance, strict=True):
        left.add_patch(_ellipse(centre, matrix))
    left.scatter(mean[:, 1], mean[:, 0], s=8, color=_DOTS, linewidths=0)
    left.set_title("mean position, one standard deviation", fontsize=9)

    right.hist(spread, bins=min(24, max(len(spread) // 4, 5)), color=_COLOURS[0])
    median = float(np.median(spread))
    _plain_frame(
        right,
        title=f"spread of {len(spread)} keypoints over {len(keypoints):,} maps",
        xlabel="distance from the mean position, in sensors (root mean square)",
    )
    right.set_ylabel("keypoints", fontsize=9)
    right.set_xlim(left=0)
    _mark(right, f"median {median:.2g}", median)
    return _save(fig, path, title=title)


def bars(
    path: Path,
    panels: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    baselines: Collection[str] = (),
    published: Mapping[str, float] | None = None,
) -> Path:
    """Draws one bar per name, one panel per quantity, side by side.

    Args:
        path: the PNG to write.
        panels: per quantity, value by name; every panel has the same names.
        title: of the whole figure.
        baselines: the names to draw in grey.
        published: a paper's value by quantity, drawn as a dashed line.
    """
    names = list(next(iter(panels.values())))
    size = (max(3.4 * len(panels) + 1.2, 5.0), 0.34 * len(names) + 1.5)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    colours = [_GREY if name in baselines else _COLOURS[0] for name in names]
    for ax, (quantity, values) in zip(axes, panels.items(), strict=True):
        drawn = ax.barh(names, [values[name] for name in names], color=colours, height=0.7)
        # Readable where the published line runs through it.
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.bar_label(drawn, fmt="%.3g", padding=4, fontsize=8, bbox=paper)
        ax.margins(x=0.18)
        ax.tick_params(axis="y", length=0)
        if published and quantity in published:
            _mark(ax, "", published[quantity])
            quantity = f"{quantity} (dashed: published, {published[quantity]:.3g})"
        _plain_frame(ax, title=quantity, xlabel="")
    axes[0].invert_yaxis()  # the first name on top
    return _save(fig, path, title=title)


def skeletons(
    path: Path,
    depth_mm: np.ndarray,
    rows: Mapping[str, np.ndarray],
    *,
    title: str,
    columns: Collection[str],
    limbs: Collection[str],
) -> Path:
    """Draws limbs on depth images: a row per source, a column per example.

    Args:
        path: the PNG to write.
        depth_mm: u16[n,R,C]; 0 where nothing was measured, drawn black. Near is bright.
        rows: f32[n,L,J,2] by name: the joints of L limbs, (x, y) in pixels; a limb with a
            NaN is not drawn.
        title: of the whole figure.
        columns: n labels of the examples.
        limbs: names of the limbs, for the legend.
    """
    height, width = depth_mm.shape[1:]
    size = (2.1 * len(columns) + 1.2, 2.1 * height / width * len(rows) + 1.0)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = fig.subplots(len(rows), len(columns), squeeze=False)
    for line, (name, joints) in zip(axes, rows.items(), strict=True):
        for ax, image, chains in zip(line, depth_mm, joints, strict=True):
            measured = np.ma.masked_equal(image, 0)
            near, far = (
                np.percentile(measured.compressed(), [1, 99]) if measured.count() else (0, 1)
            )
            ax.imshow(measured, cmap="gray_r", vmin=near, vmax=far)
            ax.set(xticks=[], yticks=[], facecolor="black")
            ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            for colour, chain in zip(_COLOURS, chains, strict=False):
                if np.isfinite(chain).all():
                    ax.plot(*chain.T, color=colour, linewidth=1.8, marker="o", markersize=3)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
    for ax, label in zip(axes[0], columns, strict=True):
        ax.set_title(label, fontsize=8)
    handles = [Line2D([], [], color=c, linewidth=2) for c, _ in zip(_COLOURS, limbs, strict=False)]
    fig.legend(handles, list(limbs), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _save(fig, path, title=title)


def boxes(path: Path, panels: Mapping[str, Mapping[str, np.ndarray]], *, title: str) -> Path:
    """Draws a box per name, one panel per quantity, side by side on one scale.

    Args:
        path: the PNG to write.
        panels: per quantity, f32[m] by name; every panel has the same names.
        title: of the whole figure.
    """
    names = list(next(iter(panels.values())))
    size = (max(2.6 * len(panels) + 1.6, 5.0), 0.45 * len(names) + 1.5)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
    for ax, (quantity, values) in zip(axes, panels.items(), strict=True):
        drawn = ax.boxplot(
            [values[name] for name in names],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box in drawn["boxes"]:
            box.set(facecolor=_COLOURS[5], edgecolor="0.3")
        ax.set_yticks(range(1, len(names) + 1), names)
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(left=0)
        ax.grid(axis="x", color="0.92", linewidth=0.8)
        _plain_frame(ax, title=quantity, xlabel="")
    axes[0].invert_yaxis()  # the first name on top
    return _save(fig, path, title=title)


def _show_map(ax: Axes, pressure: np.ndarray, *, aspect: float, top: float) -> AxesImage:
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_visible(False)
    # "nearest" shows a sensor as what it is: one value on one cell.
    image = ax.imshow(
        pressure, cmap=_PRESSURE, vmin=0, vmax=top, aspect=aspect, interpolation="nearest"
    )
    ax.autoscale(False)  # what is drawn on a map does not move its borders
    return image


def _dots(ax: Axes, positions: np.ndarray, strengths: np.ndarray) -> None:
    strengths = np.clip(strengths, 0, 1)
    ax.scatter(
        positions[:, 1],
        positions[:, 0],
        s=2 + 16 * strengths,
        c=_DOTS,
        alpha=0.2 + 0.8 * strengths,
        linewidths=0,
    )


def _ellipse(centre: np.ndarray, covariance: np.ndarray) -> Ellipse:
    """Returns the ellipse of one standard deviation around a (row, column)."""
    variances, directions = np.linalg.eigh(covariance)
    row, column = directions[:, 1]
    minor, major = 2 * np.sqrt(np.maximum(variances, 0))
    angle = np.degrees(np.arctan2(row, column))
    return Ellipse(
        (centre[1], centre[0]),
        major,
        minor,
        angle=angle,
        fill=False,
        color=_DOTS,
        lw=0.7,
        alpha=0.6,
    )


def _mark(ax: Axes, label: str, position: float) -> None:
    ax.axvline(position, color="0.35", linewidth=1, linestyle=(0, (4, 3)))
    ax.annotate(
        label,
        (position, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -3),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color="0.35",
    )


def _plain_frame(ax: Axes, *, title: str, xlabel: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(xlabel, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def _save(fig: Figure, path: Path, *, title: str) -> Path:
    fig.suptitle(title, fontsize=11)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    # With a palette, a grid of maps takes under half the bytes; `kmeans` keeps rare colours.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image = image.quantize(256, kmeans=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: image.save(partial, format="png", dpi=(_DPI, _DPI)))
    return path
