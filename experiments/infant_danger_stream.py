"""The work of `infant_danger soak`: a long made-up stream through the monitor, measured."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import jax
import numpy as np

from experiments.infant_danger_monitor import observer_of
from experiments.infant_danger_networks import NAMES, Recipe, load
from jaxbed.monitor.captures import Origin
from jaxbed.monitor.observation import Observation, Observer
from jaxbed.monitor.rules import STALE
from jaxbed.monitor.source import Source
from jaxbed.monitor.terminal import Terminal
from jaxbed.monitor.watch import Summary, watch
from jaxbed.report_text import number, table
from jaxbed.runtime import usable_cores
from jaxbed.tasks.danger_pipeline import DangerObserver
from jaxbed.training.state import initialise
from jaxbed.whole_files import write_json, write_text

if TYPE_CHECKING:
    from experiments.infant_danger_soak import Config

MOST_MS = 100.0
"""What 95 % of the frames of 10 per second have to be judged within."""
_DETECTOR_SIZE = (240, 320)
_FACE_SIZE, _POSTURE_SIZE = (64, 64), (96, 96)  # of slim classifiers
_SCENES, _EACH = 6, 8  # frames that the stream repeats: simulated scenes, each with new noise
_MEASURED = 30  # times that memory is measured, evenly over the frames
_SETTLED = 0.1  # of the frames, after which it is to stay what it is


class Soaked(NamedTuple):
    """What a long stream came to.

    Attributes:
        summary: of the watch.
        frame_size: of its frames.
        rss_mib: memory that the process held: after each of _MEASURED equal parts of the frames.
    """

    summary: Summary
    frame_size: tuple[int, int]
    rss_mib: list[float]

    def figures(self) -> dict[str, float]:
        """Returns the figures by name."""
        summary = self.summary
        settled = self.rss_mib[int(_SETTLED * len(self.rss_mib)) :]
        return {
            "minutes": summary.seconds / 60,
            "frames": summary.frames,
            "frames_dropped": summary.dropped,
            "frames_per_s": summary.fps,
            "latency_ms_p50": summary.latency_p50_ms,
            "latency_ms_p95": summary.latency_p95_ms,
            "latency_ms_p99": summary.latency_p99_ms,
            "latency_ms_most": summary.latency_most_ms,
            "rss_mib_settled": settled[0],
            "rss_mib_most": max(settled),
            "rss_mib_end": settled[-1],
            "stale_events": summary.events.get(STALE, 0),
        }


def soak(config: Config) -> Path:
    """Watches a made-up stream and writes what was measured; returns the path of the text."""
    observer, recipe = observer_for(config)
    observer.warm_up(config.frame_size)
    soaked = run(config, observer)
    config.out.mkdir(parents=True, exist_ok=True)
    figures = {name: float(value) for name, value in soaked.figures().items()}
    write_json(config.out / "soak.json", figures | {"rss_mib": soaked.rss_mib})
    write_text(config.out / "soak.md", told(config, recipe, soaked))
    return config.out / "soak.md"


def observer_for(config: Config) -> tuple[DangerObserver, Recipe]:
    """Takes the networks of a run, or draws some."""
    if config.from_run is not None:
        return observer_of(config), load(config.from_run, detector_size=config.detector_size)[1]
    resnet50 = config.classifier == "resnet50"
    recipe = Recipe(
        detector=config.detector,
        detector_size=config.detector_size or _DETECTOR_SIZE,
        angles_deg=config.angles_deg or (0.0,),
        score_threshold=config.score_threshold or 0.5,
        classifier=config.classifier,
        width=64 if resnet50 else 24,
        face_size=(224, 224) if resnet50 else _FACE_SIZE,
        posture_size=(224, 224) if resnet50 else _POSTURE_SIZE,
    )
    variables = {
        name: initialise(recipe.network(name), jax.random.key(i), recipe.example(name))
        for i, name in enumerate(NAMES)
    }
    return DangerObserver(variables, recipe.pipeline()), recipe


def run(config: Config, observer: Observer) -> Soaked:
    """Watches a made-up stream and measures."""
    count = max(1, round(60 * config.minutes * config.frame_hz))
    print(f"a stream of {count:,} frames", file=sys.stderr, flush=True)
    frames = made_up_frames(config.frame_size)
    origin = Origin("made-up stream", False, lambda: _Stream(frames, count, config.frame_hz))
    held: list[float] = []
    seen = 0

    def watched(frame: np.ndarray) -> Observation:
        nonlocal seen
        seen += 1
        if seen * _MEASURED >= (len(held) + 1) * count:
            held.append(rss_mib())
        return observer(frame)

    summary = watch(
        Source(origin, pace=config.pace),
        watched,
        rules=config.rules(),
        stale_s=config.stale_s,
        terminal=Terminal(io.StringIO()),
    )
    if summary.ended == "the monitor stopped":
        raise KeyboardInterrupt  # the watch took the signal for its own
    return Soaked(summary, config.frame_size, [*held, rss_mib()])


def told(config: Config, recipe: Recipe, soaked: Soaked) -> str:
    """Tells it in Markdown."""
    of = soaked.figures()
    holds = "yes" if of["latency_ms_p95"] <= MOST_MS else "no"
    rows = [
        ["minutes", f"{of['minutes']:.1f}"],
        ["frames judged", number(of["frames"])],
        ["dropped", number(of["frames_dropped"])],
        ["frames per second", f"{of['frames_per_s']:.1f}"],
        *([f"latency {q}, ms", f"{of[f'latency_ms_{q}']:.1f}"] for q in ("p50", "p95", "p99")),
        ["longest latency, ms", f"{of['latency_ms_most']:.1f}"],
        [f"p95 at most {MOST_MS:g} ms", holds],
        ["memory after a tenth, MiB", f"{of['rss_mib_settled']:.0f}"],
        ["most memory since, MiB", f"{of['rss_mib_most']:.0f}"],
        ["memory at the end, MiB", f"{of['rss_mib_end']:.0f}"],
        ["stale events", number(of["stale_events"])],
    ]
    weights = "random weights" if config.from_run is None else f"those of {config.from_run}"
    return (
        f"# A long stream\n\nFrames of {_size(config.frame_size)}, {config.frame_hz:g} per second "
        f"({'at its own pace' if config.pace == 'own' else 'one after the other'}), from capture "
        f"to decision. Detector {recipe.detector} at {_size(recipe.detector_size)}, classifiers "
        f"{recipe.classifier} at {_size(recipe.face_size)} and {_size(recipe.posture_size)} "
        f"({weights}), on {usable_cores()} cores and {jax.default_backend()}."
        f"\n\n{table(['', ''], rows)}\n"
    )


def made_up_frames(size: tuple[int, int]) -> list[np.ndarray]:
    """Simulates scenes and films each several times with other noise: u8[h,w,3], BGR."""
    from jaxbed.simulate.crib import simulate_crib_images

    scenes = simulate_crib_images(
        subjects=1, images_per_subject=_SCENES, size=(120, 160), seed=987_654
    )
    rng = np.random.default_rng(0)
    frames = []
    for image in scenes.image:
        large = cv2.resize(image[..., ::-1], size[::-1], interpolation=cv2.INTER_CUBIC)
        for _ in range(_EACH):
            noise = rng.normal(0, 3, large.shape)
            frames.append(np.clip(large + noise, 0, 255).astype(np.uint8))
    return frames


def rss_mib() -> float:
    """Returns the memory that this process holds; NaN where the system does not tell (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class _Stream:
    """Repeats frames, like a video of a certain length."""

    def __init__(self, frames: list[np.ndarray], count: int, hz: float):
        self._frames, self._count, self._hz, self._number = frames, count, hz, -1

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        self._number += 1
        return self._number < self._count

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self._frames[self._number % len(self._frames)]

    def get(self, prop: int) -> float:
        values = {
            cv2.CAP_PROP_POS_MSEC: 1000 * self._number / self._hz,
            cv2.CAP_PROP_FPS: self._hz,
            cv2.CAP_PROP_FRAME_COUNT: self._count,
        }
        return values[prop]

    def release(self) -> None:
        pass
