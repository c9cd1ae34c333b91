"""Preparing labelled images of sleepers, and reading image files of every kind."""

import io
import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep import night_images, night_labels
from data_prep.image_folder import Config, main
from data_prep.night_images import contact_sheet, grey, read_grey, resized
from jaxbed.data.night import POSTURES, UNKNOWN, NightImages
from jaxbed.data.prepared_night import read_night_images
from jaxbed.errors import InputError

SIZE = (16, 24)
FILES = (
    "left/unknown/anna_3.png",
    "prone/off/ben_1.png",
    "right/with_blanket/ben_2.png",
    "supine/off/anna_2.png",
    "supine/on/anna_1.png",
)


@pytest.fixture
def levels(rng) -> np.ndarray:
    return rng.integers(0, 256, (len(FILES), 40, 60), np.uint8)


@pytest.fixture
def folder(tmp_path, levels):
    folder = tmp_path / "raw" / "night"
    for file, image in zip(FILES, levels, strict=True):
        write(folder / file, image)
    return folder


def write(path, levels):
    """Writes [h,w], or [h,w,3 or 4] with blue first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), levels)


def prepared(tmp_path, folder, **options):
    main(Config(raw=folder, out=tmp_path / "out", **{"size": SIZE} | options))
    return read_night_images(tmp_path / "out", "image_folder")


def refused(tmp_path, folder, match, **options):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=folder, out=tmp_path / "new" / "out", **options))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_come_out_with_the_labels_of_their_folders(tmp_path, folder, levels):
    images = prepared(tmp_path, folder)
    assert images.extra["file"].tolist() == list(FILES)
    assert [POSTURES[i] for i in images.posture] == ["left", "prone", "right", "supine", "supine"]
    assert images.blanket.tolist() == [UNKNOWN, 0, 1, 0, 1]
    assert images.subject.tolist() == ["anna", "ben", "ben", "anna", "anna"]
    assert images.recording.tolist() == [""] * 5
    expected = [cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA) for image in levels]
    np.testing.assert_array_equal(images.image, expected)
    assert images.skipped == ()


def test_other_suffixes_count_and_hidden_files_do_not(tmp_path, folder, levels):
    write(folder / "prone/off/ben_9.bmp", levels[0])
    (folder / "prone/off/ben_9.bmp").rename(folder / "prone/off/ben_9.BMP")
    for other in ("prone/off/._ben_1.png", "prone/off/notes.txt"):
        (folder / other).write_text("x")
    for other in ("prone/.off", "__MACOSX"):
        (folder / other).mkdir()
    images = prepared(tmp_path, folder)
    assert len(images) == 6
    assert images.skipped == ()


def test_a_csv_tells_what_the_images_show(tmp_path, folder):
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "\ufeffFile,subject , posture,note\n"
        "supine/on/anna_1.png,Zoë,Left-Side,x\n"
        "\n"
        "./left/unknown/anna_3.png,ben,stomach\n",
        encoding="utf-8",
    )
    images = prepared(tmp_path, folder, labels=labels)
    assert images.subject.tolist() == ["Zoë", "ben"]
    assert [POSTURES[i] for i in images.posture] == ["left", "prone"]
    assert images.blanket.tolist() == [UNKNOWN, UNKNOWN]
    assert images.extra["file"].tolist() == ["supine/on/anna_1.png", "left/unknown/anna_3.png"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names none; add file, subject, posture"),
        ("file,subject,posture\n", "names nothing below its first line"),
        ("file;subject;posture\nx;y;left\n", "but names file;subject;posture; add"),
        ("file,posture\nsupine/on/anna_1.png,left\n", "add subject"),
        ("file,subject,posture\nsupine/on/anna_1.png,,left\n", "line 2 must name a subject"),
        ("file,subject,posture\n\nsupine/on/anna_1.png,anna\n", "line 3 names the posture ''"),
        ("file,subject,posture\nnowhere.png,anna,left\n", "line 2 names nowhere.png, which is not"),
        ("file,subject,posture\nsupine/on,anna,left\n", "line 2 names supine/on, which is not"),
        ("file,subject,posture\n/etc/hosts,anna,left\n", "must be a file inside"),
        ("file,subject,posture\nsupine/../x.png,anna,left\n", "must be a file inside"),
        (
            "file,subject,posture\nsupine/on/anna_1.png,a,left\nsupine//on/anna_1.png,b,left\n",
            "line 3 names supine/on/anna_1.png, which a line above it names as well",
        ),
        (
            "file,subject,posture,blanket\nsupine/on/anna_1.png,anna,left,2\n",
            "line 2 names the blanket '2', which must be one of on, off, with",
        ),
    ],
)
def test_wrong_labels_stop(tmp_path, folder, text, sentence):
    (tmp_path / "labels.csv").write_text(text)
    refused(tmp_path, folder, sentence, labels=tmp_path / "labels.csv")


def test_labels_that_are_no_text_stop(tmp_path, folder):
    refused(tmp_path, folder, "is missing; point --labels", labels=tmp_path / "none.csv")
    refused(tmp_path, folder, "cannot be opened .*; point --labels", labels=folder)
    refused(tmp_path, folder, "is not UTF-8 text", labels=folder / FILES[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Supine", 0),
        ("on_back", 0),
        (" belly ", 1),
        ("face down", 1),
        ("left_side", 2),
        ("RIGHT", 3),
    ],
)
def test_postures_are_understood_in_common_spellings(text, expected):
    assert night_labels.posture(text, "here") == expected


@pytest.mark.parametrize("text", ["", "side", "front", "0", "leftright"])
def test_other_postures_are_not(text):
    with pytest.raises(InputError, match=r"^here names the posture .* supine, prone, left, right"):
        night_labels.posture(text, "here")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("on", "With", "with blanket", "1", "YES", "covered"), 1),
        (("off", "without", "no-blanket", "0", "uncovered", "none"), 0),
        (("", "unknown", "?", "-1", "n/a"), UNKNOWN),
    ],
)
def test_blankets_are_understood_in_common_spellings(texts, expected):
    assert {night_labels.blanket(text, "here") for text in texts} == {expected}


def test_an_empty_class_is_told(tmp_path, folder, capsys):
    (folder / "prone/off/ben_1.png").unlink()
    (folder / "stomach").mkdir()
    images = prepared(tmp_path, folder)
    assert images.skipped == ("prone/off: a folder without images", "stomach: an empty folder")
    out = capsys.readouterr().out
    assert "left out: prone/off: a folder without images" in out
    assert "warning: no image shows prone" in out


def test_one_subject_is_prepared_with_a_warning(tmp_path, folder, capsys):
    for path in folder.rglob("ben_*"):
        path.unlink()
    assert len(prepared(tmp_path, folder)) == 3
    assert "warning: anna is the only subject" in capsys.readouterr().out


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path):
    """Writes the header of an image of 10 billion pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (half, "is not a complete image"),
        (lambda path: path.write_text("letters"), "is not a complete image"),
        (bomb, "is not a complete image (Image size (10000000000 pixels) exceeds limit"),
        (
            lambda path: write(path, np.eye(15, 40, dtype=np.uint8)),
            "fewer than 16 pixels on a side",
        ),
        (lambda path: write(path, np.full((40, 60), 9, np.uint8)), "all of its pixels are alike"),
    ],
)
def test_a_bad_image_is_left_out_and_listed(tmp_path, folder, capfd, damage, reason):
    damage(folder / FILES[0])
    images = prepared(tmp_path, folder)
    assert images.extra["file"].tolist() == list(FILES[1:])
    (skipped,) = images.skipped
    assert skipped.startswith(f"{FILES[0]}: ")
    assert reason in skipped
    out, err = capfd.readouterr()
    assert "image_folder: 5 frames read, 4 kept, 1 left out; 2 subjects, 16 x 24 pixels" in out
    assert "Warning" not in err


def test_images_above_a_limit_are_left_out(folder, monkeypatch):
    monkeypatch.setattr(night_images, "MOST_PIXELS", 40 * 60 - 1)
    with pytest.raises(ValueError, match=r"is a 40 x 60 image, of more than 2,399 pixels"):
        read_grey(folder / FILES[0])
    monkeypatch.setattr(night_images, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"bytes, above 10$"):
        read_grey(folder / FILES[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_left_out(folder):
    (folder / FILES[0]).chmod(0)
    with pytest.raises(ValueError, match="cannot be opened"):
        read_grey(folder / FILES[0])


def test_no_readable_image_at_all_stops(tmp_path, folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    refused(tmp_path, folder, r"no readable image among 5 \(supine/on/anna_1.png: is empty\)")


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("asleep/on/anna_1.png", "asleep names the posture 'asleep'"),
        ("left/quilt/anna_1.png", "quilt names the blanket 'quilt'"),
        ("left/on/0001.png", "0001.png does not tell whom it shows"),
        ("left/on/_1.png", "_1.png does not tell whom it shows"),
        ("left/anna_1.png", "lies in no folder that tells of a blanket"),
    ],
)
def test_names_that_cannot_be_understood_stop(tmp_path, folder, levels, file, sentence):
    write(folder / file, levels[0])
    refused(tmp_path, folder, sentence)


def test_a_folder_without_images_stops(tmp_path, folder):
    refused(tmp_path, folder / "nowhere", "is not a folder")
    (tmp_path / "bare" / "left" / "on").mkdir(parents=True)
    refused(tmp_path, tmp_path / "bare", r"\(left/on: a folder without images\); order the images")
    refused(tmp_path, folder, "--size 15 24 must be", size=(15, 24))


def test_sixteen_bits_are_stretched_between_their_percentiles(tmp_path, rng):
    levels = rng.integers(1000, 1400, (100, 100), np.uint16)
    levels[0, :5], levels[1, :5] = 0, 60_000  # outliers that must not set the range
    write(tmp_path / "deep.png", levels)
    dark, bright = np.quantile(levels.astype(np.float64), [0.001, 0.999])
    expected = np.rint(np.clip((levels - dark) / (bright - dark), 0, 1) * 255)
    found = read_grey(tmp_path / "deep.png")
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert np.quantile(found, 0.5) == pytest.approx(127, abs=3)


def test_colour_becomes_its_luma(tmp_path, rng):
    blue, green, red = levels = rng.integers(0, 256, (3, 20, 30), np.uint8)
    write(tmp_path / "colour.png", np.stack(levels, axis=-1))
    expected = 0.114 * blue + 0.587 * green + 0.299 * red
    np.testing.assert_allclose(read_grey(tmp_path / "colour.png"), expected, atol=0.6)


def test_sixteen_bits_of_colour_keep_their_fine_levels(tmp_path, rng):
    levels = rng.integers(0, 250, (20, 30), np.uint16)  # all within one level of 8 bits
    write(tmp_path / "fine.png", np.repeat(levels[..., None], 3, axis=-1))
    write(tmp_path / "grey.png", levels)
    np.testing.assert_array_equal(
        read_grey(tmp_path / "fine.png"), read_grey(tmp_path / "grey.png")
    )


def test_transparency_is_ignored(tmp_path, rng):
    levels = rng.integers(0, 256, (20, 30, 4), np.uint8)
    write(tmp_path / "clear.png", levels)
    write(tmp_path / "solid.png", levels[..., :3])
    np.testing.assert_array_equal(
        read_grey(tmp_path / "clear.png"), read_grey(tmp_path / "solid.png")
    )


@pytest.mark.parametrize("mode", ["1", "LA", "P", "I;16", "I", "F", "CMYK"])
def test_every_kind_of_pixel_gives_the_same_picture(tmp_path, mode):
    levels = np.repeat(np.uint8([[0], [255]]), 10, axis=0) * np.ones((1, 30), np.uint8)
    image = Image.fromarray(levels)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 7)
    image.convert(mode).save(tmp_path / "image.tiff")
    np.testing.assert_allclose(read_grey(tmp_path / "image.tiff"), levels, atol=2)


def test_a_picture_taken_with_a_turned_camera_is_put_upright(tmp_path, rng):
    levels = np.zeros((32, 48), np.uint8)
    levels[:16, :16] = 255
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(levels).save(content, "jpeg", exif=exif, quality=95)
    (tmp_path / "turned.jpg").write_bytes(content.getvalue())
    found = read_grey(tmp_path / "turned.jpg")
    np.testing.assert_allclose(found, np.rot90(levels, -1), atol=30)


def test_values_that_are_not_finite_are_refused():
    levels = np.eye(20, dtype=np.float32)
    levels[3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        grey(levels)


def test_small_images_grow_smoothly():
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None], 16, axis=0)
    wide = resized(ramp, (16, 64))
    assert (np.diff(wide[0].astype(int)) <= 3).all()


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("size", [(256, 256), (20, 90), (90, 20)])
def test_a_contact_sheet_shows_images_of_every_label(count, size):
    rng = np.random.default_rng(0)
    images = NightImages(
        name="night",
        image=np.repeat(np.arange(count, dtype=np.uint8), np.prod(size)).reshape(count, *size),
        posture=rng.integers(0, 4, count).astype(np.int32),
        blanket=rng.integers(-1, 2, count).astype(np.int32),
        subject=np.array([f"a very long name of a person, number {i} Zoë" for i in range(count)]),
        recording=np.array([""] * count),
    )
    sheet = np.asarray(contact_sheet(images))
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == min(count, 8) * 164
    if count == 200 and size[0] == size[1]:  # 40 of them, of which all labels have some
        values, counts = np.unique(sheet, return_counts=True)
        shown = values[(counts >= 160 * 160) & (values < 200)]
        assert len(shown) == 40
        assert len(set(zip(images.posture[shown], images.blanket[shown], strict=True))) == 12


def test_the_command_prepares_and_tells_what_it_did(tmp_path, folder):
    command = [sys.executable, "-m", "data_prep.image_folder", "--raw", folder]
    done = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "image_folder: 5 frames read, 5 kept, 0 left out; 2 subjects, 256 x 256 pixels",
        "  2 supine, 1 prone, 1 left, 1 right; 2 blanket on, 2 blanket off, 1 blanket unknown",
        str(tmp_path / "out"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "image_folder",
        "image_folder_contact_sheet.png",
    ]
