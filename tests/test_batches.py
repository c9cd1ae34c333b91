"""Splits and batches: nobody on both sides, order from (seed, step), nothing twice."""

import numpy as np
import pytest

from jaxbed.data import splits
from jaxbed.data.batches import eval_batches, train_batches
from jaxbed.errors import InputError

SUBJECT = np.array(["a", "a", "b", "c", "c", "c"])


def test_a_split_by_subject_shares_nobody():
    split = splits.by_subject(SUBJECT, ["c"])
    assert split.train.tolist() == [0, 1, 2]
    assert split.test.tolist() == [3, 4, 5]
    assert not split.subjects_shared


@pytest.mark.parametrize(
    ("tested", "told"),
    [
        (["d"], r"\['d'\] are not in the data"),
        (["a", "b", "c"], "either side"),
        ([], "either side"),
    ],
)
def test_an_impossible_split_is_refused(tested, told):
    with pytest.raises(InputError, match=told):
        splits.by_subject(SUBJECT, tested)


def test_a_leak_is_refused_unless_the_papers_protocol_is_asked_for():
    leaky = splits.Split(np.array([0, 2]), np.array([1, 3]), "by hand", subjects_shared=False)
    with pytest.raises(InputError, match="same subjects .a.*--protocol paper"):
        splits.checked(leaky, SUBJECT, protocol="subject")
    assert splits.checked(leaky, SUBJECT, protocol="paper").subjects_shared


def test_the_same_example_on_both_sides_is_always_refused():
    twice = splits.Split(np.array([0, 1]), np.array([1]), "by hand", subjects_shared=True)
    with pytest.raises(InputError, match="disjoint"):
        splits.checked(twice, SUBJECT, protocol="paper")


def test_the_papers_split_says_that_it_shares_subjects():
    split = splits.by_example(SUBJECT, test_fraction=0.5, seed=0)
    assert split.subjects_shared
    assert sorted([*split.train, *split.test]) == list(range(6))


def numbers(count):
    return {"x": np.arange(count), "y": np.arange(count) * 2}


def test_an_epoch_holds_every_example_once_and_the_next_is_in_another_order():
    batches = train_batches(numbers(12), batch_size=4, seed=0)
    epochs = [np.concatenate([batches[3 * e + i]["x"] for i in range(3)]) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_depends_on_seed_and_step_alone():
    one, two = (train_batches(numbers(10), batch_size=4, seed=7) for _ in range(2))
    assert one[5]["x"].tolist() == two[5]["x"].tolist()
    assert (one[5]["y"] == 2 * one[5]["x"]).all()
    other = train_batches(numbers(10), batch_size=4, seed=8)
    assert any(other[i]["x"].tolist() != one[i]["x"].tolist() for i in range(3))


def test_evaluation_sees_every_example_once_in_batches_of_one_shape():
    batches = list(eval_batches(numbers(7), batch_size=3))
    assert [len(b["x"]) for b in batches] == [3, 3, 3]
    real = np.concatenate([b["x"][b["mask"] == 1] for b in batches])
    assert real.tolist() == list(range(7))


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        train_batches({"x": np.arange(3), "y": np.arange(4)}, batch_size=2, seed=0)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="more than the 3 examples"):
        train_batches({"x": np.arange(3)}, batch_size=4, seed=0)
