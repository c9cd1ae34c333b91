"""Trains the tiny network with a loss that divides each example's error by its weight, once 0."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxbed import cli  # noqa: E402
from jaxbed.training.step import Execution  # noqa: E402
from tests import tiny  # noqa: E402

BAD = 5
"""The example whose weight is 0."""


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: Annotated[Path, tyro.conf.Positional]
    place: Literal["loss", "gradient", "loop", "input", "masked"] = "loss"
    parallel: Literal["jit", "pmap"] = "jit"
    micro_batches: int = 1
    steps_per_dispatch: int = 1


def weighted(error, batch, place):
    weight = batch["weight"]
    if place == "loss":
        return error / weight  # the quotient
    if place == "gradient":
        # Finite itself; its derivative at 0 is not.
        return error + jnp.sqrt(weight * error)  # the root
    if place == "loop":

        def turn(i, total):
            return total + 1 / (weight + (i != 2))  # in a loop

        return error * jax.lax.fori_loop(0, 4, turn, jnp.zeros_like(weight))
    # The logarithm of 0 is hidden, the one of -1 is not.
    masked = jnp.where(weight > 0, jnp.log(weight), 0.0)
    return error + masked + jnp.log(2 * weight - 1)  # in the open


def faulty(place):
    def loss(outputs, batch):
        error, parts = tiny.TASK.loss(outputs, batch)
        if place == "input":
            return error, parts
        return weighted(error, batch, place), parts

    return tiny.TASK._replace(loss=loss)


def arrays(place):
    examples = tiny.examples()
    weight = np.ones(len(examples["value"]), np.float32)
    weight[BAD] = 0
    if place == "input":
        examples["value"][BAD] = np.nan
    return {**examples, "weight": weight}


def main(config):
    execution = Execution(config.micro_batches, config.steps_per_dispatch)
    run = tiny.trainer(config.workdir, parallel=config.parallel, execution=execution, log_every=6)
    phase = tiny.phase(steps=12, axis_name=run.devices.axis_name)
    phase = dataclasses.replace(phase, task=faulty(config.place))
    watch = {name: array[:BAD] for name, array in arrays(config.place).items()}
    run.fit(phase, arrays(config.place), watch, lambda: tiny.variables(phase))


cli.run(main, Config, doc=__doc__)
