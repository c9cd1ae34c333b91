"""One step of training, for one device or many.

Two ways to share a batch between devices. "jit" shards it along a mesh axis and lets the
compiler insert the reductions: the network sees the global batch. "pmap" runs one program
per device and averages by hand; batch normalisation must be told the axis. Both compute what
a single device computes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxbed.training.state import TrainState
from jaxbed.training.task import Batch, Task

AXIS = "data"
"""Name of the axis the batch is split over."""

# Folded into a step's key for what the network draws; no example has this number.
_DROPOUT = 2**32 - 1

Metrics = dict[str, Any]
Parallel = Literal["jit", "pmap"]


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    learning_rate: jax.Array,
    *,
    network: nn.Module,
    task: Task,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one optimiser step.

    The learning rate is an argument, not part of `tx`: a schedule then needs no compilation
    of its own, and stages that differ in nothing else share one.

    Args:
        state: is updated; donate it.
        batch: the task's fields and `index`.
        key: the run's PRNG key; what this step draws depends on it and on `state.step`.
        learning_rate: f32[].
        network: takes `input` and `train`. What it draws from the stream `dropout` is drawn per
            device under pmap, so only there does it differ from what one device draws.
        task: loss and input of the network.
        tx: maps gradients to ascent directions (`optax.scale_by_adam()` and the like).
        axis_name: the mapped axis under pmap.

    Returns:
        The next state, and f32[] values: loss, its parts, gradient norm.
    """
    key = jax.random.fold_in(key, state.step)
    batch = task.prepare(batch, example_keys(key, batch), True)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), device)}

    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        outputs, updates = network.apply(
            variables, batch["input"], train=True, mutable=["batch_stats"], rngs=rngs
        )
        per_example, parts = task.loss(outputs, batch)
        means = {name: jnp.mean(value) for name, value in parts.items()}
        return jnp.mean(per_example), (means, updates.get("batch_stats", {}))

    (loss, (parts, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params
    )
    if axis_name is not None:
        gradients, loss, parts = jax.lax.pmean((gradients, loss, parts), axis_name)
    direction, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
    state = TrainState(state.step + 1, params, batch_stats, opt_state)
    return state, {"loss": loss, **parts, "gradient_norm": optax.tree.norm(gradients)}


def example_keys(key: jax.Array, batch: Batch) -> jax.Array:
    """Gives every example of the global batch its own key."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["index"])


class Devices:
    """Places states and batches on devices and runs steps there.

    Attributes:
        parallel: "jit" or "pmap".
        count: number of devices that share a batch.
        replicated: the sharding of what every device holds whole.
        split: the sharding of what is divided along its first axis.
    """

    def __init__(self, parallel: Parallel = "jit", devices: list | None = None):
        self.parallel = parallel
        self._devices = devices or jax.devices()
        self.count = len(self._devices)
        # Auto axes: with explicit ones (the default of newer JAX) sharding becomes part of
        # every array's type, and losses that index by integer labels stop tracing.
        mesh = jax.make_mesh(
            (self.count,), (AXIS,), axis_types=(AxisType.Auto,), devices=self._devices
        )
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(AXIS))

    @property
    def axis_name(self) -> str | None:
        """What networks are told as `axis_name`."""
        return AXIS if self.parallel == "pmap" else None

    def put_state(self, state: TrainState) -> TrainState:
        """Copies a state to every device."""
        if self.parallel == "pmap":
            return jax.tree.map(
                lambda x: jax.device_put(
                    np.broadcast_to(np.asarray(x), (self.count, *np.shape(x))), self.split
                ),
                state,
            )
        return jax.device_put(state, self.replicated)

    def get(self, tree: Any) -> Any:
        """Returns a replicated tree, a state or metrics, without the device axis."""
        if self.parallel == "pmap":
            return jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return tree

    def put_batch(self, batch: dict[str, np.ndarray], *, train: bool) -> Batch:
        """Splits a host batch over the devices and numbers its examples."""
        size = len(next(iter(batch.values())))
        batch = {**batch, "index": np.arange(size, dtype=np.int32)}
        if train and self.parallel == "pmap":
            batch = {k: v.reshape(self.count, -1, *v.shape[1:]) for k, v in batch.items()}
        return jax.device_put(batch, self.split)

    def train_step(self, network: nn.Module, task: Task, tx) -> Callable:
        """Compiles `train_step` for these devices, the state donated."""
        step = partial(train_step, network=network, task=task, tx=tx, axis_name=self.axis_name)
        if self.parallel == "pmap":
            # The learning rate and the key are the same on every device.
            return jax.pmap(step, AXIS, in_axes=(0, 0, None, None), donate_argnums=0)
        return jax.jit(
            step,
            in_shardings=(self.replicated, self.split, None, None),
            out_shardings=(self.replicated, self.replicated),
            donate_argnums=0,
        )
