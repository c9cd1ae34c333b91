"""The sleep posture experiment: its parts, and all of it with networks of next to no width."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sleep_posture_scores as scoring
from experiments import sleep_posture_study as study
from experiments.sleep_posture import PRESETS, STUDIES, Config, _check, resolved
from experiments.sleep_posture_attention import feature_map_of, grad_cam
from experiments.sleep_posture_claims import claims
from experiments.sleep_posture_figures import one_of_each
from experiments.sleep_posture_networks import Weights, initial_variables, network_of, read_weights
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages
from jaxbed.data.prepared_night import write_night_images
from jaxbed.errors import InputError
from jaxbed.machine import OPEN
from jaxbed.models.resnet import resnet18
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.logs import read_metrics
from jaxbed.training.step import Devices
from jaxbed.weights.torchvision import to_torchvision

ROOT = Path(__file__).parent.parent
TINY = {
    "preset": "smoke",
    "arms": ("multi_task", "resnet"),
    "width": 2,
    "steps": 4,
    "simulated": (6, 8),
    "quick_compile": True,
}


def config(**settings) -> Config:
    return resolved(Config(**settings))


def images(people="abcdef", each=8, blanket=(0, 1), size=(32, 32)) -> NightImages:
    count = len(people) * each
    subject = np.repeat(list(people), each)
    return NightImages(
        name="some",
        image=np.random.default_rng(0).integers(0, 256, (count, *size), np.uint8),
        posture=np.arange(count, dtype=np.int32) % 4,
        blanket=np.resize(np.array(blanket, np.int32), count),
        subject=subject,
        recording=np.full(count, ""),
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("chosen", STUDIES)
def test_every_preset_and_study_fills_every_open_field(preset, chosen):
    full = config(preset=preset, study=chosen)
    unset = {f.name for f in dataclasses.fields(full) if getattr(full, f.name) is None}
    assert unset == {"data_dir", *OPEN} | ({"steps"} if preset == "paper" else set())
    _check(full)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"image_size": (24, 96)}, "--image-size is 24 96"),
        ({"data": "slp"}, "--data slp needs --data-dir.*data_prep.slp"),
        ({"protocol": "paper", "test_subjects": ("a",)}, "--test-subjects"),
        ({"width": 3}, "--width is 3"),
        ({"init": "imagenet"}, "--width 64"),
        ({"weights": (Path("resnet18.pth"),)}, "--init imagenet"),
        ({"arms": ()}, "--arms names no arm"),
        ({"arms": ("dl", "dl")}, "--arms names one twice"),
        ({"blanket_weight": -1.0}, "--blanket-weight is -1"),
        ({"study": "weights", "arms": ("dl", "resnet")}, "--study weights"),
        ({"study": "weights", "blanket_weights": (0.5,)}, "--blanket-weights"),
        ({"study": "weights", "blanket_weights": (0.5, 0.5)}, "--blanket-weights"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"learning_rate": np.nan}, "--learning-rate is nan"),
        ({"min_scale": 1.5}, "--min-scale is 1.5"),
    ],
)
def test_bad_configuration_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        _check(config(**settings))


def test_a_prepared_set_is_read_under_the_name_its_command_gives_it(tmp_path):
    written = dataclasses.replace(images("ab"), name="slp_depth")
    write_night_images(written, tmp_path, frames_read=len(written))
    asked = config(data="slp", slp_images="depth", data_dir=tmp_path)
    np.testing.assert_array_equal(study.load_images(asked).image, written.image)
    with pytest.raises(InputError, match="slp_ir"):
        study.load_images(dataclasses.replace(asked, slp_images="ir"))


def test_nobody_is_on_both_sides_unless_the_papers_protocol_says_so():
    data = images()
    own = study.divide(data, config())
    assert not set(data.subject[own.train]) & set(data.subject[own.test])
    assert sorted(set(data.subject[own.test])) == ["f"]
    shared = study.divide(data, config(protocol="paper"))
    assert shared.subjects_shared
    assert len(shared.test) == round(0.3 * len(data))
    chosen = study.divide(data, config(test_subjects=("a", "c")))
    assert set(data.subject[chosen.test]) == {"a", "c"}


def test_one_person_cannot_be_split_by_person():
    with pytest.raises(InputError, match="split by subject is impossible.*'a'.*--protocol paper"):
        study.divide(images("a"), config())
    assert study.divide(images("a"), config(protocol="paper")).subjects_shared


@pytest.mark.parametrize("blanket", [(UNKNOWN,), (1, UNKNOWN), (0,)])
def test_the_blanket_cannot_be_learned_from_one_kind_of_label(blanket):
    data = images(blanket=blanket)
    sides = study.as_sides(data, study.divide(data, config()))
    with pytest.raises(InputError, match="--arms dl learn.*--arms attention resnet"):
        study._check_data(config(preset="smoke"), sides)
    study._check_data(config(preset="smoke", arms=("resnet", "attention")), sides)


def test_the_papers_schedule_falls_every_twenty_epochs():
    rates = study.learning_rates(config(preset="paper", steps=400))  # 5 steps an epoch
    np.testing.assert_allclose(rates[[0, 99, 100, 399]], [1e-4, 1e-4, 0.8e-4, 0.8**3 * 1e-4])
    assert len(set(rates.tolist())) == 4
    cosine = study.learning_rates(config(steps=900))
    assert cosine.argmax() == 90
    assert cosine.max() == pytest.approx(3e-3)


def test_runs_of_the_studies():
    tables = study.runs_of(config(study="tables", seed=4, seeds=2))
    assert [(run.seed, run.label) for run in tables] == [
        (seed, arm) for seed in (4, 5) for arm in ("resnet", "densenet", "multi_task", "dl")
    ]
    sweep = study.runs_of(config(study="weights", blanket_weights=(0.1, 0.5)))
    assert [(run.label, run.arm, run.blanket_weight) for run in sweep] == [
        ("dl_w0.1", "dl", 0.1),
        ("dl_w0.5", "dl", 0.5),
    ]


def test_all_weights_of_the_blanket_share_a_program(monkeypatch):
    monkeypatch.setattr(study, "train_one", lambda trainer, config, run, phase, *rest: phase)
    trainer = SimpleNamespace(devices=Devices())
    data = images()
    sides = study.as_sides(data, study.divide(data, config()))
    asked = config(**TINY | {"arms": ("multi_task",)}, study="weights", seeds=2)
    phases = study.train_all(trainer, asked, sides, {})
    assert len(phases) == 10
    assert len({phase.name for phase in phases.values()}) == 10
    assert len({(phase.network, phase.task, phase.tx) for phase in phases.values()}) == 1
    assert study.weighted(sides.test, 0.3)["blanket_weight"].tolist() == [np.float32(0.3)] * 8


def test_a_resnet18_file_starts_both_branches_of_the_papers_network(tmp_path):
    """With the file's last layer dropped, and the stem summed over its colours."""
    asked = config(width=64, init="imagenet", weights=(tmp_path / "resnet18-x.safetensors",))
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(asked)
    nothing = dataclasses.replace(asked, weights=(), arms=("densenet",))
    with pytest.raises(InputError, match=r"densenet121-a639ec97\.pth"):
        read_weights(nothing)

    slim = config(width=4)
    published = resnet18(outputs=10, width=4)
    shapes = jax.eval_shape(
        lambda x: published.init(jax.random.key(0), x, train=False), jnp.zeros((1, 32, 32, 3))
    )
    rng = np.random.default_rng(0)
    tensors = to_torchvision(
        jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    )
    variables, loaded = initial_variables(
        network_of(slim, "dl"), (32, 32), jax.random.key(0), Weights("a file", tensors)
    )
    kernel = tensors["layer3.0.conv1.weight"].transpose(2, 3, 1, 0)
    for task in ("posture", "blanket"):
        own = variables["params"][task]["layer3"]["block0"]["conv1"]["kernel"]
        np.testing.assert_array_equal(own, kernel)
    stem = variables["params"]["shared"]["stem"]["conv1"]["kernel"]
    np.testing.assert_allclose(stem[..., 0, :], tensors["conv1.weight"].sum(1).transpose(1, 2, 0))
    assert {"fc.weight", "fc.bias"} <= set(loaded.dropped)


def test_scores_follow_from_what_was_found():
    truth = {
        "posture": np.array([0, 0, 1, 2, 2, 2]),
        "blanket": np.array([0, 1, UNKNOWN, 1, 1, 0]),
    }
    found = scoring.Found(np.array([0, 1, 1, 2, 2, 0]), np.array([0, 1, 1, 0, 1, 1]))
    right = scoring._means(scoring.hits(found, truth))
    want = {"posture": 400 / 6, "supine": 50, "prone": 100, "left": 200 / 3, "blanket": 60}
    assert {name: right[name] for name in want} == pytest.approx(want)
    assert np.isnan(right["right"])
    counts = scoring.confusion(found.posture, truth["posture"])
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert "blanket" not in scoring.hits(scoring.Found(found.posture, None), truth)


def test_an_interval_resamples_people_not_images():
    unit = np.repeat(list("abcd"), 50)
    values = 100.0 * np.isin(unit, ["a", "b"])
    mean, low, high = scoring.resampled(values, unit, seed=0)
    assert (mean, low, high) == (50, 0, 100)  # all four alike: one draw in eight
    alone = scoring.resampled(values, np.arange(200), seed=0)
    assert alone.mean == 50
    assert 40 < alone.low < 46
    assert str(scoring.resampled(np.full(4, np.nan), unit[:4], seed=0)) == "–"


def test_few_people_are_no_sample():
    data = images("abcd")
    assert scoring.sampling_units(images("abcde"), np.arange(40))[0] == "people"
    assert scoring.sampling_units(data, np.arange(32))[0] == "images"
    data = dataclasses.replace(data, recording=np.repeat([f"r{i}" for i in range(8)], 4))
    assert scoring.sampling_units(data, np.arange(32))[0] == "recordings"


def test_an_interval_over_seeds_is_students():
    mean, low, high = scoring.over_seeds([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == mean - low == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert str(scoring.over_seeds([1.5])) == "1.50"


def judged(gains, others=0.0):
    """Claims by id, for gains in points of multi_task over resnet, one per seed."""
    scores = {
        "resnet": [{"posture": 80.0} for _ in gains],
        "multi_task": [{"posture": 80.0 + gain} for gain in gains],
    }
    return {c.id: c for c in claims(scores, about="simulated images", weights={})}


def test_a_gain_needs_three_seeds_and_an_interval_above_zero():
    assert judged([2.0, 2.2, 2.4])["sleep.gain.mtl"].verdict == "reproduced"
    assert judged([2.0, 0.1, 4.0])["sleep.gain.mtl"].verdict == "not reproduced"
    assert judged([2.0, 2.2])["sleep.gain.mtl"].verdict == "not comparable"
    assert judged([2.0])["sleep.acc.resnet"].verdict == "not comparable"
    assert judged([2.0])["sleep.acc.resnet"].ours == 80
    assert "sleep.gain.cbam" not in judged([2.0])


@pytest.mark.parametrize(
    ("means", "seeds", "verdict", "ours"),
    [
        ((70, 75, 72), 3, "reproduced", 0.5),
        ((76, 75, 72), 3, "not reproduced", 0.1),
        ((70, 75, 72), 2, "not comparable", 0.5),
    ],
)
def test_the_best_weight_must_be_ahead_of_every_other(means, seeds, verdict, ours):
    weights = {"dl_w0.1": 0.1, "dl_w0.5": 0.5, "dl_w1": 1.0}
    scores = {
        label: [{"posture": mean + 0.1 * seed, "blanket": 90.0} for seed in range(seeds)]
        for label, mean in zip(weights, means, strict=True)
    }
    (claim,) = claims(scores, about="simulated images", weights=weights)
    assert (claim.id, claim.verdict, claim.ours) == ("sleep.weight.best", verdict, ours)


def test_one_image_of_every_kind_is_drawn():
    posture, blanket = np.array([3, 0, 0, 3, 0]), np.array([0, 0, 1, 0, 0])
    assert one_of_each(posture, blanket).tolist() == [2, 1, 0]


@pytest.mark.parametrize("arm", ["dl", "multi_task", "resnet"])
def test_grad_cam_is_the_last_layers_own_map(arm, rng):
    """Behind the last stage only a mean and a linear layer follow, whose gradient is known."""
    network = network_of(config(width=2), arm)
    x = jnp.asarray(rng.normal(size=(3, 32, 32, 1)), jnp.float32)
    variables, _ = initial_variables(network, (32, 32), jax.random.key(1), None)
    at = feature_map_of(network, 224)
    posture = jnp.asarray([2, 0, 3])
    heat = grad_cam(network, variables, x, posture, at=at)

    _, kept = network.apply(variables, x, train=False, capture_intermediates=True)
    features = kept["intermediates"]
    dense = variables["params"]
    for name in at:
        features = features[name]
    features = np.asarray(features["__call__"][0], np.float64)
    dense = dense["network"]["fc"] if arm == "resnet" else dense["posture"]["fc"]
    weights = np.asarray(dense["kernel"], np.float64)[:, np.asarray(posture)].T
    want = np.maximum(np.einsum("nhwc,nc->nhw", features, weights), 0)
    want /= np.maximum(want.max(axis=(1, 2), keepdims=True), 1e-30)
    np.testing.assert_allclose(heat, want, atol=1e-4)


@pytest.mark.parametrize(
    ("arm", "rows", "at"),
    [
        ("dl", 224, "posture/cbam"),
        ("dl", 96, "posture/layer3"),
        ("dl", 64, "shared/cbam"),
        ("multi_task", 64, "shared/layer2"),
        ("densenet", 224, "network/features"),
        ("densenet", 96, "network/features/denseblock3"),
        ("resnet50", 96, "network/backbone/layer3"),
    ],
)
def test_small_images_are_explained_at_an_earlier_stage(arm, rows, at):
    assert "/".join(feature_map_of(network_of(config(), arm), rows)) == at


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
    assert (report["data"]["train"], report["data"]["test"]) == (40, 8)
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["timing"]["train_step_ms"]["n"] == 2 * 4
    assert report["models"]["multi_task_published"]["params"] == 21_666_245
    assert report["models"]["multi_task_published"]["macs_nominal"] == 2_556_971_520
    assert report["models"]["resnet_published"]["params"] == 11_172_292
    assert len(report["claims"]) == 11
    assert {claim["verdict"] for claim in report["claims"]} == {"not comparable"}
    for who in ("multi_task", "resnet", "majority", "nearest"):
        for posture in POSTURES:
            assert 0 <= report["results"][f"{who}/{posture}_pct"] <= 100
        assert (f"{who}/blanket_pct" in report["results"]) == (who != "resnet")
    text = (workdir / "report.md").read_text()
    assert "smaller than the paper's" in text
    for name in ("examples", "scores", "accuracy_cost", "confusion", "attention", "curves"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"figures/{name}.png" in text


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped_and_finds_the_same(
    finished, tmp_path, monkeypatch
):
    """Stopped half way through the second arm: the first is not trained again."""
    kept = []

    def save(self, state):
        real_save(self, state)
        kept.append(int(state.step))
        if kept == [1, 2, 3, 4, 1, 2]:
            raise KeyboardInterrupt

    real_save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        study.run(config(**TINY, workdir=tmp_path / "run"))
    assert not (tmp_path / "run" / "report.json").exists()
    told = {}
    monkeypatch.setattr(study.sleep_posture_report, "write", lambda *a: told.update(trainer=a[4]))
    study.run(config(**TINY, workdir=tmp_path / "run", resume=True))
    assert len(told["trainer"].clock.step_ms) == 2
    assert kept == [1, 2, 3, 4, 1, 2, 3, 4]
    whole, resumed = (read_metrics(folder) for folder in (finished[0], tmp_path / "run"))
    assert resumed == whole


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "sleep_video"], "data_prep.sleep_video"),
        (["--data", "slp", "--data-dir", "nowhere"], "data_prep.slp"),
        (["--preset", "paper", "--simulated", "2", "4"], "resnet18-f37072fd"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_no_folder(tmp_path, arguments, told):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.sleep_posture",
            "--workdir",
            tmp_path / "run",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run").exists()
