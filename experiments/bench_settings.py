"""What each of this package's settings brings to a training step.

Starts from plain JAX (every operation as `lax` has it, Adam leaf by leaf, one device, glibc's
own allocator) and adds one setting after the other. Each rung is a process of its own, since
an allocator cannot be changed later; they run in turns, so the ratios hold on a machine whose
speed drifts.

Run:  python -m experiments.bench_settings
      python -m experiments.bench_settings --preset paper      (EFD at 256x256, 20 minutes)
Data: none; random inputs and weights. A CPU on Linux, or there is nothing to compare.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import by_preset, run

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"network": "efd_encoder_64", "batch_size": 2, "rounds": 1, "calls": 1},
    "quick": {"network": "efd_64", "batch_size": 8, "rounds": 7, "calls": 3},
    "paper": {"network": "efd_256", "batch_size": 8, "rounds": 3, "calls": 2},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "paper"] = "quick"
    """smoke: under two minutes. quick: EFD at 64x64, some minutes. paper: EFD at 256x256."""
    workdir: Path = Path("runs/bench_settings")
    """Where the report is written."""
    network: str | None = None
    """Which network, by the names in experiments/bench_networks.py."""
    batch_size: int | None = None
    """Examples per step; a multiple of the number of cores."""
    rounds: int | None = None
    """Turns of every rung."""
    calls: int | None = None
    """Steps that are measured in a turn, after two that are not."""


def main(config: Config) -> Path:
    """Measures every rung; returns the path of the report."""
    config = by_preset(config, PRESETS)
    from experiments import bench_settings_study as study

    report = study.run(config)
    print(report)
    return report


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
