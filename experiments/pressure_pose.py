"""Supervised keypoint networks on pressure maps, trained on annotated joints.

Paper: Yu et al., "A self-supervised pressure map human keypoint detection approach" (its own
network: experiments.efd_crwt), compares keypoints that nobody annotated with those of five
supervised networks: the stacked hourglass ("shglass"), PoseAttention ("poseattention"), PyraNet
("pyranet"), HRNet-W32 ("hrpose") and SimpleBaseline with ResNet-101 ("respose"). This trains those
five on the same joints and says how near they come, beside what they cost.

Run:  python -m experiments.pressure_pose                              (simulated sleepers)
      python -m experiments.pressure_pose --data slp --data-dir DIR    (data_prep.slp_pressure)
Published: 10.27 to 24.59 G for one 256x256 map, which are MACs; no accuracy of the joints.
The small presets use smaller inputs and slimmer networks than the paper's.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxbed.cli import Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

Arm = Literal["shglass", "poseattention", "pyranet", "hrpose", "respose"]
ARMS: tuple[Arm, ...] = ("shglass", "poseattention", "pyranet", "hrpose", "respose")
Networks = Literal["tiny", "slim", "full"]

MULTIPLES = {"tiny": 16, "slim": 32, "full": 64}
"""What height and width of the input must be multiples of."""

# A pixel for each sensor of the simulated mat, a thirty-second of the paper's, and about a quarter
# of its channels: what two CPU cores can train within minutes.
_SMALL: dict[str, Any] = {
    "image_size": (64, 32),
    "networks": "slim",
    "sigma_px": 1.0,
    "positive_weight": 20.0,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "schedule": "cosine",
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": _SMALL
    | {
        "image_size": (32, 16),
        "networks": "tiny",
        "steps": 4,
        "batch_size": 4,
        "quick_compile": True,
        "simulated": (6, 6),
    },
    "quick": _SMALL | {"steps": 600, "quick_compile": False, "simulated": (60, 40)},
    "long": _SMALL
    | {
        "image_size": (128, 64),
        "sigma_px": 1.25,
        "steps": 4000,
        "quick_compile": False,
        "simulated": (150, 80),
    },
    "paper": {
        "image_size": (256, 256),
        "networks": "full",
        "sigma_px": 2.0,
        "positive_weight": 1.0,
        "steps": None,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "schedule": "steps",
        "quick_compile": False,
        "simulated": (102, 135),
    },
}
EPOCHS = 140
"""Of preset paper, as SimpleBaseline was trained; Yu et al. publish no schedule."""


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: a minute or two, proves that everything runs. quick: slimmer networks at 64x32, some
    minutes. long: the same at 128x64 and for longer, an hour or more on two cores. paper: the
    published networks at 256x256, for an accelerator."""
    workdir: Path = Path("runs/pressure_pose")
    """Where everything is written."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "slp"] = "simulated"
    """Simulated sleepers with exact joints, or the pressure maps of SLP with annotated ones."""
    data_dir: Path | None = None
    """The --out of data_prep.slp_pressure; needed with --data slp."""
    test_subjects: tuple[str, ...] = ()
    """Who is tested on; by default the last fifth, in SLP the last 12 as its authors do."""
    arms: tuple[Arm, ...] = ARMS
    """Networks to train."""
    networks: Networks | None = None
    """How large they are. full: as published. slim: about a quarter of the channels and fewer
    blocks. tiny: next to nothing, for tests."""
    seed: int = 0
    """Of initial weights, order, augmentation and simulation."""

    image_size: tuple[int, int] | None = None
    """Height and width of the input, into which mats are squeezed: multiples of 64 for full, 32
    for slim and 16 for tiny networks; the paper's is 256 256."""
    simulated: tuple[int, int] | None = None
    """Simulated sleepers and maps of each."""
    sigma_px: float | None = None
    """Standard deviation of a joint's Gaussian, in heatmap pixels, which are 4 input pixels."""
    positive_weight: float | None = None
    """How much more the pixel at a joint counts in the loss than one far from it; 1 in the papers,
    which takes longer to find the few pixels of a joint."""
    refine: Literal["none", "quarter", "taylor"] = "taylor"
    """How a joint between heatmap pixels is found; the papers shift by a quarter."""
    mirror: bool = True
    """Mirror half of the training maps, left and right joints exchanged."""
    max_shift_mm: float = 80.0
    """Largest augmentation shift, along either side of the mat."""
    max_zoom: float = 1.15
    """Training maps are enlarged by up to this or shrunk by as much; 1 leaves them alone."""

    steps: int | None = None
    """Training steps of every network; preset paper: 140 epochs."""
    batch_size: int | None = None
    """Maps per step."""
    learning_rate: float | None = None
    """The highest of the schedule, with Adam."""
    schedule: Literal["cosine", "steps"] | None = None
    """cosine: linear warm-up, cosine decay. steps: a tenth after 90 and after 120 of 140 parts."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in; parameters and heatmaps are float32."""

    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""


def main(config: Config) -> Path:
    """Trains all arms and writes the report; returns the report's path."""
    config = by_preset(config, PRESETS)
    _check(config)

    config.configure()
    from experiments import pressure_pose_study as study

    report = study.run(config)
    print(report)
    return report


def _check(config: Config) -> None:
    multiple = MULTIPLES[config.networks]
    height, width = config.image_size
    if height % multiple or width % multiple or min(height, width) < multiple:
        raise InputError(
            f"--image-size is {height} {width}, but both must be multiples of {multiple} for "
            f"--networks {config.networks}, which halve it that often."
        )
    if config.data != "simulated" and config.data_dir is None:
        raise InputError(
            f"--data {config.data} needs --data-dir, the folder that `python -m "
            "data_prep.slp_pressure` wrote."
        )
    if config.data == "simulated" and min(config.simulated) < 1:
        told = " ".join(map(str, config.simulated))
        raise InputError(f"--simulated is {told}, but needs sleepers and maps, at least 1 each.")
    if not config.arms:
        raise InputError("--arms names no network; name at least one, for instance shglass.")
    if len(set(config.arms)) < len(config.arms):
        raise InputError(f"--arms names one twice: {' '.join(config.arms)}; name each once.")
    for name in ("steps", "batch_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {value}, but must be at least 1.")
    for name in ("learning_rate", "sigma_px", "positive_weight"):
        value = getattr(config, name)
        if not np.isfinite(value) or value <= 0:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {value}, but must be above 0.")
    for name, least in {"max_shift_mm": 0, "max_zoom": 1}.items():
        value = getattr(config, name)
        if not np.isfinite(value) or value < least:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {value}, but must be at least {least}.")


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
