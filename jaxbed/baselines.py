"""What a learned reconstruction has to beat, in plain NumPy.

N M maps, D sensors.
"""

import numpy as np
import scipy.linalg


def mean_map(train: np.ndarray, count: int) -> np.ndarray:
    """Reconstructs every map by the mean of the training maps.

    Args:
        train: f32[N,R,C].
        count: M, number of maps to reconstruct.

    Returns:
        f32[M,R,C].
    """
    return np.broadcast_to(train.mean(axis=0), (count, *train.shape[1:]))


def pca(train: np.ndarray, test: np.ndarray, *, components: int) -> np.ndarray:
    """Reconstructs maps from their leading principal components.

    Args:
        train: f32[N,R,C], the maps the components are fitted on.
        test: f32[M,R,C].
        components: how many; at most what N - 1 and D allow.

    Returns:
        f32[M,R,C], clipped at 0 as pressure is.

    Raises:
        ValueError: more components than the data have.
    """
    limit = min(len(train) - 1, train[0].size)
    if not 0 < components <= limit:
        raise ValueError(f"components must be in [1, {limit}], got {components}")
    mean = train.reshape(len(train), -1).mean(axis=0)
    centred = train.reshape(len(train), -1) - mean
    # The smaller of the two Gram matrices has the same spectrum.
    if centred.shape[0] >= centred.shape[1]:
        basis = _leading(centred.T @ centred, components)
    else:
        basis = centred.T @ _leading(centred @ centred.T, components)
        basis /= np.linalg.norm(basis, axis=0)
    codes = (test.reshape(len(test), -1) - mean) @ basis
    return np.maximum(codes @ basis.T + mean, 0).reshape(test.shape)


def _leading(gram: np.ndarray, count: int) -> np.ndarray:
    """Returns the eigenvectors of the largest eigenvalues as columns."""
    size = len(gram)
    return scipy.linalg.eigh(gram, subset_by_index=(size - count, size - 1))[1]
