"""Every lowering gives the values and gradients of its reference, which is checked by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxbed.ops import forms
from jaxbed.ops.channel_blocks import apart, blocks_in_cache, together
from jaxbed.ops.conv2d import conv_general_dilated
from jaxbed.ops.conv3d import conv3d
from jaxbed.ops.depthwise import depthwise_conv
from jaxbed.ops.fusion import materialized
from jaxbed.ops.gaussian import gaussian_filter, gaussian_window
from jaxbed.ops.resize import resize_bilinear
from jaxbed.ops.transposed_conv import conv_transpose_2x2


def normal(rng, *shape, dtype=jnp.float32):
    return jnp.asarray(rng.normal(size=shape), dtype)


def value_and_gradients(f, arguments, cotangent):
    value, pull_back = jax.vjp(f, *arguments)
    return [value, *pull_back(cotangent.astype(value.dtype))]


def assert_same_value_and_gradients(op, arguments, rng, *, form, tolerance=1e-5):
    """Compares two forms under jit, relative to the largest element of each result."""
    shape = jax.eval_shape(partial(op, form="lax"), *arguments).shape
    cotangent = normal(rng, *shape)
    want, got = (
        jax.jit(partial(value_and_gradients, partial(op, form=name)))(arguments, cotangent)
        for name in ("lax", form)
    )
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())


# convolution


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding", "dilation"),
    [
        ((1, 1, 1, 4), (1, 1, 4, 3), (1, 1), "SAME", (1, 1)),
        ((2, 9, 6, 5), (1, 1, 5, 7), (2, 2), "SAME", (1, 1)),
        ((2, 9, 6, 5), (1, 1, 5, 7), (3, 2), "VALID", (1, 1)),
        ((2, 9, 6, 5), (1, 1, 5, 7), (1, 1), [(1, 1), (0, 2)], (1, 1)),
        ((2, 9, 6, 20), (3, 3, 20, 19), (1, 1), [(1, 1), (1, 1)], (1, 1)),
        ((1, 9, 11, 20), (3, 3, 20, 19), (1, 1), [(3, 3), (3, 3)], (3, 3)),
        ((3, 8, 7, 20), (3, 3, 20, 19), (2, 2), [(1, 1), (1, 1)], (1, 1)),
        ((3, 8, 9, 20), (3, 3, 20, 19), (2, 1), "SAME", (1, 1)),
        ((2, 12, 12, 20), (5, 3, 20, 19), (1, 1), "VALID", (2, 3)),
        ((2, 10, 12, 20), (3, 3, 20, 19), (1, 1), [(4, 0), (3, 5)], (1, 1)),
        ((2, 5, 5, 130), (3, 3, 130, 128), (1, 1), "SAME", (1, 1)),
        ((2, 9, 6, 2), (3, 3, 2, 3), (1, 1), "SAME", (1, 1)),
        ((2, 9, 6, 1), (3, 3, 1, 4), (1, 1), "SAME", (1, 1)),
        ((1, 12, 11, 1), (7, 5, 1, 4), (2, 3), [(3, 3), (2, 1)], (1, 1)),
        ((2, 10, 12, 1), (3, 3, 1, 4), (2, 1), [(4, 0), (3, 5)], (2, 3)),
        ((2, 9, 6, 1), (1, 1, 1, 4), (2, 2), [(1, 0), (0, 1)], (1, 1)),
    ],
)
def test_convolution_by_products_matches_lax(rng, shape, kernel, strides, padding, dilation):
    def op(x, kernel, *, form):
        return conv_general_dilated(
            *(x, kernel, strides, padding),
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            form=form,
        )

    arguments = normal(rng, *shape), normal(rng, *kernel)
    assert_same_value_and_gradients(op, arguments, rng, form="products")


@pytest.mark.parametrize(
    ("window", "strides", "blocks"), [((1, 1), (1, 1), 2), ((1, 1), (2, 3), 6), ((3, 3), (1, 1), 3)]
)
def test_convolution_in_blocks_of_channels_matches_lax(rng, window, strides, blocks):
    x, kernel = normal(rng, 2, 9, 7, 12), normal(rng, *window, 12, 5)

    def op(x, kernel, **choice):
        numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return conv_general_dilated(x, kernel, strides, "SAME", **numbers, **choice)

    want = op(x, kernel, form="lax", blocks=blocks)
    got = jax.jit(partial(op, form="products", blocks=blocks))(x, kernel)
    np.testing.assert_allclose(got, want, atol=1e-5)
    by_block = partial(op, blocks=blocks)
    assert_same_value_and_gradients(by_block, (x, kernel), rng, form="products")


def test_convolutions_that_are_no_plain_image_convolution_are_left_to_lax(rng):
    x, kernel = normal(rng, 2, 7, 4), normal(rng, 3, 2, 6)
    options = {"dimension_numbers": ("NWC", "WIO", "NWC"), "feature_group_count": 2}
    want = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", **options)
    got = conv_general_dilated(x, kernel, (1,), "SAME", **options)
    np.testing.assert_array_equal(got, want)


# depthwise convolution


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((1, 1, 1, 4), 3, 1),
        ((1, 2, 3, 1), 5, 2),
        ((2, 9, 6, 3), 1, 2),
        ((1, 7, 10, 3), 3, 1),
        ((3, 17, 12, 5), 3, 2),
        ((3, 17, 12, 5), 5, 1),
        ((2, 16, 9, 16), 5, 2),
        ((2, 11, 8, 2), 7, 3),
    ],
)
def test_shifted_depthwise_matches_the_grouped_convolution(rng, shape, size, stride):
    arguments = normal(rng, *shape), normal(rng, size, size, 1, shape[-1])
    op = partial(depthwise_conv, stride=stride)
    assert_same_value_and_gradients(op, arguments, rng, form="shift")


@pytest.mark.parametrize(
    ("size", "stride", "blocks"), [(3, 1, 2), (5, 2, 3), (5, 1, 12), (1, 1, 4)]
)
def test_depthwise_in_blocks_of_channels_matches_the_grouped_convolution(rng, size, stride, blocks):
    x, kernel = normal(rng, 2, 9, 7, 12), normal(rng, size, size, 1, 12)
    op = partial(depthwise_conv, stride=stride, blocks=blocks)
    got = jax.jit(partial(op, form="shift"))(x, kernel)
    np.testing.assert_allclose(got, op(x, kernel, form="lax"), atol=1e-5)
    assert_same_value_and_gradients(op, (x, kernel), rng, form="shift")


def test_blocks_of_channels_come_back_in_order(rng):
    x = normal(rng, 2, 3, 12)
    blocks = apart(x, 3)
    np.testing.assert_array_equal(blocks[1], x[..., 4:8])
    np.testing.assert_array_equal(together(blocks), x)


@pytest.mark.parametrize(
    ("size", "channels", "blocks"),
    [(3, 72, 1), (3, 336, 1), (3, 344, 1), (5, 120, 1), (5, 240, 2), (5, 288, 4), (5, 250, 1)],
)
def test_a_block_of_channels_fits_the_cache(size, channels, blocks):
    assert blocks_in_cache(size, channels) == blocks


@pytest.mark.parametrize("form", ["lax", "shift"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_a_windowed_sum_with_the_same_padding_on_both_sides(rng, form, stride):
    x, kernel = rng.normal(size=(1, 6, 8, 2)), rng.normal(size=(5, 5, 1, 2))
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    want = np.array(
        [
            [(padded[0, i : i + 5, j : j + 5] * kernel[:, :, 0]).sum((0, 1)) for j in columns]
            for i in range(0, 6, stride)
            for columns in [range(0, 8, stride)]
        ]
    )
    got = depthwise_conv(jnp.float32(x), jnp.float32(kernel), stride=stride, form=form)
    np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_shifted_depthwise_accumulates_bfloat16_in_float32(rng):
    x = normal(rng, 2, 24, 12, 8, dtype=jnp.bfloat16)
    kernel = normal(rng, 3, 3, 1, 8, dtype=jnp.bfloat16)
    cotangent = normal(rng, 2, 24, 12, 8).astype(jnp.bfloat16)
    shift = partial(depthwise_conv, form="shift")
    exact = partial(depthwise_conv, form="lax")
    got = value_and_gradients(shift, (x, kernel), cotangent)
    want = value_and_gradients(exact, (jnp.float32(x), jnp.float32(kernel)), jnp.float32(cotangent))
    for a, b in zip(want, got, strict=True):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_allclose(jnp.float32(b), a, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("shape", [(4, 4, 1, 3), (3, 5, 1, 3), (3, 3, 1, 2), (3, 3, 3, 3)])
def test_depthwise_refuses_a_kernel_of_another_shape(shape):
    with pytest.raises(ValueError, match="odd k"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


# transposed convolution


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 5, 8, 3), (3, 4, 7, 6)])
@pytest.mark.parametrize("out", [1, 4])
def test_subpixel_matches_the_dilated_convolution(rng, shape, out):
    arguments = normal(rng, *shape), normal(rng, 2, 2, shape[-1], out)
    assert_same_value_and_gradients(conv_transpose_2x2, arguments, rng, form="subpixel")


@pytest.mark.parametrize("form", ["lax", "subpixel"])
def test_each_input_pixel_fills_its_own_two_by_two_block(rng, form):
    x, kernel = normal(rng, 2, 3, 5, 4), normal(rng, 2, 2, 4, 3)
    y = conv_transpose_2x2(x, kernel, form=form)
    for a in (0, 1):
        for b in (0, 1):
            want = np.asarray(x) @ np.asarray(kernel[a, b])
            np.testing.assert_allclose(y[:, a::2, b::2], want, atol=1e-5)


def test_subpixel_follows_bfloat16(rng):
    arguments = (
        normal(rng, 2, 6, 5, 8, dtype=jnp.bfloat16),
        normal(rng, 2, 2, 8, 4, dtype=jnp.bfloat16),
    )
    assert_same_value_and_gradients(
        conv_transpose_2x2, arguments, rng, form="subpixel", tolerance=2e-2
    )


def test_transposed_convolution_refuses_another_window(rng):
    with pytest.raises(ValueError, match="2, 2, 4"):
        conv_transpose_2x2(jnp.zeros((1, 3, 3, 4)), jnp.zeros((3, 3, 4, 2)))


# Gaussian window


@pytest.mark.parametrize("form", ["shift", "band"])
@pytest.mark.parametrize("shape", [(1, 11, 11, 1), (3, 19, 24, 3), (1, 41, 150, 1)])
def test_gaussian_forms_match_the_depthwise_window(rng, form, shape):
    assert_same_value_and_gradients(gaussian_filter, (normal(rng, *shape),), rng, form=form)


@pytest.mark.parametrize("form", ["lax", "shift", "band"])
def test_gaussian_of_an_impulse_is_the_window_itself(form):
    offset = np.arange(5) - 2
    line = np.exp(-(offset**2) / (2 * 0.8**2))
    window = np.outer(line, line) / line.sum() ** 2
    x = jnp.zeros((1, 9, 9, 2)).at[0, 4, 4, 1].set(1.0)
    y = gaussian_filter(x, size=5, sigma=0.8, form=form)
    assert y.shape == (1, 5, 5, 2)
    np.testing.assert_allclose(y[0, :, :, 1], window, atol=1e-7)
    assert not y[..., 0].any()


@pytest.mark.parametrize("form", ["shift", "band"])
def test_gaussian_forms_follow_bfloat16(rng, form):
    x = normal(rng, 2, 20, 24, 1, dtype=jnp.bfloat16)
    assert_same_value_and_gradients(gaussian_filter, (x,), rng, form=form, tolerance=2e-2)


def test_gaussian_window_sums_to_one():
    np.testing.assert_allclose(gaussian_window(11, 1.5).sum(), 1, rtol=1e-12)


def test_gaussian_refuses_an_image_smaller_than_the_window():
    with pytest.raises(ValueError, match="smaller than the window"):
        gaussian_filter(jnp.zeros((1, 10, 30, 1)))


# bilinear resize


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (20, 21), (15, 7)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_resize_by_phases_matches_jax_image(rng, size, dtype):
    def op(x, form):
        return resize_bilinear(x, size, form=form)

    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    x = normal(rng, 2, 5, 7, 3, dtype=dtype)
    assert_same_value_and_gradients(op, (x,), rng, form="phases", tolerance=tolerance)


@pytest.mark.parametrize("form", ["lax", "phases"])
def test_doubling_mixes_neighbours_three_to_one_and_clamps_the_edges(form):
    x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
    y = resize_bilinear(x, (1, 6), form=form)
    np.testing.assert_allclose(y.ravel(), [0, 1, 3, 5, 7, 8], atol=1e-6)


def test_resize_by_a_broken_factor_is_left_to_the_reference(rng):
    x = normal(rng, 1, 5, 7, 2)
    np.testing.assert_array_equal(
        resize_bilinear(x, (8, 9)), resize_bilinear(x, (8, 9), form="lax")
    )
    with pytest.raises(ValueError, match="form must be one of"):
        resize_bilinear(x, (8, 9), form="phases")


def test_resize_refuses_to_shrink():
    with pytest.raises(ValueError, match="enlarges"):
        resize_bilinear(jnp.zeros((1, 8, 8, 1)), (4, 8))


# 3-D convolution


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((1, 3, 7, 6, 4), (3, 3, 3)),
        ((2, 4, 5, 8, 3), (3, 3, 3)),
        ((2, 2, 5, 4, 3), (5, 1, 3)),
        ((3, 3, 6, 7, 2), (1, 3, 1)),
        ((2, 3, 6, 7, 2), (1, 1, 3)),
        ((2, 3, 6, 5, 4), (3, 1, 1)),
        ((2, 1, 3, 5, 2), (3, 1, 1)),
        ((2, 3, 4, 5, 2), (1, 1, 1)),
        ((1, 3, 4, 2, 181), (1, 3, 1)),
        ((2, 2, 3, 5, 181), (1, 1, 5)),
        ((1, 3, 2, 3, 181), (3, 1, 1)),
    ],
)
def test_sliced_convolution_matches_the_3d_one(rng, shape, window):
    outputs = 5 if shape[-1] < 181 else 182  # wide enough for a product per tap
    arguments = normal(rng, *shape), normal(rng, *window, shape[-1], outputs)
    assert_same_value_and_gradients(conv3d, arguments, rng, form="slices")


@pytest.mark.parametrize("form", ["lax", "slices"])
def test_conv3d_is_a_windowed_sum_over_a_padded_clip(rng, form):
    x, kernel = rng.normal(size=(1, 3, 4, 5, 2)), rng.normal(size=(3, 3, 5, 2, 3))
    padded = np.pad(x[0], ((1, 1), (1, 1), (2, 2), (0, 0)))
    want = np.zeros((3, 4, 5, 3))
    for d, h, w in np.ndindex(3, 4, 5):
        window = padded[d : d + 3, h : h + 3, w : w + 5]
        want[d, h, w] = np.einsum("dhwi,dhwio->o", window, kernel)
    got = conv3d(jnp.float32(x), jnp.float32(kernel), form=form)
    np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_sliced_convolution_follows_bfloat16(rng):
    x = normal(rng, 2, 3, 6, 7, 4, dtype=jnp.bfloat16)
    kernel = normal(rng, 3, 3, 3, 4, 5, dtype=jnp.bfloat16)
    assert_same_value_and_gradients(conv3d, (x, kernel), rng, form="slices", tolerance=2e-2)


def test_conv3d_refuses_an_even_window():
    with pytest.raises(ValueError, match="odd"):
        conv3d(jnp.zeros((1, 3, 4, 4, 2)), jnp.zeros((2, 3, 3, 2, 2)))


# all of them


def cases(rng):
    """Returns (operation, arguments) for every operation, each for a batch of four."""
    image = normal(rng, 4, 12, 14, 3)
    return [
        (partial(depthwise_conv, stride=2), (image, normal(rng, 3, 3, 1, 3))),
        (conv_transpose_2x2, (image, normal(rng, 2, 2, 3, 2))),
        (gaussian_filter, (image,)),
        (partial(resize_bilinear, size=(24, 28)), (image,)),
        (conv3d, (normal(rng, 4, 3, 5, 6, 2), normal(rng, 3, 3, 3, 2, 3))),
    ]


def loss(op, x, *weights):
    return jnp.square(op(x, *weights)).sum()


@pytest.mark.parametrize("case", range(5))
def test_nested_jit_and_vmap_agree_with_the_plain_call(rng, case):
    op, (x, *weights) = cases(rng)[case]
    want = jax.grad(partial(loss, op))(x, *weights)
    inner = jax.jit(partial(loss, op))
    one = jax.vmap(jax.grad(inner), in_axes=(0, *[None] * len(weights)))
    got = jax.jit(one)(x[:, None], *weights)[:, 0]
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("case", range(5))
def test_a_batch_shared_between_two_devices_gives_the_same_gradients(rng, case):
    op, (x, *weights) = cases(rng)[case]
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    gradient = jax.grad(partial(loss, op), argnums=tuple(range(1 + len(weights))))

    def shared(x, *weights):
        dx, *dweights = gradient(x, *weights)
        return dx, *jax.lax.psum(dweights, "data")

    whole = [P()] * len(weights)
    over_devices = jax.shard_map(
        shared,
        mesh=mesh,
        in_specs=(P("data"), *whole),
        out_specs=(P("data"), *whole),
        check_vma=False,
    )
    for a, b in zip(gradient(x, *weights), jax.jit(over_devices)(x, *weights), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("case", range(5))
def test_a_sharded_batch_needs_no_exchange_between_devices_but_sums(rng, case):
    op, (x, *weights) = cases(rng)[case]
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    over_batch, whole = (NamedSharding(mesh, spec) for spec in (P("data"), P()))
    step = jax.jit(
        jax.value_and_grad(partial(loss, op), argnums=tuple(range(1 + len(weights)))),
        in_shardings=(over_batch, *[whole] * len(weights)),
        out_shardings=(whole, (over_batch, *[whole] * len(weights))),
    )
    program = step.lower(x, *weights).compile().as_text()
    for exchange in ("all-gather(", "all-to-all(", "collective-permute("):
        assert exchange not in program
    assert "all-reduce(" in program


@pytest.mark.parametrize("case", range(5))
def test_forcing_the_reference_leaves_no_other_rule_in_the_backward_pass(rng, case):
    op, arguments = cases(rng)[case]
    step = jax.value_and_grad(partial(loss, op), argnums=tuple(range(len(arguments))))
    with forms.forced("lax"):
        forced = str(jax.make_jaxpr(step)(*arguments))
    explicit = jax.value_and_grad(
        partial(loss, partial(op, form="lax")), argnums=tuple(range(len(arguments)))
    )
    assert forced == str(jax.make_jaxpr(explicit)(*arguments))
    assert "custom_vjp" not in forced and "optimization_barrier" not in forced


def test_materialized_is_the_identity_under_jit_and_grad(rng):
    x = normal(rng, 3, 4)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: (materialized(x) ** 2).sum()))(x)
    np.testing.assert_allclose(value, (np.asarray(x) ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-6)
