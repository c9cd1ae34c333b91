"""The supervised keypoint experiment: its parts, and all of it with networks of no width."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pressure_pose_costs as costing
from experiments import pressure_pose_scores as scoring
from experiments import pressure_pose_study as study
from experiments.pressure_pose import ARMS, MULTIPLES, PRESETS, Config, _check
from experiments.pressure_pose_figures import chains
from experiments.pressure_pose_networks import NETWORKS, cost_of, network_of, quiet_heads
from jaxbed.cli import by_preset
from jaxbed.data.prepared_pressure import write_pressure_maps
from jaxbed.errors import InputError
from jaxbed.machine import OPEN
from jaxbed.simulate.pressure import simulate_pressure_maps
from jaxbed.simulate.skeleton import JOINTS
from jaxbed.tasks import pressure_pose as task

TINY = {
    "preset": "smoke",
    "simulated": (3, 3),
    "arms": ("shglass", "respose"),
    "steps": 2,
    "batch_size": 2,
}
FRAME = task.Frame((64, 32), (1625.6, 812.8))


def config(**settings) -> Config:
    return by_preset(Config(**settings), PRESETS)


@pytest.fixture(scope="module")
def maps():
    return simulate_pressure_maps(subjects=4, maps_per_subject=2)


# Configuration


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fills_every_open_field(preset):
    resolved = config(preset=preset)
    unset = {f.name for f in dataclasses.fields(resolved) if getattr(resolved, f.name) is None}
    steps = {"steps"} if preset == "paper" else set()
    assert unset == {"data_dir", *OPEN, *steps}
    _check(resolved)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"image_size": (100, 64)}, "--image-size"),
        ({"preset": "paper", "image_size": (224, 224)}, "--image-size"),
        ({"data": "slp"}, "--data-dir"),
        ({"simulated": (0, 4)}, "--simulated"),
        ({"arms": ()}, "--arms"),
        ({"arms": ("shglass", "shglass")}, "--arms"),
        ({"batch_size": 0}, "--batch-size"),
        ({"steps": 0}, "--steps"),
        ({"learning_rate": np.nan}, "--learning-rate"),
        ({"sigma_px": 0.0}, "--sigma-px"),
        ({"max_shift_mm": -1.0}, "--max-shift-mm"),
        ({"max_zoom": 0.9}, "--max-zoom"),
    ],
)
def test_bad_configuration_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        _check(config(**settings))


def test_bad_configuration_ends_with_one_sentence_and_status_2(tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "experiments.pressure_pose", "--data", "slp"]
        + ["--workdir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 2
    assert told.stderr.startswith("error: --data slp needs --data-dir")
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "run").exists()


# Networks


@pytest.mark.parametrize("arm", ARMS)
def test_tiny_networks_take_the_smallest_image(arm):
    multiple = MULTIPLES["tiny"]
    network = network_of(config(networks="tiny"), arm)
    assert isinstance(network, NETWORKS[arm])
    image = jax.ShapeDtypeStruct((1, 2 * multiple, multiple, 1), jnp.float32)
    shapes, _ = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), image
    )
    assert shapes["heatmaps"].shape == (1, multiple // 2, multiple // 4, len(JOINTS))


@pytest.mark.parametrize("arm", ARMS)
def test_slim_networks_take_the_smallest_image_and_cost_a_few_percent(arm):
    """Of the published ones, which have 10 to 24 G of MACs for 32 times the pixels."""
    multiple = MULTIPLES["slim"]
    slim = cost_of(network_of(config(), arm), (2 * multiple, multiple))
    assert 5e6 < slim.macs_nominal < 25e6
    assert 0.2e6 < slim.params < 2e6


@pytest.mark.parametrize("arm", ARMS)
def test_heatmaps_begin_near_0_and_nothing_else_changes(arm):
    network = network_of(config(networks="tiny"), arm)
    image = jax.ShapeDtypeStruct((1, 32, 16, 1), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    quiet = quiet_heads(ones)
    assert jax.tree.all(jax.tree.map(np.array_equal, quiet["batch_stats"], ones["batch_stats"]))
    shrunk = [leaf for leaf in jax.tree.leaves(quiet["params"]) if leaf.max() < 1]
    made = sum(leaf.shape[-1] for leaf in shrunk)
    stacks = getattr(network, "stacks", 1)
    assert made == stacks * len(JOINTS)


def test_costs_are_judged_by_what_the_paper_prints():
    near = costing.claim_of("hrpose", 10.17)
    far = costing.claim_of("respose", 11.98)
    assert (near.id, near.verdict) == ("efd.base.hrpose.flops", "reproduced")
    assert (far.ours, far.verdict) == (11.98, "not reproduced")


# Data


def test_maps_of_a_person_lie_on_one_side_only(maps):
    split = study.divide(maps, config())
    assert not split.subjects_shared
    assert set(maps.subject[split.test]) == {"sim-003"}
    sides = study.as_sides(maps, split)
    assert sides.test["pressure"].shape == (2, 64, 32)
    assert sides.test["pressure"].max() == 1
    named = study.divide(maps, config(test_subjects=("sim-000", "sim-002")))
    assert set(maps.subject[named.test]) == {"sim-000", "sim-002"}


def test_one_person_alone_cannot_be_split(maps):
    alone = dataclasses.replace(maps, subject=np.full(len(maps), "sim-000"))
    with pytest.raises(InputError, match="split by subject is impossible"):
        study.divide(alone, config())


def test_slp_is_read_as_prepared_and_refused_without_joints(tmp_path, maps):
    good = dataclasses.replace(maps, name="slp_pm")
    write_pressure_maps(good, tmp_path, frames_read=len(good))
    read = study.load_maps(config(data="slp", data_dir=tmp_path))
    np.testing.assert_array_equal(read.joints_mm, maps.joints_mm)
    bare = tmp_path / "bare"
    bare.mkdir()
    write_pressure_maps(dataclasses.replace(good, joints_mm=None), bare, frames_read=len(good))
    with pytest.raises(InputError, match="data_prep.slp_pressure"):
        study.load_maps(config(data="slp", data_dir=bare))
    with pytest.raises(InputError, match="slp_pm"):
        study.load_maps(config(data="slp", data_dir=tmp_path / "nowhere"))


def test_schedules_fall_as_they_say():
    steps = study.learning_rates(config(preset="paper", steps=140))
    np.testing.assert_allclose(
        steps[[0, 89, 90, 119, 120, 139]], [1e-3] * 2 + [1e-4] * 2 + [1e-5] * 2
    )
    cosine = study.learning_rates(config(steps=100))
    assert cosine.argmax() == 10
    assert cosine[-1] < 0.05 * cosine.max()


# Scores


def test_scores_equal_the_metrics_of_the_task(rng):
    true = rng.uniform((100, 200), (700, 1400), (8, 14, 2)).astype(np.float32)
    true[0, 3] = np.nan
    found = true + rng.normal(scale=60, size=true.shape).astype(np.float32)
    found[1, 2] = np.nan
    subject = np.array([*"abcdefgh"])
    judged = scoring.judge({"net": found}, true, subject, FRAME, study.SKELETON, seed=0)["net"]
    limit = 0.1 * task.torso_length(jnp.asarray(true), study.SKELETON)
    pck = task.PCK.from_model_output(jnp.asarray(found), jnp.asarray(true), limit, mask=jnp.ones(8))
    assert judged.overall["pck10"].mean == pytest.approx(100 * float(pck.compute()))
    for j in (0, 2, 3):
        share = 100 * float(pck.hits[j] / pck.counts[j])
        assert judged.joints["pck10"][j].mean == pytest.approx(share)
    assert judged.overall["missing"].mean == pytest.approx(100 / (8 * 14 - 1))
    away = np.linalg.norm(found - true, axis=-1)
    assert judged.overall["error_mm"].mean == pytest.approx(np.nanmean(away), rel=1e-5)
    assert judged.overall["error_px"].mean == pytest.approx(np.nanmean(away) / 25.4, rel=1e-4)
    assert judged.overall["pck10"].low < judged.overall["pck10"].mean
    few = scoring.judge({"net": found}, true, subject[:4].repeat(2), FRAME, study.SKELETON, seed=0)
    assert np.isnan(few["net"].overall["pck10"].low)


def test_baselines_are_the_mean_pose_and_the_most_similar_map(rng):
    train = {
        "pressure": rng.random((5, 64, 32)).astype(np.float32),
        "joints_mm": rng.uniform(0, 800, (5, 14, 2)).astype(np.float32),
    }
    train["joints_mm"][0, 0] = np.nan
    test = {name: array[[3, 1]] for name, array in train.items()}
    found = scoring.baselines_of(train, test)
    np.testing.assert_array_equal(found["nearest"], test["joints_mm"])
    want = np.nanmean(train["joints_mm"], axis=0)
    np.testing.assert_allclose(found["mean_pose"], [want, want], rtol=1e-6)


def test_limbs_are_drawn_from_their_joints():
    joints = np.stack([np.arange(14), np.zeros(14)], axis=-1)[None]
    right_leg, left_leg, right_arm, left_arm, trunk = chains(joints)[0, ..., 0].tolist()
    assert (right_leg, left_leg) == ([2, 1, 0], [3, 4, 5])
    assert (right_arm, left_arm) == ([8, 7, 6], [9, 10, 11])
    assert trunk == [13, 12, 2.5]


# All of it


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return workdir, study.run(config(**TINY, workdir=workdir))


@pytest.mark.slow
def test_the_whole_study_leaves_a_complete_report(finished):
    workdir, path = finished
    assert path == workdir / "report.md"
    report = json.loads((workdir / "report.json").read_text())
    assert report["finished"]
    assert not report["data"]["subjects_shared"]
    assert (report["data"]["train"], report["data"]["test"]) == (6, 3)
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["models"]["respose_published_256x256"]["params"] == 52_984_782
    assert report["models"]["respose_published_256x256"]["macs_nominal"] == 11_977_883_648
    verdicts = {c["id"]: c["verdict"] for c in report["claims"]}
    assert verdicts["efd.base.shglass.flops"] == "reproduced"
    assert verdicts["efd.base.respose.flops"] == "not reproduced"
    assert verdicts["efd.base.hrpose.flops"] == "not comparable"  # not among the arms
    for name in ("shglass", "respose", "mean_pose", "nearest"):
        assert 0 <= report["results"][f"{name}/pck20"] <= 100
    assert report["results"]["shglass/predict_ms_p95"] > 0
    for name in ("skeletons", "pck", "cost", "curves"):
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


def test_too_few_maps_for_a_batch_are_refused_before_a_folder_is_made(tmp_path):
    asked = config(**TINY | {"batch_size": 8}, workdir=tmp_path / "run")
    with pytest.raises(InputError, match="only 6 examples to train on"):
        study.run(asked)
    assert not (tmp_path / "run").exists()
