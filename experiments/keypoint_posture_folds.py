"""Who is trained on and who tested on in `python -m experiments.keypoint_posture`."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.keypoint_posture import Config
from jaxbed.data import splits
from jaxbed.errors import InputError

EVERYONE = "everyone"
"""The fold that holds nobody out: its system is kept, and meets the unseen mats."""


class Fold(NamedTuple):
    """One division of the maps.

    Attributes:
        name: unique.
        train: i64[n], maps whose labels classifiers see.
        test: i64[m], maps they are tested on; empty for EVERYONE.
        encoder: which encoder they stand on.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    encoder: str


class Plan(NamedTuple):
    """All folds of a run.

    Attributes:
        folds: EVERYONE is the last.
        seen: i64[n] by name of an encoder, the maps it is trained on, without labels.
        description: how the maps are divided, one phrase.
        subjects_shared: whether a subject is on both sides of a fold, labels seen.
    """

    folds: tuple[Fold, ...]
    seen: dict[str, np.ndarray]
    description: str
    subjects_shared: bool


def plan(subject: np.ndarray, config: Config) -> Plan:
    """Divides maps str[N] by their subjects.

    Raises:
        InputError: a side of a fold would be empty, or a named subject is not there.
    """
    everybody = np.arange(len(subject))
    if config.protocol == "paper":
        split = splits.by_example(subject, test_fraction=0.2, seed=config.seed)
        pairs = {"random": (split.train, split.test)}
        described, shared = split.description, split.subjects_shared
    else:
        groups = tested_groups(subject, config)
        cut = {name: splits.by_subject(subject, who) for name, who in groups.items()}
        pairs = {name: (split.train, split.test) for name, split in cut.items()}
        described, shared = _described(config, groups, subject), False
    if config.encoder_sees_all:
        owners = dict.fromkeys(pairs, EVERYONE)
        seen = {}
    else:
        count = min(config.encoders, len(pairs))
        owners = {name: f"encoder{i % count}" for i, name in enumerate(pairs)}
        held = {owner: [pairs[n][1] for n in pairs if owners[n] == owner] for owner in _in(owners)}
        seen = {o: np.setdiff1d(everybody, np.concatenate(out)) for o, out in held.items()}
    for owner, maps in seen.items():
        if not len(maps):
            raise InputError(
                f"--encoders is {config.encoders}, and {owner} would be trained on nobody since "
                "its folds test on everybody; take as many encoders as folds, "
                f"{len(pairs)}, or --encoder-sees-all."
            )
    folds = [Fold(name, *pair, owners[name]) for name, pair in pairs.items()]
    folds.append(Fold(EVERYONE, everybody, everybody[:0], EVERYONE))
    return Plan(tuple(folds), {**seen, EVERYONE: everybody}, described, shared)


def plan_for_all(subject: np.ndarray) -> Plan:
    """Holds nobody out: one encoder and one fold, EVERYONE."""
    everybody = np.arange(len(subject))
    fold = Fold(EVERYONE, everybody, everybody[:0], EVERYONE)
    return Plan((fold,), {EVERYONE: everybody}, "nobody held out", subjects_shared=False)


def tested_groups(subject: np.ndarray, config: Config) -> dict[str, list[str]]:
    """Names who is tested on in which fold."""
    people = natural(set(subject.tolist()))
    if len(people) < 2:
        raise InputError(
            f"all {len(subject)} maps are of {people[0]!r}, and a split by subject needs a "
            "subject on either side; add somebody else, or ask for --protocol paper."
        )
    if config.protocol == "leave_one_out":
        return {who: [who] for who in people}
    if config.protocol == "fixed":
        tested = list(config.test_subjects)
        if not tested and config.data == "pmd":
            tested = ["S11", "S12", "S13"]
        return {"fixed": tested or people[-max(1, len(people) // 5) :]}
    order = np.random.default_rng(config.seed).permutation(len(people))
    count = min(config.folds, len(people))
    return {f"fold{i}": natural(people[j] for j in order[i::count]) for i in range(count)}


def natural(names: Sequence[str]) -> list[str]:
    """Sorts names so that S2 comes before S10."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in _parts(name)])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _in(owners: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(owners.values()))


def _described(config: Config, groups: dict[str, list[str]], subject: np.ndarray) -> str:
    people = len(set(subject.tolist()))
    if config.protocol == "leave_one_out":
        return f"by subject, each of {people} tested on by classifiers of the others"
    if config.protocol == "fixed":
        (tested,) = groups.values()
        return f"by subject, {people - len(tested)} trained on, tested on {', '.join(tested)}"
    return f"by subject, {people} in {len(groups)} folds"
