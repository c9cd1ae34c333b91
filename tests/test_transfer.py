"""Weight transfer: every leaf is accounted for."""

import numpy as np
import pytest

from jaxbed.training.transfer import transfer


def trees():
    source = {"params": {"a": np.ones(2), "out": np.ones((3, 2))}, "batch_stats": {"m": np.ones(1)}}
    target = {
        "params": {"a": np.zeros(2), "out": np.zeros((3, 1))},
        "batch_stats": {"m": np.zeros(1)},
    }
    return source, target


def test_matching_leaves_are_taken_and_declared_ones_stay_fresh():
    source, target = trees()
    moved, account = transfer(source, target, fresh=["params/out"])
    assert moved["params"]["a"].tolist() == [1, 1]
    assert moved["params"]["out"].shape == (3, 1)
    assert not moved["params"]["out"].any()
    assert account.taken == ("batch_stats/m", "params/a")
    assert account.reshaped == ("params/out (3, 2) -> (3, 1)",)
    assert account.left == ()


def test_every_leaf_of_both_sides_is_in_the_account():
    source, target = trees()
    source["params"]["old"], target["params"]["new"] = np.ones(1), np.zeros(1)
    _, account = transfer(source, target, fresh=["params/o*", "params/new"])
    assert set(account.left) == {"params/new", "params/old"}
    assert len(account.taken) + len(account.reshaped) + len(account.left) == 5


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_unexpected_name_is_an_error_that_lists_both_sides(side):
    source, target = trees()
    {"source": source, "target": target}[side]["params"]["extra"] = np.ones(1)
    with pytest.raises(ValueError, match=r"only in the target .*only in the source") as caught:
        transfer(source, target, fresh=["params/out"])
    assert "params/extra" in str(caught.value)


def test_an_undeclared_change_of_shape_is_an_error():
    with pytest.raises(ValueError, match=r"params/out \(3, 2\) -> \(3, 1\)"):
        transfer(*trees())
