"""Input, augmentation, loss and scores of sleep postures, against NumPy."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.data.night import POSTURES, UNKNOWN
from jaxbed.tasks import sleep_posture as task

CLASSES = {name: i for i, name in enumerate(POSTURES)}
SIZE = (10, 12)


def posture_task(**changes):
    settings = {"min_scale": 0.8, "flips": "both", "classes": CLASSES}
    return task.posture_task(SIZE, **(settings | changes))


def batch(rng, count=6, size=SIZE, **changes):
    arrays = {
        "image": rng.integers(0, 256, (count, *size), np.uint8),
        "posture": np.arange(count, dtype=np.int32) % 4,
        "blanket": np.array([0, 1, UNKNOWN] * count, np.int32)[:count],
        "blanket_weight": np.full(count, 0.5, np.float32),
        "mask": np.ones(count, np.float32),
    }
    return {name: jnp.asarray(array) for name, array in (arrays | changes).items()}


def outputs(rng, count=6):
    return {
        "posture": jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        "blanket": jnp.asarray(rng.normal(size=count), jnp.float32),
    }


def test_a_mirror_exchanges_left_and_right_and_nothing_else():
    names = [POSTURES[i] for i in task.MIRRORED]
    assert names == ["supine", "prone", "right", "left"]


@pytest.mark.parametrize("flips", ["none", "horizontal", "vertical", "both"])
def test_labels_follow_every_flip(rng, flips):
    """The whole image is kept, so each result is one of the four turned images, to the bit."""
    image = rng.integers(0, 256, SIZE).astype(np.uint8)
    change = partial(task.augment, size=SIZE, min_scale=1.0, flips=flips)
    many = jax.jit(jax.vmap(jax.vmap(change, (None, 0, None)), (None, None, 0)))
    keys = jax.random.split(jax.random.key(0), 200)
    seen, labels = jax.device_get(many(jnp.asarray(image), jnp.arange(4), keys))

    turned = {(v, h): image[:: 1 - 2 * v, :: 1 - 2 * h] for v in (0, 1) for h in (0, 1)}
    allowed = {
        (v, h)
        for v, h in itertools.product((0, 1), repeat=2)
        if v <= (flips in ("vertical", "both")) and h <= (flips in ("horizontal", "both"))
    }
    counts = dict.fromkeys(turned, 0)
    for images, found in zip(seen, labels, strict=True):
        which = [k for k, t in turned.items() if np.allclose(images[0], t, atol=1e-3)]
        assert len(which) == 1
        counts[which[0]] += 1
        mirrored = sum(which[0]) == 1
        assert found.tolist() == ([0, 1, 3, 2] if mirrored else [0, 1, 2, 3])
    assert {turn for turn, n in counts.items() if n} == allowed
    assert min(counts[turn] for turn in allowed) > 0.6 * 200 / len(allowed)


def test_a_crop_is_a_part_of_the_image_enlarged(rng):
    """On a plane of grey, what a pixel shows tells where it lies."""
    h, w = 40, 60
    rows, columns = np.mgrid[:h, :w]
    change = partial(task.augment, size=SIZE, min_scale=0.5, flips="none")
    keys = jax.random.split(jax.random.key(1), 300)
    many = jax.jit(jax.vmap(change, (None, None, 0)))
    down, _ = many(jnp.asarray(4 * rows, jnp.uint8), jnp.zeros((), jnp.int32), keys)
    right, _ = many(jnp.asarray(4 * columns, jnp.uint8), jnp.zeros((), jnp.int32), keys)
    down, right = np.asarray(down) / 4, np.asarray(right) / 4
    # Away from the edges, where smoothing stops, and over five pixels: a triangle of no whole
    # width ripples a little.
    gap_down, gap_right = (down[:, 7, 5] - down[:, 2, 5]) / 5, (right[:, 5, 8] - right[:, 5, 3]) / 5
    kept = gap_down * SIZE[0] / h
    np.testing.assert_allclose(gap_right * SIZE[1] / w, kept, atol=0.02)
    assert 0.48 < kept.min() < 0.55
    assert 0.95 < kept.max() < 1.02
    # Corners from one end of what is left over to the other.
    top = down[:, 5, 5] + 0.5 - 5.5 * gap_down
    share = (top / (h * (1 - kept)))[kept < 0.9]
    assert -0.1 < share.min() < 0.1
    assert 0.9 < share.max() < 1.1


def test_the_input_is_standardised_image_by_image(rng):
    arrays = batch(rng)
    keys = jax.random.split(jax.random.key(0), 6)
    prepared = posture_task().prepare(arrays, keys, False)
    image = np.asarray(arrays["image"], np.float64)
    want = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    np.testing.assert_allclose(prepared["input"][..., 0], want, atol=1e-5)
    np.testing.assert_array_equal(prepared["posture"], arrays["posture"])

    trained = posture_task().prepare(arrays, keys, True)["input"]
    assert trained.shape == (6, *SIZE, 1)
    np.testing.assert_allclose(np.mean(trained, axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(trained, axis=(1, 2, 3)), 1, atol=1e-5)


def test_an_image_of_one_grey_stays_flat():
    flat = jnp.full((2, *SIZE), 77.0)
    np.testing.assert_allclose(task.standardised(flat), 0, atol=1e-3)


def test_images_of_another_size_are_resized_for_testing(rng):
    """Halving averages: every new pixel is the mean of its smoothed neighbourhood."""
    constant = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None] * 50, (3, 20, 24))
    np.testing.assert_allclose(
        task.resized(jnp.asarray(constant), SIZE), constant[:, ::2, ::2], atol=1e-3
    )
    image = rng.integers(0, 256, (1, 20, 24), np.uint8)
    small = np.asarray(task.resized(jnp.asarray(image), SIZE))
    assert small.shape == (1, *SIZE)
    tent = np.array([1, 3, 3, 1]) / 8  # a triangle two new pixels wide, in old pixels
    inner = np.lib.stride_tricks.sliding_window_view(image[0], (4, 4))[1::2, 1::2] @ tent @ tent
    np.testing.assert_allclose(small[0, 1:-1, 1:-1], inner, atol=1e-3)


def test_the_loss_is_that_of_equations_4_to_6(rng):
    arrays, out = batch(rng), outputs(rng)
    weight = rng.random(6).astype(np.float32)
    total, parts = posture_task().loss(out, arrays | {"blanket_weight": jnp.asarray(weight)})
    logits, label = np.asarray(out["posture"], np.float64), np.asarray(arrays["posture"])
    posture = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), label]
    p, on = 1 / (1 + np.exp(-np.asarray(out["blanket"], np.float64))), np.asarray(arrays["blanket"])
    blanket = -np.where(on == 1, np.log(p), np.log(1 - p)) * (on != UNKNOWN)
    np.testing.assert_allclose(parts["posture_loss"], posture, rtol=1e-5)
    np.testing.assert_allclose(parts["blanket_loss"], blanket, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(total, posture + weight * blanket, rtol=1e-5)


def test_an_unknown_blanket_pulls_at_nothing(rng):
    arrays = batch(rng)
    slope = jax.grad(lambda out: posture_task().loss(out, arrays)[0].sum())(outputs(rng))
    unknown = np.asarray(arrays["blanket"]) == UNKNOWN
    assert not np.asarray(slope["blanket"])[unknown].any()
    assert np.asarray(slope["blanket"])[~unknown].all()
    assert np.asarray(slope["posture"]).all()


def test_a_network_without_the_blanket_has_the_postures_loss_alone(rng):
    arrays, out = batch(rng), outputs(rng)
    whole = posture_task()
    total, parts = whole.loss({"posture": out["posture"]}, arrays)
    assert parts == {}
    np.testing.assert_array_equal(total, whole.loss(out, arrays)[1]["posture_loss"])
    assert set(whole.metrics({"posture": out["posture"]}, arrays)) == {"posture", *POSTURES}


def test_metrics_merge_to_what_numpy_counts(rng):
    count = 41
    arrays, out = batch(rng, count), outputs(rng, count)
    mask = (np.arange(count) < 37).astype(np.float32)
    arrays = arrays | {"mask": jnp.asarray(mask)}
    measure = posture_task().metrics
    halves = [
        measure(*({k: v[part] for k, v in tree.items()} for tree in (out, arrays)))
        for part in (slice(0, 20), slice(20, None))
    ]
    merged = {name: float(halves[0][name].merge(halves[1][name]).compute()) for name in halves[0]}

    real = mask > 0
    label, blanket = np.asarray(arrays["posture"]), np.asarray(arrays["blanket"])
    hit = np.asarray(out["posture"]).argmax(1) == label
    want = {"posture": hit[real].mean()}
    want |= {name: hit[real & (label == i)].mean() for name, i in CLASSES.items()}
    told = real & (blanket != UNKNOWN)
    want["blanket"] = ((np.asarray(out["blanket"]) > 0) == blanket)[told].mean()
    assert merged == pytest.approx(want)
