"""Preparing PMD: synthetic trees for what can go wrong, the real archive for the counts."""

import hashlib
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from scipy.ndimage import median_filter

from data_prep.pmd import Config, main
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.data.pressure import POSTURES
from jaxbed.errors import InputError

I_FILE = "experiment-i/S1/4.txt"
II_FILE = "experiment-ii/S8/Sponge_Mat/Matrix_Sponge_F4.txt"


def line(values) -> str:
    return "\t".join(str(value) for value in values) + "\t\r\n"


@pytest.fixture
def frames(rng) -> np.ndarray:
    return rng.integers(0, 500, (5, 64, 32))


@pytest.fixture
def tree(tmp_path, frames, rng):
    """A small PMD: one recording of 5 frames, one of 1, and a listing that fits them."""
    root = tmp_path / "raw" / "pmd"
    row = rng.integers(38, 500, (64, 27))
    write(root / I_FILE, "".join(line(frame.ravel()) for frame in frames))
    write(root / II_FILE, "".join(" ".join(map(str, values)) + "\r\n" for values in row))
    write(root / "experiment-info.docx", "tables")
    list_digests(root)
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")


def list_digests(root):
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "SHA256SUMS.txt")
    (root / "SHA256SUMS.txt").write_text(
        "".join(
            f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(root).as_posix()}\n"
            for p in files
        )
    )


def refused(tmp_path, raw, match, *, verify=True):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=raw, out=tmp_path / "prepared" / "pmd", verify=verify))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def prepared(tmp_path, raw):
    main(Config(raw=raw, out=tmp_path / "prepared", verify=False))
    return (
        read_pressure_maps(tmp_path / "prepared", "experiment_i"),
        read_pressure_maps(tmp_path / "prepared", "experiment_ii"),
    )


def test_both_experiments_come_out_in_the_canonical_frame(tmp_path, tree, frames):
    one, two = prepared(tmp_path, tree)
    np.testing.assert_array_equal(one.pressure, frames[:, :, ::-1])
    stored = np.loadtxt(tree / II_FILE)
    np.testing.assert_array_equal(two.pressure[0], np.maximum(stored[::-1] - 48, 0))
    assert (one.mat.size, two.mat.size) == ((64, 32), (64, 27))
    assert one.mat.pitch_mm == two.mat.pitch_mm == 25.4
    assert one.mat.full_scale == 500


def test_labels_come_from_path_and_code(tmp_path, tree):
    one, two = prepared(tmp_path, tree)
    assert set(one.subject) == {"S1"}
    assert POSTURES[one.posture[0]] == "right"
    assert one.label_names[one.label[0]] == "4 right, roll 30"
    assert one.extra["roll_deg"][0] == 30
    np.testing.assert_array_equal(one.extra["frame"], range(5))
    assert two.subject[0] == "S4"  # who recorded as S8 once more
    assert POSTURES[two.posture[0]] == "supine"
    assert two.label_names[two.label[0]] == "F4 supine, bed raised 30"
    assert two.extra["incline_deg"][0] == 30
    assert two.extra["mattress"][0] == "sponge"
    assert two.extra["file"][0] == II_FILE


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (line(range(2047)), "holds 2047 values on a line instead of 2048"),
        (line(range(2049)), "holds 2049 values on a line instead of 2048"),
        (line(["12a", *range(2047)]), "holds 'a' where only whole numbers"),
        (line(["nan", *range(2047)]), "holds 'nan' where only whole numbers"),
        (line(["-3", *range(2047)]), "holds '-' where only whole numbers"),
        (line([4096, *range(2047)]), "holds 4096, above the highest reading 4095"),
        (line([10**30, *range(2047)]), "above the highest reading 4095"),
        (line([0] * 2048), "total pressure not between"),
        (line([4095] * 2048), "total pressure not between"),
    ],
)
def test_a_bad_frame_among_many_is_left_out_and_listed(tmp_path, tree, frames, spoilt, reason):
    lines = (tree / I_FILE).read_bytes().decode().splitlines(keepends=True)
    lines[2] = spoilt
    write(tree / I_FILE, "".join(lines))
    one, _ = prepared(tmp_path, tree)
    np.testing.assert_array_equal(one.extra["frame"], [0, 1, 3, 4])
    np.testing.assert_array_equal(one.pressure, frames[[0, 1, 3, 4], :, ::-1])
    (skipped,) = one.skipped
    assert skipped.startswith(I_FILE)
    assert " 2: " in skipped
    assert reason in skipped


def test_an_undocumented_code_is_left_out_and_listed(tmp_path, tree):
    strange = tree / II_FILE.replace("F4", "G1")
    write(strange, (tree / II_FILE).read_text())
    write(tree / II_FILE.replace("F4", "F5"), "38 40\n")
    _, two = prepared(tmp_path, tree)
    assert len(two) == 1
    assert [reason.rpartition(": ")[2] for reason in two.skipped] == [
        "holds 1 lines instead of 64",
        "the code G1 is not documented",
    ]


def test_no_good_frame_at_all_stops(tmp_path, tree):
    write(tree / II_FILE, "")
    refused(tmp_path, tree, "no good frame of experiment_ii .*holds no frame", verify=False)


def test_a_listing_of_something_else_than_pmd_stops(tmp_path, tree):
    refused(tmp_path, tree, r"holds 5 good frames of experiment_i, but PMD 1.0.0 has 19,563")


def test_a_changed_file_stops(tmp_path, tree):
    write(tree / I_FILE, (tree / I_FILE).read_text() + line(range(2048)))
    refused(tmp_path, tree, f"{I_FILE} is not the published file")


def test_a_missing_file_stops(tmp_path, tree):
    (tree / "experiment-info.docx").unlink()
    refused(tmp_path, tree, "experiment-info.docx is missing")


def test_a_missing_or_broken_listing_stops(tmp_path, tree):
    (tree / "SHA256SUMS.txt").write_text("not a digest\n")
    refused(tmp_path, tree, "the checksum listing holds the line 'not a digest'")
    (tree / "SHA256SUMS.txt").unlink()
    refused(tmp_path, tree, "holds no SHA256SUMS.txt")


def test_what_is_not_pmd_stops(tmp_path, tree):
    refused(tmp_path, tree / "nowhere", "does not exist")
    refused(tmp_path, tree.parent, "so it is not PMD 1.0.0")
    refused(tmp_path, tree / I_FILE, "not a complete .tar.xz archive")


def test_an_occupied_place_stops(tmp_path, tree):
    (tmp_path / "prepared" / "pmd" / "mine").mkdir(parents=True)
    refused(tmp_path, tree, "already exists")


def packed(tree, *extra):
    """Packs the tree, and further members, as a .tar.xz beside it."""
    archive = tree.parent / "pmd.tar.xz"
    with tarfile.open(archive, "w:xz") as members:
        members.add(tree, arcname="pmd-1.0.0")
        for member, content in extra:
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    return archive


def test_the_archive_gives_what_the_folder_gives(tmp_path, tree):
    of_folder, _ = prepared(tmp_path / "folder", tree)
    of_archive, _ = prepared(tmp_path / "archive", packed(tree))
    np.testing.assert_array_equal(of_archive.pressure, of_folder.pressure)
    np.testing.assert_array_equal(of_archive.extra["file"], of_folder.extra["file"])


def test_a_truncated_or_corrupt_archive_stops(tmp_path, tree):
    archive = packed(tree)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, archive, "not a complete .tar.xz archive")
    archive.write_bytes(whole[:1000] + bytes(64) + whole[1064:])
    refused(tmp_path, archive, "not a complete .tar.xz archive")
    archive.write_bytes(b"")
    refused(tmp_path, archive, "not a complete .tar.xz archive")


@pytest.mark.parametrize("name", ["pmd-1.0.0/../../../evil.txt", "/tmp/evil.txt"])
def test_an_archive_that_leads_outside_stops(tmp_path, tree, name):
    archive = packed(tree, (tarfile.TarInfo(name), b"evil"))
    refused(tmp_path, archive, "leads out of the archive")


def test_a_link_in_the_archive_is_not_followed(tmp_path, tree):
    link = tarfile.TarInfo(f"pmd-1.0.0/{I_FILE}")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tree / I_FILE).unlink()
    refused(tmp_path, packed(tree, (link, b"")), f"{I_FILE} is missing")


def test_a_file_that_is_twice_in_the_archive_stops(tmp_path, tree):
    again = (tarfile.TarInfo(f"pmd-1.0.0/{I_FILE}"), b"1 2 3")
    refused(tmp_path, packed(tree, again), f"holds {I_FILE} twice")


def test_an_interrupted_command_leaves_nothing_behind(tmp_path, tree, monkeypatch):
    import jaxbed.data.prepared_pressure as module

    write_one = module.write_pressure_maps

    def interrupted(maps, *args, **kwargs):
        if maps.name == "experiment_ii":
            raise KeyboardInterrupt
        write_one(maps, *args, **kwargs)

    monkeypatch.setattr(module, "write_pressure_maps", interrupted)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        main(Config(raw=tree, out=tmp_path / "prepared", verify=False))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_tells_bad_input_in_one_sentence(tmp_path):
    raw, out = tmp_path / "nowhere", tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.pmd", "--raw", raw, "--out", out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{raw} does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_help_loads_neither_jax_nor_tfds():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['pmd', '--help']\n"
        "try: runpy.run_module('data_prep.pmd', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'tensorflow_datasets', 'grain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--no-verify" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def published(raw_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pmd") / "prepared"
    main(Config(raw=raw_data / "pmd-1.0.0.tar.xz", out=out))
    return read_pressure_maps(out, "experiment_i"), read_pressure_maps(out, "experiment_ii")


@pytest.mark.slow
def test_the_published_set_has_the_published_counts(published):
    one, two = published
    assert (len(one), len(two)) == (19_563, 462)
    assert (len(set(one.subject)), len(set(two.subject))) == (13, 7)
    assert len(set(one.label.tolist())) == 17
    assert [line.rpartition("_")[2] for line in two.skipped] == [
        f"G{number}.txt: the code G{number} is not documented" for number in (1, 2, 3)
    ]


@pytest.mark.slow
def test_the_bad_frames_are_those_found_by_eye(published):
    one, _ = published
    bad = {("S1/8", 2), ("S4/6", 2), ("S6/14", 2), ("S7/9", 2), ("S7/9", 3), ("S6/1", 10)}
    bad |= {("S7/1", number) for number in range(2, 15)}
    for file in np.unique(one.extra["file"]):
        kept = set(one.extra["frame"][one.extra["file"] == file].tolist())
        recording = file.removeprefix("experiment-i/").removesuffix(".txt")
        left_out = {0, 1} | {number for where, number in bad if where == recording}
        assert kept == set(range(max(kept) + 1)) - left_out, file


@pytest.mark.slow
def test_real_people_lie_head_up_with_their_limbs_on_the_right_side(published):
    one, _ = published
    pressure = np.minimum(one.pressure, one.mat.full_scale)
    supine = pressure[one.posture == POSTURES.index("supine")]
    assert supine[:, :32].sum() / supine.sum() > 0.6  # trunk and head outweigh the legs

    def skewness(code):
        """The third moment across the bed: below 0 when the limbs reach to the left."""
        (label,) = (i for i, name in enumerate(one.label_names) if name.startswith(code))
        weight = pressure[one.label == label].sum(axis=(0, 1))
        x = np.arange(32) - np.average(np.arange(32), weights=weight)
        return np.average(x**3, weights=weight)

    assert skewness("13 right, fetal") < 0 < skewness("14 left, fetal")


def nearest_posture(train, posture, test, neighbours=5):
    """Votes among the nearest maps, by Euclidean distance."""
    distance = np.sum(train**2, 1)[None] - 2 * test @ train.T
    nearest = np.argpartition(distance, neighbours, axis=1)[:, :neighbours]
    votes = [(posture[nearest] == index).sum(1) for index in range(len(POSTURES))]
    return np.argmax(votes, axis=0)


def direction(maps):
    """Square roots as unit vectors: neither one hot cell nor a person's weight decides."""
    flat = np.sqrt(maps.reshape(len(maps), -1))
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def centred(maps):
    """Moves each map's centre of pressure to the middle, hot cells filtered out."""
    moved = []
    for frame in median_filter(maps, (1, 3, 3)):
        rows, columns = (np.arange(n) for n in frame.shape)
        row = np.average(rows, weights=frame.sum(1))
        column = np.average(columns, weights=frame.sum(0))
        by = (round(len(rows) / 2 - row), round(len(columns) / 2 - column))
        moved.append(np.roll(frame, by, axis=(0, 1)))
    return np.stack(moved)


@pytest.mark.slow
def test_nearest_neighbours_know_the_posture_of_new_people(published):
    one, _ = published
    some = slice(None, None, 10)
    maps, posture, subject = direction(one.pressure[some]), one.posture[some], one.subject[some]
    right = [
        nearest_posture(maps[subject != who], posture[subject != who], maps[subject == who])
        == posture[subject == who]
        for who in np.unique(subject)
    ]
    assert np.mean(np.concatenate(right)) > 0.99


@pytest.mark.slow
def test_the_canonical_frame_carries_postures_from_mat_to_mat(published):
    one, two = published
    train, posture = one.pressure[::10], one.posture[::10]
    test = np.pad(two.pressure, ((0, 0), (0, 0), (2, 3)))

    def accuracy(train, test):
        found = nearest_posture(direction(centred(train)), posture, direction(centred(test)))
        return np.mean(found == two.posture)

    assert accuracy(train, test) > 0.8
    assert accuracy(train, test[:, :, ::-1]) < 0.6  # mirrored: left is taken for right
