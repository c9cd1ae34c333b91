"""Ceilings against a clock that is made up, bounds against arithmetic by hand."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from jaxbed.efficiency.ceilings import Ceilings, measure, mfu, ridge, time_bound


def test_rates_are_the_work_of_all_devices_over_the_shortest_call():
    # Every call takes 2 s, but the second of each four, which takes half a second.
    durations_s = itertools.cycle([2.0, 0.5, 2.0, 2.0])
    now, begun = 0.0, False

    def clock() -> float:
        nonlocal now, begun
        now += next(durations_s) if begun else 0.0
        begun = not begun
        return now

    found = measure((jnp.float32, jnp.bfloat16), side=8, copy_bytes=4096, calls=4, clock=clock)
    devices = jax.device_count()
    assert devices == 2
    assert found.flop_per_s == {
        "float32": devices * 2 * 8**3 / 0.5,
        "bfloat16": devices * 2 * 8**3 / 0.5,
    }
    assert found.bytes_per_s == devices * 2 * 4096 / 0.5


def test_the_slower_of_arithmetic_and_memory_is_the_bound():
    bound = time_bound(3e9, 1e6, flop_per_s=1e9, bytes_per_s=1e9)
    assert (bound.ms, bound.by) == (3000, "arithmetic")
    bound = time_bound(3e6, 4e9, flop_per_s=1e9, bytes_per_s=1e9)
    assert (bound.ms, bound.by) == (4000, "memory")
    assert bound.arithmetic_ms == pytest.approx(3)


def test_at_the_ridge_both_bounds_are_equal():
    ceilings = Ceilings({"float32": 200e9}, bytes_per_s=25e9)
    intensity = ridge(ceilings, "float32")
    assert intensity == 8
    bound = time_bound(
        intensity * 1000, 1000, flop_per_s=ceilings.flop_per_s["float32"], bytes_per_s=25e9
    )
    assert bound.arithmetic_ms == pytest.approx(bound.memory_ms)


def test_utilisation_is_the_share_of_the_ceiling():
    assert mfu(50e9, 500, flop_per_s=200e9) == pytest.approx(0.5)
