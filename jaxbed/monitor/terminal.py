"""Shows the monitor's state on a terminal: one line that is written anew, and lines that stay."""

import shutil
import sys
from typing import TextIO

_CLEAR = "\r\x1b[2K"


class Terminal:
    """Writes to a terminal, or plain lines where there is none.

    Attributes:
        rewrites: whether `show` is seen.
    """

    def __init__(self, stream: TextIO | None = None):
        """Takes the stream; None for standard error."""
        self._stream = stream or sys.stderr
        self.rewrites = bool(getattr(self._stream, "isatty", lambda: False)())
        self._shown = ""

    def say(self, sentence: str) -> None:
        """Writes a line that stays."""
        clear = _CLEAR if self._shown else ""
        self._write(f"{clear}{_printable(sentence)}\n{self._shown}")

    def show(self, line: str) -> None:
        """Writes the state over the last one; nothing where lines cannot be rewritten."""
        if self.rewrites:
            columns = shutil.get_terminal_size().columns
            self._shown = _printable(line)[: columns - 1]
            self._write(f"{_CLEAR}{self._shown}")

    def close(self) -> None:
        """Leaves the last state where it is."""
        if self._shown:
            self._shown = ""
            self._write("\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a window that was closed does not end the watch


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
