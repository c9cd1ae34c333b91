"""The work of `python -m experiments.pressure_pose`: trains the networks, finds joints, reports."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pressure_pose_report
from experiments.pressure_pose import EPOCHS, Arm, Config
from experiments.pressure_pose_networks import example, network_of, quiet_heads
from jaxbed import report
from jaxbed.codecs import heatmaps
from jaxbed.data import splits
from jaxbed.data.batches import Arrays
from jaxbed.data.pressure import Mat, PressureMaps, scaled
from jaxbed.errors import InputError
from jaxbed.simulate.skeleton import JOINTS
from jaxbed.tasks.pressure_pose import STRIDE, Augmentation, Frame, pose_task, skeleton_of
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise
from jaxbed.training.task import Task

SKELETON = skeleton_of(JOINTS)

_WATCHED = 256  # test maps that show the course of training
_CHUNK = 256  # maps whose heatmaps are on the host at a time
_SLP_TESTED = 12


class Trained(NamedTuple):
    """A network that is trained, and what it finds on the test maps.

    Attributes:
        phase: how it was trained.
        variables: its parameters and statistics after the last step.
        joints_mm: f32[M,J,2], on the mat; NaN where nothing was found.
    """

    phase: Phase
    variables: dict[str, Any]
    joints_mm: np.ndarray


class Sides(NamedTuple):
    """Maps by what they are for: `pressure` f32[n,R,C] in [0, 1], `joints_mm` f32[n,J,2].

    Attributes:
        train: to train on.
        watch: some test maps, to follow the course of training by.
        test: all test maps.
    """

    train: Arrays
    watch: Arrays
    test: Arrays


def run(config: Config) -> Path:
    """Trains every arm on the same joints and writes the report."""
    maps = load_maps(config)
    split = divide(maps, config)
    print(f"{maps.name}: {len(maps)} maps, {split.description}", file=sys.stderr)
    sides = as_sides(maps, split)
    devices = config.devices(config.batch_size, len(split.train))
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
        save_every=max(1, min(500, config.steps // 3)),
        quick_compile=config.quick_compile,
    )
    trained = train_all(trainer, config, frame_of(config, maps.mat), sides)
    trainer.close()
    return pressure_pose_report.write(config, maps, split, sides, trainer, trained)


def load_maps(config: Config) -> PressureMaps:
    """Simulates or reads the maps that --data names."""
    if config.data == "simulated":
        from jaxbed.simulate.pressure import simulate_pressure_maps

        subjects, each = config.simulated
        print(f"simulating {subjects} sleepers, {each} maps each", file=sys.stderr)
        return simulate_pressure_maps(subjects=subjects, maps_per_subject=each, seed=config.seed)
    from jaxbed.data.prepared_pressure import read_pressure_maps

    maps = read_pressure_maps(config.data_dir, "slp_pm")
    if maps.joints_mm is None or maps.joints_mm.shape[1] != len(JOINTS):
        raise InputError(
            f"--data-dir {config.data_dir}: {maps.name} holds no {len(JOINTS)} joints a map to "
            "train on; prepare it again with `python -m data_prep.slp_pressure`."
        )
    return maps


def divide(maps: PressureMaps, config: Config) -> splits.Split:
    """Splits by subject."""
    everyone = sorted(set(maps.subject.tolist()))
    if len(everyone) < 2:
        raise InputError(
            f"a split by subject is impossible: all {len(maps)} maps of {maps.name} show "
            f"{everyone[0]!r}; add maps of somebody else."
        )
    last = len(everyone) // 5
    if config.data == "slp":
        last = min(last, _SLP_TESTED)
    return splits.by_subject(maps.subject, config.test_subjects or everyone[-max(1, last) :])


def as_sides(maps: PressureMaps, split: splits.Split) -> Sides:
    """Lays out what is trained, watched and tested on."""
    everything = {"pressure": scaled(maps), "joints_mm": maps.joints_mm}

    def arrays(chosen: np.ndarray) -> Arrays:
        return {name: array[chosen] for name, array in everything.items()}

    watched = split.test[:: max(1, len(split.test) // _WATCHED)]
    return Sides(arrays(split.train), arrays(watched), arrays(split.test))


def frame_of(config: Config, mat: Mat) -> Frame:
    """Tells how a mat is shown to the networks."""
    return Frame(config.image_size, (mat.rows * mat.pitch_mm, mat.columns * mat.pitch_mm))


def task_of(config: Config, frame: Frame) -> Task:
    """Makes the task that all arms share."""
    augmentation = Augmentation(config.mirror, config.max_shift_mm, config.max_zoom)
    return pose_task(
        frame,
        SKELETON,
        sigma_px=config.sigma_px,
        augmentation=augmentation,
        positive_weight=config.positive_weight,
        refine=config.refine,
    )


def train_all(trainer: Trainer, config: Config, frame: Frame, sides: Sides) -> dict[Arm, Trained]:
    """Trains every arm with the same task, order of maps and schedule."""
    task = task_of(config, frame)
    # One flat vector: the optimiser's program is then a small part of the step's.
    tx = optax.flatten(optax.scale_by_adam())
    rates = learning_rates(config)
    # The generator of quick compilation draws other numbers on other kinds of device.
    key = jax.random.key(config.seed, impl="rbg" if config.quick_compile else "threefry2x32")
    shape = example(config.image_size)
    trained = {}
    for arm in config.arms:
        network = network_of(config, arm, trainer.devices.axis_name)
        phase = Phase(arm, network, task, tx, rates, config.batch_size, config.seed)
        state = trainer.fit(
            phase,
            sides.train,
            sides.watch,
            lambda n=network: quiet_heads(initialise(n, key, shape)),
        )
        joints_mm = find_joints(trainer, config, frame, phase, state.variables, sides.test)
        trained[arm] = Trained(phase, state.variables, joints_mm)
    return trained


def find_joints(
    trainer: Trainer,
    config: Config,
    frame: Frame,
    phase: Phase,
    variables: dict[str, Any],
    arrays: Arrays,
) -> np.ndarray:
    """Returns f32[M,J,2], the joints found on all maps, in millimetres on the mat."""
    found = []
    for first in range(0, len(arrays["pressure"]), _CHUNK):
        part = {name: array[first : first + _CHUNK] for name, array in arrays.items()}
        outputs = trainer.predict(phase, variables, part)
        found.append(np.asarray(decode(config, frame, jnp.asarray(outputs["heatmaps"]))))
    return np.concatenate(found)


def decode(config: Config, frame: Frame, maps: jax.Array) -> jax.Array:
    """Reads f32[B,J,2], millimetres on the mat, from heatmaps f32[B,h,w,J]."""
    found = heatmaps.decode(maps, stride=STRIDE, refine=config.refine)
    return frame.to_mm(found.joints_px)


def learning_rates(config: Config) -> np.ndarray:
    """Returns f32[steps]."""
    peak, steps = config.learning_rate, config.steps
    at = np.arange(steps)
    if config.schedule == "steps":
        epoch = at * EPOCHS // steps
        return (peak * 0.1 ** ((epoch >= 90).astype(int) + (epoch >= 120))).astype(np.float32)
    warm_up = min(100, max(1, steps // 10))
    rate = optax.warmup_cosine_decay_schedule(peak / 50, peak, warm_up, max(steps, 2), peak / 50)
    return np.asarray(jax.vmap(rate)(at), np.float32)
