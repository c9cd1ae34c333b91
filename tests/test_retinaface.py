"""RetinaFace: the published counts, names and arithmetic, and faces found in photographs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from jaxbed.codecs import boxes
from jaxbed.efficiency.count import count, count_params
from jaxbed.errors import InputError
from jaxbed.models.mobilenet import MobileNet
from jaxbed.models.resnet import Backbone, Bottleneck
from jaxbed.models.retinaface import (
    MEAN_BGR,
    RetinaFace,
    network_input,
    retinaface_edge,
    retinaface_mobilenet,
    retinaface_resnet50,
)
from jaxbed.tasks.face_detector import QUARTER_TURNS, boxes_turned_back, detect, padded
from jaxbed.training.state import quick_compilation
from jaxbed.weights.retinaface import from_retinaface, load_retinaface, retinaface_name

SIZE = (75, 66)  # odd at every level
TINY = {
    "leaky": RetinaFace(functools.partial(MobileNet, width=2, slope=0.1), 8, slope=0.1),
    "plain": RetinaFace(functools.partial(MobileNet, width=2), 8),
}


def image(height, width):
    return jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


def filled(network, rng):
    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan_in = leaf.size / leaf.shape[-1] if path[-1].key == "kernel" else 4
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, image(*SIZE)))


def published(variables):
    """The variables as tensors of the published layout, restated."""
    tensors = {}
    for path, value in flatten_dict(variables).items():
        axes = (3, 2, 0, 1) if value.ndim == 4 else range(value.ndim)
        tensors[retinaface_name(path)] = np.ascontiguousarray(value.transpose(axes))
    return tensors


# counts


@pytest.mark.parametrize(
    ("network", "params", "nominal", "exact"),
    [
        (retinaface_mobilenet(), 426_608, 981_145_600, 968_249_512),
        (retinaface_edge(), 426_608, 981_145_600, 968_249_512),
        (retinaface_resnet50(), 27_293_600, 44_264_652_800, 43_658_222_336),
    ],
    ids=["mobilenet", "edge", "resnet50"],
)
def test_networks_have_the_published_parameters_macs_and_anchors(network, params, nominal, exact):
    example = image(640, 640)
    variables = shapes_of(network, example)
    counted = count(lambda v, x: network.apply(v, x, train=False), variables, example)
    assert count_params(variables["params"]) == params
    assert (counted.macs_nominal, counted.macs_exact) == (nominal, exact)
    outputs = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, example)
    assert {name: value.shape for name, value in outputs.items()} == {
        "boxes": (1, 16_800, 4),
        "landmarks": (1, 16_800, 10),
        "logits": (1, 16_800, 2),
    }


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 1), SIZE])
def test_there_is_an_output_for_every_anchor_at_any_size(size):
    network, example = TINY["plain"], image(*size)
    outputs = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=False), shapes_of(network, example), example
    )
    for levels in (boxes.RETINAFACE, boxes.RETINAFACE_EDGE):
        assert len(boxes.anchors_of(levels, size)) == outputs["boxes"].shape[1]


# the arithmetic: the network in NumPy, NCHW, from published tensors alone


def conv(t, name, x, stride=1):
    kernel = t[f"{name}.weight"]
    pad = kernel.shape[-1] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    seen = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    if kernel.shape[1] == 1 and x.shape[1] > 1:
        return np.einsum("nchwij,cij->nchw", seen, kernel[:, 0])
    y = np.einsum("nchwij,ocij->nohw", seen, kernel, optimize=True)
    return y + t[f"{name}.bias"].reshape(1, -1, 1, 1) if f"{name}.bias" in t else y


def conv_norm(t, conv_name, norm_name, x, stride=1, slope=None):
    mean, var, scale, bias = (
        t[f"{norm_name}.{part}"].reshape(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    y = (conv(t, conv_name, x, stride) - mean) / np.sqrt(var + 1e-5) * scale + bias
    return y if slope is None else np.where(y > 0, y, slope * y)


def retinaface(t, x, slope):
    levels = []
    for stage, strides in ((1, (2, 1, 2, 1, 2, 1)), (2, (2, 1, 1, 1, 1, 1)), (3, (2, 1))):
        for i, stride in enumerate(strides):
            name = f"body.stage{stage}.{i}"
            x = conv_norm(t, f"{name}.0", f"{name}.1", x, stride, slope)
            if (stage, i) != (1, 0):
                x = conv_norm(t, f"{name}.3", f"{name}.4", x, 1, slope)
        levels.append(x)

    def layer(name, x, slope=None):
        return conv_norm(t, f"{name}.0", f"{name}.1", x, 1, slope)

    p3, p4, p5 = (layer(f"fpn.output{i + 1}", level, slope) for i, level in enumerate(levels))

    def enlarged(small, like):
        rows, columns = (
            np.floor(np.arange(n) * (m / n)).astype(int)
            for n, m in zip(like.shape[2:], small.shape[2:], strict=True)
        )
        return small[:, :, rows][..., columns]

    p4 = layer("fpn.merge2", p4 + enlarged(p5, p4), slope)
    p3 = layer("fpn.merge1", p3 + enlarged(p4, p3), slope)
    rows = {"ClassHead": [], "BboxHead": [], "LandmarkHead": []}
    for i, level in enumerate((p3, p4, p5)):
        name = f"ssh{i + 1}"
        shared = layer(f"{name}.conv5X5_1", level, slope)
        seen = [layer(f"{name}.conv3X3", level), layer(f"{name}.conv5X5_2", shared)]
        seen.append(layer(f"{name}.conv7x7_3", layer(f"{name}.conv7X7_2", shared, slope)))
        seen = np.maximum(np.concatenate(seen, axis=1), 0)
        for head, values in rows.items():
            y = conv(t, f"{head}.{i}.conv1x1", seen)
            values.append(y.transpose(0, 2, 3, 1).reshape(len(y), -1, y.shape[1] // 2))
    logits, found, landmarks = (np.concatenate(values, axis=1) for values in rows.values())
    return {"logits": logits, "boxes": found, "landmarks": landmarks}


@pytest.mark.parametrize("kind", TINY)
def test_the_network_computes_what_the_published_tensors_mean(kind, rng):
    network = TINY[kind]
    tensors = published(filled(network, rng))
    start = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes_of(network, image(*SIZE)))
    start = jax.tree.map(np.float32, start)
    wrapped = {f"module.{name}": value for name, value in tensors.items()}
    variables, loaded = from_retinaface(wrapped, start, source="drawn")
    assert sorted(loaded.taken) == sorted(tensors) and not loaded.dropped + loaded.fresh
    x = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    got = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
    slope = {"leaky": 0.1, "plain": 0.0}[kind]
    want = retinaface(tensors, x.transpose(0, 3, 1, 2).astype(np.float64), slope)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-3 * np.abs(value).max())


def test_training_changes_every_statistic_and_reaches_every_parameter(rng):
    network = TINY["leaky"]
    x = jnp.asarray(rng.normal(size=(2, *SIZE, 3)), jnp.float32)
    variables = filled(network, rng)

    @functools.partial(jax.jit, compiler_options=quick_compilation())
    def gradients(params):
        def loss(params):
            outputs, updates = network.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return sum(jnp.sum(value**2) for value in outputs.values()), updates["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    found, batch_stats = gradients(variables["params"])
    for path, gradient in flatten_dict(found).items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path
    kept = jax.tree.map(np.array_equal, batch_stats, variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))


def test_the_input_is_blue_green_red_without_the_mean():
    seen = network_input(jnp.array([[[[255, 0, 10]]]], jnp.uint8))
    np.testing.assert_array_equal(seen, [[[[10 - 104, -117, 255 - 123]]]])
    mean = jnp.asarray(MEAN_BGR[::-1], jnp.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(network_input(mean), np.zeros((1, 1, 1, 3)))


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32():
    network = retinaface_edge(dtype=jnp.bfloat16)
    outputs, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=True, capture_intermediates=True),
        shapes_of(network, image(64, 64)),
        image(64, 64),
    )
    inside = updates.pop("intermediates")
    del inside["__call__"]
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, updates))} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(inside)} == {jnp.dtype(jnp.bfloat16)}


# weights


def test_weights_of_the_thick_network_have_torchvisions_names():
    small = RetinaFace(functools.partial(Backbone, Bottleneck, (1, 1, 1, 1), width=4), 8)
    names = {retinaface_name(path) for path in flatten_dict(shapes_of(small, image(64, 64)))}
    assert {
        "body.conv1.weight",
        "body.bn1.running_var",
        "body.layer1.0.downsample.0.weight",
        "body.layer4.0.bn3.weight",
        "fpn.output3.1.running_mean",
        "ssh3.conv7X7_2.0.weight",
        "ssh3.conv7x7_3.1.bias",
        "LandmarkHead.2.conv1x1.bias",
    } <= names


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("fpn.merge1.0.weight"), "missing: fpn.merge1"),
        (lambda t: t.update({"fpn.merge3.0.weight": np.ones(3)}), "without a place: fpn.merge3"),
        (lambda t: t.update({"ssh1.conv3X3.1.bias": np.ones(5)}), "other shapes: ssh1.conv3x3"),
        (lambda t: t["BboxHead.0.conv1x1.bias"].fill(np.nan), "not finite in boxes_head0"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, told, rng):
    variables = filled(TINY["plain"], rng)
    tensors = published(variables)
    change(tensors)
    with pytest.raises(InputError, match=f"drawn .*{told}"):
        from_retinaface(tensors, variables, source="drawn")


@pytest.fixture(scope="module")
def detector(raw_data):
    """`detect` with the published weights of the network for small devices."""
    network = retinaface_edge()
    start = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(network, image(64, 64))
    )
    path = raw_data / "weights" / "retinaface_mobilenet0.25_Final.safetensors"
    variables, loaded = load_retinaface(path, start)
    assert (len(loaded.taken), len(loaded.dropped), loaded.fresh) == (253, 47, ())
    assert all(name.endswith("num_batches_tracked") for name in loaded.dropped)
    return functools.partial(
        detect,
        variables,
        network=network,
        network_input=network_input,
        levels=boxes.RETINAFACE_EDGE,
    )


def photograph(path, size=(512, 512)):
    fill = tuple(int(value) for value in MEAN_BGR[::-1])
    return padded(np.asarray(Image.open(path).convert("RGB")), size, fill)


def test_published_weights_find_every_face_of_the_photographs(detector, raw_data):
    """At original size; room is added to the right and below, so that one program does for all."""
    true = {}
    for face in json.loads((raw_data / "faces" / "boxes_landmarks.json").read_text()):
        left, top, width, height = face["box_ltwh"]
        eyes = [np.mean(face["landmarks68"][i : i + 6], axis=0) for i in (36, 42)]
        box = [left, top, left + width, top + height]
        true.setdefault(face["file"], []).append((np.float32(box), eyes))
    assert sum(map(len, true.values())) == 43

    scores, eye_errors, others = [], [], 0
    for name, faces in true.items():
        found = jax.device_get(detector(photograph(raw_data / "faces" / name)))
        sure = found.scores > 0.5
        overlap = boxes.iou(np.stack([box for box, _ in faces]), found.boxes_px[sure], np)
        best = overlap.argmax(axis=1)
        assert (overlap.max(axis=1) > 0.35).all(), name
        assert len(set(best)) == len(faces), name
        others += sure.sum() - len(faces)
        scores += list(found.scores[best])
        for i, (box, eyes) in zip(best, faces, strict=True):
            errors = np.linalg.norm(found.landmarks_px[i, :2] - np.stack(eyes), axis=1)
            eye_errors += list(errors / (box[2] - box[0]))
    assert min(scores) > 0.95
    assert others <= 5  # small faces that nobody annotated
    assert np.median(eye_errors) < 0.08


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_published_weights_find_a_face_at_every_quarter_turn(detector, raw_data, turns):
    portrait = photograph(raw_data / "faces" / "astronaut.png")
    lying = np.ascontiguousarray(np.rot90(portrait, -turns))
    found = jax.device_get(detector(lying, angles_deg=QUARTER_TURNS))
    assert found.scores[0] > 0.99 and found.scores[1] == 0
    assert found.angles_deg[0] == 90 * turns
    upright = boxes_turned_back(jnp.asarray(found.boxes_px[:1]), -90.0 * turns, (512, 512))
    np.testing.assert_allclose(upright, [[179, 55, 270, 178]], atol=2)
