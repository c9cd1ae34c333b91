"""The work of `python -m experiments.keypoint_posture`: encoders, folds, unseen mats."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import keypoint_posture_folds as folds
from experiments import keypoint_posture_report as reporting
from experiments.keypoint_posture import Arm, Config, Labels
from experiments.keypoint_posture_course import Course, Sets
from experiments.keypoint_posture_data import (
    Classes,
    Posed,
    check_description,
    classes_of,
    load,
    load_unseen,
    posed,
)
from experiments.keypoint_posture_folds import EVERYONE, Plan
from experiments.keypoint_posture_networks import Encoders, Nodes, Variables
from experiments.keypoint_posture_readers import Answers, Readers, batch_size_of, readers_of
from experiments.keypoint_posture_system import System, save, system_of
from experiments.keypoint_posture_views import Through
from jaxbed import report
from jaxbed.data.pressure import PressureMaps
from jaxbed.errors import InputError
from jaxbed.training.loop import Phase, Trainer
from jaxbed.training.step import Devices

_WATCHED = 128  # maps that an encoder is watched by


class Trained(NamedTuple):
    """What a run has trained.

    Attributes:
        rebuilt: by (arm, encoder), scores of rebuilding maps; of people that the encoder did not
            see, where there are any.
        phases: by (arm, encoder), how its maps are rebuilt.
        variables: likewise, of the whole network.
        system: what meets strangers; None where no postures are learned.
    """

    rebuilt: dict[tuple[Arm, str], dict[str, float]]
    phases: dict[tuple[Arm, str], Phase]
    variables: dict[tuple[Arm, str], Variables]
    system: System | None


def run(config: Config) -> Path:
    """Trains encoders and readers, tests them, and writes the report."""
    sets = gather(config, load(config), load_unseen(config))
    devices = devices_for(config, sets)
    # Only now: what was refused above leaves no folder behind.
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer = trainer_of(config, devices)
    answers = Answers(config.workdir)
    trained = train_all(config, trainer, sets, answers)
    trainer.close()
    if trained.system is not None:
        save(trained.system, config.workdir)
    return reporting.write(config, sets, trainer, trained, answers)


def gather(
    config: Config,
    maps: PressureMaps,
    unseen: dict[str, PressureMaps],
    plan: Plan | None = None,
) -> Sets:
    """Checks and divides all maps, and brings them into the canonical frame.

    Args:
        config: the settings.
        maps: what is trained on.
        unseen: what is not, by name.
        plan: who is trained and tested on; by default as --protocol says.

    Raises:
        InputError: a mat's description cannot be right, or a side of a fold is empty.
    """
    if not config.trust_description:
        for one in (maps, *unseen.values()):
            check_description(one)
    classes = {kind: classes_of(maps, kind) for kind in config.labels}
    own = posed(maps, classes, config.canonical)
    plan = plan or folds.plan(maps.subject, config)
    print(
        f"{maps.name}: {len(maps)} maps, {plan.description}; unseen: {', '.join(unseen) or 'none'}",
        file=sys.stderr,
    )
    return Sets(
        maps=maps,
        own=own,
        classes=classes,
        unseen_maps=unseen,
        unseen={name: _posed_strange(maps, of, classes, config) for name, of in unseen.items()},
        plan=plan,
        train=own.thinned(config.thin[0]),
        test=own.thinned(config.thin[1]),
        labelled={name: labelled_subjects(of, config) for name, of in unseen.items()},
    )


def _posed_strange(
    maps: PressureMaps, strange: PressureMaps, classes: dict[Labels, Classes], config: Config
) -> Posed:
    """Brings an unseen mat into the canonical frame; its finer classes only where they are ours."""
    same = strange.label_names == maps.label_names
    shared = {kind: of for kind, of in classes.items() if kind == "posture" or same}
    return posed(strange, shared, config.canonical)


def labelled_subjects(maps: PressureMaps, config: Config) -> list[str]:
    """Draws whose labels of an unseen mat may be seen.

    Raises:
        InputError: nobody would be left to test on.
    """
    people = folds.natural(set(maps.subject.tolist()))
    count = config.labelled_subjects
    if count >= len(people):
        raise InputError(
            f"--labelled-subjects is {count}, but {maps.name} has {len(people)} and somebody must "
            f"be tested on; take at most {len(people) - 1}."
        )
    drawn = np.random.default_rng(config.seed).permutation(len(people))[:count]
    return folds.natural([people[i] for i in drawn])


def devices_for(config: Config, sets: Sets) -> Devices:
    """Returns the devices to train on.

    Raises:
        InputError: they cannot share the batches, or an encoder has too few maps to train on.
    """
    fewest = min(len(np.intersect1d(sets.train, seen)) for seen in sets.plan.seen.values())
    devices = config.devices(config.batch_size, fewest)
    parts = devices.count * config.micro_batches
    for reader in readers_of(config):
        size = batch_size_of(config, reader)
        if size < 1 or size % parts:
            raise InputError(
                f"--classifier-batch-size is {config.classifier_batch_size}, of which {reader} is "
                f"given {size}, but that must be a multiple of the {parts} devices and "
                "micro-batches that share it."
            )
    return devices


def trainer_of(config: Config, devices: Devices) -> Trainer:
    """Makes the trainer of a run."""
    return Trainer(
        config.workdir,
        devices,
        resume=config.resume,
        log_every=max(1, min(20, config.stage2_steps // 8)),
        eval_every=max(10, config.stage2_steps // 8),
        save_every=max(1, min(500, config.stage2_steps // 2)),
        quick_compile=config.quick_compile,
    )


def train_all(
    config: Config, trainer: Trainer, sets: Sets, answers: Answers, *, within: str = ""
) -> Trained:
    """Trains every encoder and what stands on it.

    Args:
        config: the settings.
        trainer: of the run.
        sets: the maps.
        answers: where to keep what readers say.
        within: put in front of all names, where a run trains several systems.
    """
    encoders = Encoders(config, trainer.devices.axis_name)
    find, readers = Nodes(config), Readers(config, trainer, sets.classes)
    own = sets.own.pressure[sets.train]
    untrained = Through(find, encoders.fresh(config.arms[0]), own, config.copies)
    trained = Trained({}, {}, {}, None)
    for arm, owner in encoders_of(config, sets.plan):
        seen = np.intersect1d(sets.train, sets.plan.seen[owner])
        name = f"{within}{arm}/{owner}"
        trained.phases[arm, owner] = encoders.phase(arm, name, stage=2)
        variables, trained.rebuilt[arm, owner] = encoders.train(
            trainer,
            arm,
            name,
            sets.own.pressure[seen],
            sets.own.pressure[watched(sets.train, seen)],
        )
        trained.variables[arm, owner] = variables
        through = Through(find, variables, own, config.copies)
        course = Course(config, sets, readers, answers, arm, through, untrained, within)
        for fold in sets.plan.folds:
            if fold.encoder == owner and fold.name != EVERYONE:
                course.test_fold(fold)
        if (arm, owner) == (config.arms[0], EVERYONE) and "posture" in config.labels:
            classifiers = course.meet_strangers(sets.plan.folds[-1])
            about = (sets.own.name, len(sets.train))
            system = system_of(config, sets.classes["posture"], about, variables, classifiers)
            trained = trained._replace(system=system)
    return trained


def encoders_of(config: Config, plan: Plan) -> Iterator[tuple[Arm, str]]:
    """Lists what is trained: the first arm for every fold, the others once, for comparison."""
    first, *others = config.arms
    for owner in plan.seen:
        yield first, owner
    for arm in others:
        yield arm, next(iter(plan.seen))


def watched(train: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Chooses maps to watch an encoder by: of people it does not see, if there are any."""
    unseen = np.setdiff1d(train, seen)
    maps = unseen if len(unseen) else seen
    return maps[:: max(1, len(maps) // _WATCHED)]
