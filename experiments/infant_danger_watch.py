"""`python -m experiments.infant_danger watch SOURCE`: watches a camera with a run's networks."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxbed.errors import InputError
from jaxbed.machine import Machine

if TYPE_CHECKING:
    from jaxbed.monitor.rules import Rule


DetectorName = Literal["slim", "edge", "mobilenet", "resnet50", "ssd300", "light_ssd"]
ClassifierName = Literal["slim", "resnet50"]


@dataclasses.dataclass(frozen=True)
class Alerting(Machine):
    """When to alert, and with which networks."""

    from_run: Path = Path("runs/infant_danger")
    """--workdir of a run of experiments.infant_danger, whose networks are used."""
    stale_s: float = 10.0
    """Without a new frame, or one that can be judged, for so long the monitor says it is blind."""
    enter: float = 0.7
    """Scores from here on speak for a danger."""
    exit: float = 0.4
    """Scores up to here speak against it."""
    delay_s: float | None = None
    """How long a danger must last before it is told; by default 3, for standing 1.5."""
    cooldown_s: float = 10.0
    """The next alert of a kind is raised no sooner after one has ended."""
    missing_face: Literal["unknown", "covered"] = "unknown"
    """What it means that an infant lies on its back and no face is found. unknown: nothing, the
    head may be turned away. covered: what a covered face means, because a detector finds none
    under a blanket; for a camera that sees the face of an infant on its back."""
    detector_size: tuple[int, int] | None = None
    """Height and width that frames are shrunk into for the detector; by default the run's."""
    angles_deg: tuple[float, ...] | None = None
    """How far frames are turned for the detector, each in turn; by default the run's."""
    score_threshold: float | None = None
    """From which score on a face is a face; by default the run's."""

    def rules(self) -> "tuple[Rule, ...]":
        """Returns one rule for each danger; the watch checks them."""
        from jaxbed.monitor.rules import DANGERS

        changes = {"enter": self.enter, "exit": self.exit, "cooldown_s": self.cooldown_s}
        if self.delay_s is not None:
            changes["delay_s"] = self.delay_s
        rules = {rule.kind: dataclasses.replace(rule, **changes) for rule in DANGERS}
        if self.missing_face == "covered":
            told = f"{rules['occluded'].explanation}, or the infant lies on its back without one"
            rules["occluded"] = dataclasses.replace(rules["occluded"], explanation=told)
        return tuple(rules.values())


@dataclasses.dataclass(frozen=True)
class Config(Alerting):
    """Watches a camera and alerts when a danger lasts.

    Dangers: the face is covered by something other than a pacifier; the infant lies on the
    stomach; it stands.

    Everything stays on this machine unless --webhook says otherwise. It is no medical device and
    prevents nothing: a person has to look after the infant.
    """

    source: tyro.conf.Positional[str] = ""
    """A video file, a folder of images, the number of a webcam, or an rtsp:// or http://
    address."""
    events: Path | None = None
    """File that gets a JSON line when an event is raised and one when it ends."""
    serve: str | None = None
    """HOST:PORT of a page to watch, such as 127.0.0.1:8080."""
    no_frames: bool = False
    """Write and show no image, not even on the page."""
    video: Path | None = None
    """File (.mkv, .mp4 or .avi) that gets the frames with what was found drawn on them."""
    on_event: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--command"])] = ()
    """Program and arguments to run for every event, which it gets as JSON on its input."""
    webhook: str | None = None
    """Address that every event is posted to as JSON; one in the local network."""
    allow_remote_webhook: bool = False
    """Allow --webhook to name any address."""
    pace: Literal["own", "fast"] = "own"
    """own: plays a file as fast as it was filmed. fast: as fast as can be, without leaving frames
    out."""
    folder_hz: float = 10.0
    """Images per second of a folder."""


def main(config: Config) -> None:
    """Watches until the source ends or somebody stops it."""
    if not config.source:
        raise InputError(
            "watch needs a source: a video file, a folder of images, the number of a webcam, or "
            "an rtsp:// or http:// address."
        )
    config.configure()
    from experiments import infant_danger_monitor as monitor

    monitor.watch_source(config)
