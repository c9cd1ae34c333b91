"""The classifiers of the infant danger monitor: the published counts, and what starts them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.infant_danger import (
    face_resnet50,
    network_input,
    posture_resnet50,
    slim_resnet,
)
from jaxbed.weights.torchvision import from_torchvision, to_torchvision


def counted(network, size):
    example = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)
    macs = count(lambda v, x: network.apply(v, x, train=False), variables, example)
    outputs = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, example)
    return count_params(variables["params"]), macs.macs_nominal, outputs["logits"].shape, variables


@pytest.mark.parametrize(
    ("network", "params", "macs", "outputs"),
    [
        (face_resnet50(outputs=2), 23_512_130, 4_087_140_352, 2),
        (face_resnet50(), 23_514_179, 4_087_142_400, 3),
        (posture_resnet50(), 23_516_228, 4_087_144_448, 4),
    ],
    ids=["covered or not", "with pacifier", "posture"],
)
def test_the_networks_of_the_thesis_have_their_parameters_and_macs(network, params, macs, outputs):
    assert counted(network, (224, 224))[:3] == (params, macs, (1, outputs))


def test_the_slim_network_is_a_fiftieth_of_it():
    params, macs, outputs, _ = counted(slim_resnet(outputs=3), (96, 96))
    assert (params, macs, outputs) == (309_843, 14_266_752, (1, 3))


def test_published_imagenet_weights_start_every_layer_but_the_last(rng):
    published = counted(face_resnet50(outputs=10, width=4), (32, 32))[3]
    own = counted(posture_resnet50(width=4), (32, 32))[3]
    tensors = to_torchvision(
        jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), published)
    )
    start = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), own)
    variables, loaded = from_torchvision(tensors, start, replace_head=True)
    assert sorted(loaded.dropped) == ["fc.bias", "fc.weight"]
    stem = variables["params"]["backbone"]["stem"]["conv1"]["kernel"]
    np.testing.assert_array_equal(stem, tensors["conv1.weight"].transpose(2, 3, 1, 0))
    assert not variables["params"]["fc"]["kernel"].any()


def test_images_are_standardised_one_by_one(rng):
    image = rng.uniform(0, 255, (3, 5, 7, 3)).astype(np.float32)
    image[2] = 90 + 0.1 * rng.normal(size=(5, 7, 3))
    got = np.asarray(network_input(jnp.asarray(image)))
    np.testing.assert_allclose(got.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(got[:2].std((1, 2, 3)), 1, rtol=1e-4)
    np.testing.assert_allclose(got[2], (image[2] - image[2].mean()) / 2, atol=1e-4)
    alone = network_input(jnp.asarray(image[:1]))
    np.testing.assert_allclose(got[:1], alone, atol=1e-5)
