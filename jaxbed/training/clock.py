"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np


class Clock:
    """Adds up seconds by activity, and keeps the duration of every training step.

    Attributes:
        seconds: total by activity: compile, train, input, evaluate, checkpoint, ...
        step_ms: duration of each training step, the first after a compilation left out.
        doing: the activity that is charged now; empty between two.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        # Monotonic: a wall clock that is set while training runs must not change a figure.
        self._now = now
        self.seconds: dict[str, float] = {}
        self.step_ms: list[float] = []
        self.doing = ""

    @contextlib.contextmanager
    def of(self, activity: str) -> Iterator[None]:
        """Charges the time inside the block to `activity`."""
        begin, before = self._now(), self.doing
        self.doing = activity
        try:
            yield
        finally:
            self.doing = before
            self.seconds[activity] = self.seconds.get(activity, 0.0) + self._now() - begin

    def step_summary(self) -> dict[str, float]:
        """Returns median, 90th percentile (ms) and number of the training steps."""
        if not self.step_ms:
            return {"median": 0.0, "p90": 0.0, "n": 0}
        median, p90 = np.percentile(self.step_ms, [50, 90])
        return {"median": float(median), "p90": float(p90), "n": len(self.step_ms)}

    @property
    def input_wait_frac(self) -> float:
        """Time spent on getting batches, as a share of training and getting batches."""
        waited = self.seconds.get("input", 0.0)
        busy = waited + self.seconds.get("train", 0.0)
        return waited / busy if busy else 0.0
