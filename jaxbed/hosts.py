"""Several processes that train together: how they meet, wait for each other, and who writes.

Every process runs the same command, usually one per host. Process 0, the lead, alone writes;
what it refuses, all refuse. A process that is alone needs none of this: every function here
then does at once what its name says.
"""

import dataclasses
import itertools
import json
import re
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxbed.errors import InputError, LostProcessError, short
from jaxbed.roll_call import names

_REPORT_S = 24 * 3600.0  # how long the lead may write a report, while the others wait for it

Outcome = TypeVar("Outcome", bound=str | bool | None)


@dataclasses.dataclass
class Patience:
    """How long processes bear with each other; jaxbed.meeting sets it.

    Attributes:
        wait_s: longest time to wait at a barrier.
        stall_s: time without a step after which the lead tells who stands still.
    """

    wait_s: float = 600.0
    stall_s: float = 60.0


patience = Patience()

_turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
_stopping = False


def index() -> int:
    """Returns the number of this process."""
    return _service().process_id


def count() -> int:
    """Returns the number of processes."""
    return _service().num_processes


def is_lead() -> bool:
    """Says whether this is the process that writes."""
    return index() == 0


def wait(name: str, *, limit_s: float | None = None) -> None:
    """Waits until every process has come to the same place.

    Args:
        name: of the place, for messages.
        limit_s: how long; by default `patience.wait_s`.

    Raises:
        LostProcessError: somebody did not come; says who.
    """
    if count() == 1:
        return
    import jax

    limit_s = patience.wait_s if limit_s is None else limit_s
    barrier = f"jaxbed {name} {next(_turns[name])}"
    try:
        _service().client.wait_at_barrier(barrier, int(1e3 * limit_s))
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(_who_is_missing(name, limit_s, str(error))) from error


def on_lead(name: str, work: Callable[[], Outcome], *, limit_s: float | None = None) -> Outcome:
    """Lets the lead do something while the others wait, and gives everybody what came of it.

    Args:
        name: of the work, for messages.
        work: runs on the lead alone.
        limit_s: how long the others wait; by default `patience.wait_s`.

    Raises:
        InputError: the lead raised it.
        LostProcessError: the lead told nothing in time.
    """
    if count() == 1:
        return work()
    import jax

    limit_s = patience.wait_s if limit_s is None else limit_s
    # By number: names may hold paths, which need not be the same on every host.
    client, key = _service().client, f"jaxbed/outcome/{next(_turns['outcome'])}"
    if is_lead():
        try:
            outcome = work()
        except InputError as error:
            client.key_value_set(key, json.dumps({"refused": str(error)}))
            raise
        client.key_value_set(key, json.dumps({"outcome": outcome}))
        return outcome
    try:
        told = json.loads(client.blocking_key_value_get(key, int(1e3 * limit_s)))
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(
            f"process 0, which leads, did not tell the outcome of {name!r} within "
            f"{limit_s:g} s; look at its output, or give it longer by --wait-s."
        ) from error
    if "refused" in told:
        raise InputError(told["refused"])
    return told["outcome"]


def from_lead(tree: Any) -> Any:
    """Returns the lead's values of a tree of arrays, on the host, bit for bit.

    Args:
        tree: arrays; on the others only their types and shapes count.
    """
    if count() == 1:
        return tree
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: what arrives is a sum over all processes, in which -0.0 would become 0.0.
    whole = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    whole = np.asarray(multihost_utils.broadcast_one_to_all(whole)).tobytes()
    ends = np.cumsum([leaf.nbytes for leaf in leaves])
    shared = [
        np.frombuffer(whole[end - leaf.nbytes : end], leaf.dtype).reshape(leaf.shape)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, shared)


def tell(topic: str, value: dict[str, Any]) -> None:
    """Leaves what this process has to say where every other can read it, over what it said."""
    key = f"jaxbed/{topic}/{index()}"
    told = json.dumps({"host": socket.gethostname(), **value})
    _service().client.key_value_set(key, told, allow_overwrite=True)


def told(topic: str) -> dict[int, dict[str, Any]]:
    """Returns what every process said last, by its number; who said nothing is left out."""
    pairs = _service().client.key_value_dir_get(f"jaxbed/{topic}/")
    return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in pairs}


def stop_asked() -> bool:
    """Says whether some process got SIGTERM, to all processes at the same call.

    Every process has to call it equally often, say after every step. Once it said so it stays
    so.
    """
    global _stopping
    from jax.experimental import multihost_utils

    turn = next(_turns["stop"])
    _stopping = _stopping or multihost_utils.reached_preemption_sync_point(turn)
    return _stopping


def leave_the_rest_to_the_lead() -> None:
    """Returns on the lead; ends every other process with status 0 when the lead is done."""
    if count() == 1:
        return
    # JAX notes it, and who writes a report does not look there.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not is_lead():
        wait("end", limit_s=_REPORT_S)
        sys.exit(0)


def _who_is_missing(name: str, limit_s: float, error: str) -> str:
    """Makes a sentence of what the coordination service says of a barrier."""
    listed = error.partition("timed out task names:")[2].partition("RPC:")[0]
    missing = [int(number) for number in re.findall(r"\b(\d+)$", listed, re.MULTILINE)]
    who = names(missing) if missing else "another process"
    if "timed out" not in error.lower():
        return f"processes that wait for each other at {name!r} lost each other ({short(error)})."
    return (
        f"{who} of {count()} did not come to {name!r} within {limit_s:g} s; look at its "
        "output, or give it longer by --wait-s."
    )


def _service() -> Any:
    """Returns JAX's record of the processes, with the client of its coordination service.

    Private to JAX: its public barriers have no time limit and do not say who is missing, and
    its store of values has no public name.
    """
    from jax._src import distributed

    return distributed.global_state
