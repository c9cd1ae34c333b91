"""The training core: equal on one device and many, exact on resume, honest on failure."""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxbed.errors import DivergedError, InputError
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.logs import MetricLog, read_metrics
from jaxbed.training.state import start
from jaxbed.training.step import Devices, Execution
from tests import tiny


def flat(state):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])


def trained(workdir, steps=8, **options):
    run = tiny.trainer(workdir, **options)
    phase = tiny.phase(steps, axis_name=run.devices.axis_name)
    state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
    run.close()
    return run, state


def test_loss_falls(tmp_path):
    trained(tmp_path, 60)
    losses = [x["loss"] for x in read_metrics(tmp_path) if x["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_devices_give_what_one_gives(tmp_path, parallel):
    _, one = trained(tmp_path / "one", devices=jax.devices()[:1])
    _, two = trained(tmp_path / "two", devices=jax.devices()[:2], parallel=parallel)
    np.testing.assert_allclose(flat(two), flat(one), rtol=1e-5, atol=1e-6)


def test_pmap_without_shared_statistics_differs(tmp_path):
    """The equality above would be worth little if it held for any normalisation."""
    _, one = trained(tmp_path / "one", devices=jax.devices()[:1])
    run = tiny.trainer(tmp_path / "local", parallel="pmap")
    phase = tiny.phase(axis_name=None)
    local = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
    assert np.abs(flat(local.batch_stats) - flat(one.batch_stats)).max() > 1e-3


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_several_steps_at_once_give_what_single_ones_give(tmp_path, parallel):
    """11 steps, an account every 4: dispatches of 3, 1, 3, 1, 3 steps."""
    every = {"log_every": 4, "eval_every": 8, "save_every": 4, "parallel": parallel}
    _, single = trained(tmp_path / "single", 11, **every)
    run, several = trained(
        tmp_path / "several", 11, execution=Execution(steps_per_dispatch=3), **every
    )
    assert run._dispatches(0, 11) == [(0, 3), (3, 1), (4, 3), (7, 1), (8, 3)]
    np.testing.assert_allclose(flat(several), flat(single), rtol=1e-5, atol=1e-7)
    assert run.recompiles_after_first == 0
    assert run.clock.step_summary()["n"] == 11
    told = [[x["loss"] for x in read_metrics(tmp_path / name)] for name in ("several", "single")]
    assert told[0] == pytest.approx(told[1], rel=1e-4)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("execution", [Execution(micro_batches=2), Execution(remat=True)])
def test_parts_of_a_batch_and_recomputing_change_nothing(tmp_path, parallel, execution):
    def after(name, execution):
        run = tiny.trainer(tmp_path / name, parallel=parallel, execution=execution)
        phase = tiny.phase(6)
        phase = dataclasses.replace(phase, network=tiny.TinyNet(norm=False))
        state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
        return flat(state)

    plain, other = after("plain", None), after("other", execution)
    np.testing.assert_allclose(other, plain, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_are_normalised_by_themselves():
    """Oracle: the mean of the gradients of both halves, each taken by itself."""
    phase = tiny.phase()
    batch = {**tiny.examples(4), "index": np.arange(4, dtype=np.int32)}
    steps = {
        name: Devices("jit", jax.devices()[:1], execution).train_step(
            phase.network, phase.task, optax.identity()
        )
        for name, execution in {"whole": None, "parts": Execution(micro_batches=2)}.items()
    }

    def moved(step, batch):
        state = start(tiny.variables(phase), optax.identity())
        return step(state, batch, jax.random.key(0), 1.0)[0]

    halves = [{k: v[i::2] for k, v in batch.items()} for i in range(2)]
    means = np.mean([flat(moved(steps["whole"], half).params) for half in halves], axis=0)
    parts = moved(steps["parts"], batch)
    np.testing.assert_allclose(flat(parts.params), means, rtol=1e-5, atol=1e-7)
    whole = moved(steps["whole"], batch)
    assert np.abs(flat(whole.params) - flat(parts.params)).max() > 1e-4


def test_resuming_gives_the_uninterrupted_run_bit_for_bit(tmp_path):
    _, whole = trained(tmp_path / "whole", 8)
    trained(tmp_path / "parts", 4)
    hashes = tmp_path / "parts" / "parameters.json"
    early = hashes.read_text()
    _, resumed = trained(tmp_path / "parts", 8, resume=True)
    assert flat(resumed).tobytes() == flat(whole).tobytes()
    assert hashes.read_text() == (tmp_path / "whole" / "parameters.json").read_text() != early
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")


def test_resuming_a_finished_run_trains_nothing(tmp_path):
    _, done = trained(tmp_path)
    run, again = trained(tmp_path, resume=True)
    assert run.clock.step_ms == []
    assert flat(again).tobytes() == flat(done).tobytes()


def worker(workdir):
    """Starts a process that trains the tiny network, resuming."""
    script = Path(__file__).with_name("train_tiny.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(workdir)],
        env={**os.environ, "PYTHONPATH": str(script.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_stopped_or_killed_run_resumes_to_the_same_parameters(tmp_path):
    """SIGTERM, then kill -9 at random moments, some while a checkpoint is being written."""
    reference = worker(tmp_path / "whole").communicate(timeout=120)[0].split()[-1]
    stopped = worker(tmp_path / "killed")
    for _ in range(4):
        stopped.stdout.readline()
    stopped.terminate()
    _, told = stopped.communicate(timeout=60)
    assert stopped.returncode == 143
    step = int(re.search(r"error: stopped as asked, at step (\d+) of tiny", told)[1])
    assert 4 <= step < 30
    assert max(int(x.name) for x in (tmp_path / "killed/checkpoints/tiny/last").iterdir()) == step
    assert "Traceback" not in told

    moment = random.Random(0)
    killed = 0
    for _ in range(3):
        process = worker(tmp_path / "killed")
        for _ in range(moment.randint(1, 12)):  # a line per training step
            process.stdout.readline()
        time.sleep(moment.uniform(0, 0.05))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed
    assert worker(tmp_path / "killed").communicate(timeout=120)[0].split()[-1] == reference


def test_nothing_is_compiled_after_the_first_step(tmp_path):
    run, _ = trained(tmp_path, 12)
    assert run.recompiles_after_first == 0
    assert run.clock.step_summary()["n"] == 12


def test_every_example_counts_once_in_an_evaluation(tmp_path):
    """Oracle: the network applied to all examples at once; 7 does not divide into batches."""
    run = tiny.trainer(tmp_path)
    phase, seven = tiny.phase(), tiny.examples(7)
    weights = tiny.variables(phase)
    scores = run.evaluate(phase, weights, seven)
    value = np.asarray(phase.network.apply(weights, seven["image"], train=False)["value"])
    assert scores["value"] == pytest.approx(value.mean(), rel=1e-5)
    assert scores["loss"] == pytest.approx(((value - seven["value"]) ** 2).mean(), rel=1e-5)
    predicted = run.predict(phase, weights, seven)["value"]
    np.testing.assert_allclose(predicted, value, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_batch(tmp_path):
    arrays = tiny.examples()
    arrays["value"][5] = np.nan
    run = tiny.trainer(tmp_path)
    phase = tiny.phase(steps=12)
    with pytest.raises(DivergedError, match="not finite at step") as caught:
        run.fit(phase, arrays, tiny.examples(6, 1), lambda: tiny.variables(phase))
    (folder,) = (tmp_path / "diverged").iterdir()
    assert f"python -m jaxbed.replay {folder}" in str(caught.value)
    kept = np.load(folder / "batch.npz")
    assert np.isnan(kept["batch/value"]).sum() == 1
    # The state is the one before that step, not the NaN that came of it.
    state = np.load(folder / "state.npz")
    assert all(np.isfinite(state[name]).all() for name in state.files)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    trained(tmp_path)
    run = tiny.trainer(tmp_path, resume=True)
    other = tiny.phase(features=5)
    with pytest.raises(
        InputError, match=r"another network: .*float32.4. in the checkpoint and float32.5."
    ):
        run.fit(other, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(other))


def test_a_full_disk_is_told_in_one_sentence(tmp_path):
    """On a file system of 300 kB; the second checkpoint does not fit."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    worker = Path(__file__).with_name("train_tiny.py")
    try:
        done = subprocess.run(
            [sys.executable, str(worker), str(tmp_path / "run"), "--features", "512"],
            env={**os.environ, "PYTHONPATH": str(worker.parent.parent)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "the disk is full" in done.stderr.splitlines()[-1]


def test_the_best_state_is_the_one_with_the_lowest_watched_loss(tmp_path):
    trained(tmp_path, 8, eval_every=2)
    scores = {x["step"]: x["loss"] for x in read_metrics(tmp_path) if x["kind"] == "eval"}
    phase = tiny.phase()
    like = start(tiny.variables(phase), phase.tx)
    best = Checkpoints(tmp_path / "checkpoints" / "tiny").restore_best(like)
    assert int(best.step) == min(scores, key=scores.get)


def test_half_a_line_at_the_end_of_the_log_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = {"phase": "a", "kind": "train", "step": 1, "loss": 2.0}
    path.write_text(json.dumps(whole) + "\n" + '{"phase": "a", "ki')
    log = MetricLog(tmp_path)
    log.write("a", "train", 2, {"loss": 1.0})
    log.close()
    assert [x["step"] for x in read_metrics(tmp_path)] == [1, 2]


def test_what_a_network_drops_depends_on_seed_and_step_alone():
    class Dropping(nn.Module):
        """Looks at a random half of the image."""

        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            return {"value": nn.Dense(1)(x)[:, 0]}

    steady = dataclasses.replace(tiny.phase(), network=Dropping())
    batch = {**tiny.examples(4), "index": np.arange(4, dtype=np.int32)}
    state = start(tiny.variables(steady), steady.tx)
    step = Devices("jit", jax.devices()[:1]).train_step(steady.network, steady.task, steady.tx)

    def gradient_norm(seed, at):
        now = jax.tree.map(jnp.array, state).replace(step=jnp.int32(at))
        _, metrics = step(now, batch, jax.random.key(seed), np.float32(0))
        return float(metrics["gradient_norm"])

    assert gradient_norm(0, 3) == gradient_norm(0, 3)
    assert len({gradient_norm(0, 3), gradient_norm(0, 4), gradient_norm(1, 3)}) == 3
