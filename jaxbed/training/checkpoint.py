"""The last and the best state of a stretch of training, on disk."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from jaxbed.errors import InputError
from jaxbed.training.state import TrainState, Tree

# Orbax logs every failure with the traces of all its threads, and then raises it.
absl_logging.set_verbosity(absl_logging.FATAL)


class Checkpoints:
    """Keeps the last two states and the one with the lowest score.

    A checkpoint appears under its final name only when it is complete, so whatever a
    killed process leaves behind can be resumed from.

    Attributes:
        folder: holds `last/STEP` and `best/STEP`.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._last = _manager(self.folder / "last", keep=2)
        self._best = _manager(self.folder / "best", keep=1)
        self._lowest = self._best_score()

    def save(self, state: TrainState) -> None:
        """Writes the last state."""
        with self._writing():
            _save(self._last, state, score=None)

    def save_if_best(self, state: TrainState, score: float) -> None:
        """Writes the state when its score is the lowest so far."""
        if score < self._lowest:
            self._lowest = score
            with self._writing():
                _save(self._best, state, score)

    def restore_last(self, like: TrainState) -> TrainState | None:
        """Reads the last state as host arrays, or None where there is none.

        Args:
            like: a state, or shapes, of the same network and optimiser.

        Raises:
            InputError: the checkpoint is of another network, or cannot be read.
        """
        return _restore(self._last, like)

    def restore_best(self, like: TrainState) -> TrainState | None:
        """Reads the best state, as `restore_last`."""
        return _restore(self._best, like)

    def close(self) -> None:
        """Ends the writing."""
        with self._writing():
            self._last.close()
            self._best.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what orbax raises on a full disk into the error every other writer raises."""
        try:
            yield
        except (OSError, ValueError) as error:
            if "No space left" not in str(error):
                raise
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder)) from error

    def _best_score(self) -> float:
        step = self._best.latest_step()
        if step is None:
            return float("inf")
        return _read_about(self._best, step)["score"]


def leaf_shapes(tree: Tree) -> dict[str, str]:
    """Names every leaf of a tree: path -> type and shape, as in `f32[3,3,16,1]`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _shape(x) for path, x in leaves}


def _shape(x) -> str:
    return f"{np.dtype(x.dtype).name}{list(x.shape)}"


def _manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    # In the foreground: in the background, a write that fails leaves the traces of several
    # threads on the screen. EFD's whole state takes some tenths of a second.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(folder, options=options)


def _save(manager: ocp.CheckpointManager, state: TrainState, score: float | None) -> None:
    step = int(state.step)
    about = {"score": score, "leaves": leaf_shapes(state)}
    manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), about=ocp.args.JsonSave(about)),
    )


def _read_about(manager: ocp.CheckpointManager, step: int) -> dict:
    try:
        return manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
    except Exception as error:
        raise _unreadable(manager, step) from error


def _restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    step = manager.latest_step()
    if step is None:
        return None
    _same_network(_read_about(manager, step)["leaves"], leaf_shapes(like), manager, step)
    # As host arrays: a checkpoint does not remember how many devices wrote it.
    to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    wanted = ocp.args.PyTreeRestore(item=like, restore_args=to_host)
    try:
        return manager.restore(step, args=ocp.args.Composite(state=wanted)).state
    except Exception as error:
        raise _unreadable(manager, step) from error


def _unreadable(manager: ocp.CheckpointManager, step: int) -> InputError:
    return InputError(
        f"checkpoint {Path(manager.directory) / str(step)} cannot be read; delete that folder to "
        "go on from the one before it."
    )


def _same_network(
    found: dict[str, str], wanted: dict[str, str], manager: ocp.CheckpointManager, step: int
) -> None:
    if found == wanted:
        return
    names = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    name = names[0]
    raise InputError(
        f"checkpoint {Path(manager.directory) / str(step)} is of another network: {name} is "
        f"{found.get(name, 'absent')} in the checkpoint and {wanted.get(name, 'absent')} in this "
        f"configuration ({len(names)} such leaves); use its configuration or another --workdir."
    )
