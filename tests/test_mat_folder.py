"""Preparing anybody's mat."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from data_prep.mat_folder import Config, main
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.data.pressure import POSTURES, Mat
from jaxbed.errors import InputError

MAT = {
    "rows": 6,
    "columns": 4,
    "pitch_mm": 30,
    "head": "down",
    "mirrored": False,
    "baseline": 10,
    "saturation": 1010,
}
LABELS = """file,subject,posture,blanket
one.csv,anna,supine,none
more/two.npy,anna,prone,duvet
three.npy,ben,left,none
four.csv,ben,right,none
"""


@pytest.fixture
def frames(rng) -> np.ndarray:
    return rng.integers(0, 1011, (4, 6, 4))


@pytest.fixture
def folder(tmp_path, frames):
    folder = tmp_path / "mat"
    (folder / "more").mkdir(parents=True)
    (folder / "mat.json").write_text(json.dumps(MAT))
    (folder / "labels.csv").write_text(LABELS)
    np.savetxt(folder / "one.csv", frames[0], delimiter=",", fmt="%d")
    np.save(folder / "more" / "two.npy", frames[1])
    np.save(folder / "three.npy", frames[2].astype(np.float64))
    np.savetxt(folder / "four.csv", frames[3], delimiter=",")
    return folder


def prepared(tmp_path, folder):
    main(Config(raw=folder, out=tmp_path / "out"))
    return read_pressure_maps(tmp_path / "out", "mat_folder")


def refused(tmp_path, folder, match):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=folder, out=tmp_path / "new" / "out"))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_frames_come_out_in_the_canonical_frame(tmp_path, folder, frames):
    maps = prepared(tmp_path, folder)
    expected = np.maximum(frames.astype(np.float32)[:, ::-1, ::-1] - 10, 0)
    np.testing.assert_array_equal(maps.pressure, expected)
    assert maps.mat == Mat(rows=6, columns=4, pitch_mm=30, unit="count", full_scale=1000)
    assert maps.skipped == ()


def test_the_labels_come_out_in_their_order(tmp_path, folder):
    maps = prepared(tmp_path, folder)
    assert maps.subject.tolist() == ["anna", "anna", "ben", "ben"]
    assert [POSTURES[i] for i in maps.posture] == ["supine", "prone", "left", "right"]
    assert maps.label_names == POSTURES
    assert maps.extra["blanket"].tolist() == ["none", "duvet", "none", "none"]
    assert maps.extra["file"].tolist() == ["one.csv", "more/two.npy", "three.npy", "four.csv"]


def test_labels_may_come_from_a_spreadsheet(tmp_path, folder):
    text = "\ufeff posture , file,subject, note\r\nleft,three.npy, Zoë ,x\r\n\r\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8", newline="")
    maps = prepared(tmp_path, folder)
    assert (maps.subject.tolist(), maps.posture.tolist()) == (["Zoë"], [2])
    assert maps.extra.keys() == {"file"}


def with_first(frames, value):
    spoilt = frames[0].astype(np.float64)
    spoilt[0, 0] = value
    return spoilt


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda frames: frames[0].T, r"shape \(4, 6\) instead of \(6, 4\)"),
        (lambda frames: frames[0][None], r"shape \(1, 6, 4\)"),
        (lambda frames: with_first(frames, np.nan), "not finite"),
        (lambda frames: with_first(frames, 1e300), "not finite"),
        (lambda frames: with_first(frames, -2), "negative reading -2"),
        (lambda frames: np.zeros((6, 4)), "no cell reads above the baseline 10"),
        (lambda frames: frames[0].astype(complex), "complex128 instead of numbers"),
        (lambda frames: frames[0].astype(str), "<U21 instead of numbers"),
    ],
)
def test_a_bad_frame_is_left_out_and_listed(tmp_path, folder, frames, spoil, reason):
    np.save(folder / "three.npy", spoil(frames))
    maps = prepared(tmp_path, folder)
    assert maps.extra["file"].tolist() == ["one.csv", "more/two.npy", "four.csv"]
    (skipped,) = maps.skipped
    assert skipped.startswith("three.npy: ")
    assert re.search(reason, skipped)


@pytest.mark.parametrize("file", ["one.csv", "three.npy"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"1,2,x,4\n", b"\x93NUMPY\x01", b"\xff\xfe"])
def test_an_unreadable_file_is_left_out_and_listed(tmp_path, folder, file, content):
    (folder / file).write_bytes(content)
    maps = prepared(tmp_path, folder)
    assert len(maps) == 3
    (skipped,) = maps.skipped
    assert skipped.startswith(f"{file}: ")
    assert "\n" not in skipped


def test_a_truncated_npy_file_is_left_out(tmp_path, folder):
    path = folder / "three.npy"
    path.write_bytes(path.read_bytes()[:-8])
    assert len(prepared(tmp_path, folder)) == 3


def test_no_readable_frame_stops(tmp_path, folder):
    (folder / "mat.json").write_text(json.dumps(MAT | {"rows": 5}))
    refused(tmp_path, folder, r"no readable frame among 4 \(one.csv: .*instead of \(5, 4\)")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": 6.0}, "rows 6.0, which must be a whole number above 0"),
        ({"rows": True}, "rows true"),
        ({"columns": 0}, "columns 0"),
        ({"pitch_mm": "30"}, 'pitch_mm "30", which must be a number above 0'),
        ({"pitch_mm": float("nan")}, "pitch_mm NaN"),
        ({"head": "left"}, 'head "left", which must be "up" or "down"'),
        ({"mirrored": "no"}, 'mirrored "no", which must be true or false'),
        ({"baseline": -1}, "baseline -1, which must be a number of at least 0"),
        ({"saturation": 10}, "saturation 10, which must be above the baseline 10"),
        ({"saturaton": 10}, "must hold exactly the keys"),
    ],
)
def test_a_wrong_mat_is_refused(tmp_path, folder, change, sentence):
    (folder / "mat.json").write_text(json.dumps(MAT | change))
    refused(tmp_path, folder, sentence)


@pytest.mark.parametrize("key", MAT)
def test_a_missing_key_is_refused(tmp_path, folder, key):
    (folder / "mat.json").write_text(json.dumps({k: MAT[k] for k in MAT if k != key}))
    refused(tmp_path, folder, "must hold exactly the keys")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "must hold exactly the keys .* holds list"),
        ("{}", "must hold exactly the keys .* holds none"),
    ],
)
def test_a_mat_file_that_is_no_description_is_refused(tmp_path, folder, text, sentence):
    (folder / "mat.json").write_text(text)
    refused(tmp_path, folder, sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names none; add file, subject, posture"),
        ("file;subject;posture\na.npy;b;left\n", "but names file;subject;posture"),
        ("file,posture\none.csv,left\n", "add subject"),
        ("file,subject,posture\n", "names no frame"),
        ("file,subject,posture\none.csv,anna,belly\n", "line 2 has the posture 'belly'"),
        ("file,subject,posture\n\none.csv,,left\n", "line 3 must name a file and a subject"),
        ("file,subject,posture\none.csv,anna\n", "line 2 has the posture ''"),
        ("file,subject,posture\nx.csv,a,left\ny.csv,a,left\n", "names 2 of 2 .* first x.csv"),
        ("file,subject,posture\nx.mat,a,left\n", "must end in .csv or .npy"),
        ("file,subject,posture\n../x.csv,a,left\n", "must lie inside the folder"),
        ("file,subject,posture\n/etc/x.csv,a,left\n", "must lie inside the folder"),
        (
            "file,subject,posture\none.csv,a,left\none.csv,a,left\n",
            "names one.csv more than once",
        ),
    ],
)
def test_wrong_labels_are_refused(tmp_path, folder, text, sentence):
    (folder / "labels.csv").write_text(text)
    refused(tmp_path, folder, sentence)


def test_absent_files_are_refused(tmp_path, folder):
    refused(tmp_path, folder / "nowhere", "is not a folder")
    (folder / "labels.csv").write_bytes("file,subject".encode("utf-16"))
    refused(tmp_path, folder, "is not UTF-8 text")
    (folder / "labels.csv").unlink()
    refused(tmp_path, folder, "labels.csv is missing")
    (folder / "mat.json").unlink()
    refused(tmp_path, folder, "mat.json is missing")


def test_the_command_prepares_and_tells_what_it_did(tmp_path, folder):
    (folder / "one.csv").write_text("letters")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "data_prep.mat_folder"),
            *("--raw", folder, "--out", tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == ("mat_folder: 4 frames read, 3 kept, 1 left out; 2 subjects, 6 x 4 cells")
    assert lines[1].startswith("  left out: one.csv: could not convert string 'letters'")
    assert lines[2] == str(tmp_path / "out")
