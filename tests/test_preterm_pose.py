"""The limb pose experiment: its parts, and all of it with networks of next to no width."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import preterm_pose_report as reporting
from experiments import preterm_pose_study as study
from experiments.preterm_pose import PRESETS, Config, _check
from jaxbed.cli import by_preset
from jaxbed.data.depth import DepthFrames
from jaxbed.efficiency.clocks import beside
from jaxbed.errors import InputError
from jaxbed.machine import OPEN

TINY = {
    "preset": "smoke",
    "image_size": (16, 32),
    "detection_width": 2,
    "widths": (2, 2, 2, 2),
    "simulated": (3, 1, 9),
    "kinds": ("standard", "asymmetric"),
    "batch_size": 2,
    "detection_steps": 2,
    "regression_steps": 2,
}


def config(**settings) -> Config:
    return by_preset(Config(**settings), PRESETS)


def frames(subjects="abcde", length=8) -> DepthFrames:
    rng = np.random.default_rng(0)
    count = len(subjects) * length
    names = np.repeat(list(subjects), length)
    return DepthFrames(
        name="simulated",
        depth_mm=rng.integers(500, 900, (count, 16, 32)).astype(np.uint16),
        joints_px=rng.uniform(2, 14, (count, 12, 2)).astype(np.float32),
        subject=names,
        recording=names,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fills_every_open_field(preset):
    resolved = config(preset=preset)
    unset = {f.name for f in dataclasses.fields(resolved) if getattr(resolved, f.name) is None}
    steps = {"detection_steps", "regression_steps"} if preset == "paper" else set()
    assert unset == {"data_dir", "radius_px", *OPEN, *steps}
    _check(resolved)


def test_sizes_follow_the_image():
    paper, small = config(preset="paper"), config(preset="quick")
    assert (paper.disc_px, paper.window_px, paper.published_px) == (6, 11, 1)
    assert (small.disc_px, small.window_px, small.published_px) == (3, 5, 2)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"image_size": (50, 64)}, "--image-size"),
        ({"data": "utd_mhad"}, "--data-dir"),
        ({"kinds": ()}, "--kinds"),
        ({"detection_width": 3}, "--detection-width"),
        ({"batch_size": 0}, "--batch-size"),
        ({"regression_steps": 0}, "--regression-steps"),
        ({"learning_rate": np.nan}, "--learning-rate"),
        ({"radius_px": -1.0}, "--radius-px"),
    ],
)
def test_bad_configuration_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        _check(config(**settings))


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_sides_share_neither_person_nor_frame(select):
    data, asked = frames(length=40), config(**TINY, select=select)
    sides = study.as_clips(data, study.divide(data, asked), asked)
    used = {name: set(getattr(sides, name)["depth_mm"].index.ravel()) for name in ("train", "test")}
    assert not set(data.subject[[*used["train"]]]) & set(data.subject[[*used["test"]]])
    watched = set(sides.watch["depth_mm"].index.ravel())
    if select == "best":
        assert not watched & (used["train"] | used["test"])
    else:
        assert watched <= used["test"]
    # Every test frame counts once.
    assert sorted(sides.test_frames) == sorted(used["test"])


def test_the_papers_protocol_says_that_it_shares_people():
    data = frames()
    split = study.divide(data, config(protocol="paper"))
    assert split.subjects_shared
    assert len(split.train) == 30
    for name in "abcde":
        who = data.subject == name
        assert split.train[who[split.train]].max() < split.test[who[split.test]].min()


def test_the_papers_schedule_decays_every_ten_epochs():
    rates = study.learning_rates(config(preset="paper"), "regression", 400)  # 4 steps an epoch
    np.testing.assert_allclose(rates[[0, 39, 40, 399]], [1e-2, 1e-2, 9e-3, 1e-2 * 0.9**9])


def test_epochs_become_steps():
    resolved = study._with_steps(config(preset="paper"), 161)
    assert (resolved.detection_steps, resolved.regression_steps) == (1500, 1000)


def test_detection_stays_as_it_is_while_regression_learns():
    phase = study.regression_phase(
        config(**TINY),
        "lean",
        study.LimbMaps(study.DetectionCNN(2), study.RegressionCNN("lean", (2, 2, 2, 2), 2)),
    )
    params = {"detection": {"w": jnp.ones(2)}, "regression": {"w": jnp.ones(2)}}
    gradients = {"detection": {"w": jnp.zeros(2)}, "regression": {"w": jnp.ones(2)}}
    state = phase.tx.init(params)
    direction, state = phase.tx.update(gradients, state, params)
    assert not direction["detection"]["w"].any()
    assert direction["regression"]["w"].all()
    moments = [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "size", 0) > 1]
    assert sum(leaf.size for leaf in moments) == 2 * 2  # Adam's two, for regression alone


def test_the_difference_resamples_whole_units():
    unit = np.repeat(["a", "b", "c"], [10, 10, 20])
    standard = np.ones((40, 4), np.float32)
    rmsd = standard + np.where(unit == "c", 2, 0)[:, None]
    rmsd[0, 0] = np.nan
    mean, low, high = reporting.difference(rmsd, standard, unit, seed=0)
    assert mean == pytest.approx(160 / 159)
    assert (low, high) == (0, 2)  # all units alike happens in more than 1 of 40 draws
    same = reporting.difference(standard, standard, unit, seed=0)
    assert same == (0, 0, 0)


def test_few_people_are_no_sample():
    assert reporting.sampling_units(frames("abcde"), np.arange(40))[0] == "people"
    assert reporting.sampling_units(frames("abcd"), np.arange(32))[0] == "recordings"


@pytest.mark.parametrize(
    ("preset", "ratio", "verdict"),
    [
        ("quick", 0.3, "not comparable"),
        ("paper", 0.3, "reproduced"),
        ("paper", 0.5, "not reproduced"),
    ],
)
def test_savings_are_judged_at_the_published_widths_only(preset, ratio, verdict):
    claim = reporting.saving_claim(config(preset=preset), "train", 100 * (1 - ratio))
    assert claim.verdict == verdict


def test_the_step_table_tells_ratios():
    first, second = np.full(5, 10.0), np.full(5, 4.0)
    stepped = {"standard": beside(first, first), "asymmetric": beside(first, second)}
    predicted = {kind: {"network": first, "linking": second, "total": first} for kind in stepped}
    assert "| 4.0 | 0.40 (0.40 to 0.40) |" in reporting.time_table(predicted, stepped)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    report = study.run(config(**TINY, workdir=workdir))
    return workdir, report


@pytest.mark.slow
def test_the_whole_study_leaves_a_complete_report(finished):
    workdir, path = finished
    assert path == workdir / "report.md"
    report = json.loads((workdir / "report.json").read_text())
    assert report["finished"]
    assert not report["data"]["subjects_shared"]
    assert (report["data"]["train"], report["data"]["test"]) == (14, 3)
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["models"]["standard_published"]["params"] == 2_985_236
    assert report["models"]["asymmetric_published"]["macs_nominal"] == 48_051_781_632
    assert len(report["claims"]) == 13
    for network in ("detection", "standard", "asymmetric", "mean_pose"):
        for limb in reporting.LIMBS:
            assert 0 <= report["results"][f"{network}/{limb}/missing"] <= 1
    for name in ("skeletons", "rmsd", "curves"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_resuming_a_finished_run_trains_nothing_and_finds_the_same(finished):
    workdir, _ = finished
    before = json.loads((workdir / "report.json").read_text())["results"]
    study.run(config(**TINY, workdir=workdir, resume=True))
    report = json.loads((workdir / "report.json").read_text())
    assert report["timing"]["train_step_ms"]["n"] == 0
    timeless = {name for name in before if "_ms" not in name}
    assert {name: report["results"][name] for name in timeless} == {
        name: before[name] for name in timeless
    }
