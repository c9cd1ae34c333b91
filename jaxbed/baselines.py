"""What a learned reconstruction or classification has to beat, in plain NumPy.

N M maps or images, D sensors.
"""

import numpy as np
import scipy.linalg

_CHUNK = 256  # images


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


def majority(labels: np.ndarray, count: int) -> np.ndarray:
    """Gives everything the commonest training label, of several the smallest.

    Args:
        labels: i32[N] >= 0, at least one.
        count: M, number of labels to give.

    Returns:
        i32[M].
    """
    return np.full(count, np.bincount(labels).argmax(), np.int32)


def nearest_neighbour(train: np.ndarray, test: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """Finds the training image most like each test image, regardless of brightness and contrast.

    Args:
        train: [N,H,W], any numbers.
        test: [M,H,W].
        size: (height, width) to which images are shrunk before they are compared; images that
            are smaller stay as they are.

    Returns:
        i64[M], index into `train`: the smallest Euclidean distance, of several the first.
    """
    known, asked = (
        [_standardised(_shrunk(part, size)) for part in _chunks(images)] for images in (train, test)
    )
    known = np.concatenate(known).T
    # Between vectors of one length, the nearest has the largest product.
    return np.concatenate([(part @ known).argmax(axis=1) for part in asked])


def _chunks(images: np.ndarray) -> list[np.ndarray]:
    """Divides images, of which no more than some are worth having as floats at a time."""
    return [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]


def _shrunk(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages blocks of pixels, equal to within one: [N,H,W] to f32[N,h,w]."""
    small = images.astype(np.float32)
    for axis, wanted in enumerate(size, start=1):
        pixels = small.shape[axis]
        edges = np.arange(min(wanted, pixels)) * pixels // min(wanted, pixels)
        widths = np.diff(edges, append=pixels).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(3)]
        small = np.add.reduceat(small, edges, axis=axis) / widths.reshape(shape)
    return small


def _standardised(images: np.ndarray) -> np.ndarray:
    """Makes every image a vector of mean 0 and length 1; one of one grey becomes 0."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)


def _leading(gram: np.ndarray, count: int) -> np.ndarray:
    """Returns the eigenvectors of the largest eigenvalues as columns."""
    size = len(gram)
    return scipy.linalg.eigh(gram, subset_by_index=(size - count, size - 1))[1]
