"""Lists of faces in two layouts, good and bad, and the sets that are made of them."""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep import infant_danger as own
from data_prep import wider_face
from jaxbed.data.crib import FACES, POSTURES
from jaxbed.data.prepared_infant_danger import read_face_images, read_named_images
from jaxbed.errors import InputError

AUTHORS = """\
0--Parade/a.jpg
2
10 20 30 40 0 0 0 0 0 0
50 10 8 8 0 0 0 0 0 0
0--Parade/empty.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Crowd/b.jpg
4
1 2 20 20 0 0 0 1 0 0
5 5 0 10 0 0 0 0 0 0
not a line
20 20 200 30 2 0 0 0 0 0
"""
RETINA = """\
# 0--Parade/a.jpg
10 20 30 40 12 25 0.0 30 25 0.0 20 40 1.0 15 50 0.0 28 50 0.0 0.9
50 10 8 8 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 0.2
# 1--Crowd/b.jpg
20 20 nan 30
"""


@pytest.fixture
def raw(tmp_path, rng):
    raw = tmp_path / "WIDER_train"
    for file in ("0--Parade/a.jpg", "0--Parade/empty.jpg", "1--Crowd/b.jpg"):
        path = raw / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), np.uint8)).save(path)
    return raw


def config(raw, tmp_path, **settings):
    settings = {"size": (40, 50), "least_px": 2.0, **settings}
    return wider_face.Config(raw, tmp_path / "out", **settings)


def test_the_authors_list_is_read_and_bad_lines_are_told(tmp_path):
    path = tmp_path / "wider_face_train_bbx_gt.txt"
    path.write_text(AUTHORS)
    listed, bad = wider_face.read_list(path)
    assert [(file, len(faces)) for file, faces in listed] == [
        ("0--Parade/a.jpg", 2),
        ("0--Parade/empty.jpg", 0),
        ("1--Crowd/b.jpg", 1),  # one is invalid, one has no area
    ]
    np.testing.assert_array_equal(listed[0][1][0].box, [10, 20, 40, 60])
    assert np.isnan(listed[0][1][0].landmarks).all()
    assert [line.split(":")[0] for line in bad] == ["line 11", "line 12"]


def test_retinafaces_list_has_landmarks(tmp_path):
    path = tmp_path / "label.txt"
    path.write_text(RETINA)
    listed, bad = wider_face.read_list(path)
    assert [len(faces) for _, faces in listed] == [2, 0]
    points = listed[0][1][0].landmarks
    np.testing.assert_array_equal(points, [[12, 25], [30, 25], [20, 40], [15, 50], [28, 50]])
    assert np.isnan(listed[0][1][1].landmarks).all() and len(bad) == 1


def test_a_prepared_set_comes_back_as_it_was_written(raw, tmp_path, capsys):
    (raw / "label.txt").write_text(RETINA)
    wider_face.main(config(raw, tmp_path))
    images = read_face_images(tmp_path / "out", "wider_face")
    assert images.image.shape == (2, 40, 50, 3)
    np.testing.assert_allclose(images.boxes_px[0], [[5, 10, 20, 30], [25, 5, 29, 9]])
    np.testing.assert_allclose(images.landmarks_px[0, 0, 0], [6, 12.5])
    assert np.isnan(images.boxes_px[1]).all() and np.isnan(images.landmarks_px[0, 1]).all()
    assert images.subject.tolist() == ["0--Parade", "1--Crowd"]
    assert any("line 5" in line for line in images.skipped)
    told = capsys.readouterr().out
    assert "2 faces kept" in told and "1 lines not understood" in told
    metadata = json.loads((tmp_path / "out" / "wider_face" / "1.0.0" / "metadata.json").read_text())
    assert metadata["frames"] == {"read": 2, "kept": 2, "skipped": 0}


def test_faces_are_cut_at_the_edge_and_small_and_many_ones_counted(raw, tmp_path):
    (raw / "wider_face_train_bbx_gt.txt").write_text(AUTHORS)
    images, read, counts = wider_face.read_faces(config(raw, tmp_path, most_faces=1))
    assert (read, len(images)) == (3, 3)
    np.testing.assert_allclose(images.boxes_px[2, 0], [10, 10, 50, 25])
    assert counts["faces kept"] == 2 and counts["faces too many"] == 1
    few = wider_face.read_faces(config(raw, tmp_path, least_px=5.0))[2]
    assert few["faces too small"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "has no list of faces"),
        ("", "names no photograph"),
        ("a b c\nd e f\n", "names no photograph"),
        ("# x/missing.jpg\n1 2 3 4\n", "none of the 1 photographs"),
        ("# ../../etc/secret.jpg\n1 2 3 4\n", "named outside the folder"),
    ],
)
def test_a_list_that_is_none_is_refused_and_leaves_no_folder(raw, tmp_path, text, told):
    if text is not None:
        (raw / "label.txt").write_text(text)
    with pytest.raises(InputError, match=told):
        wider_face.main(config(raw, tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_damaged_photograph_is_left_out_and_listed(raw, tmp_path):
    (raw / "label.txt").write_text(RETINA)
    (raw / "images" / "1--Crowd" / "b.jpg").write_bytes(b"\xff\xd8 no photograph")
    images, read, _ = wider_face.read_faces(config(raw, tmp_path))
    assert (read, len(images)) == (2, 1)
    assert any("1--Crowd/b.jpg: is not a complete image" in line for line in images.skipped)


# one's own images of infants


def folder_of(root, classes, rng, size=(30, 50), people=("ann", "bob")):
    for name in classes:
        (root / name).mkdir(parents=True)
        for person in people:
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(image).save(root / name / f"{person}_{name}.png")
    return root


def test_own_images_are_prepared_by_class_and_infant(tmp_path, rng, capsys):
    faces = folder_of(tmp_path / "faces", FACES, rng)
    postures = folder_of(tmp_path / "postures", POSTURES, rng)
    Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(faces / "clear" / "alone.png")
    (faces / "clear" / "ann_broken.png").write_bytes(b"nothing")
    own.main(own.Config(tmp_path / "out", faces, postures, face_size=(32, 32)))
    read = read_named_images(tmp_path / "out", "infant_faces", FACES)
    assert len(read) == 7 and sorted(set(read.subject)) == ["alone", "ann", "bob"]
    assert np.bincount(read.label).tolist() == [3, 2, 2]
    wide = read.box_px[read.subject == "ann"][0]
    np.testing.assert_array_equal(wide, [0, 6, 32, 25])
    np.testing.assert_array_equal(read.image[read.subject == "ann"][0, :6], own.GREY)
    assert read.skipped == ("clear/ann_broken.png: " + read.skipped[0].partition(": ")[2],)
    assert len(read_named_images(tmp_path / "out", "infant_postures", POSTURES)) == 8
    assert "3 clear, 2 pacifier, 2 occluded" in capsys.readouterr().out


def test_colours_are_kept_in_the_order_red_green_blue(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    image[:10] = (250, 100, 0)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(own.read_colour(tmp_path / "a.png"), image)
    fitted, box = own.fitted(image, (40, 40))
    np.testing.assert_array_equal(box, [0, 0, 40, 40])
    np.testing.assert_array_equal(fitted[0, 0], [250, 100, 0])


@pytest.mark.parametrize("broken", ["missing", "empty", "unknown", "absent"])
def test_a_class_that_cannot_be_learned_is_refused(tmp_path, rng, broken):
    classes = {"missing": FACES[:2], "unknown": (*FACES, "smile")}.get(broken, FACES)
    folder = tmp_path / "faces"
    if broken != "absent":
        folder_of(folder, classes, rng)
    if broken == "empty":
        for path in (folder / "pacifier").iterdir():
            path.unlink()
    with pytest.raises(InputError, match="faces"):
        own.main(own.Config(tmp_path / "out", folder))
    assert not (tmp_path / "out").exists()


def test_nothing_to_prepare_is_told(tmp_path):
    with pytest.raises(InputError, match="--faces, --postures"):
        own.main(own.Config(tmp_path / "out"))


def test_a_set_of_other_classes_is_refused(tmp_path, rng):
    folder = folder_of(tmp_path / "faces", FACES, rng)
    own.main(own.Config(tmp_path / "out", folder, face_size=(32, 32)))
    with pytest.raises(InputError, match="its classes are not back"):
        read_named_images(tmp_path / "out", "infant_faces", POSTURES)
