"""Ends a watch on the signals that ask a program to end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` on SIGINT, SIGTERM and SIGHUP inside the block.

    A signal that was ignored stays ignored, as under nohup. A second SIGINT interrupts at once.
    Nothing is done outside the main thread, where signals cannot be caught.
    """

    def ask(number: int, _: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # SIGHUP is not everywhere
            if number and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
