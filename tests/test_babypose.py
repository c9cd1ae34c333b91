"""Preparing babyPose, on small sets of its layout."""

import itertools
import subprocess
import sys

import numpy as np
import openpyxl
import pytest
from PIL import Image

from data_prep.babypose import Config, main
from data_prep.babypose_sheet import read_sheet
from jaxbed.data.depth import JOINTS
from jaxbed.data.prepared_depth import read_depth_frames
from jaxbed.errors import InputError

FRAMES = 4
NAMES = [f"{joint}_{axis}" for joint, axis in itertools.product(JOINTS, "xy")]
SHEET = "pz2/annotations.xlsx"


@pytest.fixture
def depth(rng) -> np.ndarray:
    return rng.integers(500, 2000, (FRAMES, 480, 640), np.uint16)


@pytest.fixture
def joints(rng) -> np.ndarray:
    """f64[4,12,2], (x, y) inside the camera's frame."""
    return rng.uniform(1, [638, 478], (FRAMES, 12, 2)).round(1)


@pytest.fixture
def tree(tmp_path, depth, joints):
    """A small babyPose: two infants with the same frames; pz10 has its frames in a folder."""
    root = tmp_path / "raw" / "babypose"
    for infant, place in (("pz2", "16bit_{:06d}.png"), ("pz10", "depth/frame{}.png")):
        for number, frame in enumerate(depth, start=1):
            image(root / infant / place.format(number), frame)
        rows = [[number, *row] for number, row in enumerate(flat(joints), start=1)]
        sheet(root / infant / "annotations.xlsx", [["frame", *NAMES], *rows])
    return root


def image(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path, compress_level=0)


def sheet(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def flat(joints):
    """Writes joints [n,12,2] as rows of 24 numbers."""
    return joints.reshape(len(joints), -1).tolist()


def prepared(tmp_path, raw, **options):
    main(Config(raw=raw, out=tmp_path / "prepared", **options))
    return read_depth_frames(tmp_path / "prepared", "babypose")


def refused(tmp_path, raw, match, **options):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=raw, out=tmp_path / "prepared" / "babypose", **options))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_infants_come_out_with_their_frames_and_joints(tmp_path, tree, depth, joints):
    frames = prepared(tmp_path, tree)
    np.testing.assert_array_equal(frames.subject, ["pz2"] * 4 + ["pz10"] * 4)
    np.testing.assert_array_equal(frames.recording, ["pz2_part1"] * 4 + ["pz10_part1"] * 4)
    np.testing.assert_array_equal(frames.extra["frame"], [1, 2, 3, 4] * 2)
    np.testing.assert_array_equal(frames.depth_mm[4:], depth[:, 2::5, 2::5])
    expected = (joints + 0.5) / 5 - 0.5
    np.testing.assert_allclose(frames.joints_px[:4], expected, atol=1e-4)
    np.testing.assert_array_equal(frames.joints_px[4:], frames.joints_px[:4])
    assert frames.size == (96, 128)
    assert frames.skipped == ()


def test_rows_go_to_the_frames_they_number(tmp_path, tree, joints):
    rows = [[f"16bit_{n:06d}.png", *row] for n, row in enumerate(flat(joints), start=1)]
    sheet(tree / SHEET, [["Image name", *NAMES], *reversed(rows)])
    frames = prepared(tmp_path, tree, size=(480, 640))
    np.testing.assert_allclose(frames.joints_px[:4], joints, rtol=1e-5)


def test_rows_without_numbers_go_by_the_frames_numbers(tmp_path, tree, depth, joints):
    for number in range(1, FRAMES + 1):
        (tree / f"pz2/16bit_{number:06d}.png").unlink()
        image(tree / f"pz2/{number * 5}.png", depth[number - 1])  # 5 before 10, unlike in text
    sheet(tree / SHEET, [NAMES, *flat(joints)])
    frames = prepared(tmp_path, tree, size=(480, 640))
    np.testing.assert_array_equal(frames.extra["frame"][:4], [5, 10, 15, 20])
    np.testing.assert_array_equal(frames.depth_mm[:4], depth)
    np.testing.assert_allclose(frames.joints_px[:4], joints, rtol=1e-5)


def spelt(pattern):
    """Names the columns of x and y by a pattern of Side, Joint and axis."""
    for joint, axis in itertools.product(JOINTS, "xy"):
        side, _, part = joint.partition("_")
        yield pattern.format(side=side, s=side[0], part=part, Part=part.title(), axis=axis)


@pytest.mark.parametrize(
    "pattern",
    ["{side} {part} {axis}", "{s}{Part}_{axis}", "{Part}.{s}.{axis}", "{axis}: {side}-{part}"],
)
def test_names_of_columns_are_matched_tolerantly(tmp_path, joints, pattern):
    names = list(spelt(pattern))
    order = np.random.default_rng(1).permutation(len(names))
    rows = np.array(flat(joints))[:, order].tolist()
    path = tmp_path / "sheet.xlsx"
    sheet(path, [[names[i] for i in order], *rows])
    read = read_sheet(path)
    assert read.frame is None
    np.testing.assert_array_equal(read.joints_px, joints)


def test_names_may_span_the_columns_of_both_axes(tmp_path, joints):
    titles = [title for joint in JOINTS for title in (joint.replace("_", " "), None)]
    path = tmp_path / "sheet.xlsx"
    rows = [[n, *row, "a note"] for n, row in enumerate(flat(joints))]
    header = [["babyPose"], ["frame", *titles, None], [None, *(["x", "y"] * 12), None]]
    sheet(path, [*header, *rows])
    read = read_sheet(path)
    assert read.frame == [0, 1, 2, 3]
    np.testing.assert_array_equal(read.joints_px, joints)


def test_a_cell_may_hold_both_coordinates(tmp_path, joints):
    path = tmp_path / "sheet.xlsx"
    sheet(path, [JOINTS, *([f"({x}, {y})" for x, y in frame] for frame in joints)])
    np.testing.assert_array_equal(read_sheet(path).joints_px, joints)


def test_columns_without_names_go_by_the_order_told(tmp_path, tree, joints):
    rows = [[i, *row] for i, row in enumerate(flat(joints))]
    sheet(tree / SHEET, rows)
    refused(tmp_path, tree, "names no joint such as left_shoulder_x.*--joint-order")
    read = read_sheet(tree / SHEET, tuple(reversed(JOINTS)))
    np.testing.assert_array_equal(read.joints_px, joints[:, ::-1])


def test_empty_cells_and_joints_outside_are_missing(tmp_path, tree, joints):
    rows = flat(joints)
    missing = [
        (0, None, 5),
        (1, 7, float("nan")),
        (2, 0, 0),
        (3, " ", "-"),
        (4, 640, 5),
        (5, 5, -1),
    ]
    for joint, x, y in missing:
        rows[1][2 * joint : 2 * joint + 2] = x, y
    sheet(tree / SHEET, [NAMES, *rows])
    frames = prepared(tmp_path, tree)
    empty = np.isnan(frames.joints_px[:4])
    np.testing.assert_array_equal(empty[..., 0], empty[..., 1])
    np.testing.assert_array_equal(np.argwhere(empty[..., 0]), [(1, joint) for joint in range(6)])


def test_8_bit_frames_are_read_at_the_scale_told(tmp_path, tree, rng):
    levels = rng.integers(0, 255, (480, 640), np.uint8, endpoint=True)
    image(tree / "pz2/16bit_000003.png", levels)
    np.testing.assert_array_equal(prepared(tmp_path, tree).depth_mm[2], levels[2::5, 2::5])
    scaled = prepared(tmp_path / "scaled", tree, mm_per_level=300.5)
    expected = np.minimum(np.rint(levels[2::5, 2::5] * 300.5), 65535)
    np.testing.assert_array_equal(scaled.depth_mm[2], expected)


def test_frames_that_are_there_twice_need_a_choice(tmp_path, tree, depth):
    for number in range(1, FRAMES + 1):
        image(tree / f"pz2/8bit_{number:06d}.png", (depth[0] // 8).astype(np.uint8))
    refused(tmp_path, tree, "frame 1 twice, as 16bit_000001.png and 8bit_000001.png.*--frames")
    frames = prepared(tmp_path, tree, frames="[!8]*.png")
    np.testing.assert_array_equal(frames.depth_mm[:4], depth[:, 2::5, 2::5])


def half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (half, "is not a complete image"),
        (lambda path: path.write_bytes(b""), "is not a complete image"),
        (lambda path: image(path, np.zeros((240, 320), np.uint16)), "is a 240 x 320 image"),
        (lambda path: image(path, np.zeros((480, 640, 3), np.uint8)), "of mode RGB"),
        (lambda path: image(path, np.zeros((480, 640), bool)), "image of mode 1"),
    ],
)
def test_a_bad_frame_is_left_out_and_ends_its_recording(tmp_path, tree, damage, reason, capsys):
    damage(tree / "pz2/16bit_000002.png")
    frames = prepared(tmp_path, tree)
    parts = ["pz2_part1", "pz2_part2", "pz2_part2", "pz10_part1"]
    np.testing.assert_array_equal(frames.recording[:4], parts)
    np.testing.assert_array_equal(frames.extra["frame"][:3], [1, 3, 4])
    (skipped,) = frames.skipped
    assert skipped.startswith("pz2/16bit_000002.png: ")
    assert reason in skipped
    assert "babypose: 8 frames read, 7 kept, 1 left out" in capsys.readouterr().out


def test_a_frame_that_is_nowhere_ends_its_recording(tmp_path, tree, joints):
    (tree / "pz2/16bit_000002.png").unlink()
    rows = [[n, *row] for n, row in enumerate(flat(joints), start=1) if n != 2]
    sheet(tree / SHEET, [["frame", *NAMES], *rows])
    frames = prepared(tmp_path, tree)
    parts = ["pz2_part1", "pz2_part2", "pz2_part2", "pz10_part1"]
    np.testing.assert_array_equal(frames.recording[:4], parts)


def test_no_readable_frame_at_all_stops(tmp_path, tree):
    for path in tree.rglob("*.png"):
        path.write_bytes(b"")
    refused(tmp_path, tree, r"no readable frame among 8 \(pz2/16bit_000001.png: is not")


def test_a_sheet_that_numbers_other_frames_stops(tmp_path, tree, joints):
    rows = [[number, *row] for number, row in zip((2, 3, 5, 5), flat(joints), strict=True)]
    sheet(tree / SHEET, [["frame", *NAMES], *rows])
    refused(
        tmp_path,
        tree,
        f"{SHEET} does not fit .*without a row are frames 1, 4, without a frame the rows of 5, "
        "with two rows 5;",
    )


def test_a_palette_is_no_depth(tmp_path, tree):
    coloured = Image.new("P", (640, 480))
    coloured.putpalette(bytes(range(256)) * 3)
    coloured.save(tree / "pz2/16bit_000004.png")
    assert "image of mode P instead" in prepared(tmp_path, tree).skipped[0]


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_sheet_of_another_length_stops(tmp_path, tree, joints, count):
    rows = [*flat(joints), *flat(joints)][:count]
    sheet(tree / SHEET, [NAMES, *rows])
    refused(tmp_path, tree, f"{SHEET} has {count} rows of joints for the 4 frames")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (NAMES[:-1], "must name x and y of each of the 12 joints once"),
        ([*NAMES[:-1], NAMES[0]], "must name x and y of each of the 12 joints once"),
        (["a"] * 24, "names no joint"),
    ],
)
def test_a_sheet_with_other_columns_stops(tmp_path, tree, joints, names, told):
    sheet(tree / SHEET, [names, *flat(joints)])
    refused(tmp_path, tree, f"{SHEET} {told}")


@pytest.mark.parametrize("wrong", ["hidden", "1,5", True])
def test_a_cell_that_is_no_number_stops(tmp_path, tree, joints, wrong):
    rows = flat(joints)
    rows[2][5] = wrong
    sheet(tree / SHEET, [NAMES, *rows])
    refused(tmp_path, tree, f"{SHEET}, row 4, holds '{str(wrong).lower()}' where a number")


def test_a_row_without_its_frames_number_stops(tmp_path, tree, joints):
    sheet(tree / SHEET, [["frame", *NAMES], *([None, *row] for row in flat(joints))])
    refused(tmp_path, tree, f"{SHEET}, row 2, holds 'None' where the number of a frame")


@pytest.mark.parametrize("damage", [half, lambda path: path.write_text("a,b")])
def test_a_damaged_sheet_stops(tmp_path, tree, damage):
    damage(tree / SHEET)
    refused(tmp_path, tree, f"{SHEET} is not a complete .xlsx file")


def test_a_missing_or_second_sheet_stops(tmp_path, tree):
    second = (tree / SHEET).rename(tree / "pz10/second.xlsx")
    refused(tmp_path, tree, "pz2 holds 0 .xlsx sheets")
    (tree / SHEET).write_bytes(second.read_bytes())
    refused(tmp_path, tree, "pz10 holds 2 .xlsx sheets")
    second.unlink()
    (tree / "pz10/~$annotations.xlsx").write_text("what a spreadsheet leaves while it is open")
    assert len(prepared(tmp_path, tree)) == 2 * FRAMES


def test_frames_without_a_number_stop(tmp_path, tree, depth):
    image(tree / "pz2/background.png", depth[0])
    refused(tmp_path, tree, "background.png has no number of at most 9 digits in its name")


def test_what_is_not_babypose_stops(tmp_path, tree):
    refused(tmp_path, tree / "nowhere", "is not a folder")
    refused(tmp_path, tree / "pz2", "so it is not babyPose")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": (481, 640)}, "--size 481 640 must be"),
        ({"mm_per_level": 0.0}, "--mm-per-level must be above 0"),
        ({"mm_per_level": float("nan")}, "--mm-per-level must be above 0"),
        ({"joint_order": JOINTS[1:]}, "--joint-order names"),
        ({"frames": "/tmp/*.png"}, "--frames must match files inside"),
        ({"frames": "*.tiff"}, "for the 0 frames|does not fit the frames"),
    ],
)
def test_impossible_flags_stop(tmp_path, tree, options, told):
    refused(tmp_path, tree, told, **options)


def test_the_command_names_the_extra_that_is_not_installed(tmp_path, tree):
    code = (
        "import runpy, sys\n"
        "sys.modules['openpyxl'] = None\n"
        f"sys.argv = ['babypose', '--raw', {str(tree)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_module('data_prep.babypose', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs openpyxl to read; install it with `pip install -e '.[babypose]'`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
