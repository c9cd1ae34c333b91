"""The step at which training met a loss or gradient that is not finite, as a folder of files.

The folder holds the batch and the state that the step took, and the step itself, operation by
operation (jaxbed/training/operations.py), so that `python -m jaxbed.replay` needs neither the
code nor the data of the run.
"""

import json
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.export
import numpy as np

from jaxbed.errors import InputError, short
from jaxbed.training.operations import Recording, from_plain, record, to_plain
from jaxbed.training.state import TrainState
from jaxbed.training.step import AXIS, Devices, train_step
from jaxbed.whole_files import plain

if TYPE_CHECKING:
    from jaxbed.training.loop import Phase

# What JSON and NumPy raise when they read something else than they wrote.
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)

WATCHED = ("loss", "gradient_norm")
"""Metrics of a step that have to be finite, in the order in which they are computed."""


class Kept(NamedTuple):
    """What a folder holds.

    Attributes:
        about: phase, step, seed, metrics, network, configuration of the run, versions.
        inputs: what the step took, in the order of its arguments.
        recording: how the first of WATCHED that was not finite came about; None where that
            could not be recorded, for the reason in `about`.
    """

    about: dict[str, Any]
    inputs: dict[str, np.ndarray]
    recording: Recording | None


def first_not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Names the first of WATCHED that is not finite in a step's metrics."""
    return next((x for x in WATCHED if not np.isfinite(metrics.get(x, 0.0)).all()), None)


def keep_and_tell(
    workdir: Path,
    phase: "Phase",
    devices: Devices,
    state: TrainState,
    batch: Mapping[str, np.ndarray],
    metrics: Mapping[str, float],
) -> str:
    """Writes a folder as `keep` does; returns a sentence on it, whether or not that worked."""
    try:
        folder = keep(workdir, phase, devices, state, batch, metrics)
    except OSError as error:
        return f"that step could not be kept ({error.strerror})."
    return f"`python -m jaxbed.replay {folder}` names the operation."


def keep(
    workdir: Path,
    phase: "Phase",
    devices: Devices,
    state: TrainState,
    batch: Mapping[str, np.ndarray],
    metrics: Mapping[str, float],
) -> Path:
    """Writes a folder under `diverged/`; it appears whole or not at all.

    Args:
        workdir: of the run; its `config.json`, if there is one, is kept too.
        phase: what was trained.
        devices: what it was trained on.
        state: before the step, on the host.
        batch: the whole batch of the step, without `index`.
        metrics: of the step, one of WATCHED not finite.

    Returns:
        The folder.
    """
    name = f"{phase.name.replace('/', '-')}-step{int(state.step)}"
    folder = workdir / "diverged" / name
    partial = folder.with_name(f".{name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        about = _about(workdir, phase, devices, state, metrics)
        _write(partial, about, phase, devices, state, batch)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(folder: Path, about: dict[str, Any], phase, devices: Devices, state, batch) -> None:
    arguments = _arguments(phase, state, batch)
    try:
        recording = _record(phase, devices, arguments, about["watched"])
    except Exception as error:  # an operation that JAX cannot export; the rest is worth keeping
        about["not_recorded"] = f"{type(error).__name__}: {short(error)}"
    else:
        (folder / "operations.json").write_text(json.dumps(to_plain(recording)))
        programs = {str(i): np.frombuffer(x, np.uint8) for i, x in enumerate(recording.programs)}
        np.savez(folder / "programs.npz", **programs)
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    about["inputs"] = [[name, x.dtype.name, list(x.shape)] for name, x in named.items()]
    for file in ("batch", "state"):
        np.savez(folder / f"{file}.npz", **{k: v for k, v in named.items() if _file(k) == file})
    (folder / "about.json").write_text(json.dumps(plain(about), indent=2) + "\n")


def read(folder: Path) -> Kept:
    """Reads a folder that `keep` wrote.

    Raises:
        InputError: it is no such folder, or damaged.
    """
    try:
        about = json.loads((folder / "about.json").read_text())
        arrays = {}
        for file in ("batch", "state"):
            with np.load(folder / f"{file}.npz", allow_pickle=False) as stored:
                arrays.update(stored)
        # NumPy's files know bfloat16 as two bytes of anything.
        inputs = {
            name: arrays[name].view(np.dtype(dtype)).reshape(shape)
            for name, dtype, shape in about["inputs"]
        }
        recording = None if "not_recorded" in about else _read_recording(folder)
        missing = {"phase", "step", "seed", "watched", "metrics"} - about.keys()
        if missing:
            raise ValueError(f"about.json has no {min(missing)}")
    except _DAMAGE as error:
        raise InputError(
            f"{folder} is no whole folder of a step that diverged ({type(error).__name__}: "
            f"{short(error)}); name one that a run wrote under WORKDIR/diverged."
        ) from error
    return Kept(about, inputs, recording)


def _read_recording(folder: Path) -> Recording:
    with np.load(folder / "programs.npz", allow_pickle=False) as stored:
        programs = [stored[str(i)].tobytes() for i in range(len(stored.files))]
    return from_plain(json.loads((folder / "operations.json").read_text()), programs)


def _arguments(phase, state: TrainState, batch) -> dict[str, Any]:
    size = len(next(iter(batch.values())))
    arguments = {
        "batch": {**batch, "index": np.arange(size, dtype=np.int32)},
        "key": jax.random.key_data(jax.random.key(phase.seed)),
        "learning_rate": np.float32(phase.learning_rates[int(state.step)]),
        "state": state,
    }
    return jax.tree.map(np.asarray, arguments)


def _file(name: str) -> str:
    return "batch" if name.startswith("batch/") else "state"


def _record(phase, devices: Devices, arguments: dict[str, Any], watched: str) -> Recording:
    """Records how one metric of the step comes about, the whole batch on one device."""

    def step(arguments) -> jax.Array:
        key = jax.random.wrap_key_data(arguments["key"])

        def take(batch):
            _, metrics = train_step(
                arguments["state"],
                batch,
                key,
                arguments["learning_rate"],
                network=phase.network,
                task=phase.task,
                tx=phase.tx,
                axis_name=devices.axis_name,
                execution=devices.execution,
            )
            return metrics[watched]

        if devices.axis_name is None:
            return take(arguments["batch"])
        shape = (devices.count, -1)
        split = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), arguments["batch"])
        return jax.vmap(take, axis_name=AXIS)(split)

    platforms = {"cpu", jax.export.default_export_platform()}
    return record(jax.make_jaxpr(step)(arguments), sorted(platforms))


def _about(workdir: Path, phase, devices: Devices, state, metrics) -> dict[str, Any]:
    config = workdir / "config.json"
    return {
        "phase": phase.name,
        "step": int(state.step),
        "seed": phase.seed,
        "watched": first_not_finite(metrics),
        "metrics": {name: str(value) for name, value in metrics.items()},
        "network": repr(phase.network)[:10_000],
        "parallel": devices.parallel,
        "devices": devices.count,
        "backend": jax.default_backend(),
        "jax": jax.__version__,
        "command": sys.argv,
        "run": json.loads(config.read_text()) if config.is_file() else None,
    }
