"""What the posture study optimises: keypoints that follow a body, and postures read from them.

B batch, R C sensor rows and columns of the mat, H W network pixels, K keypoints, D numbers of a
keypoint. A batch holds `pressure` f32[B,R,C] in [0, 1] in the canonical frame, or `nodes`
f32[B,K,D], and where postures are learned `label` i32[B]. Augmentation is made on the device,
in millimetres and degrees, so that it means the same on every mat.

Source: Yu et al. (see jaxbed.models.efd) for the two stages and the classifiers; augmentation,
and the target that it leaves alone, are ours.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxbed.metrics import Average
from jaxbed.tasks.efd import to_network
from jaxbed.training.task import Batch, Outputs, Task


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How far a training map may be from the one that was measured.

    Attributes:
        shift_mm: largest shift (down, across), either way.
        roll_deg: largest turn about the middle of the mat, either way.
        scale: largest stretch, as a logarithm, down and across by themselves.
        gain: standard deviation of every sensor's own gain, as a logarithm.
        gamma: largest exponent on the pressure, as a logarithm: a harder or softer mattress.
        dead: largest share of sensors that read 0.
        mirror: whether half of the maps are mirrored; left and right change places then.
    """

    shift_mm: tuple[float, float] = (127.0, 101.6)
    roll_deg: float = 12.0
    scale: float = 0.12
    gain: float = 0.15
    gamma: float = 0.25
    dead: float = 0.02
    mirror: bool = True


STILL = Jitter((0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, mirror=False)
"""Leaves every map as it was measured."""


def jittered(
    pressure: jax.Array, key: jax.Array, jitter: Jitter, *, pitch_mm: float
) -> tuple[jax.Array, jax.Array]:
    """Changes a map as another night, another body or another mat would.

    Args:
        pressure: f32[R,C] in [0, 1].
        key: PRNG key.
        jitter: how much.
        pitch_mm: distance between neighbouring sensors.

    Returns:
        f32[R,C] in [0, 1], what leaves the mat being lost; and bool[], whether it is mirrored.
    """
    keys = jax.random.split(key, 7)
    mirrored = jnp.logical_and(jax.random.bernoulli(keys[0]), jitter.mirror)
    pressure = jnp.where(mirrored, pressure[:, ::-1], pressure)

    def either_way(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    shift = either_way(keys[1], (2,)) * jnp.asarray(jitter.shift_mm) / pitch_mm
    turn = jnp.deg2rad(jitter.roll_deg) * either_way(keys[2])
    stretch = jnp.exp(jitter.scale * either_way(keys[3], (2,)))
    moved = _moved(pressure, shift, turn, stretch)

    gain = jnp.exp(jitter.gain * jax.random.normal(keys[4], moved.shape))
    dead_key, share_key = jax.random.split(keys[5])
    alive = jax.random.uniform(dead_key, moved.shape) >= jitter.dead * jax.random.uniform(share_key)
    gamma = jnp.exp(jitter.gamma * either_way(keys[6]))
    read = jnp.clip(moved * gain, 0, 1)
    # A power has no slope at 0, where most sensors are.
    read = jnp.where(read > 0, jnp.where(read > 0, read, 1.0) ** gamma, 0.0)
    return jnp.where(alive, read, 0.0), mirrored


def _moved(pressure: jax.Array, shift: jax.Array, turn: jax.Array, stretch: jax.Array) -> jax.Array:
    """Stretches, turns and shifts a map about its middle, in this order; interpolates linearly."""
    rows, columns = pressure.shape
    middle = jnp.array([(rows - 1) / 2, (columns - 1) / 2])
    row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    down, across = row - middle[0] - shift[0], column - middle[1] - shift[1]
    source = [
        (jnp.cos(turn) * down + jnp.sin(turn) * across) / stretch[0] + middle[0],
        (jnp.cos(turn) * across - jnp.sin(turn) * down) / stretch[1] + middle[1],
    ]
    return jax.scipy.ndimage.map_coordinates(pressure, source, order=1, mode="constant")


def looking_through(task: Task, size: tuple[int, int], jitter: Jitter, *, pitch_mm: float) -> Task:
    """Makes a network say of a jittered map what the map was before.

    The target keeps the mirror and nothing else of the jitter. To rebuild it the keypoints must
    follow the body instead of describing places on the mat.

    Args:
        task: one of jaxbed.tasks.efd, of this size; its own shifts are not used.
        size: (height, width) of the network's input.
        jitter: how the input is changed in training.
        pitch_mm: of the mat.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        seen = target = batch["pressure"]
        if train:
            seen, mirrored = _all_jittered(target, keys, jitter, pitch_mm)
            target = jnp.where(mirrored[:, None, None], target[..., ::-1], target)
        prepared = task.prepare({**batch, "pressure": target}, keys, False)
        return {**prepared, "target": prepared["input"], "input": to_network(seen, size)}

    def loss(outputs: Outputs, batch: Batch):
        return task.loss(outputs, {**batch, "input": batch["target"]})

    return Task(prepare, loss, task.metrics)


def rebuilding_as_seen(
    task: Task, size: tuple[int, int], jitter: Jitter, *, pitch_mm: float
) -> Task:
    """Makes a network rebuild the jittered map it was given, as the paper's does.

    Args: as those of `looking_through`.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        if train:
            seen, _ = _all_jittered(batch["pressure"], keys, jitter, pitch_mm)
            batch = {**batch, "pressure": seen}
        return task.prepare(batch, keys, False)

    return Task(prepare, task.loss, task.metrics)


def nodes_of(outputs: Outputs) -> jax.Array:
    """Lays EFD's `keypoints` f32[B,K,3] and `keypoint_features` f32[B,K,F] side by side."""
    return jnp.concatenate([outputs["keypoints"], outputs["keypoint_features"]], axis=-1)


def nodes_task() -> Task:
    """Cross-entropy of the posture that a classifier reads from keypoints."""

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        return {**batch, "input": batch["nodes"]}

    return Task(prepare, _cross_entropy, _accuracy)


def maps_task(
    size: tuple[int, int], jitter: Jitter, *, pitch_mm: float, mirrored_label: Sequence[int]
) -> Task:
    """Cross-entropy of the posture that a network reads from maps.

    Args:
        size: (height, width) of the network's input.
        jitter: how maps are changed in training.
        pitch_mm: of the mat.
        mirrored_label: what every class is in a mirror.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        pressure, label = batch["pressure"], batch["label"]
        if train:
            pressure, mirrored = _all_jittered(pressure, keys, jitter, pitch_mm)
            label = jnp.where(mirrored, jnp.asarray(mirrored_label)[label], label)
        return {**batch, "label": label, "input": to_network(pressure, size)}

    return Task(prepare, _cross_entropy, _accuracy)


def _all_jittered(
    pressure: jax.Array, keys: jax.Array, jitter: Jitter, pitch_mm: float
) -> tuple[jax.Array, jax.Array]:
    def change(one: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jittered(one, key, jitter, pitch_mm=pitch_mm)

    return jax.vmap(change)(pressure, keys)


def _cross_entropy(outputs: Outputs, batch: Batch):
    entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], batch["label"])
    return entropy, {}


def _accuracy(outputs: Outputs, batch: Batch) -> Mapping[str, Average]:
    hit = (jnp.argmax(outputs["logits"], axis=-1) == batch["label"]).astype(jnp.float32)
    return {"accuracy": Average.from_model_output(values=hit, mask=batch["mask"])}
