"""Files of named tensors: .safetensors, and PyTorch's .pth where PyTorch is installed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxbed.errors import InputError, short
from jaxbed.whole_files import write_whole

StateDict = dict[str, np.ndarray]

_MOST_BYTES = 4_000_000_000
"""Of a file: ten times the largest published weights that are read."""

_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_state_dict(path: Path) -> StateDict:
    """Reads a file of named tensors.

    Args:
        path: a .safetensors file; or .pth or .pt, where PyTorch is installed. Of those, only
            weights are read and no code is run.

    Returns:
        Name to array, of the file's types; bfloat16 becomes float32.

    Raises:
        InputError: the file is missing, damaged or of another kind, or PyTorch is.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise InputError(
        f"{path} does not end in .safetensors, .pth or .pt, the kinds of weights that can be read"
    )


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named tensors as .safetensors.

    Args:
        path: where the file is to be; what was there before stays until it is complete.
        tensors: arrays of the types that NumPy knows.
    """
    content = safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()})
    write_whole(path, lambda partial: partial.write_bytes(content))


def _read_safetensors(path: Path) -> StateDict:
    # Not the library's own reader of files: it knows no bfloat16 without PyTorch or JAX.
    try:
        entries = safetensors.deserialize(_bytes_of(path))
    except safetensors.SafetensorError as error:
        raise _damaged(path, f"it is no complete .safetensors file ({short(error)})") from error
    odd = [f"{name} ({entry['dtype']})" for name, entry in entries if entry["dtype"] not in _TYPES]
    if odd:
        raise InputError(f"{path} holds types that are not read: {few(odd)}; convert them first")
    return {name: _array(**entry) for name, entry in entries}


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    array = np.frombuffer(data, _TYPES[dtype]).reshape(shape)
    return array.astype(np.float32) if dtype == "BF16" else array


def _read_pth(path: Path) -> StateDict:
    _bytes_of(path, 1)
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} needs PyTorch to be read, which is not installed here; where it is, convert "
            "the file once: import torch, safetensors.torch; safetensors.torch.save_file("
            f"torch.load({path.name!r}, weights_only=True), {path.stem + '.safetensors'!r})"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler raises whatever the bytes lead to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise _damaged(path, f"PyTorch says: {short(reason)}") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds no named tensors but a {type(content).__name__}")
    others = [name for name, value in content.items() if not hasattr(value, "detach")]
    if others:
        raise InputError(
            f"{path} holds more than tensors: {few(map(str, others))}; save its state_dict alone"
        )
    try:
        return {str(name): _of_torch(value) for name, value in content.items()}
    except Exception as error:  # there are tensors that NumPy cannot hold
        raise InputError(
            f"{path} holds tensors that cannot be read ({short(error)}); convert them first"
        ) from error


def _of_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _bytes_of(path: Path, limit: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > _MOST_BYTES:
                raise InputError(
                    f"{path} has {size:,} bytes, above {_MOST_BYTES:,}; name a file of weights"
                )
            return file.read(limit)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} is damaged or not what its name says: {what}; fetch it again")


def few(names: Iterable[str], most: int = 4) -> str:
    """Lists the first names, each once, and says how many more there are."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(short(name, 100) for name in names[:most]) or "none") + more
