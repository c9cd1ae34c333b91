"""What each step of canonicalisation and augmentation brings: `--study steps`.

Every variant trains an encoder and readers of its own. Settings are to be chosen by the people
held out, and by these people as another mat might show them; unseen mats stand beside, to tell
what the steps brought, and choose nothing.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments import keypoint_posture_data as data
from experiments.keypoint_posture import Config
from experiments.keypoint_posture_course import Sets
from experiments.keypoint_posture_data import taken
from experiments.keypoint_posture_folds import natural, plan_for_all, tested_groups
from experiments.keypoint_posture_readers import CNN, Answers
from experiments.keypoint_posture_scores import Key, Score, as_results, judge_all
from experiments.keypoint_posture_study import devices_for, gather, train_all, trainer_of
from jaxbed import figures, report
from jaxbed.codecs import mats
from jaxbed.data import splits
from jaxbed.data.pressure import Mat, PressureMaps, scaled
from jaxbed.report_text import table
from jaxbed.tasks.keypoint_posture import Jitter, jittered
from jaxbed.training.loop import Trainer

HELD = "held_out"
"""People who are not trained on."""
DISTURBED = "disturbed"
"""The same maps as another mat might show them."""

_ANOTHER_MAT = Jitter(
    shift_mm=(127.0, 101.6), roll_deg=12.0, scale=0.15, gain=0.4, gamma=0.4, dead=0.08, mirror=False
)
_STILL = {
    "shift_mm": (0.0, 0.0),
    "roll_deg": 0.0,
    "scale": 0.0,
    "gain": 0.0,
    "gamma": 0.0,
    "dead": 0.0,
    "mirror": False,
}


def variants(config: Config) -> dict[str, dict]:
    """Returns the settings that each variant changes; the last one changes nothing."""
    moved = {**_STILL, "shift_mm": config.shift_mm, "scale": config.scale}
    return {
        "raw": {"canonical": ()},
        "median": {"canonical": ("median",)},
        "median_centred": {"canonical": ("median", "centred")},
        "no_augmentation": _STILL,
        "shift_scale": moved,
        "all_but_mirror": {"mirror": False},
        "all": {},
    }


def run(config: Config) -> Path:
    """Trains every variant and writes the report."""
    maps, unseen = data.load(config), data.load_unseen(config)
    held, trained_on = divide(maps, config)
    tests = {HELD: held, DISTURBED: disturbed(held, config.seed), **unseen}
    plan = plan_for_all(trained_on.subject)
    first = gather(config, trained_on, tests, plan)
    devices = devices_for(config, first)
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    trainer, answers = trainer_of(config, devices), Answers(config.workdir)
    judged = {}
    for name, changes in variants(config).items():
        changed = dataclasses.replace(config, **changes)
        sets = gather(changed, trained_on, tests, plan)
        train_all(changed, trainer, sets, answers, within=f"{name}/")
        judged[name] = judge_all(changed, sets, answers, within=f"{name}/")
    trainer.close()
    return _write(config, first, trainer, judged)


def divide(maps: PressureMaps, config: Config) -> tuple[PressureMaps, PressureMaps]:
    """Returns the maps of who is tested on, thinned, and of who is trained on."""
    tested, reserved = config.test_subjects, ()
    if not tested and config.data == "pmd":
        tested, reserved = ("S8", "S9", "S10"), ("S11", "S12", "S13")
    if not tested:
        (tested,) = tested_groups(maps.subject, config).values()
    split = splits.by_subject(maps.subject, tested)
    train = split.train[~np.isin(maps.subject[split.train], reserved)]
    held = data.thinned(taken(maps, split.test), config.thin[1])
    return held, taken(maps, train)


def disturbed(maps: PressureMaps, seed: int) -> PressureMaps:
    """Shows maps as another mat might: moved, turned, stretched, with other and dead sensors."""
    grid = mats.resampled(maps.pressure, maps.mat.pitch_mm, data.SIZE, data.PITCH_MM)
    share = scaled(dataclasses.replace(maps, pressure=grid))
    keys = jax.random.split(jax.random.key(seed), len(maps))
    change = partial(jittered, jitter=_ANOTHER_MAT, pitch_mm=data.PITCH_MM)
    moved, _ = jax.jit(jax.vmap(change))(share, keys)
    mat = Mat(*data.SIZE, pitch_mm=data.PITCH_MM, unit="count", full_scale=1.0)
    return dataclasses.replace(maps, mat=mat, pressure=np.asarray(moved))


def _write(
    config: Config, sets: Sets, trainer: Trainer, judged: Mapping[str, Mapping[Key, Score]]
) -> Path:
    readers = (*config.classifiers, CNN)
    results = {
        f"{name}/{quantity.replace('/', '_')}": value
        for name, scores in judged.items()
        for quantity, value in as_results(scores).items()
        if not quantity.endswith(("_low", "_high"))
    }
    shown = "ordered" if "ordered" in readers else readers[0]
    columns = list(dict.fromkeys(key[:2] for scores in judged.values() for key in scores))
    path = figures.bars(
        config.workdir / "figures" / "steps.png",
        {
            f"{where}, {kind}": {
                name: scores[where, kind, shown].share.mean for name, scores in judged.items()
            }
            for where, kind in columns
        },
        title=f"What each step brings to {shown}, % read rightly",
    )
    return report.write_report(
        config.workdir,
        experiment="keypoint_posture",
        summary=_summary(config),
        data=report.Data(
            name=sets.own.name,
            split=f"by subject, {len(set(sets.own.subject.tolist()))} trained on, "
            f"{', '.join(natural(set(sets.unseen[HELD].subject.tolist())))} tested on",
            subjects_shared=False,
            train=len(sets.train),
            test=len(sets.unseen[HELD]),
            simulated=config.data == "simulated",
        ),
        results=results,
        models={},
        timing=report.timing_of(
            trainer.clock,
            batch_size=config.batch_size,
            recompiles_after_first=trainer.recompiles_after_first,
        ),
        environment=report.environment(),
        figures=[report.Figure(path, "Every variant trains an encoder and readers of its own.")],
        sections={
            f"What each step brought: {reader}": _table(judged, reader, columns)
            for reader in readers
        },
    )


def _table(
    judged: Mapping[str, Mapping[Key, Score]], reader: str, columns: list[tuple[str, str]]
) -> str:
    rows = [
        [name, *(str(scores[where, kind, reader].share) for where, kind in columns)]
        for name, scores in judged.items()
    ]
    return table(["", *(f"{where}, {kind}" for where, kind in columns)], rows)


def _summary(config: Config) -> str:
    return (
        "What each step of canonicalisation (raw, median, centred, root: all steps up to it, with "
        "all augmentation) and of augmentation (none, shift and stretch, all but the mirror, all: "
        "in the full canonical frame) brings. Every variant trains an encoder without labels and "
        f"readers on it, on the same people. {HELD}: people held out, on their own mat. "
        f"{DISTURBED}: the same maps as another mat might show them (moved, turned, stretched, "
        "other gains, a curved response, dead sensors). These two may choose settings; unseen mats "
        "stand beside to tell what a step brought, and must not. Percent read rightly, with a "
        f"95 % interval over people, or recordings where there are few. Seed {config.seed}, "
        f"{config.stage1_steps} + {config.stage2_steps} steps of an encoder."
    )
