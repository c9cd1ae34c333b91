"""Reads a raw download, a folder or a .tar.xz, and checks it against its published digests."""

import lzma
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from jaxbed.errors import InputError


def files(raw: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Gives the path inside the data set and the content of every file.

    Args:
        raw: a folder, or a .tar.xz archive of one. An archive is read from end to end; nothing
            of it is written to disk.
        patterns: which files of a folder belong to the data set; all of an archive do.

    Raises:
        InputError: if `raw` does not exist, or is not a complete archive.
    """
    if raw.is_dir():
        return _files_of_folder(raw, patterns)
    if raw.exists():
        return _files_of_archive(raw)
    raise InputError(f"{raw} does not exist; point --raw at the download.")


def check_digests(listing: bytes, digests: Mapping[str, str]) -> None:
    """Checks that files are those of a SHA256SUMS listing.

    Args:
        listing: lines "DIGEST PATH".
        digests: the SHA-256 of what was found, in hexadecimal, by path.

    Raises:
        InputError: if the listing cannot be read, or a listed file is missing or another one.
    """
    published = {}
    for line in listing.decode("utf-8", "replace").splitlines():
        digest, _, file = line.partition(" ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not file.strip():
            raise InputError(
                f"the checksum listing holds the line {line[:80]!r} instead of a SHA-256 and a "
                "path; download the data again."
            )
        published[file.strip()] = digest
    missing = published.keys() - digests.keys()
    if missing:
        raise InputError(
            f"{min(missing)} is missing ({len(missing)} listed files are); download the data again."
        )
    changed = {file for file in published if published[file] != digests[file]}
    if changed:
        raise InputError(
            f"{min(changed)} is not the published file: its SHA-256 is not the listed one "
            f"({len(changed)} such files); download the data again."
        )


def _files_of_folder(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def _files_of_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r:xz") as members:
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(
                        f"{archive} holds {member.name!r}, which leads out of the archive; "
                        "download it again from its source."
                    )
                if member.isfile():
                    # An archive holds one folder, whatever its name.
                    yield "/".join(path.parts[1:]), members.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"{archive} is not a complete .tar.xz archive ({error}); download it again."
        ) from error
