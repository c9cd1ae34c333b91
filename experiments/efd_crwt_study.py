"""The work of `python -m experiments.efd_crwt`: trains the arms, compares, reports."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import efd_crwt_report
from experiments.efd_crwt import Arm, Config
from jaxbed import report
from jaxbed.data import splits
from jaxbed.data.pressure import PressureMaps, scaled
from jaxbed.models.efd import EFD
from jaxbed.tasks import efd as task
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.state import TrainState, initialise
from jaxbed.training.step import Devices
from jaxbed.training.transfer import TransferReport, transfer

OUTPUT_LAYER = ("params/decoder/output/*",)
"""What the transfer does not carry over: stage 1 ends in two channels, stage 2 in one."""


class Trained(NamedTuple):
    """One arm with one seed.

    Attributes:
        stage1: the stage's phase and final state.
        stage2: likewise.
        account: what the transfer between them did.
        by_subject: reconstruction scores on each test subject's maps, at the mat's resolution.
        fscore: of stage 1 on all test maps; None where stage 1 is not a classification.
    """

    stage1: tuple[Phase, TrainState]
    stage2: tuple[Phase, TrainState]
    account: TransferReport
    by_subject: dict[str, dict[str, float]]
    fscore: float | None


def run(config: Config) -> Path:
    """Trains every arm with every seed and writes the report."""
    maps = load_maps(config)
    split = divide(maps, config)
    print(f"{maps.name}: {len(maps)} maps, {split.description}", file=sys.stderr)
    arrays = as_arrays(maps, split)
    devices = config.devices(config.batch_size, len(split.train))
    # Only now: what was refused above leaves no folder behind.
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer = Trainer(
        config.workdir,
        devices,
        resume=config.resume,
        log_every=max(1, min(20, config.stage2_steps // 8)),
        eval_every=max(10, config.stage2_steps // 8),
        save_every=max(1, min(500, config.stage2_steps // 2)),
        quick_compile=config.quick_compile,
    )
    stages = Stages(config, devices)
    trained = {
        (seed, arm): train_arm(trainer, stages, arm, seed, arrays)
        for seed in range(config.seed, config.seed + config.seeds)
        for arm in config.arms
    }
    trainer.close()
    return efd_crwt_report.write(config, maps, split, arrays, trainer, trained)


def as_arrays(maps: PressureMaps, split: splits.Split) -> dict[str, Any]:
    """Scales the maps and lays out who is trained, watched and tested on."""
    pressure, subject = scaled(maps), maps.subject[split.test]
    test = pressure[split.test]
    # Neighbouring frames of a recording are nearly identical: every 20th shows the course of
    # training as well as all of them do. The final scores count every map.
    watched = slice(None, None, max(1, min(20, len(test) // 64)))
    return {
        "train": {"pressure": pressure[split.train]},
        "test": {"pressure": test},
        "test_by_subject": {
            name: {"pressure": test[subject == name]} for name in sorted(set(subject.tolist()))
        },
        "watch": {"pressure": test[watched]},
        "watch_subject": subject[watched],
        "watch_posture": maps.posture[split.test][watched],
    }


class Stages:
    """Networks, tasks and optimisers, made once so that arms and seeds share programs."""

    def __init__(self, config: Config, devices: Devices):
        shift = config.max_shift
        self._config = config
        self._axis_name = devices.axis_name
        self._contact = task.contact_task(
            config.image_size, contact_threshold=config.contact_threshold, max_shift=shift
        )
        self._reconstruction = task.reconstruction_task(
            config.image_size,
            l2_weight=config.l2_weight,
            ssim_weight=config.ssim_weight,
            max_shift=shift,
        )
        # One flat vector instead of some 270 leaves: the optimiser's program would otherwise
        # be half of the step's and take as long to compile as the network.
        self._tx = optax.flatten(optax.scale_by_adam())
        self._freezing = optax.chain(freeze_encoder(config.frozen_steps), self._tx)

    def key(self, seed: int) -> jax.Array:
        """Returns the PRNG key of the initial weights."""
        # The generator of quick compilation draws other numbers on other kinds of device.
        return jax.random.key(seed, impl="rbg" if self._config.quick_compile else "threefry2x32")

    def network(self, arm: Arm, outputs: int) -> EFD:
        """Builds an arm's network with 2 (stage 1) or 1 output channels."""
        config = self._config
        return EFD(
            size=config.image_size,
            outputs=outputs,
            decoder_features=config.decoder_features,
            normalisation=config.normalisation,
            sharpness=config.sharpness,
            normalise_code=config.normalise_code,
            dilation=arm != "no_dilation",
            exchange=arm != "no_exchange",
            axis_name=self._axis_name,
        )

    def phase(self, arm: Arm, stage: int, seed: int) -> Phase:
        """Describes a stage; stage 1 of the plain arm reconstructs already."""
        config = self._config
        classify = stage == 1 and arm != "plain"
        steps = config.stage1_steps if stage == 1 else config.stage2_steps
        return Phase(
            name=f"seed{seed}/{arm}/stage{stage}",
            network=self.network(arm, outputs=2 if classify else 1),
            task=self._contact if classify else self._reconstruction,
            tx=self._freezing if stage == 2 and config.frozen_steps else self._tx,
            learning_rates=schedule(config.learning_rate, steps),
            batch_size=config.batch_size,
            seed=seed,
        )


def train_arm(
    trainer: Trainer, stages: Stages, arm: Arm, seed: int, arrays: dict[str, Any]
) -> Trained:
    """Runs stage 1, the transfer and stage 2, and measures both stages on all test maps."""
    first, second = stages.phase(arm, 1, seed), stages.phase(arm, 2, seed)
    train, watch, tests = arrays["train"], arrays["watch"], arrays["test_by_subject"]

    def fresh(phase: Phase) -> dict:
        image = jax.ShapeDtypeStruct((1, *phase.network.size, 1), jnp.float32)
        return initialise(phase.network, stages.key(seed), image)

    state1 = trainer.fit(first, train, watch, lambda: fresh(first))
    same_output = first.network.outputs == second.network.outputs
    variables, account = transfer(
        state1.variables, fresh(second), fresh=() if same_output else OUTPUT_LAYER
    )
    state2 = trainer.fit(second, train, watch, lambda: variables)
    fscore = None
    if arm != "plain":
        fscore = trainer.evaluate(first, state1.variables, arrays["test"])["fscore"]
    by_subject = {
        subject: trainer.evaluate(second, state2.variables, maps) for subject, maps in tests.items()
    }
    return Trained((first, state1), (second, state2), account, by_subject, fscore)


def schedule(peak: float, steps: int) -> np.ndarray:
    """Returns f32[steps]: a linear warm-up over a tenth (at most 100), then a cosine."""
    rate = optax.warmup_cosine_decay_schedule(
        init_value=peak / 50,
        peak_value=peak,
        warmup_steps=min(100, max(1, steps // 10)),
        decay_steps=max(steps, 2),
        end_value=peak / 50,
    )
    return np.asarray(jax.vmap(rate)(jnp.arange(steps)), np.float32)


def load_maps(config: Config) -> PressureMaps:
    """Simulates or reads the maps that --data names."""
    if config.data == "simulated":
        from jaxbed.simulate.pressure import simulate_pressure_maps

        subjects, each = config.simulated
        print(f"simulating {subjects} sleepers, {each} maps each", file=sys.stderr)
        return simulate_pressure_maps(subjects=subjects, maps_per_subject=each, seed=config.seed)
    from jaxbed.data.prepared_pressure import read_pressure_maps

    name = "experiment_i" if config.data == "pmd" else "mat_folder"
    return read_pressure_maps(config.data_dir, name)


def divide(maps: PressureMaps, config: Config) -> splits.Split:
    """Splits by subject, or by map under the paper's protocol."""
    if config.protocol == "paper":
        return splits.by_example(maps.subject, test_fraction=0.2, seed=config.seed)
    tested = config.test_subjects
    if not tested and config.data == "pmd":
        tested = ("S11", "S12", "S13")
    if not tested:
        everyone = sorted(set(maps.subject.tolist()))
        tested = everyone[-max(1, len(everyone) // 5) :]
    return splits.by_subject(maps.subject, tested)


def freeze_encoder(steps: int) -> optax.GradientTransformation:
    """Silences the encoder's gradients for the first steps."""
    thaw = optax.scale_by_schedule(lambda count: (count >= steps).astype(jnp.float32))

    def encoder(params):
        return {
            part: jax.tree.map(lambda _, chosen=part == "encoder": chosen, tree)
            for part, tree in params.items()
        }

    return optax.masked(thaw, encoder)
