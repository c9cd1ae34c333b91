"""Preparing the pressure maps of SLP, on a small set of its layout."""

import numpy as np
import pytest
from scipy.io import savemat

from data_prep.slp import COVERS, POSES
from data_prep.slp_pressure import JOINTS, MAT, Config, main, on_mat_mm
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.errors import InputError

PEOPLE = ("00001", "00007", "00102")
POSE_NUMBERS = (1, 16, 45)
# Half a pixel per sensor, moved by 3 columns and 5 rows.
TO_MAT = np.array([[0.5, 0, 3], [0, 0.5, 5], [0, 0, 1]])


@pytest.fixture
def tree(tmp_path, rng):
    root = tmp_path / "raw" / "SLP"
    for person in PEOPLE:
        home = root / "danaLab" / person
        for cover in COVERS:
            (home / "PMarray" / cover).mkdir(parents=True)
            for pose in POSE_NUMBERS:
                counts = rng.integers(0, 256, MAT.size).astype(np.uint8)
                np.save(home / "PMarray" / cover / f"{pose:06d}.npy", counts)
        joints = rng.uniform(1, 100, (3, JOINTS, POSES))
        savemat(home / "joints_gt_RGB.mat", {"joints_gt": joints})
        np.save(home / "align_PTr_RGB.npy", TO_MAT)
        np.save(home / "PMcali.npy", rng.uniform(0.1, 0.2, (3, POSES)))
    return root


def prepared(tmp_path, raw, **options):
    main(Config(raw=raw, out=tmp_path / "out", **options))
    return read_pressure_maps(tmp_path / "out", "slp_pm")


def test_maps_are_in_kpa_and_joints_in_millimetres_on_the_mat(tmp_path, tree):
    from scipy.io import loadmat

    maps = prepared(tmp_path, tree)
    assert len(maps) == 2 * 3 * 3  # without subject 7
    assert set(maps.subject) == {"danaLab_00001", "danaLab_00102"}
    assert maps.extra["cover"][:9].tolist() == np.repeat([*COVERS], 3).tolist()
    assert maps.extra["pose"][:3].tolist() == [*POSE_NUMBERS]
    home = tree / "danaLab" / "00001"
    counts = np.load(home / "PMarray" / "cover1" / "000016.npy")
    scale = np.load(home / "PMcali.npy")[1, 15]
    np.testing.assert_allclose(maps.pressure[4], counts * scale, rtol=1e-6)
    x, y, _ = loadmat(home / "joints_gt_RGB.mat")["joints_gt"][:, :, 15]
    want = [(((x - 1) / 2 + 3) + 0.5) * MAT.pitch_mm, (((y - 1) / 2 + 5) + 0.5) * MAT.pitch_mm]
    np.testing.assert_allclose(maps.joints_mm[4], np.stack(want, axis=-1), rtol=1e-5)
    assert maps.posture[:3].tolist() == [0, 2, 3]  # supine, left, right


def test_a_homography_divides_by_its_third_row():
    bent = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0, 1]])
    got = on_mat_mm(np.array([[3.0, 5.0]]), bent)  # 2, 4 from 0; divided by 2
    np.testing.assert_allclose(got, (np.array([[1.0, 2.0]]) + 0.5) * MAT.pitch_mm)


def test_subject_7_is_left_out_unless_asked_for(tmp_path, tree, capsys):
    maps = prepared(tmp_path, tree)
    assert maps.skipped[0].startswith("danaLab/00007: 9 maps; joints were reported")
    assert "27 frames read, 18 kept, 9 left out" in capsys.readouterr().out


def test_subject_7_is_kept_on_demand(tmp_path, tree):
    assert len(prepared(tmp_path, tree, keep_subject_7=True)) == 27


def test_bad_maps_and_people_are_left_out_and_listed(tmp_path, tree):
    uncovered = tree / "danaLab" / "00001" / "PMarray" / "uncover"
    (uncovered / "000001.npy").write_bytes(b"no array")
    np.save(uncovered / "000016.npy", np.zeros((4, 4)))
    np.save(uncovered / "000046.npy", np.zeros(MAT.size))
    (tree / "danaLab" / "00102" / "joints_gt_RGB.mat").write_bytes(b"no joints")
    maps = prepared(tmp_path, tree, keep_subject_7=True)
    assert len(maps) == 7 + 9
    told = "\n".join(maps.skipped)
    for part in ("000001.npy", "000016.npy", "000046.npy", "danaLab/00102: 9 maps"):
        assert part in told


@pytest.mark.parametrize("missing", ["align_PTr_RGB.npy", "PMcali.npy", "joints_gt_RGB.mat"])
def test_a_set_without_a_person_to_read_is_refused(tmp_path, tree, missing):
    for person in PEOPLE:
        (tree / "danaLab" / person / missing).unlink()
    with pytest.raises(InputError, match="point --raw at") as refusal:
        main(Config(raw=tree, out=tmp_path / "out"))
    assert missing in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no readable map such as danaLab"):
        main(Config(raw=tmp_path, out=tmp_path / "out"))
