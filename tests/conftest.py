"""Two CPU devices, strict shapes, and where the real data lies."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

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
