"""Ending when asked to: SIGTERM, with which schedulers take a machine back."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from jaxbed import hosts


@contextlib.contextmanager
def sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Notes SIGTERM inside the block instead of dying of it.

    Yields:
        Tells whether it came. Outside of the main thread, which alone gets signals, it never
        does. Of several processes all ask equally often, and hear it at the same time,
        whichever of them it came to.
    """
    if hosts.count() > 1:
        yield hosts.stop_asked
        return
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
