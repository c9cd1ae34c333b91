"""Readers of raw pressure maps and depth frames, with the smallest inputs, made up here."""

import hashlib
import io
import itertools
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import openpyxl
import scipy.io
from PIL import Image

from data_prep import babypose, mat_folder, pmd, popu, utd_mhad
from jaxbed.data.body_parts import read_outlines
from jaxbed.data.depth import JOINTS
from tests.fuzz import Files, Target

OUT = Path("never/written")


def tar_of(files: Files, top: str = "top") -> bytes:
    """Packs files into a tar archive below one folder."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, member in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


def xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=0)


def zip_of(files: Files) -> bytes:
    """Packs files into a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, member in files.items():  # with one date, so that a seed gives the same again
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pmd_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 99, (2, 64 * 32))
    rows = rng.integers(38, 99, (64, 27))
    files = {
        "experiment-i/S1/4.txt": lines("\t", frames),
        "experiment-ii/S8/Air_Mat/Matrix_Air_F4.txt": lines(" ", rows),
    }
    listed = (f"{hashlib.sha256(content).hexdigest()} {name}\n" for name, content in files.items())
    return {**files, "SHA256SUMS.txt": "".join(listed).encode()}


def lines(between: str, rows) -> bytes:
    return "".join(between.join(map(str, row)) + "\r\n" for row in rows).encode()


def read_pmd(folder: Path, raw: str = ".", *, verify: bool = False):
    config = pmd.Config(raw=folder / raw, out=OUT, verify=False)
    recordings = pmd.read_recordings(config.raw, verify=verify)
    skipped = []
    for experiment in pmd.EXPERIMENTS:
        maps, _ = pmd.assemble(experiment, recordings, config)
        skipped += maps.skipped
    return skipped


def pmd_targets():
    files = pmd_files()
    yield Target("pmd folder", files, read_pmd)
    yield Target("pmd checked", files, lambda folder: read_pmd(folder, verify=True))
    archived = lambda folder: read_pmd(folder, "pmd.tar.xz")  # noqa: E731
    tar = tar_of(files)
    yield Target("pmd archive", {"pmd.tar.xz": xz(tar)}, archived)
    yield Target(
        "pmd tar", {"pmd.tar": tar}, archived, lambda f: {"pmd.tar.xz": xz(f.get("pmd.tar", b""))}
    )


def popu_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for sensor, (rows, columns), level in (("tactilus", (64, 27), 3), ("sensomatt", (12, 6), 480)):
        for pose, load in (("empty1", 0), ("left1", 9)):
            readings = (level + rng.integers(0, load + 1, rows * columns)).tolist()
            facts = {
                "volunteer_id": "4",
                "sex": "female",
                "height": 168,
                "weight": 61.5,
                f"{sensor}_rows": rows,
                f"{sensor}_columns": columns,
                "position": pose[:-1],
                "variation": pose[-1],
                "snapshots": {"0": {"id": "2004", f"{sensor}_readings": readings}},
            }
            files[f"{sensor}_data/4/{pose}_0.json"] = json.dumps(facts).encode()
    square = [[40, 10], [60, 10], [60, 20], [40, 20]]
    polygon = {
        "original_width": 527,
        "original_height": 1168,
        "value": {"points": square, "polygonlabels": ["Head"]},
    }
    drawn = [{"id": 81, "annotations": [{"id": 19, "result": [polygon]}]}]
    files["segmentation_data/4/left1_tactilus.json"] = json.dumps(drawn).encode()
    return files


def read_popu(folder: Path, raw: str = "."):
    raw = folder / raw
    recordings, _, skipped = popu.read_files(raw)
    for sheet in popu.SHEETS:
        if found := recordings[sheet.name]:
            maps, _ = popu.assemble(sheet, found, raw)
            skipped += maps.skipped
    return [line for line in skipped if "of the empty mat, which are taken off" not in line]


def popu_targets():
    files = popu_files()
    archived = lambda folder: read_popu(folder, "popu.zip")  # noqa: E731
    yield Target("popu folder", files, read_popu)
    yield Target("popu archive", {"popu.zip": zip_of(files)}, archived)
    yield Target("popu zipped", files, archived, lambda f: {"popu.zip": zip_of(f)})


def segments_targets():
    square = [[40.0, 10.0], [60.0, 10.0], [60.0, 20.5]]
    segment = {"subject": "4", "pose": "left1", "part": "head", "corners_mm": square}
    files = {"segments.json": json.dumps({"segments": [segment] * 2}).encode()}
    yield Target("body parts", files, lambda folder: read_outlines(folder) and None)


def mat_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    mat = {
        **{"rows": 4, "columns": 3, "pitch_mm": 25.4, "head": "up", "mirrored": False},
        **{"baseline": 0, "saturation": 1000},
    }
    frame = rng.integers(0, 999, (4, 3))
    npy = io.BytesIO()
    np.save(npy, frame.astype(np.float32))
    labels = "file,subject,posture,blanket\nn/1.csv,anna,supine,duvet\nn/2.npy,bert,left,\n"
    return {
        "mat.json": json.dumps(mat).encode(),
        "labels.csv": labels.encode(),
        "n/1.csv": lines(",", frame),
        "n/2.npy": npy.getvalue(),
    }


def read_mat_folder(folder: Path):
    mat, mounting = mat_folder.read_mat(folder / "mat.json")
    labels = mat_folder.read_labels(folder / "labels.csv")
    return mat_folder.read_frames(folder, labels, mat, mounting).skipped


def mat_variable(**variables) -> bytes:
    content = io.BytesIO()
    scipy.io.savemat(content, variables)
    return b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:]  # without the date


def mat_compressed(content: bytes) -> bytes:
    """Compresses the one variable of a .mat file."""
    packed = zlib.compress(content[128:], 1)
    return content[:128] + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed


def utd_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    depth = np.zeros((240, 320, 3), np.uint16)
    depth[40:80, 100:140] = 2345
    metres = rng.uniform(0.5, 2, (20, 3, 3))
    return {
        "Depth/a4_s2_t1_depth.mat": mat_variable(d_depth=depth),
        "Skeleton/a4_s2_t1_skeleton.mat": mat_variable(d_skel=metres),
    }


def read_utd(folder: Path):
    frames, _ = utd_mhad.read_recordings(folder, (24, 32))
    return frames.skipped[:-1]


def utd_targets():
    inner = utd_files()

    def packed(files):
        return {name: mat_compressed(content) for name, content in files.items()}

    yield Target("utd_mhad files", packed(inner), read_utd)
    yield Target("utd_mhad variables", inner, read_utd, packed)
    yield Target("utd_mhad skeletons", inner, read_utd, packed, ("Depth/a4_s2_t1_depth.mat",))


def png(levels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "png", compress_level=1)
    return content.getvalue()


def babypose_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    depth = np.zeros((480, 640), np.uint16)
    depth[100:300, 200:400] = 900
    names = [f"{joint}_{axis}" for joint, axis in itertools.product(JOINTS, "xy")]
    book = openpyxl.Workbook()
    book.active.append(["frame", *names])
    for number in (1, 2):
        book.active.append([f"{number}.png", *rng.uniform(1, 400, 24).round(1).tolist()])
    sheet = io.BytesIO()
    book.save(sheet)
    parts = unzipped(sheet.getvalue())
    parts["docProps/core.xml"] = re.sub(
        rb"[\d-]+T[\d:]+Z", b"2020-01-01T00:00:00Z", parts["docProps/core.xml"]
    )
    return {
        "pz2/1.png": png(depth),
        "pz2/2.png": png((depth // 4).astype(np.uint8)),
        "pz2/joints.xlsx": zip_of(parts),
    }


def read_babypose(folder: Path):
    config = babypose.Config(raw=folder, out=OUT, size=(24, 32))
    return babypose.read_infants(config)[0].skipped


def babypose_targets():
    files = babypose_files()
    sheet = unzipped(files["pz2/joints.xlsx"])
    frames = {name: files[name] for name in ("pz2/1.png", "pz2/2.png")}
    yield Target("babypose images", files, read_babypose, spared=("pz2/joints.xlsx",))
    yield Target("babypose sheets", files, read_babypose, spared=tuple(frames))

    def packed(parts):
        return {**frames, "pz2/joints.xlsx": zip_of(parts)}

    yield Target("babypose sheets' parts", sheet, read_babypose, packed)


def mat_folder_targets():
    yield Target("mat_folder", mat_files(), read_mat_folder)


def targets():
    """Yields every reader of raw data but those of night images."""
    yield from pmd_targets()
    yield from popu_targets()
    yield from segments_targets()
    yield from mat_folder_targets()
    yield from utd_targets()
    yield from babypose_targets()
