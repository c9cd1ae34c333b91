"""Cutting boxes out, changing them and naming them, against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxbed.tasks import infant_danger as task_of
from jaxbed.tasks.infant_danger import (
    FACE,
    POSTURE,
    Augmentation,
    augment,
    classification_task,
    crop_and_resize,
    jittered,
    square_around,
)

NOTHING = Augmentation(
    shift=0, scale=(1.0, 1.0), mirror=False, brightness=0, contrast=0, colour=0, grey=0, blur=0
)


def cropped(image, box, size, samples):
    """The mean of samples in every pixel, one by one, each from its four neighbours."""

    def read(y, x):
        y, x = (np.clip(v - 0.5, 0, n - 1) for v, n in ((y, image.shape[0]), (x, image.shape[1])))
        top, left = int(y), int(x)
        bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
        upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
        lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
        return upper * (1 - y + top) + lower * (y - top)

    image = image.astype(np.float64)
    left, top, right, bottom = box
    out = np.zeros((*size, image.shape[2]))
    within = (np.arange(samples) + 0.5) / samples
    for i, j in np.ndindex(size):
        rows = top + (i + within) * (bottom - top) / size[0]
        columns = left + (j + within) * (right - left) / size[1]
        out[i, j] = np.mean([read(y, x) for y in rows for x in columns], axis=0)
    return out


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize(
    "box",
    [(2.0, 3.0, 10.0, 9.0), (4.3, 1.7, 6.1, 3.2), (-5.0, -2.0, 30.0, 9.0), (3.0, 3.0, 3.0, 3.0)],
)
def test_a_crop_is_a_mean_of_samples(box, samples, rng):
    image = rng.integers(0, 256, (11, 17, 3), np.uint8)
    got = crop_and_resize(jnp.asarray(image), jnp.float32(box), size=(6, 5), samples=samples)
    np.testing.assert_allclose(got, cropped(image, box, (6, 5), samples), rtol=1e-5, atol=1e-3)


def test_the_whole_image_at_its_own_size_is_the_image(rng):
    image = rng.integers(0, 256, (7, 9, 3), np.uint8)
    got = crop_and_resize(jnp.asarray(image), jnp.float32([0, 0, 9, 7]), size=(7, 9), samples=1)
    np.testing.assert_allclose(got, image, atol=1e-4)
    half = crop_and_resize(jnp.asarray(image[:6, :8]), jnp.float32([0, 0, 8, 6]), size=(3, 4))
    exact = image[:6, :8].reshape(3, 2, 4, 2, 3).mean((1, 3))
    one = crop_and_resize(
        jnp.asarray(image[:6, :8]), jnp.float32([0, 0, 8, 6]), size=(3, 4), samples=1
    )
    np.testing.assert_allclose(one, exact, atol=1e-3)
    np.testing.assert_allclose(half, exact, atol=1e-3)


def test_a_square_goes_around_the_longer_side():
    got = square_around(jnp.float32([10, 20, 30, 30]), margin=0.5)
    np.testing.assert_allclose(got, [5, 10, 35, 40])


def test_a_box_moves_and_grows_within_its_limits():
    how = Augmentation(shift=0.1, scale=(0.5, 2.0))
    keys = jax.random.split(jax.random.key(0), 200)
    moved = np.asarray(
        jax.vmap(lambda key: jittered(jnp.float32([0, 0, 10, 20]), key, how=how))(keys)
    )
    centre, side = (moved[:, :2] + moved[:, 2:]) / 2, moved[:, 2:] - moved[:, :2]
    assert np.abs(centre - [5, 10]).max(axis=0) == pytest.approx([1, 2], rel=0.05)
    np.testing.assert_allclose(side[:, 1], 2 * side[:, 0], rtol=1e-4)
    assert side[:, 0].min() == pytest.approx(5, rel=0.05)
    assert side[:, 0].max() == pytest.approx(20, rel=0.05)
    still = jittered(jnp.float32([0, 0, 10, 20]), keys[0], how=NOTHING)
    np.testing.assert_allclose(still, [0, 0, 10, 20], atol=1e-5)


@pytest.mark.parametrize("how", [FACE, POSTURE])
def test_augmentation_stays_in_range_and_differs_from_image_to_image(how, rng):
    crop = jnp.asarray(rng.uniform(0, 255, (16, 16, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 8)
    got = np.asarray(jax.vmap(lambda key: augment(crop, key, how=how))(keys))
    assert got.shape == (8, 16, 16, 3) and got.min() >= 0 and got.max() <= 255
    assert len(np.unique(got.mean((1, 2, 3)).round(3))) == 8
    np.testing.assert_allclose(augment(crop, keys[0], how=NOTHING), crop, atol=1e-3)


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        (NOTHING._replace(mirror=True), 2),
        (NOTHING._replace(quarter_turns=True), 4),
        (NOTHING._replace(mirror=True, quarter_turns=True), 8),
    ],
)
def test_turns_and_mirrors_are_all_taken(how, kinds, rng):
    crop = jnp.asarray(rng.uniform(0, 255, (4, 4, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(2), 64)
    got = np.asarray(jax.vmap(lambda key: augment(crop, key, how=how))(keys))
    assert len({image.tobytes() for image in got}) == kinds


def test_grey_blur_and_cutout_do_what_they_say(rng):
    crop = jnp.asarray(rng.uniform(0, 255, (5, 7, 3)), jnp.float32)
    grey = augment(crop, jax.random.key(0), how=NOTHING._replace(grey=1.0))
    np.testing.assert_allclose(grey, np.repeat(crop.mean(-1, keepdims=True), 3, -1), atol=1e-3)
    coarse = np.asarray(task_of._at_half_resolution(crop))
    want = np.asarray(crop)[:4, :6].reshape(2, 2, 3, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(coarse[:4, :6], want, atol=1e-3)
    np.testing.assert_allclose(coarse[4], crop[4], atol=1e-4)
    white = jnp.full((40, 40, 3), 255.0)
    cut = jax.vmap(lambda key: augment(white, key, how=NOTHING._replace(cutout=0.5)))(
        jax.random.split(jax.random.key(3), 50)
    )
    share = np.asarray(cut == 127.5).mean((1, 2, 3))
    assert 0.03 < share.mean() < 0.08 and share.max() < 0.25 and set(np.unique(cut)) == {127.5, 255}


class Mean(nn.Module):
    """Scores by how bright each colour is."""

    @nn.compact
    def __call__(self, x, *, train):
        return {"logits": x.mean((1, 2))}


def batch(rng, count=6):
    image = np.zeros((count, 12, 16, 3), np.uint8)
    label = np.arange(count, dtype=np.int32) % 3
    for i, colour in enumerate(label):
        image[i, 4:8, 6:10, colour] = 200
        image[i, :4, :, (colour + 1) % 3] = 255  # outside the box, and brighter
    return {
        "image": image,
        "box_px": np.tile(np.float32([6, 4, 10, 8]), (count, 1)),
        "label": label,
        "mask": np.float32([1] * (count - 1) + [0]),
        "index": np.arange(count, dtype=np.int32),
    }


def test_the_task_names_what_is_in_the_box(rng):
    task = classification_task(
        (4, 4), ("r", "g", "b"), network_input=lambda x: x, margin=0.0, augmentation=FACE
    )
    given = batch(rng)
    seen = task.prepare(given, jax.random.split(jax.random.key(0), 6), False)
    # Samples at the edge of the box lie between it and what is around it.
    inner = given["image"][:, 5:7, 7:9]
    np.testing.assert_allclose(seen["input"][:, 1:3, 1:3], inner, atol=1e-3)
    outputs = Mean().apply({}, seen["input"], train=False)
    loss, _ = task.loss(outputs, seen)
    np.testing.assert_allclose(loss, 0, atol=1e-3)
    # The second class is wrong in one of two images; the last image of the third does not count.
    wrong = {"logits": outputs["logits"].at[1].set(0).at[5].set(0)}
    values = {name: float(m.compute()) for name, m in task.metrics(wrong, seen).items()}
    assert values == pytest.approx({"accuracy": 0.8, "r": 1.0, "g": 0.5, "b": 1.0})


def test_training_input_does_not_depend_on_the_other_images_of_a_batch(rng):
    """Each image has a key of its own, whatever device it is on."""
    task = classification_task(
        (8, 8), ("r", "g", "b"), network_input=lambda x: x, margin=0.3, augmentation=FACE
    )
    given, keys = batch(rng), jax.random.split(jax.random.key(4), 6)
    prepare = functools.partial(task.prepare, train=True)
    whole = prepare(given, keys)["input"]
    part = prepare({name: value[2:4] for name, value in given.items()}, keys[2:4])["input"]
    np.testing.assert_allclose(whole[2:4], part, atol=1e-3)
    plain = task.prepare(given, keys, False)["input"]
    assert np.abs(np.asarray(whole) - plain).mean() > 1
