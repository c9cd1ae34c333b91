"""The report of `python -m experiments.keypoint_posture`: Tables 1 and 2, claims and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import keypoint_posture_figures as draw
from experiments import keypoint_posture_parts as parts
from experiments import keypoint_posture_tables as tables
from experiments.keypoint_posture import Arm, Config, Labels
from experiments.keypoint_posture_claims import claims
from experiments.keypoint_posture_costs import Costs, measure
from experiments.keypoint_posture_course import Sets
from experiments.keypoint_posture_data import taken
from experiments.keypoint_posture_networks import Encoders, Nodes
from experiments.keypoint_posture_readers import Answers
from experiments.keypoint_posture_scores import (
    Key,
    Score,
    as_results,
    judge,
    judge_all,
    of_folds,
)
from jaxbed import report
from jaxbed.data.body_parts import FILE, read_outlines
from jaxbed.tasks.efd import code_statistics
from jaxbed.training.loop import Trainer

if TYPE_CHECKING:
    from experiments.keypoint_posture_study import Trained

_PART_MAPS = 400
_CODE_MAPS = 256
_ASKED = (
    "All with a network are asked about every map and its mirror image, and the mean of both "
    "answers counts. "
)


def write(config: Config, sets: Sets, trainer: Trainer, trained: Trained, answers: Answers) -> Path:
    """Judges the answers, counts and measures costs, and writes the workdir's report."""
    judged = judge_all(config, sets, answers)
    costs = measure(config, trained.system)
    owner = next(iter(sets.plan.seen))
    rebuilt = {arm: of for (arm, who), of in trained.rebuilt.items() if who == owner}
    read = read_by_arm(config, sets, answers)
    shares = body_part_shares(config, sets, trained)
    codes = {arm: _code(config, sets, trainer, trained, arm, owner) for arm in rebuilt}
    results = as_results(judged)
    for arm, scores in rebuilt.items():
        kept = {name: scores[name] for name in ("l2", "l1", "ssim")}
        results |= {f"{arm} {owner}/{k}": v for k, v in {**kept, **codes[arm][0]}.items()}
    for name, speed in costs.speeds.items():
        results |= {f"{name}/{k}": v for k, v in speed._asdict().items()}

    (config.workdir / "figures").mkdir(exist_ok=True)
    pictures = [
        draw.keypoints(config, sets, draw.shown_maps(sets), codes[config.arms[0]][1]),
        draw.scores(config, judged),
        draw.curves(config, owner),
    ]
    if "posture" in config.labels:
        names = sets.classes["posture"].names
        mats = dict.fromkeys(where for where, kind, _ in judged if kind == "posture")
        pictures += [draw.confusion(config, judged, where, names) for where in mats]
        pictures += filter(None, [draw.accuracy_cost(config, judged, costs)])

    if "position" in config.labels:
        pictures.append(draw.positions(config, judged, sets.classes["position"].names))
    about = f"{sets.own.name}, {sets.plan.description}"
    return report.write_report(
        config.workdir,
        experiment="keypoint_posture",
        summary=_summary(config, sets),
        data=report.Data(
            name=sets.own.name,
            split=sets.plan.description,
            subjects_shared=sets.plan.subjects_shared,
            train=len(sets.train),
            test=sum(len(sets.tested_on(fold)) for fold in sets.plan.folds),
            simulated=config.data == "simulated",
        ),
        results=results,
        models={name: cost.counted for name, cost in costs.networks.items()} | costs.readers,
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        published=report.read_published(Path(__file__).with_name("claims.csv"), paper="efd_crwt"),
        claims=claims(config, judged, costs.networks, rebuilt, about=about),
        why_missing="what it is about was not trained; --arms and --classifiers name it, and "
        "experiments.efd_crwt measures stage 1",
        figures=pictures,
        sections=_sections(config, sets, trainer, trained, judged, costs, read, shares),
    )


def _sections(
    config: Config,
    sets: Sets,
    trainer: Trainer,
    trained: Trained,
    judged: dict[Key, Score],
    costs: Costs,
    read: dict[tuple[Arm, Labels], tuple[str, Score]],
    shares: dict[str, dict[str, float]],
) -> dict[str, str]:
    best = "ordered" if "ordered" in config.classifiers else config.classifiers[-1]
    sections = {
        "People held out": tables.accuracy(judged),
        "Table 1: accuracy beside the cost of keypoints": tables.table1(judged, costs),
        "Table 2: mats never seen": tables.table2(judged, sets),
    }
    if costs.speeds:
        sections["From a map to a posture"] = tables.speeds(costs)
    sections["Encoders"] = tables.arms(trained.rebuilt, read)
    if shares:
        sections["Where keypoints fall"] = tables.body_parts(shares)
    sections["By person"] = tables.people(judged, best)
    for kind, classes in sets.classes.items():
        where = {key[0]: score.counts for key, score in judged.items() if key[1:] == (kind, best)}
        sections[f"Confusion of {kind}s by {best}"] = tables.confusions(where, classes.names)
    sections["Where the time went"] = tables.clock(trainer)
    return sections


def read_by_arm(
    config: Config, sets: Sets, answers: Answers
) -> dict[tuple[Arm, Labels], tuple[str, Score]]:
    """Judges one classifier on every arm, on the folds of the first encoder."""
    found = {}
    owner = next(iter(sets.plan.seen))
    mine = [sets.tested_on(fold) for fold in sets.plan.folds if fold.encoder == owner]
    mine = np.concatenate(mine)
    for arm in config.arms:
        for kind, classes in sets.classes.items():
            said = dict(of_folds(config, sets, answers, arm, kind))
            reader = "ordered" if "ordered" in said else next(iter(said))
            maps, labels = said[reader]
            inside = np.isin(maps, mine)
            score = judge(
                *(sets.own, kind, maps[inside], labels[inside]),
                classes=len(classes.names),
                seed=config.seed,
            )
            found[arm, kind] = (reader, score)
    return found


def body_part_shares(config: Config, sets: Sets, trained: Trained) -> dict[str, dict[str, float]]:
    """Tells where keypoints fall on PoPu; empty where it was not given."""
    folder = config.unseen_popu or (config.data_dir if config.data == "popu" else None)
    if folder is None or not (folder / FILE).is_file():
        return {}
    over = config.data == "popu"
    maps = sets.maps if over else sets.unseen_maps.get("popu_over")
    pressure = sets.own.pressure if over else sets.unseen["popu_over"].pressure
    if maps is None:
        return {}
    chosen = np.arange(0, len(maps), max(1, len(maps) // _PART_MAPS))
    some, outlines, find = taken(maps, chosen), read_outlines(folder), Nodes(config)
    arm, owner = next(reversed([key for key in trained.variables if key[0] == config.arms[0]]))
    encoders = {
        f"keypoints ({owner})": trained.variables[arm, owner],
        "keypoints, random encoder": Encoders(config, None).fresh(arm),
    }
    shares = {
        who: parts.shares(
            some,
            parts.places_mm(
                some, config.canonical, find(variables, pressure[chosen]), config.image_size
            ),
            outlines,
        )
        for who, variables in encoders.items()
    }
    return {**shares, "pressed cells": parts.shares(some, parts.pressed_mm(some), outlines)}


def _code(
    config: Config, sets: Sets, trainer: Trainer, trained: Trained, arm: Arm, owner: str
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns what the code of an arm's first encoder is like, and its outputs to be drawn."""
    phase, variables = trained.phases[arm, owner], trained.variables[arm, owner]
    tested = np.concatenate(
        [sets.tested_on(fold) for fold in sets.plan.folds if fold.encoder == owner]
    )
    some = tested[:: max(1, len(tested) // _CODE_MAPS)]
    outputs = trainer.predict(phase, variables, {"pressure": sets.own.pressure[some]})
    shown = {"pressure": sets.own.pressure[draw.shown_maps(sets)]}
    return code_statistics(outputs), trainer.predict(phase, variables, shown)


def _summary(config: Config, sets: Sets) -> str:
    height, width = config.image_size
    jitter = (
        f"shifts of up to {config.shift_mm[0]:g} and {config.shift_mm[1]:g} mm, turns of "
        f"{config.roll_deg:g} degrees, stretches by {config.scale:g}, sensor gains of "
        f"{config.gain:g}, exponents of {config.gamma:g} (logarithms), {config.dead:.0%} dead "
        f"sensors, {'mirrored' if config.mirror else 'never mirrored'}"
    )
    held = (
        "**The encoders saw the maps of test subjects**, without labels. "
        if config.encoder_sees_all
        else "Each encoder is trained without the people its folds test on. "
    )
    return (
        "Postures are read from 128 keypoints of a pressure map that nobody annotated. An encoder "
        f"(EFD, arm {config.arms[0]}) learns to rebuild maps through its keypoints, without "
        f"labels, and is frozen; classifiers of keypoints are trained on {config.copies} changed "
        f"copies of every training map. {held}gcn, gat and sage are the paper's; *_id* gives every "
        "keypoint a learned identity, *ordered* is a perceptron on the keypoints in order. A GCN "
        "on the complete graph averages all keypoints in its first layer, so it cannot tell who "
        "said what. Beside them stand the commonest class, the most similar training map, the "
        "ordered perceptron on a random encoder, and a small network trained from scratch (cnn). "
        f"{_ASKED if config.ask_mirrored else ''}"
        f"Canonical frame: {' '.join(config.canonical) or 'none'}; augmentation: {jitter}. "
        f"Encoder {height}x{width} (the paper: 256x256), {config.stage1_steps} + "
        f"{config.stage2_steps} steps of {config.batch_size} maps; {config.gcn_steps} steps of "
        f"{config.classifier_batch_size} for gcn, {config.ordered_steps} for ordered, "
        f"{config.sage_steps} for sage, {config.cnn_steps} for cnn, {config.gat_steps} of a "
        f"quarter as many for gat; one map in {config.thin[0]} of a "
        f"recording is trained on, one in {config.thin[1]} tested. Encoders: "
        f"{len(sets.plan.seen)}; seed {config.seed}."
    )
