"""One step of training, for one device or many.

Two ways to share a batch between devices. "jit" shards it along a mesh axis and lets the
compiler insert the reductions: the network sees the global batch. "pmap" runs one program
per device and averages by hand; batch normalisation must be told the axis. Both compute what
a single device computes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbed.training.state import TrainState
from jaxbed.training.task import Batch, Task

AXIS = "data"
"""Name of the axis the batch is split over."""

# Folded into a step's key for what the network draws; no example has this number.
_DROPOUT = 2**32 - 1

Metrics = dict[str, Any]
Parallel = Literal["jit", "pmap"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How steps are computed on the devices.

    Attributes:
        micro_batches: parts of a batch that are computed one after the other, their gradients
            averaged, for batches that do not fit. Part i takes every micro_batches-th example
            from the i-th on. Batch normalisation sees one part at a time, so with it the result
            is that of smaller batches; without it, that of the whole one.
        steps_per_dispatch: steps that the host starts at once, for networks whose steps are
            shorter than it takes to start one. Not worth it on a CPU, where XLA computes
            convolutions inside of loops on one core.
        remat: recompute in the backward pass what lies between convolutions and products,
            which takes about half of the memory of activations, and more time.
    """

    micro_batches: int = 1
    steps_per_dispatch: int = 1
    remat: bool = False


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
    execution: Execution | None = None,
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
        execution: micro-batches and rematerialisation; by default neither.

    Returns:
        The next state, and f32[] values: loss, its parts, gradient norm.
    """
    execution = execution or Execution()
    key = jax.random.fold_in(key, state.step)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    dropout = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), device)

    def loss_fn(params, batch_stats, batch, rngs):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updates = network.apply(
            variables, batch["input"], train=True, mutable=["batch_stats"], rngs=rngs
        )
        per_example, parts = task.loss(outputs, batch)
        means = {name: jnp.mean(value) for name, value in parts.items()}
        return jnp.mean(per_example), (means, updates.get("batch_stats", {}))

    if execution.remat:
        loss_fn = jax.checkpoint(loss_fn, policy=jax.checkpoint_policies.dots_saveable)

    def gradients_of(batch, keys, batch_stats, dropout):
        batch = task.prepare(batch, keys, True)
        (loss, (parts, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch_stats, batch, {"dropout": dropout}
        )
        return (gradients, loss, parts), batch_stats

    shares = (batch, example_keys(key, batch))
    if execution.micro_batches == 1:
        means, batch_stats = gradients_of(*shares, state.batch_stats, dropout)
    else:
        means, batch_stats = _averaged(
            gradients_of, shares, state.batch_stats, dropout, execution.micro_batches
        )
    if axis_name is not None:
        means = jax.lax.pmean(means, axis_name)
    gradients, loss, parts = means
    direction, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
    state = TrainState(state.step + 1, params, batch_stats, opt_state)
    return state, {"loss": loss, **parts, "gradient_norm": optax.tree.norm(gradients)}


def _averaged(
    gradients_of: Callable, shares: Any, batch_stats: Any, dropout: jax.Array, count: int
) -> tuple[Any, Any]:
    """Averages over `count` parts of a batch; every part takes its share of every device."""

    def split(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1)

    def add(carried, numbered):
        (batch_stats, total), (number, share) = carried, numbered
        own = jax.random.fold_in(dropout, number)
        found, batch_stats = gradients_of(*share, batch_stats, own)
        return (batch_stats, jax.tree.map(jnp.add, total, found)), None

    parts = jax.tree.map(split, shares)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes, _ = jax.eval_shape(gradients_of, *first, batch_stats, dropout)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (batch_stats, total), _ = jax.lax.scan(add, (batch_stats, nothing), (jnp.arange(count), parts))
    return jax.tree.map(lambda x: x / count, total), batch_stats


def train_steps(
    state: TrainState,
    batches: Batch,
    key: jax.Array,
    learning_rates: jax.Array,
    *,
    step: Callable[..., tuple[TrainState, Metrics]],
) -> tuple[TrainState, Metrics]:
    """Takes several optimiser steps in one program: what as many calls of `step` would do.

    Args:
        state: is updated; donate it.
        batches: the batches of S steps, stacked in front.
        key: the run's PRNG key.
        learning_rates: f32[S].
        step: `train_step` with its settings.

    Returns:
        The state after S steps, and f32[S] values.
    """

    def take(state, inputs):
        batch, learning_rate = inputs
        return step(state, batch, key, learning_rate)

    return jax.lax.scan(take, state, (batches, learning_rates))


def example_keys(key: jax.Array, batch: Batch) -> jax.Array:
    """Gives every example of the global batch its own key."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["index"])


class Devices:
    """Places states and batches on devices and runs steps there.

    With several processes every one has its own devices and gives them its part of a batch;
    all hold the whole state.

    Attributes:
        parallel: "jit" or "pmap".
        count: number of devices that share a batch, those of all processes.
        part: which part of a batch this process gives, of how many.
        replicated: the sharding of what every device holds whole.
        split: the sharding of what is divided along its first axis.
        execution: how steps are computed.
    """

    def __init__(
        self,
        parallel: Parallel = "jit",
        devices: list | None = None,
        execution: Execution | None = None,
    ):
        self.parallel = parallel
        self.execution = execution or Execution()
        # By process, so that each process's part of a batch is in one piece.
        self._devices = sorted(devices or jax.devices(), key=lambda d: d.process_index)
        self.count = len(self._devices)
        processes = sorted({device.process_index for device in self._devices})
        self.part = (processes.index(jax.process_index()), len(processes))
        # Auto axes: with explicit ones (the default of newer JAX) sharding becomes part of
        # every array's type, and losses that index by integer labels stop tracing.
        self._mesh = Mesh(np.array(self._devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self._mesh, PartitionSpec())
        self.split = NamedSharding(self._mesh, PartitionSpec(AXIS))

    @property
    def axis_name(self) -> str | None:
        """What networks are told as `axis_name`."""
        return AXIS if self.parallel == "pmap" else None

    def on_this_process(self) -> "Devices":
        """Returns this process's own of these devices."""
        own = [d for d in self._devices if d.process_index == jax.process_index()]
        return Devices(self.parallel, own, self.execution)

    def put_state(self, state: TrainState) -> TrainState:
        """Copies a state to every device."""
        if self.parallel == "pmap":
            own = self.count // self.part[1]
            copies = jax.tree.map(lambda x: np.broadcast_to(x, (own, *np.shape(x))), state)
            return jax.make_array_from_process_local_data(self.split, copies)
        return self.put_whole(state)

    def put_whole(self, tree: Any) -> Any:
        """Copies a tree that every process has to every device, without a device axis."""
        if self.part[1] == 1:
            return jax.device_put(tree, self.replicated)

        # Not device_put, which has all processes compare every leaf.
        def put(x: Any) -> jax.Array:
            if isinstance(x, jax.Array) and x.sharding == self.replicated:
                return x
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, self.replicated, lambda part: x[part])

        return jax.tree.map(put, tree)

    def gather(self, tree: Any) -> Any:
        """Returns on the host what is split along its first axis, whole on every process."""
        if self.part[1] == 1:
            return jax.device_get(tree)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(tree, tiled=True)

    def get(self, tree: Any) -> Any:
        """Returns a replicated tree, a state or metrics, without the device axis."""
        if self.parallel == "pmap":
            return jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return tree

    def put_batch(self, batch: dict[str, np.ndarray], *, train: bool) -> Batch:
        """Splits this process's part of a batch over its devices and numbers the examples."""
        batch = {**batch, "index": self._numbers(batch)}
        if train and self.parallel == "pmap":
            own = self.count // self.part[1]
            batch = {k: v.reshape(own, -1, *v.shape[1:]) for k, v in batch.items()}
        return jax.make_array_from_process_local_data(self.split, batch)

    def put_batches(self, batches: list[dict[str, np.ndarray]]) -> Batch:
        """Stacks the batches of several training steps, and splits each as `put_batch` does."""
        index = {"index": self._numbers(batches[0])}
        stacked = jax.tree.map(lambda *x: np.stack(x), *[{**batch, **index} for batch in batches])
        if self.parallel == "pmap":
            shape = (len(batches), self.count // self.part[1], -1)
            stacked = {
                k: v.reshape(*shape, *v.shape[2:]).swapaxes(0, 1) for k, v in stacked.items()
            }
            return jax.make_array_from_process_local_data(self.split, stacked)
        split = NamedSharding(self._mesh, PartitionSpec(None, AXIS))
        return jax.make_array_from_process_local_data(split, stacked)

    def _numbers(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the places of this process's examples in the global batch."""
        size = len(next(iter(batch.values())))
        return np.arange(size, dtype=np.int32) + np.int32(self.part[0] * size)

    def train_step(self, network: nn.Module, task: Task, tx, *, several: bool = False) -> Callable:
        """Compiles `train_step`, or `train_steps`, for these devices, the state donated."""
        step = partial(
            train_step,
            network=network,
            task=task,
            tx=tx,
            axis_name=self.axis_name,
            execution=self.execution,
        )
        split = self.split
        if several:
            step = partial(train_steps, step=step)
            split = NamedSharding(self._mesh, PartitionSpec(None, AXIS))
        if self.parallel == "pmap":
            # The learning rate and the key are the same on every device.
            return jax.pmap(
                step, AXIS, in_axes=(0, 0, None, None), donate_argnums=0, devices=self._devices
            )
        return jax.jit(
            step,
            in_shardings=(self.replicated, split, None, None),
            out_shardings=(self.replicated, self.replicated),
            donate_argnums=0,
        )
