"""What training changes: arrays only, so that it can be donated, sharded and saved as is."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

Tree = Any
"""A nested dict of arrays."""


@struct.dataclass
class TrainState:
    """Step, parameters, running statistics and the optimiser's memory.

    Attributes:
        step: i32[], steps taken.
        params: f32 tree.
        batch_stats: f32 tree, empty for networks without batch normalisation.
        opt_state: the optimiser's tree.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """The collections `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def initialise(network: nn.Module, key: jax.Array, example: jax.Array) -> dict[str, Tree]:
    """Draws a network's variables.

    Args:
        network: takes `example` and `train`.
        key: PRNG key.
        example: an input of the right shape; its values do not matter.

    Returns:
        `params` and `batch_stats`.
    """
    variables = _initialiser(network, example.shape, example.dtype)(key)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


@functools.cache
def quick_compilation() -> dict[str, int | bool] | None:
    """Returns compiler options for programs that run a few times only.

    On a CPU XLA compiles a training step of EFD with them in a quarter of the time, and the
    step takes twice as long. Elsewhere there is nothing to choose.
    """
    if jax.default_backend() != "cpu":
        return None
    unoptimised = {"xla_backend_optimization_level": 0}
    options = {**unoptimised, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # newer compilers have the one kind of emitter only
        return unoptimised
    return options


@functools.lru_cache(maxsize=8)
def _initialiser(network: nn.Module, shape: tuple[int, ...], dtype) -> Callable:
    def init(key):
        return network.init(key, jnp.zeros(shape, dtype), train=False)

    return jax.jit(init, compiler_options=quick_compilation())


def start(variables: dict[str, Tree], tx: optax.GradientTransformation) -> TrainState:
    """Puts variables and a fresh optimiser together, at step 0."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
    )


def parameter_hash(variables: Tree) -> str:
    """Returns 16 hexadecimal digits that stand for every bit of a network's variables, on the host.

    Equal for equal names, types, shapes and values; so two runs that say the same hash trained
    the same network.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
