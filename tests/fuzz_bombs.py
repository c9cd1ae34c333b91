"""Small files that claim, or unpack to, far more than fits into memory; test_fuzz.py runs this.

In a process of its own, so that its peak of memory is theirs.
"""

import io
import json
import lzma
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from tests import fuzz_night, fuzz_own, fuzz_raw
from tests.fuzz import MEMORY_BYTES, Target, outcome, peak_bytes, write

SIZE = 2_000_000_000
_BLOCK = 1 << 20


class Bomb(NamedTuple):
    """Files that replace those of a target: their content, or the size of nothing but a hole."""

    name: str
    target: str
    files: Mapping[str, bytes | int]


def main() -> None:
    """Reads every bomb; prints what became of it and the peak of memory."""
    targets = {
        target.name: target
        for target in (*fuzz_raw.targets(), *fuzz_night.targets(), *fuzz_own.targets())
    }
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given"
        for target in targets.values():
            write(given, target.pack(target.files))
            outcome(target.read, given)
        usual = peak_bytes()
        for bomb in bombs(targets):
            target = targets[bomb.target]
            write(given, target.pack(target.files))
            for name, content in bomb.files.items():
                place(given / name, content)
            told = outcome(target.read, given)
            grown = peak_bytes() - usual
            print(f"{bomb.name}: {told}, peak {grown / 1e6:.0f} MB above the usual", flush=True)
            assert told in ("refused", "read in part")
            assert grown < MEMORY_BYTES


def place(path: Path, content: bytes | int) -> None:
    if isinstance(content, int):
        os.truncate(path, content)
    else:
        path.write_bytes(content)


def bombs(targets: Mapping[str, Target]) -> Iterator[Bomb]:
    """Makes a bomb for every format, and a hole for every file that is read whole."""
    yield from archive_bombs()
    yield from sheet_bombs(targets["babypose sheets' parts"].files)
    yield Bomb("image of 16 bits", "babypose images", {"pz2/1.png": png(30_000, 16)})
    yield Bomb("image of 8 bits", "image_folder", {"supine/on/anna_1.png": png(45_000, 8)})
    jpeg = targets["image_folder"].files["supine/off/anna_2.jpg"]
    size = struct.pack(">HH", 20, 24)
    jpeg = jpeg.replace(size, struct.pack(">HH", 65_000, 65_000), 1)
    yield Bomb("JPEG that claims a size", "image_folder", {"supine/off/anna_2.jpg": jpeg})

    depth = "Depth/a4_s2_t1_depth.mat"
    packed = deflated(SIZE, 15)
    head = bytes(124) + b"\0\1IM\x0f\0\0\0" + len(packed).to_bytes(4, "little")
    yield Bomb(".mat variable", "utd_mhad files", {depth: head + packed})
    content = io.BytesIO()
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.zeros((2, 3))
    scipy.io.savemat(content, {"d_depth": cells})
    cells = content.getvalue().replace(struct.pack("<ii", 1, 1), struct.pack("<ii", 20_000, 20_000))
    yield Bomb(".mat cells", "utd_mhad files", {depth: fuzz_raw.mat_compressed(cells)})

    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    npy = b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head
    yield Bomb("matrix", "mat_folder", {"n/2.npy": npy})
    avi = targets["videos"].files["a.avi"]
    small, large = struct.pack("<II", 32, 32), struct.pack("<II", 16_000, 16_000)
    yield Bomb("video", "videos", {"a.avi": avi.replace(small, large)})
    claim = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    head = json.dumps(claim).encode()
    yield Bomb("weights", "safetensors", {"a.safetensors": len(head).to_bytes(8, "little") + head})
    yield Bomb("header", "safetensors", {"a.safetensors": (1 << 62).to_bytes(8, "little")})
    for kind in ("pressure", "depth", "night"):
        home, files = "bed/1.0.0", targets[f"prepared {kind}"].files
        many = {
            f"{home}/{name}.json": re.sub(
                pattern, rb"\g<1>1000000000000", files[f"{home}/{name}.json"]
            )
            for name, pattern in (
                ("dataset_info", rb'("shardLengths": \[\s*")\d+'),
                ("metadata", rb'("kept": )\d+'),
            )
        }
        yield Bomb(f"prepared {kind} of many records", f"prepared {kind}", many)

    for target, name in (
        ("pmd folder", "experiment-i/S1/4.txt"),
        ("popu folder", "tactilus_data/4/left1_0.json"),
        ("body parts", "segments.json"),
        ("mat_folder", "mat.json"),
        ("mat_folder", "labels.csv"),
        ("mat_folder", "n/1.csv"),
        ("utd_mhad files", depth),
        ("babypose images", "pz2/1.png"),
        ("babypose sheets", "pz2/joints.xlsx"),
        ("image_folder", "supine/on/anna_1.png"),
        ("image labels", "labels.csv"),
        ("video labels", "turns.csv"),
        ("safetensors", "a.safetensors"),
        ("prepared pressure", "bed/1.0.0/features.json"),
        ("prepared depth", "bed/1.0.0/metadata.json"),
    ):
        yield Bomb(f"hole in {name} of {target}", target, {name: 50 * SIZE})


def archive_bombs() -> Iterator[Bomb]:
    """Makes archives of PMD and PoPu."""
    zeros = lzma.compress(bytes(32 * _BLOCK), preset=1) * (SIZE // (32 * _BLOCK))
    name = "top/experiment-i/S1/4.txt"
    for what, head in (
        ("member", tar_header(name, SIZE)),
        ("name", tar_header("././@LongLink", SIZE, b"L") + tar_header(name, 0)),
        ("attributes", tar_header("././@PaxHeader", SIZE, b"x") + tar_header(name, 0)),
        ("less than no member", tar_header(name, -(1 << 20))),
    ):
        yield Bomb(f"{what} of .tar.xz", "pmd archive", {"pmd.tar.xz": lzma.compress(head) + zeros})
    for what, claimed in (("honest", SIZE), ("lying", 1000)):
        content = zipped("tactilus_data/4/left1_0.json", claimed)
        yield Bomb(f"{what} .zip", "popu archive", {"popu.zip": content})
        content = zipped("xl/sharedStrings.xml", claimed)
        yield Bomb(f"{what} .xlsx", "babypose sheets", {"pz2/joints.xlsx": content})


def sheet_bombs(parts: Mapping[str, bytes]) -> Iterator[Bomb]:
    """Makes sheets that are small even when unpacked."""
    name = "xl/worksheets/sheet1.xml"
    wide = re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:XFD1048576"', parts[name])
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 100}">' for i in range(5))
    laughs = f'<!DOCTYPE worksheet [<!ENTITY e0 "ha">{entities}]>'.encode()
    for what, sheet in (
        ("wide sheet", wide.replace(b'<row r="3"', b'<row r="1048576"')),
        ("long sheet", wide.replace(b'<row r="3"', b'<row r="999999999999"')),
        ("sheet with entities", laughs + parts[name].replace(b"<v>", b"<v>&e5;", 1)),
    ):
        assert sheet != parts[name]
        content = fuzz_raw.zip_of({**parts, name: sheet})
        yield Bomb(what, "babypose sheets", {"pz2/joints.xlsx": content})


def deflated(size: int, wbits: int) -> bytes:
    """Returns zeros as zlib packs them, without the checksum behind them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    begin = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + block * (size // _BLOCK) + b"\x03\0"


def tar_header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """Returns a member's header; a size below 0 is written as GNU tar writes large ones."""
    number = b"%011o\0" % size if size >= 0 else (size % (1 << 96)).to_bytes(12, "big")
    head = bytearray(name.encode().ljust(100, b"\0") + bytes(24) + number + bytes(12))
    head += b" " * 8 + kind + bytes(100) + b"ustar\x0000"
    head += bytes(512 - len(head))
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def zipped(name: str, claimed: int) -> bytes:
    """Returns an archive of one member, which unpacks to SIZE zeros and claims another size."""
    packed, name = deflated(SIZE, -15), name.encode()
    about = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0)
    member = b"PK\x03\x04" + about + name + packed
    listed = b"PK\x01\x02\x14\0" + about + bytes(14) + name
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(listed), len(member), 0)
    return member + listed + b"PK\x05\x06" + end


def png(side: int, bits: int) -> bytes:
    """Returns a black image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    size = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    pixels = deflated(side * side * bits // 8, 15)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


if __name__ == "__main__":
    main()
