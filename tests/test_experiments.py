"""Every command end to end: it runs, resumes, reports, and refuses bad input in one sentence."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TINY = ["--preset", "smoke", "--image-size", "32", "32", "--decoder-features", "4", "4", "4", "4"]


def command(*arguments, check=None):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.efd_crwt", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=570,
    )
    if check is not None:
        assert done.returncode == check, done.stderr[-3000:]
    return done


def refused(*arguments):
    """Runs a command that must end with 2; returns its one sentence."""
    done = command(*arguments, check=2)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    done = command(*TINY, "--workdir", workdir, check=0)
    return workdir, done


@pytest.mark.slow
def test_the_last_line_is_the_path_of_the_report(finished):
    workdir, done = finished
    assert Path(done.stdout.splitlines()[-1]) == workdir / "report.md"


@pytest.mark.slow
def test_the_report_has_everything(finished):
    workdir, _ = finished
    report = json.loads((workdir / "report.json").read_text())
    assert report["finished"]
    assert not report["data"]["subjects_shared"]
    assert report["data"]["train"] + report["data"]["test"] == 8 * 24
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["timing"]["train_step_ms"]["n"] == 2 * (3 + 6)
    assert report["models"]["encoder_256x256"]["params"] == 138_400
    assert report["models"]["encoder_256x256"]["macs_nominal"] == 557_096_256
    for who in ("crwt", "plain", "mean_map", "pca128"):
        assert 0 < report["results"][f"{who}/l2"] < 1
    assert 0 < report["results"]["crwt/stage1_fscore"] <= 1
    assert len(report["claims"]) == 21
    text = (workdir / "report.md").read_text()
    for name in ("reconstructions", "curves", "keypoint_spread", "scores"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"figures/{name}.png" in text


@pytest.mark.slow
def test_the_transfer_leaves_nothing_but_the_output_layer_fresh(finished):
    workdir, _ = finished
    crwt = json.loads((workdir / "transfers" / "seed0_crwt.json").read_text())
    assert [x.split()[0] for x in crwt["reshaped"]] == [
        "params/decoder/output/bias",
        "params/decoder/output/kernel",
    ]
    assert crwt["left"] == []
    assert any(x.startswith("batch_stats/encoder") for x in crwt["taken"])
    plain = json.loads((workdir / "transfers" / "seed0_plain.json").read_text())
    assert plain["reshaped"] == plain["left"] == []


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten(finished):
    workdir, _ = finished
    assert "--resume" in refused(*TINY, "--workdir", workdir)
    assert "learning_rate" in refused(
        *TINY, "--workdir", workdir, "--resume", "--learning-rate", "0.1"
    )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_results(finished, tmp_path):
    """kill -9 in the middle of stage 2, then --resume: every figure is the same, to the bit."""
    workdir = tmp_path / "killed"
    arguments = [sys.executable, "-m", "experiments.efd_crwt", *TINY, "--workdir", str(workdir)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stderr=subprocess.DEVNULL
    )
    half_way = workdir / "checkpoints" / "seed0" / "crwt" / "stage2" / "last" / "3"
    deadline = time.monotonic() + 300
    while not half_way.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert half_way.exists()
    assert not (workdir / "report.json").exists()

    command(*TINY, "--workdir", workdir, "--resume", check=0)
    whole, resumed = (
        json.loads((folder / "report.json").read_text())["results"]
        for folder in (finished[0], workdir)
    )
    assert resumed == whole


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--image-size", "48", "64"], "--image-size is 48 64"),
        (["--data", "pmd"], "needs --data-dir"),
        (["--data", "pmd", "--data-dir", "nowhere"], "data_prep.pmd"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--batch-size", "9", "--cpu-devices", "2"], "multiple of the 2 devices"),
        (["--test-subjects", "nobody"], "'nobody'"),
    ],
)
def test_bad_configuration_is_refused_before_training(tmp_path, arguments, told):
    sentence = refused(*TINY, "--workdir", tmp_path / "run", *arguments)
    assert told in sentence
    assert not (tmp_path / "run").exists()


def test_an_unknown_flag_is_refused_with_a_suggestion():
    assert "--batch-size" in refused("--batch-sise", "4")


def test_a_workdir_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(*TINY, "--workdir", tmp_path / "file" / "run")


def test_a_damaged_prepared_set_is_refused(tmp_path):
    home = tmp_path / "data" / "experiment_i" / "1.0.0"
    home.mkdir(parents=True)
    (home / "dataset_info.json").write_text("{")
    sentence = refused(
        *TINY, "--workdir", tmp_path / "run", "--data", "pmd", "--data-dir", tmp_path / "data"
    )
    assert "not a complete prepared set" in sentence


@pytest.mark.slow
def test_one_subject_only_cannot_be_split_by_subject(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i}.csv" for i in range(4)]
    for name in names:
        np.savetxt(raw / name, rng.integers(1, 50, (16, 8)), delimiter=",", fmt="%d")
    rows = "".join(f"{name},me,supine\n" for name in names)
    (raw / "labels.csv").write_text("file,subject,posture\n" + rows)
    mat = {
        "rows": 16,
        "columns": 8,
        "pitch_mm": 50,
        "head": "up",
        "mirrored": False,
        "baseline": 0,
        "saturation": 100,
    }
    (raw / "mat.json").write_text(json.dumps(mat))
    subprocess.run(
        [sys.executable, "-m", "data_prep.mat_folder", "--raw", raw, "--out", tmp_path / "out"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    sentence = refused(
        *TINY, "--workdir", tmp_path / "run", "--data", "mat", "--data-dir", tmp_path / "out"
    )
    assert "a subject on either side" in sentence
