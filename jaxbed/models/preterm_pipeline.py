"""Detection and regression of limb maps, one after the other.

B batch, T frames, H W height and width, M maps.

Source: Migliorelli et al. (see jaxbed.models.preterm_pose), Fig. 2.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbed.models.preterm_pose import DetectionCNN, RegressionCNN


class LimbMaps(nn.Module):
    """Refines what a detection network found, which is trained already and stays as it is.

    Attributes:
        detection: finds rough maps; never in training mode, and no gradient reaches it.
        regression: refines them.
    """

    detection: DetectionCNN
    regression: RegressionCNN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps a clip f32[B,T,H,W,1] to `maps` and `rough_maps`, both f32[B,T,H,W,M]."""
        rough = jax.lax.stop_gradient(self.detection(x, train=False)["maps"])
        seen = jnp.concatenate([x, rough.astype(x.dtype)], axis=-1)
        return {**self.regression(seen, train=train), "rough_maps": rough}
