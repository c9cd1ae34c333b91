"""Joints as Gaussian heatmaps, and back.

B batch, J joints, H W input pixels, h w = H/stride W/stride heatmap pixels. Joints are in pixels
of the input, (x to the right, y down), with 0 at the centre of its first pixel; one that is
missing is NaN. A heatmap pixel covers stride x stride input pixels, so its centre lies between
two of them when the stride is even.

Source: Xiao, Wu and Wei, "Simple baselines for human pose estimation and tracking", ECCV 2018,
section 2 (targets, quarter offset), and Zhang et al., "Distribution-aware coordinate
representation for human pose estimation", CVPR 2020, section 3.1 (expansion of the logarithm).
Differs: the Gaussian is centred on the joint itself, not on the pixel next to it, and is not cut
off at three standard deviations; the expansion leaves the mixed derivative out, which a Gaussian
does not have, and needs no smoothing first.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Refinement = Literal["none", "quarter", "taylor"]


class Targets(NamedTuple):
    """What a keypoint network is trained towards.

    Attributes:
        heatmaps: f32[B,h,w,J] in [0, 1]; 0 for a missing joint.
        weights: f32[B,J], 1 for the joints that count and 0 for the missing.
    """

    heatmaps: jax.Array
    weights: jax.Array


@partial(jax.jit, static_argnames=("size", "stride"))
def encode(
    joints_px: jax.Array, size: tuple[int, int], *, stride: int = 4, sigma_px: float = 2.0
) -> Targets:
    """Draws one Gaussian per joint.

    Args:
        joints_px: f32[B,J,2]. Missing are those that are not finite or not in the image, which
            ends half a pixel beyond the centres of its outermost pixels.
        size: (h, w).
        stride: input pixels per heatmap pixel.
        sigma_px: standard deviation in heatmap pixels, > 0.
    """
    height, width = size
    end = jnp.array([[[width, height]]], jnp.float32) * stride - 0.5
    visible = jnp.all((joints_px >= -0.5) & (joints_px <= end), axis=-1)
    place = (jnp.where(visible[..., None], joints_px, 0.0) + 0.5) / stride - 0.5

    # A Gaussian is a product of one along x and one along y: h + w exponentials, not h w.
    def along(axis: int, length: int) -> jax.Array:
        distance = jnp.arange(length).reshape(1, -1, 1) - place[:, None, :, axis]
        return jnp.exp(-jnp.square(distance) / (2 * sigma_px**2))

    weights = visible.astype(jnp.float32)
    rows = along(1, height) * weights[:, None]
    return Targets(rows[:, :, None] * along(0, width)[:, None], weights)


class Decoded(NamedTuple):
    """Joints read from heatmaps.

    Attributes:
        joints_px: f32[B,J,2]; NaN where no value of the heatmap is above 0 or one is NaN.
        scores: f32[B,J], the highest value of each heatmap.
    """

    joints_px: jax.Array
    scores: jax.Array


@partial(jax.jit, static_argnames=("stride", "refine"))
def decode(heatmaps: jax.Array, *, stride: int = 4, refine: Refinement = "quarter") -> Decoded:
    """Finds the place of the highest value of every heatmap.

    On exact heatmaps x and y are within half a heatmap pixel of the joint with "none" and
    within a quarter of one with "quarter"; "taylor" finds the joint itself. Along an axis on
    which the highest value lies at the border it is not refined.

    Args:
        heatmaps: f32[B,h,w,J], exact or predicted.
        stride: input pixels per heatmap pixel.
        refine: how a place between pixels is found. "quarter" moves by a quarter of a pixel
            towards the higher neighbour, "taylor" to the vertex of a parabola through the
            logarithms of the value and its two neighbours, at most half a pixel away.

    Raises:
        ValueError: another refinement.
    """
    batch, height, width, joints = heatmaps.shape
    flat = heatmaps.reshape(batch, height * width, joints)
    best, scores = jnp.argmax(flat, axis=1), jnp.max(flat, axis=1)
    at = jnp.stack([best % width, best // width], axis=-1)  # [B,J,2], (x, y)
    beside = jax.vmap(jax.vmap(_beside, in_axes=(-1, 0)))(heatmaps, at)
    inner = (at > 0) & (at < jnp.array([[[width - 1, height - 1]]]))
    place = at + jnp.where(inner, _shift(beside, scores, refine), 0.0)
    found = (scores > 0)[..., None]
    return Decoded(jnp.where(found, (place + 0.5) * stride - 0.5, jnp.nan), scores)


def _beside(heatmap: jax.Array, at: jax.Array) -> jax.Array:
    """Returns the values left and right of a place (x, y), and those above and below: f32[2,2]."""
    around = lax.dynamic_slice(jnp.pad(heatmap, 1), (at[1], at[0]), (3, 3))
    return jnp.stack([around[1, ::2], around[::2, 1]])


def _shift(beside: jax.Array, peak: jax.Array, refine: Refinement) -> jax.Array:
    """Returns f32[B,J,2] in heatmap pixels from what is beside f32[B,J,2,2] peaks f32[B,J]."""
    before, after = beside[..., 0], beside[..., 1]
    if refine == "none":
        return jnp.zeros_like(before)
    if refine == "quarter":
        return 0.25 * jnp.sign(after - before)
    if refine == "taylor":
        # A prediction may be 0 or less beside its peak, which has no logarithm.
        before, after = (jnp.log(jnp.maximum(v / peak[..., None], 1e-6)) for v in (before, after))
        bend = -before - after  # the logarithm at the peak itself is 0
        shift = jnp.clip((after - before) / (2 * bend), -0.5, 0.5)
        return jnp.where(bend > 0, shift, 0.0)
    raise ValueError(f"refine must be 'none', 'quarter' or 'taylor', got {refine!r}")
