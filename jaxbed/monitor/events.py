"""Keeps a log of events, one JSON line at the onset and one at the end of each.

A line is on the disk before `write` returns. When the disk is full or gone, lines wait in memory
and are tried again, and the monitor goes on. A file whose last line was cut off by a crash is
mended when it is opened.
"""

import errno
import json
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxbed.errors import InputError
from jaxbed.monitor.alerts import Event
from jaxbed.monitor.remarks import Remarks
from jaxbed.whole_files import plain

_TAIL_BYTES = 1 << 20  # what is read of an old file to find its last lines
_KEPT_LINES = 2000
_RETRY_S = 5.0
_NEVER = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ESPIPE),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)


class WallTime:
    """Turns seconds of a monotonic clock into dates for people.

    The wall's clock is read at every call: a date is right by how that clock is set when it is
    written, and nothing else depends on it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self._clock, self._wall = clock, wall

    def iso(self, time_s: float) -> str:
        """Returns ISO 8601 with milliseconds, in local time with its distance from UTC."""
        return self.local(time_s).isoformat(timespec="milliseconds")

    def local(self, time_s: float) -> datetime:
        """Returns date and time in this machine's zone."""
        moment_s = self._wall() + time_s - self._clock()
        return datetime.fromtimestamp(moment_s, UTC).astimezone()


def record(event: Event, *, wall: WallTime, origin_s: float = 0.0) -> dict[str, Any]:
    """Returns what is told of an event, in the log and to others, as JSON can hold it.

    Args:
        event: as it is now.
        wall: for the dates.
        origin_s: what the seconds are counted from: the start of the source.

    Returns:
        `what` is "onset" or "end". `onset`, `raised` and `end` are dates, the same names with
        `_s` seconds since the start of the source, and so are those of `evidence`, which holds
        pairs of seconds and score.
    """
    times = {"onset": event.onset_s, "raised": event.raised_s, "end": event.end_s}
    return plain(
        {
            "id": event.id,
            "what": "onset" if event.end_s is None else "end",
            "kind": event.kind,
            "priority": event.priority,
            **{name: at if at is None else wall.iso(at) for name, at in times.items()},
            **{
                f"{name}_s": at if at is None else round(at - origin_s, 3)
                for name, at in times.items()
            },
            "rule": event.rule,
            "evidence": [(round(at - origin_s, 3), round(s, 4)) for at, s in event.evidence],
        }
    )


class EventLog:
    """Appends lines to a file, and never fails while the monitor runs.

    Attributes:
        next_id: one above the last event's in the file.
        remarks: what went wrong with the disk.
        lost: lines given up because too many waited.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic):
        """Opens or makes the file, and mends its last line.

        Args:
            path: the file; others' lines in it stay.
            clock: seconds, monotonic, for the pauses between attempts.

        Raises:
            InputError: there can be no such file. A full disk is no reason: it may be freed.
        """
        self.next_id, self.lost, self.remarks = 1, 0, Remarks()
        self._path, self._clock = path, clock
        self._waiting: deque[bytes] = deque()
        self._tried_s = 0.0
        self._file: int | None = None
        try:
            self._open()
        except OSError as error:
            if error.errno in _NEVER:
                raise InputError(
                    f"{path}: events cannot be written there ({error.strerror}); name a file in "
                    "a folder that exists and may be written to."
                ) from error
            self._tell(error)

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Lines that are not on the disk yet."""
        return len(self._waiting)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line; what waits goes first."""
        self._waiting.append(json.dumps(line, allow_nan=False).encode() + b"\n")
        if len(self._waiting) > _KEPT_LINES:
            self._waiting.popleft()
            self.lost += 1
        self._flush()

    def retry(self) -> None:
        """Tries again to write what waits, now and then. Cheap to call often."""
        if self._waiting and self._clock() - self._tried_s >= _RETRY_S:
            self._flush()

    def close(self) -> None:
        """Tries a last time and closes the file."""
        if self._waiting:
            self._flush()
        if self._waiting:
            self.remarks.say(
                "unwritten", f"{self._path}: {len(self._waiting)} lines could not be written."
            )
        self._close()

    def _flush(self) -> None:
        self._tried_s = self._clock()
        try:
            if self._file is not None and self._moved():
                self._close()
            if self._file is None:
                self._open()
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._close()  # opened anew, it is mended if half a line is left in it
            self._tell(error)

    def _moved(self) -> bool:
        """Tells whether the path names another file by now, or none: logs get rotated."""
        try:
            return not os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return True

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        """Puts a line on the disk, or nothing of it."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            done = 0
            while done < len(line):
                done += os.write(self._file, line[done:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._mend()
        except OSError:
            self._close()
            raise

    def _mend(self) -> None:
        """Completes a last line that was cut off, and finds the last event's number."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        begin = max(0, size - _TAIL_BYTES)
        os.lseek(self._file, begin, os.SEEK_SET)
        tail = b""
        while len(tail) < size - begin and (more := os.read(self._file, size - begin - len(tail))):
            tail += more
        *whole, torn = tail.split(b"\n")
        if torn and ((begin and not whole) or isinstance(_parsed(torn), dict)):
            self._append(b"\n")
            whole.append(torn)
        elif torn:
            # What is left of the line stays, in a form that every reader of JSON lines takes.
            kept = json.dumps({"torn": torn.decode(errors="replace")}).encode() + b"\n"
            os.ftruncate(self._file, size - len(torn))
            self._append(kept)
            self.remarks.say("torn", f"{self._path}: the last line was cut off and is mended.")
        lines = (_parsed(line) for line in whole)
        ids = [line["id"] for line in lines if isinstance(line, dict) and _is_id(line.get("id"))]
        self.next_id = max([self.next_id, *(number + 1 for number in ids)])

    def _tell(self, error: OSError) -> None:
        self.remarks.say(
            "unwritable",
            f"{self._path}: events cannot be written ({error.strerror or error}); alerts go on, "
            "their lines wait in memory.",
        )


def read_events(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a log; leaves out what is no event, such as a line that was cut off."""
    lines = (_parsed(line) for line in path.read_bytes().split(b"\n"))
    return [line for line in lines if isinstance(line, dict) and _is_id(line.get("id"))]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
