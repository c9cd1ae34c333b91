"""Corrupted inputs, what may become of them, and a sweep of many.

A reader that is given a corrupted input may read it, leave a part out and say so, or refuse it
with one sentence; it may not raise anything else, take long, take much memory, or write anything.
"""

import contextlib
import faulthandler
import re
import resource
import shutil
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxbed.errors import InputError

SECONDS = 10.0
"""How long one input may take; most take milliseconds."""
MEMORY_BYTES = 400_000_000
"""How much more memory may be taken, all inputs of a sweep together."""
ADDRESS_BYTES = 6_000_000_000
"""How much more address space one input may take. Threads reserve some of it, and SciPy 4 GiB where
a file claims so, which it never touches."""
LONGEST = 1000
"""Characters of a sentence that can still be read."""

_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Line breaks and other control characters, and what cannot be written as UTF-8."""

Files = Mapping[str, bytes]
"""Content by path within a folder."""


class Target(NamedTuple):
    """A reader and the smallest input that it reads.

    Attributes:
        name: of the reader.
        files: of the input.
        read: takes the folder of the input; may return lines that tell what was left out.
        pack: makes of the corrupted files those that are written, such as an archive of them.
        spared: files that are not corrupted.
    """

    name: str
    files: Files
    read: Callable[[Path], Iterable[str] | None]
    pack: Callable[[Files], Files] = dict
    spared: tuple[str, ...] = ()


class TookTooLong(BaseException):
    """Not an Exception: readers catch those of the libraries that they use."""


def sweep(target: Target, count: int, folder: Path, *, seed: int = 0) -> Counter:
    """Gives a reader many corrupted inputs.

    Args:
        target: the reader; its own files must be read.
        count: how many inputs.
        folder: an empty one to write them into.
        seed: of what is corrupted how.

    Returns:
        How many inputs were "read", "read in part" and "refused".

    Raises:
        AssertionError: an input was handled in another way; tells which, and how to make it.
    """
    given = folder / "given"
    write(given, target.pack(target.files))
    target.read(given)
    outcomes, failures, usual = Counter(), [], peak_bytes()
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)  # a hang that is not Python's
    try:
        for i, (files, done) in enumerate(inputs(target, count, seed=seed)):
            write(given, files)
            try:
                outcomes[outcome(target.read, given)] += 1
                assert [path.name for path in folder.iterdir()] == ["given"], "wrote beside it"
            except (Exception, TookTooLong) as error:
                failures.append(f"input {i} ({done}): {type(error).__name__}: {error}")
    finally:
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(given)
    grown = peak_bytes() - usual
    assert grown < MEMORY_BYTES, f"{target.name}: took {grown:,} bytes"
    listed = "\n  ".join(failures[:10])
    assert not failures, f"{target.name}: {len(failures)} of {count} not handled\n  {listed}"
    return outcomes


def inputs(target: Target, count: int, *, seed: int = 0) -> Iterator[tuple[Files, str]]:
    """Yields the files of corrupted inputs, and what was done to them."""
    for i in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(target.name.encode()), i])
        files, done = corrupted(target, rng)
        yield target.pack(files), done


def outcome(read: Callable[[Path], Iterable[str] | None], given: Path) -> str:
    """Reads an input within limits and tells what became of it.

    Returns:
        "read", "read in part" or "refused".
    """
    try:
        with limits():
            left_out = list(read(given) or ())
    except InputError as error:
        _check_sentence(str(error))
        names = [given.name, *(p.relative_to(given).as_posix() for p in given.rglob("*.*"))]
        assert any(name in str(error) for name in names), f"names no file: {error}"
        return "refused"
    for line in left_out:
        _check_sentence(line)
    return "read in part" if left_out else "read"


@contextlib.contextmanager
def limits(seconds: float = SECONDS, address_bytes: int = ADDRESS_BYTES) -> Iterator[None]:
    """Raises TookTooLong after some time, and MemoryError or so beyond some address space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        in_use = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + address_bytes, hard))
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def peak_bytes() -> int:
    """Tells how much memory this process had at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def corrupted(target: Target, rng: np.random.Generator) -> tuple[Files, str]:
    """Corrupts one or two files of a target.

    Returns:
        The files, and what was done to which.
    """
    files, done = dict(target.files), []
    names = sorted(files.keys() - set(target.spared))
    for _ in range(rng.choice([1, 1, 1, 2])):
        name = names[rng.integers(len(names))]
        if name not in files:
            continue
        if rng.random() < 0.03:
            done.append(f"{name} removed")
            del files[name]
            continue
        is_text = not files[name].translate(None, _TEXT)
        kinds = _ANY + (_OF_TEXT if is_text else _OF_BYTES)
        change = kinds[rng.integers(len(kinds))]
        done.append(f"{name} {change.__name__.strip('_')}")
        files[name] = change(files[name], rng)
    return files, ", ".join(done)


def write(folder: Path, files: Files) -> None:
    """Puts files into a folder, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _too_long(*_: Any) -> None:
    raise TookTooLong


def _check_sentence(sentence: str) -> None:
    assert not _NO_TEXT.search(sentence), f"not a line of text: {sentence[:LONGEST]!r}"
    assert len(sentence) <= LONGEST, f"{len(sentence)} characters: {sentence[:LONGEST]}"
    told = re.search("(?i)memory|unable to allocate|bad_alloc", sentence)
    assert not told, f"took too much memory: {sentence}"


# What is done to content of any kind.


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _emptied(content: bytes, rng: np.random.Generator) -> bytes:
    return b""


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=rng.choice([1, 1, 4, 32])) if content else ():
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = _stretch(content, rng)
    return content[:start] + rng.bytes(length) + content[start + length :]


def _zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = _stretch(content, rng)
    return content[:start] + bytes(length) + content[start + length :]


def _removed(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = _stretch(content, rng)
    return content[:start] + content[start + length :]


def _repeated(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = _stretch(content, rng)
    return content[: start + length] * int(rng.choice([1, 1, 20])) + content[start:]


def _of_another_kind(content: bytes, rng: np.random.Generator) -> bytes:
    return _OTHERS[rng.integers(len(_OTHERS))]


# What is done to bytes: numbers that a header may hold.


def _number_replaced(content: bytes, rng: np.random.Generator) -> bytes:
    width = int(rng.choice([1, 2, 4, 8]))
    number = rng.choice([0, 1, 1 << (8 * width - 1), (1 << (8 * width - 1)) - 1, -1])
    number = int(number) % (1 << 8 * width)
    # Headers come first: half of the places are there.
    reach = len(content) if rng.random() < 0.5 else min(256, len(content))
    place = int(rng.integers(max(reach - width, 1)))
    order = "little" if rng.random() < 0.7 else "big"
    return content[:place] + number.to_bytes(width, order) + content[place + width :]


# What is done to text: its lines, and the words and numbers in it.


def _line_repeated(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    i = rng.integers(len(lines))
    return b"".join(lines[: i + 1] + lines[i:])


def _line_removed(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    del lines[rng.integers(len(lines))]
    return b"".join(lines)


def _lines_shuffled(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[i] for i in rng.permutation(len(lines)))


def _word_replaced(content: bytes, rng: np.random.Generator) -> bytes:
    words = list(re.finditer(rb'"[^"\n]*"|[-\w.+/]+', content))
    if not words:
        return content
    word = words[rng.integers(len(words))]
    odd = _ODD[rng.integers(len(_ODD))]
    if word[0].startswith(b'"') and rng.random() < 0.5:
        odd = b'"' + odd.strip(b'"') + b'"'
    return content[: word.start()] + odd + content[word.end() :]


def _sign_replaced(content: bytes, rng: np.random.Generator) -> bytes:
    signs = list(re.finditer(rb"[^\w\s.]", content))
    if not signs:
        return content
    sign = signs[rng.integers(len(signs))]
    odd = [b"", b'"', b",", b"{", b"[", b"]", b"\n", b"\0", b"<", b"\\"]
    return content[: sign.start()] + odd[rng.integers(len(odd))] + content[sign.end() :]


def _stretch(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Draws the beginning and the length of a part, mostly a short one."""
    start = int(rng.integers(len(content) + 1))
    length = int(2 ** rng.uniform(0, np.log2(len(content) + 2)))
    return start, min(length, len(content) - start)


_TEXT = bytes([9, 10, 13, *range(32, 127)])
_ANY = (_cut, _emptied, _flipped, _overwritten, _zeroed, _removed, _repeated, _of_another_kind)
_OF_BYTES = (_number_replaced,) * 4
_OF_TEXT = (
    *(_line_repeated, _line_removed, _lines_shuffled, _sign_replaced),
    *(_word_replaced,) * 6,
)
_ODD = (
    *(b"0", b"-1", b"1e999", b"-1e300", b"nan", b"NaN", b"Infinity", b"-inf", b"1_0", b"0x1F"),
    *(b"9" * 19, b"9" * 30, b"9" * 5000, b"4294967296", b"2147483648", b"1.5", "٣".encode()),
    *(b"", b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"[[[0]]]", b'{"a": {}}'),
    *(b'"\\ud800"', b'"a\\nb"', b'"a\\u0000b"', "é\u2028".encode(), b"\xff\xfe", b"\0", b"\x1b[2J"),
    *(b"../../escaped", b"/etc/passwd", b"a/" * 2000, b"x" * 300, b"x" * 200_000),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"%s%n", b"=1+1", b"&amp;", b"<a>" * 1000),
)
_OTHERS = (
    *(b"PK\x03\x04" + bytes(60), b"\x89PNG\r\n\x1a\n" + bytes(60), b"\xff\xd8\xff\xe0" + bytes(60)),
    *(
        b"\xfd7zXZ\0" + bytes(60),
        b"\x1f\x8b\x08" + bytes(60),
        b"RIFF\xff\xff\xff\xffAVI " + bytes(60),
    ),
    *(b"\x93NUMPY\x01\0" + bytes(60), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n"),
    *(
        b"\xef\xbb\xbf",
        b"\n" * 1000,
        b"\r",
        b",,,,\n" * 100,
        b"null",
        b"{}",
        b"[]",
        b'"',
        b"\xff" * 64,
    ),
    *(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"<?xml version='1.0'?><a/>", b"MATLAB 5.0 MAT-file"),
)
