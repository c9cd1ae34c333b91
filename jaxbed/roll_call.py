"""The roll that is called before processes train together: who is there, and who is missing.

JAX's own meeting aborts a process, without a word on who did not come. Here the lead listens on
the port that JAX uses next, every other process says its number, and all get the same answer.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterable
from typing import Any

_RETRY_S = 0.2
_LONGEST_BYTES = 4096  # of a message
_GREETING_S = 5.0  # for a visitor to say who it is


def call(address: str, processes: int, process_id: int, *, limit_s: float) -> str:
    """Meets the other processes.

    Args:
        address: "HOST:PORT" of process 0.
        processes: how many there are to be.
        process_id: which of them this is.
        limit_s: how long to wait for all.

    Returns:
        What is wrong, in words that are the same for all who came; empty when all are there.

    Raises:
        OSError: process 0 cannot listen on the port.
    """
    if processes == 1:
        return ""
    host, _, port = address.rpartition(":")
    if process_id == 0:
        return _lead(int(port), processes, limit_s)
    me = {"process_id": process_id, "processes": processes}
    return _follow((host.strip("[]"), int(port)), me, limit_s)


def names(numbers: Iterable[int]) -> str:
    """Lists processes: "process 3", "processes 1, 2"."""
    numbers = sorted(numbers)
    return f"process{'es' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _lead(port: int, processes: int, limit_s: float) -> str:
    """Listens until everybody came, somebody odd came or time is up; then answers all."""
    deadline = time.monotonic() + limit_s
    came: set[int] = set()
    asking = []
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("", port)))
        wrong = ""
        while len(came) < processes - 1 and not wrong:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                visitor = opened.enter_context(server.accept()[0])
            except TimeoutError:
                wrong = f"{names(set(range(1, processes)) - came)} did not come"
                break
            visitor.settimeout(_GREETING_S)
            said = _heard(visitor)
            if "process_id" in said:  # else it is some other program
                wrong = _odd(said, processes, came)
                came.add(said["process_id"])
                asking.append(visitor)
        for visitor in asking:
            _say(visitor, {"wrong": wrong})
    return wrong


def _odd(said: dict[str, Any], processes: int, came: set[int]) -> str:
    number = said["process_id"]
    if said.get("processes") != processes:
        return f"process {number} expects {said.get('processes')} processes, the lead {processes}"
    return f"two processes have the number {number}" if number in came else ""


def _follow(address: tuple[str, int], me: dict[str, int], limit_s: float) -> str:
    """Reports to the lead, as soon as that listens, and waits for its answer."""
    deadline = time.monotonic() + limit_s
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left_s) as lead:
                _say(lead, me)
                # The lead gives up by itself, and says who is missing.
                lead.settimeout(limit_s + _GREETING_S)
                answer = _heard(lead)
            if "wrong" in answer:
                return answer["wrong"]
        except OSError:
            pass
        time.sleep(_RETRY_S)
    return "process 0 did not answer"


def _say(to: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        to.sendall(json.dumps(message).encode() + b"\n")


def _heard(from_: socket.socket) -> dict[str, Any]:
    """Reads one message; empty where none comes, or it is none of ours."""
    text = b""
    with contextlib.suppress(OSError, ValueError):
        while not text.endswith(b"\n") and len(text) < _LONGEST_BYTES:
            part = from_.recv(_LONGEST_BYTES)
            if not part:
                break
            text += part
        message = json.loads(text)
        return message if isinstance(message, dict) else {}
    return {}
