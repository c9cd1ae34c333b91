"""The work of `python -m experiments.preterm_pose`: trains, predicts, measures, reports."""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import preterm_pose_report
from experiments.preterm_pose import CLIP, EPOCHS, Config, Kind
from jaxbed import report
from jaxbed.codecs import limbs
from jaxbed.data import splits
from jaxbed.data.batches import Arrays
from jaxbed.data.depth import Clips, DepthFrames, clips, resized
from jaxbed.models.preterm_pipeline import LimbMaps
from jaxbed.models.preterm_pose import DetectionCNN, RegressionCNN
from jaxbed.tasks.preterm_pose import detection_task, regression_task
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise
from jaxbed.training.step import Devices

# Clips whose maps are on the host at a time: those of the paper's size take 3 MB each.
_CHUNK = 64


class Trained(NamedTuple):
    """A network, its trained variables and what it finds on the test clips.

    Attributes:
        phase: how it was trained.
        variables: its parameters and statistics.
        joints_px: f32[N,12,2], found on all test frames; NaN where missing.
    """

    phase: Phase
    variables: dict[str, Any]
    joints_px: np.ndarray


class Sides(NamedTuple):
    """Clips by what they are for, and the frames of the test clips.

    Attributes:
        train: clips at every frame.
        watch: clips the course of training is judged by.
        test: clips without a common frame.
        test_frames: i32[N], all frames of the test clips.
    """

    train: Arrays
    watch: Arrays
    test: Arrays
    test_frames: np.ndarray


def run(config: Config) -> Path:
    """Trains detection, then every kind of regression on its maps, and writes the report."""
    frames = resized(load_frames(config), config.image_size)
    split = divide(frames, config)
    print(f"{frames.name}: {len(frames)} frames, {split.description}", file=sys.stderr)
    sides = as_clips(frames, split, config)
    clips = len(sides.train["depth_mm"])
    devices = config.devices(config.batch_size, clips)
    config = _with_steps(config, clips)
    # Only now: what was refused above leaves no folder behind.
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer = Trainer(
        config.workdir,
        devices,
        resume=config.resume,
        log_every=max(1, min(20, config.regression_steps // 8)),
        eval_every=max(2, config.regression_steps // 8),
        save_every=max(1, min(500, config.regression_steps // 2)),
        quick_compile=config.quick_compile,
    )
    trained = train_all(trainer, config, devices, sides)
    trainer.close()
    return preterm_pose_report.write(config, frames, split, sides, trainer, trained)


def load_frames(config: Config) -> DepthFrames:
    """Simulates or reads the frames that --data names."""
    if config.data == "simulated":
        from jaxbed.simulate.depth import simulate_depth_frames

        infants, recordings, length = config.simulated
        print(f"simulating {infants} infants, {recordings} x {length} frames", file=sys.stderr)
        return simulate_depth_frames(
            infants=infants,
            recordings_per_infant=recordings,
            frames_per_recording=length,
            size=config.image_size,
            seed=config.seed,
        )
    from jaxbed.data.prepared_depth import read_depth_frames

    return read_depth_frames(config.data_dir, config.data)


def divide(frames: DepthFrames, config: Config) -> splits.Split:
    """Splits frames by subject, or by time under the paper's protocol."""
    if config.protocol == "paper":
        return splits.by_time(frames.subject, frames.recording, train_fraction=0.75)
    tested = config.test_subjects
    if not tested and config.data == "utd_mhad":
        tested = ("7", "8")
    if not tested:
        everyone = sorted(set(frames.subject.tolist()))
        tested = everyone[-max(1, len(everyone) // 5) :]
    return splits.by_subject(frames.subject, tested)


def as_clips(frames: DepthFrames, split: splits.Split, config: Config) -> Sides:
    """Cuts both sides into clips: at every frame to train, without a common frame to test."""

    def cut(chosen: np.ndarray, shift: int) -> np.ndarray:
        return chosen[clips(frames.recording[chosen], length=CLIP, shift=shift)]

    def arrays(index: np.ndarray) -> Arrays:
        return {name: Clips(getattr(frames, name), index) for name in ("depth_mm", "joints_px")}

    test = cut(split.test, CLIP)
    if config.select == "best":
        recording, subject = frames.recording[split.train], frames.subject[split.train]
        held_out = splits.by_time(subject, recording, train_fraction=0.9)
        train = cut(split.train[held_out.train], 1)
        watch = cut(split.train[held_out.test], CLIP)
    else:
        train, watch = cut(split.train, 1), test[:: max(1, len(test) // 32)]
    return Sides(arrays(train), arrays(watch), arrays(test), test.reshape(-1))


def train_all(
    trainer: Trainer, config: Config, devices: Devices, sides: Sides
) -> dict[str, Trained]:
    """Trains detection and, on its maps, every kind of regression, from the same key."""
    clip = jax.ShapeDtypeStruct((1, CLIP, *config.image_size, 1), jnp.float32)
    key = jax.random.key(config.seed, impl="rbg" if config.quick_compile else "threefry2x32")

    def fit(phase: Phase, given: dict[str, Any] | None = None) -> dict[str, Any]:
        def initial():
            variables = initialise(phase.network, key, clip)
            for part in given or {}:
                variables[part]["detection"] = given[part]
            return variables

        state = trainer.fit(phase, sides.train, sides.watch, initial)
        return (trainer.best(phase, sides.train) if config.select == "best" else state).variables

    def trained(phase: Phase, variables: dict[str, Any]) -> Trained:
        print(f"{phase.name}: looking at all test clips", file=sys.stderr)
        return Trained(phase, variables, find_joints(trainer, config, phase, variables, sides.test))

    axis_name = devices.axis_name
    detection = DetectionCNN(config.detection_width, axis_name=axis_name)
    phase = detection_phase(config, detection)
    detected = fit(phase)
    results = {"detection": trained(phase, detected)}
    for kind in config.kinds:
        regression = regression_network(config, kind, axis_name)
        phase = regression_phase(config, kind, LimbMaps(detection, regression))
        results[kind] = trained(phase, fit(phase, detected))
    return results


def regression_network(config: Config, kind: Kind, axis_name: str | None = None) -> RegressionCNN:
    """Builds a regression network of the configured widths."""
    return RegressionCNN(kind, config.widths, config.widths[-1], axis_name=axis_name)


def detection_phase(config: Config, network: DetectionCNN) -> Phase:
    """Describes the training of detection: Adam, as in the paper."""
    task = detection_task(
        radius_px=config.disc_px,
        max_shift=config.max_shift,
        mirror=config.mirror,
        positive_weight=config.positive_weight,
    )
    tx = optax.flatten(optax.scale_by_adam())
    rates = learning_rates(config, "detection", config.detection_steps)
    return Phase("detection", network, task, tx, rates, config.batch_size, config.seed)


def regression_phase(config: Config, kind: Kind, network: LimbMaps) -> Phase:
    """Describes the training of one kind of regression."""
    task = regression_task(
        radius_px=config.disc_px,
        sigma_px=config.sigma * config.disc_px,
        max_shift=config.max_shift,
        mirror=config.mirror,
        positive_weight=config.positive_weight,
    )
    sgd = config.regression_optimiser == "sgd"
    optimiser = optax.trace(decay=0.98) if sgd else optax.scale_by_adam()
    # Detection takes no part: its gradients are zero, and it needs no moments.
    tx = optax.masked(optax.flatten(optimiser), partial(_only, part="regression"))
    rates = learning_rates(config, "regression", config.regression_steps)
    name = f"regression/{kind}"
    return Phase(name, network, task, tx, rates, config.batch_size, config.seed)


def _only(params: dict[str, Any], *, part: str) -> dict[str, Any]:
    """Says of every leaf whether it belongs to `part`."""
    return {name: jax.tree.map(lambda _, n=name: n == part, tree) for name, tree in params.items()}


def learning_rates(config: Config, stage: str, steps: int) -> np.ndarray:
    """Returns f32[steps]."""
    peak, at = config.learning_rate, np.arange(steps)
    if config.schedule == "paper":
        epoch = at * EPOCHS[stage] // steps
        return (peak * 0.9 ** (epoch // 10)).astype(np.float32)
    warm_up = min(100, max(1, steps // 10))
    rate = optax.warmup_cosine_decay_schedule(peak / 50, peak, warm_up, max(steps, 2), peak / 50)
    return np.asarray(jax.vmap(rate)(at), np.float32)


def find_joints(
    trainer: Trainer, config: Config, phase: Phase, variables: dict[str, Any], arrays: Arrays
) -> np.ndarray:
    """Returns f32[N,12,2], the joints found on all frames of the clips, in their order."""
    found = []
    for first in range(0, len(arrays["depth_mm"]), _CHUNK):
        part = {
            name: Clips(a.frames, a.index[first : first + _CHUNK]) for name, a in arrays.items()
        }
        maps = trainer.predict(phase, variables, part)["maps"]
        found.append(decode(config, maps.reshape(-1, *maps.shape[2:])))
    return np.concatenate(found)


def decode(config: Config, maps: jax.Array) -> np.ndarray:
    """Returns f32[N,12,2] for maps f32[N,H,W,20], by the configured thresholds."""
    return limbs.decode(
        maps,
        window_px=config.window_px,
        threshold=config.threshold,
        samples=config.samples,
        link_threshold=config.link_threshold,
    )


def _with_steps(config: Config, train_count: int) -> Config:
    """Turns the paper's epochs into steps."""
    per_epoch = train_count // config.batch_size
    return dataclasses.replace(
        config,
        detection_steps=config.detection_steps or EPOCHS["detection"] * per_epoch,
        regression_steps=config.regression_steps or EPOCHS["regression"] * per_epoch,
    )
