"""Prepared sets: what holds for every kind, tried with pressure maps and depth frames."""

import dataclasses
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxbed.data import prepared, prepared_depth, prepared_pressure
from jaxbed.data.depth import JOINTS, DepthFrames
from jaxbed.data.prepared import complete_or_absent
from jaxbed.data.prepared_depth import read_depth_frames, write_depth_frames
from jaxbed.data.prepared_pressure import read_pressure_maps, write_pressure_maps
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError

COUNT = 700


def pressure_maps() -> PressureMaps:
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 100, (COUNT, 3, 2)).astype(np.float32)
    joints[0, 1] = np.nan
    return PressureMaps(
        name="bed",
        mat=Mat(rows=4, columns=3, pitch_mm=25.4, unit="count", full_scale=500.0),
        pressure=rng.uniform(0, 4095, (COUNT, 4, 3)).astype(np.float32),
        # Names grow longer, so that a width taken from the first would cut them.
        subject=np.array([f"S{i // 2} Zoë" for i in range(COUNT)]),
        posture=rng.integers(0, 4, COUNT).astype(np.int32),
        label=rng.integers(0, 2, COUNT).astype(np.int32),
        label_names=("1 flat", "2 raised, 30"),
        joints_mm=joints,
        skipped=("a.txt: empty", "b.txt: letters"),
        extra={
            "frame": np.arange(COUNT, dtype=np.int32),
            "incline_deg": np.where(np.arange(COUNT) % 2, np.nan, 30).astype(np.float32),
        },
    )


def depth_frames() -> DepthFrames:
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 8, (COUNT, 12, 2)).astype(np.float32)
    joints[3:5, 1] = np.nan
    return DepthFrames(
        name="bed",
        depth_mm=rng.integers(0, 65535, (COUNT, 6, 8), np.uint16, endpoint=True),
        joints_px=joints,
        subject=np.array([f"S{i // 2} Zoë" for i in range(COUNT)]),
        recording=np.array([f"S{i // 2}_{i % 2}" for i in range(COUNT)]),
        skipped=("a.txt: empty", "b.txt: letters"),
        extra={"frame": np.arange(COUNT, dtype=np.int32)},
    )


class Kind(NamedTuple):
    """A set of 700 records and what writes, reads and sums up its like."""

    data: Any
    write: Callable
    read: Callable
    summary: Callable
    size: str


KINDS = {
    "pressure": lambda: Kind(
        pressure_maps(),
        write_pressure_maps,
        read_pressure_maps,
        prepared_pressure.summary,
        "4 x 3 cells",
    ),
    "depth": lambda: Kind(
        depth_frames(),
        write_depth_frames,
        read_depth_frames,
        prepared_depth.summary,
        "700 recordings, 6 x 8 pixels",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]()


@pytest.fixture
def folder(kind, tmp_path) -> Path:
    kind.write(kind.data, tmp_path, frames_read=COUNT + 2, licence="CC0", homepage="here")
    return tmp_path


def test_a_set_reads_back_as_it_was_written(kind, folder):
    read = kind.read(folder, "bed")
    for field in dataclasses.fields(kind.data):
        expected, found = getattr(kind.data, field.name), getattr(read, field.name)
        if field.name == "extra":
            assert found.keys() == expected.keys()
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name], strict=True)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(found, expected, strict=True)
        else:
            assert found == expected, field.name


def test_a_set_without_joints_reads_back_without(tmp_path):
    maps = dataclasses.replace(pressure_maps(), joints_mm=None)
    write_pressure_maps(maps, tmp_path, frames_read=COUNT)
    assert read_pressure_maps(tmp_path, "bed").joints_mm is None


def test_the_metadata_count_what_was_read_and_tell_the_licence(folder):
    info = tfds.builder_from_directory(folder / "bed" / "1.0.0").info
    assert info.metadata["frames"] == {"read": COUNT + 2, "kept": COUNT, "skipped": 2}
    assert info.redistribution_info.license == "CC0"
    assert info.homepage == "here"


def test_tensorflow_is_never_loaded(kind, folder):
    kind.read(folder, "bed")
    assert "tensorflow" not in sys.modules


def test_columns_of_different_lengths_are_refused(kind, tmp_path):
    broken = dataclasses.replace(kind.data, subject=kind.data.subject[1:])
    with pytest.raises(ValueError, match="one length above 0"):
        kind.write(broken, tmp_path, frames_read=COUNT)
    assert not list(tmp_path.iterdir())


def test_the_summary_counts_and_gives_reasons(kind):
    assert kind.summary(kind.data, COUNT + 2).splitlines() == [
        f"bed: 702 frames read, 700 kept, 2 left out; 350 subjects, {kind.size}",
        "  left out: a.txt: empty",
        "  left out: b.txt: letters",
    ]


def test_an_absent_set_names_those_there_are_and_the_command(kind, folder):
    with pytest.raises(InputError, match=r"(?s)it holds bed.*`python -m data_prep\.\w+ --raw"):
        kind.read(folder, "experiment_i")
    with pytest.raises(InputError, match="there is no such folder"):
        kind.read(folder / "elsewhere", "experiment_i")


def test_a_set_of_another_kind_is_refused(tmp_path):
    write_depth_frames(depth_frames(), tmp_path, frames_read=COUNT)
    with pytest.raises(InputError, match="not a complete prepared set"):
        read_pressure_maps(tmp_path, "bed")


def _cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut_in_half, _flip_a_byte, lambda path: path.unlink()])
@pytest.mark.parametrize(
    "file",
    ["bed-train.array_record-00000", "metadata.json", "features.json", "dataset_info.json"],
)
def test_a_damaged_set_is_refused_in_one_sentence(kind, folder, file, damage):
    damage(folder / "bed" / "1.0.0" / file)
    with pytest.raises(InputError, match="not a complete prepared set") as refusal:
        kind.read(folder, "bed")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "wrong", "reason"),
    [
        ("pressure", {"rows": 5}, "metadata.json says"),
        ("pressure", {"rows": "many"}, "ValueError"),
        ("pressure", {"skipped": None}, "TypeError"),
        ("depth", {"height": 5}, "metadata.json says"),
        ("depth", {"joints": list(reversed(JOINTS))}, "the joints are not right_shoulder"),
    ],
)
def test_wrong_metadata_are_refused(tmp_path, monkeypatch, make, wrong, reason):
    kind, metadata = KINDS[make](), prepared._metadata
    monkeypatch.setattr(prepared, "_metadata", lambda *known: metadata(*known) | wrong)
    kind.write(kind.data, tmp_path, frames_read=COUNT)
    with pytest.raises(InputError, match=reason):
        kind.read(tmp_path, "bed")


def test_a_full_disk_is_told_as_such(kind, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("write() failed: No space left on device; writing bed; at byte 5")

    monkeypatch.setattr(tfds.core.SequentialWriter, "add_examples", fail)
    with pytest.raises(OSError) as error:
        kind.write(kind.data, tmp_path, frames_read=COUNT)
    assert error.value.errno == errno.ENOSPC


def test_finished_work_appears_at_once(tmp_path):
    out = tmp_path / "a" / "b"
    with complete_or_absent(out) as partial:
        (partial / "file").write_text("done")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["file"]
    assert [path.name for path in out.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_unfinished_work_leaves_nothing_behind(tmp_path, failure):
    with pytest.raises(failure), complete_or_absent(tmp_path / "a" / "b") as partial:
        (partial / "file").write_text("half")
        raise failure
    assert not list(tmp_path.iterdir())


def test_existing_work_is_never_replaced(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    with (
        pytest.raises(InputError, match="already exists"),
        complete_or_absent(tmp_path / "full"),
    ):
        pass
    assert (tmp_path / "full" / "kept").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    with complete_or_absent(tmp_path / "empty") as partial:
        (partial / "file").write_text("done")
    assert (tmp_path / "empty" / "file").exists()


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="file is a file"),
        complete_or_absent(tmp_path / "file" / "out"),
    ):
        pass


def test_postures_are_the_contract_of_the_files(tmp_path):
    write_pressure_maps(pressure_maps(), tmp_path, frames_read=COUNT)
    labels = tmp_path / "bed" / "1.0.0" / "posture.labels.txt"
    assert labels.read_text().split() == list(POSTURES)
    labels.write_text("supine\nprone\nright\nleft\n")
    with pytest.raises(InputError, match="the postures are not"):
        read_pressure_maps(tmp_path, "bed")
