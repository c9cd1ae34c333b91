"""What one convolution or matrix product of a jaxpr costs in multiply-accumulates.

Along one spatial axis a convolution is the set of triples (input i, tap j, output o) with

    o * stride + j * kernel_dilation - padding_low = i * input_dilation

and every axis multiplies. The exact count is the number of triples. Any two of the indices
fix the third, so the product of any two extents is an upper bound, and nominal is one such
product: that of the two arrays that are taken as they are, while the third is extended by
zeros. That third one is the input, and for a transposed convolution the output.

The gradient by the input and that by the kernel hold the same triples with the roles
exchanged, so each costs what the convolution itself costs, nominal and exact. (The nominal
count of reverse-mode second derivatives is not defined so: they are counted as if first.)
"""

import math

from jax.extend.core import JaxprEqn, Literal, Var


def dot_macs(eqn: JaxprEqn) -> int:
    """Counts the MACs of one `dot_general`."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)


def is_flipped(kernel: Var | Literal, producers: dict[Var, JaxprEqn]) -> bool:
    """Tells whether a kernel was reversed on its way, as the input gradient does with it.

    Args:
        kernel: the second operand of a convolution.
        producers: the equation that made each variable of the jaxpr.
    """
    while isinstance(kernel, Var) and kernel in producers:  # not a literal, not an input
        eqn = producers[kernel]
        if eqn.primitive.name != "reshape":  # of which `vmap` puts some in between
            return eqn.primitive.name == "rev"
        kernel = eqn.invars[0]
    return False


def conv_macs(eqn: JaxprEqn, *, input_gradient: bool) -> tuple[int, int]:
    """Counts the (nominal, exact) MACs of one `conv_general_dilated`.

    Args:
        eqn: the equation.
        input_gradient: whether it is another convolution's gradient by its input. With unit
            stride the equation alone does not tell.
    """
    params = eqn.params
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    # The kernel gradient convolves input and output gradient with batch and channels
    # exchanged, so its "batch" is no longer the axis that comes first.
    kernel_gradient = lhs_spec[0] > lhs_spec[1]
    # Batch x output channels x input channels of one group.
    nominal = exact = out[out_spec[0]] * out[out_spec[1]] * rhs[rhs_spec[1]]
    for axis, (lhs_axis, rhs_axis, out_axis) in enumerate(
        zip(lhs_spec[2:], rhs_spec[2:], out_spec[2:], strict=True)
    ):
        inputs, taps, outputs = lhs[lhs_axis], rhs[rhs_axis], out[out_axis]
        stride = params["window_strides"][axis]
        input_dilation = params["lhs_dilation"][axis]
        # Zeros extend the input of a convolution and the output of a transposed one; the
        # input gradient has the two exchanged, the kernel gradient has both at hand.
        transposed = stride > 1 if input_gradient else input_dilation > 1
        if transposed and kernel_gradient:
            nominal *= inputs * outputs
        elif transposed != input_gradient:
            nominal *= inputs * taps
        else:
            nominal *= taps * outputs
        exact *= count_triples(
            inputs,
            taps,
            outputs,
            stride=stride,
            input_dilation=input_dilation,
            kernel_dilation=params["rhs_dilation"][axis],
            padding_low=params["padding"][axis][0],
        )
    return nominal, exact


def count_triples(
    inputs: int,
    taps: int,
    outputs: int,
    *,
    stride: int,
    input_dilation: int,
    kernel_dilation: int,
    padding_low: int,
) -> int:
    """Counts the (input, tap, output) triples that meet along one axis of a convolution.

    Args:
        inputs: elements of the input.
        taps: elements of the kernel.
        outputs: elements of the output.
        stride: `window_strides`, at least 1.
        input_dilation: `lhs_dilation`, at least 1.
        kernel_dilation: `rhs_dilation`, at least 1.
        padding_low: what stands before the first input, after dilation; may be negative.
    """
    if taps > outputs:  # the equation is symmetric in them; loop over the shorter
        taps, outputs = outputs, taps
        stride, kernel_dilation = kernel_dilation, stride
    common = math.gcd(stride, input_dilation)
    period = input_dilation // common
    inverse = pow(stride // common, -1, period)
    triples = 0
    for tap in range(taps):
        # Outputs o with 0 <= o * stride + offset <= last and that sum a multiple of
        # input_dilation: every `period`-th one from `first`, if any.
        offset = tap * kernel_dilation - padding_low
        if offset % common:
            continue
        last = (inputs - 1) * input_dilation
        start = max(0, -(offset // stride))
        stop = min(outputs, (last - offset) // stride + 1)
        first = -(offset // common) * inverse % period
        triples += len(range(start + (first - start) % period, stop, period))
    return triples
