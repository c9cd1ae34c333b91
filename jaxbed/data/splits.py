"""Who is trained on and who is tested on."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxbed.errors import InputError

Protocol = Literal["subject", "paper"]
"""How examples are divided: no person on both sides, or as the paper did."""


class Split(NamedTuple):
    """Indices of the two sides.

    Attributes:
        train: i64[n], ascending.
        test: i64[m], ascending, disjoint from `train`.
        description: one phrase for reports.
        subjects_shared: whether a subject is on both sides.
    """

    train: np.ndarray
    test: np.ndarray
    description: str
    subjects_shared: bool


def by_subject(subject: np.ndarray, test_subjects: Sequence[str]) -> Split:
    """Puts whole subjects on either side.

    Args:
        subject: str[N], who an example shows.
        test_subjects: the subjects to test on.

    Raises:
        InputError: a named subject is not in the data, or a side would be empty.
    """
    known = sorted(set(subject.tolist()))
    unknown = sorted(set(test_subjects) - set(known))
    if unknown:
        raise InputError(
            f"test subjects {unknown} are not in the data, which holds {known}; name some of those."
        )
    is_test = np.isin(subject, list(test_subjects))
    if is_test.all() or not is_test.any():
        raise InputError(
            f"a split by subject needs a subject on either side, but {sorted(test_subjects)} "
            f"of {known} are to be tested on; choose other test subjects."
        )
    tested = sorted(set(test_subjects))
    return checked(
        Split(
            np.flatnonzero(~is_test),
            np.flatnonzero(is_test),
            f"by subject: {len(known) - len(tested)} trained on, {len(tested)} tested on",
            subjects_shared=False,
        ),
        subject,
        protocol="subject",
    )


def by_example(subject: np.ndarray, *, test_fraction: float, seed: int) -> Split:
    """Divides examples at random, as papers do that do not mention subjects."""
    order = np.random.default_rng(seed).permutation(len(subject))
    cut = round(test_fraction * len(subject))
    test, train = np.sort(order[:cut]), np.sort(order[cut:])
    shared = bool(set(subject[train]) & set(subject[test]))
    name = f"by example, {test_fraction:.0%} tested on, seed {seed}"
    return checked(Split(train, test, name, shared), subject, protocol="paper")


def by_time(subject: np.ndarray, recording: np.ndarray, *, train_fraction: float) -> Split:
    """Trains on the first part of every recording and tests on the rest.

    Args:
        subject: str[N], who a frame shows.
        recording: str[N], of which recording it is; in order of time within one.
        train_fraction: share of a recording's frames to train on.
    """
    is_train = np.zeros(len(recording), bool)
    for name in dict.fromkeys(recording.tolist()):
        frames = np.flatnonzero(recording == name)
        is_train[frames[: round(train_fraction * len(frames))]] = True
    description = f"by time, the first {train_fraction:.0%} of every recording trained on"
    split = Split(np.flatnonzero(is_train), np.flatnonzero(~is_train), description, True)
    return checked(split, subject, protocol="paper")


def checked(split: Split, subject: np.ndarray, *, protocol: Protocol) -> Split:
    """Returns the split, or refuses it.

    Raises:
        InputError: an example or, outside the paper's protocol, a subject is on both sides.
    """
    if np.intersect1d(split.train, split.test).size:
        raise InputError("the split tests on examples it trains on; make the sides disjoint.")
    shared = sorted(set(subject[split.train].tolist()) & set(subject[split.test].tolist()))
    if shared and protocol != "paper":
        raise InputError(
            f"the split trains and tests on the same subjects ({', '.join(shared[:5])}); split "
            "by subject, or ask for --protocol paper, whose report says so."
        )
    return split._replace(subjects_shared=bool(shared))
