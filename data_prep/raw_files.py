"""Reads raw files, archives and tables within bounds, and checks published digests."""

import csv
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from jaxbed.errors import InputError, short

MOST_BYTES = 32_000_000
"""Of one file of a data set, unpacked: ten times the largest of those that are read here."""

MOST_UNPACKED_BYTES = 8_000_000_000
"""Of all files of an archive together."""

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Kinds of images that are read, by Pillow's names. It knows more, some of which start programs."""

# Line breaks and other control characters but tabs, and bytes of a name that are not UTF-8.
_NO_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 500


def files(raw: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Gives the path inside the data set and the content of every file.

    Args:
        raw: a folder, or a .tar.xz archive of one. An archive is read from end to end; nothing
            of it is written to disk.
        patterns: which files of a folder belong to the data set; all of an archive do.

    Raises:
        InputError: if `raw` does not exist, is not a complete archive, or holds what cannot be
            of the data set: a file that is too large, a name that leads elsewhere.
    """
    if raw.is_dir():
        return _files_of_folder(raw, patterns)
    if raw.exists():
        return _files_of_archive(raw)
    raise InputError(f"{raw} does not exist; point --raw at the download.")


def read_bytes(path: Path) -> bytes:
    """Reads a file. Raises ValueError telling why it cannot."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"has {size:,} bytes, above {MOST_BYTES:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from error


def is_file(path: Path) -> bool:
    """Tells whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def csv_lines(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
    """Reads comma-separated text.

    Args:
        path: of the file, for messages.
        content: the file's.

    Returns:
        The number, from 1, and the cells of every line that is not empty.

    Raises:
        InputError: if it is not such text, in UTF-8, with short cells of one line each.
    """
    try:
        reader = csv.reader(content.decode("utf-8-sig").splitlines(), skipinitialspace=True)
        lines, before = [], 0
        for cells in reader:
            if reader.line_num > before + 1:
                raise csv.Error(f"a quotation that line {before + 1} opens does not end there")
            before = reader.line_num
            if any(len(cell) > _LONGEST or _NO_TEXT.search(cell) for cell in cells):
                raise csv.Error(f"line {before} has a cell that is too long or not printable")
            if cells:
                lines.append((before, cells))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as such.") from error
    except csv.Error as error:
        raise InputError(f"{path} is not comma-separated text ({error}); mend it.") from error
    return lines


def unzipped(
    archive: Path | BinaryIO, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes]]:
    """Gives the path and the content of files in a .zip archive; writes nothing to disk.

    Raises:
        ValueError: telling what is wrong with the archive.
    """
    left = MOST_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                if member.is_dir() or not wanted(member.filename):
                    continue
                # Other ways to compress unpack everything at once, whatever is asked for.
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{short(member.filename)} is not packed by deflate")
                left -= member.file_size
                if member.file_size > MOST_BYTES or left < 0:
                    raise ValueError(
                        f"a file of it claims more than {MOST_BYTES:,} bytes, or all of them more "
                        f"than {MOST_UNPACKED_BYTES:,}"
                    )
                with opened.open(member) as file:
                    yield member.filename, file.read(MOST_BYTES)  # no more than it says it holds
    except Exception as error:  # a damaged archive makes zipfile raise nearly anything
        raise ValueError(short(error)) from error


def check_name(name: str, where: Path) -> None:
    """Refuses the name of a file that cannot stand in a line of a report.

    Raises:
        InputError: if it holds line breaks, other control characters, or bytes that are not
            UTF-8; or if it is too long.
    """
    if len(name) > _LONGEST or _NO_TEXT.search(name):
        raise InputError(
            f"{where} holds the name '{short(name)}', which is not printable UTF-8 text of at most "
            f"{_LONGEST} characters; rename it."
        )


def check_digests(listing: bytes, digests: Mapping[str, str], where: str) -> None:
    """Checks that files are those of a SHA256SUMS listing.

    Args:
        listing: lines "DIGEST PATH".
        digests: the SHA-256 of what was found, in hexadecimal, by path.
        where: the listing, for messages.

    Raises:
        InputError: if the listing cannot be read, or a listed file is missing or another one.
    """
    published = {}
    for line in listing.decode("utf-8", "replace").splitlines():
        digest, _, file = line.partition(" ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not file.strip():
            raise InputError(
                f"{where}: the checksum listing holds the line {line[:80]!r} instead of a SHA-256 "
                "and a path; download the data again."
            )
        published[file.strip()] = digest
    missing = published.keys() - digests.keys()
    if missing:
        raise InputError(
            f"{short(min(missing))} is missing ({len(missing)} files that {where} lists are); "
            "download the data again."
        )
    changed = {file for file in published if published[file] != digests[file]}
    if changed:
        raise InputError(
            f"{short(min(changed))} is not the published file: its SHA-256 is not the one that "
            f"{where} lists ({len(changed)} such files); download the data again."
        )


def _files_of_folder(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                check_name(name, folder)
                try:
                    content = read_bytes(path)
                except ValueError as error:
                    raise InputError(f"{path} {error}; download the data again.") from error
                yield name, content


def _files_of_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    left = MOST_UNPACKED_BYTES
    try:
        with (
            lzma.open(archive) as unpacked,
            tarfile.open(fileobj=_AtMost(unpacked), mode="r:") as members,
        ):
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(
                        f"{archive} holds '{short(member.name)}', which leads out of the archive; "
                        "download it again from its source."
                    )
                check_name(member.name, archive)
                left -= max(member.size, 0)
                if not 0 <= member.size <= MOST_BYTES or left < 0:
                    raise InputError(
                        f"{archive} holds {member.name}, which claims {member.size:,} bytes, where "
                        f"a file has at most {MOST_BYTES:,} and all files {MOST_UNPACKED_BYTES:,}; "
                        "download it again from its source."
                    )
                if member.isfile():
                    # An archive holds one folder, whatever its name.
                    yield "/".join(path.parts[1:]), members.extractfile(member).read()
    except InputError:
        raise
    except Exception as error:  # a damaged archive makes tarfile and lzma raise nearly anything
        raise InputError(
            f"{archive} is not a complete .tar.xz archive ({short(error)}); download it again."
        ) from error


class _AtMost:
    """An open file for tarfile, which reads a header of any size at once."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_BYTES:
            raise tarfile.TarError(f"a header claims {size:,} bytes")
        return self._file.read(size)
