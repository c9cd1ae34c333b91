"""The pipeline from a frame to an observation: equal to its steps, and what its scores mean."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxbed.codecs import boxes
from jaxbed.data.crib import FACES, POSTURES
from jaxbed.efficiency.clocks import RecompilationCounter
from jaxbed.models.infant_danger import network_input, slim_resnet
from jaxbed.models.mobilenet import MobileNet
from jaxbed.models.retinaface import RetinaFace
from jaxbed.models.retinaface import network_input as detector_input
from jaxbed.tasks.danger_pipeline import DangerObserver, Pipeline, Seen, compiled_look, shrunk
from jaxbed.tasks.face_detector import detect
from jaxbed.tasks.infant_danger import crop_and_resize, square_around
from jaxbed.training.state import initialise, quick_compilation

NEUTRAL = (123.0, 117.0, 104.0)
FRAME = (60, 100)


@functools.cache
def tiny(angles=(0.0,), faces=3, threshold=0.3):
    pipeline = Pipeline(
        detector=RetinaFace(functools.partial(MobileNet, width=2), 8),
        detector_input=detector_input,
        neutral_rgb=NEUTRAL,
        levels=boxes.RETINAFACE_EDGE,
        face=slim_resnet(outputs=3, width=2),
        face_states=FACES,
        posture=slim_resnet(outputs=4, width=2),
        postures=POSTURES,
        classifier_input=network_input,
        detector_size=(48, 64),
        angles_deg=angles,
        score_threshold=threshold,
        faces=faces,
        face_size=(32, 32),
        posture_size=(32, 40),
    )
    sizes = {"detector": (48, 64), "face": (32, 32), "posture": (32, 40)}
    variables = {
        name: initialise(
            getattr(pipeline, name),
            jax.random.key(i),
            jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
        )
        for i, (name, size) in enumerate(sizes.items())
    }
    return pipeline, variables


def frame(rng, size=FRAME):
    return rng.integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("angles", [(0.0,), (0.0, 90.0)])
def test_one_call_does_what_the_steps_do_one_by_one(angles, rng):
    pipeline, variables = tiny(angles)
    bgr = frame(rng)
    seen = compiled_look(pipeline, quick_compilation())(variables, bgr)

    # By hand: 60x100 shrinks by 0.64 to 38x64 and leaves ten rows below.
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    small = crop_and_resize(
        jnp.asarray(rgb), jnp.float32([0, 0, 100, 60]), size=(38, 64), samples=1
    )
    canvas = np.tile(np.float32(NEUTRAL), (48, 64, 1))
    canvas[:38] = small
    found = detect(
        variables["detector"],
        canvas,
        network=pipeline.detector,
        network_input=detector_input,
        levels=boxes.RETINAFACE_EDGE,
        angles_deg=angles,
        score_threshold=0.3,
        candidates=200,
        count=3,
    )
    scale = np.float32([64 / 100, 38 / 60])
    found = jax.device_get(found)
    assert np.isfinite(found.boxes_px).all(), "the test needs faces"
    np.testing.assert_allclose(seen.boxes_px, found.boxes_px / np.tile(scale, 2), rtol=1e-4)
    np.testing.assert_allclose(seen.landmarks_px, found.landmarks_px / scale, rtol=1e-4)
    np.testing.assert_allclose(seen.scores, found.scores, rtol=1e-4)
    for box, state in zip(seen.boxes_px, seen.face_state, strict=True):
        square = square_around(box, margin=pipeline.margin)
        crop = crop_and_resize(jnp.asarray(rgb), square, size=(32, 32))
        logits = pipeline.face.apply(variables["face"], network_input(crop[None]), train=False)[
            "logits"
        ]
        np.testing.assert_allclose(state, nn.softmax(logits[0]), rtol=2e-3, atol=1e-4)
    whole = crop_and_resize(jnp.asarray(canvas), jnp.float32([0, 0, 64, 38]), size=(32, 40))
    logits = pipeline.posture.apply(variables["posture"], network_input(whole[None]), train=False)[
        "logits"
    ]
    np.testing.assert_allclose(seen.posture, nn.softmax(logits[0]), rtol=2e-3, atol=1e-4)
    assert float(seen.contrast) == pytest.approx(float(canvas[:38].mean(-1).std()), rel=1e-3)


def test_frames_without_a_face_have_the_same_shapes_and_no_names(rng):
    pipeline, variables = tiny(threshold=1.0)
    seen = compiled_look(pipeline, quick_compilation())(variables, frame(rng))
    assert seen.boxes_px.shape == (3, 4) and seen.face_state.shape == (3, 3)
    assert np.isnan(seen.boxes_px).all() and np.isnan(seen.face_state).all()
    assert not np.asarray(seen.scores).any()
    assert np.asarray(seen.posture).sum() == pytest.approx(1, abs=1e-5)


def test_nothing_is_compiled_again_whatever_a_frame_shows(rng):
    pipeline, variables = tiny()
    observer = DangerObserver(variables, pipeline, compiler_options=quick_compilation())
    observer.warm_up(FRAME)
    with RecompilationCounter() as compiled:
        for image in (frame(rng), np.zeros((*FRAME, 3), np.uint8), frame(rng)):
            observer(image)
    assert compiled.count == 0


@pytest.mark.parametrize("size", [(96, 128), (48, 64), (60, 100), (33, 20), (24, 32)])
def test_a_frame_keeps_its_proportions(size, rng):
    image = np.full((*size, 3), 200, np.uint8)
    canvas, content, scale = shrunk(jnp.asarray(image), (48, 64), NEUTRAL)
    assert canvas.shape == (48, 64, 3)
    assert content[0] == 48 or content[1] == 64
    assert content[1] / content[0] == pytest.approx(size[1] / size[0], rel=0.04)
    np.testing.assert_allclose(scale, [content[1] / size[1], content[0] / size[0]], rtol=1e-6)
    np.testing.assert_allclose(canvas[: content[0], : content[1]], 200, atol=1e-3)
    outside = np.ones((48, 64), bool)
    outside[: content[0], : content[1]] = False
    np.testing.assert_allclose(np.asarray(canvas)[outside], np.tile(NEUTRAL, (outside.sum(), 1)))


def test_a_frame_of_twice_the_size_is_averaged(rng):
    image = rng.integers(0, 256, (96, 128, 3), np.uint8)
    canvas, _, _ = shrunk(jnp.asarray(image), (48, 64), NEUTRAL)
    want = image.reshape(48, 2, 64, 2, 3).mean((1, 3))
    np.testing.assert_allclose(canvas, want, atol=1e-3)


# what the numbers mean


def seen(states=(), posture=(0.7, 0.1, 0.1, 0.1), contrast=40.0):
    boxes_px = np.full((3, 4), np.nan, np.float32)
    scores, named = np.zeros(3, np.float32), np.full((3, 3), np.nan, np.float32)
    for i, state in enumerate(states):
        boxes_px[i], scores[i], named[i] = (10 * i, 0, 10 * i + 5, 5), 0.9 - 0.1 * i, state
    landmarks = np.full((3, 5, 2), np.nan, np.float32)
    return Seen(boxes_px, landmarks, scores, named, np.float32(posture), np.float32(contrast))


def observer(**settings):
    return DangerObserver({}, tiny()[0], **settings)


def test_scores_are_the_probabilities_of_the_dangers():
    found = observer().observation(seen([(0.2, 0.5, 0.3)], (0.1, 0.2, 0.3, 0.4)))
    assert found.scores == pytest.approx({"occluded": 0.3, "stomach": 0.2, "standing": 0.4})
    assert found.face_state == pytest.approx({"clear": 0.2, "pacifier": 0.5, "occluded": 0.3})
    assert found.posture["standing"] == pytest.approx(0.4)
    np.testing.assert_allclose(found.faces, [[0, 0, 5, 5, 0.9]])
    assert found.note == ""


def test_the_worst_of_several_faces_counts_and_the_surest_is_told():
    found = observer().observation(seen([(0.9, 0.0, 0.1), (0.1, 0.1, 0.8)]))
    assert found.scores["occluded"] == pytest.approx(0.8)
    assert found.face_state["clear"] == pytest.approx(0.9)
    assert len(found.faces) == 2


def test_without_a_face_nobody_knows_whether_it_is_covered():
    found = observer().observation(seen())
    assert math.isnan(found.scores["occluded"]) and found.face_state == {}
    assert found.faces.shape == (0, 5) and found.note == "no face found"


def test_a_face_missing_on_the_back_is_a_danger_where_asked_for():
    asked = observer(missing_is_covered=True)
    assert asked.observation(seen()).scores["occluded"] == pytest.approx(0.7)
    assert asked.observation(seen([(1, 0, 0)])).scores["occluded"] == 0
    turned = asked.observation(seen(posture=(0.1, 0.9, 0, 0)))
    assert turned.scores["occluded"] == pytest.approx(0.1)


@pytest.mark.parametrize("contrast", [0.0, 2.9, np.nan])
def test_a_frame_that_shows_nothing_is_not_judged(contrast):
    found = observer(missing_is_covered=True).observation(seen([(0, 0, 1)], (0, 1, 0, 0), contrast))
    assert all(map(math.isnan, found.scores.values())) and len(found.scores) == 3
    assert found.posture == {} and found.face_state == {}
    assert found.note == "the picture shows nothing"
