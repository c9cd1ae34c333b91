"""Where the time of a training step goes, by module and by operation.

Run:  python -m experiments.profile_step
      python -m experiments.profile_step --network efd_64 --lowerings auto lax
      python -m experiments.profile_step --direction forward
Data: none; random inputs and weights.

Writes modules_*.csv and operations_*.csv, the profiles themselves (for XProf or Perfetto) and,
where matplotlib is installed, modules.png. A table that explains less than nine tenths of the
step is refused.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import by_preset, run
from jaxbed.machine import Machine

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"network": "efd_encoder_64", "batch_size": 16, "steps": 2},
    "quick": {"network": "efd_64", "batch_size": 16, "steps": 3},
    "paper": {"network": "efd_256", "batch_size": 64, "steps": 10},
}


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "paper"] = "quick"
    """smoke: under a minute. quick: EFD at 64x64, some minutes. paper: EFD at 256x256, for an
    accelerator."""
    workdir: Path = Path("runs/profile_step")
    """Where everything is written; the files of an earlier profile are replaced."""
    network: str | None = None
    """Which network, by the names in experiments/bench_networks.py."""
    direction: Literal["forward", "train"] = "train"
    """Inference, or one step of Adam."""
    batch_size: int | None = None
    """Examples per step, over all devices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type to compute in; parameters stay float32."""
    lowerings: tuple[Literal["auto", "lax"], ...] = ("auto",)
    """auto: the form of each operation that suits the backend. lax: the reference."""
    steps: int | None = None
    """Steps to profile."""
    depth: int = 3
    """Names of a module path to tell apart, the network's own included."""


def main(config: Config) -> Path:
    """Profiles every lowering; returns the path of the report."""
    config = by_preset(config, PRESETS)

    config.configure()
    from experiments import profile_step_study as study

    report = study.run(config)
    print(report)
    return report


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
