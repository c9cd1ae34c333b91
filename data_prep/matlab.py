"""Reads arrays of numbers from compressed MATLAB 5 files.

SciPy reads them too, but a damaged variable can crash the whole process there, or fill the memory.

Source: MathWorks, "MAT-file format", level 5: a header, then variables; each is an element, a tag
of type and length with what it names behind it, which holds other elements in turn.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np

MOST_BYTES = 100_000_000
"""Of all variables of a file together; the longest recording of UTD-MHAD has 17 million."""

_HEADER_BYTES, _LITTLE_ENDIAN = 128, b"\0\x01IM"
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_COMPLEX = 8  # a flag
_STORED = {
    **{1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4"},
    **{7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"},
}
_NUMBERS = range(6, 16)  # classes of arrays, from double to uint64


def read_array(content: bytes, name: str) -> np.ndarray:
    """Reads an array of real numbers.

    Args:
        content: of the file.
        name: of the variable.

    Returns:
        The array, in the type that its numbers are stored in: MATLAB takes a small one where the
        values allow.

    Raises:
        ValueError: telling what is wrong with the file.
    """
    for variable in _variables(content):
        match list(itertools.islice(_elements(variable), 4)):
            case [(6, flags), (5, sizes), (1, title), *values] if len(flags) == 8:
                if title == name.encode():
                    return _array(name, flags, sizes, values)
            case _:
                raise ValueError("is not a complete .mat file (a variable without a name)")
    raise ValueError(f"holds no {name}")


def _variables(content: bytes) -> Iterator[bytes]:
    """Gives the elements of every variable."""
    place, left = _HEADER_BYTES, MOST_BYTES
    if content[place - 4 : place] != _LITTLE_ENDIAN or len(content) == place:
        raise ValueError("is not a compressed .mat file, as those of UTD-MHAD are")
    while place < len(content):
        kind, size = _tag(content, place)
        if kind != _COMPRESSED:
            raise ValueError("is not a compressed .mat file, as those of UTD-MHAD are")
        begin, place = place + 8, place + 8 + size
        unpacker = zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(content[begin:place], left)
        except zlib.error as error:
            raise ValueError(f"is not a complete .mat file ({error})") from error
        left -= len(unpacked)
        if not unpacker.eof or left <= 0:
            raise ValueError("is not a complete .mat file, or too large: its variables do not end")
        if _tag(unpacked, 0) != (_MATRIX, len(unpacked) - 8):
            raise ValueError("is not a complete .mat file (no variable where one should be)")
        yield unpacked[8:]


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Gives the type and the content of every element."""
    place = 0
    while place < len(content):
        kind, size = _tag(content, place)
        begin = place + 8
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, begin = kind & 0xFFFF, kind >> 16, place + 4
        end = begin + size
        place = max(place + 8, -(-end // 8) * 8)
        if end > len(content) or begin % 8 and size > 4:
            raise ValueError("is not a complete .mat file (a variable ends early)")
        yield kind, content[begin:end]


def _tag(content: bytes, place: int) -> tuple[int, int]:
    try:
        return struct.unpack_from("<II", content, place)
    except struct.error as error:
        raise ValueError("is not a complete .mat file (it ends in a tag)") from error


def _array(name: str, flags: bytes, sizes: bytes, values: list[tuple[int, bytes]]) -> np.ndarray:
    kind, stored = values[0] if values else (0, b"")
    if flags[0] not in _NUMBERS or flags[1] & _COMPLEX or kind not in _STORED:
        raise ValueError(f"holds {name} as something else than real numbers")
    try:
        shape = np.frombuffer(sizes, "<i4").tolist()
        if min(shape) < 0:
            raise ValueError("a size below 0")
        return np.frombuffer(stored, _STORED[kind]).reshape(shape, order="F")
    except ValueError as error:
        raise ValueError(f"is not a complete .mat file ({error})") from error
