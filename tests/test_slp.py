"""Preparing SLP, on small sets of its layout."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from data_prep.slp import COVERS, Config, main
from jaxbed.data.night import POSTURES
from jaxbed.data.prepared_night import read_night_images
from jaxbed.errors import InputError

POSES = (1, 15, 16, 30, 31, 45)
POSTURE_OF = ("supine", "supine", "left", "left", "right", "right")
PEOPLE = ("danaLab/00001", "danaLab/00007", "simLab/00001", "simLab/00007")


def write(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), levels)


@pytest.fixture
def tree(tmp_path, rng):
    """A small SLP: four people, three covers, six poses; the depth is the image upside down."""
    root = tmp_path / "raw" / "SLP"
    for person in PEOPLE:
        for cover in COVERS:
            for pose in POSES:
                levels = rng.integers(0, 256, (32, 24), np.uint8)
                name = f"{cover}/image_{pose:06d}.png"
                write(root / person / "IR" / name, levels)
                write(root / person / "depth" / name, levels[::-1])
    return root


def prepared(tmp_path, raw, **options):
    config = Config(raw=raw, out=tmp_path / "out", **{"size": (32, 24)} | options)
    main(config)
    return read_night_images(tmp_path / "out", f"slp_{config.modality}")


def refused(tmp_path, raw, match, **options):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=raw, out=tmp_path / "new" / "slp", **options))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_poses_and_covers_become_postures_and_blankets(tmp_path, tree):
    images = prepared(tmp_path, tree)
    assert len(images) == 3 * 3 * 6
    assert [POSTURES[i] for i in images.posture] == [*POSTURE_OF] * 9
    assert images.extra["pose"].tolist() == [*POSES] * 9
    covers = np.repeat(["uncover", "cover1", "cover2"], 6)
    assert images.extra["cover"].tolist() == covers.tolist() * 3
    np.testing.assert_array_equal(images.blanket, images.extra["cover"] != "uncover")
    people = ["danaLab_00001", "simLab_00001", "simLab_00007"]
    assert images.subject.tolist() == np.repeat(people, 18).tolist()
    for file, image in zip(images.extra["file"], images.image, strict=True):
        np.testing.assert_array_equal(image, cv2.imread(str(tree / file), cv2.IMREAD_GRAYSCALE))


def test_the_other_camera_gives_its_own_images(tmp_path, tree):
    depth = prepared(tmp_path, tree, modality="depth")
    assert depth.name == "slp_depth"
    first = cv2.imread(str(tree / "danaLab/00001/IR/uncover/image_000001.png"), 0)
    np.testing.assert_array_equal(depth.image[0], first[::-1])


def test_subject_7_is_left_out_unless_asked_for(tmp_path, tree, capsys):
    images = prepared(tmp_path, tree)
    assert images.skipped[0].startswith("danaLab/00007: 18 images; labels were reported")
    assert "slp_ir: 72 frames read, 54 kept, 18 left out; 3 subjects" in capsys.readouterr().out


def test_subject_7_is_kept_when_asked_for(tmp_path, tree):
    images = prepared(tmp_path, tree, keep_subject_7=True)
    assert set(images.subject) == {person.replace("/", "_") for person in PEOPLE}
    assert not any("00007: 18 images" in line for line in images.skipped)


def test_folders_that_lack_images_are_told_and_whole_ones_not(tmp_path, tree):
    for pose in range(1, 46):
        levels = np.full((32, 24), pose, np.uint8)
        levels[0] = 200
        write(tree / f"simLab/00001/IR/cover1/image_{pose:06d}.png", levels)
    images = prepared(tmp_path, tree)
    lacking = [line for line in images.skipped if "holds" in line]
    assert len(lacking) == 4 * 3 - 1
    assert lacking[0] == "danaLab/00001/IR/uncover: holds 6 of 45 images"
    assert not any(line.startswith("simLab/00001/IR/cover1") for line in lacking)
    here = (images.subject == "simLab_00001") & (images.extra["cover"] == "cover1")
    np.testing.assert_array_equal(images.extra["pose"][here], np.arange(1, 46))
    np.testing.assert_array_equal(np.bincount(images.posture[here]), [15, 0, 15, 15])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("image_000002.png", b"", "is empty"),
        ("image_000002.png", b"letters", "is not a complete image"),
        ("image_000046.png", None, "is numbered 46, but there are 45 poses"),
        ("image_000000.png", None, "is numbered 0, but there are 45 poses"),
    ],
)
def test_a_bad_image_is_left_out_and_listed(tmp_path, tree, name, content, reason):
    path = tree / "simLab/00001/IR/cover2" / name
    good = path.with_name("image_000001.png").read_bytes()
    path.write_bytes(good if content is None else content)
    images = prepared(tmp_path, tree)
    assert len(images) == 54
    assert images.skipped[-1].startswith(f"simLab/00001/IR/cover2/{name}: {reason}")


def test_one_lab_is_enough(tmp_path, tree):
    images = prepared(tmp_path, tree / "simLab")
    assert set(images.subject) == {"simLab_00001", "simLab_00007"}
    assert images.extra["file"][0] == "simLab/00001/IR/uncover/image_000001.png"


def test_other_files_and_folders_are_passed_over(tmp_path, tree):
    (tree / "danaLab/00001/joints_gt_IR.mat").write_bytes(b"x")
    (tree / "danaLab/00001/IR/uncover/._image_000001.png").write_bytes(b"x")
    (tree / "danaLab/notes").mkdir()
    assert len(prepared(tmp_path, tree)) == 54


def test_no_readable_image_at_all_stops(tmp_path, tree):
    for path in tree.rglob("*.png"):
        path.write_bytes(b"")
    refused(tmp_path, tree, r"holds no readable image among 72 \(.*: is empty\)")


def test_what_is_not_slp_stops(tmp_path, tree):
    refused(tmp_path, tree / "nowhere", "is not a folder")
    refused(tmp_path, tmp_path, "so it is not SLP; point --raw")
    refused(tmp_path, tree / "danaLab" / "00001", "so it is not SLP")
    refused(tmp_path, tree, "--size 0 24 must be", size=(0, 24))


def test_the_command_prepares_and_tells_what_it_did(tmp_path, tree):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "data_prep.slp", "--raw", tree, "--out", tmp_path / "out"),
            *("--modality", "depth", "--keep-subject-7", "--size", "32", "24"),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "slp_depth: 72 frames read, 72 kept, 0 left out; 4 subjects, 32 x 24 pixels"
    )
    assert "warning: no image shows prone; nothing can learn it here" in lines
    assert (tmp_path / "out" / "slp_depth_contact_sheet.png").is_file()
