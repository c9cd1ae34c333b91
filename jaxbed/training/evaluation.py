"""Evaluation: every example once, at what it costs to look at it once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from jaxbed.metrics import Average
from jaxbed.training.step import Devices, Metrics, example_keys
from jaxbed.training.task import Batch, Outputs, Task


def predict(
    variables: Any, batch: Batch, *, network: nn.Module, task: Task
) -> tuple[Outputs, Batch]:
    """Runs a network on a batch as evaluation sees it.

    Returns:
        The network's outputs, and the batch as the task prepared it.
    """
    batch = task.prepare(batch, example_keys(jax.random.key(0), batch), False)
    return network.apply(variables, batch["input"], train=False), batch


def measure(outputs: Outputs, batch: Batch, *, task: Task) -> Metrics:
    """Measures a prediction; examples with `mask` 0 do not count.

    Returns:
        The loss and the task's metrics, each with `merge` and `compute`.
    """
    per_example, _ = task.loss(outputs, batch)
    loss = Average.from_model_output(values=per_example, mask=batch["mask"])
    return {"loss": loss, **task.metrics(outputs, batch)}


def predict_program(devices: Devices, network: nn.Module, task: Task) -> Callable:
    """Jits `predict` for some devices; the variables have no device axis."""
    return jax.jit(
        partial(predict, network=network, task=task),
        in_shardings=(devices.replicated, devices.split),
        out_shardings=devices.split,
    )


def measure_program(devices: Devices, task: Task) -> Callable:
    """Jits `measure` for some devices."""
    # Sums are all that evaluation exchanges, and jit shards those by itself.
    return jax.jit(
        partial(measure, task=task),
        in_shardings=devices.split,
        out_shardings=devices.replicated,
    )
