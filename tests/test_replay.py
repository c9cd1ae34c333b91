"""What stopped a training is named, from a folder, by another process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SOURCE = (ROOT / "tests" / "train_diverging.py").read_text().splitlines()


def command(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def diverged(workdir, *flags):
    """Trains until it stops; returns what was told, and the folder it names."""
    done = command("tests/train_diverging.py", workdir, *flags)
    assert done.returncode == 1, done.stderr
    told = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    folder = Path(re.search(r"python -m jaxbed.replay (\S+)`", told)[1])
    assert folder.parent == workdir / "diverged"
    assert [x.name for x in folder.parent.iterdir()] == [folder.name], "something was left over"
    return told, folder


def replayed(folder):
    done = command("-m", "jaxbed.replay", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of(comment):
    (number,) = [i for i, line in enumerate(SOURCE, 1) if line.endswith(f"# {comment}")]
    return f"tests/train_diverging.py:{number}"


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--parallel", "pmap"),
        ("--micro-batches", "2"),
        ("--steps-per-dispatch", "3"),
    ],
)
def test_a_division_by_zero_is_named_with_its_line(tmp_path, flags):
    told, folder = diverged(tmp_path, *flags)
    assert "the loss of tiny is not finite at step" in told
    about = json.loads((folder / "about.json").read_text())
    batch = np.load(folder / "batch.npz")
    assert (batch["batch/weight"] == 0).sum() == 1
    assert f"at step {about['step']}" in told
    assert int(np.load(folder / "state.npz")["state/step"]) == about["step"]
    found = replayed(folder)
    assert "The first operation that is not finite: div\n" in found
    assert line_of("the quotient") in found
    assert re.search(r"input: +float32\[\d.*1 of \d are 0", found)
    assert re.search(r"output: +float32\[\d.* with 1 infinite of \d", found)
    assert ("turn" in found) == ("--micro-batches" in flags)


@pytest.mark.parametrize(
    ("place", "metric", "primitive", "comment"),
    [
        ("gradient", "gradient_norm", "", "the root"),
        ("loop", "loss", "div", "in a loop"),
        ("masked", "loss", "log", "in the open"),
    ],
)
def test_the_operation_is_found_wherever_it_stands(tmp_path, place, metric, primitive, comment):
    told, folder = diverged(tmp_path, "--place", place)
    assert f"the {metric} of tiny is not finite" in told
    found = replayed(folder)
    assert f"not finite: {primitive}" in found
    assert line_of(comment) in found
    assert ("turn 2 of" in found) == (place == "loop")


def test_an_input_that_is_not_finite_is_named(tmp_path):
    _, folder = diverged(tmp_path, "--place", "input")
    assert "none, the step was given it: batch/value float32[4] with 1 NaN of 4" in replayed(folder)
    other = tmp_path / "elsewhere"
    folder.rename(other)
    for name in ("about.json", "batch.npz", "state.npz", "operations.json", "programs.npz"):
        whole = (other / name).read_bytes()
        (other / name).write_bytes(whole[: len(whole) // 2])
        done = command("-m", "jaxbed.replay", other)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert str(other) in done.stderr
        (other / name).write_bytes(whole)


@pytest.mark.slow
def test_a_real_system_that_overflows_is_replayed_from_its_folder_alone(tmp_path):
    done = command(
        *("-m", "experiments.preterm_pose", "--workdir", tmp_path / "run", "--preset", "smoke"),
        *("--image-size", 16, 32, "--detection-width", 2, "--widths", 2, 2, 2, 2),
        *("--simulated", 3, 1, 9, "--kinds", "asymmetric", "--batch-size", 2),
        *("--detection-steps", 3, "--regression-steps", 2, "--learning-rate", "1e30"),
    )
    assert done.returncode == 1, done.stderr
    told = done.stderr.splitlines()[-1]
    folder = Path(re.search(r"python -m jaxbed.replay (\S+)`", told)[1])
    about = json.loads((folder / "about.json").read_text())
    assert about["run"]["config"]["learning_rate"] == 1e30
    assert about["phase"] == "detection"
    alone = folder.rename(tmp_path / "alone")
    (tmp_path / "run").rename(tmp_path / "gone")
    found = replayed(alone)
    assert re.search(r"source: .*(jaxbed|experiments)/\S+\.py:\d+", found)
    assert re.search(r"output: .*(NaN|infinite)", found)
