"""The finished system of `python -m experiments.keypoint_posture`: what it takes to meet a mat.

`system.json` tells how maps are shown to it and what its classes are, `system.npz` holds its
weights; both lie in the workdir of the run.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.keypoint_posture import Config
from experiments.keypoint_posture_data import Classes
from experiments.keypoint_posture_networks import (
    Nodes,
    Variables,
    classifier_of,
    frozen_part,
    in_chunks,
)
from experiments.keypoint_posture_readers import agreed
from jaxbed.errors import InputError
from jaxbed.whole_files import write_json, write_whole

# What of the configuration changes how a map is read.
_SETTINGS = (
    *("image_size", "decoder_features", "sharpness", "canonical", "arms", "quick_compile"),
    "ask_mirrored",
)


class System(NamedTuple):
    """An encoder and its classifiers.

    Attributes:
        settings: of the run, as far as they change how a map is read.
        classes: postures.
        trained_on: name of the set, and how many of its maps.
        encoder: variables.
        classifiers: variables by name.
    """

    settings: Mapping[str, Any]
    classes: Classes
    trained_on: tuple[str, int]
    encoder: Variables
    classifiers: Mapping[str, Variables]

    def configured(self, config: Config) -> Config:
        """Returns a configuration that shows maps as this system was shown them."""
        return dataclasses.replace(config, **self.settings)

    def logits(self, config: Config, pressure: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what every classifier says, f32[N,k], of canonical maps f32[N,R,C]."""
        config = self.configured(config)
        find, said = Nodes(config), {}
        asked = (pressure, pressure[..., ::-1])[: 1 + config.ask_mirrored]
        nodes = [find(self.encoder, one) for one in asked]
        for name, variables in self.classifiers.items():
            network = classifier_of(name, len(self.classes.names))
            apply = jax.jit(lambda v, x, network=network: network.apply(v, x, train=False))
            held = jax.device_put(variables)
            answers = [
                in_chunks(lambda x, a=apply, v=held: (a(v, x)["logits"],), one)[0] for one in nodes
            ]
            said[name] = agreed(answers, self.classes)
        return said


def system_of(
    config: Config,
    classes: Classes,
    trained_on: tuple[str, int],
    encoder: Variables,
    classifiers: Mapping[str, Variables],
) -> System:
    """Puts a trained system together; the decoder is left out."""
    settings = {name: getattr(config, name) for name in _SETTINGS}
    return System(settings, classes, trained_on, frozen_part(encoder), classifiers)


def save(system: System, workdir: Path) -> None:
    """Writes a system into the workdir of its run."""
    about = {
        "settings": system.settings,
        "classes": system.classes._asdict(),
        "trained_on": system.trained_on,
        "classifiers": list(system.classifiers),
    }
    weights = {"encoder": system.encoder, "classifiers": dict(system.classifiers)}
    flat = traverse_util.flatten_dict(jax.device_get(weights), sep="/")

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **flat)

    write_whole(workdir / "system.npz", write)
    write_json(workdir / "system.json", about)


def load(workdir: Path) -> System:
    """Reads the system of a finished run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = workdir / "system.json"
    if not path.is_file():
        raise InputError(
            f"--from-run {workdir} holds no trained system (system.json); name the --workdir of a "
            "finished `python -m experiments.keypoint_posture`."
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        with np.load(workdir / "system.npz") as stored:
            flat = dict(stored)
        weights = traverse_util.unflatten_dict(flat, sep="/")
        settings = {name: _tuples(about["settings"][name]) for name in _SETTINGS}
        classes = Classes(
            tuple(about["classes"]["names"]), np.array(about["classes"]["mirrored"], np.int64)
        )
        classifiers = {name: weights["classifiers"][name] for name in about["classifiers"]}
        system = System(
            settings, classes, tuple(about["trained_on"]), weights["encoder"], classifiers
        )
        _check(system)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"the system in {workdir} is damaged ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); go on with that "
            "run by --resume, which writes it again."
        ) from error
    return system


def _check(system: System) -> None:
    """Raises ValueError where the weights are not those of the networks."""
    from experiments.keypoint_posture_networks import efd_of

    config = system.configured(Config())
    network = efd_of(config, config.arms[0])
    image = jax.ShapeDtypeStruct((1, *config.image_size, 1), jnp.float32)
    key = jax.random.key(0)
    drawn = jax.eval_shape(lambda x: network.init(key, x, train=False), image)
    _same(frozen_part(drawn), system.encoder, "encoder")
    nodes = jax.ShapeDtypeStruct((1, network.keypoints, 3 + network.features), jnp.float32)
    for name, variables in system.classifiers.items():
        reader = classifier_of(name, len(system.classes.names))
        drawn = jax.eval_shape(lambda x, r=reader: r.init(key, x, train=False), nodes)
        _same(drawn, variables, name)


def _same(wanted: Any, found: Any, what: str) -> None:
    shapes = [
        {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (wanted, found)
    ]
    if shapes[0] != shapes[1]:
        names = sorted(
            path
            for path in shapes[0].keys() | shapes[1].keys()
            if shapes[0].get(path) != shapes[1].get(path)
        )
        raise ValueError(f"{what} has other weights than the network: {names[0]}")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
