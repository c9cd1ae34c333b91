"""Preterm infants' limb pose from depth clips, with full or factorised 3-D convolutions.

Paper: Migliorelli et al., "Asymmetric three-dimensional convolutions for preterm infants' pose
estimation" (networks: jaxbed/models/preterm_pose.py). A detection network finds rough maps of
joints and connections in clips of 3 frames, a regression network refines them, and the limbs
are linked from the maps. The regression is trained in the paper's two kinds, "standard" (3x3x3)
and "asymmetric" (1x3x1, 1x1x3, 3x1x1), and in one of our own, "lean".

Run:  python -m experiments.preterm_pose                              (simulated infants)
      python -m experiments.preterm_pose --data utd_mhad --data-dir DIR   (data_prep.utd_mhad)
      python -m experiments.preterm_pose --data babypose --data-dir DIR   (data_prep.babypose)
Published: median RMSD 13.99 to 16.90 px at 128x96 on infants also trained on; factorised
convolutions train and predict in 66 % less time.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxbed.cli import Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

Kind = Literal["standard", "asymmetric", "lean"]

# The small presets take a quarter of the paper's pixels and a quarter of its channels: a
# sixty-fourth of the MACs, which is what two CPU cores can train within minutes.
_SMALL: dict[str, Any] = {
    "image_size": (48, 64),
    "detection_width": 16,
    "widths": (16, 32, 64, 64),
    "schedule": "cosine",
    "regression_optimiser": "adam",
    "batch_size": 4,
    "learning_rate": 5e-3,
    "select": "last",
    "positive_weight": 10.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": _SMALL
    | {
        "detection_width": 4,
        "widths": (4, 8, 8, 8),
        "detection_steps": 4,
        "regression_steps": 4,
        "quick_compile": True,
        "simulated": (5, 1, 24),
    },
    "quick": _SMALL
    | {
        "detection_steps": 500,
        "regression_steps": 150,
        "quick_compile": False,
        "simulated": (20, 1, 90),
    },
    "long": _SMALL
    | {
        "detection_steps": 3000,
        "regression_steps": 2500,
        "batch_size": 8,
        "quick_compile": False,
        "simulated": (60, 1, 120),
    },
    "paper": {
        "image_size": (96, 128),
        "detection_width": 64,
        "widths": (64, 128, 256, 256),
        "detection_steps": None,
        "regression_steps": None,
        "schedule": "paper",
        "regression_optimiser": "sgd",
        "batch_size": 16,
        "learning_rate": 1e-2,
        "select": "best",
        "positive_weight": 1.0,
        "quick_compile": False,
        "simulated": (22, 1, 1000),
    },
}
EPOCHS = {"detection": 150, "regression": 100}
"""Of the paper's schedule."""

CLIP = 3
"""Frames of a clip."""


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: about a minute, proves that everything runs. quick: some minutes. long: an hour or
    so on two cores. paper: the published sizes and schedules, for an accelerator."""
    workdir: Path = Path("runs/preterm_pose")
    """Where everything is written."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "utd_mhad", "babypose"] = "simulated"
    """Simulated infants, UTD-MHAD (adults, real depth), or babyPose (infants, real depth)."""
    data_dir: Path | None = None
    """The --out of the data_prep command; needed unless --data simulated."""
    protocol: Literal["subject", "paper"] = "subject"
    """subject: nobody is both trained and tested on. paper: the first three quarters of every
    recording are trained on, the rest tested on."""
    test_subjects: tuple[str, ...] = ()
    """Who is tested on; by default subjects 7 and 8 of UTD-MHAD, else the last fifth."""
    kinds: tuple[Kind, ...] = ("standard", "asymmetric", "lean")
    """Regression networks to train."""
    seed: int = 0
    """Of initial weights, order, augmentation and simulation."""

    image_size: tuple[int, int] | None = None
    """Height and width of the images, multiples of 16; a whole fraction of the data's."""
    detection_width: int | None = None
    """Channels of the detection network's stem; the paper's is 64."""
    widths: tuple[int, int, int, int] | None = None
    """Channels of the regression network's stages; the paper's are 64 128 256 256. The layer
    before the output is as wide as the last."""
    simulated: tuple[int, int, int] | None = None
    """Simulated infants, recordings of each, frames of each."""
    radius_px: float | None = None
    """Radius of a joint's disc and thickness of a connection; by default 6 at 96 rows."""
    sigma: float = 3.0
    """Standard deviation of the regression targets' Gaussian, in radii."""

    detection_steps: int | None = None
    """Steps of the detection network; preset paper: 150 epochs."""
    regression_steps: int | None = None
    """Steps of every regression network; preset paper: 100 epochs."""
    batch_size: int | None = None
    """Clips per step."""
    learning_rate: float | None = None
    """The highest of the schedule."""
    schedule: Literal["cosine", "paper"] | None = None
    """cosine: linear warm-up, cosine decay. paper: times 0.9 every 10 epochs."""
    regression_optimiser: Literal["adam", "sgd"] | None = None
    """adam, or the paper's gradient descent with momentum 0.98."""
    select: Literal["last", "best"] | None = None
    """Which state counts: that of the last step, or that with the lowest loss on the last tenth
    of every training recording, which is then not trained on."""
    positive_weight: float | None = None
    """How much more a pixel inside a disc or rectangle counts in the losses than one outside; the
    paper has no such weights, and takes longer to find the few pixels inside."""
    mirror: bool = True
    """Mirror half of the training clips, left and right exchanged."""
    max_shift: tuple[int, int] = (3, 4)
    """Largest augmentation shift in pixels: rows, columns."""

    threshold: float = 0.3
    """What the mean of a window of a joint's map must exceed to be a candidate."""
    link_threshold: float = 0.3
    """What the mean of a connection's map must exceed between two candidates."""
    samples: int = 20
    """Points of the connection's map that are averaged."""

    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""

    @property
    def disc_px(self) -> float:
        """Radius of a joint's disc."""
        return self.radius_px or 6.0 * self.image_size[0] / 96

    @property
    def window_px(self) -> int:
        """Window of the peaks: 1.8 radii, odd."""
        return 2 * round(0.9 * self.disc_px - 0.5) + 1

    @property
    def published_px(self) -> float:
        """Pixels of the paper's 128x96 images in one of ours."""
        return 96 / self.image_size[0]


def main(config: Config) -> Path:
    """Trains everything and writes the report; returns the report's path."""
    config = by_preset(config, PRESETS)
    _check(config)

    config.configure()
    from experiments import preterm_pose_study as study

    report = study.run(config)
    print(report)
    return report


def _check(config: Config) -> None:
    height, width = config.image_size
    if height % 16 or width % 16 or min(height, width) < 16:
        raise InputError(
            f"--image-size is {height} {width}, but both must be multiples of 16, which the "
            "detection network halves four times."
        )
    if config.data != "simulated" and config.data_dir is None:
        raise InputError(
            f"--data {config.data} needs --data-dir, the folder that `python -m "
            f"data_prep.{config.data}` wrote."
        )
    if not config.kinds:
        raise InputError("--kinds names no network; name at least one, for instance asymmetric.")
    if config.detection_width < 2 or config.detection_width % 2:
        raise InputError(f"--detection-width is {config.detection_width}, but must be even.")
    for name in ("detection_steps", "regression_steps", "batch_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {value}, but must be at least 1.")
    for name in ("learning_rate", "sigma", "disc_px", "positive_weight"):
        if not np.isfinite(getattr(config, name)) or getattr(config, name) <= 0:
            flag = "--" + {"disc_px": "radius-px"}.get(name, name.replace("_", "-"))
            raise InputError(f"{flag} is {getattr(config, name)}, but must be above 0.")


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
