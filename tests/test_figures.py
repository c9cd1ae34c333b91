"""Figures: what is drawn lies where it should, checked on the pixels."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxbed import figures
from jaxbed.figures import Keypoints

DOT = tuple(int(figures._DOTS[i : i + 2], 16) for i in (1, 3, 5))


def pixels(path: Path) -> np.ndarray:
    """Reads a PNG as u8[H,W,3] and checks that it is fit for a report."""
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def where(image: np.ndarray, colour) -> np.ndarray:
    """Returns i64[M,2], the (row, column) of pixels within 2 of a colour."""
    return np.argwhere((np.abs(image.astype(int) - colour) <= 2).all(axis=-1))


def largest_patch(image: np.ndarray, colour) -> np.ndarray:
    """Returns `where` for the largest connected patch: a map, and not the colour bar."""
    of_colour = (np.abs(image.astype(int) - colour) <= 2).all(axis=-1)
    labels, _ = ndimage.label(of_colour)
    return np.argwhere(labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)


def map_colour(value: float) -> np.ndarray:
    return np.round(255 * np.array(mpl.colormaps["magma"](value)[:3]))


def test_a_keypoint_lies_on_its_sensor(tmp_path):
    maps = np.zeros((1, 8, 4), np.float32)
    maps[0, 6, 1] = 1.0
    dots = Keypoints("input", np.array([[[2.0, 3.0]]]), np.ones((1, 1)))
    image = pixels(
        figures.pressure_grid(
            tmp_path / "a.png", {"input": maps}, title="", columns=["left"], keypoints=dots
        )
    )
    empty = largest_patch(image, map_colour(0.0))
    top_left, extent = empty.min(axis=0), np.ptp(empty, axis=0) + 1
    dot = (where(image, DOT).mean(axis=0) + 0.5 - top_left) / extent
    np.testing.assert_allclose(dot, [2.5 / 8, 3.5 / 4], atol=0.02)
    sensor = (largest_patch(image, map_colour(1.0)).mean(axis=0) + 0.5 - top_left) / extent
    np.testing.assert_allclose(sensor, [6.5 / 8, 1.5 / 4], atol=0.02)
    assert extent[0] / extent[1] == pytest.approx(2, rel=0.05)


def test_weak_keypoints_are_drawn_weaker(tmp_path):
    def dot_coloured(strength: float) -> int:
        dots = Keypoints("x", np.full((1, 1, 2), 4.0), np.full((1, 1), strength))
        path = figures.pressure_grid(
            tmp_path / "a.png",
            {"x": np.zeros((1, 8, 8), np.float32)},
            title="",
            columns=["left"],
            keypoints=dots,
        )
        return len(where(pixels(path), DOT))

    assert dot_coloured(1.0) > dot_coloured(0.0)


def test_what_lies_outside_the_map_does_not_move_it(tmp_path):
    def width(column: float) -> int:
        keypoints = np.array([[[1.0, 1.0]], [[1.0, column]]])
        path = tmp_path / "a.png"
        figures.keypoint_spread(path, keypoints, np.zeros((8, 4)), title="")
        return np.ptp(largest_patch(pixels(path), map_colour(0.0))[:, 1])

    assert width(1.0) == width(9.0) > 0


def test_values_beyond_the_scale_take_its_end_colours(tmp_path):
    maps = np.array([[[-3.0, 7.0]]], np.float32)
    path = figures.pressure_grid(tmp_path / "a.png", {"a": maps}, title="", columns=["b"])
    image = pixels(path)
    low, high = (largest_patch(image, map_colour(value)) for value in (0.0, 1.0))
    assert low[:, 1].max() < high[:, 1].min() + 2
    assert len(low) == pytest.approx(len(high), rel=0.1)


def test_keypoints_need_a_row_to_lie_on(tmp_path):
    dots = Keypoints("output", np.zeros((1, 1, 2)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="'output'"):
        figures.pressure_grid(
            tmp_path / "a.png",
            {"input": np.zeros((1, 2, 2))},
            title="",
            columns=["left"],
            keypoints=dots,
        )


def test_a_grid_of_noisy_maps_stays_small(tmp_path, rng):
    rows = {f"arm {i}": rng.uniform(0, 0.2, (8, 64, 32)) for i in range(6)}
    pixels(figures.pressure_grid(tmp_path / "a.png", rows, title="a", columns=list("abcdefgh")))


@pytest.mark.parametrize(
    "covariance",
    [[[4.0, 0.0], [0.0, 1.0]], [[2.0, 1.2], [1.2, 1.0]], [[2.0, -1.2], [-1.2, 1.0]]],
)
def test_an_ellipse_is_one_standard_deviation_away(covariance):
    centre = np.array([5.0, 9.0])
    angle = np.linspace(0, 2 * np.pi, 13)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ellipse = figures._ellipse(centre, np.array(covariance))
    away = ellipse.get_patch_transform().transform(circle)[:, ::-1] - centre
    distance = np.einsum("ai,ij,aj->a", away, np.linalg.inv(covariance), away)
    np.testing.assert_allclose(distance, 1.0, rtol=1e-9)


def test_a_keypoint_that_never_moves_can_be_drawn(tmp_path):
    keypoints = np.ones((5, 1, 2), np.float32)
    pixels(figures.keypoint_spread(tmp_path / "a.png", keypoints, np.zeros((8, 4)), title=""))


def test_a_curve_has_one_colour_in_every_panel(tmp_path):
    x = np.arange(3)
    flat = (x, np.ones(3))
    panels = {"L1": {"a": flat}, "L2": {"b": flat}, "SSIM": {"b": flat, "a": (x, x)}}
    image = pixels(figures.curves(tmp_path / "a.png", panels, title="", xlabel="step"))
    image = image[: int(0.8 * len(image))]  # above the legend
    third = image.shape[1] // 3
    first, second = ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00))
    drawn = [
        [len(where(image[:, i * third : (i + 1) * third], c)) > 50 for c in (first, second)]
        for i in range(3)
    ]
    assert drawn == [[True, False], [False, True], [True, True]]


def test_many_curves_with_gaps_and_marks_can_be_drawn(tmp_path, rng):
    x = np.arange(50)
    y = np.where(x % 7 == 0, np.nan, rng.uniform(1e-4, 1, 50))
    series = {f"arm {i}": (x, y + i) for i in range(9)}
    path = figures.curves(
        tmp_path / "new" / "a.png",
        {"L2": series},
        title="a",
        xlabel="step",
        log=True,
        marks={"stage 2": 20},
    )
    assert path == tmp_path / "new" / "a.png"
    pixels(path)


def test_bars_are_as_long_as_their_values(tmp_path):
    panels = {"L2": {"mean map": 1.0, "crwt": 0.25}}
    path = figures.bars(
        tmp_path / "a.png", panels, title="", baselines=["mean map"], published={"L2": 0.5}
    )
    image = pixels(path)
    ours = largest_patch(image, (0x00, 0x72, 0xB2))
    baseline = largest_patch(image, (153, 153, 153))
    assert np.ptp(baseline[:, 1]) == pytest.approx(4 * np.ptp(ours[:, 1]), rel=0.03)


def test_no_state_is_shared_through_pyplot():
    code = "import sys, jaxbed.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
