"""Classifiers of the infant danger monitor: what is over the face, and how the infant lies.

B images, H W their height and width.

Source: "A deep-learning-based danger monitoring system for infants" (thesis), abstract: a ResNet-50
for each question. The thesis tells a covered face from one that is not, two outputs; here a
pacifier, which is no danger, is a class of its own. The detectors that find the face are
jaxbed.models.retinaface and jaxbed.models.ssd.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxbed.models.resnet import BasicBlock, ResNet, resnet50

LEAST_DEVIATION = 2.0
"""Of 256 levels: an image with less is flat, and what it shows is noise."""

# Parameters and MACs at 224x224, 3 channels:
#
#     occlusion, 2 outputs   23,512,130   4.087140 G
#     occlusion, 3 outputs   23,514,179   4.087142 G
#     posture, 4 outputs     23,516,228   4.087144 G
face_resnet50 = partial(resnet50, outputs=3)
posture_resnet50 = partial(resnet50, outputs=4)

slim_resnet = partial(ResNet, BasicBlock, (1, 1, 1, 1), width=16)
"""Ten layers of a quarter of the usual channels: 310,000 parameters, 14 M MACs at 96x96. It reads
an image in a fiftieth of the time of ResNet-50 and can be trained on two CPU cores."""


def network_input(image: jax.Array) -> jax.Array:
    """Gives every image mean 0 and standard deviation 1 over all its pixels and colours.

    By night, and in the shade, a face has a tenth of the contrast that it has by day. Published
    ImageNet weights expect about this range.

    Args:
        image: RGB f32[B,H,W,3] of 0 to 255.

    Returns:
        f32[B,H,W,3]; an image of one colour stays flat.
    """
    away = image - jnp.mean(image, axis=(1, 2, 3), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(away), axis=(1, 2, 3), keepdims=True))
    return away / jnp.maximum(deviation, LEAST_DEVIATION)
