"""EFD with CRWT: keypoints of a pressure map that nobody annotated.

Paper: Yu et al., "A self-supervised pressure map human keypoint detection approach" (network:
jaxbed/models/efd.py). Stage 1 learns where there is pressure, stage 2 keeps its weights and
rebuilds the map; the arm "plain" takes the same steps, with the same restart of the learning
rate, without stage 1's purpose.

Run:  python -m experiments.efd_crwt                          (simulated sleepers)
      python -m experiments.efd_crwt --data pmd --data-dir DIR   (python -m data_prep.pmd)
      python -m experiments.efd_crwt --data mat --data-dir DIR   (python -m data_prep.mat_folder)
Published: stage-1 f-score 93.51 % on data that are not public; Fig. 5: without CRWT, dilation
or exchange the reconstruction losses are higher.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxbed.cli import Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

Arm = Literal["crwt", "plain", "no_dilation", "no_exchange"]

# The small presets work at 64x32, the sensors of the default mats themselves: enlarging maps to
# a square doubles the cost and adds nothing they know. The paper publishes neither its schedule
# nor the weights of its losses; "paper" takes what worked at the small size.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": (64, 32),
        "decoder_features": (16, 8, 8, 4),
        "stage1_steps": 3,
        "stage2_steps": 6,
        "batch_size": 4,
        "quick_compile": True,
        "simulated": (8, 24),
    },
    "quick": {
        "image_size": (64, 32),
        "decoder_features": (32, 16, 8, 4),
        "stage1_steps": 60,
        "stage2_steps": 300,
        "batch_size": 16,
        "quick_compile": False,
        "simulated": (30, 60),
    },
    "long": {
        "image_size": (64, 32),
        "decoder_features": (32, 16, 8, 4),
        "stage1_steps": 1000,
        "stage2_steps": 6500,
        "batch_size": 16,
        "quick_compile": False,
        "simulated": (100, 100),
    },
    "paper": {
        "image_size": (256, 256),
        "decoder_features": (64, 32, 16, 8),
        "stage1_steps": 10_000,
        "stage2_steps": 40_000,
        "batch_size": 32,
        "quick_compile": False,
        "simulated": (100, 100),
    },
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: about a minute, proves that everything runs. quick: some minutes. long: half an
    hour per arm on two cores. paper: 256x256, for an accelerator."""
    workdir: Path = Path("runs/efd_crwt")
    """Where everything is written."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "pmd", "mat"] = "simulated"
    """Simulated sleepers, PMD's experiment i, or a mat folder of your own."""
    data_dir: Path | None = None
    """The --out of the data_prep command; needed unless --data simulated."""
    protocol: Literal["subject", "paper"] = "subject"
    """subject: nobody is both trained and tested on. paper: a random split of the maps."""
    test_subjects: tuple[str, ...] = ()
    """Who is tested on; by default subjects 11 to 13 of PMD, else the last fifth."""
    arms: tuple[Arm, ...] = ("crwt", "plain")
    """What to train: the method, without CRWT, and the two other ablations (with CRWT)."""
    seed: int = 0
    """Of initial weights, order, augmentation and simulation."""
    seeds: int = 1
    """How many seeds to train every arm with, counted from --seed."""

    image_size: tuple[int, int] | None = None
    """Height and width of the network's input, multiples of 32."""
    decoder_features: tuple[int, int, int, int] | None = None
    """Channels of the decoder's routes; the paper's are 64 32 16 8."""
    simulated: tuple[int, int] | None = None
    """Simulated subjects and maps of each."""
    stage1_steps: int | None = None
    """Steps of classification (arm plain: of reconstruction, before the restart)."""
    stage2_steps: int | None = None
    """Steps of reconstruction after the transfer."""
    frozen_steps: int = 0
    """First steps of stage 2 in which the encoder stays as it is."""
    batch_size: int | None = None
    """Maps per step."""
    learning_rate: float = 5e-3
    """Peak of each stage's schedule: linear warm-up, cosine decay."""
    l2_weight: float = 100.0
    """The paper's alpha."""
    ssim_weight: float = 1.0
    """The paper's beta."""
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    """How heatmaps become weights."""
    sharpness: float = 4.0
    """Factor on the heatmap logits; at 1 the keypoints stay spread out and alike."""
    normalise_code: bool = True
    """Standardise the code over the batch before the decoder (adds no parameters)."""
    contact_threshold: float = 0.01
    """Scaled pressure above which a pixel is in contact (stage 1)."""
    max_shift: tuple[int, int] = (4, 3)
    """Largest augmentation shift in sensors: rows, columns."""

    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""


def main(config: Config) -> Path:
    """Trains all arms and writes the report; returns the report's path."""
    config = by_preset(config, PRESETS)
    _check(config)

    config.configure()
    from experiments import efd_crwt_study as study

    report = study.run(config)
    print(report)
    return report


def _check(config: Config) -> None:
    height, width = config.image_size
    if height % 32 or width % 32 or min(height, width) < 32:
        raise InputError(
            f"--image-size is {height} {width}, but both must be multiples of 32; the decoder "
            "works at 1/4 to 2 times that size."
        )
    if config.data != "simulated" and config.data_dir is None:
        command = "data_prep.pmd" if config.data == "pmd" else "data_prep.mat_folder"
        raise InputError(
            f"--data {config.data} needs --data-dir, the folder that `python -m {command}` wrote."
        )
    if not config.arms:
        raise InputError("--arms names no arm; name at least one, for instance crwt.")
    for name in ("stage1_steps", "stage2_steps", "batch_size", "seeds"):
        if getattr(config, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {getattr(config, name)}, but must be at least 1.")
    if not np.isfinite(config.learning_rate) or config.learning_rate <= 0:
        raise InputError(f"--learning-rate is {config.learning_rate}, but must be above 0.")


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
