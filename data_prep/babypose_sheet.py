"""The annotation sheet of an infant: twelve joints a row, in an .xlsx file.

n rows, one a frame.
"""

import io
import itertools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.raw_files import MOST_BYTES, read_bytes, unzipped
from jaxbed.data.depth import JOINTS
from jaxbed.errors import InputError, short

Cell = str | float | int | None
Column = tuple[str, str]
"""What a column holds: a joint and "x", "y" or, where a cell holds both, "xy"."""

_HEADER_ROWS = 5  # of which one must name the columns
_MOST_ROWS, _MOST_COLUMNS = 50_000, 100
_SIDE_AND_AXIS = re.compile("(?P<axis>[xy]?)(?P<side>left|right|l|r)(?P<axis_behind>[xy]?)")
_FRAME = "frame|image|file"
_MISSING = ("", "-", "nan", "none", "null", "n/a")


class Sheet(NamedTuple):
    """An infant's annotations.

    Attributes:
        frame: the number of the frame that each of the n rows is about; None if the sheet does
            not number them.
        joints_px: f64[n,12,2], (x, y) in pixels of the camera's frame, in the order of JOINTS;
            NaN where missing.
    """

    frame: list[int] | None
    joints_px: np.ndarray


class Layout(NamedTuple):
    """Where a sheet tells what.

    Attributes:
        first: the number of rows before the first frame's.
        columns: what each column of joints tells, by its index.
        frame: index of the column that numbers the frames; None without one.
    """

    first: int
    columns: dict[int, Column]
    frame: int | None


def read_sheet(path: Path, joint_order: Sequence[str] = ()) -> Sheet:
    """Reads the annotations of an infant.

    Args:
        path: an .xlsx file, of which the first sheet is read.
        joint_order: the joints in the order of the sheet's last columns, for a sheet that does
            not name them; empty to go by the names.

    Raises:
        InputError: if this is no such sheet, or if a cell cannot be understood.
    """
    rows = _read_rows(path)
    layout = _layout_by_order(path, rows, joint_order) if joint_order else _layout(path, rows)
    frame, joints = [], np.full((len(rows) - layout.first, len(JOINTS), 2), np.nan)
    for i, row in enumerate(rows[layout.first :]):
        try:
            if layout.frame is not None:
                frame.append(_frame(row[layout.frame]))
            for index, (joint, axes) in layout.columns.items():
                joints[i, JOINTS.index(joint), ["xy".index(axis) for axis in axes]] = _coordinates(
                    row[index], count=len(axes)
                )
        except ValueError as error:
            raise InputError(
                f"{path}, row {layout.first + i + 1}, {error}; mend the cell."
            ) from error
    joints[(joints == 0).all(axis=-1)] = np.nan
    return Sheet(frame if layout.frame is not None else None, joints)


def number_in(name: str) -> int | None:
    """Returns the last number in the name of a frame: 12 in "16bit_000012.png".

    None without a number of at most 9 digits, which is what an i32 can hold.
    """
    digits = re.findall(r"(?<!\d)\d{1,9}(?!\d)", name)
    return int(digits[-1]) if digits else None


def _read_rows(path: Path) -> list[tuple[Cell, ...]]:
    """Reads the first sheet, without the empty rows and columns that end it."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is an .xlsx sheet, which needs openpyxl to read; install it with "
            "`pip install -e '.[babypose]'`."
        ) from error
    try:
        content = read_bytes(path)
        if sum(len(part) for _, part in unzipped(io.BytesIO(content))) > MOST_BYTES:
            raise ValueError(f"unpacks to more than {MOST_BYTES:,} bytes")
        with warnings.catch_warnings(action="ignore"):  # openpyxl's, of parts that it does not read
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            # A row may claim any number, and openpyxl makes up all that are missing before it.
            rows = list(
                book.worksheets[0].iter_rows(
                    max_row=_MOST_ROWS + 1, max_col=_MOST_COLUMNS + 1, values_only=True
                )
            )
        if len(rows) > _MOST_ROWS or any(row[_MOST_COLUMNS] is not None for row in rows):
            raise ValueError(f"has more than {_MOST_ROWS:,} rows or {_MOST_COLUMNS} columns")
    except Exception as error:  # zip, XML and openpyxl each raise their own
        raise InputError(
            f"{path} is not a complete .xlsx file ({short(error)}); download it again."
        ) from error
    filled = [
        (i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell is not None
    ]
    height, width = (1 + max(ends) for ends in zip(*filled, strict=True)) if filled else (0, 0)
    return [(*row, *[None] * width)[:width] for row in rows[:height]]


def _layout(path: Path, rows: Sequence[tuple[Cell, ...]]) -> Layout:
    """Finds the columns by their names."""
    header = (i for i, row in enumerate(rows[:_HEADER_ROWS]) if any(map(_column, row)))
    if (header := next(header, None)) is None:
        raise InputError(
            f"{path} names no joint such as left_shoulder_x in its first {_HEADER_ROWS} rows; "
            "tell the order of its columns with --joint-order."
        )
    names, first = rows[header], header + 1
    below = [_letters(cell) for cell in rows[first]] if first < len(rows) else []
    if set(below) - {""} == {"x", "y"}:  # each name spans two cells, with the axes below it
        first += 1
        spanning = itertools.accumulate(names, lambda left, name: left if name is None else name)
        names = [
            f"{span} {axis}" if axis else name
            for name, span, axis in zip(names, spanning, below, strict=True)
        ]
    columns = {i: column for i, name in enumerate(names) if (column := _column(name))}
    if sorted(columns.values()) not in (
        sorted(itertools.product(JOINTS, ("x", "y"))),
        sorted(itertools.product(JOINTS, ("xy",))),
    ):
        told = ", ".join(f"{joint} {axes}" for joint, axes in columns.values())
        raise InputError(
            f"{path} must name x and y of each of the 12 joints once, but names {told}; mend its "
            "header, or tell the order of its columns with --joint-order."
        )
    numbering = (i for i, name in enumerate(names) if re.search(_FRAME, _letters(name)))
    return Layout(first, columns, next(numbering, None))


def _layout_by_order(
    path: Path, rows: Sequence[tuple[Cell, ...]], joint_order: Sequence[str]
) -> Layout:
    """Takes the last columns for x and y of one joint after the other."""
    columns = list(itertools.product(joint_order, ("x", "y")))
    for first, row in enumerate(rows):
        if any(isinstance(cell, int | float) for cell in row):
            if len(row) < len(columns):
                break
            return Layout(first, dict(enumerate(columns, start=len(row) - len(columns))), None)
    width = len(rows[0]) if rows else 0
    raise InputError(
        f"{path} has {width} columns, but --joint-order needs {len(columns)} columns of numbers; "
        "mend the sheet."
    )


def _letters(cell: Cell) -> str:
    return re.sub("[^a-z]", "", cell.lower()) if isinstance(cell, str) else ""


def _column(name: Cell) -> Column | None:
    """Tells what a column holds by its name, whatever the order and spelling of its parts."""
    letters = _letters(name)
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        before, found, behind = letters.partition(joint)
        if found and (match := _SIDE_AND_AXIS.fullmatch(before + behind)):
            side = "left" if match["side"].startswith("l") else "right"
            return f"{side}_{joint}", match["axis"] or match["axis_behind"] or "xy"
    return None


def _coordinates(cell: Cell, *, count: int) -> list[float]:
    """Reads one coordinate, or two as "x, y"; NaN where missing.

    Raises:
        ValueError: telling what the cell holds instead.
    """
    text = "" if cell is None else str(cell).strip().lower()
    if text in _MISSING:
        return [np.nan] * count
    try:
        values = [float(part) for part in text.strip("()[] ").replace(";", ",").split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        expected = "a number" if count == 1 else "x and y with a comma between them"
        raise ValueError(f"holds {text[:40]!r} where {expected} or nothing belongs")
    return values


def _frame(cell: Cell) -> int:
    """Reads the number of a frame. Raises ValueError telling what the cell holds instead."""
    number = number_in(f"{cell:.0f}" if isinstance(cell, float) else str(cell))
    if number is None:
        raise ValueError(f"holds {str(cell)[:40]!r} where the number of a frame belongs")
    return number
