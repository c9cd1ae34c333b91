"""How every command of this project starts and ends."""

import dataclasses
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from jaxbed.errors import DivergedError, InputError, LostProcessError, StoppedError

Config = TypeVar("Config")


def _resume_of(words: list[str]) -> bool:
    if words not in ([], ["auto"]):
        raise ValueError(f"takes no value, or auto; found {' '.join(words)}")
    return True


Resume = Annotated[
    bool,
    tyro.conf.FlagConversionOff,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[auto]",
        instance_from_str=_resume_of,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: ["auto"] if value else ["no"],
    ),
]
"""The flag `--resume`, also written `--resume auto`: a run that is there goes on, and where there
is none one begins, so a job that is started again and again needs one command line."""

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
    errno.EROFS: "the file system is read-only",
}


class Command(NamedTuple):
    """What a first word on the command line does instead: takes its own parsed configuration.

    Attributes:
        main: as of `run`.
        config: likewise; its docstring is the help.
    """

    main: Callable[[Any], object]
    config: type


def run(
    main: Callable[[Config], object],
    config: type[Config],
    *,
    doc: str | None,
    commands: Mapping[str, Command] | None = None,
) -> None:
    """Parses the command line, runs `main` and leaves the process with its exit status.

    0 when `main` returns; 2 for bad input or configuration, told in one sentence without a
    traceback; 143 after SIGTERM, when what was trained is saved; 1 for anything else. Nothing
    heavy is imported before the line is parsed, so `--help` is quick.

    Args:
        main: takes the parsed configuration.
        config: a dataclass; its field docstrings are the help.
        doc: the command's module docstring, shown by `--help`.
        commands: what is done instead when the line begins with a word.
    """
    word, rest = sys.argv[1:2], sys.argv[2:]
    if commands and word and word[0] in commands:
        main, config = commands[word[0]]
        program = f"{Path(sys.argv[0]).name} {word[0]}"
        parsed = tyro.cli(config, prog=program, args=rest)
    else:
        parsed = tyro.cli(config, description=doc)
    threading.excepthook = _in_thread
    sys.unraisablehook = _in_library_thread
    try:
        main(parsed)
    except KeyboardInterrupt:
        sys.exit(_tell("interrupted.", status=130))
    except InputError as error:
        sys.exit(_tell(str(error), status=2))
    except DivergedError as error:
        sys.exit(_tell(str(error), status=1))
    except StoppedError as error:
        sys.exit(_tell(str(error), status=128 + signal.SIGTERM))
    except LostProcessError as error:
        # Not sys.exit: on the way out, JAX would wait for the one that is missing.
        os._exit(_tell(str(error), status=1))
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        sentence = (
            f"{where}{_DISK[error.errno]}; free space or choose another folder, then run again."
        )
        status = _tell(sentence, status=2)
        # Not sys.exit: on the way out, libraries' writer threads would each tell it again.
        sys.stdout.flush()
        os._exit(status)


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """Leaves a disk that fails under a library's writer thread for the main thread to tell."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _in_library_thread(failure: Any) -> None:
    """Drops what TensorStore's threads have to say when the disk failed and nobody waits for them.

    They call into an event loop that is closed by then.
    """
    elsewhere = threading.current_thread() != threading.main_thread()
    if not (elsewhere and isinstance(failure.exc_value, RuntimeError)):
        sys.__unraisablehook__(failure)


def _tell(sentence: str, *, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return status


def by_preset(config: Config, presets: Mapping[str, Mapping[str, Any]]) -> Config:
    """Fills the fields that are None with those of `config.preset`."""
    chosen = presets[config.preset]
    missing = {name: v for name, v in chosen.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **missing)
