"""Published weights: torchvision's layout and arithmetic stated again, and what does not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from jaxbed.errors import InputError
from jaxbed.models.densenet import DenseNet
from jaxbed.models.resnet import Backbone, BasicBlock, Bottleneck, ResNet, layers_of, resnet18
from jaxbed.models.sleep_posture import DLModel, PostureOnly
from jaxbed.weights.state_dict import write_state_dict
from jaxbed.weights.torchvision import from_torchvision, load_torchvision, to_torchvision

SIZE = (33, 26)

# The layout: names and shapes of torchvision's state dicts, in their order.


def norm_shapes(name, channels):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def resnet_shapes(*, bottleneck, depths, width, channels, classes):
    shapes = {"conv1.weight": (width, channels, 7, 7), **norm_shapes("bn1", width)}
    inputs = width
    for stage, depth in enumerate(depths):
        few = width * 2**stage
        many = 4 * few if bottleneck else few
        for i in range(depth):
            name = f"layer{stage + 1}.{i}"
            if bottleneck:
                convs = [(few, inputs, 1), (few, few, 3), (many, few, 1)]
            else:
                convs = [(few, inputs, 3), (few, few, 3)]
            for n, (outs, ins, k) in enumerate(convs, start=1):
                shapes[f"{name}.conv{n}.weight"] = (outs, ins, k, k)
                shapes |= norm_shapes(f"{name}.bn{n}", outs)
            if i == 0 and (stage > 0 or inputs != many):
                shapes[f"{name}.downsample.0.weight"] = (many, inputs, 1, 1)
                shapes |= norm_shapes(f"{name}.downsample.1", many)
            inputs = many
    return shapes | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def densenet_shapes(*, depths, width, channels, classes):
    growth, inputs = width // 2, width
    shapes = {"features.conv0.weight": (width, channels, 7, 7)}
    shapes |= norm_shapes("features.norm0", width)
    for block, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{i}"
            shapes |= norm_shapes(f"{name}.norm1", inputs)
            shapes[f"{name}.conv1.weight"] = (4 * growth, inputs, 1, 1)
            shapes |= norm_shapes(f"{name}.norm2", 4 * growth)
            shapes[f"{name}.conv2.weight"] = (growth, 4 * growth, 3, 3)
            inputs += growth
        if block < len(depths):
            name = f"features.transition{block}"
            shapes |= norm_shapes(f"{name}.norm", inputs)
            shapes[f"{name}.conv.weight"] = (inputs // 2, inputs, 1, 1)
            inputs //= 2
    shapes |= norm_shapes(f"features.norm{len(depths) + 1}", inputs)
    return shapes | {"classifier.weight": (classes, inputs), "classifier.bias": (classes,)}


def drawn(shapes, rng):
    def draw(name, shape):
        if name.endswith("num_batches_tracked"):
            return np.array(7, np.int64)
        if name.endswith("running_var"):
            return rng.uniform(0.5, 2, shape).astype(np.float32)
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 4
        return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


# The arithmetic: the same networks in NumPy, NCHW, from the tensors alone.


def conv(t, name, x, stride=1):
    kernel = t[f"{name}.weight"]
    pad = kernel.shape[-1] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    seen = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", seen, kernel, optimize=True)


def norm(t, name, x):
    mean, var, scale, bias = (
        t[f"{name}.{part}"].reshape(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def relu(x):
    return np.maximum(x, 0)


def pool(x):
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-1, -2))


def resnet(t, x):
    bottleneck = "layer1.0.conv3.weight" in t
    x = pool(relu(norm(t, "bn1", conv(t, "conv1", x, 2))))
    for name in dict.fromkeys(name[:8] for name in t if name.startswith("layer")):
        stride = 2 if name[5] != "1" and name.endswith(".0") else 1
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        y = x
        for n, s in enumerate(strides, start=1):
            y = norm(t, f"{name}.bn{n}", conv(t, f"{name}.conv{n}", y, s))
            y = relu(y) if n < len(strides) else y
        if f"{name}.downsample.0.weight" in t:
            x = norm(t, f"{name}.downsample.1", conv(t, f"{name}.downsample.0", x, stride))
        x = relu(x + y)
    return x.mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"]


def densenet(t, x):
    depths = [2, 1]
    x = pool(relu(norm(t, "features.norm0", conv(t, "features.conv0", x, 2))))
    for block, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{i}"
            y = conv(t, f"{name}.conv1", relu(norm(t, f"{name}.norm1", x)))
            y = conv(t, f"{name}.conv2", relu(norm(t, f"{name}.norm2", y)))
            x = np.concatenate([x, y], axis=1)
        if block < len(depths):
            name = f"features.transition{block}"
            x = conv(t, f"{name}.conv", relu(norm(t, f"{name}.norm", x)))
            x = sliding_window_view(x, (2, 2), axis=(2, 3))[:, :, ::2, ::2].mean((-1, -2))
    x = relu(norm(t, f"features.norm{len(depths) + 1}", x))
    return x.mean((2, 3)) @ t["classifier.weight"].T + t["classifier.bias"]


TINY = {"depths": (2, 1), "width": 4, "channels": 3, "classes": 5}
BASIC, BOTTLENECK = (resnet_shapes(bottleneck=b, **TINY) for b in (False, True))
DENSE = densenet_shapes(**TINY)


def network_of(shapes, **fields):
    fields = {"outputs": 5, "width": 4} | fields
    if shapes is DENSE:
        return DenseNet((2, 1), **fields)
    return ResNet(Bottleneck if shapes is BOTTLENECK else BasicBlock, (2, 1), **fields)


def initial(network, channels=3, value=0.5):
    """Returns variables of the right shapes, cheap to make and unlike any loaded value."""
    x = jax.ShapeDtypeStruct((1, *SIZE, channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf.dtype.type(value), leaf.shape), shapes)


def run(network, variables, x):
    return jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, jnp.asarray(x))


def assert_close(got, want):
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("shapes", "oracle"),
    [(BASIC, resnet), (BOTTLENECK, resnet), (DENSE, densenet)],
    ids=["basic", "bottleneck", "dense"],
)
def test_a_loaded_network_computes_what_the_tensors_say(shapes, oracle, rng):
    tensors = drawn(shapes, rng)
    network = network_of(shapes)
    variables, loaded = from_torchvision(tensors, initial(network))
    assert set(loaded.taken) | set(loaded.dropped) == set(tensors)
    assert {name.rpartition(".")[2] for name in loaded.dropped} == {"num_batches_tracked"}
    assert not loaded.fresh and not loaded.summed
    x = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    want = oracle(tensors, x.transpose(0, 3, 1, 2))
    assert_close(run(network, variables, x)["logits"], want)


@pytest.mark.parametrize("shapes", [BASIC, DENSE], ids=["residual", "dense"])
def test_a_grey_image_sees_what_three_equal_channels_see(shapes, rng):
    tensors = drawn(shapes, rng)
    network = network_of(shapes)
    colour, _ = from_torchvision(tensors, initial(network))
    grey, loaded = from_torchvision(tensors, initial(network, channels=1))
    assert len(loaded.summed) == 1 and "summed over the colours" in str(loaded)
    x = rng.normal(size=(1, *SIZE, 1)).astype(np.float32)
    want = run(network, colour, x.repeat(3, axis=-1))["logits"]
    assert_close(run(network, grey, x)["logits"], want)


def test_both_tasks_start_from_the_same_layers(rng):
    layout = {"bottleneck": False, "depths": (2, 2, 2, 2), "width": 4}
    tensors = drawn(resnet_shapes(**layout, channels=3, classes=7), rng)
    network = DLModel(width=4, attention=False)
    start = initial(network, channels=1)
    variables, loaded = from_torchvision(tensors, start, replace_head=True)
    assert set(loaded.dropped) >= {"fc.weight", "fc.bias"}
    assert set(loaded.fresh) == {
        f"params/{task}/fc/{leaf}" for task in ("posture", "blanket") for leaf in ("kernel", "bias")
    }
    # Heads of 0.5 x the sum of all features + 0.5: the oracle with such a head.
    x = rng.normal(size=(2, *SIZE, 1)).astype(np.float32)
    tensors["fc.weight"] = np.full((5, 32), 0.5, np.float32)
    tensors["fc.bias"] = np.full(5, 0.5, np.float32)
    want = resnet(tensors, x.repeat(3, axis=-1).transpose(0, 3, 1, 2))
    got = run(network, variables, x)
    assert_close(got["posture"], want[:, :4])
    assert_close(got["blanket"], want[:, 4])


@pytest.mark.parametrize("network", [DLModel(width=4), resnet18(width=4, outputs=5, cbam=True)])
def test_attention_keeps_its_values_where_the_tensors_have_none(network, rng):
    layout = {"bottleneck": False, "depths": (2, 2, 2, 2), "width": 4}
    tensors = drawn(resnet_shapes(**layout, channels=1, classes=5), rng)
    start = initial(network, channels=1)
    variables, loaded = from_torchvision(tensors, start, replace_head=True)
    assert any("cbam" in path for path in loaded.fresh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.all(leaf == 0.5) == (name in loaded.fresh), name


def test_attention_is_loaded_where_the_tensors_have_it(rng):
    network = ResNet(BasicBlock, (1,), outputs=5, width=4, cbam=True)
    source = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), initial(network))
    tensors = to_torchvision(source)
    assert tensors["layer1.0.cbam.ChannelGate.mlp.1.weight"].shape == (4, 4)
    loaded, _ = from_torchvision(tensors, initial(network))
    jax.tree.map(np.testing.assert_array_equal, loaded, source)
    del tensors["layer1.0.cbam.SpatialGate.spatial.bn.bias"]
    with pytest.raises(InputError, match=r"missing: layer1\.0\.cbam\.SpatialGate\.spatial\.bn"):
        from_torchvision(tensors, initial(network))


@pytest.mark.parametrize("shapes", [BASIC, BOTTLENECK, DENSE], ids=["basic", "bottle", "dense"])
def test_variables_survive_the_way_there_and_back(shapes, rng, tmp_path):
    tensors = drawn(shapes, rng)
    counters = {name for name in tensors if name.endswith("num_batches_tracked")}
    network = PostureOnly(network_of(shapes))
    write_state_dict(tmp_path / "a.safetensors", tensors)
    variables, _ = load_torchvision(tmp_path / "a.safetensors", initial(network))
    back = to_torchvision(variables)
    assert set(back) == set(tensors) - counters
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_two_branches_have_no_place_in_one_layout():
    with pytest.raises(ValueError, match="more than one branch"):
        to_torchvision(initial(DLModel(width=4), channels=1))


def test_keys_of_old_files_are_understood(rng):
    tensors = drawn(DENSE, rng)
    old = {
        "module." + name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }  # fmt: skip
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in old
    network = network_of(DENSE)
    want, _ = from_torchvision(tensors, initial(network))
    got, _ = from_torchvision(old, initial(network))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_backbone_without_a_head_drops_that_of_the_tensors(rng):
    tensors = drawn(BASIC, rng)
    backbone = Backbone(BasicBlock, (2, 1), width=4)
    with pytest.raises(InputError, match=r"without a place: fc\.weight \(5, 8\), fc\.bias \(5,\)"):
        from_torchvision(tensors, initial(backbone))
    variables, loaded = from_torchvision(tensors, initial(backbone), replace_head=True)
    assert not loaded.fresh
    whole, _ = from_torchvision(tensors, initial(network_of(BASIC)))
    want = {name: whole[name]["backbone"] for name in whole}
    jax.tree.map(np.testing.assert_array_equal, variables, want)


def test_a_stored_type_follows_the_network(rng):
    tensors = {
        name: tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
        for name, tensor in drawn(BASIC, rng).items()
    }
    network = network_of(BASIC, param_dtype=jnp.bfloat16)
    variables, _ = from_torchvision(tensors, initial(network))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {
        jnp.dtype(jnp.bfloat16)
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["batch_stats"])} == {
        jnp.dtype(jnp.float32)
    }


# What the layouts must be, where the reference lies beside the recordings.


@pytest.fixture(scope="module")
def layouts(raw_data):
    folder = raw_data.parent / "reference" / "state_dicts"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: no published layouts to compare with")

    def read(name):
        content = json.loads((folder / f"{name}.json").read_text())
        return {name: tuple(shape) for name, shape in content.items()}

    return read


def shapes_without_counters(shapes):
    return {n: shape for n, shape in shapes.items() if not n.endswith("num_batches_tracked")}


FULL = {
    "torchvision_resnet18_1ch_4cls": (
        resnet18(outputs=4),
        resnet_shapes(bottleneck=False, depths=(2, 2, 2, 2), width=64, channels=1, classes=4),
    ),
    "torchvision_densenet121_3ch_4cls": (
        DenseNet(outputs=4),
        densenet_shapes(depths=(6, 12, 24, 16), width=64, channels=3, classes=4),
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_networks_have_the_names_and_shapes_stated_here(name):
    network, stated = FULL[name]
    channels = 1 if "1ch" in name else 3
    ours = to_torchvision(initial(network, channels))
    assert {n: tensor.shape for n, tensor in ours.items()} == shapes_without_counters(stated)


@pytest.mark.parametrize("name", FULL)
def test_the_names_and_shapes_stated_here_are_the_published_ones(name, layouts):
    _, stated = FULL[name]
    assert layouts(name) == shapes_without_counters(stated)


def test_attention_has_the_names_and_shapes_of_its_authors(layouts):
    module = layers_of(resnet18(), train=False, attention=True).attention()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 7, 7, 256)))
    ours = to_torchvision(jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))
    assert {name: tensor.shape for name, tensor in ours.items()} == layouts("cbam_256")


# Tensors that do not fit


def misfit(rng, change):
    tensors = drawn(BASIC, rng)
    change(tensors)
    with pytest.raises(InputError) as caught:
        from_torchvision(tensors, initial(network_of(BASIC)), source="a.safetensors")
    message = str(caught.value)
    assert message.startswith("a.safetensors")
    return message


def test_another_shape_is_told_with_both_shapes(rng):
    message = misfit(rng, lambda t: t.update({"fc.weight": t["fc.weight"][:3]}))
    assert "other shapes: fc.weight (3, 8) for (5, 8)" in message
    assert "replace the head" in message


def test_a_missing_tensor_is_told(rng):
    message = misfit(rng, lambda t: t.pop("layer2.0.downsample.1.running_var"))
    assert "missing: layer2.0.downsample.1.running_var (8,)" in message


def test_tensors_without_a_place_are_told_and_counted(rng):
    message = misfit(rng, lambda t: t.update({f"layer9.{i}": np.zeros(2) for i in range(6)}))
    assert "without a place: layer9.0 (2,), layer9.1 (2,), " in message
    assert message.count("layer9") == 4 and "and 2 more" in message


def test_values_that_are_not_finite_are_refused(rng):
    message = misfit(rng, lambda t: t["bn1.running_mean"].fill(np.nan))
    assert "not finite in bn1.running_mean" in message


def test_a_head_that_fits_one_branch_only_is_refused(rng):
    layout = {"bottleneck": False, "depths": (2, 2, 2, 2), "width": 4}
    for classes in (1, 4):
        tensors = drawn(resnet_shapes(**layout, channels=1, classes=classes), rng)
        with pytest.raises(InputError, match=r"other shapes: .*fc\.weight"):
            from_torchvision(tensors, initial(DLModel(width=4), channels=1))
