"""What the networks of the pressure pose study cost: counted, and measured in turns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.pressure_pose import Arm, Config
from experiments.pressure_pose_networks import cost_of, published_cost
from experiments.sleep_posture_costs import Stepper
from jaxbed import report
from jaxbed.efficiency.clocks import Comparison, compare
from jaxbed.tasks.pressure_pose import Frame
from jaxbed.training.evaluation import predict
from jaxbed.training.state import quick_compilation
from jaxbed.training.step import Devices

if TYPE_CHECKING:
    from experiments.pressure_pose_study import Sides, Trained

_PREDICT_ROUNDS = 40
_TRAIN_ROUNDS = 8
_NEAR = 0.05  # of the printed figure


class Costs(NamedTuple):
    """What every arm costs.

    Attributes:
        trained: counted, as trained.
        published: counted, as published, at 256x256.
        stepped: a training step, augmentation and targets included.
        predicted: one map, from pressure to joints.
    """

    trained: dict[Arm, report.ModelCost]
    published: dict[Arm, report.ModelCost]
    stepped: dict[Arm, Comparison]
    predicted: dict[Arm, Comparison]


def measure(
    config: Config,
    devices: Devices,
    frame: Frame,
    sides: Sides,
    trained: Mapping[Arm, Trained],
) -> Costs:
    """Counts and measures every arm."""
    plain = {arm: run.phase.network.clone(axis_name=None) for arm, run in trained.items()}
    return Costs(
        trained={arm: cost_of(network, config.image_size) for arm, network in plain.items()},
        published={arm: published_cost(arm) for arm in trained},
        stepped=time_training(config, devices, sides, trained),
        predicted=time_prediction(config, frame, sides, trained),
    )


def time_training(
    config: Config, devices: Devices, sides: Sides, trained: Mapping[Arm, Trained]
) -> dict[Arm, Comparison]:
    """Measures a training step of every arm, in turns."""
    batch = {name: array[: config.batch_size] for name, array in sides.train.items()}
    options = quick_compilation() if config.quick_compile else None
    steppers = {arm: Stepper(devices, run, batch, options) for arm, run in trained.items()}
    return compare(steppers, rounds=_TRAIN_ROUNDS, warm_up=1)


def time_prediction(
    config: Config, frame: Frame, sides: Sides, trained: Mapping[Arm, Trained]
) -> dict[Arm, Comparison]:
    """Measures one map through every network, from scaled pressure to joints, in turns."""
    one = {name: array[:1] for name, array in sides.test.items()}
    one = jax.device_put({**one, "index": jnp.zeros(1, jnp.int32)})
    options = quick_compilation() if config.quick_compile else None
    variants = {}
    for arm, run in trained.items():
        apply = partial(
            _joints, config=config, frame=frame, network=run.phase.network, task=run.phase.task
        )
        apply = jax.jit(apply, compiler_options=options)
        variants[arm] = partial(apply, jax.device_put(run.variables), one)
    return compare(variants, rounds=_PREDICT_ROUNDS)


def _joints(variables: Any, batch: Any, *, config: Config, frame: Frame, **how: Any) -> jax.Array:
    from experiments.pressure_pose_study import decode

    outputs, _ = predict(variables, batch, **how)
    return decode(config, frame, outputs["heatmaps"])


def claims(costs: Costs) -> list[report.Claim]:
    """Puts the published networks' MACs beside what the paper prints as their FLOPs."""
    return [claim_of(arm, cost.macs_nominal / 1e9) for arm, cost in costs.published.items()]


def claim_of(arm: Arm, gigamacs: float) -> report.Claim:
    """Judges one count; the printed figures are those of experiments/claims.csv."""
    name = f"efd.base.{arm}.flops"
    printed = next(p.value for p in published_figures() if p.id == name)
    away = gigamacs / printed - 1
    told = f"ours are the MACs of all taps at 256x256, {100 * away:+.1f} %"
    if abs(away) <= _NEAR:
        why = f"{told}; the print counts MACs too, those of batch normalisation and unused layers"
        return report.Claim(name, gigamacs, "reproduced", f"{why} with them")
    why = f"{told}; the print counts a transposed convolution at every place of its output"
    return report.Claim(name, gigamacs, "not reproduced", why)


def published_figures() -> tuple[report.Published, ...]:
    """Reads the figures of the paper."""
    return report.read_published(Path(__file__).with_name("claims.csv"), paper="efd_crwt")
