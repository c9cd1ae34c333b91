"""Trains the tiny systems as one process of several, or alone; leaves what came of it as npz.

    python tests/train_tasks.py FOLDER CPU_DEVICES [ADDRESS PROCESSES PROCESS_ID]

FOLDER holds the tiny run to go on with, `start`.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402

from jaxbed import hosts  # noqa: E402
from jaxbed.data.batches import train_batches  # noqa: E402
from jaxbed.errors import InputError, LostProcessError, StoppedError  # noqa: E402
from jaxbed.machine import Training  # noqa: E402
from jaxbed.training.state import parameter_hash, quick_compilation, start  # noqa: E402
from jaxbed.training.step import Devices  # noqa: E402
from tests import tiny, tiny_tasks  # noqa: E402

STEPS = 4
BATCH = 8


def trained(devices: Devices) -> dict[str, np.ndarray]:
    """Takes some steps of every system; returns losses and what was learned, by name."""
    results = {}
    for name, system in tiny_tasks.systems().items():
        network = system.network.clone(axis_name=devices.axis_name)
        jitted = devices.train_step(network, system.task, tiny_tasks.TX)
        batches = train_batches(system.arrays, batch_size=BATCH, seed=3, part=devices.part)
        state = devices.put_state(start(tiny_tasks.variables(system), tiny_tasks.TX))
        key, rate, step = jax.random.key(5), np.float32(0.02), None
        losses = []
        for i in range(STEPS):
            batch = devices.put_batch(batches[i], train=True)
            if step is None:
                step = jitted.lower(state, batch, key, rate).compile(quick_compilation())
            state, metrics = step(state, batch, key, rate)
            losses.append(float(devices.get(metrics["loss"])))
        results[f"{name}/losses"] = np.array(losses)
        for path, leaf in jax.tree_util.tree_leaves_with_path(devices.get(state)):
            results[f"{name}/{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return results


def resumed(workdir: Path, parallel: str, steps: int, devices: list | None = None):
    """Goes on with a tiny run; returns trainer, phase and final state."""
    run = tiny.trainer(workdir, parallel=parallel, resume=True, devices=devices)
    phase = phase_of(run, steps)
    state = run.fit(phase, tiny.examples(), tiny.examples(13, 1), lambda: tiny.variables(phase))
    return run, phase, state


def phase_of(run, steps: int):
    """Describes the tiny training for a number of devices that divides 8."""
    return tiny.phase(steps, axis_name=run.devices.axis_name, batch_size=BATCH)


def refused() -> str:
    """Lets the lead refuse; returns what this process hears."""

    def refuse() -> None:
        raise InputError("the lead refuses")

    try:
        hosts.on_lead("refusing", refuse)
    except InputError as error:
        return str(error)
    return ""


def waited_in_vain() -> str:
    """Lets the lead alone wait; returns what it hears."""
    if not hosts.is_lead():
        return ""
    try:
        hosts.wait("a place of its own", limit_s=0.5)
    except LostProcessError as error:
        return str(error)
    return "nobody was missed"


class Sleepy(list):
    """Sleeps when the fifth step is timed, and then has this process asked to stop."""

    def append(self, value: float) -> None:
        super().append(value)
        if len(self) == 5:
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(workdir: Path) -> str:
    """Trains until process 1, which sleeps meanwhile, was asked to stop."""
    run = tiny.trainer(workdir)
    if hosts.index() == 1:
        run.clock.step_ms = Sleepy()
    phase = phase_of(run, 4000)
    try:
        run.fit(phase, tiny.examples(), tiny.examples(13, 1), lambda: tiny.variables(phase))
    except StoppedError as error:
        return str(error)
    return "not stopped"


def main(folder: Path, cpu_devices: int, *meeting: str) -> None:
    """Trains everything in every way."""
    flags = {}
    if meeting:
        names = ("coordinator", "processes", "process_id")
        flags = dict(zip(names, (meeting[0], int(meeting[1]), int(meeting[2])), strict=True))
        flags |= {"wait_s": 60.0, "stall_s": 0.5}
    Training(device="cpu", cpu_devices=cpu_devices, **flags).configure()
    own = folder / f"process{hosts.index()}"
    if hosts.is_lead():
        own.mkdir()
    results = {}
    for parallel in ("jit", "pmap"):
        found = trained(Devices(parallel))
        results |= {f"{parallel}/{name}": value for name, value in found.items()}
        workdir = own / parallel
        if hosts.is_lead():
            shutil.copytree(folder / "start", workdir)
        else:
            workdir = folder / "nowhere"
        run, phase, state = resumed(workdir, parallel, 6)
        seven = tiny.examples(13, 1)
        results[f"{parallel}/predicted"] = run.predict(phase, state.variables, seven)["value"]
        scores = run.evaluate(phase, state.variables, seven)
        results[f"{parallel}/score"] = np.float32(scores["value"])
        results[f"{parallel}/hash"] = np.array(parameter_hash(state.variables))
    if meeting:
        results["refused"] = np.array(refused())
        results["missed"] = np.array(waited_in_vain())
        results["stopped"] = np.array(stopped(own / "stopped"))
    np.savez(folder / f"results{hosts.index()}.npz", **results)
    run.close()
    print("alone with", run.devices.count, "devices", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
