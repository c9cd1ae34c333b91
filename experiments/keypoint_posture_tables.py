"""The tables in the report of `python -m experiments.keypoint_posture`."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.keypoint_posture import Arm, Labels
from experiments.keypoint_posture_claims import PRINTED, SLP, SMAL
from experiments.keypoint_posture_costs import ENCODER, SIZE, Costs
from experiments.keypoint_posture_course import Sets
from experiments.keypoint_posture_scores import OWN, Key, Score
from jaxbed.report_text import number, table
from jaxbed.training.loop import Trainer

_BELOW = {
    "": "",
    "_others": ", people whose labels are never seen",
    "_labelled": ", the same people, labels of others seen",
}


def accuracy(judged: Mapping[Key, Score]) -> str:
    """Percent right of every reader on people held out."""
    kinds = list(dict.fromkeys(kind for where, kind, _ in judged if where == OWN))
    readers = dict.fromkeys(reader for where, _, reader in judged if where == OWN)
    rows = []
    for reader in readers:
        row = [reader]
        for kind in kinds:
            score = judged[OWN, kind, reader]
            worst = min(score.by_subject, key=score.by_subject.get)
            row += [str(score.share), f"{np.mean(list(score.by_subject.values())):.2f}"]
            row += [f"{score.by_subject[worst]:.1f} ({worst})"]
        rows.append(row)
    name, count = judged[OWN, kinds[0], next(iter(readers))].units
    told = (
        f"Percent of the maps read rightly, with a 95 % interval that resamples {name} "
        f"(there are {count}); the mean over people; the worst of them. majority says the "
        "commonest training class, nearest what the most similar training map shows."
    )
    heads = [""]
    for kind in kinds:
        heads += [f"{kind}, %", "mean of people", "worst"]
    return f"{told}\n\n{table(heads, rows)}"


def table1(judged: Mapping[Key, Score], costs: Costs) -> str:
    """Accuracy of each classifier and what the six keypoint networks cost."""
    rows = []
    for name, cost in costs.networks.items():
        printed_ops, printed_params = PRINTED[name]
        speed = costs.speeds.get(name)
        row = [name]
        for reader, published in SLP.items():
            score = judged.get((OWN, "posture", reader))
            ours = f"{score.share.mean:.2f}" if score and name == ENCODER else "–"
            row.append(f"{published if name == ENCODER else '–'} / {ours}")
        row += [
            f"{printed_params} / {cost.counted.params / 1e6:.3f}",
            f"{printed_ops} / {cost.as_printed / 1e9:.3f}",
            f"{cost.counted.macs_nominal / 1e9:.3f}",
            f"{cost.counted.macs_exact / 1e9:.3f}",
        ]
        if costs.speeds:
            row += [f"{speed.p50_ms:.1f} / {speed.p95_ms:.1f}", f"{speed.maps_per_s:.1f}"]
            flops = 2 * cost.counted.macs_nominal
            row.append(f"{flops / (speed.p50_ms / 1e3) / costs.peak_flop_per_s:.1%}")
        rows.append(row)
    heads = ["", "GCN, %", "GAT, %", "GraphSAGE, %", "M parameters", "G operations"]
    heads += ["G MACs nominal", "G MACs exact"]
    if costs.speeds:
        heads += ["one map, p50 / p95 ms", "maps/s", "of peak"]
    told = (
        f"Published / here. Networks with one input channel at {SIZE[0]}x{SIZE[1]}, 14 joints for "
        "the supervised ones. **Percentages are not comparable**: the published ones are of SLP, "
        "which is not public, and ours of the data above; supervised networks need joints that "
        "these have not, so they are not trained here (the paper gives them 93.89 to 95.25 %). "
        "**Parameters**: the paper prints half of the true counts. **Operations** are comparable: "
        "the paper calls FLOPs the MACs of everything computed, also of what is dropped, and adds "
        "four for each normalised element and the taps that a transposed convolution has not; MACs "
        "*nominal* and *exact* are the true ones"
        + (
            ". Times: all networks in turns, batch 1 alone and batch 8 for maps/s, on the machine "
            "named below; *of peak*: nominal FLOPs per second over those of a large matrix product."
            if costs.speeds
            else "; --costs measured adds times."
        )
    )
    return f"{told}\n\n{table(heads, rows)}"


def table2(judged: Mapping[Key, Score], sets: Sets) -> str:
    """Percent right on mats that nothing was trained on."""
    mats = list(dict.fromkeys(where for where, _, _ in judged if where != OWN))
    if not mats:
        return (
            "No unseen mat was given; --unseen-pmd, --unseen-popu and --unseen-mat name prepared "
            "ones."
        )
    readers = list(dict.fromkeys(reader for where, _, reader in judged if where == mats[0]))
    rows = []
    for reader in readers:
        cells = [judged.get((mat, "posture", reader)) for mat in mats]
        published = f"{SMAL[reader]:.2f}" if reader in SMAL else "–"
        rows.append([reader, published, *(str(c.share) if c else "–" for c in cells)])
    heads = ["", "published, SMaL", *mats]
    told = [
        f"Trained on {sets.own.name} alone and asked about other mats, percent right with a 95 % "
        "interval. **Not comparable with the published column**: SMaL is not public, its people "
        "and mat are others. Maps of a posture that is not trained do not count."
    ]
    for mat in mats:
        told.append(f"- {mat}: {_described(mat, judged[mat, 'posture', readers[0]], sets)}")
    return "\n".join([*told, "", table(heads, rows)])


def _described(where: str, score: Score, sets: Sets) -> str:
    name = next(n for n in sets.unseen if where in {n + suffix for suffix in _BELOW})
    maps, counted = sets.unseen_maps[name], int(score.counts.sum())
    units, count = score.units
    told = (
        f"{counted} maps of {len(score.by_subject)} people, mat of {maps.mat.rows} x "
        f"{maps.mat.columns} cells {maps.mat.pitch_mm:g} mm apart; the interval resamples {count} "
        f"{units}{_BELOW[where.removeprefix(name)]}"
    )
    if where.endswith("_labelled"):
        told += f" ({', '.join(sets.labelled[name])})"
    left = len(maps) - counted
    return told + (f"; {left} maps left out" if where == name and left else "")


def arms(
    rebuilt: Mapping[tuple[Arm, str], Mapping[str, float]],
    read: Mapping[tuple[Arm, Labels], tuple[str, Score]],
) -> str:
    """How well each arm rebuilds maps, and what is read from its keypoints."""
    kinds = list(dict.fromkeys(kind for _, kind in read))
    rows = []
    for (arm, owner), scores in rebuilt.items():
        row = [arm, owner, *(f"{scores[name]:.4f}" for name in ("l2", "l1", "ssim"))]
        for kind in kinds:
            first = owner == next(o for a, o in rebuilt if a == arm)
            found = read.get((arm, kind)) if first else None
            row.append(f"{found[1].share} by {found[0]}" if found else "")
        rows.append(row)
    told = (
        "Rebuilding maps of people the encoder did not see, at the canonical grid's resolution "
        "(of `everyone`: of people it has seen). Arms after the first are trained once, without "
        "the people of the first encoder's folds, and read by one classifier."
    )
    return (
        f"{told}\n\n{table(['arm', 'encoder', 'L2', 'L1', 'SSIM', *kinds], rows, numbers_from=2)}"
    )


def speeds(costs: Costs) -> str:
    """From a map to a posture: how long it takes."""
    rows = [
        [name, f"{s.p50_ms:.2f}", f"{s.p95_ms:.2f}", f"{s.maps_per_s:.1f}"]
        for name, s in costs.speeds.items()
    ]
    return table(["", "one map, p50 ms", "p95 ms", "maps/s in batches of 8"], rows)


def confusions(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    """Counts of what was found (columns) where something is true (rows)."""
    parts = ["Rows are what is true, columns what was found."]
    for label, matrix in matrices.items():
        rows = [[name, *map(str, row)] for name, row in zip(names, matrix.tolist(), strict=True)]
        parts.append(table([label, *names], rows))
    return "\n\n".join(parts)


def people(judged: Mapping[Key, Score], reader: str) -> str:
    """Percent right by person, of one reader."""
    scores = {(where, kind): score for (where, kind, who), score in judged.items() if who == reader}
    rows = [
        [where, kind, ", ".join(f"{who} {share:.1f}" for who, share in score.by_subject.items())]
        for (where, kind), score in scores.items()
    ]
    return (
        f"By `{reader}`.\n\n{table(['set', 'labels', 'percent by person'], rows, numbers_from=3)}"
    )


def body_parts(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Where keypoints fall."""
    parts = list(next(iter(shares.values())))
    rows = [[who, *(f"{of[part]:.1%}" for part in parts)] for who, of in shares.items()]
    told = (
        "Share of the keypoints that lie in an outline of a body part (PoPu, over the mattress), "
        "beside the pressed cells there and the keypoints of an encoder with random weights. The "
        "outlines were drawn once for each pose, so this is a weak check."
    )
    return f"{told}\n\n{table(['', *parts], rows)}"


def clock(trainer: Trainer) -> str:
    """Seconds by activity."""
    rows = [[name, f"{s:.1f}"] for name, s in sorted(trainer.clock.seconds.items())]
    return table(["activity", "seconds"], rows)


def settings(values: Mapping[str, object]) -> str:
    """Lists settings."""
    rows = [
        [name, number(v) if isinstance(v, int | float) else str(v)] for name, v in values.items()
    ]
    return table(["setting", "value"], rows)
