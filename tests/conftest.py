"""Two CPU devices, strict shapes, one store of compiled programs, and where the real data lies."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that several tests need are compiled once; commands that tests start find them too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxbed-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def raw_data() -> Path:
    """The folder of real recordings; a test that asks for it is skipped without one."""
    folder = os.environ.get("JAXBED_RAW_DATA")
    if not folder:
        pytest.skip("JAXBED_RAW_DATA is not set: no real recordings here")
    return Path(folder)
