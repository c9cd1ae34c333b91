"""Batches that are a function of (seed, step), so that resuming needs only the step."""

from collections.abc import Iterator, Mapping

import grain
import numpy as np

Arrays = Mapping[str, np.ndarray]
"""Named arrays with the examples along the first axis."""


def train_batches(arrays: Arrays, *, batch_size: int, seed: int) -> grain.MapDataset:
    """Shuffles examples, anew in every epoch, into an endless sequence of batches.

    Args:
        arrays: the examples, in memory.
        batch_size: examples per batch, at most as many as there are.
        seed: of the order.

    Returns:
        A sequence whose element `[step]` is that step's batch; `[start:]` resumes there.

    Raises:
        ValueError: fewer examples than a batch.
    """
    count = _count(arrays)
    if count < batch_size:
        raise ValueError(f"batch_size {batch_size} is more than the {count} examples")
    # Indices go through the pipeline instead of examples: one gather per batch, not one
    # Python call per example.
    order = grain.MapDataset.source(range(count)).seed(seed).shuffle().repeat()
    return order.batch(batch_size, drop_remainder=True).map(
        lambda chosen: {name: array[chosen] for name, array in arrays.items()}
    )


def eval_batches(arrays: Arrays, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields every example exactly once, in order.

    The last batch is filled up with copies of its first example, for which `mask` f32[B] is
    0, so that all batches have one shape.
    """
    count = _count(arrays)
    for start in range(0, count, batch_size):
        chosen = np.arange(start, start + batch_size)
        mask = chosen < count
        chosen = np.where(mask, chosen, start)
        batch = {name: array[chosen] for name, array in arrays.items()}
        yield {**batch, "mask": mask.astype(np.float32)}


def _count(arrays: Arrays) -> int:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"arrays must hold equally many examples, got {counts}")
    return next(iter(counts.values()))
