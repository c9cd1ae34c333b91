"""Puts a run's networks behind the monitor: for a camera, a film or a made-up stream."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.infant_danger_networks import load
from jaxbed.errors import InputError
from jaxbed.monitor import notify
from jaxbed.monitor.captures import find_origin
from jaxbed.monitor.events import EventLog
from jaxbed.monitor.frames import Normaliser
from jaxbed.monitor.overlay import VideoFile
from jaxbed.monitor.page import serve
from jaxbed.monitor.remarks import Remarks
from jaxbed.monitor.rules import Rule
from jaxbed.monitor.source import open_source
from jaxbed.monitor.status import Status
from jaxbed.monitor.watch import Summary, watch
from jaxbed.tasks.danger_pipeline import DangerObserver

if TYPE_CHECKING:
    from experiments.infant_danger_watch import Alerting, Config

_USUAL_SIZE = (480, 640)  # for a camera that does not answer yet
_FIRST_FRAMES = 25  # of which one must be good


def observer_of(config: Alerting, compiler_options: dict[str, Any] | None = None) -> DangerObserver:
    """Loads the networks of a run; see `infant_danger_networks.load` for errors."""
    if config.score_threshold is not None and not 0 < config.score_threshold < 1:
        raise InputError(f"--score-threshold is {config.score_threshold}, but must be in (0, 1).")
    if config.detector_size is not None and min(config.detector_size) < 32:
        raise InputError("--detector-size must be at least 32 32.")
    variables, recipe = load(
        config.from_run,
        detector_size=config.detector_size,
        angles_deg=config.angles_deg,
        score_threshold=config.score_threshold,
    )
    return DangerObserver(
        variables,
        recipe.pipeline(),
        missing_is_covered=config.missing_face == "covered",
        compiler_options=compiler_options,
    )


def watch_source(config: Config) -> Summary:
    """Watches --source and tells the end of it."""
    rules, observer = config.rules(), observer_of(config)
    source = open_source(config.source, pace=config.pace, folder_hz=config.folder_hz)
    with contextlib.ExitStack() as opened:
        # All that can be refused is refused before anything is compiled.
        video = VideoFile(config.video) if config.video else None
        if video and config.no_frames:
            raise InputError("--no-frames and --video exclude each other; leave one of them out.")
        notifier = opened.enter_context(_notifier(config))
        events = EventLog(config.events) if config.events else None
        status = status_of(rules, wants_picture=not config.no_frames) if config.serve else None
        if config.serve:
            page = opened.enter_context(serve(status, config.serve))
            print(f"page: {page.url}", file=sys.stderr, flush=True)
        size = frame_size(config.source, folder_hz=config.folder_hz)
        print(f"compiling for frames of {size[0]}x{size[1]}", file=sys.stderr, flush=True)
        observer.warm_up(size)
        summary = watch(
            source,
            observer,
            rules=rules,
            stale_s=config.stale_s,
            events=events,
            notifier=notifier,
            status=status,
            video=video,
            no_frames=config.no_frames,
        )
    print(told(summary))
    return summary


def status_of(rules: Sequence[Rule], *, wants_picture: bool) -> Status:
    """Makes what a page shows."""
    thresholds = {rule.kind: (rule.enter, rule.exit) for rule in rules}
    return Status(wants_picture=wants_picture, thresholds=thresholds)


def frame_size(source: str, *, folder_hz: float = 10.0) -> tuple[int, int]:
    """Returns (height, width) of a source's frames, for which the networks are compiled."""
    origin = find_origin(source, folder_hz=folder_hz)
    normaliser = Normaliser(Remarks(), origin.name)
    capture = origin.open()
    try:
        for _ in range(_FIRST_FRAMES):
            if not (capture.isOpened() and capture.grab()):
                break
            good, image = capture.retrieve()
            image = normaliser.convert(image) if good else None
            if image is not None:
                return image.shape[:2]
    finally:
        capture.release()
    return _USUAL_SIZE


def told(summary: Summary) -> str:
    """Sums a watch up in a few lines."""
    counted = ", ".join(f"{n} {kind}" for kind, n in summary.events.items()) or "none"
    lines = [
        f"{summary.source}: {summary.ended} after {summary.seconds:.1f} s; {summary.frames:,} "
        f"frames judged, {summary.fps:.1f} per second, {summary.dropped:,} dropped, "
        f"{summary.unchanged:,} unchanged, {summary.damaged:,} damaged, {summary.failed:,} failed",
        f"events: {counted}; blind for {summary.stale_s:.1f} s",
    ]
    if np.isfinite(summary.latency_p50_ms):
        lines.append(
            f"latency from capture to decision: p50 {summary.latency_p50_ms:.1f}, p95 "
            f"{summary.latency_p95_ms:.1f}, p99 {summary.latency_p99_ms:.1f} ms"
        )
    return "\n".join(lines)


def _notifier(config: Config) -> contextlib.AbstractContextManager:
    if config.on_event and config.webhook:
        raise InputError("--on-event and --webhook exclude each other; leave one of them out.")
    if config.on_event:
        return notify.command(config.on_event)
    if config.webhook:
        return notify.webhook(config.webhook, allow_remote=config.allow_remote_webhook)
    return contextlib.nullcontext()
