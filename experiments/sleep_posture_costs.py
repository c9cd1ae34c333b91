"""What the arms of the sleep posture study cost: counted, and measured in turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.sleep_posture import Arm, Config
from experiments.sleep_posture_networks import example, network_of, shapes_of
from jaxbed import report
from jaxbed.efficiency.clocks import Comparison, compare
from jaxbed.efficiency.count import count, count_params
from jaxbed.training.evaluation import predict
from jaxbed.training.state import quick_compilation, start
from jaxbed.training.step import Devices

if TYPE_CHECKING:
    from experiments.sleep_posture_study import Sides, Trained

_PUBLISHED_SIZE = (224, 224)
_PUBLISHED_WIDTH = 64
_PREDICT_ROUNDS = 30
_TRAIN_ROUNDS = 8


class Costs(NamedTuple):
    """What every arm costs.

    Attributes:
        trained: counted, at the trained size and width.
        published: counted, at the paper's.
        stepped: a training step, augmentation included.
        predicted: one image, from grey levels to logits.
    """

    trained: dict[Arm, report.ModelCost]
    published: dict[Arm, report.ModelCost]
    stepped: dict[Arm, Comparison]
    predicted: dict[Arm, Comparison]


def measure(
    config: Config, devices: Devices, sides: Sides, trained: Mapping[Arm, Trained]
) -> Costs:
    """Counts and measures one run of every arm."""
    whole = dataclasses.replace(config, width=_PUBLISHED_WIDTH)
    return Costs(
        trained={arm: cost_of(config, arm, config.image_size) for arm in trained},
        published={arm: cost_of(whole, arm, _PUBLISHED_SIZE) for arm in trained},
        stepped=time_training(config, devices, sides, trained),
        predicted=time_prediction(config, sides, trained),
    )


def cost_of(config: Config, arm: Arm, size: tuple[int, int]) -> report.ModelCost:
    """Counts an arm of the configured width at one size."""
    network = network_of(config, arm)
    variables = shapes_of(network, size)
    macs = count(lambda v, x: network.apply(v, x, train=False), variables, example(size))
    params = count_params(variables["params"])
    return report.ModelCost(params, macs.macs_nominal, macs.macs_exact)


class Stepper:
    """A run's training step, taken again and again: the program that trained it."""

    def __init__(self, devices: Devices, trained: Trained, batch: Any, options: Any):
        phase, rate = trained.phase, np.float32(trained.phase.learning_rates[-1])
        state = devices.put_state(start(trained.variables, phase.tx))
        rest = (devices.put_batch(batch, train=True), jax.random.key(phase.seed), rate)
        step = devices.train_step(phase.network, phase.task, phase.tx)
        # Lowered as the trainer does, so that the program comes from the compilation cache.
        self._compiled = step.lower(state, *rest).compile(options)
        self._state, self._rest = state, rest

    def __call__(self) -> Any:
        """Takes a step; returns what it logs."""
        self._state, metrics = self._compiled(self._state, *self._rest)
        return metrics


def time_training(
    config: Config, devices: Devices, sides: Sides, trained: Mapping[Arm, Trained]
) -> dict[Arm, Comparison]:
    """Measures a training step of every run, augmentation included, all in turns."""
    from experiments.sleep_posture_study import weighted

    batch = {name: array[: config.batch_size] for name, array in sides.train.items()}
    batch = weighted(batch, config.blanket_weight)
    options = quick_compilation() if config.quick_compile else None
    steppers = {name: Stepper(devices, run, batch, options) for name, run in trained.items()}
    return compare(steppers, rounds=_TRAIN_ROUNDS, warm_up=1)


def time_prediction(
    config: Config, sides: Sides, trained: Mapping[Arm, Trained]
) -> dict[Arm, Comparison]:
    """Measures one image through every run's network, from grey levels to logits, in turns."""
    from experiments.sleep_posture_study import weighted

    one = weighted({name: array[:1] for name, array in sides.test.items()}, config.blanket_weight)
    one = jax.device_put({**one, "index": jnp.zeros(1, jnp.int32)})
    options = quick_compilation() if config.quick_compile else None
    variants = {}
    for name, run in trained.items():
        network = run.phase.network
        apply = partial(_outputs, network=network, task=run.phase.task)
        apply = jax.jit(apply, compiler_options=options)
        variants[name] = partial(apply, jax.device_put(run.variables), one)
    return compare(variants, rounds=_PREDICT_ROUNDS)


def _outputs(variables: Any, batch: Any, **how: Any) -> Any:
    return predict(variables, batch, **how)[0]
