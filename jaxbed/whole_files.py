"""Files that appear whole or not at all: written beside their place, then renamed into it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_kept = True


def keep_nothing() -> None:
    """Makes every later writing in this process do nothing: another one writes the same."""
    global _kept
    _kept = False


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file and puts it at `path` when it is complete.

    A file that was at `path` before stays until then.

    Args:
        path: where the file is to be, in a folder that exists.
        write: takes the path to write to.
    """
    if not _kept:
        return
    partial = path.with_name(f"{path.name}.tmp")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes what `plain` makes of the content."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Returns what JSON can hold: arrays as lists, paths as text, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy or JAX
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
