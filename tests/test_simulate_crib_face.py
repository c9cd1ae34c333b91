"""Faces are where their labels say, and covers hide of them what the labels say."""

import dataclasses

import numpy as np
import pytest

from jaxbed.data.crib import LANDMARKS
from jaxbed.simulate.crib import sample_subject, sample_surroundings
from jaxbed.simulate.crib_camera import frame_points
from jaxbed.simulate.crib_covers import (
    Cloth,
    edge_places,
    lay_on_face,
    length_to_hips,
    pull_to,
    sample_blanket,
    sample_hand,
    sample_pillow,
    sample_shroud,
    sample_toy,
)
from jaxbed.simulate.crib_light import sample_light
from jaxbed.simulate.crib_scene import Scene, find_face, render_scene
from jaxbed.simulate.face import (
    SKULL_AND_JAW,
    Expression,
    Part,
    features,
    head_axes,
    is_turned_to,
    on_surface,
    pacifier,
    sample_face,
    sample_pacifier,
)
from jaxbed.simulate.infant_poses import Pose, Wish, sample_infant_poses
from jaxbed.simulate.skeleton import FREEDOM_INDEX

SIZE = (96, 128)
ABOVE = np.array([0.0, 0.1, 1.5])


@pytest.fixture(scope="module")
def home():
    infant, face = sample_subject(0, 0)
    return infant, *sample_surroundings(0, 0, 0, face)


@pytest.fixture
def scene(home):
    """A close look at the face of who sits up and looks straight ahead, by even light."""
    infant, look, crib = home
    crib = dataclasses.replace(crib, rail_m=0.1)
    look = dataclasses.replace(look, face=dataclasses.replace(look.face, hairline=-0.3, blush=0.0))
    pose = sitting(infant)
    figure = pose.figures(infant)[0]
    middle, axes, radius = head_axes(figure)
    position = middle + 0.9 * axes[:, 2]
    camera = frame_points(SIZE, position, 0.0, middle + radius * np.array([[-2.0], [2.0]]), 1.0)
    light = dataclasses.replace(
        sample_light(np.random.default_rng(0), "day", camera), window=np.zeros(3)
    )
    return Scene(crib, camera, figure, look, Expression(), light)


def sitting(infant, twist_deg=0.0):
    angles = np.zeros((1, len(FREEDOM_INDEX)))
    angles[0, FREEDOM_INDEX["pitch"]] = np.pi / 2
    angles[0, FREEDOM_INDEX["neck_twist"]] = np.radians(twist_deg)
    for side in ("left", "right"):
        angles[0, FREEDOM_INDEX[f"{side}_hip_flexion"]] = np.pi / 2
    return Pose(angles, np.array([[0.0, 0.0, 0.1]]))


def test_features_lie_on_the_surface_of_the_head(scene):
    figure = scene.figure
    points = on_surface(figure, features(scene.look.face))
    start, end = figure.ends_m[0, SKULL_AND_JAW].swapaxes(0, 1)
    near, far = figure.radii_m[0, SKULL_AND_JAW].T
    share = np.linspace(0, 1, 2001)[:, None, None, None]
    at = start + share * (end - start)
    gap = np.linalg.norm(points[:, None] - at, axis=-1) - (near + share[..., 0] * (far - near))
    np.testing.assert_allclose(gap.min(axis=(0, 2)), 0, atol=1e-4)


def test_a_face_is_seen_from_the_front_and_foreshortened_from_the_side(scene, home):
    infant = home[0]
    widths, turned = [], []
    for twist in (0, 30, 55, 75):
        figure = sitting(infant, twist).figures(infant)[0]
        truth = find_face(dataclasses.replace(scene, figure=figure))
        turned.append(truth.visible)
        assert truth.visible == is_turned_to(figure, scene.camera.position_m)
        widths.append(np.ptp(truth.landmarks[:2, 0]))
    assert turned == [True, True, True, False]
    # The angle between the eyes is about 48 degrees, so that their distance falls as the cosine.
    assert widths[0] > widths[1] > widths[2]
    assert widths[1] / widths[0] == pytest.approx(np.cos(np.radians(30)), abs=0.05)
    assert np.isnan(widths[3])


def test_landmarks_are_in_the_order_of_an_upright_face(scene):
    points = dict(zip(LANDMARKS, find_face(scene).landmarks, strict=True))
    assert points["right_eye"][0] < points["nose"][0] < points["left_eye"][0]
    assert points["right_mouth"][0] < points["nose"][0] < points["left_mouth"][0]
    assert points["right_eye"][1] < points["nose"][1] < points["right_mouth"][1]


def picture(scene):
    return render_scene(scene)[0].astype(float)


def around(truth, number, reach):
    x, y = truth.landmarks[number]
    rows = slice(int(y - reach), int(y + reach + 1))
    return rows, slice(int(x - reach), int(x + reach + 1))


def test_what_a_clear_face_does_is_seen_where_the_landmarks_are(scene):
    truth = find_face(scene)
    assert truth.visible and truth.covered == 0
    asleep = picture(dataclasses.replace(scene, expression=Expression(0.0, 0.0)))
    cries = picture(dataclasses.replace(scene, expression=Expression(1.0, 1.0)))
    awake = picture(scene)
    eyes, mouth = np.abs(awake - asleep).max(axis=-1), np.abs(awake - cries).max(axis=-1)
    for number in (0, 1):
        assert eyes[around(truth, number, 2)].max() > 0.08
    column = int(truth.landmarks[3:, 0].mean())
    row = int(truth.landmarks[3:, 1].mean())
    assert mouth[row - 2 : row + 3, column].max() > 0.08
    left, top, right, bottom = truth.box.astype(int)
    outside = np.ones(SIZE, bool)
    outside[top : bottom + 1, left : right + 1] = False
    assert eyes[outside].max() == 0 and mouth[outside].max() == 0


def curtain(figure, edge):
    """A smooth wall before the left half of a face and beyond; its edge is `edge` radii aside."""
    middle, axes, radius = head_axes(figure)
    rows = np.linspace(-2, 2, 15)
    ends = [[(edge + 0.2, up, 2.5), (4.0, up, 2.5)] for up in rows]
    return Part(
        middle + radius * np.array(ends) @ axes.T,
        np.full((15, 2), 0.2 * radius),
        np.full((15, 4), 0.5),
    )


def test_the_covered_share_is_right(scene):
    assert find_face(scene).covered == 0
    shares = []
    for edge in (-2.0, -0.4, 0.0, 0.4, 2.0):
        covered = dataclasses.replace(scene, parts=(curtain(scene.figure, edge),))
        truth = find_face(covered)
        shares.append(truth.covered)
        np.testing.assert_array_equal(truth.box, find_face(scene).box)
        assert render_scene(covered)[1].covered == truth.covered
    # Parallax apart, the wall hides the part of an ellipse beyond a line.
    assert shares[0] == 1 and shares[-1] == 0
    assert shares[1] > 0.65 > shares[2] > 0.35 > shares[3]
    assert shares[2] == pytest.approx(0.5, abs=0.08)


def test_what_a_face_does_is_not_seen_behind_a_cover(scene):
    hidden = dataclasses.replace(scene, parts=(curtain(scene.figure, -2.0),))
    other = dataclasses.replace(hidden, expression=Expression(0.0, 1.0))
    np.testing.assert_array_equal(picture(hidden), picture(other))


def test_a_pacifier_covers_nothing_and_is_at_the_mouth(scene):
    rng = np.random.default_rng(0)
    sucks = dataclasses.replace(scene, pacifier=pacifier(scene.figure, sample_pacifier(rng)))
    truth = find_face(sucks)
    assert truth.covered == 0
    changed = np.abs(picture(sucks) - picture(scene)).max(axis=-1) > 0.02
    row, column = (index.mean() for index in np.nonzero(changed))
    mouth = truth.landmarks[3:].mean(axis=0)
    width = truth.box[2] - truth.box[0]
    assert np.hypot(column - mouth[0], row - mouth[1]) < 0.25 * width
    assert 0.02 < changed.sum() / width**2 < 0.5


@pytest.mark.parametrize("make", [sample_toy, sample_pillow, sample_hand])
def test_things_on_a_face_hide_most_of_it(scene, make):
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        thing = make(rng, scene.look.face) if make is sample_hand else make(rng)
        part = lay_on_face(rng, scene.figure, thing, scene.camera.position_m)
        shares.append(find_face(dataclasses.replace(scene, parts=(part,))).covered)
    assert np.median(shares) > 0.6


CLOTH = Cloth(np.array([[0.2] * 4, [0.8] * 4]), 1, 0.05)


@pytest.mark.parametrize(
    ("reach", "low", "high"), [("chin", 0, 0.1), ("half", 0.4, 0.95), ("whole", 1, 1)]
)
def test_a_cloth_over_who_sits_ends_where_it_should(scene, reach, low, high):
    shroud = sample_shroud(np.random.default_rng(0), scene.figure, reach)
    truth = find_face(dataclasses.replace(scene, shroud=shroud, cloth=CLOTH))
    assert low <= truth.covered <= high


@pytest.mark.parametrize(("reach", "low", "high"), [("chest", 0, 0.1), ("whole", 0.99, 1)])
def test_a_blanket_over_who_lies_ends_where_it_should(scene, home, reach, low, high):
    infant, _, crib = home
    rngs = [np.random.default_rng(n) for n in range(8)]
    poses = sample_infant_poses(rngs, infant, [Wish("back", ABOVE)] * len(rngs), crib)
    found = 0
    for figure in poses.figures(infant):
        middle, _, radius = head_axes(figure)
        cube = middle + radius * np.array([[-3.0] * 3, [3.0] * 3])
        camera = frame_points(SIZE, middle + (0, -0.2, 1.2), 0.0, cube, 1.0)
        blanket = sample_blanket(np.random.default_rng(0), crib)
        blanket = pull_to(blanket, figure, edge_places(figure)[reach])
        under = dataclasses.replace(
            scene, figure=figure, camera=camera, blanket=blanket, cloth=CLOTH
        )
        free, truth = find_face(dataclasses.replace(under, blanket=None)), find_face(under)
        if free.visible and free.covered == 0:
            found += 1
            assert low <= truth.covered <= high
            np.testing.assert_array_equal(truth.box, free.box)
    assert found > 2


def test_a_blanket_over_the_face_leaves_the_legs_free(scene, home):
    infant, _, crib = home
    for seed in range(4):
        rng = np.random.default_rng(seed)
        figure = sample_infant_poses([rng], infant, [Wish("back")], crib).figures(infant)[0]
        place = edge_places(figure)["whole"]
        whole = sample_blanket(rng, crib)
        short = pull_to(whole, figure, place, length_to_hips(figure, place))
        hips = figure.origins_m[0, 0]
        assert short.head_m > head_axes(figure)[0][1]
        assert short.foot_m + short.slant * hips[0] == pytest.approx(hips[1], abs=0.05)
        assert pull_to(whole, figure, place, 9.0).foot_m == whole.foot_m


def test_faces_differ_from_infant_to_infant():
    faces = [sample_face(np.random.default_rng(n)) for n in range(60)]
    skin = np.array([face.skin for face in faces])
    assert skin[:, 0].min() < 0.35 and skin[:, 0].max() > 0.65  # dark and fair
    assert np.all(skin[:, 0] > skin[:, 2])  # none is blue
    assert len({face.iris.tobytes() for face in faces}) > 1
