"""From a camera's frame to what the infant danger monitor needs to know, in one compiled call.

H W height and width of a frame, h w those of a network's input, N faces, F states of a face,
P postures. The frame is shrunk for the detector; the surest faces are cut out of the frame itself
and named; the posture is named from the shrunk frame. All shapes are fixed, whatever is found.

Source: "A deep-learning-based danger monitoring system for infants" (thesis), abstract: detector,
then a classifier of the face and one of the posture.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbed.codecs import boxes
from jaxbed.monitor.observation import Observation
from jaxbed.tasks.face_detector import detect
from jaxbed.tasks.infant_danger import crop_and_resize, read_rows, square_around

Variables = Mapping[str, Any]
"""Of the networks `detector`, `face` and `posture`."""

LEAST_CONTRAST = 3.0
"""Standard deviation of the grey levels, of 256, below which a frame shows nothing: a camera in
the dark, or one that something lies on."""

_CANDIDATES = 200  # boxes compared with each other: a frame shows one infant, not a crowd


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The networks and their sizes; all of it is known when compiling.

    Attributes:
        detector: finds faces, as jaxbed.tasks.face_detector takes it.
        detector_input: what it is to see of RGB [B,h,w,3] of 0 to 255; 0 is its neutral value.
        neutral_rgb: the colour that `detector_input` makes 0.
        levels: of its anchors.
        detector_size: (h, w) the frame is shrunk into, its proportions kept.
        network_size: (h, w) the detector wants, whatever the proportions; None for any.
        angles_deg: as of `detect`.
        score_threshold: what a face's score must exceed.
        iou_threshold: overlap above which the less sure of two faces is dropped.
        faces: N, how many are named.
        face: names the state of a face.
        face_states: the names, by index; "occluded" among them.
        face_size: (h, w) of its input.
        margin: by which share a crop is larger than the face, as of `square_around`.
        posture: names the posture.
        postures: the names, by index; "stomach" and "standing" among them.
        posture_size: (h, w) of its input.
        classifier_input: what the classifiers are to see of RGB f32[B,h,w,3] of 0 to 255.
    """

    detector: nn.Module
    detector_input: Callable[[jax.Array], jax.Array]
    neutral_rgb: tuple[float, float, float]
    levels: boxes.Levels
    face: nn.Module
    face_states: tuple[str, ...]
    posture: nn.Module
    postures: tuple[str, ...]
    classifier_input: Callable[[jax.Array], jax.Array]
    detector_size: tuple[int, int] = (240, 320)
    network_size: tuple[int, int] | None = None
    angles_deg: tuple[float, ...] = (0.0,)
    score_threshold: float = 0.5
    iou_threshold: float = 0.4
    faces: int = 1
    face_size: tuple[int, int] = (64, 64)
    margin: float = 0.3
    posture_size: tuple[int, int] = (96, 96)


class Seen(NamedTuple):
    """What is in a frame. Faces come with the surest first, NaN beyond the last.

    Attributes:
        boxes_px: f32[N,4] in the frame.
        landmarks_px: f32[N,5,2] in the frame; NaN, too, where the detector finds none.
        scores: f32[N], of the faces; 0 beyond the last.
        face_state: f32[N,F], probabilities.
        posture: f32[P], probabilities.
        contrast: f32[], standard deviation of the grey levels.
    """

    boxes_px: jax.Array
    landmarks_px: jax.Array
    scores: jax.Array
    face_state: jax.Array
    posture: jax.Array
    contrast: jax.Array


def look(variables: Variables, frame: jax.Array, *, pipeline: Pipeline) -> Seen:
    """Finds and names what a frame shows; to be compiled, see `compiled_look`.

    Args:
        variables: of the three networks.
        frame: u8[H,W,3], blue green red, as cameras' frames come.
        pipeline: what to do.
    """
    rgb = frame[..., ::-1]
    small, content, scale = shrunk(rgb, pipeline.detector_size, pipeline.neutral_rgb)
    found = detect(
        variables["detector"],
        small,
        network=pipeline.detector,
        network_input=pipeline.detector_input,
        levels=pipeline.levels,
        angles_deg=pipeline.angles_deg,
        network_size=pipeline.network_size,
        score_threshold=pipeline.score_threshold,
        iou_threshold=pipeline.iou_threshold,
        candidates=_CANDIDATES,
        count=pipeline.faces,
    )
    boxes_px = found.boxes_px / jnp.tile(scale, 2).reshape(1, 4)
    named = jax.vmap(partial(name_face, variables["face"], rgb, pipeline=pipeline))(boxes_px)
    whole = jnp.float32([0, 0, content[1], content[0]])
    crop = crop_and_resize(small, whole, size=pipeline.posture_size)
    logits = pipeline.posture.apply(
        variables["posture"], pipeline.classifier_input(crop[None]), train=False
    )["logits"]
    return Seen(
        boxes_px=boxes_px,
        landmarks_px=found.landmarks_px / scale.reshape(1, 1, 2),
        scores=found.scores,
        face_state=named,
        posture=nn.softmax(logits[0]),
        contrast=small[: content[0], : content[1]].mean(axis=-1).std(),
    )


def compiled_look(
    pipeline: Pipeline, compiler_options: dict[str, Any] | None = None
) -> Callable[[Variables, Any], Seen]:
    """Returns `look` for a pipeline, compiled once per size of the frame.

    Args:
        pipeline: what to do.
        compiler_options: as of `jax.jit`.
    """
    return jax.jit(partial(look, pipeline=pipeline), compiler_options=compiler_options)


def name_face(variables: Any, rgb: jax.Array, box: jax.Array, *, pipeline: Pipeline) -> jax.Array:
    """Returns the probabilities f32[F] of the states of a face; NaN where the box f32[4] is."""
    there = jnp.all(jnp.isfinite(box))
    # Something is cut out in any case: shapes and work do not depend on what is found.
    square = square_around(jnp.where(there, box, jnp.float32([0, 0, 1, 1])), margin=pipeline.margin)
    crop = crop_and_resize(rgb, square, size=pipeline.face_size)
    logits = pipeline.face.apply(variables, pipeline.classifier_input(crop[None]), train=False)
    return jnp.where(there, nn.softmax(logits["logits"][0]), jnp.nan)


def shrunk(
    rgb: jax.Array, size: tuple[int, int], neutral_rgb: tuple[float, float, float]
) -> tuple[jax.Array, tuple[int, int], jax.Array]:
    """Brings a frame into a size without squeezing it.

    Args:
        rgb: u8[H,W,3].
        size: (h, w).
        neutral_rgb: colour to the right of it or below it, where there is room left.

    Returns:
        f32[h,w,3]; (height, width) of what it shows of the frame, in the upper left corner; and
        f32[2], pixels of the result per pixel of the frame along x and y.
    """
    height, width = rgb.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    content = max(1, round(height * ratio)), max(1, round(width * ratio))
    samples = max(1, math.ceil(1 / (2 * ratio) - 0.05))
    rows = read_rows(rgb, 0, height, count=content[0], samples=samples)
    small = read_rows(rows, 0, width, count=content[1], samples=samples, axis=1)
    canvas = jnp.broadcast_to(jnp.float32(neutral_rgb).reshape(1, 1, 3), (*size, 3))
    canvas = canvas.at[: content[0], : content[1]].set(small)
    return canvas, content, jnp.float32([content[1] / width, content[0] / height])


class DangerObserver:
    """Asks the pipeline about frames, as `jaxbed.monitor.watch` wants to be told.

    Which score stands for which danger:

    - `occluded`: the probability of that state, the highest over the faces found. Without a face
      it is not judged (NaN): the infant may have turned away, or be gone. Alerts that are on stay
      on meanwhile. Where a missing face is to mean a covered one, it is the probability that the
      infant lies on its back: a detector finds no face under a blanket, and who lies on the back
      should show one.
    - `stomach` and `standing`: the probabilities of these postures.

    A frame that shows nothing is not judged at all. There is no score for an empty crib.
    """

    def __init__(
        self,
        variables: Variables,
        pipeline: Pipeline,
        *,
        missing_is_covered: bool = False,
        compiler_options: dict[str, Any] | None = None,
    ):
        self._variables = jax.device_put(variables)
        self._pipeline = pipeline
        self._look = compiled_look(pipeline, compiler_options)
        self._missing_is_covered = missing_is_covered

    def warm_up(self, size: tuple[int, int]) -> None:
        """Compiles for frames of (height, width), which the first of them else would wait for."""
        self(np.zeros((*size, 3), np.uint8))

    def __call__(self, frame: np.ndarray) -> Observation:
        """Judges a frame u8[H,W,3], blue green red."""
        seen = self._look(self._variables, frame)
        return self.observation(jax.device_get(seen))

    def observation(self, seen: Seen) -> Observation:
        """Tells what the pipeline's arrays mean."""
        posture = _by_name(self._pipeline.postures, seen.posture)
        there = seen.scores > 0
        named = seen.face_state[there]
        scores = {
            "occluded": math.nan,
            "stomach": posture["stomach"],
            "standing": posture["standing"],
        }
        state, note = {}, ""
        if there.any():
            state = _by_name(self._pipeline.face_states, named[0])
            occluded = self._pipeline.face_states.index("occluded")
            scores["occluded"] = float(named[:, occluded].max())
        else:
            note = "no face found"
            if self._missing_is_covered:
                scores["occluded"] = posture["back"]
        if not seen.contrast >= LEAST_CONTRAST:
            scores = dict.fromkeys(scores, math.nan)
            posture, state, note = {}, {}, "the picture shows nothing"
        faces = np.concatenate([seen.boxes_px, seen.scores[:, None]], axis=1)[there]
        return Observation(scores, faces, posture, state, note)


def _by_name(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
