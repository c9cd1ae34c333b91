"""The simulated body keeps its bones, limits, weight and handedness."""

import numpy as np
import pytest

from jaxbed.data.pressure import POSTURES, Mat
from jaxbed.simulate.body import GRAVITY, forward_kinematics, make_bodies, sample_subjects
from jaxbed.simulate.mattress import contact_pressure, settle, underside
from jaxbed.simulate.poses import mirrored, sample_poses
from jaxbed.simulate.pressure import (
    IDEAL,
    MAT,
    Sensor,
    mat_pressure,
    simulate_pressure_maps,
)
from jaxbed.simulate.skeleton import BONES, FLESH, FREEDOM_INDEX, FREEDOMS, JOINTS, LIMITS_RAD

WIDE = Mat(rows=100, columns=64, pitch_mm=25.4, unit="kpa", full_scale=8.5)
JOINT = {name: i for i, name in enumerate(JOINTS)}
LIMBS = [
    *[("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")],
    *[("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("neck", "head_top")],
    *[("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")],
    *[("right_hip", "right_knee"), ("right_knee", "right_ankle")],
]


def average_adult(count=1):
    ones = np.ones((count, len(BONES)))
    return make_bodies(np.full(count, 1.75), np.full(count, 70.0), ones, ones)


def settled(rng, posture, count, stiffness=140.0):
    bodies = sample_subjects(rng, count)
    angles = sample_poses(rng, [posture] * count)
    firm = np.full(count, stiffness)
    return bodies, *settle(bodies, angles, np.zeros((count, 3)), firm, steps=16), firm


def joint_x(maps, posture, name):
    return maps.joints_mm[maps.posture == POSTURES.index(posture), JOINT[name], 0]


@pytest.fixture(scope="module")
def ideal():
    """Perfect readings on a mat on which everybody fits."""
    return simulate_pressure_maps(subjects=12, maps_per_subject=12, mat=WIDE, sensor=IDEAL, seed=5)


# --- the body


def test_neutral_body_has_its_stature_and_weight_and_stands_as_documented():
    bodies = average_adult()
    figure = forward_kinematics(bodies, np.zeros((1, len(FREEDOMS))), np.zeros((1, 3)))
    at = dict(zip(JOINTS, figure.joints_m[0], strict=True))
    sole = at["left_ankle"][1] - 0.039 * 1.75
    assert at["head_top"][1] - sole == pytest.approx(1.75)
    assert at["left_wrist"][0] > 0 > at["right_wrist"][0]
    assert at["left_wrist"][1] < at["left_elbow"][1] < at["left_shoulder"][1]
    toe = figure.ends_m[0, [flesh.bone for flesh in FLESH].index("left_foot"), 1]
    assert toe[2] > at["left_ankle"][2] + 0.1
    assert bodies.load_n.sum() == pytest.approx(70 * GRAVITY)


def test_sampled_subjects_have_adult_sizes_and_like_sides(rng):
    bodies = sample_subjects(rng, 300)
    bmi = bodies.weight_kg / bodies.stature_m**2
    assert bodies.stature_m.min() >= 1.5 and bodies.stature_m.max() <= 1.95
    assert bmi.min() >= 17 - 1e-9 and bmi.max() <= 35 + 1e-9
    assert bodies.stature_m.std() > 0.05 and bmi.std() > 2
    figure = forward_kinematics(bodies, np.zeros((300, len(FREEDOMS))), np.zeros((300, 3)))
    left, right = (figure.joints_m[:, JOINT[f"{side}_wrist"]] for side in ("left", "right"))
    np.testing.assert_allclose(left * (-1, 1, 1), right, atol=1e-12)


def test_bones_keep_their_lengths_in_any_pose(rng):
    bodies = sample_subjects(rng, 50)
    angles = rng.uniform(-3, 3, (50, len(FREEDOMS)))
    neutral = forward_kinematics(bodies, np.zeros_like(angles), np.zeros((50, 3)))
    posed = forward_kinematics(bodies, angles, rng.normal(size=(50, 3)))
    for a, b in LIMBS:
        lengths = [
            np.linalg.norm(f.joints_m[:, JOINT[a]] - f.joints_m[:, JOINT[b]], axis=1)
            for f in (neutral, posed)
        ]
        np.testing.assert_allclose(*lengths, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "joint", "axis", "sign"),
    [
        ("left_shoulder_flexion", "left_elbow", 2, 1),
        ("left_shoulder_abduction", "left_elbow", 0, 1),
        ("right_shoulder_abduction", "right_elbow", 0, -1),
        ("right_elbow_flexion", "right_wrist", 2, 1),
        ("left_knee_flexion", "left_ankle", 2, -1),
        ("right_hip_flexion", "right_knee", 2, 1),
        ("waist_flexion", "head_top", 2, 1),
        ("neck_bend", "head_top", 0, 1),
    ],
)
def test_positive_angles_move_joints_the_clinical_way(name, joint, axis, sign):
    bodies, angles = average_adult(), np.zeros((1, len(FREEDOMS)))
    before = forward_kinematics(bodies, angles, np.zeros((1, 3))).joints_m[0, JOINT[joint]]
    angles[0, FREEDOM_INDEX[name]] = 0.3
    after = forward_kinematics(bodies, angles, np.zeros((1, 3))).joints_m[0, JOINT[joint]]
    assert sign * (after - before)[axis] > 0.02


@pytest.mark.parametrize("posture", POSTURES)
def test_poses_respect_joint_limits_before_and_after_settling(rng, posture):
    low, high = LIMITS_RAD.T
    angles = sample_poses(rng, [posture] * 100)
    assert np.all((low <= angles) & (angles <= high))
    _, rested, _, _ = settled(rng, posture, 50)
    assert np.all((low <= rested) & (rested <= high))


def test_infant_proportions_only_change_the_arguments():
    lengths = np.ones((1, len(BONES)))
    lengths[:, [i for i, bone in enumerate(BONES) if bone.name == "head"]] = 2
    infant = make_bodies(np.array([0.55]), np.array([4.5]), lengths, np.ones_like(lengths))
    figure = forward_kinematics(infant, np.zeros((1, len(FREEDOMS))), np.zeros((1, 3)))
    at = dict(zip(JOINTS, figure.joints_m[0], strict=True))
    head = np.linalg.norm(at["head_top"] - at["neck"])
    shank = np.linalg.norm(at["left_knee"] - at["left_ankle"])
    assert head / shank == pytest.approx(2 * 0.165 / 0.246)


# --- the mattress


def test_underside_matches_a_dense_sweep_of_balls(rng):
    bodies = sample_subjects(rng, 3)
    angles = rng.uniform(-1.5, 1.5, (3, len(FREEDOMS)))  # steep limbs included
    figure = forward_kinematics(bodies, angles, np.zeros((3, 3)))
    x, y = np.linspace(-0.8, 0.8, 41), np.linspace(0.9, -0.9, 47)
    found = underside(figure, x, y)

    share = np.linspace(0, 1, 2001)[:, None]
    for n in range(3):
        expected = np.full(found.shape[1:], np.inf)
        for ends, radii in zip(figure.ends_m[n], figure.radii_m[n], strict=True):
            centre = ends[0] + share * (ends[1] - ends[0])
            radius = (radii[0] + share * (radii[1] - radii[0]))[:, 0]
            for i, j in np.ndindex(*expected.shape):
                near = (x[j] - centre[:, 0]) ** 2 + (y[i] - centre[:, 1]) ** 2
                inside = radius**2 - near
                if (inside > 0).any():
                    hit = inside > 0
                    bottom = (centre[hit, 2] - np.sqrt(inside[hit])).min()
                    expected[i, j] = min(expected[i, j], bottom)
        both = np.isfinite(expected) & np.isfinite(found[n])
        assert np.mean(np.isfinite(expected) != np.isfinite(found[n])) < 2e-3  # on the rim
        np.testing.assert_allclose(found[n][both], expected[both], atol=2e-4)


def test_a_block_sinks_by_weight_over_area_and_stiffness():
    height = np.full((1, 30, 30), np.inf, np.float32)
    height[0, 10:20, 5:25] = 0.4  # 200 cells of 1 cm^2
    pressure = contact_pressure(
        height, np.array([50.0]), np.array([100.0]), cell_m=0.01, spread_m=0.0
    )
    assert pressure[0, 12, 12] == pytest.approx(50 / 0.02 / 1e3, rel=1e-5)
    assert pressure[~np.isfinite(height)].max() < 1e-4


def test_spreading_moves_load_sideways_and_keeps_its_sum():
    height = np.full((1, 41, 41), np.inf, np.float32)
    height[0, 20, 20] = 0
    pressure = contact_pressure(
        height, np.array([10.0]), np.array([100.0]), cell_m=0.01, spread_m=0.02
    )[0]
    assert pressure.sum() * 1e3 * 0.01**2 == pytest.approx(10, rel=1e-4)
    assert pressure[20, 20] > pressure[20, 22] > pressure[20, 26] > 0
    np.testing.assert_allclose(pressure, pressure[::-1, ::-1], rtol=1e-3, atol=1e-4)


def test_a_body_beside_the_mat_is_refused():
    height = np.full((1, 4, 4), np.inf, np.float32)
    with pytest.raises(ValueError, match="beside the mat"):
        contact_pressure(height, np.ones(1), np.ones(1), cell_m=0.01, spread_m=0.01)


@pytest.mark.parametrize("posture", POSTURES)
def test_settling_lowers_the_body_onto_the_mattress(rng, posture):
    bodies, angles, root, _ = settled(rng, posture, 20)
    figure = forward_kinematics(bodies, angles, root)
    lowest = (figure.ends_m[..., 2] - figure.radii_m).min(axis=(1, 2))
    assert np.all(lowest < -0.005) and np.all(lowest > -0.20)
    assert np.abs(figure.joints_m[..., 2]).max() < 1.0


def test_a_firmer_mattress_gives_higher_peaks(rng):
    bodies, angles, root, soft = settled(rng, "supine", 8)
    figure = forward_kinematics(bodies, angles, root)
    weight = bodies.load_n.sum(axis=1)
    peaks = [mat_pressure(figure, weight, k * soft, WIDE).max(axis=(1, 2)) for k in (1, 3)]
    assert np.all(peaks[1] > peaks[0])


# --- the maps


@pytest.mark.parametrize(
    "mat",
    [
        MAT,
        Mat(rows=64, columns=27, pitch_mm=25.4, unit="kpa", full_scale=8.5),
        Mat(rows=12, columns=6, pitch_mm=150.0, unit="kpa", full_scale=8.5),
        Mat(rows=192, columns=84, pitch_mm=10.2, unit="kpa", full_scale=8.5),
        Mat(rows=20, columns=20, pitch_mm=25.4, unit="kpa", full_scale=8.5),
    ],
    ids=lambda mat: f"{mat.rows}x{mat.columns}",
)
def test_pressure_carries_the_weight_on_any_mat(mat):
    maps = simulate_pressure_maps(subjects=3, maps_per_subject=5, mat=mat, sensor=IDEAL)
    assert maps.pressure.shape == (15, *mat.size) and maps.pressure.dtype == np.float32
    force = maps.pressure.sum(axis=(1, 2), dtype=float) * 1e3 * (mat.pitch_mm / 1e3) ** 2
    weight = force.reshape(3, 5) / GRAVITY
    np.testing.assert_allclose(weight, weight[:, :1] * np.ones(5), rtol=1e-3)
    sizes = [
        sample_subjects(np.random.default_rng(np.random.SeedSequence(0, spawn_key=(s,))), 1)
        for s in range(3)
    ]
    expected = np.concatenate([size.weight_kg for size in sizes])
    np.testing.assert_allclose(weight.mean(axis=1), expected, rtol=1e-3)


def test_a_map_depends_only_on_seed_subject_and_number():
    many = simulate_pressure_maps(subjects=5, maps_per_subject=7, seed=3)
    few = simulate_pressure_maps(subjects=2, maps_per_subject=3, seed=3)
    other = simulate_pressure_maps(subjects=2, maps_per_subject=3, seed=4)
    same = [7 * s + m for s in range(2) for m in range(3)]
    np.testing.assert_array_equal(few.pressure, many.pressure[same])
    np.testing.assert_array_equal(few.joints_mm, many.joints_mm[same])
    np.testing.assert_array_equal(few.subject, many.subject[same])
    np.testing.assert_array_equal(few.posture, many.posture[same])
    assert not np.array_equal(few.pressure, other.pressure)
    assert len(np.unique(many.pressure.sum(axis=(1, 2)))) == 35


def test_labels_follow_the_contract(ideal):
    assert set(ideal.posture) == {0, 1, 2, 3} and ideal.label_names == POSTURES
    np.testing.assert_array_equal(ideal.label, ideal.posture)
    assert ideal.joints_mm.shape == (144, 14, 2) and ideal.joints_mm.dtype == np.float32
    assert np.isfinite(ideal.pressure).all() and ideal.pressure.min() >= 0
    assert list(np.unique(ideal.subject)) == [f"sim-{s:03d}" for s in range(12)]


def test_right_arm_lies_on_the_left_of_the_supine_and_on_the_right_of_the_prone(ideal):
    for posture, sign in (("supine", 1), ("prone", -1)):
        for name in ("shoulder", "elbow", "hip"):
            apart = joint_x(ideal, posture, f"left_{name}") - joint_x(
                ideal, posture, f"right_{name}"
            )
            assert np.all(sign * apart > 0), (posture, name)


def test_hands_and_knees_point_left_of_those_on_their_right_side(ideal):
    for posture, sign in (("right", -1), ("left", 1)):
        for outer, inner in (("knee", "hip"), ("wrist", "shoulder")):
            for side in ("left", "right"):
                ahead = joint_x(ideal, posture, f"{side}_{outer}") - joint_x(
                    ideal, posture, f"{side}_{inner}"
                )
                assert np.mean(sign * ahead > 0) > 0.85, (posture, outer, side)


def test_heads_are_up(ideal):
    y = ideal.joints_mm[..., 1]
    assert np.all(y[:, JOINT["head_top"]] < y[:, JOINT["left_hip"]])
    assert np.all(y[:, JOINT["neck"]] < y[:, JOINT["right_ankle"]])


def test_joints_lie_on_a_mat_that_is_large_enough_and_pressure_lies_under_the_trunk(ideal):
    inside = (ideal.joints_mm >= 0) & (
        ideal.joints_mm <= np.array([WIDE.columns, WIDE.rows]) * WIDE.pitch_mm
    )
    assert inside.all()
    hips = ideal.joints_mm[:, [JOINT["left_hip"], JOINT["right_hip"]]].mean(axis=1)
    column, row = (hips / WIDE.pitch_mm).astype(int).T
    for n, pressure in enumerate(ideal.pressure):
        near = pressure[row[n] - 3 : row[n] + 4, column[n] - 3 : column[n] + 4]
        assert near.mean() > 2 * pressure.mean()


def test_a_mirrored_body_gives_a_mirrored_map(rng):
    bodies, angles, root, firm = settled(rng, "left", 6)
    root = root * (0, 0, 1) + (0.03, -0.02, 0)
    weight = bodies.load_n.sum(axis=1)
    straight = forward_kinematics(bodies, angles, root)
    turned = forward_kinematics(bodies, mirrored(angles), root * (-1, 1, 1))
    maps = [mat_pressure(figure, weight, firm, WIDE) for figure in (straight, turned)]
    np.testing.assert_allclose(maps[0], maps[1][..., ::-1], atol=2e-3)
    assert np.abs(maps[0] - maps[1]).max() > 1


def test_settling_commutes_with_the_mirror(rng):
    bodies, firm = sample_subjects(rng, 6), np.full(6, 140.0)
    angles, root = sample_poses(rng, ["left", "supine", "prone"] * 2), np.zeros((6, 3))
    rested, sunk = settle(bodies, angles, root, firm, steps=16)
    turned, turned_sunk = settle(bodies, mirrored(angles), root, firm, steps=16)
    np.testing.assert_allclose(mirrored(rested), turned, atol=1e-6)
    np.testing.assert_allclose(sunk, turned_sunk, atol=1e-6)


def test_finer_sensors_measure_the_same_force_at_the_same_place(rng):
    bodies, angles, root, firm = settled(rng, "supine", 6)
    figure, weight = forward_kinematics(bodies, angles, root), bodies.load_n.sum(axis=1)
    mats = [
        Mat(rows=84, columns=50, pitch_mm=25.4, unit="kpa", full_scale=8.5),
        Mat(rows=168, columns=100, pitch_mm=12.7, unit="kpa", full_scale=8.5),
        Mat(rows=336, columns=200, pitch_mm=6.35, unit="kpa", full_scale=8.5),
    ]
    forces, centres = [], []
    for mat in mats:
        pressure = mat_pressure(figure, weight, firm, mat).astype(float)
        total = pressure.sum(axis=(1, 2))
        forces.append(total * mat.pitch_mm**2 / 1e3)
        at = [(np.arange(n) + 0.5) * mat.pitch_mm for n in mat.size]
        centres.append([pressure.sum(axis=2) @ at[0] / total, pressure.sum(axis=1) @ at[1] / total])
    np.testing.assert_allclose(forces, weight * np.ones((3, 6)), rtol=1e-4)
    np.testing.assert_allclose(centres[0], centres[1], atol=0.5)  # mm
    np.testing.assert_allclose(centres[0], centres[2], atol=2.0)


def test_readings_rise_from_saturation_noise_and_dead_sensors_as_told():
    same = {"subjects": 2, "maps_per_subject": 4, "seed": 1}
    perfect = simulate_pressure_maps(**same, sensor=IDEAL).pressure
    capped = simulate_pressure_maps(
        **same, sensor=Sensor(gain=0, noise_kpa=0, threshold_kpa=0.5, saturation_kpa=4.0)
    ).pressure
    expected = np.where(perfect > 0.5, np.minimum(perfect, 4), 0)
    np.testing.assert_allclose(capped, expected, rtol=1e-6)
    assert perfect.max() > 4

    dead = simulate_pressure_maps(
        **same, sensor=Sensor(gain=0, noise_kpa=0, threshold_kpa=0, dead=0.25)
    ).pressure
    loaded = perfect > 0.01
    assert np.mean(dead[loaded] == 0) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(dead[dead > 0], perfect[dead > 0], rtol=1e-6)

    noisy = simulate_pressure_maps(**same, sensor=Sensor(gain=0.3, noise_kpa=0.0)).pressure
    strong = perfect > 1
    assert np.std(np.log(noisy[strong] / perfect[strong])) == pytest.approx(0.3, abs=0.02)
    assert np.all(noisy[perfect <= Sensor().threshold_kpa] == 0)


def test_only_the_postures_asked_for_are_drawn():
    maps = simulate_pressure_maps(subjects=3, maps_per_subject=5, postures=("left", "prone"))
    assert set(maps.posture) == {POSTURES.index("left"), POSTURES.index("prone")}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"subjects": 0}, "at least 1 subject"),
        ({"maps_per_subject": 0}, "at least 1 subject"),
        ({"postures": ()}, "postures"),
        ({"postures": ("supine", "sitting")}, "sitting"),
        ({"mat": Mat(rows=64, columns=32, pitch_mm=25.4, unit="count", full_scale=1)}, "count"),
        ({"mat": Mat(rows=0, columns=32, pitch_mm=25.4, unit="kpa", full_scale=1)}, "sensors"),
        ({"mat": Mat(rows=64, columns=32, pitch_mm=0, unit="kpa", full_scale=1)}, "pitch"),
    ],
)
def test_senseless_arguments_are_refused_by_name(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_pressure_maps(**{"subjects": 1, "maps_per_subject": 1, **wrong})


@pytest.mark.parametrize("wrong", [{"gain": -1}, {"dead": 2}, {"saturation_kpa": 0}])
def test_senseless_sensors_are_refused(wrong):
    with pytest.raises(ValueError):
        Sensor(**wrong)


def test_unknown_postures_and_misshapen_angles_are_refused(rng):
    with pytest.raises(ValueError, match="sitting"):
        sample_poses(rng, ["sitting"])
    with pytest.raises(ValueError, match="angles"):
        forward_kinematics(average_adult(), np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 1"):
        sample_subjects(rng, 0)
    with pytest.raises(ValueError, match="positive"):
        make_bodies(np.array([-1.0]), np.array([70.0]), *np.ones((2, 1, len(BONES))))
