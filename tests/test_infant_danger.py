"""The infant danger monitor's experiment: its parts, and all of it with networks of no width."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.experimental.compilation_cache import compilation_cache

from experiments import infant_danger_data as data
from experiments import infant_danger_evaluate as evaluate
from experiments import infant_danger_events as events
from experiments import infant_danger_networks as networks
from experiments import infant_danger_report as reporting
from experiments import infant_danger_scores as scoring
from experiments import infant_danger_soak as soaking
from experiments import infant_danger_stream as stream
from experiments import infant_danger_study as study
from experiments import infant_danger_videos as videos
from experiments import infant_danger_watch as watching
from experiments.infant_danger import PRESETS, Config, check, resolved
from jaxbed.codecs import boxes
from jaxbed.data.crib import FACES, POSTURES, UNKNOWN, Episode
from jaxbed.data.infant_danger import NamedImages
from jaxbed.data.prepared_infant_danger import write_named_images
from jaxbed.errors import InputError
from jaxbed.machine import OPEN
from jaxbed.models.retinaface import RetinaFace
from jaxbed.monitor.events import read_events
from jaxbed.monitor.rules import DANGERS, Rule
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.logs import read_metrics
from jaxbed.weights.state_dict import read_state_dict, write_state_dict

ROOT = Path(__file__).parent.parent
TINY = {
    "preset": "smoke",
    "simulated": (3, 12),
    "image_size": (48, 64),
    "width": 2,
    "batch_size": 4,
    "steps": 3,
    "detector_steps": 3,
    "video_s": 6.0,
    "frame_hz": 4.0,
}


def config(**settings) -> Config:
    return resolved(Config(**settings))


# configuration


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fills_every_open_field(preset):
    given = {"weights": Path("resnet50.safetensors")} if preset == "paper" else {}
    full = config(preset=preset, **given)
    unset = {f.name for f in dataclasses.fields(full) if getattr(full, f.name) is None}
    assert unset - {"weights"} == {
        *("data_dir", "wider_dir", "detector_weights"),
        *OPEN,
    }
    check(full)


def test_the_detector_follows_its_weights():
    assert (config().detector, config().detector_size) == ("slim", (144, 192))
    published = config(detector_weights=Path("mobilenet0.25_Final.pth"))
    assert (published.detector, published.detector_size) == ("edge", (240, 320))
    assert config(detector="ssd300", detector_size=(120, 160)).detector_size == (120, 160)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"data": "prepared"}, "--data prepared needs --data-dir.*data_prep.infant_danger"),
        ({"image_size": (24, 96)}, "--image-size is 24 96"),
        ({"face_size": (32, 48)}, "--face-size is 32 48"),
        ({"steps": 0}, "--steps is 0"),
        ({"videos": 0}, "--videos is 0"),
        ({"video_s": math.nan}, "--video-s is nan"),
        ({"learning_rate": -1.0}, "--learning-rate is -1"),
        ({"score_threshold": 1.0}, "--score-threshold is 1"),
        ({"angles_deg": ()}, "--angles-deg"),
        ({"simulated": (1, 12)}, "--simulated is 1 12"),
        ({"rehearsals": -1}, "--rehearsals is -1"),
        ({"views": ()}, "--views names no camera"),
        ({"detector": "ssd300", "detector_weights": Path("x.pth")}, "--detector is ssd300"),
        ({"detector_weights": Path("x"), "wider_dir": Path("y")}, "exclude each other"),
        ({"init": "imagenet"}, "--classifier resnet50"),
        ({"weights": Path("resnet50.pth")}, "--init imagenet"),
    ],
)
def test_bad_configuration_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        check(config(**settings))


def test_rules_follow_the_flags():
    usual = watching.Alerting().rules()
    assert [(rule.kind, rule.delay_s) for rule in usual] == [
        (rule.kind, rule.delay_s) for rule in DANGERS
    ]
    asked = watching.Alerting(delay_s=6.0, enter=0.9, missing_face="covered").rules()
    assert [(r.kind, r.delay_s, r.enter) for r in asked] == [
        (rule.kind, 6.0, 0.9) for rule in DANGERS
    ]
    assert asked[0].explanation.endswith("lies on its back without one")


# data


def named(people="abcdef", classes=FACES, name="some"):
    count = len(people) * len(classes)
    return NamedImages(
        name=name,
        classes=classes,
        image=np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8),
        label=np.tile(np.arange(len(classes), dtype=np.int32), len(people)),
        box_px=np.tile(np.float32([0, 0, 32, 32]), (count, 1)),
        subject=np.repeat(list(people), len(classes)),
    )


def test_nobody_is_on_both_sides_unless_the_papers_protocol_says_so():
    images = named()
    own = data.divide(images.subject, "some", config())
    assert sorted(set(images.subject[own.test])) == ["f"] and not own.subjects_shared
    assert data.divide(images.subject, "some", config(protocol="paper")).subjects_shared
    with pytest.raises(InputError, match="split by subject is impossible.*'a'"):
        data.divide(named("a").subject, "some", config())


def test_a_class_that_nobody_shows_is_refused():
    images = named()
    images.label[images.label == 2] = 0
    with pytest.raises(InputError, match="no training image of the face is occluded"):
        data._side("face", images, config())


def test_own_images_and_simulated_faces_can_be_mixed(tmp_path, monkeypatch):
    for name, classes in (("infant_faces", FACES), ("infant_postures", POSTURES)):
        write_named_images(named(classes=classes, name=name), tmp_path, frames_read=18)
    asked = config(**TINY | {"data": "prepared", "data_dir": tmp_path})
    sides = data.load(asked)
    assert [sides[n].simulated for n in ("detector", "face", "posture")] == [True, False, False]
    # A cut-out face has its margin already: with it, it is the whole image again.
    side = sides["face"].train["box_px"][0]
    np.testing.assert_allclose(side, [16 - 16 / 1.3] * 2 + [16 + 16 / 1.3] * 2, rtol=1e-6)
    with pytest.raises(InputError, match="data_prep.infant_danger"):
        data.load(dataclasses.replace(asked, data_dir=tmp_path / "nowhere"))


def test_simulated_infants_do_not_depend_on_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(data, "_BLOCK", 2)
    asked = config(**TINY | {"simulated": (3, 2)})
    monkeypatch.setattr(data, "usable_cores", lambda: 1)
    images = data.simulate(asked)
    assert images.subject.tolist() == ["sim-000"] * 2 + ["sim-001"] * 2 + ["sim-002"] * 2
    more = data.simulate(dataclasses.replace(asked, simulated=(4, 2)))
    np.testing.assert_array_equal(more.image[:4], images.image[:4])


def test_a_rehearsal_shows_everything_before_one_camera():
    asked = config(**TINY | {"simulated": (2, 1), "rehearsals": 1})
    images = data.simulate(asked)
    assert images.subject.tolist() == ["sim-000", "sim-001"] + 24 * ["sim-000"] + 24 * ["sim-001"]
    seen = images.subject == "sim-001"
    assert set(images.posture[seen]) == {0, 1, 2, 3} and set(images.light[seen]) == {0, 1}
    assert {0, 1, 2} & set(images.face[seen]) and len(set(images.view[seen][1:])) == 1
    assert np.isnan(images.face_box[images.face == UNKNOWN]).all()


def test_ssd_gets_images_and_faces_squeezed():
    recipe = networks.recipe_of(config(detector="light_ssd"))
    arrays = {
        "image": np.zeros((2, 150, 200, 3), np.uint8),
        "boxes_px": np.tile(np.float32([20, 30, 40, 60]), (2, 1, 1)),
        "landmarks_px": np.full((2, 1, 5, 2), 10, np.float32),
    }
    seen = study.shown("detector", arrays, recipe)
    assert seen["image"].shape == (2, 300, 300, 3)
    np.testing.assert_allclose(seen["boxes_px"][0, 0], [30, 60, 60, 120])
    np.testing.assert_allclose(seen["landmarks_px"][0, 0, 0], [15, 20])
    assert study.shown("face", arrays, recipe) is arrays


# networks on disk


def drawn_at_once(network, key, example):
    """Returns variables of the right shapes without compiling what would draw them."""
    shapes = dict(jax.eval_shape(partial(network.init, train=False), key, example))
    rng = np.random.default_rng(0)
    shapes["params"] = jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), shapes["params"]
    )
    shapes["batch_stats"] = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes["batch_stats"]
    )
    return shapes


def drawn(recipe):
    return {
        name: drawn_at_once(recipe.network(name), jax.random.key(0), recipe.example(name))
        for name in networks.NAMES
    }


@pytest.fixture(scope="module")
def recipe():
    return networks.recipe_of(config(**TINY))


@pytest.fixture(scope="module")
def run_folder(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    networks.save(folder, recipe, drawn(recipe))
    return folder


def test_networks_come_back_as_they_were_saved(recipe, run_folder):
    variables, read = networks.load(run_folder, detector_size=(96, 128), angles_deg=None)
    assert read == dataclasses.replace(recipe, detector_size=(96, 128))
    jax.tree.map(np.testing.assert_array_equal, variables, drawn(recipe))


@pytest.mark.parametrize("broken", ["absent", "recipe", "network", "tensor", "nan", "detector"])
def test_a_run_that_does_not_fit_together_is_refused(recipe, run_folder, tmp_path, broken):
    for path in run_folder.rglob("*.*"):
        target = tmp_path / path.relative_to(run_folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    weights, says = tmp_path / "weights" / "face.safetensors", tmp_path / "monitor.json"
    tensors = dict(read_state_dict(weights))
    told = str(weights)
    if broken == "absent":
        says.unlink()
        told = "holds no monitor.json"
    elif broken in ("recipe", "detector"):
        content = json.loads(says.read_text())
        says.write_text(
            '{"detector": 1' if broken == "recipe" else json.dumps(content | {"detector": "x"})
        )
        told = "does not say what the run's networks are"
    elif broken == "network":
        says.write_text(says.read_text().replace('"width": 2', '"width": 3'))
    elif broken == "tensor":
        tensors.pop(next(iter(tensors)))
    else:
        name = next(iter(tensors))
        tensors[name] = np.full_like(tensors[name], np.nan)
    if broken in ("tensor", "nan"):
        write_state_dict(weights, tensors)
    with pytest.raises(InputError, match=told):
        networks.load(tmp_path)


def test_published_detector_weights_load_strictly(raw_data, tmp_path):
    asked = config(detector_weights=raw_data / "weights/retinaface_mobilenet0.25_Final.safetensors")
    variables = networks.published_detector(asked.detector_weights, networks.recipe_of(asked))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 426_608
    slim = networks.recipe_of(config())
    with pytest.raises(InputError, match="does not fit the network"):
        networks.published_detector(asked.detector_weights, slim)


@pytest.mark.parametrize("kind", networks.DETECTORS)
def test_every_detector_has_a_pipeline(kind, recipe):
    made = dataclasses.replace(recipe, detector=kind).pipeline()
    assert made.network_size == (300, 300) if "ssd" in kind else made.network_size is None
    neutral = jnp.float32(made.neutral_rgb).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(made.detector_input(neutral), 0, atol=1e-5)


# scores


def test_a_face_is_found_once():
    faces = np.float32([[0, 0, 10, 10], [20, 0, 30, 10]])
    found = (
        np.float32([[0, 0, 10, 9], [1, 0, 10, 10], [21, 0, 30, 10], [50, 50, 60, 60]]),
        np.float32([0.9, 0.8, 0.6, 0.55]),
    )
    got = scoring.score_boxes([found], [faces], np.array(["a"]), threshold=0.7, seed=0)
    assert (got.recall.mean, got.precision) == (50, 50)
    low = scoring.score_boxes([found], [faces], np.array(["a"]), threshold=0.5, seed=0)
    assert (low.recall.mean, low.precision) == (100, 50)
    # Precision 1 up to half of the faces, then 2 of 3.
    assert low.average_precision == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
    nothing = scoring.score_boxes(
        [(np.zeros((0, 4)), np.zeros(0))], [faces[:0]], np.array(["a"]), threshold=0.5, seed=0
    )
    assert math.isnan(nothing.recall.mean) and math.isnan(nothing.precision)


# alerts beside the truth

RULES = (Rule("stomach", "high", "on the stomach"), Rule("occluded", "high", "covered"))


def event(kind, raised_s, end_s=None, onset_s=None):
    return {"kind": kind, "raised_s": raised_s, "end_s": end_s, "onset_s": onset_s or raised_s}


def judged(episodes, alerts, seconds=100.0):
    return events.compare("a film", episodes, alerts, rules=RULES, frame_hz=10.0, seconds=seconds)


def test_an_episode_is_answered_by_an_event_of_its_kind():
    film = judged(
        [Episode("stomach", 10, 30), Episode("stomach", 50, 60)],
        [event("stomach", 13.5, 31), event("occluded", 52, 55)],
    )
    assert film.sensitivity() == (1, 2) and film.sensitivity("occluded") == (0, 0)
    assert film.delays_s().tolist() == [3.5]
    assert [(a.kind, a.raised_s) for a in film.false_alarms] == [("occluded", 52)]
    assert film.hours == pytest.approx(100 / 3600)


def test_short_episodes_are_not_due_but_no_false_alarm_either():
    short = judged([Episode("stomach", 10, 13.3)], [event("stomach", 13.2, 14)])
    assert short.sensitivity() == (0, 0) and not short.false_alarms
    due = judged([Episode("stomach", 10, 13.4)], [])
    assert due.sensitivity() == (0, 1)
    cut = judged([Episode("stomach", 97, 120)], [])
    assert cut.sensitivity() == (0, 0)


def test_an_event_before_its_episode_is_a_false_alarm_too():
    early = judged([Episode("stomach", 10, 30)], [event("stomach", 5, 31)])
    assert early.sensitivity() == (1, 1) and early.delays_s().tolist() == [0]
    assert len(early.false_alarms) == 1
    assert not judged([Episode("stomach", 10, 30)], [event("stomach", 9.5, 31)]).false_alarms


def test_several_events_of_an_episode_are_counted():
    flickers = judged(
        [Episode("stomach", 10, 60)], [event("stomach", 14, 20), event("stomach", 40, None)]
    )
    assert flickers.answers[0].events == 2 and flickers.sensitivity() == (1, 1)


def test_onset_and_end_of_an_event_are_put_together():
    lines = [
        {"id": 1, "what": "onset", "kind": "occluded", "raised_s": 30.0, "end_s": None},
        {"id": 1, "what": "end", "kind": "occluded", "raised_s": 30.0, "end_s": 40.0},
        {"id": 2, "what": "onset", "kind": "stale", "raised_s": 50.0, "end_s": None},
    ]
    found = events.events_of(lines)
    assert [(e["kind"], e["end_s"]) for e in found] == [("occluded", 40.0), ("stale", None)]
    film = judged([Episode("occluded", 10, 45)], found)
    assert film.sensitivity() == (1, 1) and not film.false_alarms and film.stale == 1


def test_intervals_are_the_exact_ones():
    assert events.share_interval(9, 10) == pytest.approx((0.5550, 0.9975), abs=1e-4)
    assert events.share_interval(0, 5)[0] == 0 and events.share_interval(5, 5)[1] == 1
    assert all(map(math.isnan, events.share_interval(0, 0)))
    assert events.rate_interval(0, 2.0) == pytest.approx((0, 3.6889 / 2), abs=1e-3)
    assert events.rate_interval(3, 1.0) == pytest.approx((0.6187, 8.7673), abs=1e-3)


def test_films_are_added_up():
    both = events.together(
        [judged([Episode("stomach", 10, 30)], []), judged([], [event("stomach", 5, 6)])]
    )
    assert both.sensitivity() == (0, 1) and len(both.false_alarms) == 1
    assert both.hours == pytest.approx(200 / 3600)


# all of it


class Shallow(nn.Module):
    """Features of strides 8, 16 and 32 by few layers: what a detector takes to compile quickly."""

    axis_name: str | None = None
    dtype: str | None = None
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.max_pool(x, (4, 4), (4, 4), "SAME")
        features = {}
        for i in range(3):
            x = features[f"stage{i}"] = nn.relu(nn.Conv(4, (3, 3), (2, 2), name=f"conv{i}")(x))
        return features


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, of which the tests below keep parts."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    shallow = networks.DetectorKind(partial(RetinaFace, Shallow, 8), boxes.RETINAFACE_EDGE)
    with pytest.MonkeyPatch.context() as patch, compiled_once(tmp_path_factory.mktemp("programs")):
        patch.setitem(networks.DETECTORS, "shallow", shallow)
        patch.setattr(study, "initialise", drawn_at_once)
        patch.setattr(reporting, "_ROUNDS", 2)
        patch.setattr(reporting, "_CAMERA", TINY["image_size"])
        asked = config(**TINY, detector="shallow", workdir=workdir)
        yield asked, study.run(asked)


@contextlib.contextmanager
def compiled_once(folder):
    """Keeps programs in a folder, for when the same ones are wanted again."""
    changes = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for name, value in changes.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.slow
def test_the_whole_study_leaves_a_complete_report(finished):
    workdir, path = finished[0].workdir, finished[1]
    assert path == workdir / "report.md"
    report = json.loads((workdir / "report.json").read_text())
    assert report["finished"] and not report["data"]["subjects_shared"]
    assert (report["data"]["train"], report["data"]["test"]) == (24, 12)
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["timing"]["train_step_ms"]["n"] == 3 * 3
    assert {claim["id"] for claim in report["claims"]} == {
        *("infant.ssd.time", "infant.retinaface.acc"),
        *("infant.occlusion.acc", "infant.posture.acc"),
    }
    assert {claim["verdict"] for claim in report["claims"]} == {"not comparable"}
    results = report["results"]
    for name, classes in (("face", FACES), ("posture", POSTURES)):
        assert 0 <= results[f"{name}/accuracy_pct"] <= 100
        assert all(f"{name}/{of}_pct" in results for of in classes)
    assert 0 <= results["detector/average_precision_pct"] <= 100
    assert results["monitor/frames"] == 24 and results["monitor/hours"] == pytest.approx(6 / 3600)
    text = path.read_text()
    assert "no medical device" in text and "The data are simulated" in text
    for name in ("films", "faces", "confusion_face", "confusion_posture", "curves"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"figures/{name}.png" in text


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    """Killed in the last classifier, after step 2: the others are not trained again."""
    run = tmp_path / "run"
    shutil.copytree(finished[0].workdir, run, ignore=shutil.ignore_patterns("films", "lock"))
    for kept in ("last/3", "best/3"):
        shutil.rmtree(run / "checkpoints" / "posture" / kept, ignore_errors=True)
    (run / "metrics.jsonl").write_text(
        "".join((run / "metrics.jsonl").read_text().splitlines(keepends=True)[:-1])
    )
    saved = []

    def save(self, state):
        real_save(self, state)
        saved.append(int(state.step))

    real_save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(study, "film", lambda *a, **k: None)
    monkeypatch.setattr(study, "watch_all", lambda *a, **k: None)
    monkeypatch.setattr(study.infant_danger_report, "write", lambda *a: None)
    study.run(dataclasses.replace(finished[0], workdir=run, resume=True))
    assert saved == [3]
    assert read_metrics(run) == read_metrics(finished[0].workdir)
    for name in networks.NAMES:
        weights = Path("weights") / f"{name}.safetensors"
        assert (run / weights).read_bytes() == (finished[0].workdir / weights).read_bytes()


@pytest.mark.slow
def test_films_of_ones_own_are_evaluated(finished, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    path = folder / "night.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(30):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    path.with_suffix(".episodes.csv").write_text("kind,onset_s,end_s\nstomach,0.5,2.9\n")
    asked = evaluate.Config(from_run=finished[0].workdir, videos=folder, out=tmp_path / "out")
    out = videos.evaluate(asked)
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert out.name == "evaluation.md" and told["monitor/frames"] == 30
    assert "Alerts beside the script" in out.read_text()


@pytest.mark.slow
def test_a_long_stream_is_measured(finished, tmp_path):
    asked = soaking.Config(
        from_run=finished[0].workdir,
        minutes=0.1,
        frame_size=(48, 64),
        pace="fast",
        out=tmp_path / "soak",
    )
    out = stream.soak(asked)
    told = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert told["frames"] == 60 and told["frames_dropped"] == 0
    assert len(told["rss_mib"]) == 31 and told["rss_mib_end"] > 0
    assert 0 < told["latency_ms_p50"] <= told["latency_ms_p95"] <= told["latency_ms_most"]
    assert "Detector shallow at 48x64" in out.read_text()


@pytest.mark.slow
def test_watch_tells_events_and_writes_no_image_without_frames(run_folder, tmp_path):
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 4.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(24):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    here = tmp_path / "here"
    here.mkdir()
    log = here / "events.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.infant_danger", "watch", film),
            *("--from-run", run_folder, "--pace", "fast", "--no-frames", "--events", log),
            *("--enter", "1e-6", "--exit", "0", "--delay-s", "0"),
        ],
        cwd=here,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "24 frames judged" in done.stdout and "latency" in done.stdout
    assert {"stomach", "standing"} <= {line["kind"] for line in read_events(log)}
    assert [path.name for path in here.iterdir()] == ["events.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "prepared"], "data_prep.infant_danger"),
        (["--detector-weights", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
        (["watch"], "watch needs a source"),
        (["watch", "nowhere.mp4", "--from-run", "nowhere"], "holds no monitor.json"),
        (["evaluate", "--from-run", "nowhere"], "--videos"),
        (["soak", "--minutes", "0"], "--minutes is 0"),
        (["evaluate", "--videos", "nowhere", "--from-run", "x"], "is not a folder"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_no_folder(tmp_path, arguments, told):
    first = [] if arguments[0] in ("watch", "evaluate", "soak") else ["--workdir", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.infant_danger", *arguments, *first],
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


@pytest.mark.parametrize("word", ["watch", "evaluate"])
def test_help_of_the_other_commands_is_quick(word):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', {word!r}, '--help']\n"
        "try:\n"
        "    runpy.run_module('experiments.infant_danger', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "assert 'jax' not in sys.modules, 'imports jax'\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert "--from-run" in told.stdout and "--missing-face" in told.stdout
