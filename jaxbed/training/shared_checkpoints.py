"""Checkpoints of several processes: the lead keeps them, and reads them for all."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxbed import hosts
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.state import TrainState


class SharedCheckpoints:
    """What Checkpoints are to one process.

    States are whole and of no device, so any number of processes and devices can go on from
    them, and no other process needs the lead's disk.

    Attributes:
        folder: as of Checkpoints, on the lead.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._own: Checkpoints | None = None
        hosts.on_lead(f"opening {folder}", self._open)

    def save(self, state: TrainState) -> None:
        """Writes the last state."""
        if self._own:
            self._own.save(state)

    def save_if_best(self, state: TrainState, score: float) -> None:
        """Writes the state when its score is the lowest so far."""
        if self._own:
            self._own.save_if_best(state, score)

    def restore_last(self, like: TrainState) -> TrainState | None:
        """Reads the last state as host arrays, or None where there is none.

        Args:
            like: a state, or shapes, of the same network and optimiser.

        Raises:
            InputError: the checkpoint is of another network, or every one is damaged.
        """
        return self._restored("last", lambda own: own.restore_last(like), like)

    def restore_best(self, like: TrainState) -> TrainState | None:
        """Reads the best state, as `restore_last`."""
        return self._restored("best", lambda own: own.restore_best(like), like)

    def close(self) -> None:
        """Ends the writing."""
        if self._own:
            self._own.close()

    def _open(self) -> None:
        self._own = Checkpoints(self.folder)

    def _restored(
        self, which: str, read: Callable[[Checkpoints], TrainState | None], like: TrainState
    ) -> TrainState | None:
        found = None

        def work() -> bool:
            nonlocal found
            found = read(self._own)
            return found is not None

        if not hosts.on_lead(f"reading the {which} state of {self.folder}", work):
            return None
        if found is None:  # on a process that does not lead
            found = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        return hosts.from_lead(found)
