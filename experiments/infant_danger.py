"""Danger monitor for infants: a covered face, lying on the stomach, standing.

Thesis: "A deep-learning-based danger monitoring system for infants" (networks:
jaxbed/models/infant_danger.py, retinaface.py and ssd.py). A detector finds the face, a classifier
names what is over it, another one the posture, and jaxbed.monitor raises an alert for each danger
that lasts. This command trains all three on simulated cribs, films infants that they have never
seen by a script, watches the films as a camera would be watched and compares alerts with script.

Run:  python -m experiments.infant_danger                     (simulated cribs, from nothing)
      python -m experiments.infant_danger --detector-weights mobilenet0.25_Final.safetensors
      python -m experiments.infant_danger --data prepared --data-dir DIR
          (DIR: --out of data_prep.infant_danger; with --wider-dir that of data_prep.wider_face)
      python -m experiments.infant_danger watch SOURCE --from-run runs/infant_danger
      python -m experiments.infant_danger evaluate --videos FOLDER --from-run runs/infant_danger
      python -m experiments.infant_danger soak --minutes 30
      (watch, evaluate, soak: --help)
Published: 0.04 s per image with SSD; 99 % accuracy, precision and recall with RetinaFace; 99 % of
covered faces and of postures, on photographs that were never released.
It is no medical device and prevents nothing: a person has to look after the infant.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import infant_danger_evaluate, infant_danger_soak, infant_danger_watch
from experiments.infant_danger_watch import ClassifierName, DetectorName
from jaxbed.cli import Command, Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

# Small images and thin networks: what two CPU cores can simulate and train within minutes.
_SMALL: dict[str, Any] = {
    "classifier": "slim",
    "width": 24,
    "init": "random",
    "face_size": (64, 64),
    "posture_size": (96, 96),
    "quick_compile": False,
}
_ALL_VIEWS = ("above", "foot", "side", "corner")
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": _SMALL
    | {
        "simulated": (5, 12),
        "rehearsals": 0,
        "views": ("above",),
        "image_size": (96, 128),
        "width": 4,
        "face_size": (32, 32),
        "posture_size": (32, 32),
        "detector_steps": 4,
        "steps": 4,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "videos": 1,
        "video_s": 12.0,
        "quick_compile": True,
    },
    "quick": _SMALL
    | {
        "simulated": (90, 4),
        "rehearsals": 1,
        "views": ("above",),
        "image_size": (144, 192),
        "width": 16,
        "posture_size": (144, 192),
        "detector_steps": 400,
        "steps": 1200,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "videos": 4,
        "video_s": 90.0,
    },
    "long": _SMALL
    | {
        "simulated": (400, 24),
        "rehearsals": 2,
        "views": _ALL_VIEWS,
        "image_size": (192, 256),
        "width": 32,
        "detector_steps": 4000,
        "steps": 8000,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "videos": 12,
        "video_s": 180.0,
    },
    "paper": {
        "classifier": "resnet50",
        "width": 64,
        "init": "imagenet",
        "simulated": (640, 24),
        "rehearsals": 2,
        "views": _ALL_VIEWS,
        "image_size": (384, 512),
        "face_size": (224, 224),
        "posture_size": (224, 224),
        "detector": "mobilenet",
        "detector_steps": 40_000,
        "steps": 20_000,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "videos": 12,
        "video_s": 300.0,
        "quick_compile": False,
    },
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: under a minute, proves that everything runs. quick: thin networks on small images,
    ten minutes on two cores. long: more of both, some hours. paper: the networks of the thesis at
    224x224, for an accelerator; needs --weights."""
    workdir: Path = Path("runs/infant_danger")
    """Where everything is written."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "prepared"] = "simulated"
    """What the classifiers learn from: simulated cribs, or your own images."""
    data_dir: Path | None = None
    """The --out of data_prep.infant_danger; needed with --data prepared."""
    wider_dir: Path | None = None
    """The --out of data_prep.wider_face, to train the detector on its photographs instead of
    simulated faces."""
    protocol: Literal["subject", "paper"] = "subject"
    """subject: nobody is both trained and tested on. paper: a random split of the images, 8:2,
    which shares infants; the thesis states none."""
    seed: int = 0
    """Of initial weights, order, augmentation, simulation and the random split."""
    simulated: tuple[int, int] | None = None
    """Simulated infants, and images of each from anywhere; a fifth of the infants is tested on."""
    rehearsals: int | None = None
    """Of every simulated infant: nights before a fixed camera, as in a film, with 24 images of
    each."""
    image_size: tuple[int, int] | None = None
    """Height and width of the simulated images and films."""
    views: tuple[Literal["above", "foot", "side", "corner"], ...] | None = None
    """Where their cameras hang."""

    detector: DetectorName | None = None
    """slim: RetinaFace with MobileNet and thinner heads. edge, mobilenet, resnet50: RetinaFace as
    published. ssd300, light_ssd: SSD. By default slim, with --detector-weights edge."""
    detector_weights: Path | None = None
    """Published RetinaFace weights, .safetensors or .pth, instead of a trained detector."""
    detector_size: tuple[int, int] | None = None
    """Height and width that frames are shrunk into for the detector; by default those of the
    images it was trained on, with --detector-weights 240 320."""
    angles_deg: tuple[float, ...] = (0.0,)
    """How far a frame is turned for the detector, each in turn: 0 90 180 270 finds faces that are
    upside down, at four times the work. Simulated heads lie in all directions already."""
    detector_steps: int | None = None
    """Training steps of the detector."""
    score_threshold: float = 0.5
    """From which score on a face is a face."""

    classifier: ClassifierName | None = None
    """slim: ten layers. resnet50: that of the thesis."""
    width: int | None = None
    """Channels of the slim classifiers' first layer."""
    init: Literal["random", "imagenet"] | None = None
    """Where the classifiers start from; imagenet needs --weights and --classifier resnet50."""
    weights: Path | None = None
    """Published ImageNet weights of ResNet-50, .safetensors or .pth."""
    face_size: tuple[int, int] | None = None
    """Height and width of the face classifier's input."""
    posture_size: tuple[int, int] | None = None
    """Height and width of the posture classifier's input."""
    steps: int | None = None
    """Training steps of each classifier."""
    batch_size: int | None = None
    """Images per step."""
    learning_rate: float | None = None
    """The highest of the schedule (linear warm-up, cosine decay), with Adam."""

    videos: int | None = None
    """Films of unseen infants, one infant each."""
    video_s: float | None = None
    """How long each of them is."""
    frame_hz: float = 5.0
    """Their frames per second."""
    missing_face: Literal["unknown", "covered"] = "covered"
    """What it means that an infant in a film lies on its back and no face is found, as of `watch
    --help`. The camera of the films sees the face of an infant on its back."""

    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""


def main(config: Config) -> Path:
    """Trains, watches and writes the report; returns the report's path."""
    config = resolved(config)
    check(config)

    config.configure()
    from experiments import infant_danger_study as study

    report = study.run(config)
    print(report)
    return report


def resolved(config: Config) -> Config:
    """Fills what was left open, from the preset and from what detector is used."""
    config = by_preset(config, PRESETS)
    detector = config.detector or ("edge" if config.detector_weights else "slim")
    size = config.detector_size
    if size is None:
        size = (240, 320) if config.detector_weights or config.wider_dir else config.image_size
    return dataclasses.replace(config, detector=detector, detector_size=size)


def check(config: Config) -> None:
    """Refuses what cannot be. Raises InputError."""
    if config.data == "prepared" and config.data_dir is None:
        raise InputError(
            "--data prepared needs --data-dir, the folder that `python -m data_prep.infant_danger` "
            "wrote."
        )
    if not config.views:
        raise InputError(f"--views names no camera; name some of {', '.join(_ALL_VIEWS)}.")
    for name in ("image_size", "detector_size", "face_size", "posture_size"):
        flag, (height, width) = _flag(name), getattr(config, name)
        if min(height, width) < 32:
            raise InputError(f"{flag} is {height} {width}, but must be at least 32 32.")
        if name == "face_size" and height != width:
            raise InputError(f"{flag} is {height} {width}, but faces are cut out as squares.")
    for name in ("steps", "detector_steps", "batch_size", "videos", "video_s", "frame_hz", "width"):
        if not np.isfinite(getattr(config, name)) or getattr(config, name) <= 0:
            raise InputError(f"{_flag(name)} is {getattr(config, name)}, but must be above 0.")
    if not np.isfinite(config.learning_rate) or config.learning_rate <= 0:
        raise InputError(f"--learning-rate is {config.learning_rate}, but must be above 0.")
    if not 0 < config.score_threshold < 1:
        raise InputError(f"--score-threshold is {config.score_threshold}, but must be in (0, 1).")
    if not config.angles_deg or not np.isfinite(config.angles_deg).all():
        raise InputError("--angles-deg must name at least one angle in degrees, for instance 0.")
    if min(config.simulated) < 1 or config.simulated[0] < 2:
        raise InputError(
            f"--simulated is {config.simulated[0]} {config.simulated[1]}, but a split by subject "
            "needs at least 2 infants with an image each."
        )
    if config.rehearsals < 0:
        raise InputError(f"--rehearsals is {config.rehearsals}, but must be at least 0.")
    _check_weights(config)


def _check_weights(config: Config) -> None:
    if config.detector_weights and config.detector not in ("edge", "mobilenet", "resnet50"):
        raise InputError(
            f"--detector-weights are those of RetinaFace, but --detector is {config.detector}; "
            "take edge, mobilenet or resnet50, whichever the file is for."
        )
    if config.detector_weights and config.wider_dir:
        raise InputError(
            "--detector-weights and --wider-dir exclude each other: one is a trained detector, "
            "the other trains one; leave one of them out."
        )
    if config.init == "imagenet" and (config.classifier != "resnet50" or config.weights is None):
        raise InputError(
            "--init imagenet needs --classifier resnet50 and --weights, the file that "
            "https://download.pytorch.org/models/resnet50-0676ba61.pth gives; name it, or take "
            "--init random."
        )
    if config.weights and config.init == "random":
        raise InputError("--weights is given, but --init is random; take --init imagenet.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


if __name__ == "__main__":
    run(
        main,
        Config,
        doc=__doc__,
        commands={
            "watch": Command(infant_danger_watch.main, infant_danger_watch.Config),
            "evaluate": Command(infant_danger_evaluate.main, infant_danger_evaluate.Config),
            "soak": Command(infant_danger_soak.main, infant_danger_soak.Config),
        },
    )
