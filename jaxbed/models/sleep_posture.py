"""Posture of a sleeper in a night image, with the blanket as an auxiliary task.

Both tasks read one shared extractor and go on in a branch each; attention stands behind the
shared part and behind each branch. B batch, H W input pixels, h w pixels of a stage.

Source: Wang et al., "A deep learning-based method for nighttime sleep posture recognition"
(its "DL-model"). The paper says modules of two ResNet blocks, with attention behind the last
block of each. The reading here divides ResNet-18 after its second stage, so that ImageNet
weights fit; attention is CBAM, see jaxbed.models.cbam.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.resnet import BasicBlock, Layers, Stage, Stem, layers_of

DEPTH = 2
"""Blocks of every stage."""


class Shared(nn.Module):
    """Reads what both tasks need: stem, two stages, attention.

    Attributes:
        width: channels of the stem.
        layers: how layers are made; attention stands at the end only.
    """

    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,H/8,W/8,2*width], sizes rounded up."""
        plain, attention = self.layers._replace(attention=None), self.layers.attention
        x = Stem(self.width, plain, name="stem")(x)
        x = Stage(BasicBlock, self.width, DEPTH, 1, plain, name="layer1")(x)
        x = Stage(BasicBlock, 2 * self.width, DEPTH, 2, plain, name="layer2")(x)
        return attention(name="cbam")(x) if attention else x


class Branch(nn.Module):
    """Solves one task: two stages, attention, mean over all places, linear layer.

    Attributes:
        outputs: numbers to predict.
        width: channels of the stem.
        layers: as in Shared.
    """

    outputs: int
    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,2*width] to f32[B,outputs]."""
        plain, attention = self.layers._replace(attention=None), self.layers.attention
        x = Stage(BasicBlock, 4 * self.width, DEPTH, 2, plain, name="layer3")(x)
        x = Stage(BasicBlock, 8 * self.width, DEPTH, 2, plain, name="layer4")(x)
        x = attention(name="cbam")(x) if attention else x
        return plain.dense(self.outputs, name="fc")(x.mean((1, 2))).astype(jnp.float32)


class DLModel(nn.Module):
    """Recognises the posture and, as the auxiliary task, whether a blanket lies on the person.

    Parameters and MACs at 224x224x1:

        posture and blanket, attention     21,735,353   2.557 G
        posture and blanket                21,666,245   2.556 G
        posture, attention                 11,207,988   1.735 G
        posture                            11,172,292   1.735 G (ResNet-18)

    Attributes:
        attention: CBAM behind the shared part and each branch.
        blanket: have the auxiliary task.
        postures: classes; the paper's are supine, prone, left and right.
        width: channels of the stem.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the outputs are float32.
        param_dtype: storage type.
    """

    attention: bool = True
    blanket: bool = True
    postures: int = 4
    width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Recognises postures.

        Args:
            x: f32[B,H,W,C].
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `posture` f32[B,postures], logits, and with the auxiliary task `blanket` f32[B],
            the logit of a blanket.
        """
        layers = layers_of(self, train=train, attention=self.attention)
        shared = Shared(self.width, layers, name="shared")(x)
        found = {"posture": Branch(self.postures, self.width, layers, name="posture")(shared)}
        if self.blanket:
            found["blanket"] = Branch(1, self.width, layers, name="blanket")(shared)[:, 0]
        return found


class PostureOnly(nn.Module):
    """Recognises postures by any classifier: the networks the paper compares with.

    Attributes:
        network: returns `logits`, such as a ResNet or a DenseNet.
    """

    network: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps images f32[B,H,W,C] to `posture` f32[B,outputs], logits."""
        return {"posture": self.network(x, train=train)["logits"]}
