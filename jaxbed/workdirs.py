"""Keeps two runs from sharing a workdir: one after the other, or at once."""

import json
import os
from pathlib import Path
from typing import Any

from jaxbed import machine
from jaxbed.errors import InputError

# Where a run lies and what it runs on: none of them changes what it computes.
_FREE_ON_RESUME = {"resume", "workdir", "data_dir", *machine.FLAGS}

_locked: set[Path] = set()


def lock(workdir: Path) -> None:
    """Keeps other processes out of a workdir until this one ends, however it ends.

    Where the system cannot lock folders nothing is kept out.

    Raises:
        InputError: another process is at work in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    workdir = workdir.resolve()
    if workdir in _locked:
        return
    folder = os.open(workdir, os.O_RDONLY)  # never closed: the lock ends with the process
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise InputError(
            f"--workdir {workdir} is in use by another run; wait for it, or name another folder."
        ) from None
    except OSError:  # a file system that cannot lock
        os.close(folder)
        return
    _locked.add(workdir)


def check_same_run(path: Path, asked: dict[str, Any], *, resume: bool) -> None:
    """Refuses to mix two runs.

    Args:
        path: the configuration of the run that is there, `config.json`.
        asked: the configuration that is asked for, in plain values.
        resume: whether to go on with that run.

    Raises:
        InputError: `resume` is False, or the two differ in what they compute.
    """
    if not resume:
        raise InputError(
            f"--workdir {path.parent} already holds a run ({path.name}); "
            "go on with it by --resume, or name another folder."
        )
    try:
        stored = json.loads(path.read_text())["config"]
        names = [name for name in {**stored, **asked} if name not in _FREE_ON_RESUME]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no configuration of a run, so there is nothing to --resume; "
            "name another --workdir."
        ) from error
    for name in names:
        was, is_now = (x.get(name, "(absent)") for x in (stored, asked))
        if was != is_now:
            raise InputError(
                f"--resume of {path.parent}: its {name} was {json.dumps(was)} and is now "
                f"{json.dumps(is_now)}; ask for the same again, or name another --workdir."
            )
