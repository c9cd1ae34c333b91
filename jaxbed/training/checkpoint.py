"""The last and the best state of a stretch of training, on disk."""

import contextlib
import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from jaxbed.errors import InputError
from jaxbed.training.state import TrainState, Tree
from jaxbed.whole_files import write_json

# Orbax logs every failure with the traces of all its threads, and then raises it.
absl_logging.set_verbosity(absl_logging.FATAL)

CHECKSUMS = "checksums.json"
"""File of a checkpoint: the SHA-256 of every other file in it. Orbax has none of the values."""

Read = TypeVar("Read")


class Checkpoints:
    """Keeps the last two states and the two with the lowest scores.

    A checkpoint appears under its final name only when it is complete, so whatever a
    killed process leaves behind can be resumed from. Where a file of the newest one was damaged
    later, the one before it is read, which stderr tells.

    Attributes:
        folder: holds `last/STEP` and `best/STEP`.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._last = _manager(self.folder / "last", keep=2)
        self._best = _manager(self.folder / "best", keep=2)
        lowest = _newest(self._best, lambda step: float(_read_about(self._best, step)["score"]))
        self._lowest = float("inf") if lowest is None else lowest

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
            InputError: the checkpoint is of another network, or every one is damaged.
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


def leaf_shapes(tree: Tree) -> dict[str, str]:
    """Names every leaf of a tree: path -> type and shape, as in `f32[3,3,16,1]`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _shape(x) for path, x in leaves}


def _shape(x) -> str:
    return f"{np.dtype(x.dtype).name}{list(x.shape)}"


def _manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    _set_damaged_aside(folder)
    # In the foreground: in the background, a write that fails leaves the traces of several
    # threads on the screen. EFD's whole state takes some tenths of a second.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        enable_async_checkpointing=False,
        # Of several processes one keeps checkpoints, and waits for no other.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return ocp.CheckpointManager(folder, options=options)
    except OSError:
        raise
    except Exception as error:  # it reads a file of every checkpoint, and raises what comes
        raise InputError(
            f"the checkpoints in {folder} cannot be read ({type(error).__name__}); delete that "
            "folder to begin anew."
        ) from error


def _save(manager: ocp.CheckpointManager, state: TrainState, score: float | None) -> None:
    state = jax.device_get(state)
    step = int(state.step)
    about = {"score": score, "leaves": leaf_shapes(state)}
    saved = manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), about=ocp.args.JsonSave(about)),
    )
    if saved:
        folder = _folder(manager, step)
        write_json(folder / CHECKSUMS, _checksums(folder))


def _read_about(manager: ocp.CheckpointManager, step: int) -> dict:
    return manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about


def _restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    # As host arrays: a checkpoint does not remember how many devices wrote it.
    to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    wanted = ocp.args.PyTreeRestore(item=like, restore_args=to_host)

    def read(step: int) -> TrainState:
        _same_network(_read_about(manager, step)["leaves"], leaf_shapes(like), manager, step)
        return manager.restore(step, args=ocp.args.Composite(state=wanted)).state

    return _newest(manager, read)


def _newest(manager: ocp.CheckpointManager, read: Callable[[int], Read]) -> Read | None:
    """Reads the newest checkpoint that can be read, and sets newer ones aside.

    Returns:
        What `read` makes of its step; None where there is no checkpoint.

    Raises:
        InputError: none can be read.
    """
    damaged: dict[Path, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            found = read(step)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # orbax, TensorStore and JSON each raise their own
            damaged[_folder(manager, step)] = type(error).__name__
        else:
            if damaged:
                _set_aside(damaged, step)
                manager.reload()
            return found
    if damaged:
        _set_aside(damaged, None)
    return None


def _set_aside(damaged: dict[Path, str], usable: int | None) -> None:
    """Renames damaged checkpoints, so that their steps can be written again, and tells so.

    Args:
        damaged: what is wrong with each, by folder.
        usable: the step that stands in for them; None where no checkpoint is left.

    Raises:
        InputError: no checkpoint is left.
    """
    if usable is None:
        folder, why = next(iter(damaged.items()))
        raise InputError(
            f"checkpoint {folder} is damaged ({why}), as is every other one beside it; delete "
            f"{folder.parent} to begin anew."
        )
    for folder, why in damaged.items():
        aside = folder.with_name(f"damaged-{folder.name}")
        print(
            f"warning: checkpoint {folder} is damaged ({why}), so it is renamed to {aside.name} "
            f"and step {usable} used instead.",
            file=sys.stderr,
        )
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(aside)


def _set_damaged_aside(folder: Path) -> None:
    """Looks for checkpoints whose files are not what was written."""
    steps = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    steps.sort(key=lambda path: -int(path.name))
    damaged = {path: why for path in steps if (why := _damage(path))}
    if damaged:
        _set_aside(damaged, max((int(p.name) for p in steps if p not in damaged), default=None))


def _damage(folder: Path) -> str:
    """Tells what is damaged in a checkpoint; empty where nothing is known to be."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_bytes())
    except FileNotFoundError:  # killed before it was written
        return ""
    except (OSError, ValueError, RecursionError):
        return f"{CHECKSUMS} cannot be read"
    found = _checksums(folder)
    if found == expected:
        return ""
    known = expected if isinstance(expected, dict) else {}
    changed = sorted(n for n in found.keys() | known.keys() if found.get(n) != known.get(n))
    return f"{changed[0][:80]!r} is not what was written" if changed else f"{CHECKSUMS} is odd"


def _checksums(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in a folder, in hexadecimal, by path."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(CHECKSUMS):
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _folder(manager: ocp.CheckpointManager, step: int) -> Path:
    return Path(manager.directory) / str(step)


def _same_network(
    found: dict[str, str], wanted: dict[str, str], manager: ocp.CheckpointManager, step: int
) -> None:
    if found == wanted:
        return
    names = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    name = names[0]
    raise InputError(
        f"checkpoint {_folder(manager, step)} is of another network: {name} is "
        f"{found.get(name, 'absent')} in the checkpoint and {wanted.get(name, 'absent')} in this "
        f"configuration ({len(names)} such leaves); use its configuration or another --workdir."
    )
