"""Detection at several rotations: what is turned, found, turned back and merged."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxbed.codecs.boxes import Level
from jaxbed.tasks import face_detector as detector


def as_input(image):
    return image.astype(jnp.float32) / 255


class Arrow(nn.Module):
    """Finds cells of 8x8 pixels that are bright above and dark below."""

    @nn.compact
    def __call__(self, x, *, train):
        scale = self.param("scale", nn.initializers.ones, ())
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 8), (0, -x.shape[2] % 8), (0, 0)))
        batch, height, width, _ = x.shape
        halves = x[..., 0].reshape(batch, height // 8, 2, 4, width // 8, 8).mean((3, 5))
        upright = (halves[:, :, 0] - halves[:, :, 1]).reshape(batch, -1) * scale
        logits = jnp.stack([jnp.zeros_like(upright), 20 * upright - 10], axis=-1)
        count = upright.shape[1]
        return {
            "logits": logits,
            "boxes": jnp.tile(jnp.float32([0, 0, 0, -3]).reshape(1, 1, 4), (batch, count, 1)),
            "landmarks": jnp.tile(jnp.arange(10.0).reshape(1, 1, 10), (batch, count, 1)),
        }


CELLS = (Level(((8, 8),), 8),)
found_by_arrow = functools.partial(
    detector.detect,
    {"params": {"scale": np.float32(1)}},
    network=Arrow(),
    network_input=as_input,
    levels=CELLS,
    count=5,
)


@pytest.mark.parametrize("turns", range(4))
def test_a_face_is_found_at_the_rotation_at_which_it_is_upright(turns):
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[16:20, 8:16] = 255
    upright[32:36, 24:32] = 230
    image = np.ascontiguousarray(np.rot90(upright, -turns))
    found = found_by_arrow(image, angles_deg=detector.QUARTER_TURNS)
    assert np.isfinite(found.boxes_px).all(axis=1).tolist() == [True] * 2 + [False] * 3
    assert found.scores[0] > found.scores[1] > 0.5 and not found.scores[2:].any()
    np.testing.assert_array_equal(found.angles_deg, [90 * turns] * 2 + [np.nan] * 3)
    flat = 4 * np.exp(-0.6)  # half the height of the boxes
    back = detector.boxes_turned_back(found.boxes_px[:2], -90.0 * turns, upright.shape[:2])
    want = [[8, 20 - flat, 16, 20 + flat], [24, 36 - flat, 32, 36 + flat]]
    np.testing.assert_allclose(back, want, atol=1e-4)
    points = detector.turned_back(found.landmarks_px[0], -90.0 * turns, upright.shape[:2])
    want = np.float32([[12, 20]]) + 0.8 * np.arange(10).reshape(5, 2)
    np.testing.assert_allclose(points, want, atol=1e-4)
    if turns:
        assert not found_by_arrow(image).scores.any()


def test_a_large_image_is_brought_to_the_networks_size_and_its_faces_back():
    image = np.zeros((48, 128, 3), np.uint8)
    image[16:20, 32:64] = 255
    small = found_by_arrow(image[:, ::4])
    large = found_by_arrow(image, network_size=(48, 32))
    scale = np.float32([[4, 1]])
    np.testing.assert_allclose(large.scores, small.scores, rtol=1e-4)
    np.testing.assert_allclose(large.boxes_px, small.boxes_px * np.tile(scale, 2), rtol=1e-4)
    np.testing.assert_allclose(large.landmarks_px, small.landmarks_px * scale[None], rtol=1e-4)
    assert large.scores[0] > 0.9 and not large.scores[1:].any()


def test_a_face_seen_at_several_rotations_is_one():
    image = np.zeros((32, 32, 3), np.uint8)
    image[16:20, 8:16] = 255
    found = found_by_arrow(image, angles_deg=(0.0, 2.0, -2.0))
    assert (found.scores > 0).sum() == 1 and found.angles_deg[0] == 0


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0, -90.0, 450.0, 30.0, 200.0])
def test_what_is_turned_is_found_where_it_was(angle):
    """The middle of a bright patch, in the turned image and turned back."""
    size = (40, 60)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    image = np.exp(-((columns - 21.3) ** 2 + (rows - 14.6) ** 2) / 8).astype(np.float32)
    canvas = detector.canvas_size(size, (angle, 45.0))
    turned = np.asarray(detector.turned(jnp.asarray(image)[..., None], angle, canvas))[..., 0]
    assert turned.shape == canvas
    assert turned.sum() == pytest.approx(image.sum(), rel=1e-3)
    y, x = np.mgrid[: canvas[0], : canvas[1]] + 0.5
    middle = np.stack([(x * turned).sum(), (y * turned).sum()]) / turned.sum()
    back = detector.turned_back(jnp.float32(middle), angle, size)
    np.testing.assert_allclose(back, [21.3, 14.6], atol=0.02)


def test_the_canvas_holds_the_image_at_every_angle():
    assert detector.canvas_size((48, 32), (0.0,)) == (48, 32)
    assert detector.canvas_size((48, 32), (0.0, 180.0)) == (48, 32)
    assert detector.canvas_size((48, 32), detector.QUARTER_TURNS) == (48, 48)
    assert detector.canvas_size((30, 40), (45.0,)) == (50, 50)


def test_boxes_turn_as_the_ellipses_in_them():
    box = jnp.float32([[10, 20, 30, 24]])
    for angle, half in ((0.0, (10, 2)), (90.0, (2, 10)), (45.0, (52**0.5, 52**0.5))):
        turned = detector.boxes_turned_back(box, angle, (40, 40))[0]
        np.testing.assert_allclose((turned[2:] - turned[:2]) / 2, half, rtol=1e-5)
    circle = detector.boxes_turned_back(jnp.float32([[10, 10, 20, 20]]), 33.0, (40, 40))[0]
    np.testing.assert_allclose(circle[2:] - circle[:2], 10, rtol=1e-5)


def test_an_image_is_extended_to_the_right_and_below():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    canvas = detector.padded(image, (3, 6), (7, 8, 9))
    np.testing.assert_array_equal(canvas[:2, :4], image)
    outside = set(itertools.product(range(3), range(6))) - set(
        itertools.product(range(2), range(4))
    )
    assert all(canvas[place].tolist() == [7, 8, 9] for place in outside)
    with pytest.raises(ValueError, match=r"\(2, 4\) pixels does not fit into \(2, 3\)"):
        detector.padded(image, (2, 3), (0, 0, 0))
