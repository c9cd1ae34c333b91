"""How a training step scales over devices, and what that lets expect of many more.

Measures steps of Adam on 1, 2, 4, 8 devices: with the batch growing (weak scaling) and with the
batch fixed (strong), by jit and by pmap against a program for a single device, for every type,
batch size and number of steps per dispatch that is asked for. A model of computation plus ring
all-reduce, fed with the measured step, the bytes that the compiled program sums up and a link
speed that is given, predicts more devices than there are.

On a CPU the devices are simulated: they share the cores, so more of them are no more hardware,
and what is measured is what dividing a step costs. Each number of devices is a process of its own;
all are measured in turns.

Run:  python -m experiments.scaling
      python -m experiments.scaling --preset paper     (all four systems, for accelerators)
      python -m experiments.scaling --preset gpu       (one GPU: batch sizes, steps per dispatch)
Data: none; random inputs and weights.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import by_preset, run
from jaxbed.machine import Machine

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "networks": ("preterm_small",),
        "devices": (1, 2),
        "batch_sizes": (1,),
        "dtypes": ("float32",),
        "steps_per_dispatch": (1,),
        "rounds": 2,
    },
    "quick": {
        "networks": ("efd_64",),
        "devices": (1, 2, 4, 8),
        "batch_sizes": (2,),
        "dtypes": ("float32",),
        "steps_per_dispatch": (1,),
        "rounds": 5,
    },
    "gpu": {
        "networks": ("efd_256", "sleep_posture", "preterm_asymmetric", "infant_posture"),
        "devices": (1,),
        "batch_sizes": (8, 32, 128),
        "dtypes": ("float32", "bfloat16"),
        "steps_per_dispatch": (1, 5, 20),
        "rounds": 10,
    },
    "paper": {
        "networks": ("efd_256", "sleep_posture", "preterm_asymmetric", "infant_posture"),
        "devices": (1, 2, 4, 8),
        "batch_sizes": (8, 32),
        "dtypes": ("float32", "bfloat16"),
        "steps_per_dispatch": (1, 5),
        "rounds": 20,
    },
}

Way = Literal["single", "jit", "pmap"]
Scaling = Literal["weak", "strong"]


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "gpu", "paper"] = "quick"
    """smoke: under a minute, proves that everything runs. quick: EFD at 64x64 on up to 8
    simulated devices, some minutes. gpu: all four systems on one accelerator. paper: on all."""
    workdir: Path = Path("runs/scaling")
    """Where everything is written."""
    resume: bool = False
    """Go on with what --workdir holds already."""
    networks: tuple[str, ...] | None = None
    """Which networks, by the names in experiments/bench_networks.py, and preterm_small."""
    devices: tuple[int, ...] | None = None
    """Numbers of devices; on accelerators those that are there."""
    ways: tuple[Literal["jit", "pmap"], ...] = ("jit", "pmap")
    """How devices share a batch."""
    scalings: tuple[Scaling, ...] = ("weak", "strong")
    """weak: every device gets --batch-sizes. strong: all together get as many as the largest
    number of devices does then."""
    batch_sizes: tuple[int, ...] | None = None
    """Examples per step and device."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] | None = None
    """Types to compute in; parameters stay float32."""
    steps_per_dispatch: tuple[int, ...] | None = None
    """Steps that the host starts at once. On a CPU more than one is slow: XLA computes
    convolutions inside of loops on one core."""
    rounds: int | None = None
    """Turns of every variant."""
    calls: int = 2
    """Dispatches that are measured in a turn, after one that is not."""
    quick_compile: bool = True
    """On a CPU: compile in a quarter of the time to slower steps."""
    link_gb_per_s: float = 25.0
    """For the prediction: 10^9 bytes a second that a device sends to its neighbour."""
    link_latency_us: float = 5.0
    """For the prediction: microseconds from neighbour to neighbour."""
    predicted: tuple[int, ...] = (8, 64, 512)
    """For the prediction: numbers of devices."""


def main(config: Config) -> Path:
    """Measures every variant; returns the path of the report."""
    config = dataclasses.replace(by_preset(config, PRESETS), cpu_devices=1)
    config.configure()
    from experiments import scaling_study as study

    report = study.run(config)
    print(report)
    return report


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
