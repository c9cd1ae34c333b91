"""Preparing UTD-MHAD: synthetic recordings for what can go wrong, the real ones for the rest."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from data_prep.utd_mhad import Config, main
from data_prep.utd_mhad_format import SKELETON, limb_joints
from jaxbed.data.depth import JOINTS, clips, moved, shrunk
from jaxbed.data.prepared_depth import read_depth_frames
from jaxbed.errors import InputError

FRAMES = 6
DEPTH = "Depth/a4_s2_t1_depth.mat"
SKELETONS = "Skeleton/a4_s2_t1_skeleton.mat"


@pytest.fixture
def recording(rng):
    """Depth u16[240,320,6] and skeletons f64[20,3,6], metres, all joints in the frame."""
    depth = rng.integers(2000, 3000, (240, 320, FRAMES), np.uint16)
    depth[:, :100] = 0
    metres = rng.uniform([-0.5, -0.5, 2], [0.5, 0.5, 3], (FRAMES, 20, 3))
    return depth, np.moveaxis(metres, 0, 2)


@pytest.fixture
def tree(tmp_path, recording):
    """A small UTD-MHAD: two recordings of the same frames."""
    root = tmp_path / "raw" / "utd"
    for number in (4, 26):
        depth, skeletons = recording
        save(root / DEPTH.replace("a4", f"a{number}"), d_depth=depth)
        save(root / SKELETONS.replace("a4", f"a{number}"), d_skel=skeletons)
    return root


def save(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)


def prepared(tmp_path, raw, **options):
    main(Config(raw=raw, out=tmp_path / "prepared", **options))
    return read_depth_frames(tmp_path / "prepared", "utd_mhad")


def refused(tmp_path, raw, match, **options):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=raw, out=tmp_path / "prepared" / "utd", **options))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_each_frame_gets_the_skeleton_of_two_frames_before(tmp_path, tree, recording):
    depth, skeletons = recording
    frames = prepared(tmp_path, tree, size=(240, 320))
    assert len(frames) == 2 * (FRAMES - 2)
    np.testing.assert_array_equal(frames.recording, ["a04_s2_t1"] * 4 + ["a26_s2_t1"] * 4)
    np.testing.assert_array_equal(frames.extra["frame"], [2, 3, 4, 5] * 2)
    np.testing.assert_array_equal(frames.extra["action"], [4] * 4 + [26] * 4)
    assert set(frames.subject) == {"2"}
    assert frames.skipped == ("first 2 frames of every recording: no skeleton belongs to them",)
    for i, frame in enumerate(frames.extra["frame"]):
        np.testing.assert_array_equal(frames.depth_mm[i], depth[:, :, frame])
        for j, joint in enumerate(JOINTS):
            x, y, z = skeletons[SKELETON.index(joint), :, frame - 2]
            expected = (160 + 285.63 * x / z, 120 - 285.63 * y / z)
            np.testing.assert_allclose(frames.joints_px[i, j], expected, rtol=1e-5)
    assert clips(frames.recording, length=3, shift=1).shape == (4, 3)


def test_frames_are_96_by_128_unless_asked_otherwise(tmp_path, tree):
    frames = prepared(tmp_path, tree)
    assert frames.size == (96, 128)
    x = frames.joints_px[..., 0]
    whole = prepared(tmp_path / "whole", tree, size=(240, 320))
    np.testing.assert_allclose(x, (whole.joints_px[..., 0] + 0.5) * 0.4 - 0.5, atol=1e-4)
    assert not frames.depth_mm[:, :, :40].any()
    assert frames.depth_mm[:, :, 40:].min() >= 2000  # nothing between the person and nothing


def test_joints_that_are_not_seen_are_missing(tmp_path, tree, recording):
    depth, skeletons = recording
    left_ankle, right_knee, left_wrist = map(
        SKELETON.index, ("left_ankle", "right_knee", "left_wrist")
    )
    skeletons[left_ankle, :, 0] = (0, -3, 2)  # below the frame
    skeletons[right_knee, 2, 0] = -1  # behind the camera
    skeletons[left_wrist, 0, 0] = np.nan
    save(tree / SKELETONS, d_skel=skeletons)
    missing = np.isnan(prepared(tmp_path, tree).joints_px)
    np.testing.assert_array_equal(missing[..., 0], missing[..., 1])
    found = [(i, JOINTS[j]) for i, j in np.argwhere(missing[..., 0])]
    assert found == [(0, "left_wrist"), (0, "right_knee"), (0, "left_ankle")]


def spoil(file, **variables):
    return lambda root: save(root / file, **variables)


def cut(root, share=0.5):
    content = (root / DEPTH).read_bytes()
    (root / DEPTH).write_bytes(content[: int(len(content) * share)])


def flip(root):
    content = bytearray((root / DEPTH).read_bytes())
    content[len(content) // 2] ^= 255
    (root / DEPTH).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, f"{DEPTH}: is not a complete .mat file"),
        (lambda root: cut(root, 0), f"{DEPTH}: is not a compressed .mat file"),
        (flip, f"{DEPTH}: is not a complete .mat file"),
        (lambda root: (root / DEPTH).write_text("no .mat"), "is not a compressed .mat file"),
        (lambda root: (root / DEPTH).unlink(), f"{DEPTH}: is missing"),
        (lambda root: (root / SKELETONS).unlink(), f"{SKELETONS}: is missing"),
        (spoil(DEPTH, other=np.ones(3)), f"{DEPTH}: holds no d_depth"),
        (spoil(DEPTH, d_depth=np.ones((240, 320, 6))), "holds float64[240, 320, 6] instead"),
        (spoil(DEPTH, d_depth=np.ones((240, 6), "u2")), "holds uint16[240, 6] instead"),
        (spoil(DEPTH, d_depth="text"), "as something else than real numbers"),
        (spoil(SKELETONS, d_skel=np.ones((20, 2, 6))), "holds float64[20, 2, 6] instead"),
        (spoil(SKELETONS, d_skel=np.ones((20, 3, 5))), "holds 5 skeletons for 6 frames"),
    ],
)
def test_a_bad_recording_among_many_is_left_out_and_listed(tmp_path, tree, damage, reason):
    damage(tree)
    frames = prepared(tmp_path, tree)
    assert set(frames.recording) == {"a26_s2_t1"}
    assert len(frames.skipped) == 2
    assert reason in frames.skipped[0]
    assert "\n" not in frames.skipped[0]


def test_recordings_without_a_frame_of_their_own_are_left_out(tmp_path, tree, recording):
    depth, skeletons = recording
    save(tree / DEPTH, d_depth=depth[:, :, :2])
    save(tree / SKELETONS, d_skel=skeletons[:, :, :2])
    frames = prepared(tmp_path, tree)
    assert "holds 2 skeletons, of which none belongs to a frame" in frames.skipped[0]


def test_the_command_counts_frames_read_and_left_out(tmp_path, tree, capsys):
    (tree / SKELETONS).unlink()
    prepared(tmp_path, tree)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "utd_mhad: 12 frames read, 4 kept, 8 left out; 1 subjects, 1 recordings, 96 x 128 pixels"
    )


def test_an_uncompressed_file_is_left_out(tmp_path, tree, recording):
    """SciPy can crash on a damaged one, and no checksum tells a whole one from a damaged one."""
    scipy.io.savemat(tree / DEPTH, {"d_depth": recording[0]}, do_compression=False)
    assert "is not a compressed .mat file" in prepared(tmp_path, tree).skipped[0]


def test_no_readable_recording_at_all_stops(tmp_path, tree):
    for file in (tree / "Depth").iterdir():
        file.write_bytes(b"")
    refused(tmp_path, tree, r"no readable recording among 2 \(Depth/a4_s2_t1_depth.mat: is not")


def test_what_is_not_utd_mhad_stops(tmp_path, tree):
    refused(tmp_path, tree / "nowhere", "is not a folder")
    refused(tmp_path, tree / DEPTH, "is not a folder")
    refused(tmp_path, tree / "Depth", "so it is not UTD-MHAD")


@pytest.mark.parametrize("size", [(0, 128), (96, -1), (241, 320), (240, 321)])
def test_an_impossible_size_stops(tmp_path, tree, size):
    refused(tmp_path, tree, f"--size {size[0]} {size[1]} must be", size=size)


def test_an_occupied_place_stops(tmp_path, tree):
    (tmp_path / "prepared" / "utd" / "mine").mkdir(parents=True)
    refused(tmp_path, tree, "already exists")


def test_the_command_tells_bad_input_in_one_sentence(tmp_path):
    raw, out = tmp_path / "nowhere", tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.utd_mhad", "--raw", raw, "--out", out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{raw} is not a folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_joint_stays_on_its_pixel_when_the_frame_shrinks():
    """A frame that tells each pixel's own place, and joints at the places kept."""
    rows, columns = np.indices((240, 320))
    shape = (96, 128)
    place = np.stack([shrunk(columns, shape), shrunk(rows, shape)], axis=-1)
    there = moved(place.astype(float), (240, 320), shape)
    rows, columns = np.indices(shape)
    # Half a pixel of the large frame is all that rounding to a pixel can cost.
    np.testing.assert_allclose(there[..., 0], columns, atol=0.5 * 0.4 + 1e-4)
    np.testing.assert_allclose(there[..., 1], rows, atol=0.5 * 0.4 + 1e-4)
    assert abs(np.mean(there[..., 0] - columns)) < 0.11


def test_shrinking_to_the_same_size_changes_nothing(rng):
    frames = rng.integers(0, 9, (2, 5, 7))
    np.testing.assert_array_equal(shrunk(frames, (5, 7)), frames)
    joints = rng.uniform(-0.5, 4.4, (6, 2))
    np.testing.assert_allclose(moved(joints, (5, 7), (5, 7)), joints, rtol=1e-5)


def test_the_frame_reaches_half_a_pixel_beyond_the_outer_centres():
    joints = np.array([[-0.5, 0], [-0.51, 0], [3.49, 2.49], [3.51, 0], [0, 2.51], [np.nan, 1]])
    kept = ~np.isnan(moved(joints, (3, 4), (3, 4))).any(axis=-1)
    np.testing.assert_array_equal(kept, [True, False, True, False, False, False])


def test_projection_follows_the_pinhole():
    skeleton = np.zeros((1, 20, 3))
    skeleton[..., 2] = 2
    np.testing.assert_array_equal(limb_joints(skeleton), np.full((1, 12, 2), (160, 120)))
    skeleton[0, SKELETON.index("left_knee")] = (-1, -0.5, 2)  # left and down
    knee = limb_joints(skeleton)[0, JOINTS.index("left_knee")]
    np.testing.assert_allclose(knee, (160 - 285.63 / 2, 120 + 285.63 / 4))


@pytest.fixture(scope="module")
def published(raw_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("utd") / "prepared"
    main(Config(raw=raw_data / "utd_mhad", out=out))
    return read_depth_frames(out, "utd_mhad")


@pytest.mark.slow
def test_the_real_recordings_are_all_read(published):
    assert (len(set(published.recording)), len(set(published.subject))) == (56, 8)
    assert len(published) == 3_814 - 2 * 56
    assert published.skipped == ("first 2 frames of every recording: no skeleton belongs to them",)
    assert np.isnan(published.joints_px).any(axis=-1).sum() == 23  # ankles below the frame
    height = np.ptp([np.flatnonzero(frame.any(axis=1))[[0, -1]] for frame in published.depth_mm], 1)
    assert 60 < np.median(height) < 70


def beside_the_person(frames, shift):
    """The share of fast wrists that lie on background, were joints `shift` frames earlier."""
    wrists = [JOINTS.index("left_wrist"), JOINTS.index("right_wrist")]
    on_background = []
    for recording in np.unique(frames.recording):
        these = frames.recording == recording
        depth, joints = frames.depth_mm[these], frames.joints_px[these][:, wrists]
        speed = np.linalg.norm(np.gradient(joints, axis=0), axis=-1)
        inner = np.arange(3, len(depth) - 3)
        frame, wrist = np.nonzero(speed[inner] > 2)
        x, y = np.rint(joints[inner[frame] - shift, wrist]).astype(int).T
        on_background.append(depth[inner[frame], y, x] == 0)
    return np.mean(np.concatenate(on_background))


@pytest.mark.slow
def test_no_other_lag_fits_the_real_recordings_better(published):
    share = {2 + shift: beside_the_person(published, shift) for shift in (-2, -1, 0, 1)}
    assert min(share, key=share.get) == 2
    assert share[2] < 0.12
    assert share[0] > 0.3
    assert share[3] > 0.25


@pytest.mark.slow
def test_real_joints_lie_on_the_person_and_left_is_on_the_left(published):
    joints = published.joints_px
    seen = ~np.isnan(joints).any(axis=-1)
    frame, joint = np.nonzero(seen)
    x, y = np.rint(joints[seen]).astype(int).T
    assert np.mean(published.depth_mm[frame, y, x] > 0) > 0.96
    for name in ("shoulder", "hip"):
        left, right = (joints[:, JOINTS.index(f"{side}_{name}"), 0] for side in ("left", "right"))
        assert np.mean(left < right) > 0.99


@pytest.mark.slow
def test_the_left_foot_leads_the_lunge_with_the_left_foot(published):
    """Action 26 is a lunge with the left foot forward: left is the person's own left."""
    nearer = []
    for i in np.flatnonzero(published.extra["action"] == 26):
        knees = published.joints_px[i, [JOINTS.index("left_knee"), JOINTS.index("right_knee")]]
        left, right = (published.depth_mm[i, round(y), round(x)] for x, y in knees)
        if left and right and abs(int(left) - int(right)) > 200:
            nearer.append(left < right)
    assert len(nearer) > 100
    assert np.mean(nearer) > 0.95
