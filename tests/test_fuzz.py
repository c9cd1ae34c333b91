"""Thousands of corrupted inputs, whole commands on some, and small files that unpack to a lot."""

import lzma
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from data_prep import babypose, image_folder, mat_folder, pmd, popu
from jaxbed.data.prepared_depth import read_depth_frames
from jaxbed.data.prepared_night import read_night_images
from jaxbed.data.prepared_pressure import read_pressure_maps
from tests import fuzz_night, fuzz_own, fuzz_raw
from tests.fuzz import inputs, outcome, sweep, write

COUNTS = {
    **{"pmd folder": 150, "pmd checked": 100, "pmd archive": 100, "pmd tar": 200},
    **{"popu folder": 150, "popu archive": 150, "popu zipped": 100, "body parts": 150},
    "mat_folder": 250,
    **{"utd_mhad files": 100, "utd_mhad variables": 100, "utd_mhad skeletons": 150},
    **{"babypose images": 80, "babypose sheets": 100, "babypose sheets' parts": 120},
    **{"image_folder": 120, "image labels": 100, "slp": 50},
    **{"videos": 150, "video labels": 100},
    **{"prepared pressure": 100, "prepared depth": 60, "prepared night": 60},
    **{"safetensors": 250, "retinaface": 50, "pth": 100},
    "checkpoints": 50,
}
"""How many inputs each reader gets: fewer where one takes long or differs little from others."""


@pytest.fixture(scope="module")
def targets():
    return {
        target.name: target
        for target in (*fuzz_raw.targets(), *fuzz_night.targets(), *fuzz_own.targets())
    }


def test_every_reader_gets_its_share(targets):
    assert COUNTS.keys() == targets.keys()
    assert sum(COUNTS.values()) >= 3000


@pytest.mark.parametrize("name", COUNTS)
def test_corrupted_inputs_are_read_left_out_or_refused(name, targets, tmp_path):
    outcomes = sweep(targets[name], COUNTS[name], tmp_path)
    assert outcomes.total() == COUNTS[name]
    assert outcomes["refused"] + outcomes["read in part"] > 0.05 * COUNTS[name]


@pytest.mark.parametrize(
    ("name", "command", "options", "read", "sets"),
    [
        ("pmd folder", pmd, {"verify": False}, read_pressure_maps, ["experiment_i"]),
        ("popu folder", popu, {}, read_pressure_maps, ["popu_over", "popu_under"]),
        ("mat_folder", mat_folder, {}, read_pressure_maps, ["mat_folder"]),
        ("babypose images", babypose, {"size": (24, 32)}, read_depth_frames, ["babypose"]),
        ("image_folder", image_folder, {"size": (16, 16)}, read_night_images, ["image_folder"]),
    ],
)
def test_a_command_leaves_a_complete_set_or_nothing(
    name, command, options, read, sets, targets, tmp_path, capsys
):
    given, out = tmp_path / "given", tmp_path / "out"
    made = 0
    for files, _ in inputs(targets[name], 12, seed=1):
        write(given, files)
        told = outcome(lambda raw: command.main(command.Config(raw=raw, out=out, **options)), given)
        if told == "refused":
            assert [path.name for path in tmp_path.iterdir()] == ["given"]
            continue
        made += 1
        for found in sets:
            if (out / found).exists():
                assert len(read(out, found)) > 0
        shutil.rmtree(out)
    assert made


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "a/../../x.json",
        "/tmp/x.json",
        "..\\x.json",
        "C:\\x.json",
        "tactilus_data/../4/x.json",
    ],
)
def test_members_of_a_zip_lead_nowhere(name, targets, tmp_path):
    target = targets["popu archive"]
    files = fuzz_raw.popu_files()
    content = next(iter(files.values()))
    given = tmp_path / "given"
    write(given, {"popu.zip": fuzz_raw.zip_of({**files, name: content})})
    before = sorted(tmp_path.rglob("*"))
    outcome(target.read, given)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/x.json").exists()


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../x.txt", tarfile.REGTYPE, ""),
        ("/tmp/x.txt", tarfile.REGTYPE, ""),
        ("top/../../x.txt", tarfile.DIRTYPE, ""),
        ("top/experiment-i/S1/9.txt", tarfile.SYMTYPE, "/etc/passwd"),
        ("top/experiment-i/S1/9.txt", tarfile.LNKTYPE, "../../x.txt"),
        ("top/experiment-i", tarfile.SYMTYPE, "/tmp"),
        ("top/experiment-i/S1/9.txt", tarfile.FIFOTYPE, ""),
        ("top/experiment-i/S1/9.txt", tarfile.CHRTYPE, ""),
    ],
)
def test_members_of_a_tar_lead_nowhere(name, kind, link, targets, tmp_path):
    target = targets["pmd archive"]
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    tar = member.tobuf() + fuzz_raw.tar_of(fuzz_raw.pmd_files())
    given = tmp_path / "given"
    write(given, {"pmd.tar.xz": lzma.compress(tar)})
    before = sorted(tmp_path.rglob("*"))
    told = outcome(target.read, given)
    assert told == ("refused" if ".." in name or name.startswith("/") else "read")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/x.txt").exists()


def test_small_files_that_unpack_to_a_lot_take_little_memory():
    """Some 40 of them, in a process that asserts its peak."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_bombs"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 30
