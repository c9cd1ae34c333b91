"""Labels of night images: postures and blankets as people write them, and CSV files of them."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_prep.raw_files import csv_lines, is_file, read_bytes
from jaxbed.data.night import POSTURES, UNKNOWN
from jaxbed.errors import InputError, short

_POSTURES = {
    "supine": "supine back onback lyingonback faceup",
    "prone": "prone stomach onstomach lyingonstomach belly onbelly lyingonbelly facedown",
    "left": "left leftside onleftside onleft lyingonleftside leftlateral",
    "right": "right rightside onrightside onright lyingonrightside rightlateral",
}
_BLANKETS = {
    1: "1 on with withblanket blanket covered cover yes true",
    0: "0 off without withoutblanket noblanket uncovered uncover none no false",
    UNKNOWN: "-1 unknown ? na n/a nan",
}
_POSTURE = {
    word: POSTURES.index(name) for name, words in _POSTURES.items() for word in words.split()
}
_BLANKET = {"": UNKNOWN} | {
    word: number for number, words in _BLANKETS.items() for word in words.split()
}


class Label(NamedTuple):
    """What is told of an image or a video.

    Attributes:
        posture: index into POSTURES.
        blanket: 1 with a blanket on, 0 without, UNKNOWN where not told.
        subject: who lies there.
    """

    posture: int
    blanket: int
    subject: str


class Row(NamedTuple):
    """A line of a CSV file.

    Attributes:
        where: the file and the line, for messages.
        cells: what stands in its columns, by their names; "" where nothing does.
    """

    where: str
    cells: dict[str, str]


def posture(text: str, where: object) -> int:
    """Understands the name of a posture, however it is spelt.

    Args:
        text: for example "supine", "back" or "Left side".
        where: the folder, or the file and line, that says so.

    Returns:
        Index into POSTURES.

    Raises:
        InputError: if this is none of the known spellings.
    """
    found = _POSTURE.get(_spelling(text))
    if found is None:
        raise InputError(
            f"{where} names the posture {text!r}, which must be one of {', '.join(POSTURES)} (or "
            "back, stomach, left_side, right_side); rename it."
        )
    return found


def blanket(text: str, where: object) -> int:
    """Understands whether a blanket is on, however it is spelt.

    Args:
        text: for example "on", "without", "0" or "unknown".
        where: the folder, or the file and line, that says so.

    Returns:
        1, 0 or UNKNOWN.

    Raises:
        InputError: if this is none of the known spellings.
    """
    found = _BLANKET.get(_spelling(text))
    if found is None:
        raise InputError(
            f"{where} names the blanket {text!r}, which must be one of on, off, with, without, 1, "
            "0 and unknown; rename it."
        )
    return found


def label(row: Row) -> Label:
    """Understands the columns posture, blanket and subject of a line; blanket may be absent."""
    if not row.cells["subject"]:
        raise InputError(f"{row.where} must name a subject; fill it in.")
    return Label(
        posture=posture(row.cells["posture"], row.where),
        blanket=blanket(row.cells.get("blanket", ""), row.where),
        subject=row.cells["subject"],
    )


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Reads a CSV file whose first line names its columns.

    Args:
        path: comma-separated UTF-8 text.
        required: columns that there must be; others are read as well.

    Raises:
        InputError: if this is no such file, or if it holds no line.
    """
    lines = csv_lines(path, _content(path))
    lines = [(number, cells) for number, cells in lines if any(map(str.strip, cells))]
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{path} must open with a line that names the columns {', '.join(required)}, but "
            f"names {short(', '.join(header)) or 'none'}; add {', '.join(missing)}."
        )
    if len(lines) == 1:
        raise InputError(f"{path} names nothing below its first line; add a line for each.")
    return [
        Row(
            where=f"{path} line {number}",
            cells=dict.fromkeys(header, "")
            | {name: cell.strip() for name, cell in zip(header, cells, strict=False)},
        )
        for number, cells in lines[1:]
    ]


def listed_file(row: Row, column: str, folder: Path) -> str:
    """Finds the file that a line names.

    Returns:
        Its path within `folder`, with slashes, spelt in one way only.

    Raises:
        InputError: if the line names no file, one outside the folder, or one that is not there.
    """
    named = PurePosixPath(row.cells[column])
    if not row.cells[column] or named.is_absolute() or ".." in named.parts:
        raise InputError(
            f"{row.where} names {row.cells[column]!r} as its {column}, which must be a file "
            f"inside {folder}, told from there; mend it."
        )
    if not is_file(folder / named):
        raise InputError(
            f"{row.where} names {named}, which is not in {folder}; add the file or remove the line."
        )
    return named.as_posix()


def _spelling(text: str) -> str:
    """Makes "Left side", "left_side" and "LEFT-SIDE" one."""
    return re.sub(r"(?<=[a-z])[\s_-]+(?=[a-z])", "", text.strip().lower())


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except ValueError as error:
        raise InputError(f"{path} {error}; point --labels at the CSV.") from error
