"""Targets, loss, augmentation and scores of face detectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbed.codecs import boxes
from jaxbed.codecs.boxes import Level
from jaxbed.models.retinaface import network_input, retinaface_edge
from jaxbed.models.ssd import SSD300, LightSSD
from jaxbed.tasks import face_detection as task
from jaxbed.training.state import start
from jaxbed.training.step import train_step

LEVELS = (Level(((8, 8), (16, 16)), 8), Level(((32, 32),), 16))
SIZE = (32, 48)
NO_BOX, NO_POINTS = np.full(4, np.nan), np.full((5, 2), np.nan)
RULES = task.Rules(threshold=0.35, forced_threshold=0.2, negatives=2, box_weight=3.0)


def as_input(image):
    return image.astype(jnp.float32) / 255


def batch_of(faces, landmarks, images=None):
    faces, landmarks = np.float32(faces), np.float32(landmarks)
    if images is None:
        images = np.zeros((len(faces), *SIZE, 3), np.uint8)
    return {
        "image": jnp.asarray(images),
        "boxes_px": jnp.asarray(faces),
        "landmarks_px": jnp.asarray(landmarks),
        "mask": jnp.ones(len(faces)),
    }


@pytest.fixture
def batch(rng):
    """Three images: two faces, of which one has landmarks; one face; none."""
    first, second = [7, 6, 17, 16], [20, 4, 44, 30]
    points = rng.uniform(8, 16, (5, 2))
    faces = [[first, second], [second, NO_BOX], [NO_BOX, NO_BOX]]
    partly = np.where(np.arange(5)[:, None] < 4, points, np.nan)
    landmarks = [[points, partly], [NO_POINTS, NO_POINTS], [NO_POINTS, NO_POINTS]]
    return batch_of(faces, landmarks)


@pytest.fixture
def outputs(rng):
    count = len(boxes.anchors_of(LEVELS, SIZE))
    return {
        name: jnp.asarray(rng.normal(size=(3, count, numbers)), jnp.float32)
        for name, numbers in {"boxes": 4, "landmarks": 10, "logits": 2}.items()
    }


def made(augmentation=None):
    return task.detection_task(LEVELS, RULES, network_input=as_input, augmentation=augmentation)


MADE = made()
loss_of = jax.jit(MADE.loss)


def prepared(batch, how=MADE, train=False):
    keys = jax.random.split(jax.random.key(0), len(batch["image"]))
    return jax.jit(how.prepare, static_argnums=2)(batch, keys, train)


# targets and loss


def test_targets_are_the_offsets_of_the_matched_faces(batch):
    target = prepared(batch)
    anchors = boxes.anchors_of(LEVELS, SIZE)
    assert target["positive"].sum(axis=1).tolist()[2] == 0
    for i in range(3):
        faces = batch["boxes_px"][i]
        want = boxes.match(faces, anchors, threshold=0.35, forced_threshold=0.2)
        positive = np.asarray(want.positive)
        np.testing.assert_array_equal(target["positive"][i], positive)
        got = boxes.decode(target["box_target"][i], anchors)
        np.testing.assert_allclose(got[positive], faces[want.face[positive]], atol=1e-3)
        assert not np.asarray(target["box_target"][i])[~positive].any()
    marked = np.asarray(target["marked"])
    whole = boxes.match(batch["boxes_px"][0], anchors, threshold=0.35, forced_threshold=0.2)
    np.testing.assert_array_equal(marked[0], whole.positive & (whole.face == 0))
    assert marked[0].any() and not marked[1:].any()
    points = boxes.decode_points(target["landmark_target"][0], anchors)[marked[0]]
    want = np.broadcast_to(batch["landmarks_px"][0, 0], points.shape)
    np.testing.assert_allclose(points, want, atol=1e-3)
    assert all(np.isfinite(value).all() for name, value in target.items() if "target" in name)


def smooth_l1(error):
    error = np.abs(error)
    return np.where(error < 1, error**2 / 2, error - 0.5)


def loss_by_loops(outputs, target, i):
    """One image, anchor by anchor."""
    logits = np.asarray(outputs["logits"][i], np.float64)
    entropy = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
    positive = np.flatnonzero(target["positive"][i])
    negative = np.flatnonzero(~np.asarray(target["positive"][i]))
    faces = max(len(positive), 1)
    hardest = sorted(entropy[negative, 0], reverse=True)[: RULES.negatives * faces]
    parts = {"class": (entropy[positive, 1].sum() + sum(hardest)) / faces}
    for name, wanted, counted in (
        ("boxes", "box_target", positive),
        ("landmarks", "landmark_target", np.flatnonzero(target["marked"][i])),
    ):
        error = smooth_l1(np.asarray(outputs[name][i] - target[wanted][i])[counted])
        parts[name] = error.sum() / max(len(counted), 1)
    return parts["class"] + RULES.box_weight * parts["boxes"] + parts["landmarks"], parts


def test_the_loss_is_what_loops_add_up(batch, outputs):
    target = prepared(batch)
    loss, parts = loss_of(outputs, target)
    for i in range(3):
        want, want_parts = loss_by_loops(outputs, target, i)
        assert loss[i] == pytest.approx(want, rel=1e-4)
        assert parts["class"][i] == pytest.approx(want_parts["class"], rel=1e-4)
    assert parts["landmarks"][0] > 0 and parts["landmarks"][1] == 0
    assert parts["class"][2] > 0 == parts["box"][2]


def test_a_detector_without_landmarks_has_no_loss_for_them(batch, outputs):
    target = prepared(batch)
    loss, parts = loss_of(outputs, target)
    del outputs["landmarks"]
    without, fewer = loss_of(outputs, target)
    assert fewer.keys() == {"class", "box"}
    np.testing.assert_allclose(without, loss - parts["landmarks"], rtol=1e-5)


def test_only_the_hardest_negatives_and_the_faces_have_gradients(batch, outputs):
    target = prepared(batch)
    gradient = jax.grad(lambda outputs: loss_of(outputs, target)[0].sum())(outputs)
    assert all(np.isfinite(value).all() for value in gradient.values())
    positive, marked = np.asarray(target["positive"]), np.asarray(target["marked"])

    def moved(name):
        return np.abs(np.asarray(gradient[name])).max(axis=2) > 0

    np.testing.assert_array_equal(moved("boxes"), positive)
    np.testing.assert_array_equal(moved("landmarks"), marked)
    trained = moved("logits")
    assert trained[positive].all()
    negatives = (trained & ~positive).sum(axis=1)
    assert negatives.tolist() == [2 * max(n, 1) for n in positive.sum(axis=1)]


def test_exact_outputs_have_no_loss_and_full_scores(batch):
    target = prepared(batch)
    sure = 40 * jnp.stack([~target["positive"], target["positive"]], axis=-1).astype(jnp.float32)
    exact = {
        "boxes": target["box_target"],
        "landmarks": target["landmark_target"],
        "logits": sure,
    }
    assert np.abs(loss_of(exact, target)[0]).max() < 1e-6
    scores = {name: metric.compute() for name, metric in MADE.metrics(exact, target).items()}
    assert scores["recall"] == 1 and scores["iou"] == pytest.approx(1, abs=1e-5)
    wrong = {**exact, "logits": sure[..., ::-1], "boxes": exact["boxes"] + 1e3}
    wrong["boxes"] = wrong["boxes"].at[..., 2:].set(0)
    scores = {name: metric.compute() for name, metric in MADE.metrics(wrong, target).items()}
    assert scores == {"recall": 0, "iou": 0}


@pytest.mark.parametrize(
    ("network", "levels", "rules", "size"),
    [
        (retinaface_edge(), boxes.RETINAFACE_EDGE, task.RETINAFACE, (64, 64)),
        (LightSSD(), boxes.LIGHT_SSD300, task.SSD, (300, 300)),
        (SSD300(), boxes.SSD300, task.SSD, (300, 300)),
    ],
    ids=["retinaface", "light ssd", "ssd"],
)
def test_every_detector_takes_a_training_step(network, levels, rules, size):
    """On shapes alone."""
    how = task.detection_task(
        levels, rules, network_input=network_input, augmentation=task.Augmentation()
    )
    faces, landmarks = np.zeros((2, 3, 4)), np.zeros((2, 3, 5, 2))
    batch = batch_of(faces, landmarks, np.zeros((2, *size, 3), np.uint8))
    batch["index"] = jnp.arange(2)

    def step(key, batch):
        variables = network.init(key, jnp.zeros((1, *size, 3)), train=False)
        state = start({"batch_stats": {}, **variables}, optax.identity())
        after, metrics = train_step(
            state, batch, key, jnp.float32(1), network=network, task=how, tx=optax.identity()
        )
        return state, after, metrics

    before, after, metrics = jax.eval_shape(step, jax.random.key(0), batch)
    assert before == after
    assert {"loss", "class", "box", "gradient_norm"} <= metrics.keys()
    assert ("landmarks" in metrics) == (rules == task.RETINAFACE)


# augmentation

change = functools.partial(jax.jit, static_argnames="how")(task.augment)


def marked_face(rng, size):
    """An image with one face: black but for its landmarks, pixels of 50, 60, ..., 90."""
    places = rng.permutation(8 * 8)[:5]
    x, y = 10 + places % 8, 12 + places // 8
    image = np.zeros((*size, 3), np.float32)
    image[y, x] = np.arange(50, 100, 10)[:, None]
    face = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    return image, np.float32([face, NO_BOX]), np.float32([np.stack([x, y], 1) + 0.5, NO_POINTS])


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_moves_image_box_and_landmarks_together(seed):
    image, faces, landmarks = marked_face(np.random.default_rng(seed), (32, 32))
    how = task.Augmentation(quarter_turns=True, scale=(1.0, 1.0), contrast=0.0)
    seen, box, points = change(image, faces, landmarks, jax.random.key(seed), how=how)
    x, y = np.floor(np.asarray(points[0])).astype(int).T
    read = np.rint(np.asarray(seen)[y, x, 0] / 10) * 10
    straight, mirrored = [50, 60, 70, 80, 90], [60, 50, 70, 90, 80]
    assert read.tolist() in (straight, mirrored)
    np.testing.assert_allclose(box[0], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1e-4)
    assert np.isnan(box[1]).all() and np.isnan(points[1]).all()


def test_scaling_keeps_the_places_of_image_box_and_landmarks():
    size = (64, 96)
    rows, columns = np.mgrid[: size[0], : size[1]]
    bright = (rows >= 20) & (rows < 36) & (columns >= 30) & (columns < 54)
    image = np.repeat(100.0 * bright[..., None], 3, axis=2).astype(np.float32)
    face = np.float32([[30, 20, 54, 36]])
    points = np.float32([[[30, 20], [54, 20], [42, 28], [30, 36], [54, 36]]])
    how = task.Augmentation(mirror=False, scale=(0.5, 1.8), contrast=0.0)
    widths = []
    for seed in range(8):
        seen, box, moved = change(image, face, points, jax.random.key(seed), how=how)
        if np.isnan(box).any():
            continue
        left, top, right, bottom = box[0]
        inside = np.asarray(seen)[..., 0]
        area = (right - left) * (bottom - top)
        assert inside.sum() / 100 == pytest.approx(float(area), rel=0.05)
        assert (inside * (np.arange(96) + 0.5)[None]).sum() / inside.sum() == pytest.approx(
            float(left + right) / 2, abs=0.6
        )
        np.testing.assert_allclose(moved[0, [0, 4]].ravel().clip(0), box[0], atol=32)
        widths.append(float(moved[0, 4, 0] - moved[0, 0, 0]))
    assert min(widths) < 20 and max(widths) > 30


def test_a_face_whose_centre_is_lost_is_missing_and_others_are_cut():
    image = np.zeros((32, 32, 3), np.float32)
    faces = np.float32([[-10, 4, 14, 12], [-10, 4, 8, 12], [4, 20, 12, 40]])
    how = task.Augmentation(mirror=False, scale=(1.0, 1.0), contrast=0.0)
    points = np.ones((3, 5, 2), np.float32)
    _, box, points = change(image, faces, points, jax.random.key(0), how=how)
    np.testing.assert_allclose(box, [[0, 4, 14, 12], NO_BOX, [4, 20, 12, 32]], atol=1e-5)
    assert np.isfinite(points).all((1, 2)).tolist() == [True, False, True]


def test_training_augments_and_evaluation_does_not(batch):
    batch["image"] = batch["image"].at[:, 4:8, 4:8].set(200)
    how = made(task.Augmentation())
    still = prepared(batch, how, train=False)
    np.testing.assert_array_equal(still["input"], as_input(batch["image"]))
    changed = prepared(batch, how, train=True)
    assert np.abs(changed["input"] - still["input"]).max() > 0.1
    assert changed["input"].shape == still["input"].shape
    assert all(np.isfinite(value).all() for name, value in changed.items() if "target" in name)


# average precision


def precision_by_thresholds(found, true, iou_threshold):
    """Brute force: all precisions and recalls, each from the boxes above a score alone."""
    points = []
    for threshold in sorted({float(s) for _, scores in found for s in scores}):
        right = number = 0
        for (box, scores), faces in zip(found, true, strict=True):
            taken = set()
            for i in sorted(np.flatnonzero(scores >= threshold), key=lambda i, s=scores: -s[i]):
                number += 1
                overlaps = [float(boxes.iou(box[i : i + 1], f[None], np)[0, 0]) for f in faces]
                if overlaps and max(overlaps) >= iou_threshold:
                    best = overlaps.index(max(overlaps))
                    right += best not in taken
                    taken.add(best)
        points.append((right / sum(map(len, true)), right / number))
    total, reached = 0.0, 0.0
    for recall in sorted({recall for recall, _ in points}):
        total += (recall - reached) * max(p for r, p in points if r >= recall)
        reached = recall
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
def test_average_precision_is_the_area_under_the_curve(seed, iou_threshold):
    rng = np.random.default_rng(seed)

    def drawn(count):
        low = rng.uniform(0, 20, (count, 2))
        return np.concatenate([low, low + rng.uniform(5, 15, (count, 2))], 1).astype(np.float32)

    true = [drawn(count) for count in (3, 0, 2, 4)]
    found = []
    for faces in true:
        near = faces + rng.normal(0, 1.5, faces.shape).astype(np.float32)
        both = np.concatenate([near, faces[:1], drawn(3)])
        found.append((both, rng.integers(1, 9, len(both)) / 10))
    want = precision_by_thresholds(found, true, iou_threshold)
    got = task.average_precision(found, true, iou_threshold=iou_threshold)
    assert 0 < got < 1 and got == pytest.approx(want)


def test_average_precision_of_the_extremes():
    face, nothing = np.float32([[0, 0, 4, 4]]), np.zeros((0, 4), np.float32)
    sure, no_score = np.ones(1), np.zeros(0)
    assert task.average_precision([(face, sure)], [face]) == 1
    assert task.average_precision([(face + 9, sure)], [face]) == 0
    assert task.average_precision([(nothing, no_score)], [face]) == 0
    assert np.isnan(task.average_precision([(face, sure)], [nothing]))
    twice = np.concatenate([face, face])
    assert task.average_precision([(twice, np.ones(2))], [face]) == pytest.approx(0.5)
    assert task.average_precision([(twice, np.float32([0.9, 0.8]))], [face]) == 1
