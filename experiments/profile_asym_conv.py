"""What asymmetric 3-D convolutions save, in theory and on this machine, and what eats the rest.

The regression network of preterm infants' pose estimation, with 3x3x3 layers (standard), with
1x3x1, 1x1x3 and 3x1x1 in their place (asymmetric, as published) and with narrower ones that are
normalised less often (lean): parameters, MACs, bytes, the bound that the machine's measured
ceilings set, and the time, of every layer and of the whole, in prediction and in training.

Run:  python -m experiments.profile_asym_conv
      python -m experiments.profile_asym_conv --batch-sizes 2 --cpu-devices 2
Data: none; random inputs and weights.

Published (Migliorelli et al., abstract): 66 % less time in training and in prediction. Table II:
0.03 s instead of 0.05 s for a clip, 40 % less.

Writes report.md, report.json, totals.csv, layers.csv, modules.csv (a trace of every network) and,
where matplotlib is installed, figures. What is compared is measured in turns, so savings hold on a
machine whose speed drifts; milliseconds of different runs do not compare.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import by_preset, run
from jaxbed.machine import Machine

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "widths": (8,),
        "image_size": (32, 32),
        "batch_sizes": (1,),
        "dtypes": ("float32",),
        "lowerings": ("auto",),
        "seconds": 0.5,
    },
    "quick": {
        "widths": (64, 128, 256, 256),
        "image_size": (96, 128),
        "batch_sizes": (1,),
        "dtypes": ("float32",),
        "lowerings": ("auto", "lax"),
        "seconds": 60.0,
    },
    "paper": {
        "widths": (64, 128, 256, 256),
        "image_size": (96, 128),
        "batch_sizes": (1, 2, 8, 16),
        "dtypes": ("float32", "bfloat16"),
        "lowerings": ("all",),
        "seconds": 10.0,
    },
}


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "paper"] = "quick"
    """smoke: under a minute, proves that everything runs. quick: one clip at a time, some
    seven minutes on two cores. paper: up to the published batch of 16, for an accelerator."""
    workdir: Path = Path("runs/profile_asym_conv")
    """Where everything is written."""
    resume: bool = False
    """Go on with what --workdir holds already."""
    kinds: tuple[Literal["standard", "asymmetric", "lean"], ...] = (
        "standard",
        "asymmetric",
        "lean",
    )
    """Which networks; standard, which the others are compared with, among them."""
    widths: tuple[int, ...] | None = None
    """Channels of the stages; the layer before the output has as many as the last."""
    image_size: tuple[int, int] | None = None
    """Height and width of the 3 frames, in pixels."""
    batch_sizes: tuple[int, ...] | None = None
    """Clips per call, over all devices."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] | None = None
    """Types to compute in; parameters stay float32."""
    lowerings: tuple[str, ...] | None = None
    """auto: the form of each convolution that suits the backend. lax: the reference. Or another
    form of jaxbed/ops/conv3d.py; "all" for all."""
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    """Prediction, and one step of SGD with momentum."""
    seconds: float | None = None
    """Time to spend on measuring what is measured in turns, compilation not counted. At least
    three rounds are, in which every layer has one turn and every network two."""


def main(config: Config) -> Path:
    """Measures everything; returns the report's path."""
    config = by_preset(config, PRESETS)

    config.configure()
    from experiments import profile_asym_conv_study as study

    report, summary = study.run(config)
    print(summary)
    print(report)
    return report


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
