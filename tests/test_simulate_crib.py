"""Infants lie, sit and stand as they should, and the labels of their pictures are exact."""

import numpy as np
import pytest

from jaxbed.data.crib import COVERS, FACES, LIGHTS, POSTURES, UNKNOWN, VIEWS
from jaxbed.simulate.crib import sample_subject, sample_surroundings, simulate_crib_images
from jaxbed.simulate.crib_camera import frame_points, sample_position
from jaxbed.simulate.crib_light import develop
from jaxbed.simulate.crib_room import draw_rails, draw_room
from jaxbed.simulate.face import (
    head_axes,
    sample_face,
)
from jaxbed.simulate.infant_poses import Wish, sample_crib_infants, sample_infant_poses
from jaxbed.simulate.skeleton import JOINTS

SIZE = (96, 128)
ABOVE = np.array([0.0, 0.1, 1.5])
MANY = 8


@pytest.fixture(scope="module")
def images():
    return simulate_crib_images(subjects=3, images_per_subject=12, size=SIZE, seed=1)


@pytest.fixture(scope="module")
def home():
    infant, face = sample_subject(0, 0)
    return infant, *sample_surroundings(0, 0, 0, face)


@pytest.fixture(scope="module")
def figures(home):
    """Some figures in every posture, their faces turned to a camera above the crib."""
    infant, _, crib = home
    found = {}
    for posture in POSTURES:
        rngs = [np.random.default_rng(n) for n in range(MANY)]
        wishes = [Wish(posture, ABOVE, face_down=n % 2 == 0) for n in range(MANY)]
        found[posture] = sample_infant_poses(rngs, infant, wishes, crib).figures(infant)
    return found


def lowest(figure):
    return (figure.ends_m[..., 2] - figure.radii_m).min()


# ---------------------------------------------------------------------------- sets of images


def test_every_kind_of_label_comes_up_and_has_its_form(images):
    assert len(images) == 36 and images.size == SIZE
    assert images.image.dtype == np.uint8 and images.image.shape == (36, *SIZE, 3)
    np.testing.assert_array_equal(np.bincount(images.posture), [9] * len(POSTURES))
    assert set(images.face) == {UNKNOWN, *range(len(FACES))}
    assert set(images.view) == set(range(len(VIEWS)))
    np.testing.assert_array_equal(np.bincount(images.light), [18] * len(LIGHTS))
    assert len(set(images.extra["cover"])) >= len(COVERS) - 1
    assert list(np.unique(images.subject)) == ["sim-000", "sim-001", "sim-002"]
    for name in ("posture", "face", "view", "light"):
        assert getattr(images, name).dtype == np.int32
    for name in ("covered", "face_box", "landmarks"):
        assert getattr(images, name).dtype == np.float32


def test_labels_of_a_face_agree_with_each_other(images):
    seen = images.visible
    assert 0.4 < seen.mean() < 0.95
    np.testing.assert_array_equal(seen, images.face != UNKNOWN)
    for array in (images.covered, images.face_box, images.landmarks):
        np.testing.assert_array_equal(np.isfinite(array).reshape(36, -1).all(axis=1), seen)
        np.testing.assert_array_equal(np.isnan(array).reshape(36, -1).all(axis=1), ~seen)
    np.testing.assert_array_equal(
        images.covered[seen] >= 0.5, images.face[seen] == FACES.index("occluded")
    )
    box, points = images.face_box[seen], images.landmarks[seen]
    assert box.min() >= 0 and np.all(box[:, 2:] <= SIZE[::-1])
    assert np.all(box[:, 2:] - box[:, :2] >= 3)
    assert np.all((points >= box[:, None, :2]) & (points <= box[:, None, 2:]))


def test_night_is_grey_and_day_is_not(images):
    spread = np.ptp(images.image.astype(int), axis=-1).reshape(36, -1)
    night = images.light == LIGHTS.index("night")
    assert spread[night].max() == 0
    assert spread[~night].mean(axis=1).min() > 4
    assert images.image.reshape(36, -1).std(axis=1).min() > 8  # something is in the picture


def test_an_image_depends_on_seed_subject_and_number_only(images):
    few = simulate_crib_images(subjects=2, images_per_subject=2, size=SIZE, seed=1)
    for name in ("image", "face", "face_box", "landmarks", "covered", "view"):
        whole = getattr(images, name)[[0, 1, 12, 13]]
        np.testing.assert_array_equal(getattr(few, name), whole, err_msg=name)
    other = simulate_crib_images(subjects=1, images_per_subject=2, size=SIZE, seed=2)
    assert not np.array_equal(other.image, few.image[:2])


def test_views_can_be_chosen():
    chosen = simulate_crib_images(subjects=1, images_per_subject=3, size=(24, 32), views=("side",))
    assert set(chosen.view) == {VIEWS.index("side")}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"subjects": 0}, "subject"),
        ({"images_per_subject": 0}, "image"),
        ({"size": (0, 8)}, "size"),
        ({"size": (8, 8, 3)}, "size"),
        ({"views": ("ceiling",)}, "views"),
        ({"views": ()}, "views"),
        ({"views": ("foot", "foot")}, "views"),
    ],
)
def test_senseless_sets_are_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_crib_images(**{"subjects": 1, "images_per_subject": 1, **wrong})


# ---------------------------------------------------------------------------- bodies


def test_infants_are_of_an_age_to_stand():
    infants = sample_crib_infants(np.random.default_rng(0), 200)
    assert infants.stature_m.min() > 0.6 and infants.stature_m.max() < 0.78
    assert infants.weight_kg.min() > 4.5 and infants.weight_kg.max() < 14
    np.testing.assert_allclose(infants.load_n.sum(axis=1), 9.80665 * infants.weight_kg)


def test_bodies_are_on_the_mattress_and_within_the_crib(home, figures):
    crib = home[2]
    for posture, drawn in figures.items():
        for figure in drawn:
            assert -0.05 < lowest(figure) < 0.005, posture
            hips = figure.origins_m[0, 0, :2]
            assert np.all(np.abs(hips) < (crib.width_m / 2, crib.length_m / 2)), posture
            if posture in ("back", "stomach"):
                assert np.abs(figure.joints_m[0, :, 0]).max() < crib.width_m / 2 + 0.1
                assert np.abs(figure.joints_m[0, :, 1]).max() < crib.length_m / 2 + 0.05


def test_postures_are_what_they_are_called(figures):
    crown, ankles = (
        JOINTS.index("head_top"),
        [JOINTS.index(f"{s}_ankle") for s in ("left", "right")],
    )
    heights = {}
    for posture, drawn in figures.items():
        front = np.array([figure.rotations[0, 0, :, 2] for figure in drawn])  # of the pelvis
        spine = np.array([figure.rotations[0, 2, :, 1] for figure in drawn])  # of the chest
        face = np.array([head_axes(figure)[1][:, 2] for figure in drawn])
        heights[posture] = np.array([head_axes(figure)[0][2] for figure in drawn])
        if posture == "back":
            assert front[:, 2].min() > 0.9 and face[:, 2].min() > 0.2
        if posture == "stomach":
            assert front[:, 2].max() < -0.9 and face[:, 2].max() < 0.5
            assert face[::2, 2].max() < -0.5  # in the mattress
        if posture in ("sitting", "standing"):
            assert spine[:, 2].min() > 0.6
        if posture == "standing":
            feet = np.array([figure.joints_m[0, ankles, 2] for figure in drawn])
            head = np.array([figure.joints_m[0, crown, 2] for figure in drawn])
            assert feet.max() < 0.15 and head.min() > 0.5
    lying = max(heights["back"].max(), heights["stomach"].max())
    assert heights["standing"].min() > 1.5 * lying
    assert heights["sitting"].min() > 1.2 * lying
    assert heights["standing"].mean() > 1.2 * heights["sitting"].mean()


def test_who_stands_holds_the_rail(home, figures):
    crib = home[2]
    wrists = [JOINTS.index(f"{side}_wrist") for side in ("left", "right")]
    half = np.array([crib.width_m, crib.length_m]) / 2
    away = []
    for figure in figures["standing"]:
        hand = figure.joints_m[0, wrists]
        beside = np.abs(np.abs(hand[:, :2]) - half).min(axis=1)
        away.append(np.hypot(beside, hand[:, 2] - crib.rail_m))
    assert np.median(away) < 0.03 and np.max(away) < 0.12


def test_faces_turn_to_where_they_are_wanted(home):
    infant, _, crib = home
    for side in (-1, 1):
        point = np.array([side * 1.0, 0.0, 0.9])
        for posture in ("stomach", "sitting", "standing"):
            rngs = [np.random.default_rng(n) for n in range(4)]
            poses = sample_infant_poses(rngs, infant, [Wish(posture, point)] * 4, crib)
            ahead = [head_axes(figure)[1][0, 2] * side for figure in poses.figures(infant)]
            assert min(ahead) > 0, posture


def test_a_pose_depends_on_its_own_randomness_only(home):
    infant, _, crib = home
    wishes = [Wish(posture) for posture in POSTURES]
    rngs = [np.random.default_rng(n) for n in range(4)]
    together = sample_infant_poses(rngs, infant, wishes, crib)
    for n, wish in enumerate(wishes):
        alone = sample_infant_poses([np.random.default_rng(n)], infant, [wish], crib)
        np.testing.assert_array_equal(alone.angles[0], together.angles[n])
        np.testing.assert_array_equal(alone.root_m[0], together.root_m[n])


def test_senseless_poses_are_refused(home):
    infant, _, crib = home
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="posture"):
        sample_infant_poses([rng], infant, [Wish("flying")], crib)
    with pytest.raises(ValueError, match="one infant"):
        sample_infant_poses([rng], infant[[0, 0]], [Wish("back")], crib)


# ---------------------------------------------------------------------------- room and camera


@pytest.mark.parametrize("view", VIEWS)
def test_cameras_are_in_the_room_and_see_what_they_should(view):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        _, crib = sample_surroundings(seed, 0, 0, sample_face(rng))
        position = sample_position(rng, view, crib)
        assert np.all((position > crib.walls_m[0]) & (position < crib.walls_m[1]))
        points = rng.uniform(-0.3, 0.3, (9, 3)) + (0, 0, 0.2)
        camera = frame_points(SIZE, position, rng.uniform(-3, 3), points, 1.1)
        seen = camera.project(points)
        assert np.all((seen >= 0) & (seen <= np.array(SIZE[::-1]) - 1))
        room = np.array(SIZE[::-1]) - 1 - np.ptp(seen, axis=0)
        assert room.min() == pytest.approx(0, abs=0.12 * SIZE[1])


def test_rails_stand_between_camera_and_crib_and_leave_gaps(home):
    crib = home[2]
    camera = frame_points(
        SIZE, np.array([1.1, 0.0, 0.4]), 0.0, np.array([(0, -0.4, 0), (0, 0.4, 0.3)]), 1.0
    )
    room = draw_room(camera, crib, (0,))
    before = room.depth.copy()
    draw_rails(room, crib)
    railed = room.depth < before
    assert 0.1 < railed.mean() < 0.7
    x, y = camera.rays()
    ahead = camera.axes[0, 0] * x + camera.axes[1, 0] * y + camera.axes[2, 0]
    across = camera.position_m[0] + room.depth * ahead
    half = crib.width_m / 2 + 0.02
    ends = crib.length_m / 2 + 0.02
    along = camera.position_m[1] + room.depth * (camera.axes[0, 1] * x + camera.axes[1, 1] * y)
    on_side = np.abs(np.abs(across[railed]) - half) < 1e-3
    on_end = np.abs(np.abs(along[railed]) - ends) < 1e-3
    assert np.all(on_side | on_end)


def test_an_unknown_view_is_refused(home):
    with pytest.raises(ValueError, match="view"):
        sample_position(np.random.default_rng(0), "below", home[2])


def test_a_night_picture_has_one_grey_in_three_channels():
    light = np.random.default_rng(0).random((8, 9, 1), np.float32)
    image = develop(np.random.default_rng(0), light)
    assert image.shape == (8, 9, 3) and np.ptp(image, axis=-1).max() == 0
