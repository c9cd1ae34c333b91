"""Sets a scene: something over the infant's face, or things that lie where they do no harm.

Metres, the bed frame of `jaxbed.simulate.body`.
"""

import dataclasses

import numpy as np

from jaxbed.simulate.crib_covers import (
    edge_places,
    lay_beside,
    lay_on_face,
    length_to_hips,
    pull_to,
    sample_blanket,
    sample_hand,
    sample_pillow,
    sample_shroud,
    sample_toy,
)
from jaxbed.simulate.crib_scene import Scene
from jaxbed.simulate.face import Part

_LYING = ("back", "stomach")
_KINDS = {True: (0.35, 0.25, 0.25, 0.15), False: (0.45, 0.25, 0.3, 0.0)}
"""How often a face is covered by blanket, toy, hand and pillow, of who lies or does not."""


def sample_thing(rng: np.random.Generator, scene: Scene, kind: str) -> Part:
    """Draws a "toy", a "hand" or a "pillow" in its own frame."""
    if kind == "hand":
        return sample_hand(rng, scene.look.face)
    return {"toy": sample_toy, "pillow": sample_pillow}[kind](rng)


def cover_face(rng: np.random.Generator, scene: Scene, posture: str) -> tuple[Scene, str]:
    """Covers the face, wholly or at least nose and mouth; tells by which of COVERS."""
    lies = posture in _LYING
    kind = str(rng.choice(["blanket", "toy", "hand", "pillow"], p=_KINDS[lies]))
    reach = "half" if rng.random() < 0.35 else "whole"
    if kind != "blanket":
        thing = sample_thing(rng, scene, kind)
        part = lay_on_face(rng, scene.figure, thing, scene.camera.position_m)
        return dataclasses.replace(strew(rng, scene, posture, few=True), parts=(part,)), kind
    scene = dataclasses.replace(scene, pacifier=None)  # it would stick out of the cloth
    if lies:
        return _with_blanket(rng, scene, reach), kind
    shroud = sample_shroud(rng, scene.figure, reach)
    return dataclasses.replace(scene, shroud=shroud), kind


def _with_blanket(rng: np.random.Generator, scene: Scene, reach: str) -> Scene:
    """Pulls a blanket up to one of `edge_places` over who lies there."""
    figure = scene.figure
    place = edge_places(figure)[reach]
    length = np.inf if reach == "chest" else length_to_hips(figure, place)
    blanket = pull_to(sample_blanket(rng, scene.crib), figure, place, length)
    return dataclasses.replace(scene, blanket=blanket)


def strew(rng: np.random.Generator, scene: Scene, posture: str, *, few: bool = False) -> Scene:
    """Adds things that leave the face free, if only a `few`, no toys: what may deceive.

    Args:
        rng: where the randomness comes from.
        scene: what there is so far.
        posture: one of POSTURES.
        few: nothing but a blanket over the body.
    """
    cloth, toy, other = rng.random(3)
    if posture in _LYING and cloth < 0.5:
        scene = _with_blanket(rng, scene, "chest")
    elif posture == "sitting" and cloth < 0.3:
        hips = scene.figure.origins_m[0, 0, 1]
        blanket = dataclasses.replace(sample_blanket(rng, scene.crib), head_m=hips)
        scene = dataclasses.replace(scene, blanket=blanket)
    elif posture in ("sitting", "standing") and cloth > 0.85:
        scene = dataclasses.replace(scene, shroud=sample_shroud(rng, scene.figure, "chin"))
    if few:
        return scene
    parts = []
    if toy < 0.4:
        parts.append(lay_beside(rng, scene.crib, scene.figure, sample_thing(rng, scene, "toy")))
    if other < 0.15:
        parts.append(lay_beside(rng, scene.crib, scene.figure, sample_thing(rng, scene, "pillow")))
    elif other < 0.3:
        parts.append(lay_beside(rng, scene.crib, scene.figure, sample_thing(rng, scene, "hand")))
    return dataclasses.replace(scene, parts=tuple(parts))
