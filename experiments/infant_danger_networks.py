"""The networks of `python -m experiments.infant_danger`, and the files that a run keeps them in.

A run leaves monitor.json, which says what its networks are, and weights/NAME.safetensors of each.
Whoever wants to watch needs nothing else of it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.infant_danger_data import MARGIN
from jaxbed.codecs import boxes
from jaxbed.data.crib import FACES, POSTURES
from jaxbed.errors import InputError
from jaxbed.models import retinaface, ssd
from jaxbed.models.infant_danger import (
    face_resnet50,
    network_input,
    posture_resnet50,
    slim_resnet,
)
from jaxbed.models.mobilenet import MobileNet
from jaxbed.models.retinaface import RetinaFace
from jaxbed.tasks import face_detection
from jaxbed.tasks.danger_pipeline import Pipeline, Variables
from jaxbed.weights.retinaface import load_retinaface
from jaxbed.weights.state_dict import few, read_state_dict, write_state_dict
from jaxbed.weights.torchvision import load_torchvision
from jaxbed.whole_files import write_json

NAMES = ("detector", "face", "posture")


class DetectorKind(NamedTuple):
    """A detector and what it takes to use it.

    Attributes:
        network: makes it, given `axis_name`.
        levels: of its anchors.
        mean_bgr: what it has subtracted.
        rules: how it is trained.
        network_size: as of Pipeline.
    """

    network: Callable[..., nn.Module]
    levels: boxes.Levels
    mean_bgr: tuple[float, float, float] = retinaface.MEAN_BGR
    rules: face_detection.Rules = face_detection.RETINAFACE
    network_size: tuple[int, int] | None = None


_SSD = {"rules": face_detection.SSD, "network_size": ssd.SIZE}
DETECTORS = {
    "slim": DetectorKind(
        partial(RetinaFace, partial(MobileNet, slope=0.1), 32, slope=0.1), boxes.RETINAFACE_EDGE
    ),
    "edge": DetectorKind(retinaface.retinaface_edge, boxes.RETINAFACE_EDGE),
    "mobilenet": DetectorKind(retinaface.retinaface_mobilenet, boxes.RETINAFACE),
    "resnet50": DetectorKind(retinaface.retinaface_resnet50, boxes.RETINAFACE),
    "ssd300": DetectorKind(ssd.SSD300, boxes.SSD300, ssd.SSD300_MEAN_BGR, **_SSD),
    "light_ssd": DetectorKind(ssd.LightSSD, boxes.LIGHT_SSD300, ssd.LIGHT_MEAN_BGR, **_SSD),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run's networks are, as monitor.json says it.

    Attributes: those of experiments.infant_danger.Config.
    """

    detector: str
    detector_size: tuple[int, int]
    angles_deg: tuple[float, ...]
    score_threshold: float
    classifier: str
    width: int
    face_size: tuple[int, int]
    posture_size: tuple[int, int]
    face_states: tuple[str, ...] = FACES
    postures: tuple[str, ...] = POSTURES
    margin: float = MARGIN

    def pipeline(self, **changes: Any) -> Pipeline:
        """Builds the networks.

        Args:
            **changes: of fields of the pipeline.
        """
        kind = DETECTORS[self.detector]
        blue, green, red = kind.mean_bgr
        settings = {
            "detector": kind.network(),
            "detector_input": detector_input(kind.mean_bgr),
            "neutral_rgb": (red, green, blue),
            "levels": kind.levels,
            "network_size": kind.network_size,
            "face": self.network("face"),
            "posture": self.network("posture"),
            "classifier_input": network_input,
            "face_states": self.face_states,
            "postures": self.postures,
            "detector_size": self.detector_size,
            "angles_deg": self.angles_deg,
            "score_threshold": self.score_threshold,
            "face_size": self.face_size,
            "posture_size": self.posture_size,
            "margin": self.margin,
        }
        return Pipeline(**settings | changes)

    def network(self, name: str, axis_name: str | None = None) -> nn.Module:
        """Builds one of NAMES."""
        if name == "detector":
            return DETECTORS[self.detector].network(axis_name=axis_name)
        if self.classifier == "resnet50":
            made = {"face": face_resnet50, "posture": posture_resnet50}[name]
            return made(axis_name=axis_name)
        outputs = {"face": self.face_states, "posture": self.postures}[name]
        return slim_resnet(outputs=len(outputs), width=self.width, axis_name=axis_name)

    def example(self, name: str) -> jax.ShapeDtypeStruct:
        """Returns the shape of one input of one of NAMES."""
        detector_size = DETECTORS[self.detector].network_size or self.detector_size
        sizes = {"detector": detector_size, "face": self.face_size, "posture": self.posture_size}
        return jax.ShapeDtypeStruct((1, *sizes[name], 3), jnp.float32)

    def shapes(self, name: str) -> dict[str, Any]:
        """Returns the shapes of a network's variables; nothing is computed."""
        init = partial(self.network(name).init, train=False)
        return dict(jax.eval_shape(init, jax.random.key(0), self.example(name)))


_INPUTS: dict[tuple[float, ...], Callable] = {}


def detector_input(mean_bgr: tuple[float, float, float]) -> Callable[[jax.Array], jax.Array]:
    """Returns the one function for a mean, so that what is compiled for it is found again."""
    made = partial(retinaface.network_input, mean_bgr=mean_bgr)
    return _INPUTS.setdefault(mean_bgr, made)


def recipe_of(config: Any) -> Recipe:
    """Takes what the configuration says of the networks."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{n: getattr(config, n) for n in fields if hasattr(config, n)})


def published_detector(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Reads published RetinaFace weights; every tensor must have its place.

    Raises:
        InputError: they are not of this detector.
    """
    variables, _ = load_retinaface(path, _zeros(recipe.shapes("detector")))
    return variables


def imagenet_weights(path: Path, variables: dict[str, Any]) -> dict[str, Any]:
    """Puts published ImageNet weights into a ResNet-50, its last layer excepted."""
    return load_torchvision(path, variables, replace_head=True)[0]


def save(workdir: Path, recipe: Recipe, variables: Variables) -> None:
    """Writes what `load` reads; monitor.json comes last."""
    (workdir / "weights").mkdir(exist_ok=True)
    for name in NAMES:
        tensors = flatten_dict(jax.device_get(variables[name]), sep="/")
        write_state_dict(_weights(workdir, name), tensors)
    write_json(workdir / "monitor.json", dataclasses.asdict(recipe))


def load(workdir: Path, **changes: Any) -> tuple[Variables, Recipe]:
    """Reads the networks of a run.

    Args:
        workdir: of a run that has trained them.
        **changes: fields of the recipe to use instead; None keeps the run's.

    Raises:
        InputError: there is none, or a file is damaged or of other networks.
    """
    path = workdir / "monitor.json"
    try:
        content = json.loads(path.read_text())
        recipe = Recipe(**{n: _tuples(value) for n, value in content.items()})
        asked = {name: value for name, value in changes.items() if value is not None}
        recipe = dataclasses.replace(recipe, **asked)
        if recipe.detector not in DETECTORS:
            raise ValueError(f"no detector is called {recipe.detector!r}")
    except FileNotFoundError as error:
        raise InputError(
            f"--from-run {workdir} holds no monitor.json, so no trained networks; name the "
            "--workdir of a finished `python -m experiments.infant_danger`."
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} does not say what the run's networks are ({error}); train anew in another "
            "--workdir."
        ) from error
    return {name: _load(workdir, name, recipe) for name in NAMES}, recipe


def _load(workdir: Path, name: str, recipe: Recipe) -> dict[str, Any]:
    path = _weights(workdir, name)
    tensors = read_state_dict(path)
    wanted = flatten_dict(recipe.shapes(name), sep="/")
    odd = [
        key
        for key in {**wanted, **tensors}
        if key not in wanted or key not in tensors or wanted[key].shape != tensors[key].shape
    ]
    if odd:
        raise InputError(
            f"{path} is not of the network that {workdir / 'monitor.json'} names: {few(odd)}; "
            "put back the files of one run, or train anew."
        )
    broken = [key for key, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if broken:
        raise InputError(f"{path} holds values that are not finite in {few(broken)}; train anew.")
    return unflatten_dict(tensors, sep="/")


def _weights(workdir: Path, name: str) -> Path:
    return workdir / "weights" / f"{name}.safetensors"


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _zeros(shapes: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
