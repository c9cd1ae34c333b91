"""Where a posture network looks: Grad-CAM.

n images, H W their height and width as the network sees them, h w those of a feature map of it,
C channels.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
localization", ICCV 2017, equations 1 and 2.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbed.models.densenet import DenseNet
from jaxbed.models.sleep_posture import DLModel

_FEWEST_ROWS = 6  # of a feature map that still says where

Path = tuple[str, ...]


def feature_map_of(network: nn.Module, rows: int) -> Path:
    """Names the module whose output is looked at.

    It is the last stage of the posture's features with at least six rows: the last of all for
    the paper's 224 rows, an earlier one for small images.

    Args:
        network: an arm's.
        rows: H.
    """
    stage = next((s for s in (4, 3) if rows >= _FEWEST_ROWS * 2 ** (s + 1)), 2)
    if not isinstance(network, DLModel):
        if not isinstance(network.network, DenseNet):
            return "network", "backbone", f"layer{stage}"
        return ("network", "features") + ((f"denseblock{stage}",) if stage < 4 else ())
    if stage == 3:
        return "posture", "layer3"
    branch = "shared" if stage == 2 else "posture"
    return branch, "cbam" if network.attention else f"layer{stage}"


def grad_cam(
    network: nn.Module, variables: Any, image: jax.Array, posture: jax.Array, *, at: Path
) -> np.ndarray:
    """Shows which places of an image speak for a posture.

    Args:
        network: an arm's.
        variables: its parameters and statistics.
        image: f32[n,H,W,1], standardised.
        posture: i32[n], the posture whose logit is explained.
        at: the module whose output is the feature map.

    Returns:
        f32[n,h,w] in [0, 1], 1 at the place of every image that speaks most for it; 0
        everywhere where no place does.
    """
    return np.asarray(_maps(network, at, variables, image, posture))


@partial(jax.jit, static_argnums=(0, 1))
def _maps(network, at, variables, image, posture):
    def logit(nudge):
        """The sum over images, each of which depends on its own features only."""
        seen = []

        def add_nudge(call, args, kwargs, context):
            y = call(*args, **kwargs)
            if context.module.path == at and context.method_name == "__call__":
                seen.append(y)
                y = y + nudge
            return y

        with nn.intercept_methods(add_nudge):
            logits = network.apply(variables, image, train=False)["posture"]
        (features,) = seen
        return jnp.take_along_axis(logits, posture[:, None], axis=1).sum(), features

    shape = jax.eval_shape(logit, jnp.zeros(()))[1]
    slope, features = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = slope.astype(jnp.float32).mean((1, 2), keepdims=True)
    maps = nn.relu((weights * features.astype(jnp.float32)).sum(-1))
    return maps / jnp.maximum(maps.max((1, 2), keepdims=True), jnp.finfo(jnp.float32).tiny)
