"""What corrupted inputs once broke, each by itself."""

import json
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin

from data_prep import babypose, image_folder, mat_folder, pmd, popu, sleep_video, utd_mhad
from data_prep.popu_format import SEGMENTS, read_outlines
from jaxbed.data import body_parts
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.errors import InputError
from jaxbed.weights.state_dict import write_state_dict
from jaxbed.weights.torchvision import load_torchvision
from tests import fuzz_night, fuzz_own, fuzz_raw
from tests.fuzz import limits, write
from tests.fuzz_bombs import tar_header

DEEP = b"[" * 100_000


@pytest.fixture
def given(tmp_path):
    return tmp_path / "given"


def refused(read, match):
    """Asserts that a reader stops with one sentence."""
    with limits(), pytest.raises(InputError, match=match) as refusal:
        read()
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("number", ["NaN", "1e300", "Infinity", "1" + "0" * 400])
def test_outlines_whose_corners_are_no_places_are_refused(given, number):
    (target,) = fuzz_raw.segments_targets()
    write(given, {"segments.json": target.files["segments.json"].replace(b"20.5", number.encode())})
    refused(lambda: body_parts.read_outlines(given), "no places|OverflowError")


def test_json_that_is_nested_too_deep_is_refused(given):
    write(given, {"segments.json": DEEP, "mat.json": DEEP})
    refused(lambda: body_parts.read_outlines(given), "RecursionError")
    refused(lambda: mat_folder.read_mat(given / "mat.json"), "is not JSON")


def test_a_folder_in_the_place_of_a_file_is_refused(given):
    (given / "mat.json").mkdir(parents=True)
    refused(lambda: mat_folder.read_mat(given / "mat.json"), "mat.json cannot be opened")


@pytest.mark.parametrize(
    ("number", "told"),
    [("1" + "0" * 400, "lacks its size, its label or its points"), ("1e300", "are no places")],
)
def test_an_outline_of_popu_that_is_nowhere_is_left_out(number, told):
    """It was written, and the set could not be read."""
    file = "segmentation_data/4/left1_tactilus.json"
    content = fuzz_raw.popu_files()[file].replace(b"[40, 10]", f"[{number}, 10]".encode())
    outlines, skipped = read_outlines(SEGMENTS.fullmatch(file), content)
    assert not outlines
    assert told in skipped[0]


def test_what_no_screen_can_show_is_told_in_letters(given):
    files, file = fuzz_raw.popu_files(), "tactilus_data/4/left1_0.json"
    files[file] = files[file].replace(b'"volunteer_id": "4"', rb'"volunteer_id": "\u001b[2J\ud800"')
    write(given, files)
    (line,) = (x for r in popu.read_files(given)[0]["popu_over"] for x in r.skipped)
    assert line == rf"{file}: is of volunteer \x1b[2J\ud800, whose folder is another"


@pytest.mark.parametrize("shape", ["(4, 3", "(4, -3)", "(1099511627776, 1099511627776)"])
def test_a_matrix_with_a_damaged_header_is_left_out(given, shape):
    """NumPy raises errors of its tokenizer and of overflow, too."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    npy = b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + bytes(48)
    write(given, {**fuzz_raw.mat_files(), "n/2.npy": npy})
    (skipped,) = fuzz_raw.read_mat_folder(given)
    assert skipped.startswith("n/2.npy: ")


def read_mat_labels(folder):
    return mat_folder.read_labels(folder / "labels.csv")


def read_image_labels(folder):
    return image_folder.listed_images(folder / "labels.csv", folder)


@pytest.mark.parametrize("read", [read_mat_labels, read_image_labels])
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (f"{'x' * 300}.csv,anna,left\n", f"{'x' * 300}.csv"),
        (f"{'x' * 9000}.csv,anna,left\n", "line 2 has a cell that is too long"),
        ('n/1.csv,"anna,left\nn/2.npy,bert,left\n', "that line 2 opens does not end there"),
        ("n/1.csv,an\0na,left\n", "not printable"),
        (f"n/1.csv,anna,left,{'[' * 200_000}\n", "is not comma-separated text"),
    ],
)
def test_labels_that_cannot_be_are_refused(given, read, lines, told):
    """A quotation left open once took the lines below it for one cell, and they were lost."""
    write(given, {**fuzz_raw.mat_files(), "labels.csv": f"file,subject,posture\n{lines}".encode()})
    refused(lambda: read(given), told)


def test_names_of_thousands_of_digits_are_refused(given):
    """Python turns no more than 4,300 digits into a number."""
    files = fuzz_raw.pmd_files()
    files[f"experiment-i/S{'1' * 5000}/4.txt"] = files["experiment-i/S1/4.txt"]
    write(given, {"pmd.tar.xz": fuzz_raw.xz(fuzz_raw.tar_of(files))})
    refused(lambda: pmd.read_recordings(given / "pmd.tar.xz", verify=False), "holds the name 'top/")
    files = fuzz_raw.popu_files()
    files[f"tactilus_data/{'1' * 5000}/left1_0.json"] = b"{}"
    write(given, {"popu.zip": fuzz_raw.zip_of(files)})
    refused(lambda: popu.read_files(given / "popu.zip"), "holds the name 'tactilus_data/1")


def test_a_zip_without_its_middle_is_refused(given):
    content = fuzz_raw.zip_of(fuzz_raw.popu_files())
    write(given, {"popu.zip": content[:50] + content[400:]})
    refused(lambda: popu.read_files(given / "popu.zip"), "is not a complete .zip archive")


def test_a_tar_with_a_member_of_less_than_no_bytes_ends(given):
    """Older versions of tarfile read such a member for ever."""
    write(given, {"pmd.tar.xz": fuzz_raw.xz(tar_header("top/a.txt", -1024) + bytes(1024))})
    refused(lambda: pmd.read_recordings(given / "pmd.tar.xz", verify=False), "claims -1,024 bytes")


def test_a_sex_that_is_no_text_is_not_told(given):
    """It once stopped the writing of the set, since half a character cannot be written."""
    file = "tactilus_data/4/left1_0.json"
    files = fuzz_raw.popu_files()
    write(given, {**files, file: files[file].replace(b'"female"', b'"\\ud800"')})
    popu.main(popu.Config(raw=given, out=given.parent / "out"))
    assert read_pressure_maps(given.parent / "out", "popu_over").extra["sex"].tolist() == [""]


def test_a_recording_with_a_number_beyond_int32_is_none(given):
    files = fuzz_raw.utd_files()
    write(given, {name.replace("a4", f"a{10**10}"): files[name] for name in files})
    refused(lambda: utd_mhad.read_recordings(given, (24, 32)), "so it is not UTD-MHAD")


@pytest.mark.parametrize(
    ("files", "name", "read"),
    [
        (fuzz_night.image_files(), "left/on/bert_3.png", fuzz_night.read_images),
        (fuzz_raw.babypose_files(), "pz2/1.png", fuzz_raw.read_babypose),
    ],
)
def test_no_program_is_started_to_show_an_image(given, files, name, read, monkeypatch):
    """PostScript in a file called .png: Pillow would run Ghostscript on it."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 640 480\n%%EndComments\nshowpage\n"
    write(given, {**files, name: script})
    assert any("is not a complete image" in line for line in read(given))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("left/on/b\udcff_1.png", lambda raw: image_folder.found_images(raw)),
        ("left/on/b\n_1.png", lambda raw: image_folder.found_images(raw)),
        ("b\udcff/left/on_1.mp4", lambda raw: sleep_video.found_videos(raw)),
        ("p\udcff/1.png", lambda raw: babypose.read_infants(babypose.Config(raw=raw, out=raw))),
        ("tactilus_data/b\udcff/left1_0.json", lambda raw: popu.read_files(raw)),
    ],
)
def test_names_that_no_report_can_hold_are_refused(given, name, read):
    """They were read, and stopped the writing of the set."""
    try:
        write(given, {name: b"x"})
    except OSError:
        pytest.skip("this file system takes no such names")
    refused(lambda: read(given), "not printable UTF-8 text")


def test_a_set_that_holds_fewer_records_than_were_kept_is_refused(given):
    target = next(fuzz_own.prepared_targets())
    name = "bed/1.0.0/dataset_info.json"
    facts = json.loads(target.files[name])
    facts["splits"][0]["shardLengths"] = ["2"]
    write(given, {**target.files, name: json.dumps(facts).encode()})
    refused(lambda: read_pressure_maps(given, "bed"), "2 records, metadata.json says 3")


def test_a_set_whose_column_has_a_name_of_brackets_is_refused_at_once(given):
    """TFDS looks for files by the names of columns, which took minutes."""
    target = next(fuzz_own.prepared_targets())
    name = "bed/1.0.0/features.json"
    content = target.files[name].replace(b'"subject"', b'"' + b"[" * 100_000 + b'"')
    write(given, {**target.files, name: content})
    refused(lambda: read_pressure_maps(given, "bed"), "features.json has a line of 100,0")


def test_weights_that_are_finite_only_in_the_file_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_state_dict(path, {"fc.weight": np.float64([[1, 1e300]])})
    variables = {"params": {"fc": {"kernel": np.zeros((2, 1), np.float32)}}}
    refused(lambda: load_torchvision(path, variables), "not finite in fc.weight")


def test_names_of_tensors_are_told_on_one_short_line(tmp_path):
    path = tmp_path / "a.safetensors"
    write_state_dict(path, {"fc\nweight": np.ones(1, np.float32), "x" * 9000: np.ones(1, "f4")})
    variables = {"params": {"fc": {"kernel": np.zeros((2, 1), np.float32)}}}
    refused(lambda: load_torchvision(path, variables), "without a place")
