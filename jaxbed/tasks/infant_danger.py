"""What the classifiers of the infant danger monitor are trained for: to name what a box shows.

B images, H W their height and width, h w those of a network's input. A batch holds `image`
u8[B,H,W,3] in RGB, `box_px` f32[B,4] (left, top, right, bottom; the face, or the whole image where
a posture is to be named) and `label` i32[B]. Boxes are cut out and changed on the device, by the
function that cuts faces out of the frames of a camera.

Source: "A deep-learning-based danger monitoring system for infants" (thesis), abstract, which
names the networks and their classes. How it trained them is not told; augmentation is ours.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbed.metrics import Average
from jaxbed.training.task import Batch, Outputs, Task

SAMPLES = 2
"""Along each axis of a pixel of a crop, so that fine patterns of a large box do not flicker."""


class Augmentation(NamedTuple):
    """How training images are changed.

    Attributes:
        shift: farthest that a box is moved, as a share of its sides.
        scale: smallest and largest factor of its sides.
        mirror: mirror half of the images.
        quarter_turns: turn them by 0 to 3 of them, as cameras see the head of a lying infant.
        brightness: largest change of it, as a share of the whole range.
        contrast: likewise, of the distance from the mean.
        colour: largest change of red, green and blue, as a share of each.
        grey: share of images that lose their colour, as every camera's do at night.
        blur: strongest blend with the image at half its resolution, within [0, 1].
        cutout: largest sides of a grey rectangle, as a share of the image's; 0 for none. Nothing
            for faces, whose label says whether something is before them.
    """

    shift: float = 0.08
    scale: tuple[float, float] = (0.88, 1.15)
    mirror: bool = True
    quarter_turns: bool = False
    brightness: float = 0.15
    contrast: float = 0.3
    colour: float = 0.15
    grey: float = 0.3
    blur: float = 0.5
    cutout: float = 0.0


FACE = Augmentation(quarter_turns=True)
POSTURE = Augmentation(scale=(0.8, 1.1), blur=0.2, cutout=0.2)


def classification_task(
    size: tuple[int, int],
    classes: tuple[str, ...],
    *,
    network_input: Callable[[jax.Array], jax.Array],
    margin: float | None,
    augmentation: Augmentation | None = None,
) -> Task:
    """Cross-entropy of classes; accuracy, and the recall of each class.

    Args:
        size: (height, width) of the network's input.
        classes: their names, by index.
        network_input: what the network is to see of crops f32[B,h,w,3] of 0 to 255.
        margin: as of `square_around`; None takes boxes as they are.
        augmentation: None for none.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        box = batch["box_px"]
        if margin is not None:
            box = jax.vmap(partial(square_around, margin=margin))(box)
        augmented = train and augmentation is not None
        if augmented:
            box = jax.vmap(partial(jittered, how=augmentation))(box, keys)
        crops = jax.vmap(partial(crop_and_resize, size=size))(batch["image"], box)
        if augmented:
            crops = jax.vmap(partial(augment, how=augmentation))(crops, keys)
        return {**batch, "input": network_input(crops)}

    def loss(outputs: Outputs, batch: Batch):
        entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], batch["label"])
        return entropy, {}

    def metrics(outputs: Outputs, batch: Batch):
        return recalls(outputs["logits"], batch["label"], batch["mask"], classes)

    return Task(prepare, loss, metrics)


def recalls(
    logits: jax.Array, label: jax.Array, mask: jax.Array, classes: tuple[str, ...]
) -> Mapping[str, Average]:
    """Counts what is named rightly: of all images, `accuracy`, and of those of each class."""
    hit = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
    named = {"accuracy": Average.from_model_output(values=hit, mask=mask)}
    for index, name in enumerate(classes):
        named[name] = Average.from_model_output(values=hit, mask=mask * (label == index))
    return named


def square_around(box: jax.Array, *, margin: float) -> jax.Array:
    """Returns the square f32[4] with a box's centre and its longer side, made larger.

    Args:
        box: f32[4].
        margin: by which share of the side the square is longer than the box.
    """
    centre = (box[:2] + box[2:]) / 2
    half = (1 + margin) * jnp.max(box[2:] - box[:2]) / 2
    return jnp.concatenate([centre - half, centre + half])


def crop_and_resize(
    image: jax.Array, box: jax.Array, *, size: tuple[int, int], samples: int = SAMPLES
) -> jax.Array:
    """Cuts a box out of an image and brings it to a size that does not depend on the box.

    Every new pixel is the mean of samples that lie evenly in it, each interpolated between its
    four neighbours: rows are read, columns are a product with a matrix of shares. On a CPU the
    product also keeps the compiler from cutting out anew for everything that reads the crop.

    Args:
        image: u8 or f32[H,W,C].
        box: f32[4], left, top, right, bottom in pixels; what lies beyond the image's edges shows
            the pixels at its edges.
        size: (h, w).
        samples: along each axis of a pixel. For a box twice as large as `size` 1 is an exact mean
            of four pixels; much larger ones want as many as half the ratio.

    Returns:
        f32[h,w,C].
    """
    rows = read_rows(image, box[1], box[3], count=size[0], samples=samples)
    shares = jnp.zeros((size[1], image.shape[1]))
    columns = jnp.arange(image.shape[1])
    for places in _places(box[0], box[2], size[1], samples, image.shape[1]):
        shares += jnp.maximum(0, 1 - jnp.abs(places[:, None] - columns[None])) / samples
    return jnp.einsum("hxc,wx->hwc", rows, shares)


def read_rows(
    image: jax.Array, low: jax.Array, high: jax.Array, *, count: int, samples: int, axis: int = 0
) -> jax.Array:
    """Returns f32, `count` rows of an image between two places; means of samples.

    Args:
        image: u8 or f32[H,W,C].
        low: f32[], where the first row begins, in pixels.
        high: f32[], where the last row ends.
        count: of the rows.
        samples: as of `crop_and_resize`.
        axis: 1 for columns.
    """
    total = 0.0
    for places in _places(low, high, count, samples, image.shape[axis]):
        before = jnp.floor(places).astype(jnp.int32)
        share = (places - before).reshape([-1 if n == axis else 1 for n in range(3)])
        read = partial(jnp.take, image, axis=axis, mode="clip")
        first, second = read(before).astype(jnp.float32), read(before + 1).astype(jnp.float32)
        total += first + share * (second - first)
    return total / samples


def _places(
    low: jax.Array, high: jax.Array, count: int, samples: int, length: int
) -> list[jax.Array]:
    """Returns where each sample of `count` pixels is read, f32[count], within an axis."""
    steps = [jnp.arange(count) + (i + 0.5) / samples for i in range(samples)]
    return [jnp.clip(low + at * ((high - low) / count) - 0.5, 0, length - 1) for at in steps]


def jittered(box: jax.Array, key: jax.Array, *, how: Augmentation) -> jax.Array:
    """Moves and scales a box f32[4] at random."""
    shift_key, scale_key = jax.random.split(jax.random.fold_in(key, 1))
    side = box[2:] - box[:2]
    shift = how.shift * side * jax.random.uniform(shift_key, (2,), minval=-1.0)
    low, high = how.scale
    half = side / 2 * jax.random.uniform(scale_key, minval=low, maxval=high)
    centre = (box[:2] + box[2:]) / 2 + shift
    return jnp.concatenate([centre - half, centre + half])


def augment(crop: jax.Array, key: jax.Array, *, how: Augmentation) -> jax.Array:
    """Changes how a crop looks, but not what it is called.

    Args:
        crop: f32[h,w,3] of 0 to 255; quarter turns need a square one.
        key: PRNG key.
        how: what to do.

    Returns:
        f32[h,w,3] of 0 to 255.
    """
    keys = jax.random.split(key, 8)
    if how.mirror:
        crop = jnp.where(jax.random.bernoulli(keys[0]), crop[:, ::-1], crop)
    if how.quarter_turns:
        branches = [partial(jnp.rot90, k=turns) for turns in range(4)]
        crop = jax.lax.switch(jax.random.randint(keys[1], (), 0, 4), branches, crop)
    if how.blur:
        share = how.blur * jax.random.uniform(keys[2])
        crop += share * (_at_half_resolution(crop) - crop)
    if how.grey:
        grey = jnp.broadcast_to(crop.mean(axis=-1, keepdims=True), crop.shape)
        crop = jnp.where(jax.random.bernoulli(keys[3], how.grey), grey, crop)

    def change(i: int, most: float, shape: tuple[int, ...] = ()) -> jax.Array:
        return most * jax.random.uniform(keys[i], shape, minval=-1.0)

    mean = crop.mean(axis=(0, 1), keepdims=True)
    crop = mean + (1 + change(4, how.contrast)) * (crop - mean)
    crop = (1 + change(5, how.colour, (1, 1, 3))) * crop + 255 * change(6, how.brightness)
    if how.cutout:
        crop = jnp.where(_rectangle(crop.shape[:2], keys[7], how.cutout), 127.5, crop)
    return jnp.clip(crop, 0, 255)


def _at_half_resolution(crop: jax.Array) -> jax.Array:
    """Averages every four pixels and spreads the mean over them again; an odd edge stays."""
    height, width = (2 * (length // 2) for length in crop.shape[:2])
    even = crop[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    coarse = jnp.broadcast_to(even.mean(axis=(1, 3), keepdims=True), even.shape)
    return crop.at[:height, :width].set(coarse.reshape(height, width, -1))


def _rectangle(size: tuple[int, int], key: jax.Array, largest: float) -> jax.Array:
    """Draws bool[h,w,1], true in a rectangle anywhere."""
    side_key, place_key = jax.random.split(key)
    whole = jnp.float32(size)
    half = largest / 2 * whole * jax.random.uniform(side_key, (2,))
    middle = whole * jax.random.uniform(place_key, (2,))
    inside = [
        jnp.abs(jnp.arange(length) + 0.5 - middle[axis]) < half[axis]
        for axis, length in enumerate(size)
    ]
    return (inside[0][:, None] & inside[1][None])[..., None]
