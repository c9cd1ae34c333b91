"""A night camera sees what its lamp lights, blankets cover bodies, labels are exact."""

import dataclasses
import re

import numpy as np
import pytest

from jaxbed.data.night import POSTURES
from jaxbed.simulate.bedding import (
    GRID,
    Bed,
    Blanket,
    blend,
    body_top,
    drape,
    make_bed,
    ripple,
)
from jaxbed.simulate.bedroom import Room, Scene, fold, pull_up, render_scene, sample_room
from jaxbed.simulate.body import forward_kinematics, sample_subjects
from jaxbed.simulate.infrared import (
    CAMERAS,
    IDEAL,
    Lamp,
    NightSensor,
    frame_bed,
    hang_camera,
    look_at,
)
from jaxbed.simulate.looks import Look, find_on_body, reflect, sample_look
from jaxbed.simulate.mattress import underside
from jaxbed.simulate.night import simulate_night_images
from jaxbed.simulate.poses import mirrored
from jaxbed.simulate.relief import Relief, meet
from jaxbed.simulate.skeleton import BONE_INDEX, FLESH, FREEDOMS, JOINTS
from jaxbed.simulate.sleeper import lie_in_bed, split

JOINT = {name: i for i, name in enumerate(JOINTS)}
SIZE = (144, 192)
OTHER = {"left": "right", "right": "left"}
OTHER_SIDE = re.compile("left|right")
FLIP = np.array([-1.0, 1.0, 1.0])
WHITE = Look(*[1.0] * 5, sleeve=2.0, leg=2.0, hairline=0.0, stripe=0.0, stripes_per_m=1.0)
BLACK = Bed(1.4, 2.0, 0.5, 0.3, np.array([0, 0.75, 0.6, 0.4, 0.0]), np.zeros((1, 4)), 0, 0, 0)
CORNERS = np.array([(-3.0, -4.0, -0.5), (3.0, 1.2, 4.0)])
WAVES = np.array([[0.006, 14.0, 5.0, 0.3], [0.004, -9.0, 21.0, 2.0]])
BLANKET = Blanket(
    left_m=-0.75,
    right_m=0.65,
    foot_m=-1.05,
    head_m=0.4,
    slant=0.1,
    thickness_m=0.02,
    softness_m=0.03,
    fall=1.2,
    waves=WAVES,
    reflectance=0.6,
    stripes=np.array([0.2, 30.0, 7.0, 0.4]),
    turned_m=0.1,
    lining=0.3,
)


def lying(rng, postures):
    """Bodies, angles and root of people at rest in beds of 2 m."""
    bodies = sample_subjects(rng, len(postures))
    rest = lie_in_bed(rng.spawn(len(postures)), bodies, postures, np.full(len(bodies), 2.0))
    return bodies, rest.angles, rest.root_m


def figures(rng, postures):
    return split(forward_kinematics(*lying(rng, postures)))


def dark_room(where, rng):
    """A room that is black, apart from who lies there."""
    camera = hang_camera(rng, where, SIZE, (1.4, 2.0))
    lamp = Lamp(camera.position_m, camera.axes[2], lobe=2.0, ambient=0.01)
    return Room(camera, lamp, BLACK, CORNERS, np.zeros(3), 0.2, BLANKET)


def relief_of(height):
    """A relief of a function of x and y, with a rim below all of it."""
    z = np.float32(height(GRID.x_m, GRID.y_m[:, None]))
    z[[0, -1]] = z[:, [0, -1]] = -0.6
    return Relief(GRID, z, np.ones_like(z))


def rays_of(camera):
    x, y = camera.rays()
    return np.stack([a * x + b * y + c for a, b, c in np.float32(camera.axes.T)])


# --- the relief


def test_rays_meet_a_slope_where_the_textbook_says():
    camera = look_at((40, 50), np.array([0.2, -2.0, 1.8]), np.array([0.0, 0.0, 0.1]), 60.0)
    found = meet(
        relief_of(lambda x, y: 0.1 + 0.05 * x + 0.1 * y), camera.position_m, rays_of(camera)
    )
    normal = np.array([-0.05, -0.1, 1.0])
    expected = (0.1 - normal @ camera.position_m) / np.tensordot(normal, rays_of(camera), 1)
    points = camera.position_m[:, None, None] + expected * rays_of(camera)
    on_it = np.all(np.abs(points[:2]) < [[[1.1]], [[1.3]]], axis=0)
    assert on_it.sum() > 500
    np.testing.assert_allclose(found[on_it], expected[on_it], atol=1e-4)


def test_rays_meet_a_draped_body_where_a_dense_march_does(rng):
    bed = make_bed(BLACK, np.zeros(2))
    top = body_top(forward_kinematics(*lying(rng, ["left"])))[0]
    relief = drape(bed, BLACK, dataclasses.replace(BLANKET, left_m=-0.6, right_m=0.6), top)
    camera = look_at((30, 40), np.array([1.6, 0.1, 1.8]), np.zeros(3), 40.0)
    rays = rays_of(camera)
    found = meet(relief, camera.position_m, rays)
    share = np.linspace(0, 1, 3000, dtype=np.float32)
    hits = np.full(found.shape, np.inf)
    for at in np.ndindex(found.shape):
        ray = rays[(slice(None), *at)]
        first, last = ((z - camera.position_m[2]) / ray[2] for z in (0.6, -0.49))
        depth = first + share * (last - first)
        x, y, z = np.float32(camera.position_m)[:, None] + depth * ray[:, None]
        under = z <= GRID.look_up(relief.height_m, x, y)
        if under.any():
            hits[at] = depth[under.argmax()]
    both = np.isfinite(hits) & np.isfinite(found)
    assert both.mean() > 0.3 and np.mean(np.isfinite(hits) != np.isfinite(found)) < 0.01
    assert np.mean(np.abs(found - hits)[both] > 0.005) < 0.02  # grazed


def test_normals_stand_upright_on_a_slope():
    relief = relief_of(lambda x, y: 0.3 * x - 0.2 * y)
    normal = relief.normals(np.float32([0.1, -0.4]), np.float32([0.5, 0.2]))
    expected = np.array([-0.3, 0.2, 1]) / np.linalg.norm([-0.3, 0.2, 1])
    np.testing.assert_allclose(normal.T, [expected, expected], atol=1e-4)


def test_rays_that_pass_beside_or_look_up_meet_nothing_and_low_cameras_are_refused():
    relief = relief_of(lambda x, y: 0.2 + 0 * x + 0 * y)
    away = look_at((8, 8), np.array([0, -3.0, 2.0]), np.array([0, -6.0, 0.0]), 20.0)
    assert np.isinf(meet(relief, away.position_m, rays_of(away))).all()
    level = look_at((9, 8), np.array([0, -3.0, 2.0]), np.array([0, 0.0, 2.0]), 9.0)
    assert np.isinf(meet(relief, level.position_m, rays_of(level))[:5]).all()
    with pytest.raises(ValueError, match="below the highest"):
        meet(relief, np.array([0, 0, 0.1]), rays_of(away))


# --- the bedding


def test_ripple_adds_up_its_waves():
    x, y = GRID.x_m, GRID.y_m[:, None]
    expected = sum(a * np.cos(kx * x + ky * y + phase) for a, kx, ky, phase in WAVES)
    np.testing.assert_allclose(ripple(WAVES, GRID), expected, atol=1e-6)


def test_the_top_of_a_body_is_the_underside_of_the_body_upside_down(rng):
    figure = forward_kinematics(*lying(rng, ["left", "prone"]))
    top = body_top(figure)
    assert np.all((top >= underside(figure, GRID.x_m, GRID.y_m))[np.isfinite(top)])
    highest = (figure.ends_m[..., 2] + figure.radii_m).max(axis=(1, 2))
    np.testing.assert_allclose(top.max(axis=(1, 2)), highest, atol=5e-3)


@pytest.mark.parametrize("posture", POSTURES)
def test_a_blanket_raises_the_surface_and_never_lies_below_the_body(rng, posture):
    bed = make_bed(BLACK, np.zeros(2))
    top = body_top(forward_kinematics(*lying(rng, [posture] * 3)))
    edge = BLANKET.head_m + BLANKET.slant * GRID.x_m + 3 * ripple(WAVES, GRID)[len(GRID.y_m) // 2]
    cell = GRID.cell_m
    inside = (GRID.x_m > BLANKET.left_m + cell) & (GRID.x_m < BLANKET.right_m - cell)
    y = GRID.y_m[:, None]
    for body in top:
        found = drape(bed, BLACK, BLANKET, body)
        beneath = np.maximum(bed.height_m, body)
        under = inside & (y > BLANKET.foot_m + cell) & (y < edge - cell)
        assert np.all((found.height_m - beneath)[under] >= BLANKET.thickness_m - 1e-5)
        bare = (y > edge + cell) | (GRID.x_m > BLANKET.right_m + cell)
        np.testing.assert_array_equal(found.height_m[bare], bed.height_m[bare])
        np.testing.assert_array_equal(found.reflectance[bare], bed.reflectance[bare])


def test_a_blanket_bridges_hollows_and_a_soft_fall_bridges_more():
    bed = make_bed(BLACK, np.zeros(2))
    spike = np.full(bed.height_m.shape, -np.inf, np.float32)
    middle = len(GRID.y_m) // 2, len(GRID.x_m) // 2
    spike[middle] = 0.3
    flat = dataclasses.replace(BLANKET, waves=WAVES[:0])
    gentle, steep = (
        drape(bed, BLACK, dataclasses.replace(flat, fall=fall), spike).height_m for fall in (1, 3)
    )
    assert np.all(gentle >= steep - 0.025)
    near = middle[0], middle[1] + round(0.15 / GRID.cell_m)
    assert gentle[near] == pytest.approx(0.15 + flat.thickness_m, abs=0.04)
    assert steep[near] == pytest.approx(flat.thickness_m, abs=0.005)


def test_a_blanket_on_its_way_is_between_both_ends():
    other = dataclasses.replace(BLANKET, head_m=-0.6, thickness_m=0.1)
    assert blend(BLANKET, other, 0.0).head_m == BLANKET.head_m
    assert blend(BLANKET, other, 1.0).thickness_m == pytest.approx(0.1)
    assert blend(BLANKET, other, 0.5).head_m == pytest.approx(-0.1)


@pytest.mark.parametrize("wrong", [{"thickness_m": 0}, {"softness_m": -1}, {"fall": 9}])
def test_senseless_blankets_are_refused(wrong):
    with pytest.raises(ValueError, match="blanket"):
        dataclasses.replace(BLANKET, **wrong)


# --- how people look


def test_points_on_a_body_find_their_capsule_and_normal(rng):
    figure = figures(rng, ["supine"])[0]
    c = rng.integers(len(FLESH), size=400)
    share, out = rng.random(400), rng.normal(size=(400, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    start, end = np.moveaxis(figure.ends_m[0], 1, 0)
    near, far = figure.radii_m[0].T
    points = start[c] + share[:, None] * (end - start)[c]
    points = points + (near[c] + share * (far - near)[c])[:, None] * out
    found = find_on_body(figure, np.float32(points.T))

    along = np.linspace(0, 1, 201)[:, None, None]
    balls, radii = start + along * (end - start), near + along[..., 0] * (far - near)
    gap = np.linalg.norm(points[:, None, None] - balls, axis=-1) - radii
    gap = gap.min(axis=1)  # f64[P,C]
    chosen = gap[np.arange(400), found.capsule]
    assert np.all(chosen <= gap.min(axis=1) + 2e-3)
    np.testing.assert_allclose(np.linalg.norm(found.normal, axis=0), 1, atol=1e-4)


def test_far_from_creases_the_normal_is_that_of_the_ball(rng):
    figure = figures(rng, ["supine"])[0]
    centre, radius = figure.ends_m[0, 0, 0], figure.radii_m[0, 0, 0]
    crown = figure.rotations[0, BONE_INDEX["head"], :, 1]
    found = find_on_body(figure, np.float32(centre + radius * crown)[:, None])
    assert found.capsule[0] == 0
    np.testing.assert_allclose(found.normal[:, 0], crown, atol=0.05)


def test_faces_are_bright_hair_is_dark_and_clothes_cover_what_they_should(rng):
    angles = np.zeros((1, len(FREEDOMS)))
    figure = forward_kinematics(sample_subjects(rng, 1), angles, np.zeros((1, 3)))
    look = Look(0.6, 0.1, 0.8, 0.3, 0.45, 0.5, 1.9, 0.0, 0.0, 1.0)
    head = figure.rotations[0, BONE_INDEX["head"]]

    def seen(capsule, share, out):
        start, end = figure.ends_m[0, capsule]
        near, far = figure.radii_m[0, capsule]
        point = np.float32(start + share * (end - start) + (near + share * (far - near)) * out)
        return reflect(look, figure, point[:, None], find_on_body(figure, point[:, None]))[0]

    bones = [flesh.bone for flesh in FLESH]
    up = np.array([0, 0, 1.0])
    forehead = head @ np.array([0, 0.25, 0.97])
    assert seen(0, 0.0, forehead) == pytest.approx(0.6, abs=0.05)
    assert seen(0, 0.0, -head[:, 2]) == pytest.approx(0.1, abs=0.02)
    hand = bones.index("left_forearm") + 1
    assert seen(hand, 1.0, up) == pytest.approx(0.6)
    assert seen(bones.index("left_foot"), 1.0, up) == pytest.approx(0.45)
    assert seen(bones.index("left_upper_arm"), 0.9, up) == pytest.approx(0.6)
    assert seen(bones.index("left_thigh"), 0.5, up) == pytest.approx(0.3)
    assert seen(bones.index("chest"), 0.5, up) == pytest.approx(0.8)


def test_sampled_looks_are_reflectances_with_dark_hair(rng):
    for look in (sample_look(rng) for _ in range(50)):
        assert 0 < look.hair < 0.5 * look.skin < look.skin < 1
        assert max(look.shirt, look.trousers, look.socks) * (1 + look.stripe) < 1.1


# --- lamp, camera and sensor


def test_light_falls_with_the_square_of_the_distance_the_cosine_and_the_lobe():
    lamp = Lamp(np.array([0, 0, 2.0]), np.array([0, 0, -1.0]), lobe=3.0, ambient=0.0)
    up = np.float32([0, 0, 1])[:, None]
    points = np.float32([[0, 0, 1], [0, 0, 0], [0, 0, -2]]).T
    np.testing.assert_allclose(lamp.light(points, up), [1, 1 / 4, 1 / 16], rtol=1e-6)
    tilted = np.float32([[np.sin(a), 0, np.cos(a)] for a in np.radians([0, 60, 100])]).T
    facing = lamp.light(np.float32([[0, 0, 1]] * 3).T, tilted)
    np.testing.assert_allclose(facing, [1, 0.5, 0], atol=1e-6)
    aside = np.float32([[np.tan(np.radians(30)), 0, 1]]).T
    towards = np.float32([[-0.5, 0, np.cos(np.radians(30))]]).T
    cosine = np.cos(np.radians(30))
    np.testing.assert_allclose(lamp.light(aside, towards), cosine**3 * cosine**2, rtol=1e-5)
    bright = dataclasses.replace(lamp, ambient=0.1)
    np.testing.assert_allclose(bright.light(points, -up), 0.1, rtol=1e-6)


def test_the_ideal_sensor_reads_the_light_itself(rng):
    light = np.float32([[0, 0.25, 0.5, 1, 3]])
    expected = np.rint(255 * np.minimum(light, 1) ** (1 / 1.8))
    np.testing.assert_array_equal(IDEAL.read(rng, light), expected)


def test_noise_is_that_of_counted_electrons(rng):
    sensor = NightSensor(electrons=400, read_noise=6, blur_px=0, gamma=1.0)
    for light in (0.2, 0.6):
        read = sensor.read(rng, np.full((300, 300), light, np.float32)) / 255
        assert read.mean() == pytest.approx(light, abs=0.001)
        expected = np.hypot(np.sqrt(400 * light), 6) / 400
        assert read.std() == pytest.approx(np.hypot(expected, 12**-0.5 / 255), rel=0.02)


@pytest.mark.parametrize("wrong", [{"electrons": 0}, {"read_noise": -1}, {"gamma": 0}])
def test_senseless_sensors_are_refused(wrong):
    with pytest.raises(ValueError):
        NightSensor(**wrong)


@pytest.mark.parametrize("where", CAMERAS)
def test_cameras_stand_where_they_should_and_just_see_the_bed(rng, where):
    bed_m = np.array([1.2, 2.0])
    corners = np.array([(x, y, 0.0) for x in (-0.6, 0.6) for y in (-1, 1)])
    for _ in range(20):
        camera = hang_camera(rng, where, SIZE, bed_m)
        x, y, z = camera.position_m
        assert 1.5 <= z <= 2.5
        assert y < -1.4 if where == "end" else abs(x) > 1.0
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.axes) == pytest.approx(1)
        assert camera.axes[0, 2] == pytest.approx(0) and camera.axes[2, 2] < 0
        seen = camera.project(corners)
        assert np.all(seen > -1) and np.all(seen < np.array(SIZE[::-1]))
        head, foot = camera.project(np.array([[0, 0.9, 0.0], [0, -0.9, 0]]))
        if where == "end":
            assert head[1] < foot[1]  # farther away is higher up
        else:
            assert (head[0] > foot[0]) == (x > 0)
    close = frame_bed(SIZE, np.array([0, -2.0, 2.0]), bed_m, 1.0)
    tall = np.concatenate([corners, corners + (0, 0, 0.35)])
    rim = np.abs(close.project(tall) - (np.array(SIZE[::-1]) - 1) / 2) / np.array(SIZE[::-1])
    assert rim.max() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="camera is one of"):
        hang_camera(rng, "ceiling", SIZE, bed_m)


# --- the scene


@pytest.mark.parametrize("where", CAMERAS)
def test_the_body_is_seen_at_the_pixels_of_its_joints(rng, where):
    room = dark_room(where, rng)
    for figure in figures(rng, [*POSTURES, *POSTURES]):
        light, joints = render_scene(Scene(room, figure, WHITE))
        assert 0.01 < np.mean(light > 0) < 0.3
        column, row = np.rint(joints).astype(int).T
        inside = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0])
        assert inside.sum() >= 12 and np.all(light[row[inside], column[inside]] > 0)


@pytest.mark.parametrize("posture", POSTURES)
def test_nothing_of_a_body_is_seen_through_a_blanket(rng, posture):
    everything = dataclasses.replace(
        BLANKET, left_m=-1.15, right_m=1.15, foot_m=-1.35, head_m=1.3, reflectance=0, turned_m=0
    )
    for where in CAMERAS:
        room = dark_room(where, rng)
        figure = figures(rng, [posture])[0]
        assert render_scene(Scene(room, figure, WHITE))[0].max() > 0
        assert render_scene(Scene(room, figure, WHITE, everything))[0].max() == 0


@pytest.mark.parametrize("where", CAMERAS)
def test_a_mirrored_scene_gives_a_mirrored_picture(rng, where):
    turned = np.array([1, -1, 1, 1.0])  # of waves
    room = sample_room(rng, where, SIZE)
    bodies, angles, root = lying(rng, ["left"])
    look = sample_look(rng)
    blanket = pull_up(rng, room, forward_kinematics(bodies, angles, root))

    bed = room.bed
    other_bed = dataclasses.replace(
        bed, pillow_m=bed.pillow_m * (-1, 1, 1, 1, 1), waves=bed.waves * turned
    )
    camera, lamp = room.camera, room.lamp
    axes = camera.axes * FLIP
    axes[0] *= -1  # right stays right
    other_room = dataclasses.replace(
        room,
        bed=other_bed,
        camera=dataclasses.replace(camera, position_m=camera.position_m * FLIP, axes=axes),
        lamp=dataclasses.replace(lamp, position_m=lamp.position_m * FLIP, ahead=axes[2]),
        corners_m=np.where(FLIP < 0, -room.corners_m[::-1], room.corners_m),
    )
    other_blanket = dataclasses.replace(
        blanket,
        left_m=-blanket.right_m,
        right_m=-blanket.left_m,
        slant=-blanket.slant,
        waves=blanket.waves * turned,
        stripes=blanket.stripes * turned,
    )
    other_figure = forward_kinematics(bodies, mirrored(angles), root * FLIP)
    figure = forward_kinematics(bodies, angles, root)
    for cloth, other_cloth in ((blanket, other_blanket), (None, None)):
        light, joints = render_scene(Scene(room, figure, look, cloth))
        other, other_joints = render_scene(Scene(other_room, other_figure, look, other_cloth))
        away = np.abs(other[:, ::-1] - light) / light.mean()
        assert np.mean(away > 0.01) < 0.005  # silhouettes
        swap = [JOINT[OTHER_SIDE.sub(lambda side: OTHER[side[0]], name)] for name in JOINTS]
        np.testing.assert_allclose(other_joints[swap, 0], SIZE[1] - 1 - joints[:, 0], atol=1e-6)
        np.testing.assert_allclose(other_joints[swap, 1], joints[:, 1], atol=1e-6)


def test_postures_lie_the_way_they_are_called(rng):
    camera = frame_bed(SIZE, np.array([0, -2.2, 2.0]), (1.4, 2.0), 1.0)
    for posture in POSTURES:
        for figure in figures(rng, [posture] * 4):
            at, pixel = figure.joints_m[0], camera.project(figure.joints_m[0])
            left, right = JOINT["left_shoulder"], JOINT["right_shoulder"]
            lower = {"left": left, "right": right}.get(posture)
            if lower is None:  # from the foot, a supine person's left is on the right
                assert (pixel[left, 0] > pixel[right, 0]) == (posture == "supine")
            else:
                assert at[lower, 2] < at[left + right - lower, 2] - 0.1
                front = figure.rotations[0, BONE_INDEX["chest"], 0, 2]
                assert (front > 0) == (posture == "left")


@pytest.mark.parametrize("where", CAMERAS)
def test_heads_of_the_supine_show_a_face_and_are_brighter_than_those_of_the_prone(rng, where):
    room = dark_room(where, rng)
    look = dataclasses.replace(WHITE, skin=0.6, hair=0.05)
    heads, away = [], []
    for figure in figures(rng, ["supine"] * 8 + ["prone"] * 8):
        light, joints = render_scene(Scene(room, figure, look))
        x, y = np.rint([0.3, 0.7] @ joints[[JOINT["neck"], JOINT["head_top"]]]).astype(int)
        heads.append(light[y - 1 : y + 2, x - 1 : x + 2].mean())
        front = figure.rotations[0, BONE_INDEX["head"], :, 2]
        away.append(front @ (room.camera.position_m - figure.joints_m[0, JOINT["neck"]]) < -0.5)
    supine, prone, away = np.array(heads[:8]), np.array(heads[8:]), np.array(away[8:])
    assert supine.mean() > 1.2 * prone.mean()
    assert away.any() and prone[away].max() < 0.75 * supine.min()


def test_blankets_are_pulled_over_the_hips_and_folded_out_of_the_way(rng):
    for where in CAMERAS:
        room = sample_room(rng, where, SIZE)
        for figure in figures(rng, list(POSTURES)):
            neck, hips = figure.joints_m[0, JOINT["neck"], 1], figure.joints_m[0, 2:4, 1].min()
            assert hips - 0.1 < pull_up(rng, room, figure).head_m < neck + 0.1
        assert fold(rng, room, "foot").head_m < -0.4
        assert fold(rng, room, "left").right_m < -0.1 < 0.1 < fold(rng, room, "right").left_m


# --- the images


@pytest.fixture(scope="module")
def clean():
    return simulate_night_images(
        subjects=3, images_per_subject=16, size=(48, 64), sensor=IDEAL, seed=2
    )


def test_images_follow_the_contract(clean):
    assert clean.image.shape == (48, 48, 64) and clean.image.dtype == np.uint8
    assert clean.posture.dtype == clean.blanket.dtype == np.int32
    assert list(np.unique(clean.subject)) == ["sim-000", "sim-001", "sim-002"]
    assert set(clean.extra) == {"camera"} and clean.extra["camera"].dtype.kind == "U"
    assert clean.recording[0] == f"sim-000-{clean.extra['camera'][0]}"
    assert len(np.unique(clean.recording)) == 6 and clean.size == (48, 64)
    grey = clean.image.mean(axis=(1, 2))
    assert grey.min() > 25 and grey.max() < 200 and clean.image.std(axis=(1, 2)).min() > 8


def test_labels_and_cameras_are_balanced(clean):
    posture, blanket = clean.posture.reshape(3, 2, 8), clean.blanket.reshape(3, 2, 8)
    camera = (clean.extra["camera"] == "end").reshape(3, 2, 8).astype(int)
    every_pair = np.arange(8)
    np.testing.assert_array_equal(np.sort(2 * posture + blanket), [[every_pair] * 2] * 3)
    both = np.sort((4 * posture + 2 * blanket + camera).reshape(3, 16))
    np.testing.assert_array_equal(both, [np.delete(np.arange(16), [])] * 3)
    assert np.all(camera.sum(axis=-1) == 4)


def test_an_image_depends_only_on_seed_subject_and_number():
    size = {"size": (32, 40)}
    many = simulate_night_images(subjects=3, images_per_subject=18, seed=3, **size)
    few = simulate_night_images(subjects=2, images_per_subject=5, seed=3, **size)
    same = [18 * s + n for s in range(2) for n in range(5)]
    for name in ("image", "posture", "blanket", "subject", "recording"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[same])
    other = simulate_night_images(subjects=2, images_per_subject=5, seed=4, **size)
    assert not np.array_equal(few.image, other.image)
    assert len(np.unique(many.image.reshape(len(many), -1), axis=0)) == len(many)


def test_one_camera_alone_sees_the_rooms_it_sees_beside_the_other():
    one = simulate_night_images(subjects=1, images_per_subject=8, size=(24, 24), cameras=("side",))
    assert set(one.extra["camera"]) == {"side"} and set(one.recording) == {"sim-000-side"}
    assert sorted(one.posture) == sorted([0, 1, 2, 3] * 2)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"subjects": 0}, "at least 1 subject"),
        ({"images_per_subject": 0}, "at least 1 subject"),
        ({"size": (0, 10)}, "size"),
        ({"size": (10,)}, "size"),
        ({"cameras": ()}, "cameras"),
        ({"cameras": ("ceiling",)}, "cameras"),
        ({"cameras": ("end", "end")}, "cameras"),
    ],
)
def test_senseless_arguments_are_refused_by_name(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_night_images(**{"subjects": 1, "images_per_subject": 1, **wrong})
