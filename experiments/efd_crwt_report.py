"""The report of `python -m experiments.efd_crwt`: scores, baselines, claims and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments import efd_crwt_figures as draw
from jaxbed import baselines, report
from jaxbed.data.pressure import PressureMaps
from jaxbed.data.splits import Split
from jaxbed.efficiency.count import count, count_params
from jaxbed.models.efd import EFD, Encoder
from jaxbed.tasks.efd import code_statistics, reconstruction_scores
from jaxbed.training.loop import Trainer
from jaxbed.whole_files import write_json

if TYPE_CHECKING:
    from experiments.efd_crwt import Config
    from experiments.efd_crwt_study import Trained

SCORES = ("l2", "l1", "ssim")
PCA_COMPONENTS = 128


def write(
    config: Config,
    maps: PressureMaps,
    split: Split,
    arrays: dict[str, Any],
    trainer: Trainer,
    trained: Mapping[tuple[int, str], Trained],
) -> Path:
    """Measures what is left to measure and writes the workdir's report."""
    train, test = arrays["train"]["pressure"], arrays["test"]["pressure"]
    weights = {name: len(part["pressure"]) for name, part in arrays["test_by_subject"].items()}
    scores = {run: overall(result.by_subject, weights) for run, result in trained.items()}
    base = baseline_scores(train, test)
    watched = {
        run: trainer.predict(result.stage2[0], result.stage2[1].variables, arrays["watch"])
        for run, result in trained.items()
    }
    codes = {run: code_statistics(outputs) for run, outputs in watched.items()}

    arms = {
        arm: _mean([{**scores[run], **codes[run]} for run in trained if run[1] == arm])
        for arm in config.arms
    }
    for arm in config.arms:
        fscores = [r.fscore for (_, a), r in trained.items() if a == arm and r.fscore is not None]
        if fscores:
            arms[arm]["stage1_fscore"] = float(np.mean(fscores))
    results = {
        f"{who}/{name}": value
        for who, values in {**arms, **base}.items()
        for name, value in values.items()
    }

    (config.workdir / "transfers").mkdir(exist_ok=True)
    for (seed, arm), result in trained.items():
        account = dataclasses.asdict(result.account)
        write_json(config.workdir / "transfers" / f"seed{seed}_{arm}.json", account)

    (config.workdir / "figures").mkdir(exist_ok=True)
    shown = watched[config.seed, config.arms[0]]
    pictures = [
        draw.reconstructions(config, maps, arrays, trainer, trained, watched),
        draw.curves(config),
        draw.keypoint_spread(config, maps, arrays["watch"]["pressure"], shown),
        draw.scores(config, arms, base),
    ]
    return report.write_report(
        config.workdir,
        experiment="efd_crwt",
        summary=_summary(config),
        data=report.Data(
            name=maps.name,
            split=split.description,
            subjects_shared=split.subjects_shared,
            train=len(split.train),
            test=len(split.test),
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
        published=report.read_published(Path(__file__).with_name("claims.csv"), paper="efd_crwt"),
        claims=claims(config, results, scores),
        figures=pictures,
        sections={
            "Every seed": _seeds_table(trained, scores),
            "Between people": _people_table(trained),
            "Where the time went": _clock_table(trainer),
        },
    )


def overall(
    by_subject: Mapping[str, Mapping[str, float]], weights: Mapping[str, int]
) -> dict[str, float]:
    """Averages per-subject scores so that every map counts once."""
    total = sum(weights.values())
    return {
        name: sum(by_subject[who][name] * n for who, n in weights.items()) / total
        for name in SCORES
    }


def baseline_scores(train: np.ndarray, test: np.ndarray) -> dict[str, dict[str, float]]:
    """Scores the mean training map and a PCA on the test maps."""
    fitted = train[:: max(1, len(train) // 4000)]
    components = min(PCA_COMPONENTS, len(fitted) - 1)
    rebuilt = {
        "mean_map": baselines.mean_map(train, len(test)),
        f"pca{components}": baselines.pca(fitted, test, components=components),
    }
    score = jax.jit(reconstruction_scores)
    base = {}
    for name, prediction in rebuilt.items():
        parts = [
            score(jnp.asarray(prediction[i : i + 256]), jnp.asarray(test[i : i + 256]))
            for i in range(0, len(test), 256)
        ]
        base[name] = {
            key: float(np.mean(np.concatenate([part[key] for part in parts]))) for key in SCORES
        }
    return base


def costs(config: Config) -> dict[str, report.ModelCost]:
    """Counts parameters and MACs of the trained network and of the published encoder."""
    trained = EFD(
        size=config.image_size,
        decoder_features=config.decoder_features,
        normalise_code=config.normalise_code,
    )
    height, width = config.image_size
    return {
        f"efd_{height}x{width}": _cost(trained, config.image_size),
        f"encoder_{height}x{width}": _cost(Encoder(), config.image_size),
        "encoder_256x256": _cost(Encoder(), (256, 256)),
    }


def _cost(network, size: tuple[int, int]) -> report.ModelCost:
    image = jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    counted = count(lambda v, x: network.apply(v, x, train=False), variables, image)
    params = count_params(variables["params"])
    return report.ModelCost(params, counted.macs_nominal, counted.macs_exact)


def claims(
    config: Config, results: Mapping[str, float], scores: Mapping[tuple[int, str], dict]
) -> list[report.Claim]:
    """Puts our figures beside the published ones."""
    encoder = _cost(Encoder(), (256, 256))
    answers = [
        report.Claim(
            "efd.params",
            encoder.params / 1e6,
            "not reproduced",
            "the printed figure is half of the true count, which the network has exactly",
        ),
        report.Claim(
            "efd.flops",
            encoder.macs_nominal / 1e9,
            "not reproduced",
            "ours are the MACs of the convolutions; the print adds elements of batch "
            "normalisation and calls MACs FLOPs",
        ),
    ]
    if "crwt/stage1_fscore" in results:
        answers.append(
            report.Claim(
                "efd.fscore.stage1",
                100 * results["crwt/stage1_fscore"],
                "not comparable",
                "the published data are not public; ours are on this report's data and split",
            )
        )
    compared = {
        "efd.crwt.helps": ("crwt", "plain"),
        "efd.dilation.helps": ("crwt", "no_dilation"),
        "efd.exchange.helps": ("crwt", "no_exchange"),
    }
    for claim, (full, without) in compared.items():
        if {full, without} <= set(config.arms):
            answers.append(_verdict(claim, full, without, scores))
    return answers


def _verdict(
    claim: str, full: str, without: str, scores: Mapping[tuple[int, str], dict]
) -> report.Claim:
    """Judges whether one arm is better in L1, L2 and SSIM, from paired seeds."""
    seeds = sorted({seed for seed, _ in scores})
    gains = {
        "L1": [scores[s, without]["l1"] - scores[s, full]["l1"] for s in seeds],
        "L2": [scores[s, without]["l2"] - scores[s, full]["l2"] for s in seeds],
        "SSIM": [scores[s, full]["ssim"] - scores[s, without]["ssim"] for s in seeds],
    }
    told = ", ".join(f"{k} {np.mean(v):+.2g}" for k, v in gains.items())
    better = all(min(v) > 0 for v in gains.values())
    if len(seeds) < 3:
        why = f"one comparison is no evidence, ask for --seeds 3; gains here: {told}"
        return report.Claim(claim, better, "not comparable", why)
    verdict = "reproduced" if better else "not reproduced"
    why = (
        f"mean gains over {len(seeds)} seeds at equal steps and learning rates: {told}; better "
        f"in all three measures with every seed: {'yes' if better else 'no'}"
    )
    return report.Claim(claim, better, verdict, why)


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _summary(config: Config) -> str:
    height, width = config.image_size
    return (
        "A network was trained to rebuild pressure maps of people lying down from 128 "
        "keypoints that nobody annotated. Stage 1 classifies every pixel (contact or not), its "
        "weights are transferred, and stage 2 rebuilds the map (arm crwt); the arm plain "
        "rebuilds from the start, with the same number of steps and the same restart of the "
        f"learning rate. Input {height}x{width}, decoder channels "
        f"{' '.join(map(str, config.decoder_features))} (the paper: 256x256, 64 32 16 8), "
        f"{config.stage1_steps} + {config.stage2_steps} steps of {config.batch_size} maps, loss "
        f"{config.l2_weight:g} L2 + {config.ssim_weight:g} (1 - SSIM), Adam with a peak learning "
        f"rate of {config.learning_rate:g}, heatmap sharpness {config.sharpness:g}, seeds "
        f"{config.seed} to {config.seed + config.seeds - 1}. Scores are those of the last step, "
        "at the mat's own resolution. heatmap_entropy (1: spread over the whole map), "
        "cells_used (distinct places where mean heatmaps peak) and effective_rank (dimensions "
        "the code really uses) tell whether the keypoints collapsed."
    )


def _seeds_table(trained: Mapping[tuple[int, str], Trained], scores: Mapping) -> str:
    lines = ["| seed | arm | L2 | L1 | SSIM | stage-1 f-score |", "|---|---|---|---|---|---|"]
    for (seed, arm), result in trained.items():
        s = scores[seed, arm]
        f = "" if result.fscore is None else f"{result.fscore:.4f}"
        lines.append(f"| {seed} | {arm} | {s['l2']:.5f} | {s['l1']:.4f} | {s['ssim']:.4f} | {f} |")
    return "\n".join(lines)


def _people_table(trained: Mapping[tuple[int, str], Trained]) -> str:
    """Means over test subjects with a 95 % t-interval; subjects, not maps, are the sample."""
    lines = ["| seed | arm | L2 | SSIM | subjects |", "|---|---|---|---|---|"]
    for (seed, arm), result in trained.items():
        people = list(result.by_subject.values())
        cells = [_interval([p[name] for p in people]) for name in ("l2", "ssim")]
        lines.append(f"| {seed} | {arm} | {' | '.join(cells)} | {len(people)} |")
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.4f} ± {half:.4f}"


def _clock_table(trainer: Trainer) -> str:
    lines = ["| activity | seconds |", "|---|---|"]
    lines += [f"| {name} | {s:.1f} |" for name, s in sorted(trainer.clock.seconds.items())]
    return "\n".join(lines)
