"""Contractions against hand-derived values, a loop over every tap, and XLA's own count."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxbed.efficiency.contractions import count_triples
from jaxbed.efficiency.count import Count, count, count_params

LAYOUTS = {
    1: ("NHC", "HIO", "NHC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, *, strides=1, padding="SAME", **options):
    """`lax.conv_general_dilated`, channels last, one number standing for every axis."""
    spatial = x.ndim - 2
    if isinstance(padding, int):
        padding = [(padding, padding)] * spatial
    for name in ("lhs_dilation", "rhs_dilation"):
        if isinstance(options.get(name), int):
            options[name] = (options[name],) * spatial
    strides = (strides,) * spatial if isinstance(strides, int) else strides
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUTS[spatial], **options
    )


def macs(counted: Count) -> tuple[int, int]:
    return counted.macs_nominal, counted.macs_exact


def gradients(fn):
    """The backward pass together with the forward one, every argument differentiated."""

    def run(*args):
        out, back = jax.vjp(fn, *args)
        return back(out)

    return run


# -------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize(
    ("x", "kernel", "options", "nominal", "exact"),
    [
        # One axis of 8, three taps, SAME: the two ends lose a tap each.
        (f32(1, 8, 1), f32(3, 1, 1), {}, 8 * 3, 22),
        (f32(5, 8, 2), f32(3, 2, 7), {}, 5 * 2 * 7 * 24, 5 * 2 * 7 * 22),
        # Stride 2 over 8 pads once, at the high end; stride 3 gives outputs at 0, 3, 6.
        (f32(1, 8, 1), f32(3, 1, 1), {"strides": 2}, 4 * 3, 11),
        (f32(1, 9, 1), f32(3, 1, 1), {"strides": 3}, 3 * 3, 9),
        (f32(1, 8, 1), f32(3, 1, 1), {"strides": 3, "padding": "VALID"}, 2 * 3, 6),
        # Dilation 3: taps at -3, 0, 3, so each end loses three.
        (f32(1, 8, 1), f32(3, 1, 1), {"rhs_dilation": 3}, 8 * 3, 18),
        # A padding that cuts off: outputs see elements 2..6 of 8 only.
        (f32(1, 8, 1), f32(3, 1, 1), {"padding": [(-2, -1)]}, 3 * 3, 9),
        # Wider than SAME: ten outputs, of which the outermost see one element.
        (f32(1, 8, 1), f32(3, 1, 1), {"padding": 2}, 10 * 3, 24),
        # Two and three axes multiply.
        (f32(2, 16, 8, 3), f32(3, 3, 3, 4), {}, 2 * 128 * 9 * 12, 2 * 46 * 22 * 12),
        (f32(1, 8, 8, 8, 2), f32(3, 3, 3, 2, 5), {}, 10 * 24**3, 10 * 22**3),
        (f32(1, 3, 8, 8, 2), f32(3, 1, 1, 2, 5), {}, 10 * 64 * 9, 10 * 64 * 7),
        # Groups divide the input channels; depthwise has as many groups as channels.
        (f32(1, 8, 8, 6), f32(3, 3, 3, 4), {"feature_group_count": 2}, 12 * 576, 12 * 484),
        (f32(1, 8, 8, 6), f32(3, 3, 1, 6), {"feature_group_count": 6}, 6 * 576, 6 * 484),
        # A map of one element: eight of nine taps meet padding.
        (f32(1, 1, 1, 4), f32(3, 3, 4, 4), {}, 9 * 16, 16),
        # Transposed, kernel 2 and stride 2: every input spreads over 2 x 2 outputs.
        (
            f32(1, 5, 7, 3),
            f32(2, 2, 3, 4),
            {"lhs_dilation": 2, "padding": 1},
            35 * 4 * 12,
            35 * 4 * 12,
        ),
        # Transposed, kernel 4, stride 2, padding 1: the first and last input lose a tap.
        (f32(1, 8, 1), f32(4, 1, 1), {"lhs_dilation": 2, "padding": 2}, 8 * 4, 30),
    ],
)
def test_convolution_costs_what_the_hand_counts(x, kernel, options, nominal, exact):
    run = functools.partial(conv, **options)
    assert macs(count(run, x, kernel)) == (nominal, exact)
    # The gradients use every product of the forward pass once each.
    assert macs(count(gradients(run), x, kernel)) == (3 * nominal, 3 * exact)


def visited_taps(x, kernel, out, *, strides, padding, lhs_dilation, rhs_dilation):
    """Counts in a loop the taps of a convolution that meet an element of the input."""
    met = 0
    for o in itertools.product(*map(range, out)):
        for k in itertools.product(*map(range, kernel)):
            at = [
                position * stride + tap * dilation - low
                for position, stride, tap, dilation, (low, _) in zip(
                    o, strides, k, rhs_dilation, padding, strict=True
                )
            ]
            met += all(
                place % dilation == 0 and 0 <= place // dilation < size
                for place, dilation, size in zip(at, lhs_dilation, x, strict=True)
            )
    return met


@st.composite
def convolutions(draw):
    spatial = draw(st.integers(1, 3))
    top = {1: 7, 2: 5, 3: 3}[spatial]

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(spatial))

    shapes = per_axis(1, top), per_axis(1, min(top, 4))
    geometry = {
        "strides": per_axis(1, 3),
        "lhs_dilation": per_axis(1, 3),
        "rhs_dilation": per_axis(1, 3),
        "padding": tuple(zip(per_axis(-1, 3), per_axis(-1, 3), strict=True)),
    }
    groups = draw(st.sampled_from(["none", "feature", "batch"]))
    return shapes, geometry, groups


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_exact_is_what_a_loop_over_all_taps_finds_gradients_included(case):
    (x_size, kernel_size), geometry, groups = case
    # Batch 4, 6 input channels, 8 output channels.
    x, kernel = f32(4, *x_size, 6), f32(*kernel_size, 3 if groups == "feature" else 6, 8)
    options = dict(geometry)
    if groups != "none":
        options[f"{groups}_group_count"] = 2
    run = functools.partial(conv, **options)
    try:
        out = jax.eval_shape(run, x, kernel)
    except (TypeError, ValueError):  # cut down to less than nothing
        return
    if 0 in out.shape:
        return
    met = visited_taps(x_size, kernel_size, out.shape[1:-1], **geometry)
    channels = out.shape[0] * 8 * kernel.shape[-2]
    forward = count(run, x, kernel)
    assert forward.macs_exact == met * channels
    assert forward.macs_exact <= forward.macs_nominal
    backward = count(gradients(run), x, kernel)
    assert backward.macs_exact == 3 * forward.macs_exact
    assert backward.macs_nominal == 3 * forward.macs_nominal


def test_triples_along_one_axis_match_a_double_loop(rng):
    for _ in range(3000):
        inputs, taps, outputs = (int(n) for n in rng.integers(1, 9, 3))
        stride, input_dilation, kernel_dilation = (int(n) for n in rng.integers(1, 7, 3))
        low = int(rng.integers(-12, 13))
        places = [
            o * stride + j * kernel_dilation - low for o in range(outputs) for j in range(taps)
        ]
        expected = sum(
            p % input_dilation == 0 and 0 <= p // input_dilation < inputs for p in places
        )
        assert expected == count_triples(
            inputs,
            taps,
            outputs,
            stride=stride,
            input_dilation=input_dilation,
            kernel_dilation=kernel_dilation,
            padding_low=low,
        )


def test_a_huge_axis_is_counted_without_visiting_it():
    long = 10**9
    unit = {"stride": 1, "input_dilation": 1, "kernel_dilation": 1, "padding_low": 1}
    assert count_triples(long, 3, long, **unit) == 3 * long - 2
    assert count_triples(long, long, 3, **unit) == 3 * long - 2  # the kernel gradient


@pytest.mark.parametrize("axes", ["NHWC", "NCHW", "HWNC"])
def test_the_layout_does_not_change_the_count(axes):
    shape = dict(zip("NHWC", (2, 9, 7, 3), strict=True))
    numbers = (axes, "OIHW" if axes == "NCHW" else "HWIO", axes)
    kernel = f32(4, 3, 3, 5) if axes == "NCHW" else f32(3, 5, 3, 4)

    def run(x, kernel):
        return lax.conv_general_dilated(x, kernel, (2, 1), "VALID", dimension_numbers=numbers)

    x = f32(*(shape[axis] for axis in axes))
    nominal = 2 * 3 * 4 * (4 * 3) * (3 * 5)
    assert macs(count(run, x, kernel)) == (nominal, nominal)
    assert macs(count(gradients(run), x, kernel)) == (3 * nominal, 3 * nominal)


def test_a_kernel_that_is_flipped_forward_is_no_gradient():
    def run(x, kernel):
        return conv(x, lax.rev(kernel, (0, 1)), padding="VALID")

    nominal = 4 * 4 * 9 * 2 * 4  # VALID leaves 4 x 4 of 6 x 6
    x, kernel = f32(1, 6, 6, 2), f32(3, 3, 2, 4)
    assert macs(count(run, x, kernel)) == (nominal, nominal)
    assert macs(count(gradients(run), x, kernel)) == (3 * nominal, 3 * nominal)


def test_a_constant_kernel_needs_no_gradient():
    counted = count(gradients(lambda x: conv(x, jnp.ones((3, 3, 2, 4)))), f32(1, 6, 6, 2))
    assert macs(counted) == (2 * 36 * 9 * 8, 2 * 16 * 16 * 8)


def test_gradients_of_a_vmapped_convolution_cost_the_same():
    nominal = 5 * 16 * 9 * 8  # VALID leaves 4 x 4 of 6 x 6
    backward = jax.vmap(gradients(functools.partial(conv, padding="VALID")))
    counted = count(backward, f32(5, 1, 6, 6, 2), f32(5, 3, 3, 2, 4))
    assert macs(counted) == (3 * nominal, 3 * nominal)


# ----------------------------------------------------------------------- matrix products


@pytest.mark.parametrize(
    ("subscripts", "shapes", "expected"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], 60),
        ("bhqd,bhkd->bhqk", [(2, 3, 7, 4), (2, 3, 5, 4)], 2 * 3 * 7 * 5 * 4),
        ("ij,ij->", [(3, 4), (3, 4)], 12),
        # i is summed away before the product.
        ("bij,bjk->bk", [(2, 3, 4), (2, 4, 5)], 2 * 4 * 5),
    ],
)
def test_einsum_costs_the_product_of_its_indices(subscripts, shapes, expected):
    counted = count(functools.partial(jnp.einsum, subscripts), *(f32(*s) for s in shapes))
    assert macs(counted) == (expected, expected)
    assert counted.by_primitive == {"dot_general": (expected, expected)}
    assert set(counted.by_module) == {""}


# ------------------------------------------------------------------- against XLA's own count


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (f32(2, 16, 16, 3), f32(3, 3, 3, 8), {}),
        (f32(2, 15, 16, 3), f32(5, 3, 3, 8), {"strides": 2}),
        (f32(1, 8, 8, 8, 2), f32(3, 1, 3, 2, 4), {"rhs_dilation": 2}),
        (f32(2, 16, 16, 8), f32(3, 3, 1, 8), {"feature_group_count": 8}),
        (f32(2, 8, 8, 3), f32(4, 4, 3, 8), {"lhs_dilation": 2, "padding": 2}),
    ],
)
def test_exact_flops_agree_with_those_of_the_lowered_program(x, kernel, options):
    run = functools.partial(conv, **options)
    for fn in (run, gradients(run)):
        counted = count(fn, x, kernel)
        lowered = jax.jit(fn).lower(x, kernel).cost_analysis()["flops"]
        # XLA adds the flipping of kernels and the like.
        assert counted.flops_exact <= lowered <= 1.01 * counted.flops_exact
        assert counted.flops_exact == 2 * counted.macs_exact
        assert counted.flops_nominal == 2 * counted.macs_nominal


RESNET18_STAGES = [(64, 1), (128, 2), (256, 2), (512, 2)]  # channels, stride of the first block


def resnet18(kernels, x):
    """The convolutions and the classifier of ResNet-18; the rest costs no MACs."""
    kernels = iter(kernels)
    x = conv(x, next(kernels), strides=2, padding=3)
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for channels, first_stride in RESNET18_STAGES:
        for stride in (first_stride, 1):
            y = nn.relu(conv(x, next(kernels), strides=stride, padding=1))
            y = conv(y, next(kernels), padding=1)
            if x.shape[-1] != channels:
                x = conv(x, next(kernels), strides=stride, padding=0)
            x = nn.relu(x + y)
    return x.mean((1, 2)) @ next(kernels)


def resnet18_kernels():
    kernels, inputs = [f32(7, 7, 3, 64)], 64
    for channels, _ in RESNET18_STAGES:
        for _ in range(2):
            kernels += [f32(3, 3, inputs, channels), f32(3, 3, channels, channels)]
            if inputs != channels:
                kernels.append(f32(1, 1, inputs, channels))
            inputs = channels
    return [*kernels, f32(512, 1000)]


def test_resnet18_has_the_macs_of_the_textbook():
    kernels, x = resnet18_kernels(), f32(1, 224, 224, 3)
    assert count_params(kernels) == 11_689_512 - 1000 - 9600  # less biases and batch norms
    forward = count(resnet18, kernels, x)
    assert forward.macs_nominal == 1_814_073_344
    assert forward.macs_exact < forward.macs_nominal
    stem = 112 * 112 * 64 * 147

    def step(kernels, x):
        return jax.value_and_grad(lambda k: resnet18(k, x).sum())(kernels)

    # Nobody needs the gradient of the image.
    assert count(step, kernels, x).macs_nominal == 3 * forward.macs_nominal - stem
    backward = count(gradients(resnet18), kernels, x)
    assert backward.macs_nominal == 3 * forward.macs_nominal
    assert backward.macs_exact == 3 * forward.macs_exact
