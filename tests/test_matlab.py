"""Arrays of MATLAB files: those that SciPy writes and reads, and what is refused."""

import io

import numpy as np
import pytest
import scipy.io

from data_prep.matlab import read_array


def written(**variables) -> bytes:
    content = io.BytesIO()
    scipy.io.savemat(content, variables, do_compression=True)
    return content.getvalue()


@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 3, 5), (0, 4), (7, 1, 1, 2)])
def test_reads_what_was_written(dtype, shape, rng):
    array = rng.integers(0, 99, shape).astype(dtype)
    content = written(before=np.zeros(3), a_name_of_many_letters=array, ab="text")
    read = read_array(content, "a_name_of_many_letters")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array, strict=True)
    known = scipy.io.loadmat(io.BytesIO(content))["a_name_of_many_letters"]
    np.testing.assert_array_equal(read, known)


def test_reads_every_file_of_utd_mhad_as_scipy_does(raw_data):
    paths = sorted(raw_data.glob("utd_mhad/**/*.mat"))
    if not paths:
        pytest.skip("UTD-MHAD is not here")
    for path in paths[:20]:
        (name,) = (n for n, *_ in scipy.io.whosmat(path))
        known = scipy.io.loadmat(path)[name]
        np.testing.assert_array_equal(read_array(path.read_bytes(), name), known, strict=True)


@pytest.mark.parametrize("other", ["text", np.ones(2) + 1j, {"a": 1}, np.array([["a", 1]], object)])
def test_refuses_what_is_no_array_of_real_numbers(other):
    with pytest.raises(ValueError, match="holds a as something else than real numbers"):
        read_array(written(a=other), "a")


def test_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="holds no b"):
        read_array(written(a=np.ones(2)), "b")
