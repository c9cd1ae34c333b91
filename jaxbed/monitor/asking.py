"""Puts frames to an observer in a thread of its own."""

import queue
import threading
from collections.abc import Mapping

import numpy as np

from jaxbed.monitor.observation import Observation, Observer


class Asking:
    """One question at a time; who asked may do other things until there is an answer."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._questions: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name="observer", daemon=True).start()

    def ask(self, image: np.ndarray) -> None:
        """Puts a frame u8[H,W,3]."""
        self._questions.put(image)

    def answer(self, timeout_s: float) -> Observation | Exception | None:
        """Returns what was observed, or why nothing was; None if that is not known in time."""
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Lets the thread end once it has answered."""
        self._questions.put(None)

    def _run(self) -> None:
        while (image := self._questions.get()) is not None:
            try:
                found = self._observer(image)
                if not isinstance(found, Observation) or not isinstance(found.scores, Mapping):
                    raise TypeError(f"the observer returned {type(found).__name__}")
            except Exception as error:
                found = error
            self._answers.put(found)
