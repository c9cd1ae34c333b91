"""What face detectors optimise, and how their boxes are scored.

B images, H W their height and width, G faces of an image, A anchors. A batch holds `image`
u8[B,H,W,3] in RGB, `boxes_px` f32[B,G,4] and `landmarks_px` f32[B,G,5,2], as in
jaxbed.codecs.boxes; what is missing, of the G or of a face, is NaN. Targets and augmentation are
made on the device.

Source: Liu et al., SSD (see jaxbed.models.ssd), section 2.2, and Deng et al., RetinaFace (see
jaxbed.models.retinaface), section 3.1. Differs: an image's sums are divided by its own number of
positive anchors instead of the batch's, and an image without any trains its hardest negatives
instead of nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbed.codecs import boxes
from jaxbed.metrics import Average
from jaxbed.training.task import Batch, Outputs, Task

OTHER_SIDE = (1, 0, 2, 4, 3)
"""The landmark that each becomes in a mirror: eyes, nose, corners of the mouth."""


class Rules(NamedTuple):
    """How a detector is trained.

    Attributes:
        threshold: as in boxes.match.
        forced_threshold: likewise.
        negatives: anchors without a face that train the scores, for every positive one.
        box_weight: of boxes in the loss; scores and landmarks have 1.
    """

    threshold: float
    forced_threshold: float
    negatives: int
    box_weight: float


RETINAFACE = Rules(threshold=0.35, forced_threshold=0.2, negatives=7, box_weight=2.0)
SSD = Rules(threshold=0.5, forced_threshold=0.0, negatives=3, box_weight=1.0)


class Augmentation(NamedTuple):
    """How training images are changed.

    Attributes:
        mirror: mirror half of them.
        quarter_turns: turn square images by 0 to 3 of them; others cannot be.
        scale: smallest and largest factor of the size; what leaves the image is lost.
        contrast: largest change of it, as a share.
    """

    mirror: bool = True
    quarter_turns: bool = False
    scale: tuple[float, float] = (0.75, 1.5)
    contrast: float = 0.2


def detection_task(
    levels: boxes.Levels,
    rules: Rules,
    *,
    network_input: Callable[[jax.Array], jax.Array],
    augmentation: Augmentation | None = None,
) -> Task:
    """Boxes, scores and landmarks of anchors.

    Args:
        levels: of the network's anchors.
        rules: RETINAFACE or SSD.
        network_input: what the network is to see of images u8[B,H,W,3]; 0 is its neutral value,
            which lies around images that are made smaller.
        augmentation: None for none.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        seen = network_input(batch["image"])
        faces, landmarks = batch["boxes_px"], batch["landmarks_px"]
        if train and augmentation:
            change = partial(augment, how=augmentation)
            seen, faces, landmarks = jax.vmap(change)(seen, faces, landmarks, keys)
        anchors = jnp.asarray(boxes.anchors_of(levels, seen.shape[1:3]))
        made = jax.vmap(partial(targets, anchors=anchors, rules=rules))(faces, landmarks)
        return {**batch, "input": seen, **made}

    def loss(outputs: Outputs, batch: Batch):
        return multibox_loss(outputs, batch, rules)

    def metrics(outputs: Outputs, batch: Batch):
        anchors = jnp.asarray(boxes.anchors_of(levels, batch["input"].shape[1:3]))
        scores = anchor_scores(outputs, batch, anchors)
        counts = batch["mask"] * jnp.any(batch["positive"], axis=1)
        return {
            name: Average.from_model_output(values=value, mask=counts)
            for name, value in scores.items()
        }

    return Task(prepare, loss, metrics)


def targets(
    faces: jax.Array, landmarks: jax.Array, *, anchors: jax.Array, rules: Rules
) -> dict[str, jax.Array]:
    """Says what every anchor of an image is trained towards.

    Args:
        faces: f32[G,4].
        landmarks: f32[G,5,2].
        anchors: f32[A,4].
        rules: for matching.

    Returns:
        `positive` bool[A], `box_target` f32[A,4], `landmark_target` f32[A,10], and `marked`
        bool[A], whether the anchor's face has all its landmarks. Targets that do not count are
        0.
    """
    face, positive = boxes.match(
        faces,
        anchors,
        threshold=rules.threshold,
        forced_threshold=rules.forced_threshold,
    )
    box = boxes.encode(jnp.where(positive[:, None], faces[face], boxes.corners(anchors)), anchors)
    points = boxes.encode_points(landmarks[face], anchors)
    marked = positive & jnp.all(jnp.isfinite(points), axis=1)
    return {
        "positive": positive,
        "box_target": jnp.where(positive[:, None], box, 0.0),
        "landmark_target": jnp.where(marked[:, None], points, 0.0),
        "marked": marked,
    }


def multibox_loss(
    outputs: Outputs, target: Batch, rules: Rules
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Adds up the cross-entropy of scores, and what boxes and landmarks of faces miss.

    Of the anchors without a face only the hardest train the scores, else they would drown the
    others. The sums are divided by the number of positive anchors, those of landmarks by the
    number of anchors whose face has them; both at least 1.

    Args:
        outputs: `logits` f32[B,A,2], `boxes` f32[B,A,4] and, if the network finds them,
            `landmarks` f32[B,A,10].
        target: as of `targets`, with a batch axis.
        rules: weights and number of negatives.

    Returns:
        f32[B], and its parts `class`, `box` and `landmarks` without their weights.
    """
    positive = target["positive"]
    faces = jnp.maximum(positive.sum(axis=1), 1)
    entropy = optax.softmax_cross_entropy_with_integer_labels(
        outputs["logits"], positive.astype(jnp.int32)
    )
    # As no entropy is below 0, positive anchors come last and add nothing.
    hardest = -jnp.sort(-jnp.where(positive, 0.0, entropy), axis=1)
    trained = jnp.arange(positive.shape[1])[None] < rules.negatives * faces[:, None]
    total = jnp.sum(jnp.where(positive, entropy, 0.0) + jnp.where(trained, hardest, 0.0), axis=1)

    def missed(name: str, target_name: str, counted: jax.Array) -> jax.Array:
        error = optax.huber_loss(outputs[name], target[target_name]).sum(axis=2)
        number = jnp.maximum(counted.sum(axis=1), 1)
        return jnp.sum(jnp.where(counted, error, 0.0), axis=1) / number

    parts = {"class": total / faces, "box": missed("boxes", "box_target", positive)}
    loss = parts["class"] + rules.box_weight * parts["box"]
    if "landmarks" in outputs:
        parts["landmarks"] = missed("landmarks", "landmark_target", target["marked"])
        loss += parts["landmarks"]
    return loss, parts


def anchor_scores(outputs: Outputs, target: Batch, anchors: jax.Array) -> dict[str, jax.Array]:
    """Scores the positive anchors of every image, before any box is suppressed.

    Args:
        outputs: as in multibox_loss.
        target: likewise.
        anchors: f32[A,4].

    Returns:
        `recall` f32[B], the share that is scored above 0.5, and `iou` f32[B], mean overlap of
        their boxes with the faces'; 0 where an image has none.
    """
    positive = target["positive"]
    one_by_one = jax.vmap(lambda a, b: boxes.iou(a[None], b[None])[0, 0])

    def overlap(found: jax.Array, true: jax.Array) -> jax.Array:
        return one_by_one(boxes.decode(found, anchors), boxes.decode(true, anchors))

    def mean(values: jax.Array) -> jax.Array:
        number = jnp.maximum(positive.sum(axis=1), 1)
        return jnp.sum(jnp.where(positive, values, 0.0), axis=1) / number

    above = outputs["logits"][..., 1] > outputs["logits"][..., 0]
    overlaps = jax.vmap(overlap)(outputs["boxes"], target["box_target"])
    return {"recall": mean(above.astype(jnp.float32)), "iou": mean(overlaps)}


def augment(
    seen: jax.Array, faces: jax.Array, landmarks: jax.Array, key: jax.Array, *, how: Augmentation
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Changes an image and its faces alike.

    A face whose centre leaves the image becomes missing, and its box is cut at the edges
    otherwise; landmarks stay where they are, beyond the edge too.

    Args:
        seen: f32[H,W,3], the network's input; what is not seen of an image made smaller is 0.
        faces: f32[G,4].
        landmarks: f32[G,5,2].
        key: PRNG key.
        how: what to do.

    Returns:
        The same shapes.
    """
    mirror_key, turn_key, scale_key, place_key, contrast_key = jax.random.split(key, 5)
    height, width = seen.shape[:2]
    points = jnp.concatenate([faces.reshape(-1, 2, 2), landmarks], axis=1)  # f32[G,7,2]
    if how.mirror:
        chosen = jax.random.bernoulli(mirror_key)
        seen = jnp.where(chosen, seen[:, ::-1], seen)
        other_side = points[:, (0, 1, *(2 + i for i in OTHER_SIDE))]
        turned = jnp.stack([width - other_side[..., 0], other_side[..., 1]], axis=-1)
        points = jnp.where(chosen, turned, points)
    if how.quarter_turns and height == width:
        turns = jax.random.randint(turn_key, (), 0, 4)
        branches = [partial(_turned, turns=number) for number in range(4)]
        seen, points = jax.lax.switch(turns, branches, seen, points)

    low, high = how.scale
    factor = jax.random.uniform(scale_key, minval=low, maxval=high)
    # Of what is left over, or lacks, a random share lies left of and above the image.
    shift = jax.random.uniform(place_key, (2,)) * (1 - factor) * jnp.float32([width, height])
    seen = jax.image.scale_and_translate(
        seen, seen.shape, (0, 1), jnp.full(2, factor), shift[::-1], "linear"
    )
    points = points * factor + shift.reshape(1, 1, 2)
    seen *= 1 + how.contrast * jax.random.uniform(contrast_key, minval=-1.0)

    ends = points[:, :2]
    low, high = ends.min(axis=1), ends.max(axis=1)  # turning exchanges them
    edge = jnp.float32([[width, height]])
    centre = (low + high) / 2
    inside = jnp.all((centre > 0) & (centre < edge), axis=1)
    cut = jnp.concatenate([jnp.maximum(low, 0), jnp.minimum(high, edge)], axis=1)
    faces = jnp.where(inside[:, None], cut, jnp.nan)
    return seen, faces, jnp.where(inside[:, None, None], points[:, 2:], jnp.nan)


def _turned(seen: jax.Array, points: jax.Array, *, turns: int) -> tuple[jax.Array, jax.Array]:
    """Turns a square image by quarters, anticlockwise."""
    for _ in range(turns):
        points = jnp.stack([points[..., 1], len(seen) - points[..., 0]], axis=-1)
    return jnp.rot90(seen, turns), points


def average_precision(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    true: Sequence[np.ndarray],
    *,
    iou_threshold: float = 0.5,
) -> float:
    """Computes the area under the curve of precision over recall.

    Going from the surest to the least sure, a box is right if the face it overlaps most is
    overlapped enough and not taken yet. The precision at a recall is the best at that recall or
    a higher one, as in PASCAL VOC since 2010.

    Args:
        found: of every image boxes f32[n,4] and scores f32[n]; none of them NaN.
        true: of every image the faces f32[m,4].
        iou_threshold: from which on a face is overlapped enough.

    Returns:
        In [0, 1]; NaN where there are no faces at all.
    """
    right: list[bool] = []
    scores: list[float] = []
    for (box, score), faces in zip(found, true, strict=True):
        overlap = boxes.iou(np.reshape(box, (-1, 4)), np.reshape(faces, (-1, 4)), np)
        taken = np.zeros(len(faces), bool)
        for i in np.argsort(-score, kind="stable"):
            best = int(overlap[i].argmax()) if len(faces) else -1
            hit = best >= 0 and overlap[i, best] >= iou_threshold and not taken[best]
            if hit:
                taken[best] = True
            right.append(bool(hit))
            scores.append(float(score[i]))
    faces_in_all = sum(len(faces) for faces in true)
    if not faces_in_all:
        return float("nan")

    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.cumsum(np.asarray(right, int)[order])
    # Boxes of one score come together: a threshold takes all of them or none.
    last = np.flatnonzero(np.diff(np.asarray(scores)[order], append=-np.inf))
    recall = hits[last] / faces_in_all
    precision = np.maximum.accumulate((hits[last] / (last + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
