"""The report of `python -m experiments.infant_danger`: scores, alerts, costs, claims, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import infant_danger_figures as draw
from experiments import infant_danger_videos as videos
from experiments.infant_danger_networks import NAMES, Recipe
from experiments.infant_danger_scores import (
    Found,
    Named,
    judge_detector,
    judge_names,
    results_of,
)
from jaxbed import report
from jaxbed.efficiency.clocks import Comparison, compare
from jaxbed.efficiency.count import count, count_params
from jaxbed.report import Claim
from jaxbed.report_text import table
from jaxbed.tasks.danger_pipeline import compiled_look
from jaxbed.training.loop import Trainer
from jaxbed.training.state import quick_compilation

if TYPE_CHECKING:
    from experiments.infant_danger import Config
    from experiments.infant_danger_data import Side
    from experiments.infant_danger_study import Trained

_CAMERA = (480, 640)
_ROUNDS = 50
_LISTED = 20


def write(
    config: Config,
    recipe: Recipe,
    sides: Mapping[str, Side],
    trainer: Trainer,
    trained: Mapping[str, Trained],
    watched: videos.Watched,
) -> Path:
    """Measures what is left to measure and writes the workdir's report."""
    classes = {"face": recipe.face_states, "posture": recipe.postures}
    named = {
        name: judge_names(trained[name], sides[name], of, seed=config.seed)
        for name, of in classes.items()
    }
    options = quick_compilation() if config.quick_compile else None
    found = None
    if "detector" in sides:
        variables = trained["detector"].variables
        found = judge_detector(
            variables,
            recipe,
            sides["detector"],
            seed=config.seed,
            compiler_options=options,
        )
    latency = time_frames(recipe, trained, options)
    (config.workdir / "figures").mkdir(exist_ok=True)
    pictures = [draw.timelines(config, config.workdir / "films", watched)]
    if found:
        pictures.append(draw.faces_found(config, sides["detector"], found, recipe.score_threshold))
    pictures += [draw.confusion(config, name, of) for name, of in named.items()]
    pictures.append(draw.curves(config, trained))
    main = sides["posture"]
    return report.write_report(
        config.workdir,
        experiment="infant_danger",
        summary=_summary(config, recipe),
        data=report.Data(
            name=main.name,
            split=main.split.description,
            subjects_shared=main.split.subjects_shared,
            train=len(main.split.train),
            test=len(main.split.test),
            simulated=main.simulated,
        ),
        results=_results(named, found, watched, latency),
        models={name: cost_of(recipe, name) for name in NAMES},
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        published=report.read_published(
            Path(__file__).with_name("claims.csv"), paper="infant_danger"
        ),
        claims=claims(config, recipe, named, found, latency, main),
        why_missing="faces were found with published weights, whose test images are not here",
        figures=pictures,
        sections={
            **videos.sections(watched),
            "Faces found": _detection(config, sides.get("detector"), found),
            "Faces and postures named": _names(named, sides),
            "One frame of a camera": _latency(recipe, latency),
            **_left_out(sides),
            "What this is not": _LIMITS,
        },
    )


def cost_of(recipe: Recipe, name: str) -> report.ModelCost:
    """Counts a network at the size that it is used at."""
    network, variables = recipe.network(name), recipe.shapes(name)
    macs = count(lambda v, x: network.apply(v, x, train=False), variables, recipe.example(name))
    return report.ModelCost(count_params(variables["params"]), macs.macs_nominal, macs.macs_exact)


def time_frames(
    recipe: Recipe, trained: Mapping[str, Trained], compiler_options: dict[str, Any] | None
) -> dict[str, Comparison]:
    """Measures one frame of a usual camera through the whole pipeline and through its networks."""
    variables = jax.device_put({name: of.variables for name, of in trained.items()})
    frame = np.random.default_rng(0).integers(0, 256, (*_CAMERA, 3), np.uint8)
    look = compiled_look(recipe.pipeline(), compiler_options)
    variants = {"whole pipeline": partial(look, variables, frame)}
    for name in NAMES:
        network = recipe.network(name)
        apply = partial(network.apply, train=False)
        run = jax.jit(apply, compiler_options=compiler_options)
        variants[name] = partial(run, variables[name], jnp.zeros(recipe.example(name).shape))
    return compare(variants, rounds=_ROUNDS)


def claims(
    config: Config,
    recipe: Recipe,
    named: Mapping[str, Named],
    found: Found | None,
    latency: Mapping[str, Comparison],
    side: Side,
) -> list[Claim]:
    """Puts our figures beside the published ones; none of its data are public."""
    about = (
        f"the thesis's photographs are not public and it states no split; ours are {side.name} "
        f"images, split {side.split.description}"
    )
    median_s = latency["detector"].timing.median_ms / 1e3
    answers = [
        Claim(
            "infant.ssd.time",
            median_s,
            "not comparable",
            f"the thesis names no hardware; ours is the detector {recipe.detector} at "
            f"{_size(recipe.example('detector').shape[1:3])} on the machine named below; the whole "
            f"pipeline takes {latency['whole pipeline'].timing.median_ms:.1f} ms",
        )
    ]
    if found:
        why = f"{about}; ours is the share of faces found by {recipe.detector}"
        answers.append(Claim("infant.retinaface.acc", found.recall.mean, "not comparable", why))
    for name, claim in (("face", "infant.occlusion.acc"), ("posture", "infant.posture.acc")):
        accuracy = named[name].intervals["accuracy"].mean
        answers.append(Claim(claim, accuracy, "not comparable", about))
    return answers


def _results(
    named: Mapping[str, Named],
    found: Found | None,
    watched: videos.Watched,
    latency: Mapping[str, Comparison],
) -> dict[str, float]:
    results = videos.results(watched)
    for name, of in named.items():
        results |= results_of(name, of)
    if found:
        results |= {
            "detector/average_precision_pct": found.average_precision,
            "detector/recall_pct": found.recall.mean,
            "detector/recall_pct_low": found.recall.low,
            "detector/recall_pct_high": found.recall.high,
            "detector/precision_pct": found.precision,
        }
    for name, comparison in latency.items():
        p50, p95, p99 = np.percentile(comparison.timing.durations_ms, [50, 95, 99])
        key = name.replace(" ", "_")
        results |= {f"frame/{key}_ms_p50": float(p50), f"frame/{key}_ms_p95": float(p95)}
        results |= {f"frame/{key}_ms_p99": float(p99)}
    return results


def _summary(config: Config, recipe: Recipe) -> str:
    trained = "with published weights" if config.detector_weights else "trained here"
    height, width = config.image_size
    return (
        "A monitor looks at an infant in a crib and alerts when the face is covered by something "
        "other than a pacifier, when the infant lies on the stomach and when it stands. A "
        f"detector ({recipe.detector}, {trained}) finds the face, one classifier "
        f"({recipe.classifier}) names "
        "what is over it, another one the posture; an alert engine raises one event for each "
        f"danger that lasts. Classifiers read {_size(recipe.face_size)} and "
        f"{_size(recipe.posture_size)} pixels (the thesis names ResNet-50, usually 224x224), "
        f"{config.steps} steps of {config.batch_size} images, {config.init} initial weights. "
        f"{config.videos} films of {config.video_s:g} s at {config.frame_hz:g} frames per second "
        f"and {height}x{width} pixels show infants that nothing was trained on."
        f"{_MISSING if config.missing_face == 'covered' else ''}"
    )


def _detection(config: Config, side: Side | None, found: Found | None) -> str:
    if found is None:
        return (
            f"The detector has the published weights {config.detector_weights.name}; it was not "
            "tested here on photographs. Alerts on films show what it does with simulated faces."
        )
    faces = sum(map(len, found.faces))
    return (
        f"{faces} faces in {len(found.faces)} test images of {side.name} "
        f"({side.split.description}), "
        "covered ones and those with a pacifier among them. Average precision at IoU 0.5: "
        f"{found.average_precision:.1f} %. At the score {config.score_threshold:g} "
        f"{found.recall} % of the faces are found, and {found.precision:.1f} % of the boxes are "
        "faces."
    )


def _names(named: Mapping[str, Named], sides: Mapping[str, Side]) -> str:
    parts = []
    for name, of in named.items():
        what, units = of.units
        told = (
            f"**{name}**, {len(sides[name].split.test)} test images of {sides[name].name}, "
            f"{sides[name].split.description}; percent, with a 95 % interval that resamples {what} "
            f"({units}). Of every class its recall; faces are cut out by their true boxes. Naming "
            f"always the commonest class gets {of.majority:.1f} % right."
        )
        heads = ["accuracy", "mean recall", *of.classes]
        cells = [str(of.intervals[q]) for q in ("accuracy", "balanced", *of.classes)]
        rows = [
            [true, *map(str, row)] for true, row in zip(of.classes, of.counts.tolist(), strict=True)
        ]
        matrix = table(["is / named", *of.classes], rows)
        parts.append(f"{told}\n\n{table(heads, [cells])}\n\n{matrix}")
    return "\n\n".join(parts)


def _latency(recipe: Recipe, latency: Mapping[str, Comparison]) -> str:
    rows = []
    for name, comparison in latency.items():
        percentiles = np.percentile(comparison.timing.durations_ms, [50, 95, 99])
        rows.append([name, *(f"{ms:.1f}" for ms in percentiles)])
    told = (
        f"One frame of {_size(_CAMERA)} in memory, to the probabilities, in one compiled call; the "
        f"detector sees it at {_size(recipe.detector_size)}. Below it each network by itself, in "
        "turns with it. The thesis: 40 ms per image with SSD, on a machine it does not name."
    )
    return f"{told}\n\n{table(['', 'p50, ms', 'p95, ms', 'p99, ms'], rows)}"


def _left_out(sides: Mapping[str, Side]) -> dict[str, str]:
    lines = [line for side in sides.values() for line in side.skipped]
    if not lines:
        return {}
    more = [f"- and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return {"Left out": "\n".join([f"- {line}" for line in lines[:_LISTED]] + more)}


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"


_MISSING = (
    " Who lies on the back in them should show a face: if none is found, it counts as covered."
)
_LIMITS = (
    "It is no medical device and prevents nothing; a person has to look after the infant. It has "
    "never seen a real infant unless you trained it on some. It cannot tell an empty crib from "
    "one with an infant in it, and names a posture of what it sees whatever that is. A face that "
    "it does not find is not judged unless --missing-face covered says so."
)
