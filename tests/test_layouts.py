"""One device, eight and two processes of two train the same: all systems, jit and pmap."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxbed.training.state import parameter_hash
from jaxbed.training.step import Devices
from tests import tiny, tiny_tasks, train_tasks

SCRIPT = Path(train_tasks.__file__)
PARALLEL = ("jit", "pmap")


def worker(folder, cpu_devices, *meeting):
    arguments = [sys.executable, str(SCRIPT), str(folder), str(cpu_devices), *map(str, meeting)]
    return subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Layout:
    """What the processes of a layout left behind.

    Attributes:
        folder: theirs.
        results: of each, by name.
        told: (stdout, stderr) of each.
    """

    def __init__(self, folder, processes):
        self.folder = folder
        self.told = [process.communicate(timeout=300) for process in processes]
        for process, (_, error) in zip(processes, self.told, strict=True):
            assert process.returncode == 0, error[-3000:]
        self.results = [dict(np.load(folder / f"results{i}.npz")) for i in range(len(processes))]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Four steps of the tiny run on one device."""
    workdir = tmp_path_factory.mktemp("layouts") / "start"
    run = tiny.trainer(workdir, devices=jax.devices()[:1])
    phase = train_tasks.phase_of(run, 4)
    run.fit(phase, tiny.examples(), tiny.examples(13, 1), lambda: tiny.variables(phase))
    run.close()
    return workdir


@pytest.fixture(scope="module")
def layouts(start, tmp_path_factory):
    """All layouts, each with what it has in common with the others."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("eight", "two")}
    for folder in folders.values():
        shutil.copytree(start, folder / "start")
    eight = Layout(folders["eight"], [worker(folders["eight"], 8)])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    two = Layout(folders["two"], [worker(folders["two"], 2, address, 2, i) for i in range(2)])
    return {"eight": eight, "two": two}


@pytest.fixture(scope="module")
def alone():
    """Every system, trained on one device in this process."""
    return train_tasks.trained(Devices("jit", jax.devices()[:1]))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Six and eight steps of the tiny run on one device."""
    run = tiny.trainer(tmp_path_factory.mktemp("whole"), devices=jax.devices()[:1])
    phase = train_tasks.phase_of(run, 6)
    six = run.fit(phase, tiny.examples(), tiny.examples(13, 1), lambda: tiny.variables(phase))
    predicted = run.predict(phase, six.variables, tiny.examples(13, 1))["value"]
    score = run.evaluate(phase, six.variables, tiny.examples(13, 1))["value"]
    run = tiny.trainer(tmp_path_factory.mktemp("longer"), devices=jax.devices()[:1])
    phase = train_tasks.phase_of(run, 8)
    eight = run.fit(phase, tiny.examples(), tiny.examples(13, 1), lambda: tiny.variables(phase))
    return predicted, score, eight


def assert_close(found, wanted, name):
    """Within 1e-5 of the largest number of an array."""
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale + 1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("system", tiny_tasks.systems())
@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("layout", ["eight", "two"])
def test_losses_and_parameters_are_those_of_one_device(layouts, alone, layout, parallel, system):
    # Momentum is left out: it holds gradients, in which every relu that flips can be seen.
    names = [n for n in alone if n.startswith(f"{system}/") and "opt_state" not in n]
    assert any("params" in name for name in names)
    assert any("batch_stats" in name for name in names)
    for results in layouts[layout].results:
        for name in names:
            assert_close(results[f"{parallel}/{name}"], alone[name], name)
    losses = alone[f"{system}/losses"]
    assert len(set(losses)) == train_tasks.STEPS


@pytest.mark.slow
@pytest.mark.parametrize("parallel", PARALLEL)
def test_processes_hold_the_same_bits(layouts, parallel):
    hashes = {str(results[f"{parallel}/hash"]) for results in layouts["two"].results}
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("layout", ["eight", "two"])
def test_a_run_goes_on_anywhere_and_comes_back(layouts, uninterrupted, layout, parallel, tmp_path):
    """Four steps on one device, two on the layout, two on one again: as eight on one."""
    predicted, score, wanted = uninterrupted
    for results in layouts[layout].results:
        assert_close(results[f"{parallel}/predicted"], predicted, "predicted")
        assert float(results[f"{parallel}/score"]) == pytest.approx(score, rel=1e-5)
    workdir = tmp_path / "run"
    shutil.copytree(layouts[layout].folder / "process0" / parallel, workdir)
    run, _, state = train_tasks.resumed(workdir, "jit", 8, jax.devices()[:1])
    assert run.clock.step_summary()["n"] == 2
    for found, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert_close(found, leaf, "resumed")
    assert parameter_hash(state.variables)


@pytest.mark.slow
def test_the_lead_alone_writes_and_reports(layouts):
    two = layouts["two"]
    others = [*two.folder.glob("nowhere/**/*"), *two.folder.glob("process1/**/*")]
    assert [path for path in others if path.is_file()] == []
    assert (two.folder / "process0" / "jit" / "parameters.json").is_file()
    said = [[x for x in out.splitlines() if "Gloo" not in x] for out, _ in two.told]
    assert said == [["alone with 2 devices"], []]


@pytest.mark.slow
def test_what_the_lead_refuses_all_refuse(layouts):
    heard = [str(results["refused"]) for results in layouts["two"].results]
    assert heard == ["the lead refuses"] * 2


@pytest.mark.slow
def test_a_barrier_ends_in_time_and_names_who_did_not_come(layouts):
    told = str(layouts["two"].results[0]["missed"])
    assert told.startswith("process 1 of 2 did not come to 'a place of its own' within 0.5 s")


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_at_the_same_step(layouts):
    heard = {str(results["stopped"]) for results in layouts["two"].results}
    (sentence,) = heard
    assert sentence.startswith("stopped as asked, at step ")
    step = sentence.split("step ")[1].split()[0]
    kept = layouts["two"].folder / "process0" / "stopped" / "checkpoints" / "tiny" / "last"
    assert step in {path.name for path in kept.iterdir()}


@pytest.mark.slow
def test_a_process_that_sleeps_is_told_by_the_lead(layouts):
    told = layouts["two"].told[0][1]
    assert "process 1 made no step for" in told
    assert "and 1 wait for it" in told
