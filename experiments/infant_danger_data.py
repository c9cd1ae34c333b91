"""What `python -m experiments.infant_danger` learns from, and who is tested on."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxbed.data import splits
from jaxbed.data.batches import Arrays
from jaxbed.data.crib import FACES, POSTURES, CribImages
from jaxbed.data.infant_danger import FaceImages, NamedImages, parts_of
from jaxbed.errors import InputError
from jaxbed.runtime import usable_cores

if TYPE_CHECKING:
    from experiments.infant_danger import Config

_BLOCK = 10  # subjects that are simulated with one seed, whatever the number of processes
_WATCHED = 128  # test images that show the course of training
MARGIN = 0.3
"""By which share a crop is larger than its face."""
_CLASSES = {"face": FACES, "posture": POSTURES}


class Side(NamedTuple):
    """What one network learns from, by what it is for.

    Attributes:
        name: of the set.
        split: who is tested on.
        train: to train on.
        watch: some test images, to follow the course of training by.
        test: all test images.
        test_subject: str[M], whom they show.
        skipped: what was left out on reading.
        simulated: whether it was.
    """

    name: str
    split: splits.Split
    train: Arrays
    watch: Arrays
    test: Arrays
    test_subject: np.ndarray
    skipped: tuple[str, ...]
    simulated: bool


def load(config: Config) -> dict[str, Side]:
    """Simulates or reads what each network learns from.

    Returns:
        By network: `detector` (not with published weights), `face`, `posture`.

    Raises:
        InputError: data are missing, damaged or cannot be divided.
    """
    sets: dict[str, FaceImages | NamedImages] = {}
    made = config.data == "simulated" or not (config.detector_weights or config.wider_dir)
    if made:
        sets.update(parts_of(simulate(config), classes=_CLASSES)._asdict())
    if config.data == "prepared":
        from jaxbed.data.prepared_infant_danger import read_named_images

        for network, name in (("face", "infant_faces"), ("posture", "infant_postures")):
            sets[network] = read_named_images(config.data_dir, name, _CLASSES[network])
        sets["face"] = inside_margin(sets["face"], MARGIN)
    if config.wider_dir:
        from jaxbed.data.prepared_infant_danger import read_face_images

        sets["detector"] = read_face_images(config.wider_dir, "wider_face")
    if config.detector_weights:
        sets.pop("detector", None)
    sides = {network: _side(network, of, config) for network, of in sets.items()}
    for network, side in sides.items():
        told = f"{len(side.split.train)} + {len(side.split.test)} images"
        print(f"{network}: {side.name}, {told}, {side.split.description}", file=sys.stderr)
    return sides


def simulate(config: Config) -> CribImages:
    """Simulates infants in several processes; the result does not depend on how many."""
    subjects, each = config.simulated
    told = f"{each} images and {config.rehearsals} rehearsals each"
    print(f"simulating {subjects} infants, {told}", file=sys.stderr)
    blocks = [
        (
            config.seed,
            first,
            min(_BLOCK, subjects - first),
            each,
            config.rehearsals,
            config.image_size,
            config.views,
        )
        for first in range(0, subjects, _BLOCK)
    ]
    return joined(in_processes(_block, blocks))


def inside_margin(images: NamedImages, margin: float) -> NamedImages:
    """Takes cut-out faces to have the margin already that faces are cut out with."""
    centre = (images.box_px[:, :2] + images.box_px[:, 2:]) / 2
    half = (images.box_px[:, 2:] - images.box_px[:, :2]) / (2 * (1 + margin))
    inner = np.concatenate([centre - half, centre + half], axis=1)
    return dataclasses.replace(images, box_px=inner)


def in_processes(work: Callable[[Any], Any], asked: Sequence[Any]) -> list[Any]:
    """Does what is asked for with as many processes as there are cores; results in order."""
    processes = min(usable_cores(), len(asked))
    if processes < 2:
        return [work(one) for one in asked]
    # Not forked: JAX has threads by now.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(work, asked))


def _block(asked: tuple) -> CribImages:
    from experiments.infant_danger_scenes import rehearse
    from jaxbed.simulate.crib import simulate_crib_images

    seed, first, subjects, each, rehearsals, size, views = asked
    people = {"subjects": subjects, "size": size, "views": views, "seed": 1000 * seed + first}
    images = simulate_crib_images(images_per_subject=each, **people)
    if rehearsals:
        images = joined([images, rehearse(rehearsals=rehearsals, **people)])
    # Each seed counts its subjects from 0.
    named = [f"sim-{first + int(name.rpartition('-')[2]):03d}" for name in images.subject]
    return dataclasses.replace(images, subject=np.array(named))


def joined(blocks: list[CribImages]) -> CribImages:
    """Joins sets of one kind; their extra columns are left out."""
    names = [field.name for field in dataclasses.fields(CribImages)]
    arrays = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in names
        if isinstance(getattr(blocks[0], name), np.ndarray)
    }
    skipped = sum((block.skipped for block in blocks), ())
    return CribImages(name=blocks[0].name, skipped=skipped, **arrays)


def _side(network: str, images: FaceImages | NamedImages, config: Config) -> Side:
    split = divide(images.subject, images.name, config)
    if isinstance(images, NamedImages):
        _check_classes(network, images, split)
        columns = {"image": images.image, "box_px": images.box_px, "label": images.label}
    else:
        columns = {
            "image": images.image,
            "boxes_px": images.boxes_px,
            "landmarks_px": images.landmarks_px,
        }
    watched = split.test[:: -(-len(split.test) // _WATCHED)]
    train, watch, test = (
        {name: column[chosen] for name, column in columns.items()}
        for chosen in (split.train, watched, split.test)
    )
    return Side(
        name=images.name,
        split=split,
        train=train,
        watch=watch,
        test=test,
        test_subject=images.subject[split.test],
        skipped=images.skipped,
        simulated="simulated" in images.name,
    )


def divide(subject: np.ndarray, name: str, config: Config) -> splits.Split:
    """Splits by subject, or by image under the paper's protocol."""
    if config.protocol == "paper":
        return splits.by_example(subject, test_fraction=0.2, seed=config.seed)
    everyone = sorted(set(subject.tolist()))
    if len(everyone) < 2:
        raise InputError(
            f"a split by subject is impossible: all {len(subject)} images of {name} show "
            f"{everyone[0]!r}; add images of somebody else, or ask for --protocol paper, which "
            "trains and tests on the same infants and says so."
        )
    return splits.by_subject(subject, everyone[-max(1, len(everyone) // 5) :])


def _check_classes(network: str, images: NamedImages, split: splits.Split) -> None:
    """Raises InputError if there is a class that nobody can learn."""
    counts = np.bincount(images.label[split.train], minlength=len(images.classes))
    absent = [name for name, count in zip(images.classes, counts, strict=True) if not count]
    if absent:
        raise InputError(
            f"{images.name}: no training image of the {network} is {' or '.join(absent)}, which "
            "the monitor has to know; add images of at least two infants for every class."
        )
