"""The work of `python -m experiments.sleep_posture`: trains the arms, predicts, reports."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import sleep_posture_report
from experiments.sleep_posture import EPOCHS, WITH_BLANKET, Arm, Config
from experiments.sleep_posture_networks import (
    Weights,
    initial_variables,
    network_of,
    read_weights,
)
from jaxbed import report
from jaxbed.data import splits
from jaxbed.data.batches import Arrays
from jaxbed.data.night import POSTURES, NightImages
from jaxbed.errors import InputError
from jaxbed.tasks.sleep_posture import posture_task
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.task import Task

_WATCHED = 256  # test images that show the course of training


class Run(NamedTuple):
    """What is trained once.

    Attributes:
        seed: of initial weights, order and augmentation.
        label: what reports call it, the same for every seed.
        arm: its network.
        blanket_weight: the paper's w1.
    """

    seed: int
    label: str
    arm: Arm
    blanket_weight: float


class Trained(NamedTuple):
    """A run that is done.

    Attributes:
        phase: how it was trained.
        variables: parameters and statistics after the last step.
        outputs: for all test images, `posture` f32[M,4] and, with the task, `blanket` f32[M].
    """

    phase: Phase
    variables: dict[str, Any]
    outputs: dict[str, np.ndarray]


class Sides(NamedTuple):
    """Images by what they are for.

    Attributes:
        train: to train on.
        watch: some test images, to follow the course of training by.
        test: all test images.
    """

    train: Arrays
    watch: Arrays
    test: Arrays


def run(config: Config) -> Path:
    """Trains every arm with every seed and writes the report."""
    weights = read_weights(config)
    images = load_images(config)
    split = divide(images, config)
    print(f"{images.name}: {len(images)} images, {split.description}", file=sys.stderr)
    sides = as_sides(images, split)
    devices = config.devices(config.batch_size, len(split.train))
    _check_data(config, sides)
    if config.steps is None:
        per_epoch = len(split.train) // config.batch_size
        config = dataclasses.replace(config, steps=EPOCHS * per_epoch)
    # Only now: what was refused above leaves no folder behind.
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer = Trainer(
        config.workdir,
        devices,
        resume=config.resume,
        log_every=max(1, min(20, config.steps // 8)),
        eval_every=max(1, config.steps // 6),
        save_every=max(1, min(500, config.steps // 4)),
        quick_compile=config.quick_compile,
    )
    trained = train_all(trainer, config, sides, weights)
    trainer.close()
    return sleep_posture_report.write(config, images, split, sides, trainer, trained)


def load_images(config: Config) -> NightImages:
    """Simulates or reads the images that --data names."""
    if config.data == "simulated":
        from jaxbed.simulate.night import simulate_night_images

        subjects, each = config.simulated
        print(f"simulating {subjects} sleepers, {each} images each", file=sys.stderr)
        return simulate_night_images(
            subjects=subjects, images_per_subject=each, size=config.image_size, seed=config.seed
        )
    from jaxbed.data.prepared_night import read_night_images

    name = f"slp_{config.slp_images}" if config.data == "slp" else config.data
    return read_night_images(config.data_dir, name)


def divide(images: NightImages, config: Config) -> splits.Split:
    """Splits by subject, or by image under the paper's protocol."""
    if config.protocol == "paper":
        return splits.by_example(images.subject, test_fraction=0.3, seed=config.seed)
    everyone = sorted(set(images.subject.tolist()))
    if len(everyone) < 2:
        raise InputError(
            f"a split by subject is impossible: all {len(images)} images of {images.name} show "
            f"{everyone[0]!r}; add images of somebody else, or ask for --protocol paper, which "
            "trains and tests on the same people and says so."
        )
    return splits.by_subject(
        images.subject, config.test_subjects or everyone[-max(1, len(everyone) // 5) :]
    )


def as_sides(images: NightImages, split: splits.Split) -> Sides:
    """Lays out what is trained, watched and tested on."""

    def arrays(chosen: np.ndarray) -> Arrays:
        return {name: getattr(images, name)[chosen] for name in ("image", "posture", "blanket")}

    watched = split.test[:: max(1, len(split.test) // _WATCHED)]
    return Sides(arrays(split.train), arrays(watched), arrays(split.test))


def runs_of(config: Config) -> list[Run]:
    """Lists what is to be trained, seed by seed."""
    seeds = range(config.seed, config.seed + config.seeds)
    if config.study == "weights":
        return [
            Run(seed, f"{arm}_w{weight:g}", arm, weight)
            for seed in seeds
            for arm in config.arms
            for weight in config.blanket_weights
        ]
    return [Run(seed, arm, arm, config.blanket_weight) for seed in seeds for arm in config.arms]


def train_all(
    trainer: Trainer, config: Config, sides: Sides, weights: dict[Arm, Weights]
) -> dict[Run, Trained]:
    """Trains every run. Those of one arm share a program, whatever the blanket's weight."""
    task = task_of(config, sides)
    # One flat vector: the optimiser's program is then a small part of the step's.
    tx = optax.flatten(optax.scale_by_adam())
    rates = learning_rates(config)
    trained = {}
    for run in runs_of(config):
        network = network_of(config, run.arm, trainer.devices.axis_name)
        name = f"seed{run.seed}/{run.label}"
        phase = Phase(name, network, task, tx, rates, config.batch_size, run.seed)
        trained[run] = train_one(trainer, config, run, phase, sides, weights.get(run.arm))
    return trained


def train_one(
    trainer: Trainer,
    config: Config,
    run: Run,
    phase: Phase,
    sides: Sides,
    weights: Weights | None,
) -> Trained:
    """Trains one network and lets it look at all test images."""
    # The generator of quick compilation draws other numbers on other kinds of device.
    kind = "rbg" if config.quick_compile else "threefry2x32"

    def initial() -> dict[str, Any]:
        key = jax.random.key(run.seed, impl=kind)
        variables, loaded = initial_variables(phase.network, config.image_size, key, weights)
        if loaded:
            print(f"{phase.name}: {loaded}", file=sys.stderr)
        return variables

    train, watch, test = (weighted(side, run.blanket_weight) for side in sides)
    state = trainer.fit(phase, train, watch, initial)
    return Trained(phase, state.variables, trainer.predict(phase, state.variables, test))


def weighted(arrays: Arrays, blanket_weight: float) -> Arrays:
    """Gives every image the blanket's weight."""
    count = len(arrays["image"])
    return {**arrays, "blanket_weight": np.full(count, blanket_weight, np.float32)}


def task_of(config: Config, sides: Sides) -> Task:
    """Makes the task that all runs share."""
    shown = set(sides.watch["posture"].tolist())
    return posture_task(
        config.image_size,
        min_scale=config.min_scale,
        flips=config.flips,
        classes={name: i for i, name in enumerate(POSTURES) if i in shown},
    )


def learning_rates(config: Config) -> np.ndarray:
    """Returns f32[steps]."""
    peak, steps = config.learning_rate, config.steps
    at = np.arange(steps)
    if config.schedule == "paper":
        return (peak * 0.8 ** (at * EPOCHS // steps // 20)).astype(np.float32)
    warm_up = min(100, max(1, steps // 10))
    rate = optax.warmup_cosine_decay_schedule(peak / 50, peak, warm_up, max(steps, 2), peak / 50)
    return np.asarray(jax.vmap(rate)(at), np.float32)


def _check_data(config: Config, sides: Sides) -> None:
    count = len(sides.train["blanket"])
    on, off = (int((sides.train["blanket"] == label).sum()) for label in (1, 0))
    learns = [arm for arm in config.arms if arm in WITH_BLANKET]
    if learns and not (on and off):
        raise InputError(
            f"--arms {' '.join(learns)} learn whether a blanket is on, but of {count} training "
            f"images {on} are labelled with and {off} without one; label both kinds, or take "
            "--arms attention resnet."
        )
