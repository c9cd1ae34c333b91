"""Metrics: merged parts equal the whole, padding does not count."""

import numpy as np
import pytest

from jaxbed.metrics import Average, FScore


def fscore_oracle(predicted, label):
    scores = []
    for c in (0, 1):
        hits = np.sum((predicted == c) & (label == c))
        scores.append(2 * hits / (np.sum(predicted == c) + np.sum(label == c)))
    return np.mean(scores)


@pytest.fixture
def prediction(rng):
    return rng.normal(size=(5, 6, 7, 2)).astype(np.float32), rng.integers(0, 2, (5, 6, 7))


def test_fscore_is_dice_averaged_over_the_classes(prediction):
    logits, label = prediction
    ours = FScore.from_model_output(logits=logits, label=label, mask=np.ones(5, np.float32))
    assert float(ours.compute()) == pytest.approx(fscore_oracle(logits.argmax(-1), label))


def test_merged_parts_equal_the_whole_and_padding_does_not_count(prediction):
    logits, label = prediction
    first = FScore.from_model_output(
        logits=logits[:3], label=label[:3], mask=np.ones(3, np.float32)
    )
    padded = np.array([1, 0, 0], np.float32)
    second = FScore.from_model_output(
        logits=logits[3:].repeat(2, 0)[:3], label=label[3:].repeat(2, 0)[:3], mask=padded
    )
    merged = float(first.merge(second).compute())
    assert merged == pytest.approx(fscore_oracle(logits[:4].argmax(-1), label[:4]))


def test_perfect_and_worst_predictions_score_one_and_zero():
    label = np.array([[[0, 1], [1, 0]]])
    right = np.eye(2, dtype=np.float32)[label]
    mask = np.ones(1, np.float32)
    assert float(FScore.from_model_output(logits=right, label=label, mask=mask).compute()) == 1
    assert float(FScore.from_model_output(logits=-right, label=label, mask=mask).compute()) == 0


def test_a_class_that_nobody_has_or_predicts_does_not_spoil_the_score():
    label = np.zeros((1, 2, 2), int)
    logits = np.eye(2, dtype=np.float32)[label]
    mask = np.ones(1, np.float32)
    assert float(FScore.from_model_output(logits=logits, label=label, mask=mask).compute()) == 1


def test_average_leaves_out_masked_values():
    part = Average.from_model_output(values=np.array([1.0, 3.0, 99.0]), mask=np.array([1, 1, 0]))
    assert float(part.compute()) == 2.0
