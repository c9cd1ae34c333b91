"""What is trained and asked on top of one encoder of `python -m experiments.keypoint_posture`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.keypoint_posture import Arm, Config, Labels
from experiments.keypoint_posture_data import Classes, Posed
from experiments.keypoint_posture_folds import Fold, Plan
from experiments.keypoint_posture_networks import Variables
from experiments.keypoint_posture_readers import (
    CNN,
    RANDOM,
    Answers,
    Readers,
    agreed,
    labelled_maps,
    readers_of,
    reads_maps,
)
from experiments.keypoint_posture_views import Alternating, Asked, Through
from jaxbed.data.pressure import PressureMaps


class Sets(NamedTuple):
    """All maps of a run.

    Attributes:
        maps: what is trained on, as it was read.
        own: the same maps in the canonical frame.
        classes: by kind of label.
        unseen_maps: mats that nothing is trained on, by name, as they were read.
        unseen: the same in the canonical frame; of finer classes those that are trained too.
        plan: who is trained and tested on.
        train: i64[n], maps of `own` that stand for their recordings in training.
        test: i64[m], likewise in testing.
        labelled: by name of an unseen mat, whose labels may be seen (--labelled-subjects).
    """

    maps: PressureMaps
    own: Posed
    classes: dict[Labels, Classes]
    unseen_maps: dict[str, PressureMaps]
    unseen: dict[str, Posed]
    plan: Plan
    train: np.ndarray
    test: np.ndarray
    labelled: dict[str, list[str]]

    def trained_on(self, fold: Fold) -> np.ndarray:
        """Returns the training maps of a fold, as indices into `train`."""
        return np.flatnonzero(np.isin(self.train, fold.train))

    def tested_on(self, fold: Fold) -> np.ndarray:
        """Returns the maps of `own` that a fold tests on."""
        return np.intersect1d(self.test, fold.test)

    def without_labels(self, name: str) -> np.ndarray:
        """Returns bool[N]: the maps of an unseen mat whose labels are never seen."""
        return ~np.isin(self.unseen[name].subject, self.labelled[name])


@dataclasses.dataclass(frozen=True)
class Course:
    """All that is trained on top of one encoder.

    Attributes:
        config: the settings.
        sets: the maps.
        readers: train readers.
        answers: where to keep what they say.
        arm: the encoder's kind.
        through: what the encoder finds on the training maps.
        untrained: what an encoder with random weights finds on them.
        within: put in front of all names.
    """

    config: Config
    sets: Sets
    readers: Readers
    answers: Answers
    arm: Arm
    through: Through
    untrained: Through
    within: str = ""

    def test_fold(self, fold: Fold) -> None:
        """Trains on a fold's subjects and asks about the others."""
        asked = Asked({"own": self.sets.own.pressure[self.sets.tested_on(fold)]})
        for kind in self.config.labels:
            for reader in compared(self.config, self.arm):
                self._run(reader, kind, fold.name, self._own(fold), asked)

    def meet_strangers(self, fold: Fold) -> dict[str, Variables]:
        """Trains on everybody, asks about unseen mats, and returns the classifiers of postures."""
        kept = {}
        for kind in self.config.labels:
            asked = Asked(
                {n: of.pressure for n, of in self.sets.unseen.items() if kind in of.label}
            )
            for reader in readers_of(self.config):
                keep = kind == "posture" and reader in self.config.classifiers
                if keep or asked.maps:
                    found = self._run(reader, kind, fold.name, self._own(fold), asked, keep=keep)
                    kept |= {reader: found} if keep else {}
        for name, who in self.sets.labelled.items():
            if who:
                self._learn_mat(name, fold)
        return kept

    def _learn_mat(self, name: str, fold: Fold) -> None:
        """Trains on some subjects of an unseen mat too, and asks about the others."""
        strange, hidden = self.sets.unseen[name], self.sets.without_labels(name)
        known, label = np.flatnonzero(~hidden), strange.label["posture"]
        asked = Asked({name: strange.pressure[hidden]})
        own = self._own(fold)
        copies = functools.cache(lambda: self.through.copies_of(strange.pressure[known]))

        def both(reader: str, kind: Labels) -> Mapping[str, Any]:
            if reads_maps(reader):
                theirs = labelled_maps(strange, kind, known)
            else:
                everything = np.arange(len(known))
                theirs = copies().of(everything, label[known], self.sets.classes[kind])
            ours = own(reader, kind)
            return {what: Alternating(ours[what], theirs[what]) for what in ours}

        for reader in (*self.config.classifiers, CNN):
            self._run(reader, "posture", f"labelled_{name}", both, asked)

    def _own(self, fold: Fold) -> Callable[[str, Labels], Mapping[str, Any]]:
        """Returns what tells what a reader is trained on in a fold."""
        chosen = self.sets.trained_on(fold)

        def arrays(reader: str, kind: Labels) -> Mapping[str, Any]:
            if reads_maps(reader):
                return labelled_maps(self.sets.own, kind, self.sets.train[chosen])
            label = self.sets.own.label[kind][self.sets.train]
            through = self.untrained if reader == RANDOM else self.through
            return through.training.of(chosen, label, self.sets.classes[kind])

        return arrays

    def _run(
        self,
        reader: str,
        kind: Labels,
        fold: str,
        train: Callable[[str, Labels], Mapping[str, Any]],
        asked: Asked,
        *,
        keep: bool = False,
    ) -> Variables | None:
        """Trains one reader and keeps its answers, unless they are there already.

        Args:
            reader: its name.
            kind: of label.
            fold: its name.
            train: (reader, kind) -> what it is trained on.
            asked: what to ask about.
            keep: whether its variables are wanted, and its checkpoints kept.

        Returns:
            Its variables, where wanted.
        """
        name = answer_name(self.arm, kind, reader, fold, within=self.within)
        if not keep and all(self.answers.has(f"{name}/{what}") for what in asked.maps):
            return None
        phase = self.readers.phase(name, reader, kind, self.arm)
        arrays = train(reader, kind)
        variables = self.readers.train(phase, reader, kind, arrays, self.through.variables)
        through = self.untrained if reader == RANDOM else self.through
        for what in asked.maps:
            said = []
            for mirrored in (False, True)[: 1 + self.config.ask_mirrored]:
                if reads_maps(reader):
                    shown = {"pressure": asked.pressure(what, mirrored=mirrored)}
                else:
                    shown = {"nodes": asked.nodes(what, through, mirrored=mirrored)}
                said.append(self.readers.ask(phase, variables, shown))
            self.answers.put(f"{name}/{what}", agreed(said, self.sets.classes[kind]))
        if not keep:
            self.readers.forget(phase)
        return variables if keep else None


def answer_name(arm: Arm, kind: Labels, reader: str, fold: str, *, within: str = "") -> str:
    """Names a reader of a fold; the set that is asked about comes behind it."""
    return f"{within}{arm}/{kind}/{reader}/{fold}"


def compared(config: Config, arm: Arm) -> Sequence[str]:
    """Names the readers on an arm: on all but the first one classifier, for comparison."""
    if arm == config.arms[0]:
        return readers_of(config)
    return ("ordered",) if "ordered" in config.classifiers else config.classifiers[:1]
