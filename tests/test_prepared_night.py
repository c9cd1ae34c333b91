"""Prepared sets of night images; what holds for sets of every kind is tried in test_prepared."""

import dataclasses

import numpy as np
import pytest

from jaxbed.data import prepared
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages
from jaxbed.data.prepared_night import read_night_images, summary, write_night_images
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.errors import InputError

COUNT = 50


def night_images() -> NightImages:
    rng = np.random.default_rng(0)
    return NightImages(
        name="bed",
        image=rng.integers(0, 256, (COUNT, 6, 8), np.uint8),
        posture=rng.integers(0, 4, COUNT).astype(np.int32),
        blanket=rng.integers(-1, 2, COUNT).astype(np.int32),
        # Names grow longer, so that a width taken from the first would cut them.
        subject=np.array([f"S{i // 2} Zoë" for i in range(COUNT)]),
        recording=np.array([""] + [f"S{i // 2}/{i % 3}.avi" for i in range(1, COUNT)]),
        skipped=("a.png: empty", "b.png: letters"),
        extra={
            "file": np.array([f"{i}.png" for i in range(COUNT)]),
            "crop_top_px": np.arange(COUNT, dtype=np.int32),
            "time_s": np.where(np.arange(COUNT) % 2, np.nan, 30.5).astype(np.float32),
        },
    )


@pytest.fixture
def folder(tmp_path):
    write_night_images(
        night_images(), tmp_path, frames_read=COUNT + 2, licence="CC0", homepage="here"
    )
    return tmp_path


def test_a_set_reads_back_as_it_was_written(folder):
    images, read = night_images(), read_night_images(folder, "bed")
    for field in dataclasses.fields(images):
        expected, found = getattr(images, field.name), getattr(read, field.name)
        if field.name == "extra":
            assert found.keys() == expected.keys()
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name], strict=True)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(found, expected, strict=True)
        else:
            assert found == expected, field.name


@pytest.mark.parametrize("value", [UNKNOWN, 0, 1])
def test_every_value_of_a_blanket_reads_back(tmp_path, value):
    images = dataclasses.replace(night_images(), blanket=np.full(COUNT, value, np.int32))
    write_night_images(images, tmp_path, frames_read=COUNT)
    assert set(read_night_images(tmp_path, "bed").blanket) == {value}


def test_a_set_of_single_images_reads_back(tmp_path):
    images = dataclasses.replace(night_images(), recording=np.array([""] * COUNT), extra={})
    write_night_images(images, tmp_path, frames_read=COUNT)
    read = read_night_images(tmp_path, "bed")
    assert set(read.recording) == {""}
    assert read.extra == {}
    assert "25 subjects, 6 x 8 pixels" in summary(read, COUNT)


def test_the_summary_counts_and_gives_reasons():
    images = night_images()
    assert summary(images, COUNT + 2).splitlines() == [
        f"bed: 52 frames read, 50 kept, 2 left out; 25 subjects, {len(set(images.recording)) - 1} "
        "recordings, 6 x 8 pixels",
        "  left out: a.png: empty",
        "  left out: b.png: letters",
    ]


def test_an_absent_set_names_the_commands(folder):
    with pytest.raises(InputError, match=r"it holds bed") as refusal:
        read_night_images(folder, "slp_ir")
    for command in ("sleep_video", "image_folder", "slp"):
        assert f"`python -m data_prep.{command} --raw" in str(refusal.value)


def test_sets_of_other_kinds_are_refused(folder):
    with pytest.raises(InputError, match="not a complete prepared set"):
        read_pressure_maps(folder, "bed")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"height": 5}, "images are uint8 of"),
        ({"blanket": {"1": "off", "0": "on", "-1": "unknown"}}, "the blankets are not"),
        ({"skipped": None}, "TypeError"),
    ],
)
def test_wrong_metadata_are_refused(tmp_path, monkeypatch, wrong, reason):
    metadata = prepared._metadata
    monkeypatch.setattr(prepared, "_metadata", lambda *known: metadata(*known) | wrong)
    write_night_images(night_images(), tmp_path, frames_read=COUNT)
    with pytest.raises(InputError, match=reason):
        read_night_images(tmp_path, "bed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blanket": np.full(COUNT, 2, np.int32)}, "the blankets are not 0, 1 and -1"),
        ({"image": np.zeros((COUNT, 6, 8), np.float32)}, "images are float32"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, change, reason):
    images = dataclasses.replace(night_images(), **change)
    write_night_images(images, tmp_path, frames_read=COUNT)
    with pytest.raises(InputError, match=reason):
        read_night_images(tmp_path, "bed")


def test_postures_are_the_contract_of_the_files(folder):
    labels = folder / "bed" / "1.0.0" / "posture.labels.txt"
    assert labels.read_text().split() == list(POSTURES)
    labels.write_text("supine\nprone\nright\nleft\n")
    with pytest.raises(InputError, match="the postures are not"):
        read_night_images(folder, "bed")


def test_a_cut_file_is_refused(folder):
    path = folder / "bed" / "1.0.0" / "bed-train.array_record-00000"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not a complete prepared set"):
        read_night_images(folder, "bed")
