"""A network and a task small enough to train in a test, with everything a real one has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxbed import losses
from jaxbed.metrics import Average
from jaxbed.models.layers import BatchNorm
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise
from jaxbed.training.step import Devices
from jaxbed.training.task import Task


class TinyNet(nn.Module):
    """A convolution, batch normalisation and a linear layer."""

    features: int = 4
    axis_name: str | None = None
    norm: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(self.features, (3, 3), use_bias=False)(x)
        if self.norm:
            x = BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return {"value": nn.Dense(1)(nn.relu(x).mean(axis=(1, 2)))[:, 0]}


def _prepare(batch, keys, train):
    image = batch["image"]
    if train:  # augmentation: noise of every example's own
        image += 0.01 * jax.vmap(lambda k: jax.random.normal(k, image.shape[1:]))(keys)
    return {**batch, "input": image}


def _loss(outputs, batch):
    error = losses.l2(outputs["value"][:, None], batch["value"][:, None])
    return error, {"absolute": jnp.sqrt(error)}


def _metrics(outputs, batch):
    return {"value": Average.from_model_output(values=outputs["value"], mask=batch["mask"])}


TASK = Task(_prepare, _loss, _metrics)
TX = optax.flatten(optax.scale_by_adam())


def examples(count=24, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, 8, 8, 1)).astype(np.float32)
    return {"image": image, "value": image.mean((1, 2, 3)) * 8}


def phase(steps=8, *, features=4, learning_rate=0.01, axis_name=None, name="tiny", batch_size=4):
    return Phase(
        name=name,
        network=TinyNet(features, axis_name),
        task=TASK,
        tx=TX,
        learning_rates=np.full(steps, learning_rate, np.float32),
        batch_size=batch_size,
        seed=3,
    )


def variables(phase):
    return initialise(phase.network, jax.random.key(1), jnp.zeros((1, 8, 8, 1)))


def trainer(workdir, *, resume=False, parallel="jit", devices=None, execution=None, **every):
    every = {"log_every": 2, "eval_every": 4, "save_every": 2, **every}
    workdir.mkdir(parents=True, exist_ok=True)
    devices = Devices(parallel, devices, execution)
    return Trainer(workdir, devices, resume=resume, quick_compile=True, **every)
