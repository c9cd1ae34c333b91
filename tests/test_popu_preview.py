"""PoPu's published preview: its counts, its frames, and the same body on both mats."""

import zipfile

import cv2
import numpy as np
import pytest

from data_prep.popu import Config, main
from data_prep.popu_format import POSES
from jaxbed.codecs.mats import median_filtered, resampled
from jaxbed.data.body_parts import part_at, read_outlines
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.data.pressure import POSTURES


@pytest.fixture(scope="module")
def archive(raw_data):
    path = raw_data / "popu_preview_data.zip"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="module")
def preview(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("popu") / "prepared"
    main(Config(raw=archive, out=out))
    maps = read_pressure_maps(out, "popu_over"), read_pressure_maps(out, "popu_under")
    return *maps, read_outlines(out)


@pytest.mark.slow
def test_the_preview_has_its_counts_and_ranges(preview):
    over, under, outlines = preview
    for maps in (over, under):
        assert len(maps) == 28 * 3 * 10
        assert set(maps.subject) == {"4"}
        assert (np.bincount(maps.label, minlength=28) == 30).all()
        assert (np.bincount(maps.posture) == 210).all()
        assert (maps.pressure >= 0).all()
    assert over.pressure.max() == 104
    assert 30 < under.pressure.max() < 40
    assert np.quantile(under.pressure, 0.999) < 13
    np.testing.assert_array_equal(over.label, under.label)
    assert over.skipped[0] == "tactilus_data/4/others.json: 579 snapshots without a position"
    assert sum("is dead" in x for x in under.skipped) == 1
    assert len(outlines) == 205
    assert {outline.pose for outline in outlines} == set(POSES)
    assert {outline.subject for outline in outlines} == {""}


def reach(maps, posture):
    """The third moment across the bed: below 0 when knees and arms reach to the left."""
    pressure = maps.pressure[maps.posture == POSTURES.index(posture)].sum(axis=(0, 1))
    x = np.arange(len(pressure)) - np.average(np.arange(len(pressure)), weights=pressure)
    return np.average(x**3, weights=pressure)


@pytest.mark.slow
def test_real_people_lie_head_up_with_their_limbs_on_the_right_side(preview):
    over, under, _ = preview
    for maps in (over, under):
        supine = maps.pressure[maps.posture == 0]
        half = supine.shape[1] // 2
        assert supine[:, :half].sum() / supine.sum() > 0.6
        assert reach(maps, "right") < 0 < reach(maps, "left")
    # The head is a small island above the shoulders.
    first = median_filtered(over.pressure[over.label == POSES.index("supine1")].mean(0))
    rows = first[:, 5:22].max(axis=1)
    assert rows[2:4].max() > 10 > rows[5:8].min()


@pytest.mark.slow
def test_both_mats_see_the_same_body_in_the_same_place(preview):
    over, under, _ = preview
    found = resampled(over.pressure[::5], 25.4, (12, 6), (130.0, 111.0), corner_mm=(121.0, 56.0))

    def agreement(other):
        one, other = found - found.mean(0), other - other.mean(0)
        return np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2))

    as_prepared = agreement(under.pressure[::5])
    assert as_prepared > 0.55
    for turned in (np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]):
        assert agreement(under.pressure[::5][turned]) < as_prepared - 0.2


@pytest.mark.slow
def test_outlines_lie_on_pressure_the_right_way_round(preview):
    over, _, outlines = preview
    rows, columns = np.indices((64, 27))
    cells = (np.stack([columns.ravel(), rows.ravel()], 1) + 0.5) * 25.4
    shares, areas = [], []
    for label, pose in enumerate(POSES):
        drawn = [outline for outline in outlines if outline.pose == pose]
        part = part_at(cells, drawn).reshape(64, 27)
        load = over.pressure[over.label == label].mean(0)
        shares.append(load[part >= 0].sum() / load.sum())
        areas.append(np.mean(part >= 0))
        order = [np.median(rows[part == p]) for p in (1, 4, 5) if (part == p).any()]
        assert order == sorted(order), pose
        arms = np.median(columns[part == 3]) if (part == 3).any() else np.nan
        trunk = np.median(columns[part == 1])
        assert not (pose.startswith("left") and arms < trunk), pose
        assert not (pose.startswith("right") and arms > trunk), pose
    # Of another, smaller person in the same poses: a third of the mat, two thirds of the load.
    assert np.mean(areas) < 0.34
    assert np.mean(shares) > 0.65


@pytest.mark.slow
def test_outlines_lie_where_the_pictures_show_them(archive, preview):
    *_, outlines = preview
    with zipfile.ZipFile(archive) as members:
        for pose in ("supine4", "prone4", "left2", "right4"):
            (file,) = (x for x in members.namelist() if x.endswith(f"{pose}_tactilus_colorful.png"))
            picture = np.frombuffer(members.read(file), np.uint8)
            # The mat without its white margin; empty cells are dark blue, outlines are not blue.
            mat = cv2.imdecode(picture, cv2.IMREAD_COLOR)[5:752, 6:322].astype(int)
            coloured = mat[..., 1:].max(axis=2) > 40
            rows, columns = np.indices(coloured.shape)
            place = (np.stack([columns.ravel(), rows.ravel()], 1) + 0.5) / (316, 747)
            drawn = [outline for outline in outlines if outline.pose == pose]
            inside = part_at(place * (27 * 25.4, 64 * 25.4), drawn).reshape(mat.shape[:2]) >= 0
            assert np.mean(coloured[inside]) > 0.98, pose
            assert np.sum(inside & coloured) / np.sum(inside | coloured) > 0.8, pose
