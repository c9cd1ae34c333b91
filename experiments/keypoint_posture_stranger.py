"""A trained system of `python -m experiments.keypoint_posture` on a mat it has never seen."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments import keypoint_posture_system as systems
from experiments import keypoint_posture_tables as tables
from experiments import sleep_posture_plots as plots
from experiments.keypoint_posture import Config
from experiments.keypoint_posture_data import Posed, check_description, load, posed
from experiments.keypoint_posture_scores import Score, judge
from experiments.keypoint_posture_system import System
from jaxbed import report
from jaxbed.data.pressure import POSTURES, PressureMaps
from jaxbed.errors import InputError
from jaxbed.report_text import table
from jaxbed.training.clock import Clock

_MOUNTED = {
    "head": "head (row 0 lies at the other end)",
    "mirrored": "mirrored (the maps are mirror images of what it says)",
    "turned": "head and mirrored (the mat lies the other way round)",
}
_MUCH = 20.0
"""Points by which another mounting must be better to call the description wrong."""
_ENOUGH = 12
"""Fewest maps that say anything about it."""


def run(config: Config) -> Path:
    """Reads the system and the mat, evaluates, and writes the report."""
    system = systems.load(config.from_run)
    config = system.configured(config)
    maps = load(config)
    if not config.trust_description:
        check_description(maps)
    shown = posed(maps, {"posture": system.classes}, config.canonical)
    _check_postures(maps, shown, system)
    if not config.trust_description:
        check_mounting(config, system, maps)
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    print(
        f"{maps.name}: {len(maps)} maps, system trained on {system.trained_on[0]}", file=sys.stderr
    )
    said = system.logits(config, shown.pressure)
    judged = {name: _judged(config, shown, logits) for name, logits in said.items()}
    return _write(config, system, maps, shown, judged)


def check_mounting(config: Config, system: System, maps: PressureMaps) -> None:
    """Refuses maps whose postures fit far better when they are turned or mirrored.

    A map that is turned end for end or mirrored keeps its posture's label, so a description that
    says the wrong thing of either shows in what is found.

    Raises:
        InputError: they do; it names what to mend.
    """
    share = {"": _share(config, system, maps)}
    for name, (rows, columns) in {
        "head": (-1, -1),
        "mirrored": (1, -1),
        "turned": (-1, 1),
    }.items():
        changed = dataclasses.replace(maps, pressure=maps.pressure[:, ::rows, ::columns])
        share[name] = _share(config, system, changed)
    best = max(share, key=share.get)
    if len(maps) >= _ENOUGH and best and share[best] > share[""] + _MUCH:
        raise InputError(
            f"{maps.name}: {share['']:.0f} % of the postures are found as the mat is described, "
            f"but {share[best]:.0f} % with another {_MOUNTED[best]}; mend mat.json and prepare the "
            "folder again, or evaluate it as it is with --trust-description."
        )


def _share(config: Config, system: System, maps: PressureMaps) -> float:
    """Returns the share of postures that the best classifier finds, in percent."""
    shown = posed(maps, {"posture": system.classes}, config.canonical)
    said = system.logits(config, shown.pressure)
    return max(_judged(config, shown, logits).share.mean for logits in said.values())


def _judged(config: Config, shown: Posed, logits: np.ndarray) -> Score:
    everything = np.arange(len(shown))
    return judge(
        *(shown, "posture", everything, logits.argmax(axis=1)),
        classes=logits.shape[1],
        seed=config.seed,
    )


def _check_postures(maps: PressureMaps, shown: Posed, system: System) -> None:
    if not (shown.label["posture"] >= 0).any():
        there = sorted({POSTURES[i] for i in np.unique(maps.posture)})
        raise InputError(
            f"{maps.name} shows {', '.join(there)} only, but the system knows "
            f"{', '.join(system.classes.names)}; evaluate a run that was trained on those postures."
        )


def _write(
    config: Config,
    system: System,
    maps: PressureMaps,
    shown: Posed,
    judged: Mapping[str, Score],
) -> Path:
    names = system.classes.names
    counted = int((shown.label["posture"] >= 0).sum())
    (config.workdir / "figures").mkdir(exist_ok=True)
    counts = {reader: score.counts for reader, score in judged.items()}
    path = plots.matrices(
        config.workdir / "figures" / "confusion.png",
        counts,
        names,
        title=f"Which posture is taken for which ({maps.name})",
    )
    results = {}
    for reader, score in judged.items():
        results[f"{reader}/posture_pct"] = score.share.mean
        results[f"{reader}/posture_pct_low"] = score.share.low
        results[f"{reader}/posture_pct_high"] = score.share.high
    return report.write_report(
        config.workdir,
        experiment="keypoint_posture",
        summary=_summary(system, maps, len(shown) - counted),
        data=report.Data(
            name=f"{maps.name}, system trained on {system.trained_on[0]}",
            split="a mat that nothing was trained on",
            subjects_shared=False,
            train=system.trained_on[1],
            test=counted,
            simulated=config.data == "simulated",
        ),
        results=results,
        models={},
        timing=report.timing_of(Clock(), batch_size=1, recompiles_after_first=0),
        environment=report.environment(),
        figures=[
            report.Figure(path, "Share of the maps of a posture (row) that were found as another.")
        ],
        sections={
            "Postures found": _accuracy(judged),
            "Confusion": tables.confusions(counts, names),
        },
    )


def _accuracy(judged: Mapping[str, Score]) -> str:
    name, count = next(iter(judged.values())).units
    rows = [
        [
            reader,
            str(score.share),
            ", ".join(f"{who} {share:.1f}" for who, share in score.by_subject.items()),
        ]
        for reader, score in judged.items()
    ]
    told = f"Percent read rightly, with a 95 % interval that resamples {count} {name}."
    return f"{told}\n\n{table(['', 'postures, %', 'by person'], rows)}"


def _summary(system: System, maps: PressureMaps, left_out: int) -> str:
    left = f" {left_out} maps show other postures and do not count." if left_out else ""
    return (
        f"A system trained on {system.trained_on[0]} ({system.trained_on[1]:,} maps) was asked "
        f"about {maps.name}, a mat of {maps.mat.rows} x {maps.mat.columns} cells "
        f"{maps.mat.pitch_mm:g} mm apart, of which it has seen nothing. It knows the postures "
        f"{', '.join(system.classes.names)}.{left}"
    )
