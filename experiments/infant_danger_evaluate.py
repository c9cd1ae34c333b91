"""`python -m experiments.infant_danger evaluate`: alerts beside the truth of films."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.infant_danger_watch import Alerting
from jaxbed.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config(Alerting):
    """Watches films whose dangers are known and compares alerts with them.

    A film NAME.mp4 needs NAME.episodes.csv beside it: a line `kind,onset_s,end_s`, and one for
    every episode of occluded, stomach or standing.
    """

    videos: Path | None = None
    """Folder of films with their episodes, such as WORKDIR/films of a run."""
    out: Path | None = None
    """Folder to make for results: evaluation.json and evaluation.md, and the events of every film;
    by default --from-run/evaluation."""
    pace: Literal["own", "fast"] = "fast"
    """fast: every frame is judged, as fast as can be; times are the film's. own: as fast as it was
    filmed, frames that come too soon are dropped."""


def main(config: Config) -> Path:
    """Evaluates and writes the results; returns their path."""
    if config.videos is None:
        raise InputError("evaluate needs --videos, a folder of films with their episodes.")
    if not config.videos.is_dir():
        raise InputError(f"--videos {config.videos} is not a folder; name that of the films.")
    config.configure()
    from experiments import infant_danger_videos as videos

    path = videos.evaluate(config)
    print(path)
    return path
