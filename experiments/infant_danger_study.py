"""The work of `python -m experiments.infant_danger`: trains, films, watches, reports."""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
import optax

from experiments import infant_danger_data as data
from experiments import infant_danger_report
from experiments.infant_danger import Config
from experiments.infant_danger_networks import (
    DETECTORS,
    NAMES,
    Recipe,
    detector_input,
    imagenet_weights,
    published_detector,
    recipe_of,
    save,
)
from experiments.infant_danger_videos import film, watch_all
from experiments.infant_danger_watch import Alerting
from jaxbed import report
from jaxbed.data.batches import Arrays
from jaxbed.models.infant_danger import network_input
from jaxbed.tasks import face_detection, infant_danger
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import initialise, quick_compilation
from jaxbed.training.task import Task

_STREAM = {name: i for i, name in enumerate(NAMES)}  # of randomness, for initial weights


class Trained(NamedTuple):
    """A network that is ready.

    Attributes:
        variables: parameters and statistics.
        phase: how it was trained; None for published weights.
        outputs: of a classifier for all test images, `logits` f32[M,C]; empty for a detector.
    """

    variables: dict[str, Any]
    phase: Phase | None
    outputs: dict[str, np.ndarray]


def run(config: Config) -> Path:
    """Trains the networks, watches films with them and writes the report."""
    recipe = recipe_of(config)
    starts = read_weights(config, recipe)
    sides = data.load(config)
    fewest = min(len(side.split.train) for side in sides.values())
    devices = config.devices(config.batch_size, fewest)
    # Only now: what was refused above leaves no folder behind.
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer = Trainer(
        config.workdir,
        devices,
        resume=config.resume,
        log_every=max(1, min(20, config.steps // 8)),
        eval_every=max(1, config.steps // 4),
        save_every=max(1, min(500, config.steps // 4)),
        quick_compile=config.quick_compile,
    )
    trained = {name: ready(name, trainer, config, recipe, sides, starts) for name in NAMES}
    trainer.close()
    save(config.workdir, recipe, {name: of.variables for name, of in trained.items()})

    folder = config.workdir / "films"
    film(
        folder,
        count=config.videos,
        seconds=config.video_s,
        frame_hz=config.frame_hz,
        size=config.image_size,
        views=config.views,
        seed=config.seed,
    )
    watched = watch_all(
        folder,
        config.workdir,
        log_folder=config.workdir / "events",
        alerting=Alerting(missing_face=config.missing_face),
        compiler_options=quick_compilation() if config.quick_compile else None,
    )
    return infant_danger_report.write(config, recipe, sides, trainer, trained, watched)


def read_weights(config: Config, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Reads the published weights that are asked for, before anything is made.

    Returns:
        Variables by network; a classifier's last layer is not trained yet.

    Raises:
        InputError: a file is missing, damaged or of another network.
    """
    starts = {}
    if config.detector_weights:
        starts["detector"] = published_detector(config.detector_weights, recipe)
    if config.init == "imagenet":
        for name in ("face", "posture"):
            fresh = initialise(
                recipe.network(name), jax.random.key(config.seed), recipe.example(name)
            )
            starts[name] = imagenet_weights(config.weights, fresh)
    return starts


def ready(
    name: str,
    trainer: Trainer,
    config: Config,
    recipe: Recipe,
    sides: dict[str, data.Side],
    starts: dict[str, dict[str, Any]],
) -> Trained:
    """Trains a network, unless it is published, and lets a classifier look at all test images."""
    if name not in sides:
        return Trained(starts[name], None, {})
    phase = phase_of(name, config, recipe, sides, trainer.devices.axis_name)
    # The generator of quick compilation draws other numbers on other kinds of device.
    kind = "rbg" if config.quick_compile else "threefry2x32"

    def initial() -> dict[str, Any]:
        key = jax.random.fold_in(jax.random.key(config.seed, impl=kind), _STREAM[name])
        return starts.get(name) or initialise(phase.network, key, recipe.example(name))

    train, watch = (shown(name, arrays, recipe) for arrays in sides[name][2:4])
    state = trainer.fit(phase, train, watch, initial)
    outputs = {}
    if name != "detector":
        outputs = trainer.predict(phase, state.variables, sides[name].test)
    return Trained(state.variables, phase, outputs)


def phase_of(
    name: str,
    config: Config,
    recipe: Recipe,
    sides: dict[str, data.Side],
    axis_name: str | None = None,
) -> Phase:
    """Says how a network is trained."""
    steps = config.detector_steps if name == "detector" else config.steps
    return Phase(
        name=name,
        network=recipe.network(name, axis_name),
        task=task_of(name, recipe),
        # One flat vector: the optimiser's program is then a small part of the step's.
        tx=optax.flatten(optax.scale_by_adam()),
        learning_rates=learning_rates(config.learning_rate, steps),
        batch_size=config.batch_size,
        seed=config.seed,
    )


def task_of(name: str, recipe: Recipe) -> Task:
    """Makes the task of one of NAMES."""
    if name == "detector":
        kind = DETECTORS[recipe.detector]
        return face_detection.detection_task(
            kind.levels,
            kind.rules,
            network_input=detector_input(kind.mean_bgr),
            augmentation=face_detection.Augmentation(),
        )
    make = partial(infant_danger.classification_task, network_input=network_input)
    if name == "face":
        return make(
            recipe.face_size,
            recipe.face_states,
            margin=recipe.margin,
            augmentation=infant_danger.FACE,
        )
    return make(
        recipe.posture_size, recipe.postures, margin=None, augmentation=infant_danger.POSTURE
    )


def shown(name: str, arrays: Arrays, recipe: Recipe) -> Arrays:
    """Returns arrays as a network takes them: SSD wants images of one size, squeezed if need be."""
    size = DETECTORS[recipe.detector].network_size
    if name != "detector" or size is None:
        return arrays
    print(f"resizing {len(arrays['image'])} images to {size[0]}x{size[1]}", file=sys.stderr)
    height, width = arrays["image"].shape[1:3]
    factor = np.float32([size[1] / width, size[0] / height])
    return {
        "image": np.stack([cv2.resize(image, size[::-1]) for image in arrays["image"]]),
        "boxes_px": arrays["boxes_px"] * np.tile(factor, 2),
        "landmarks_px": arrays["landmarks_px"] * factor,
    }


def learning_rates(peak: float, steps: int) -> np.ndarray:
    """Returns f32[steps]: linear warm-up, cosine decay."""
    warm_up = min(100, max(1, steps // 10))
    rate = optax.warmup_cosine_decay_schedule(peak / 50, peak, warm_up, max(steps, 2), peak / 50)
    return np.asarray(jax.vmap(rate)(np.arange(steps)), np.float32)
