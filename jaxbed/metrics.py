"""Metrics as sums and counts: mergeable, so that every example counts exactly once.

B batch. Each follows clu's protocol: `from_model_output`, `merge`, `compute`.
"""

import flax
import jax
import jax.numpy as jnp
from clu import metrics

Average = metrics.Average
"""Mean of per-example values; `from_model_output(values=f32[B], mask=f32[B])`."""


@flax.struct.dataclass
class FScore(metrics.Metric):
    """F1 (Dice) of a per-pixel classification, averaged over the classes.

    Attributes:
        hits: f32[C], pixels of a class that were found.
        predicted: f32[C], pixels given the class.
        actual: f32[C], pixels of the class.
    """

    hits: jax.Array
    predicted: jax.Array
    actual: jax.Array

    @classmethod
    def from_model_output(cls, *, logits: jax.Array, label: jax.Array, mask: jax.Array) -> "FScore":
        """Counts pixels.

        Args:
            logits: f32[B,H,W,C]; the largest decides (with two classes: softmax > 0.5).
            label: i32[B,H,W].
            mask: f32[B], 1 for real examples and 0 for padding.
        """
        classes = logits.shape[-1]
        predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes)
        actual = jax.nn.one_hot(label, classes)
        weight = mask.reshape(-1, 1, 1, 1)
        return cls(
            hits=jnp.sum(weight * predicted * actual, axis=(0, 1, 2)),
            predicted=jnp.sum(weight * predicted, axis=(0, 1, 2)),
            actual=jnp.sum(weight * actual, axis=(0, 1, 2)),
        )

    def merge(self, other: "FScore") -> "FScore":
        """Adds the counts of another part of the data."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> jax.Array:
        """Returns f32[] in [0, 1]; a class that is neither there nor predicted counts as 1."""
        both = self.predicted + self.actual
        return jnp.mean(jnp.where(both > 0, 2 * self.hits / jnp.maximum(both, 1), 1.0))
