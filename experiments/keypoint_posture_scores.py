"""How well postures were read, and how sure that is. N maps, k classes; shares in percent."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from experiments.keypoint_posture import Arm, Config, Labels
from experiments.keypoint_posture_course import Sets, answer_name, compared
from experiments.keypoint_posture_data import Posed
from experiments.keypoint_posture_folds import EVERYONE
from experiments.keypoint_posture_readers import CNN, Answers, readers_of
from experiments.sleep_posture_scores import Interval, resampled
from jaxbed import baselines

MAJORITY, NEAREST = "majority", "nearest"
OWN = "own"
"""Name of the set that is trained on, in a test of people held out."""

_FEWEST_UNITS = 5
_NEIGHBOUR_PX = (64, 32)


class Score(NamedTuple):
    """What one reader got right on one set.

    Attributes:
        share: of the maps, with an interval over `units`.
        by_subject: share by subject.
        counts: i64[k,k], rows are what is true, columns what was found.
        units: what the interval resamples, and how many of them there are.
    """

    share: Interval
    by_subject: dict[str, float]
    counts: np.ndarray
    units: tuple[str, int]


Key = tuple[str, Labels, str]
"""(set, kind of label, reader); the set is OWN, the name of an unseen mat, or that name with
`_others` (people of it whose labels are not seen) or `_labelled` (these, others' labels seen)."""


def judge_all(
    config: Config, sets: Sets, answers: Answers, *, within: str = ""
) -> dict[Key, Score]:
    """Judges everything the first arm's readers were asked."""
    arm, judged = config.arms[0], {}
    for kind in config.labels:
        found = dict(of_folds(config, sets, answers, arm, kind, within=within))
        found |= _plain_on_folds(sets, kind) if found else {}
        for reader, (maps, said) in found.items():
            classes = len(sets.classes[kind].names)
            judged[OWN, kind, reader] = judge(
                sets.own, kind, maps, said, classes=classes, seed=config.seed
            )
        for name, strange in sets.unseen.items():
            if kind in strange.label:
                judged |= _on_unseen(config, sets, answers, name, kind, within)
    return judged


def of_folds(
    config: Config, sets: Sets, answers: Answers, arm: Arm, kind: Labels, *, within: str = ""
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yields, for every reader of an arm, the maps it was asked about and what it found."""
    owner = next(iter(sets.plan.seen))
    for reader in compared(config, arm):
        maps, found = [], []
        for fold in sets.plan.folds:
            asked = arm == config.arms[0] or fold.encoder == owner
            if fold.name != EVERYONE and asked:
                name = answer_name(arm, kind, reader, fold.name, within=within)
                maps.append(sets.tested_on(fold))
                found.append(answers.get(f"{name}/{OWN}").argmax(axis=1))
        if maps:
            yield reader, (np.concatenate(maps), np.concatenate(found))


def _plain_on_folds(sets: Sets, kind: Labels) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Asks baselines without a network about every fold."""
    maps, found = [], {MAJORITY: [], NEAREST: []}
    for fold in sets.plan.folds:
        if fold.name != EVERYONE:
            tested = sets.tested_on(fold)
            maps.append(tested)
            known = sets.train[sets.trained_on(fold)]
            for name, labels in plain_readers(sets.own, kind, known, sets.own.pressure[tested]):
                found[name].append(labels)
    asked = np.concatenate(maps)
    return {name: (asked, np.concatenate(parts)) for name, parts in found.items()}


def _on_unseen(
    config: Config, sets: Sets, answers: Answers, name: str, kind: Labels, within: str
) -> dict[Key, Score]:
    strange, judged = sets.unseen[name], {}
    classes = len(sets.classes[kind].names)
    everybody, hidden = np.arange(len(strange)), np.flatnonzero(sets.without_labels(name))

    def said(reader: str, fold: str) -> np.ndarray:
        asked = answer_name(config.arms[0], kind, reader, fold, within=within)
        return answers.get(f"{asked}/{name}").argmax(axis=1)

    def put(where: str, reader: str, maps: np.ndarray, found: np.ndarray) -> None:
        score = judge(strange, kind, maps, found, classes=classes, seed=config.seed)
        judged[where, kind, reader] = score

    found = {reader: said(reader, EVERYONE) for reader in readers_of(config)}
    found |= dict(plain_readers(sets.own, kind, sets.train, strange.pressure))
    for reader, labels in found.items():
        put(name, reader, everybody, labels)
    if sets.labelled[name] and kind == "posture":
        for reader in (*config.classifiers, CNN):
            put(f"{name}_others", reader, hidden, found[reader][hidden])
            put(f"{name}_labelled", reader, hidden, said(reader, f"labelled_{name}"))
    return judged


def plain_readers(
    own: Posed, kind: Labels, known: np.ndarray, pressure: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields what is found without a network: the commonest class, and the most similar map's.

    Args:
        own: the set that is trained on.
        kind: of label.
        known: i64[n], its training maps.
        pressure: f32[N,R,C], what to find i32[N] for.
    """
    known = known[own.label[kind][known] >= 0]
    label = own.label[kind][known]
    yield MAJORITY, baselines.majority(label, len(pressure))
    alike = baselines.nearest_neighbour(own.pressure[known], pressure, size=_NEIGHBOUR_PX)
    yield NEAREST, label[alike]


def judge(
    posed: Posed, kind: Labels, maps: np.ndarray, found: np.ndarray, *, classes: int, seed: int
) -> Score:
    """Compares what was found i32[n] on some maps i64[n] with what is true.

    Maps of a class that the reader does not know do not count.
    """
    counted = posed.label[kind][maps] >= 0
    maps, found = maps[counted], found[counted]
    true, subject = posed.label[kind][maps], posed.subject[maps]
    right = 100.0 * (found == true)
    name, unit = sampling_units(posed, maps)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true, found), 1)
    return Score(
        share=resampled(right, unit, seed=seed),
        by_subject={
            who: float(right[subject == who].mean()) for who in dict.fromkeys(subject.tolist())
        },
        counts=counts,
        units=(name, len(np.unique(unit))),
    )


def sampling_units(posed: Posed, maps: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns what an interval resamples, by name, and the unit of every map.

    A person's maps are alike, so people are resampled; where there are fewer than five,
    recordings; and where those are few too, maps, whose interval is then too narrow.
    """
    for name, unit in {"people": posed.subject, "recordings": posed.recording}.items():
        if len(set(unit[maps].tolist())) >= _FEWEST_UNITS:
            return name, unit[maps]
    return "maps", np.arange(len(maps)).astype(str)


def as_results(judged: Mapping[Key, Score]) -> dict[str, float]:
    """Names every share and its interval: "reader/set_kind_pct"."""
    results = {}
    for (where, kind, reader), score in judged.items():
        name = kind if where == OWN else where if kind == "posture" else f"{where}_{kind}"
        results[f"{reader}/{name}_pct"] = score.share.mean
        results[f"{reader}/{name}_pct_low"] = score.share.low
        results[f"{reader}/{name}_pct_high"] = score.share.high
    return results
