"""What a network is trained for."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax

if TYPE_CHECKING:  # a training step needs no metrics, nor the library they come from
    from clu.metrics import Metric

Batch = Mapping[str, jax.Array]
"""Named arrays with the examples along the first axis. `index` i32[B] is an example's place
in the global batch; evaluation batches carry `mask` f32[B], 1 for real examples."""

Outputs = Mapping[str, jax.Array]
"""What a network returns."""


class Task(NamedTuple):
    """Everything about training that is neither the network nor the loop.

    Attributes:
        prepare: (batch, keys, train) -> batch with `input`, what the network sees. Runs
            inside the jitted step: augmentation and targets cost no host time. `keys` has
            one PRNG key per example, so the result does not depend on how many devices
            share the batch.
        loss: (outputs, batch) -> (f32[B], named parts f32[B] for the log).
        metrics: (outputs, batch) -> named mergeable metrics over the batch's `mask`.
    """

    prepare: Callable[[Batch, jax.Array, bool], Batch]
    loss: Callable[[Outputs, Batch], tuple[jax.Array, dict[str, jax.Array]]]
    metrics: Callable[[Outputs, Batch], dict[str, "Metric"]]
