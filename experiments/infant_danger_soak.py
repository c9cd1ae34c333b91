"""`python -m experiments.infant_danger soak`: a long made-up stream, its memory and its latency."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.infant_danger_watch import Alerting, ClassifierName, DetectorName
from jaxbed.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config(Alerting):
    """Watches a long made-up stream and tells whether memory and latency stay what they are.

    Without --from-run the networks have random weights, which takes as long: what is computed for
    a frame does not depend on what is found in it.
    """

    from_run: Path | None = None
    """--workdir of a run of experiments.infant_danger, whose networks are used; by default those
    that --detector and --classifier name."""
    detector: DetectorName = "edge"
    """edge, mobilenet, resnet50: RetinaFace as published. ssd300, light_ssd: SSD. slim: that of
    the experiment's small presets. A run has its own."""
    classifier: ClassifierName = "slim"
    """slim: those of the experiment's small presets. resnet50: those of the thesis, at 224x224.
    A run has its own."""
    minutes: float = 30.0
    """Of stream."""
    frame_hz: float = 10.0
    """Its frames per second."""
    frame_size: tuple[int, int] = (480, 640)
    """Height and width of its frames."""
    pace: Literal["own", "fast"] = "own"
    """own: as a camera gives it; a frame that comes too soon is dropped. fast: frame after frame,
    without pause."""
    out: Path = Path("runs/infant_danger_soak")
    """Folder to make for results: soak.json and soak.md."""


def main(config: Config) -> Path:
    """Watches, writes what was measured, and returns its path."""
    for name in ("minutes", "frame_hz"):
        value = getattr(config, name)
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"--{name.replace('_', '-')} is {value}, but must be above 0.")
    if min(config.frame_size) < 32:
        raise InputError("--frame-size must be at least 32 32.")
    config.configure()
    from experiments import infant_danger_stream as stream

    path = stream.soak(config)
    print(path)
    return path
