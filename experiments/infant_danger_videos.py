"""Films of simulated infants, and what a watch of them comes to."""

from __future__ import annotations

import dataclasses
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from experiments import infant_danger_events as events
from experiments.infant_danger_data import in_processes
from experiments.infant_danger_monitor import frame_size, observer_of
from experiments.infant_danger_watch import Alerting
from jaxbed.data.crib import read_truth, truth_paths
from jaxbed.errors import InputError
from jaxbed.monitor.events import EventLog, read_events
from jaxbed.monitor.observation import Observation, Observer
from jaxbed.monitor.rules import Rule
from jaxbed.monitor.source import open_source
from jaxbed.monitor.terminal import Terminal
from jaxbed.monitor.watch import Summary, watch
from jaxbed.report_text import number, table
from jaxbed.whole_files import write_json, write_text

if TYPE_CHECKING:
    from experiments.infant_danger_evaluate import Config

SUFFIXES = (".mp4", ".mkv", ".avi")
_UNSEEN = 500_000  # above the seeds of everything that is trained on


class Watched(NamedTuple):
    """What a watch of films came to.

    Attributes:
        rules: that were in force.
        summaries: by film.
        events: by film, as of `infant_danger_events.events_of`.
        scores: by film, times f64[F] in seconds and by danger the scores f64[F] of its frames.
        judged: all films beside their episodes.
    """

    rules: tuple[Rule, ...]
    summaries: dict[str, Summary]
    events: dict[str, list[dict[str, Any]]]
    scores: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]
    judged: events.Judged


def film(
    folder: Path,
    *,
    count: int,
    seconds: float,
    frame_hz: float,
    size: tuple[int, int],
    views: tuple[str, ...],
    seed: int,
) -> None:
    """Films infants that nothing was trained on, by a script, in several processes.

    A film that is there is complete and stays. Views take turns.
    """
    missing = [
        (folder, subject, seconds, frame_hz, size, views[subject % len(views)], seed)
        for subject in range(count)
        if not (folder / f"sim-{subject:03d}.mp4").exists()
    ]
    if missing:
        told = f"filming {len(missing)} infants for {seconds:g} s each"
        print(told, file=sys.stderr, flush=True)
    in_processes(_film, missing)


def _film(asked: tuple) -> None:
    from jaxbed.simulate.crib_script import sample_script
    from jaxbed.simulate.crib_video import simulate_crib_video, write_crib_video

    folder, subject, seconds, frame_hz, size, view, seed = asked
    script = sample_script(np.random.default_rng([_UNSEEN, seed, subject]), seconds / 60)
    frames = simulate_crib_video(
        script, frame_hz=frame_hz, size=size, view=view, subject=subject, seed=_UNSEEN + seed
    )
    path = folder / f"sim-{subject:03d}.mp4"
    write_crib_video(path, frames, script.dangers(frame_hz), frame_hz, size)


def films_in(folder: Path) -> list[Path]:
    """Lists the films in a folder whose episodes are known."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return [path for path in found if truth_paths(path)[0].is_file()]


def watch_all(
    folder: Path,
    run: Path,
    *,
    log_folder: Path,
    alerting: Alerting | None = None,
    pace: str = "fast",
    compiler_options: dict[str, Any] | None = None,
) -> Watched:
    """Watches every film of a folder with the networks of a run.

    Args:
        folder: of the films.
        run: the run's workdir.
        log_folder: gets the events of every film as JSON lines.
        alerting: when to alert; None for the usual rules.
        pace: as of `jaxbed.monitor.source.Source`.
        compiler_options: as of `jax.jit`.

    Raises:
        InputError: there is no film, or its episodes cannot be read.
    """
    alerting = dataclasses.replace(alerting or Alerting(), from_run=run)
    films = films_in(folder)
    if not films:
        raise InputError(
            f"{folder} holds no film ({', '.join(SUFFIXES)}) with a file NAME.episodes.csv beside "
            "it; name a folder that does."
        )
    truths = {path.stem: read_truth(path) for path in films}
    rules, observer = alerting.rules(), observer_of(alerting, compiler_options)
    log_folder.mkdir(parents=True, exist_ok=True)
    summaries, found, scores, parts = {}, {}, {}, []
    for path in films:
        print(f"watching {path}", file=sys.stderr, flush=True)
        observer.warm_up(frame_size(str(path)))
        log = log_folder / f"{path.stem}.jsonl"
        log.unlink(missing_ok=True)
        seen: list[dict[str, float]] = []
        summaries[path.stem] = watch_film(
            path, recorded(observer, seen), rules, log, stale_s=alerting.stale_s, pace=pace
        )
        found[path.stem] = events.events_of(read_events(log)) if log.exists() else []
        seconds, frame_hz = _length(path)
        times_s = np.linspace(0, seconds, len(seen), endpoint=False)
        by_kind = {rule.kind: np.array([s[rule.kind] for s in seen]) for rule in rules}
        scores[path.stem] = times_s, by_kind
        parts.append(
            events.compare(
                path.stem,
                truths[path.stem],
                found[path.stem],
                rules=rules,
                frame_hz=frame_hz,
                seconds=seconds,
            )
        )
    return Watched(rules, summaries, found, scores, events.together(parts))


def recorded(observer: Observer, scores: list[dict[str, float]]) -> Observer:
    """Returns an observer that does the same and appends the scores of every frame."""

    def observe(frame: np.ndarray) -> Observation:
        found = observer(frame)
        scores.append(dict(found.scores))
        return found

    return observe


def watch_film(
    path: Path,
    observer: Observer,
    rules: Sequence[Rule],
    log: Path,
    *,
    stale_s: float,
    pace: str,
) -> Summary:
    """Watches a film to its end and says nothing."""
    summary = watch(
        open_source(str(path), pace=pace),
        observer,
        rules=rules,
        stale_s=stale_s,
        events=EventLog(log),
        terminal=Terminal(io.StringIO()),
    )
    if summary.ended == "the monitor stopped":
        raise KeyboardInterrupt  # the watch took the signal for its own
    return summary


def evaluate(config: Config) -> Path:
    """Does what `evaluate` is asked for; returns the path of the text."""
    out = config.out or config.from_run / "evaluation"
    watched = watch_all(
        config.videos,
        config.from_run,
        log_folder=out / "events",
        alerting=config,
        pace=config.pace,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", results(watched))
    parts = ["# Evaluation of the infant danger monitor", f"Networks of {config.from_run}."]
    parts += [f"## {title}\n\n{text}" for title, text in sections(watched).items()]
    write_text(out / "evaluation.md", "\n\n".join(parts) + "\n")
    return out / "evaluation.md"


def results(watched: Watched) -> dict[str, float]:
    """Returns the figures of a watch by name."""
    judged = watched.judged
    hits, due = judged.sensitivity()
    low, high = events.share_interval(hits, due)
    alarms = len(judged.false_alarms)
    rate_low, rate_high = events.rate_interval(alarms, judged.hours)
    delays = judged.delays_s()
    once = sum(a.events == 1 for a in judged.answers if a.due)
    named = {
        "episodes_due": due,
        "episodes_answered": hits,
        "episodes_with_one_event": once,
        "sensitivity_pct": 100 * hits / due if due else math.nan,
        "sensitivity_pct_low": 100 * low,
        "sensitivity_pct_high": 100 * high,
        "false_alarms": alarms,
        "false_alarms_per_hour": alarms / judged.hours,
        "false_alarms_per_hour_low": rate_low,
        "false_alarms_per_hour_high": rate_high,
        "hours": judged.hours,
        "stale_events": judged.stale,
        "time_to_alert_s_median": _percentile(delays, 50),
        "time_to_alert_s_p95": _percentile(delays, 95),
    }
    frames = sum(s.frames for s in watched.summaries.values())
    named["frames"] = frames
    named["frames_dropped"] = sum(s.dropped for s in watched.summaries.values())
    named["frames_per_s"] = frames / sum(s.seconds for s in watched.summaries.values())
    for quantity in ("p50", "p95", "p99"):
        # The highest over the films: what a night is as bad as.
        named[f"latency_ms_{quantity}"] = max(
            getattr(s, f"latency_{quantity}_ms") for s in watched.summaries.values()
        )
    return {f"monitor/{name}": float(value) for name, value in named.items()}


def sections(watched: Watched) -> dict[str, str]:
    """Tells a watch in Markdown, by title."""
    judged = watched.judged
    rows = []
    for kind in [rule.kind for rule in watched.rules] + [None]:
        hits, due = judged.sensitivity(kind)
        low, high = events.share_interval(hits, due)
        delays = judged.delays_s(kind)
        alarms = [a for a in judged.false_alarms if kind in (None, a.kind)]
        rate = events.rate_interval(len(alarms), judged.hours)
        rows.append(
            [
                kind or "all",
                f"{hits} of {due}" + (f" ({100 * low:.0f} to {100 * high:.0f} %)" if due else ""),
                str(sum(a.events == 1 for a in judged.answers if a.due and kind in (None, a.kind))),
                _range(delays),
                f"{len(alarms)}: {len(alarms) / judged.hours:.1f} ({rate[0]:.1f} to {rate[1]:.1f})",
            ]
        )
    heads = ["danger", "episodes answered", "by exactly one event", "time to alert, s p50 / p95"]
    heads += ["false alarms: per hour"]
    told = (
        f"{len(watched.summaries)} films, {60 * judged.hours:.1f} minutes. An episode counts when "
        "it lasts as long as its rule waits; intervals are 95 % (Clopper and Pearson; Poisson). "
        f"{judged.stale} stale events."
    )
    return {
        "Alerts beside the script": f"{told}\n\n{table(heads, rows)}",
        "Every episode": _episodes(judged),
        "Speed": speed(watched.summaries),
    }


def speed(summaries: dict[str, Summary]) -> str:
    """Tells latency and frames of every watch."""
    rows = [
        [
            name,
            number(s.frames),
            number(s.dropped),
            f"{s.fps:.1f}",
            f"{s.latency_p50_ms:.1f} / {s.latency_p95_ms:.1f} / {s.latency_p99_ms:.1f}",
        ]
        for name, s in summaries.items()
    ]
    heads = ["film", "frames judged", "dropped", "frames/s", "latency p50 / p95 / p99, ms"]
    return f"From capture to decision.\n\n{table(heads, rows)}"


def _episodes(judged: events.Judged) -> str:
    rows = [
        [
            a.film,
            a.kind,
            f"{a.onset_s:.1f}",
            f"{a.lasted_s:.1f}",
            "yes" if a.due else "no",
            str(a.events),
            "–" if math.isnan(a.delay_s) else f"{a.delay_s:.1f}",
        ]
        for a in judged.answers
    ]
    heads = ["film", "danger", "onset, s", "lasted, s", "due", "events", "time to alert, s"]
    alarms = [f"- {a.film}: {a.kind} at {a.raised_s:.1f} s" for a in judged.false_alarms]
    listed = "\n".join(alarms) or "none"
    return f"{table(heads, rows)}\n\nFalse alarms:\n\n{listed}"


def _range(delays_s: np.ndarray) -> str:
    if not len(delays_s):
        return "–"
    return f"{_percentile(delays_s, 50):.1f} / {_percentile(delays_s, 95):.1f}"


def _percentile(values: Any, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else math.nan


def _length(path: Path) -> tuple[float, float]:
    """Returns seconds and frames per second of a film."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        return capture.get(cv2.CAP_PROP_FRAME_COUNT) / fps, fps
    finally:
        capture.release()
