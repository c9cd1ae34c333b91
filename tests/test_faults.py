"""What goes wrong on machines: kills, in the middle of a save too, and clocks that jump."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxbed.training.logs import Progress, read_metrics
from tests import kill_training, tiny

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path):
    outcome = kill_training.measure(3, 4, tmp_path)
    assert sum(outcome.kills.values()) == 3
    assert outcome.equal == outcome.trainings > 0


@pytest.mark.slow
def test_two_deterministic_runs_have_the_same_parameters(tmp_path):
    ends = [
        kill_training._attempt(tmp_path / name, None, "--deterministic", "--cpu-devices", "2")[0]
        for name in ("one", "other")
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 16


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    """Whoever sets the clock while training runs, by days back and forth."""

    def trained(name):
        run, phase = tiny.trainer(tmp_path / name), tiny.phase()
        state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
        run.close()
        return run, b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state))

    _, whole = trained("whole")
    real, jumps = time.time, random.Random(0)
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * jumps.randint(-9, 9))
    begin = time.monotonic()
    run, jumped = trained("jumped")
    elapsed_s = time.monotonic() - begin
    assert jumped == whole
    assert read_metrics(tmp_path / "jumped") == read_metrics(tmp_path / "whole")
    assert all(0 <= x <= 1e3 * elapsed_s for x in run.clock.step_ms)
    assert all(0 <= x <= elapsed_s for x in run.clock.seconds.values())


def test_time_left_is_told_whatever_the_clock_says(monkeypatch, capsys):
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: 1e9 * jumps.random())
    progress = Progress("phase", total=100, every_s=0.0)
    time.sleep(0.05)
    progress.update(50, {"loss": 1.0})
    progress.close()
    told = capsys.readouterr().err
    assert "phase: 50/100 steps" in told
    assert "00:00 left" in told


def test_resume_is_a_flag_that_may_say_auto(tmp_path):
    def resume(*words):
        code = (
            "import sys, tyro; from experiments.efd_crwt import Config; "
            "print(tyro.cli(Config, args=sys.argv[1:]).resume)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.strip() if done.returncode == 0 else done.returncode

    assert resume() == "False"
    assert resume("--resume") == resume("--resume", "auto") == "True"
    assert resume("--resume", "--seed", "3") == resume("--resume", "auto", "--seed", "3") == "True"
    assert resume("--resume", "never") == 2
