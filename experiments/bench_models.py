"""What every network costs: parameters, MACs, memory, compile time and wall-clock.

Variants that differ in dtype or lowering are measured in turns, so their ratios hold on a
machine whose speed drifts. Every row is on disk as soon as it is measured.

Run:  python -m experiments.bench_models
      python -m experiments.bench_models --networks efd_64 --dtypes float32 bfloat16
Data: none; random inputs and weights.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import by_preset, run
from jaxbed.machine import Machine

# On two CPU cores a training step of EFD compiles for most of a minute, whatever its size.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "networks": ("efd_encoder_64",),
        "batch_sizes": (2,),
        "dtypes": ("float32",),
        "lowerings": ("auto",),
        "passes": ("forward",),
        "seconds": 1.0,
    },
    "quick": {
        "networks": ("efd_64", "efd_encoder_64", "efd_decoder_64"),
        "batch_sizes": (8,),
        "dtypes": ("float32",),
        "lowerings": ("auto", "lax"),
        "passes": ("forward", "train"),
        "seconds": 8.0,
    },
    "paper": {
        "networks": ("all",),
        "batch_sizes": (1, 16, 64),
        "dtypes": ("float32", "bfloat16"),
        "lowerings": ("auto", "lax"),
        "passes": ("forward", "train"),
        "seconds": 20.0,
    },
}


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "paper"] = "quick"
    """smoke: under a minute, proves that everything runs. quick: some minutes on two cores.
    paper: everything, for an accelerator."""
    workdir: Path = Path("runs/bench_models")
    """Where everything is written."""
    resume: bool = False
    """Go on with the rows that --workdir holds already."""
    networks: tuple[str, ...] | None = None
    """Which networks, by the names in experiments/bench_networks.py; "all" for all."""
    batch_sizes: tuple[int, ...] | None = None
    """Examples per call, over all devices."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] | None = None
    """Types to compute in; parameters stay float32."""
    lowerings: tuple[Literal["auto", "lax"], ...] | None = None
    """auto: the form of each operation that suits the backend. lax: the reference."""
    passes: tuple[Literal["forward", "train"], ...] | None = None
    """Inference, and one step of Adam."""
    seconds: float | None = None
    """Time to spend on measuring the variants of one row, compilation not counted."""


def main(config: Config) -> Path:
    """Measures all rows; returns the report's path."""
    config = by_preset(config, PRESETS)

    config.configure()
    from experiments import bench_models_study as study

    report = study.run(config)
    print(report)
    return report


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
