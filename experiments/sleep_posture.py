"""Posture of a sleeper in night infrared images, with the blanket as an auxiliary task.

Paper: Wang et al., "A deep learning-based method for nighttime sleep posture recognition"
(network: jaxbed/models/sleep_posture.py). The arm "dl" is the paper's network: features shared
by both tasks, a branch for each, attention behind all three. "multi_task" has no attention,
"attention" no blanket, and "resnet" (ResNet-18) neither: it is the baseline of the paper's
Table II and the ResNet of its Table I.

Run:  python -m experiments.sleep_posture                        (simulated sleepers)
      python -m experiments.sleep_posture --study tables         (Tables I and II)
      python -m experiments.sleep_posture --study weights        (Fig. 3, weight of the blanket)
      python -m experiments.sleep_posture --data image_folder --data-dir DIR
          (DIR: --out of data_prep.image_folder, data_prep.sleep_video or data_prep.slp)
Published, split by image so that sleepers are shared: ResNet 91.21, + blanket 93.38,
+ attention 94.62, DenseNet 89.33 % of the postures; 98.81 % of the blankets.
The small presets use smaller images and a slimmer network than the paper's.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxbed.cli import Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

Arm = Literal["dl", "multi_task", "attention", "resnet", "resnet34", "resnet50", "densenet"]

WITH_BLANKET = ("dl", "multi_task")
"""Arms that have the auxiliary task."""

# Images of less than half the paper's height and a quarter of its channels: an 87th of the
# MACs, which is what two CPU cores can train within minutes. Without ImageNet weights to start
# from, a higher learning rate. Nobody lies upside down before a fixed camera, so the small
# presets mirror only; the paper flips vertically.
_SMALL: dict[str, Any] = {
    "image_size": (96, 96),
    "width": 16,
    "init": "random",
    "flips": "horizontal",
    "min_scale": 0.9,
    "schedule": "cosine",
    "batch_size": 32,
    "learning_rate": 3e-3,
    "quick_compile": False,
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": _SMALL
    | {
        "image_size": (32, 32),
        "width": 4,
        "steps": 6,
        "batch_size": 8,
        "simulated": (6, 16),
    },
    "quick": _SMALL | {"steps": 900, "simulated": (60, 56)},
    "long": _SMALL
    | {
        "image_size": (128, 128),
        "width": 32,
        "min_scale": 0.8,
        "steps": 3000,
        "simulated": (150, 64),
    },
    "paper": {
        "image_size": (224, 224),
        "width": 64,
        "init": "imagenet",
        "flips": "vertical",
        "min_scale": 0.8,
        "schedule": "paper",
        "steps": None,
        "batch_size": 64,
        "learning_rate": 1e-4,
        "quick_compile": False,
        "simulated": (16, 244),
    },
}
STUDIES: dict[str, dict[str, Any]] = {
    "train": {"arms": ("dl", "resnet"), "seeds": 1},
    "tables": {"arms": ("resnet", "densenet", "multi_task", "dl"), "seeds": 3},
    "weights": {"arms": ("dl",), "seeds": 1},
}
EPOCHS = 80
"""Of the paper's schedule."""


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset, arms and seeds --study."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: under a minute, proves that everything runs. quick: 96x96 and a quarter of the
    paper's channels, some minutes. long: 128x128 and half of them, an hour or so on two cores.
    paper: the published sizes and schedule, for an accelerator; needs --weights."""
    study: Literal["train", "tables", "weights"] = "train"
    """train: the paper's network beside ResNet. tables: every arm of Tables I and II with
    several seeds. weights: the paper's network with every weight of the blanket."""
    workdir: Path = Path("runs/sleep_posture")
    """Where everything is written."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "image_folder", "sleep_video", "slp"] = "simulated"
    """Simulated sleepers, your own labelled images or videos, or SLP (thermal or depth)."""
    data_dir: Path | None = None
    """The --out of the data_prep command; needed unless --data simulated."""
    slp_images: Literal["ir", "depth"] = "ir"
    """Which of SLP's images: the --modality that they were prepared with."""
    protocol: Literal["subject", "paper"] = "subject"
    """subject: nobody is both trained and tested on. paper: a random split of the images, 7:3,
    which shares people."""
    test_subjects: tuple[str, ...] = ()
    """Who is tested on; by default the last fifth."""
    arms: tuple[Arm, ...] | None = None
    """What to train; by default dl resnet, in --study tables resnet densenet multi_task dl."""
    seed: int = 0
    """Of initial weights, order, augmentation, simulation and the random split."""
    seeds: int | None = None
    """How many seeds to train every arm with, counted from --seed; by default 1, in --study
    tables 3. Data and split stay those of --seed."""

    image_size: tuple[int, int] | None = None
    """Height and width of the networks' input, at least 32; the paper's is 224 224."""
    width: int | None = None
    """Channels of the stem, even; the paper's is 64."""
    init: Literal["random", "imagenet"] | None = None
    """Where training starts from; imagenet needs --weights and --width 64."""
    weights: tuple[Path, ...] = ()
    """Published ImageNet weights, .safetensors or .pth, one file for each kind of network among
    the arms, named as torchvision does: resnet18... (also for dl, multi_task and attention),
    resnet34..., resnet50..., densenet121...."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in; parameters are float32."""
    simulated: tuple[int, int] | None = None
    """Simulated sleepers and images of each."""

    blanket_weight: float = 0.5
    """Weight of the blanket's loss beside the posture's, the paper's w1."""
    blanket_weights: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 1.0)
    """The weights that --study weights compares."""
    flips: Literal["none", "horizontal", "vertical", "both"] | None = None
    """Axes that half of the training images are turned over. A single flip makes a mirror image,
    so left and right change places in the label too."""
    min_scale: float | None = None
    """Smallest part of height and width that a random crop keeps; it is enlarged again."""
    steps: int | None = None
    """Training steps; preset paper: 80 epochs."""
    batch_size: int | None = None
    """Images per step."""
    learning_rate: float | None = None
    """The highest of the schedule, with Adam."""
    schedule: Literal["cosine", "paper"] | None = None
    """cosine: linear warm-up, cosine decay. paper: times 0.8 after every quarter of the steps,
    20 of 80 epochs."""

    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""


def main(config: Config) -> Path:
    """Trains all arms and writes the report; returns the report's path."""
    config = resolved(config)
    _check(config)

    config.configure()
    from experiments import sleep_posture_study as study

    report = study.run(config)
    print(report)
    return report


def resolved(config: Config) -> Config:
    """Fills what was left open, from the preset and from the study."""
    open_fields = PRESETS[config.preset] | STUDIES[config.study]
    return by_preset(config, {config.preset: open_fields})


def _check(config: Config) -> None:
    if min(config.image_size) < 32:
        height, width = config.image_size
        raise InputError(
            f"--image-size is {height} {width}, but must be at least 32 32; the networks shrink "
            "images to a 32nd."
        )
    if config.data != "simulated" and config.data_dir is None:
        raise InputError(
            f"--data {config.data} needs --data-dir, the folder that `python -m "
            f"data_prep.{config.data}` wrote."
        )
    if config.test_subjects and config.protocol == "paper":
        raise InputError(
            "--test-subjects names people, but --protocol paper splits images; leave one of them "
            "out."
        )
    if config.width < 2 or config.width % 2:
        raise InputError(f"--width is {config.width}, but must be even and at least 2.")
    if config.init == "imagenet" and config.width != 64:
        raise InputError(
            f"--width is {config.width}, but ImageNet weights have 64 channels in the stem; take "
            "--width 64, or --init random."
        )
    if config.weights and config.init == "random":
        raise InputError(
            "--weights is given, but --init is random; take --init imagenet to use it."
        )
    _check_arms(config)
    for name in ("steps", "batch_size", "seeds"):
        value = getattr(config, name)
        if value is not None and value < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {value}, but must be at least 1.")
    if not np.isfinite(config.learning_rate) or config.learning_rate <= 0:
        raise InputError(f"--learning-rate is {config.learning_rate}, but must be above 0.")
    if not 0 < config.min_scale <= 1:
        raise InputError(f"--min-scale is {config.min_scale}, but must be above 0 and at most 1.")


def _check_arms(config: Config) -> None:
    if not config.arms:
        raise InputError("--arms names no arm; name at least one, for instance dl.")
    if len(set(config.arms)) < len(config.arms):
        raise InputError(f"--arms names one twice: {' '.join(config.arms)}; name each once.")
    for flag, weights in {
        "--blanket-weight": (config.blanket_weight,),
        "--blanket-weights": config.blanket_weights,
    }.items():
        if not weights or min(weights) < 0 or not np.isfinite(weights).all():
            told = " ".join(f"{w:g}" for w in weights) or "empty"
            raise InputError(f"{flag} is {told}, but must be weights of 0 or more.")
    if config.study != "weights":
        return
    if set(config.arms) - set(WITH_BLANKET):
        raise InputError(
            f"--study weights is about the blanket's weight, which of --arms "
            f"{' '.join(config.arms)} only {' and '.join(WITH_BLANKET)} have; name those."
        )
    names = {f"{weight:g}" for weight in config.blanket_weights}
    if len(names) < max(2, len(config.blanket_weights)):
        raise InputError("--blanket-weights must name at least two weights, each once.")


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
