"""The report of `python -m experiments.preterm_pose`: scores, times, claims and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from experiments import preterm_pose_figures as draw
from experiments.bench_networks import Bench, Runner, mean_square
from experiments.preterm_pose import CLIP
from jaxbed import report
from jaxbed.data.depth import LIMBS, DepthFrames
from jaxbed.data.splits import Split
from jaxbed.efficiency.clocks import Comparison, compare
from jaxbed.efficiency.count import count, count_params
from jaxbed.models.preterm_pose import DetectionCNN, RegressionCNN
from jaxbed.tasks.preterm_pose import limb_rmsd, network_input, pose_scores
from jaxbed.training.loop import Trainer
from jaxbed.training.state import quick_compilation

if TYPE_CHECKING:
    from experiments.preterm_pose import Config
    from experiments.preterm_pose_study import Sides, Trained

_PREDICT_ROUNDS = 30
_TRAIN_ROUNDS = 8
_RESAMPLES = 2000
_PUBLISHED = {"standard": "std", "asymmetric": "asym"}
_DELTA_LIMIT_PX = 0.63


def write(
    config: Config,
    frames: DepthFrames,
    split: Split,
    sides: Sides,
    trainer: Trainer,
    trained: Mapping[str, Trained],
) -> Path:
    """Measures what is left to measure and writes the workdir's report."""
    true_px = frames.joints_px[sides.test_frames]
    found = {name: result.joints_px for name, result in trained.items()}
    found["mean_pose"] = mean_pose(frames.joints_px[sides.train["joints_px"].index], len(true_px))
    scale = config.published_px  # everything is told in pixels of the paper's images
    near = scale * config.disc_px
    results = {
        f"{name}/{key}": value
        for name, joints in found.items()
        for key, value in pose_scores(
            scale * joints, scale * true_px, limb_names=LIMBS, near_px=near
        ).items()
    }
    rmsd = {name: scale * limb_rmsd(joints, true_px) for name, joints in found.items()}
    groups = sampling_units(frames, sides.test_frames)
    differences = {
        name: difference(rmsd[name], rmsd["standard"], groups[1], seed=config.seed)
        for name in config.kinds
        if name != "standard" and "standard" in config.kinds
    }
    for name, (mean, _, _) in differences.items():
        results[f"{name}/rmsd_minus_standard_px"] = mean
    predicted = time_prediction(config, sides, trained)
    stepped = time_training(config)
    results |= _timing_results(predicted, stepped)

    (config.workdir / "figures").mkdir(exist_ok=True)
    pictures = [
        draw.skeletons(config, frames, sides, trained),
        draw.boxplots(config, rmsd),
        draw.curves(config),
    ]
    return report.write_report(
        config.workdir,
        experiment="preterm_pose",
        summary=_summary(config),
        data=report.Data(
            name=frames.name,
            split=split.description,
            subjects_shared=split.subjects_shared,
            train=len(sides.train["depth_mm"]),
            test=len(sides.test["depth_mm"]),
            simulated=config.data == "simulated",
        ),
        results=results,
        models=costs(config),
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        published=report.read_published(
            Path(__file__).with_name("claims.csv"), paper="preterm_pose"
        ),
        claims=claims(config, results, stepped, predicted),
        why_missing="the network it is about was not among --kinds",
        figures=pictures,
        sections={
            "Limbs": limb_table(results, [*found]),
            "Difference to the standard network": difference_table(differences, groups),
            "Time": time_table(predicted, stepped),
        },
    )


def mean_pose(joints_px: np.ndarray, count: int) -> np.ndarray:
    """Returns f32[count,12,2]: the mean of the training clips' joints f32[C,T,12,2]."""
    mean = np.nanmean(joints_px.reshape(-1, *joints_px.shape[2:]), axis=0)
    return np.broadcast_to(mean, (count, *mean.shape))


def sampling_units(frames: DepthFrames, chosen: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns what an interval resamples, by name, and the unit str[N] of every frame.

    Frames of a recording are nearly alike and a person's recordings similar, so people are
    resampled, or where there are fewer than five, recordings.
    """
    subject = frames.subject[chosen]
    if len(set(subject.tolist())) >= 5:
        return "people", subject
    return "recordings", frames.recording[chosen]


def difference(
    rmsd: np.ndarray, standard: np.ndarray, unit: np.ndarray, *, seed: int
) -> tuple[float, float, float]:
    """Compares two networks where both found a limb.

    Args:
        rmsd: f32[N,4], NaN where missing.
        standard: f32[N,4], likewise.
        unit: str[N], what is resampled.
        seed: of the resampling.

    Returns:
        Mean difference in pixels and the ends of its 95 % bootstrap interval.
    """
    gaps = rmsd - standard
    by_unit = [gaps[unit == name] for name in sorted(set(unit.tolist()))]
    sums = np.array([np.nansum(part) for part in by_unit])
    counts = np.array([np.isfinite(part).sum() for part in by_unit])
    if not counts.sum():
        return (np.nan,) * 3
    picks = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[picks].sum(1) / np.maximum(counts[picks].sum(1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def time_prediction(
    config: Config, sides: Sides, trained: Mapping[str, Trained]
) -> dict[str, dict[str, np.ndarray]]:
    """Measures one clip through every network, kinds in turns.

    Returns:
        For every kind f64[n] milliseconds of `network` (both networks, from depth to maps),
        `linking` (suppression and matching) and `total`.
    """
    from experiments.preterm_pose_study import decode

    image = jax.device_put(network_input(jnp.asarray(sides.test["depth_mm"][:1])))
    variants, maps = {}, {}
    for kind in config.kinds:
        network = trained[kind].phase.network
        variables = jax.device_put(trained[kind].variables)
        apply = jax.jit(partial(network.apply, train=False))
        maps[kind] = apply(variables, image)["maps"][0]
        variants[f"{kind}/network"] = partial(apply, variables, image)
        variants[f"{kind}/linking"] = partial(decode, config, maps[kind])
    compared = compare(variants, rounds=_PREDICT_ROUNDS)
    durations = {name: np.array(c.timing.durations_ms) for name, c in compared.items()}
    timed = {}
    for kind in config.kinds:
        parts = {part: durations[f"{kind}/{part}"] for part in ("network", "linking")}
        timed[kind] = {**parts, "total": parts["network"] + parts["linking"]}
    return timed


def time_training(config: Config) -> dict[str, Comparison]:
    """Measures a training step of every kind's regression network, in turns."""
    shape = (CLIP, *config.image_size, 21)
    runners = {}
    for kind in config.kinds:
        network = partial(RegressionCNN, kind, config.widths, config.widths[-1])
        bench = Bench(network, shape, mean_square)
        runner = Runner(bench, "train", batch_size=config.batch_size, dtype="float32")
        quick = quick_compilation() if config.quick_compile else None
        runner.compile(lowering="auto", options=quick)
        runners[kind] = runner
    return compare(runners, rounds=_TRAIN_ROUNDS, warm_up=1)


def costs(config: Config) -> dict[str, report.ModelCost]:
    """Counts the trained networks, and the published ones at the published size."""
    trained = {"detection": DetectionCNN(config.detection_width)}
    published = {"detection": DetectionCNN()}
    for kind in config.kinds:
        trained[kind] = RegressionCNN(kind, config.widths, config.widths[-1])
        published[kind] = RegressionCNN(kind)
    height, width = config.image_size
    costs = {f"{n}_{height}x{width}": _cost(m, config.image_size) for n, m in trained.items()}
    return costs | {f"{n}_published": _cost(m, (96, 128)) for n, m in published.items()}


def _cost(network, size: tuple[int, int]) -> report.ModelCost:
    channels = 1 if isinstance(network, DetectionCNN) else 21
    clip = jax.ShapeDtypeStruct((1, CLIP, *size, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), clip)
    counted = count(lambda v, x: network.apply(v, x, train=False), variables, clip)
    params = count_params(variables["params"])
    return report.ModelCost(params, counted.macs_nominal, counted.macs_exact)


def claims(
    config: Config,
    results: Mapping[str, float],
    stepped: Mapping[str, Comparison],
    predicted: Mapping[str, Mapping[str, np.ndarray]],
) -> list[report.Claim]:
    """Puts our figures beside the published ones."""
    other_data = f"ours are on {config.data} data, another split and a network trained for less"
    answers = []
    for kind, short in _PUBLISHED.items():
        if kind not in config.kinds:
            continue
        for limb in LIMBS:
            ours = results[f"{kind}/{limb}/rmsd_px"]
            claim = f"preterm.rmsd.{short}.{limb}"
            answers.append(report.Claim(claim, ours, "not comparable", other_data))
        seconds = float(np.median(predicted[kind]["total"])) / 1e3
        why = "another machine and, unless --preset paper, a smaller network"
        answers.append(report.Claim(f"preterm.time.{short}", seconds, "not comparable", why))
    if set(_PUBLISHED) <= set(config.kinds):
        gap = results["asymmetric/rmsd_minus_standard_px"]
        answers.append(report.Claim("preterm.rmsd.delta", gap, "not comparable", other_data))
        medians = {kind: np.median(predicted[kind]["total"]) for kind in _PUBLISHED}
        steps = {kind: stepped[kind].timing.median_ms for kind in _PUBLISHED}
        for name, times in {"train": steps, "predict": medians}.items():
            saving = 100 * (1 - float(times["asymmetric"] / times["standard"]))
            answers.append(saving_claim(config, name, saving))
    return answers


def saving_claim(config: Config, name: str, saving: float) -> report.Claim:
    """Judges the saved time in percent; only networks of the published widths can."""
    claim = f"preterm.{name}.saving"
    if config.widths != (64, 128, 256, 256):
        why = f"at widths {config.widths}; experiments.profile_asym_conv measures the paper's"
        return report.Claim(claim, saving, "not comparable", why)
    verdict = "reproduced" if saving >= 66 else "not reproduced"
    return report.Claim(claim, saving, verdict, "medians of both networks, measured in turns")


def limb_table(results: Mapping[str, float], names: list[str]) -> str:
    """Median (interquartile range) of the RMSD per limb, and the share not found."""
    lines = [
        "Median (interquartile range) over test frames of a limb's RMSD, in pixels at 128x96; "
        "below it the share of frames in which the limb is missing. PCK is the share of joints "
        "within one radius. mean_pose is the mean of the training poses, without a network.",
        "",
        f"| network | {' | '.join(LIMBS)} | all | PCK |",
        "|---|" + "---|" * (len(LIMBS) + 2),
    ]
    for name in names:
        cells = []
        for prefix in (*(f"{name}/{limb}" for limb in LIMBS), name):
            median, spread = results[f"{prefix}/rmsd_px"], results[f"{prefix}/rmsd_iqr_px"]
            missing = results[f"{prefix}/missing"]
            cells.append(f"{median:.2f} ({spread:.2f})<br>missing {missing:.1%}")
        lines.append(f"| {name} | {' | '.join(cells)} | {results[f'{name}/pck']:.3f} |")
    return "\n".join(lines)


def difference_table(
    differences: Mapping[str, tuple[float, float, float]], groups: tuple[str, np.ndarray]
) -> str:
    """The mean difference of the RMSD with its interval."""
    what, unit = groups
    lines = [
        "Mean difference of the RMSD where both networks found the limb, with a 95 % interval "
        f"that resamples {what} ({len(set(unit.tolist()))}). One training run each: the "
        f"interval does not hold what another seed would change. The paper: {_DELTA_LIMIT_PX} px.",
        "",
        "| network | px |",
        "|---|---|",
    ]
    lines += [
        f"| {n} | {m:+.2f} ({low:+.2f} to {high:+.2f}) |"
        for n, (m, low, high) in differences.items()
    ]
    return "\n".join(lines)


def time_table(
    predicted: Mapping[str, Mapping[str, np.ndarray]], stepped: Mapping[str, Comparison]
) -> str:
    """What a clip takes from depth to limbs, and what a training step takes."""
    lines = [
        "One clip, p50 / p95 in ms, and a training step of the regression network; all kinds "
        "in turns.",
        "",
        "| network | both networks | linking | total | training step | of the first kind's |",
        "|---|---|---|---|---|---|",
    ]
    for kind, parts in predicted.items():
        cells = [
            f"{np.percentile(ms, 50):.1f} / {np.percentile(ms, 95):.1f}" for ms in parts.values()
        ]
        step = stepped[kind]
        interval = f"{step.ratio:.2f} ({step.ratio_low:.2f} to {step.ratio_high:.2f})"
        lines.append(f"| {kind} | {' | '.join(cells)} | {step.timing.median_ms:.1f} | {interval} |")
    return "\n".join(lines)


def _timing_results(predicted: Mapping, stepped: Mapping[str, Comparison]) -> dict[str, float]:
    results = {}
    for kind, parts in predicted.items():
        for part, ms in parts.items():
            results[f"{kind}/{part}_ms_p50"] = float(np.percentile(ms, 50))
            results[f"{kind}/{part}_ms_p95"] = float(np.percentile(ms, 95))
        results[f"{kind}/train_step_ms"] = stepped[kind].timing.median_ms
    return results


def _summary(config: Config) -> str:
    height, width = config.image_size
    return (
        "A detection network finds rough maps of 12 joints and 8 connections in clips of "
        f"{CLIP} depth frames, a regression network refines them, and the joints are linked to "
        "limbs; a limb of which a joint is missing is reported as missing. Images "
        f"{height}x{width} (the paper: 96x128), detection of width {config.detection_width} "
        f"(64), regression of widths {' '.join(map(str, config.widths))} (64 128 256 256), "
        f"{config.detection_steps} and {config.regression_steps} steps of {config.batch_size} "
        f"clips, {config.regression_optimiser} for regression, peak learning rate "
        f"{config.learning_rate:g}, discs of {config.disc_px:g} px, seed {config.seed}, the "
        f"{config.select} state. Distances are in pixels of the paper's 128x96 images."
    )
