"""Writes simulated videos of sleepers, to try the preparation of videos without a camera.

    python -m data_prep.simulated_videos --out my_videos
    python -m data_prep.sleep_video --raw my_videos --out prepared/my_videos
    python -m experiments.sleep_posture --data sleep_video --data-dir prepared/my_videos

In every video a sleeper under an infrared camera lies still, turns over, and lies still again;
turns.csv tells when. Nobody was filmed: such videos prove that the path works, no more.
"""

import dataclasses
from pathlib import Path

from jaxbed.cli import run
from jaxbed.data.depth import Size
from jaxbed.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the videos go, and how many."""

    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    subjects: int = 8
    """Sleepers, each in 4 postures with and without a blanket."""
    clips: int = 1
    """Videos of each of these, 5 to 11 s long."""
    size: Size = (240, 320)
    """Height and width of the frames in pixels."""
    frame_hz: float = 10.0
    """Frames per second."""
    seed: int = 0
    """Of sleepers, rooms, postures and noise."""


def main(config: Config) -> None:
    """Simulates and writes the videos."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.simulate.night_video import write_night_videos

    if min(config.subjects, config.clips) < 1:
        raise InputError("--subjects and --clips must be at least 1.")
    if not 1 <= config.frame_hz <= 120:
        raise InputError(f"--frame-hz is {config.frame_hz:g}, but must lie between 1 and 120.")
    if min(config.size) < 32:
        raise InputError(f"--size is {config.size}, but both must be at least 32.")
    with complete_or_absent(config.out) as partial:
        paths = write_night_videos(
            partial,
            subjects=config.subjects,
            clips=config.clips,
            size=config.size,
            frame_hz=config.frame_hz,
            seed=config.seed,
        )
    print(f"{len(paths)} videos of {config.subjects} simulated sleepers", config.out, sep="\n")


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
