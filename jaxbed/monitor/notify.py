"""Tells others of events: a command that is run, or an address that is posted to.

Either happens in a thread of its own, behind a queue of limited length, so that a command that
hangs or a machine that is down never holds up the monitor. Nothing leaves the local network
unless that is asked for.
"""

import contextlib
import http.client
import ipaddress
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jaxbed.errors import InputError
from jaxbed.monitor.remarks import Remarks

_QUEUED = 100
_ATTEMPTS, _PAUSE_S = 3, 1.0  # of a post; a command is run once, it may have done its work


class Notifier:
    """Delivers records one after the other.

    Attributes:
        remarks: what could not be delivered.
        delivered: records that arrived.
        failed: records that did not, those that found no place in the queue included.
    """

    def __init__(self, deliver: Callable[[bytes], None], name: str):
        """Begins to wait for records.

        Args:
            deliver: takes a record as JSON; raises OSError, or ValueError, if it did not arrive.
            name: for messages.
        """
        self.remarks, self.delivered, self.failed = Remarks(), 0, 0
        self._deliver, self._name = deliver, name
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Notifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, record: dict[str, Any]) -> None:
        """Queues a record; never waits. The oldest one gives way when the queue is full."""
        line = json.dumps(record, allow_nan=False).encode()
        while True:
            try:
                return self._queue.put_nowait(line)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._fail("too many events wait; the oldest are given up")

    def close(self, wait_s: float = 5.0) -> None:
        """Delivers what waits, for so long at most. A second call does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=wait_s)
            self._thread.join(wait_s)
        if not self._queue.empty():
            self.remarks.say("late", f"{self._name}: not all events were delivered in time.")

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._deliver(line)
                self.delivered += 1
            except Exception as error:  # the next event is worth another attempt
                self._fail(f"an event was not delivered ({error}); later ones are tried too")

    def _fail(self, why: str) -> None:
        self.failed += 1
        self.remarks.say("failed", f"{self._name}: {why}.")


def command(argv: Sequence[str], *, limit_s: float = 10.0) -> Notifier:
    """Runs a program for every event, with the record as JSON on its standard input.

    No shell is involved. A program that takes longer than `limit_s` is killed, with all that it
    started.

    Raises:
        InputError: there is no such program.
    """
    if not argv or shutil.which(argv[0]) is None:
        raise InputError(
            f"--on-event names {argv[0] if argv else 'nothing'!r}, which is not a program that can "
            "be run; give its path and then its arguments, one by one."
        )
    return Notifier(lambda line: _execute(list(argv), line, limit_s), argv[0])


def webhook(address: str, *, allow_remote: bool = False, limit_s: float = 10.0) -> Notifier:
    """Posts every event as JSON to an http:// or https:// address.

    The address is looked up anew each time and must be a loopback, private or link-local one
    unless `allow_remote`. Redirections are not followed and proxies not used.

    Raises:
        InputError: it is no such address.
    """
    try:
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("it has no scheme or no host")
        _resolve(url, allow_remote)
    except _NotLocal as error:
        raise InputError(
            f"--webhook {url.hostname}: {error}; name one in your own network, or allow others "
            "with --allow-remote-webhook."
        ) from error
    except ValueError as error:
        raise InputError(
            f"--webhook {address!r} is not an address such as http://192.168.1.5:8123/event."
        ) from error
    except OSError:
        pass  # a name that nobody knows now may be known when it is needed
    return Notifier(lambda line: _post(url, line, allow_remote, limit_s), f"webhook {url.hostname}")


class _NotLocal(ValueError):
    """An address outside the local network."""


def _execute(argv: list[str], line: bytes, limit_s: float) -> None:
    program = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        program.communicate(line + b"\n", timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        raise OSError(f"it took longer than {limit_s:g} s and was ended") from None
    if program.returncode:
        raise OSError(f"it ended with status {program.returncode}")


def _post(url: SplitResult, line: bytes, allow_remote: bool, limit_s: float) -> None:
    for attempt in range(_ATTEMPTS):
        if attempt:
            threading.Event().wait(_PAUSE_S * attempt)
        try:
            status = _post_once(url, line, allow_remote, limit_s)
        except (OSError, http.client.HTTPException) as error:
            trouble = str(error) or type(error).__name__
            continue
        if 200 <= status < 300:
            return
        trouble = f"the answer was status {status}"
        if status < 500:
            break  # it would say so again
    raise OSError(trouble)


def _post_once(url: SplitResult, line: bytes, allow_remote: bool, limit_s: float) -> int:
    address, port = _resolve(url, allow_remote)
    secure = url.scheme == "https"
    connection = http.client.HTTPConnection(url.hostname, port, timeout=limit_s)
    # Connected by hand to the address that was checked: a name may lead elsewhere a moment later.
    connection.sock = socket.create_connection((address, port), limit_s)
    with contextlib.closing(connection):
        if secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=url.hostname)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {
            "Host": url.netloc.rpartition("@")[2],
            "Content-Type": "application/json",
            "Connection": "close",
        }
        connection.request("POST", path, body=line, headers=headers)
        return connection.getresponse().status


def _resolve(url: SplitResult, allow_remote: bool) -> tuple[str, int]:
    """Looks a name up and returns where to connect to. Raises _NotLocal, or OSError."""
    port = url.port or (443 if url.scheme == "https" else 80)
    found = [x[4][0] for x in socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)]
    local = [address for address in found if _is_local(address)]
    if not local and not allow_remote:
        raise _NotLocal(f"{found[0]} is not an address of the local network")
    return (local or found)[0], port


def _is_local(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_link_local or (ip.is_private and not ip.is_unspecified)
