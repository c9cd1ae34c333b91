"""The pictures of `python -m experiments.keypoint_posture`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import sleep_posture_plots as plots
from experiments.efd_crwt_figures import in_sensors
from experiments.keypoint_posture import Config
from experiments.keypoint_posture_costs import Costs
from experiments.keypoint_posture_course import Sets
from experiments.keypoint_posture_readers import CNN, RANDOM, TUNED
from experiments.keypoint_posture_scores import MAJORITY, NEAREST, OWN, Key, Score
from jaxbed import figures, report
from jaxbed.data.pressure import POSTURES
from jaxbed.training.logs import read_metrics
from jaxbed.whole_files import write_whole

_SHOWN = 6  # maps in the picture


def shown_maps(sets: Sets, count: int = _SHOWN) -> np.ndarray:
    """Chooses test maps of the first fold, at even distances: i64[n]."""
    tested = sets.tested_on(sets.plan.folds[0])
    return tested[np.linspace(0, len(tested) - 1, count).astype(int)]


def keypoints(
    config: Config, sets: Sets, chosen: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> report.Figure:
    """Draws test maps, the keypoints on them, and the maps rebuilt from these."""
    own, size = sets.own, sets.own.pressure.shape[1:]
    posture = sets.maps.posture[chosen]
    pressure = own.pressure[chosen]
    step = [image // cells for image, cells in zip(config.image_size, size, strict=True)]
    rows = {"in the canonical frame": pressure}
    if min(step) > 0:
        rows["rebuilt from keypoints"] = outputs["map"][:, :: step[0], :: step[1], 0]
    path = figures.pressure_grid(
        config.workdir / "figures" / "keypoints.png",
        rows,
        title=f"Keypoints on people the encoder has not seen ({own.name})",
        columns=[
            f"{who}\n{POSTURES[p]}" for who, p in zip(own.subject[chosen], posture, strict=True)
        ],
        scale="root of the pressure, as a share of its largest"
        if "root" in config.canonical
        else "pressure, as a share of its largest",
        keypoints=figures.Keypoints(
            "in the canonical frame", in_sensors(outputs, size), outputs["keypoints"][..., 0]
        ),
    )
    return report.Figure(
        path,
        "Test maps in the canonical frame with the keypoints found on them (dots; brighter where "
        "there is more pressure), and what the decoder makes of the keypoints alone.",
    )


def curves(config: Config, owner: str) -> report.Figure:
    """Draws the course of the reconstruction errors by arm, as the paper's Fig. 5 does."""
    panels: dict[str, dict] = {"L1": {}, "L2": {}, "1 - SSIM": {}}
    lines = [x for x in read_metrics(config.workdir) if x["kind"] == "eval" and "ssim" in x]
    for arm in config.arms:
        at: dict[int, dict] = {}
        for line in lines:
            if line["phase"] in (f"{arm}/{owner}/stage1", f"{arm}/{owner}/stage2"):
                later = config.stage1_steps if line["phase"].endswith("stage2") else 0
                at[line["step"] + later] = line
        steps = np.array(sorted(at))
        for name, panel in panels.items():
            values = [1 - at[s]["ssim"] if "SSIM" in name else at[s][name.lower()] for s in steps]
            panel[arm] = (steps, np.array(values))
    path = figures.curves(
        config.workdir / "figures" / "curves.png",
        panels,
        title="Rebuilding maps of people the encoder does not see",
        xlabel="training steps, both stages",
        marks={"transfer": config.stage1_steps},
    )
    return report.Figure(
        path,
        "Reconstruction errors while training, as in the paper's Fig. 5, of arms that are trained "
        "on the same people. All but plain classify before the mark and cannot be scored there.",
    )


def scores(config: Config, judged: Mapping[Key, Score]) -> report.Figure:
    """Draws what every reader got right on every set."""
    sets = dict.fromkeys((where, kind) for where, kind, _ in judged)
    everywhere = [
        reader
        for reader in dict.fromkeys(reader for _, _, reader in judged)
        if all((*key, reader) in judged for key in sets if not _is_part(key[0], sets))
    ]
    panels = {
        kind if where == OWN else where: {
            reader: judged[where, kind, reader].share.mean for reader in everywhere
        }
        for where, kind in sets
        if not _is_part(where, sets)
    }
    path = figures.bars(
        config.workdir / "figures" / "scores.png",
        panels,
        title="Read rightly, % (people or mats that are not trained on)",
        baselines=(MAJORITY, NEAREST, RANDOM, CNN, TUNED),
    )
    return report.Figure(
        path,
        "Blue: classifiers of keypoints that nobody annotated. Grey: what they have to beat, the "
        "commonest class, the most similar training map, keypoints of a random encoder, and a "
        "small network trained on the maps from scratch.",
    )


def _is_part(where: str, sets: Mapping[tuple[str, str], None]) -> bool:
    return any(where in (f"{name}_others", f"{name}_labelled") for name, _ in sets)


def confusion(
    config: Config, judged: Mapping[Key, Score], where: str, names: Sequence[str]
) -> report.Figure:
    """Draws which posture is taken for which on one set."""
    counts = {
        reader: judged[where, "posture", reader].counts
        for reader in (*config.classifiers, CNN)
        if (where, "posture", reader) in judged
    }
    told = "people held out" if where == OWN else where
    path = plots.matrices(
        config.workdir / "figures" / f"confusion_{where}.png",
        counts,
        names,
        title=f"Which posture is taken for which ({told})",
    )
    return report.Figure(path, f"Share of the maps of a posture (row) found as another ({told}).")


def positions(config: Config, judged: Mapping[Key, Score], names: Sequence[str]) -> report.Figure:
    """Draws which of many finer classes is taken for which, people held out."""
    readers = [r for r in ("ordered", CNN) if (OWN, "position", r) in judged]
    fig = Figure(figsize=(5.2 * len(readers) + 1.8, 5.6), dpi=110, layout="constrained")
    for ax, reader in zip(fig.subplots(1, len(readers), squeeze=False)[0], readers, strict=True):
        counts = judged[OWN, "position", reader].counts
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = ax.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
        ax.set_xticks(range(len(names)), [name.split()[0] for name in names], fontsize=7)
        labels = names if reader == readers[0] else []
        ax.set_yticks(range(len(names)), labels, fontsize=7)
        ax.set_title(reader, fontsize=10)
        ax.set_xlabel("found", fontsize=9)
    fig.colorbar(image, ax=fig.axes, label="% of the maps of a position (row)", shrink=0.8)
    fig.suptitle("Which position is taken for which (people held out)", fontsize=11)
    path = config.workdir / "figures" / "positions.png"
    write_whole(path, lambda partial: fig.savefig(partial, format="png"))
    return report.Figure(path, "Finer classes of people held out, numbered as on the left.")


def accuracy_cost(
    config: Config, judged: Mapping[Key, Score], costs: Costs
) -> report.Figure | None:
    """Draws accuracy over what a map costs on its way to a posture."""
    here = {r: c for r, c in costs.readers.items() if (OWN, "posture", r) in judged}
    if not here:
        return None
    encoder = next(cost for name, cost in costs.readers.items() if name.startswith("encoder"))
    before = {reader: report.ModelCost(0, 0, 0) if reader == CNN else encoder for reader in here}
    times = 1 + config.ask_mirrored
    x = {
        "million MACs from a map to a posture": {
            reader: times * (before[reader].macs_exact + cost.macs_exact) / 1e6
            for reader, cost in here.items()
        },
        "thousand parameters": {
            reader: (before[reader].params + cost.params) / 1e3 for reader, cost in here.items()
        },
    }
    if costs.speeds:
        # cnn is the last, and is not measured.
        x["one map, ms (median)"] = {
            reader: costs.speeds[f"map to posture, {reader}"].p50_ms
            for reader in here
            if reader != CNN
        }
    path = plots.points(
        config.workdir / "figures" / "accuracy_cost.png",
        {
            cost: {r: (value, judged[OWN, "posture", r].share.mean) for r, value in of.items()}
            for cost, of in x.items()
        },
        title="Accuracy beside cost",
        ylabel="postures of people held out, %",
    )
    return report.Figure(
        path, "Postures read rightly over what that costs; further up and left is better."
    )
