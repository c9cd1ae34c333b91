"""The networks of `python -m experiments.keypoint_posture` and how encoders are trained.

B batch, R C cells of a map, H W network pixels, K keypoints, D numbers of a node.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from experiments.efd_crwt_study import OUTPUT_LAYER, schedule
from experiments.keypoint_posture import Arm, Classifier, Config
from experiments.keypoint_posture_data import PITCH_MM
from jaxbed.data.batches import eval_batches
from jaxbed.models.efd import EFD
from jaxbed.models.keypoint_graphs import GraphClassifier
from jaxbed.models.layers import BatchNorm, Conv
from jaxbed.tasks import efd, keypoint_posture
from jaxbed.tasks.efd import to_network
from jaxbed.tasks.keypoint_posture import Jitter, nodes_of
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise, quick_compilation
from jaxbed.training.transfer import transfer

ID_WIDTH = 64
"""Channels that nodes of learned identity start with."""

_CHUNK = 128  # maps that are encoded at a time

Variables = dict[str, Any]


class Ordered(nn.Module):
    """A perceptron that knows which number is whose: one hidden layer on all nodes.

    Attributes:
        classes: postures.
        width: of the hidden layer.
        dropout: share of nodes' numbers, and of hidden ones, dropped in training.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
    """

    classes: int
    width: int = 256
    dropout: tuple[float, float] = (0.3, 0.5)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps f32[B,K,D] to `logits` f32[B,classes]."""
        x = x.reshape(len(x), -1)
        # Standardised by themselves: a keypoint that moves by a cell is one that moved.
        norm = BatchNorm(use_running_average=not train, axis_name=self.axis_name, name="norm")
        x = nn.Dropout(self.dropout[0], deterministic=not train)(norm(x))
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        x = nn.Dropout(self.dropout[1], deterministic=not train)(x)
        return {"logits": nn.Dense(self.classes, name="output")(x)}


class SmallCNN(nn.Module):
    """What a few convolutions make of a map when they may see labels from the start.

    Attributes:
        classes: postures.
        widths: channels of the convolutions, each of which halves the map.
        dropout: share dropped before and after the hidden layer.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128)
    dropout: float = 0.4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps f32[B,H,W,1] to `logits` f32[B,classes]."""
        for i, width in enumerate(self.widths):
            x = Conv(width, (3, 3), padding=1, use_bias=False, name=f"conv{i}")(x)
            norm = BatchNorm(
                use_running_average=not train, axis_name=self.axis_name, name=f"norm{i}"
            )
            x = _halved(nn.relu(norm(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        x = nn.relu(nn.Dense(self.widths[-1], name="hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": nn.Dense(self.classes, name="output")(x)}


def _halved(x: jax.Array) -> jax.Array:
    """Takes the maximum of every 2 x 2 pixels; the gradient of a window reduction would scatter."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


class FineTuned(nn.Module):
    """An encoder and a classifier that are trained together."""

    efd: EFD
    classifier: nn.Module

    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps f32[B,H,W,1] to `logits` f32[B,classes]."""
        return self.classifier(find_nodes(self.efd, x, train=train), train=train)


def find_nodes(network: EFD, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Finds the nodes f32[B,K,D] of maps f32[B,H,W,1]."""
    return nodes_of(network.fuser(**network.encoder(x, train=train)))


def classifier_of(name: Classifier, classes: int, axis_name: str | None = None) -> nn.Module:
    """Builds a classifier of nodes."""
    if name == "ordered":
        return Ordered(classes, axis_name=axis_name)
    kind, _, identity = name.partition("_")
    return GraphClassifier(kind, classes, id_width=ID_WIDTH if identity else 0, axis_name=axis_name)


def efd_of(config: Config, arm: Arm, outputs: int = 1, axis_name: str | None = None) -> EFD:
    """Builds an arm's network with 2 (stage 1) or 1 output channels."""
    return EFD(
        size=config.image_size,
        outputs=outputs,
        decoder_features=config.decoder_features,
        sharpness=config.sharpness,
        dilation=arm != "no_dilation",
        exchange=arm != "no_exchange",
        normalise_code=True,
        axis_name=axis_name,
    )


def jitter_of(config: Config) -> Jitter:
    """Collects the augmentation's settings."""
    return Jitter(
        shift_mm=config.shift_mm,
        roll_deg=config.roll_deg,
        scale=config.scale,
        gain=config.gain,
        gamma=config.gamma,
        dead=config.dead,
        mirror=config.mirror,
    )


def key_of(config: Config) -> jax.Array:
    """Returns the PRNG key of initial weights."""
    # The generator of quick compilation draws other numbers on other kinds of device.
    return jax.random.key(config.seed, impl="rbg" if config.quick_compile else "threefry2x32")


class Encoders:
    """Trains encoders; tasks and optimiser are made once, so that all share their programs."""

    def __init__(self, config: Config, axis_name: str | None):
        self._config, self._axis_name = config, axis_name
        size, jitter = config.image_size, jitter_of(config)
        change = (
            keypoint_posture.looking_through
            if config.rebuild == "canonical"
            else keypoint_posture.rebuilding_as_seen
        )
        still = {"max_shift": (0, 0)}
        contact = efd.contact_task(size, contact_threshold=config.contact_threshold, **still)
        rebuilding = efd.reconstruction_task(
            size, l2_weight=config.l2_weight, ssim_weight=config.ssim_weight, **still
        )
        self._contact = change(contact, size, jitter, pitch_mm=PITCH_MM)
        self._rebuilding = change(rebuilding, size, jitter, pitch_mm=PITCH_MM)
        self._tx = optax.flatten(optax.scale_by_adam())

    def phase(self, arm: Arm, name: str, stage: int) -> Phase:
        """Describes a stage of what is called `name`; stage 1 of the arm plain rebuilds already."""
        config = self._config
        classify = stage == 1 and arm != "plain"
        steps = config.stage1_steps if stage == 1 else config.stage2_steps
        return Phase(
            name=f"{name}/stage{stage}",
            network=efd_of(config, arm, 2 if classify else 1, self._axis_name),
            task=self._contact if classify else self._rebuilding,
            tx=self._tx,
            learning_rates=schedule(config.learning_rate, steps),
            batch_size=config.batch_size,
            seed=config.seed,
        )

    def fresh(self, arm: Arm, outputs: int = 1) -> Variables:
        """Draws the variables of an arm's network."""
        network = efd_of(self._config, arm, outputs, self._axis_name)
        image = jax.ShapeDtypeStruct((1, *network.size, 1), jnp.float32)
        return initialise(network, key_of(self._config), image)

    def train(
        self, trainer: Trainer, arm: Arm, name: str, pressure: np.ndarray, watched: np.ndarray
    ) -> tuple[Variables, dict[str, float]]:
        """Trains one encoder without labels.

        Args:
            trainer: of the run.
            arm: its kind.
            name: whose it is.
            pressure: f32[N,R,C], what it sees.
            watched: f32[M,R,C], maps by which the course of training is told.

        Returns:
            The variables of the whole network, and the rebuilding scores of `watched`.
        """
        first, second = (self.phase(arm, name, stage) for stage in (1, 2))
        train, watch = {"pressure": pressure}, {"pressure": watched}
        state = trainer.fit(first, train, watch, lambda: self.fresh(arm, first.network.outputs))
        same = first.network.outputs == second.network.outputs
        variables, _ = transfer(
            state.variables, self.fresh(arm), fresh=() if same else OUTPUT_LAYER
        )
        state = trainer.fit(second, train, watch, lambda: variables)
        return state.variables, trainer.evaluate(second, state.variables, watch)


class Nodes:
    """Finds the keypoints of many maps with a frozen encoder; compiled once for all encoders."""

    def __init__(self, config: Config):
        # The decoder, in which arms differ, is not used.
        network, size = efd_of(config, config.arms[0]), config.image_size
        jitter, key = jitter_of(config), jax.random.key(config.seed)

        def find(variables: Variables, pressure: jax.Array) -> jax.Array:
            return network.apply(variables, to_network(pressure, size), method=find_nodes)

        def find_jittered(variables: Variables, pressure: jax.Array, number: jax.Array):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
            change = partial(keypoint_posture.jittered, jitter=jitter, pitch_mm=PITCH_MM)
            changed, mirrored = jax.vmap(change)(pressure, keys)
            return find(variables, changed), mirrored

        options = quick_compilation() if config.quick_compile else None
        self._find = jax.jit(find, compiler_options=options)
        self._find_jittered = jax.jit(find_jittered, compiler_options=options)

    def __call__(self, variables: Variables, pressure: np.ndarray) -> np.ndarray:
        """Returns f32[N,K,D] for maps f32[N,R,C]."""
        variables = jax.device_put(frozen_part(variables))
        (nodes,) = in_chunks(lambda maps: (self._find(variables, maps),), pressure)
        return nodes

    def of_copies(
        self, variables: Variables, pressure: np.ndarray, copies: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the keypoints of maps and of changed copies of them.

        Args:
            variables: of the encoder.
            pressure: f32[N,R,C].
            copies: M, of every map; the same for every encoder.

        Returns:
            f32[(1+M)N,K,D], the maps themselves and then the copies, all maps once a time; and
            bool[(1+M)N], which of them are mirrored.
        """
        variables = jax.device_put(frozen_part(variables))
        nodes, mirrored = [self(variables, pressure)], [np.zeros(len(pressure), bool)]
        for copy in range(copies):
            number = np.arange(len(pressure), dtype=np.int32) + copy * len(pressure)
            found = in_chunks(partial(self._find_jittered, variables), pressure, number)
            nodes.append(found[0])
            mirrored.append(found[1])
        return np.concatenate(nodes), np.concatenate(mirrored)


def frozen_part(variables: Mapping[str, Any]) -> Variables:
    """Leaves out the decoder."""
    kept = ("encoder", "fuser")
    return {
        collection: {part: tree[part] for part in kept if part in tree}
        for collection, tree in variables.items()
    }


def in_chunks(
    function: Callable[..., Sequence[jax.Array]], *arrays: np.ndarray
) -> list[np.ndarray]:
    """Applies a compiled function to arrays of N, always to equally many, and joins its results."""
    parts = []
    for batch in eval_batches(dict(enumerate(arrays)), batch_size=_CHUNK):
        mask = batch.pop("mask") > 0
        found = function(*(batch[i] for i in range(len(arrays))))
        parts.append([np.asarray(part)[mask] for part in found])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
