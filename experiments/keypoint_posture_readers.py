"""What reads postures in `python -m experiments.keypoint_posture`, and how that is trained.

Readers are the classifiers of keypoints and, beside them, what they have to beat with a network:
`random_ordered`, the ordered perceptron on the keypoints of an encoder that was never trained;
`cnn`, a small network trained on the maps themselves; `finetuned`, encoder and perceptron
together. N maps, k classes.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from scipy.special import logsumexp

from experiments.efd_crwt_study import schedule
from experiments.keypoint_posture import Arm, Config, Labels
from experiments.keypoint_posture_data import PITCH_MM, Classes, Posed
from experiments.keypoint_posture_networks import (
    FineTuned,
    SmallCNN,
    Variables,
    classifier_of,
    efd_of,
    frozen_part,
    jitter_of,
    key_of,
)
from jaxbed.tasks.keypoint_posture import maps_task, nodes_task
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise
from jaxbed.whole_files import write_whole

RANDOM, CNN, TUNED = "random_ordered", "cnn", "finetuned"

_WATCHED = 128  # maps that show the course of training


class Answers:
    """Keeps what readers said, one file each: what is there need not be trained again."""

    def __init__(self, workdir: Path):
        self._folder = workdir / "answers"

    def has(self, name: str) -> bool:
        """Tells whether an answer is kept."""
        return self._path(name).is_file()

    def get(self, name: str) -> np.ndarray:
        """Returns logits f32[N,k]."""
        return np.load(self._path(name))

    def put(self, name: str, logits: np.ndarray) -> None:
        """Keeps logits, whole or not at all."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.save(file, logits)

        write_whole(path, write)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"


class Readers:
    """Trains readers. All folds of a reader share its programs and its initial weights."""

    def __init__(self, config: Config, trainer: Trainer, classes: Mapping[Labels, Classes]):
        self._config, self._trainer, self._classes = config, trainer, classes
        self._tx = optax.flatten(optax.scale_by_adam())
        size, jitter = config.image_size, jitter_of(config)
        self._nodes_task = nodes_task()
        self._maps_tasks = {
            kind: maps_task(size, jitter, pitch_mm=PITCH_MM, mirrored_label=of.mirrored.tolist())
            for kind, of in classes.items()
        }
        self._initial: dict[tuple[str, Labels], Variables] = {}

    def train(
        self,
        phase: Phase,
        reader: str,
        kind: Labels,
        train: Mapping[str, Any],
        encoder: Variables,
    ) -> Variables:
        """Trains a reader.

        Args:
            phase: of this reader.
            reader: its name.
            kind: of label.
            train: `label` and `nodes` or `pressure`.
            encoder: where `finetuned` starts from.

        Returns:
            Its variables.
        """
        watch = _watched(train)
        train = _filled_up(train, phase.batch_size)
        initial = self._first_variables(phase, reader, kind, train, encoder)
        return self._trainer.fit(phase, train, watch, lambda: initial).variables

    def ask(self, phase: Phase, variables: Variables, arrays: Mapping[str, Any]) -> np.ndarray:
        """Returns the logits f32[N,k] of a trained reader for `nodes` or `pressure`."""
        count = len(next(iter(arrays.values())))
        labelled = {**arrays, "label": np.zeros(count, np.int32)}
        return self._trainer.predict(phase, variables, labelled)["logits"]

    def forget(self, phase: Phase) -> None:
        """Removes the checkpoints of a reader whose answers are kept."""
        shutil.rmtree(self._trainer.workdir / "checkpoints" / phase.name, ignore_errors=True)

    def phase(self, name: str, reader: str, kind: Labels, arm: Arm) -> Phase:
        """Describes how a reader of one kind of label is trained."""
        config = self._config
        return Phase(
            name=name,
            network=self._network(reader, kind, arm),
            task=self._maps_tasks[kind] if reads_maps(reader) else self._nodes_task,
            tx=self._tx,
            learning_rates=schedule(config.classifier_learning_rate, steps_of(config, reader)),
            batch_size=batch_size_of(config, reader),
            seed=config.seed,
        )

    def _network(self, reader: str, kind: Labels, arm: Arm) -> nn.Module:
        classes, axis = len(self._classes[kind].names), self._trainer.devices.axis_name
        if reader == CNN:
            return SmallCNN(classes, axis_name=axis)
        if reader == TUNED:
            efd = efd_of(self._config, arm, axis_name=axis)
            return FineTuned(efd, classifier_of("ordered", classes, axis))
        return classifier_of("ordered" if reader == RANDOM else reader, classes, axis)

    def _first_variables(
        self, phase: Phase, reader: str, kind: Labels, train: Mapping[str, Any], encoder: Variables
    ) -> Variables:
        """Draws a reader's variables, the same for every fold; `finetuned` has its encoder's."""
        if (reader, kind) not in self._initial:
            shape = (*self._config.image_size, 1)
            if not reads_maps(reader):
                shape = train["nodes"][:1].shape[1:]
            example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
            drawn = initialise(phase.network, key_of(self._config), example)
            self._initial[reader, kind] = jax.device_get(drawn)
        variables = self._initial[reader, kind]
        if reader != TUNED:
            return variables
        trained = frozen_part(encoder)
        return {part: {**tree, "efd": trained[part]} for part, tree in variables.items()}


def reads_maps(reader: str) -> bool:
    """Tells whether a reader is given maps instead of keypoints."""
    return reader in (CNN, TUNED)


def readers_of(config: Config) -> tuple[str, ...]:
    """Names all readers of a run."""
    return (*config.classifiers, RANDOM, CNN, *((TUNED,) if config.finetune else ()))


def steps_of(config: Config, reader: str) -> int:
    """Returns how many steps a reader is trained."""
    kind = {RANDOM: "ordered", TUNED: "cnn"}.get(reader, reader.removesuffix("_id"))
    return getattr(config, f"{kind}_steps")


def batch_size_of(config: Config, reader: str) -> int:
    """Returns how many maps a reader is shown in a step."""
    return config.classifier_batch_size // (4 if reader.startswith("gat") else 1)


def agreed(said: Sequence[np.ndarray], classes: Classes) -> np.ndarray:
    """Joins what a reader says of maps and, if that was asked, of their mirror images.

    Args:
        said: logits f32[N,k] of the maps and perhaps of the mirrored ones.
        classes: what each is in a mirror.

    Returns:
        f32[N,k], logarithms of probabilities: the mean of both, which no mirror changes.
    """
    sure = [one - logsumexp(one, axis=1, keepdims=True) for one in said]
    if len(sure) == 1:
        return sure[0]
    return (sure[0] + sure[1][:, classes.mirrored]) / 2


def labelled_maps(posed: Posed, kind: Labels, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Returns `pressure` and `label` of some maps, those without a class left out."""
    chosen = chosen[posed.label[kind][chosen] >= 0]
    return {"pressure": posed.pressure[chosen], "label": posed.label[kind][chosen]}


def _watched(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a few training examples, at even distances."""
    count = len(arrays["label"])
    chosen = np.unique(np.linspace(0, count - 1, min(count, _WATCHED)).astype(int))
    return {name: array[chosen] for name, array in arrays.items()}


def _filled_up(arrays: Mapping[str, Any], batch_size: int) -> Mapping[str, Any]:
    """Repeats examples where there are fewer than a batch."""
    count = len(arrays["label"])
    if count >= batch_size:
        return arrays
    rows = np.resize(np.arange(count), batch_size)
    return {name: array[rows] for name, array in arrays.items()}
