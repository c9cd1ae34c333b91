"""Files of named tensors: both kinds, and every kind of bad file."""

import json
import sys
import types

import numpy as np
import pytest

from jaxbed.errors import InputError
from jaxbed.weights.state_dict import read_state_dict, write_state_dict

ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def safetensors(header, values=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def test_a_file_written_byte_by_byte_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [16, 20]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "n": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
        "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [20, 20]},
    }
    values = np.float32([1.5, -2]).tobytes() + np.int64(-7).tobytes() + b"\x80\x3f\x00\xc0"
    path.write_bytes(safetensors(header, values))
    tensors = read_state_dict(path)
    assert tensors.keys() == {"a", "b", "n", "empty"}
    np.testing.assert_array_equal(tensors["a"], np.float32([1.5, -2]))
    np.testing.assert_array_equal(tensors["b"], np.float32([[1], [-2]]))
    assert tensors["n"] == -7 and tensors["n"].shape == () and tensors["empty"].shape == (0, 3)


def test_tensors_of_every_type_survive_a_file(tmp_path, rng):
    path = tmp_path / "a.safetensors"
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1", ">f4"]
    tensors = {k: (100 * rng.random((2, 3))).astype(k).T for k in kinds} | {"0": np.float32([[]])}
    write_state_dict(path, tensors)
    for name, tensor in read_state_dict(path).items():
        np.testing.assert_array_equal(tensor, tensors[name], strict=name != ">f4")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10\0\0\0\0\0\0\0{}",
        b"PK\x03\x04" + bytes(60),
        safetensors(b"{not json"),
        safetensors(b"\xff\xfe\xfd"),
        safetensors(b"[" * 100_000),
        safetensors(b"3"),
        safetensors({"a": 3}),
        safetensors({"a": {"dtype": "F32", "shape": [2]}}),
        safetensors({"a": {**ONE["a"], "shape": [-2]}}),
        safetensors({"a": {**ONE["a"], "shape": [3]}}),
        safetensors({"a": {**ONE["a"], "data_offsets": [4, 12]}}),
        safetensors({**ONE, "b": ONE["a"]}),
        safetensors(ONE, b"\0" * 7),
        safetensors(ONE, b"\0" * 9),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no complete .safetensors file") as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"a": {**ONE["a"], "dtype": "F8_E4M3", "shape": [8]}}))
    with pytest.raises(InputError, match=r"a \(F8_E4M3\)"):
        read_state_dict(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("none.safetensors", "none.pth", "folder.safetensors"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_state_dict(tmp_path / name)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="a.onnx does not end in .safetensors, .pth or .pt"):
        read_state_dict(tmp_path / "a.onnx")


class Tensor:
    """As much of a torch.Tensor as is used."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def detach(self):
        return self

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self):
        return self.array


@pytest.fixture
def pth(tmp_path, monkeypatch):
    """Returns a .pth file, and a function that says what PyTorch finds in it."""
    path = tmp_path / "a.pth"
    path.write_bytes(b"PK")

    def holds(content):
        def load(file, *, map_location, weights_only):
            assert (file, map_location, weights_only) == (path, "cpu", True)
            if isinstance(content, Exception):
                raise content
            return content

        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))

    return path, holds


def test_without_pytorch_a_pth_says_how_to_convert_it(pth, monkeypatch):
    path, _ = pth
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"save_file\(torch.load\('a.pth', weights_only=True\)"):
        read_state_dict(path)


def test_pytorch_reads_weights_only_and_a_wrapped_state_dict(pth):
    path, holds = pth
    tensors = {"a": Tensor(np.float64([1, 2])), "n.num_batches_tracked": Tensor(np.int64(3))}
    for content in (tensors, {"state_dict": tensors, "epoch": 9}):
        holds(content)
        read = read_state_dict(path)
        assert list(read) == list(tensors)
        assert read["a"].dtype == np.float32 and read["n.num_batches_tracked"] == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (RuntimeError("PytorchStreamReader failed\nmore"), "damaged.*PytorchStreamReader failed;"),
        (EOFError(), "damaged.*EOFError"),
        ([1, 2], "holds no named tensors but a list"),
        ({}, "holds no named tensors"),
        ({"a": Tensor([1.0]), "epoch": 3}, "more than tensors: epoch"),
    ],
)
def test_a_pth_that_holds_no_weights_is_told(pth, content, told):
    path, holds = pth
    holds(content)
    with pytest.raises(InputError, match=told):
        read_state_dict(path)


def test_published_weights_can_be_read(raw_data):
    tensors = read_state_dict(raw_data / "weights" / "retinaface_mobilenet0.25_Final.safetensors")
    assert len(tensors) == 300
    assert tensors["body.stage1.0.0.weight"].shape == (8, 3, 3, 3)
    weights = [t for name, t in tensors.items() if name.endswith("weight")]
    assert all(t.dtype == np.float32 and 0 < np.abs(t).max() < 100 for t in weights)
