"""Simulated scenes that a fixed camera takes of an infant, day or night: what films are made of.

The images of `jaxbed.simulate.crib` are taken from anywhere; a monitor's camera hangs somewhere
and sees the same crib all night. A rehearsal plays a short script before such a camera, in which
the infant does several times all that it does in a film, and takes pictures here and there.
"""

import numpy as np

from jaxbed.data.crib import LIGHTS, POSTURES, VIEWS, CribImages, Episode
from jaxbed.simulate.crib import face_state, sample_subject, sample_surroundings
from jaxbed.simulate.crib_light import develop, sample_exposure
from jaxbed.simulate.crib_player import Moment, Player, set_stage
from jaxbed.simulate.crib_script import LEADS_S, Script
from jaxbed.simulate.night import stream

_REHEARSAL = 40  # stream of randomness of a subject
_FIRST_NIGHT = 2000  # of rehearsals, so that their cribs are not those of films or of images
# Who lies on the stomach looks much like who lies on the back: more of that.
_ACTS = (*2 * ("occluded", "stomach", "standing"), "stomach", "sitting", "hand")
_HOLD_S, _REST_S = 2.0, 1.0
_PICTURES = {"rest": 5, "hold": 16, "move": 3}
PICTURES = sum(_PICTURES.values())
"""Of a rehearsal."""


def rehearse(
    *,
    subjects: int,
    rehearsals: int,
    size: tuple[int, int],
    views: tuple[str, ...],
    seed: int,
) -> CribImages:
    """Simulates rehearsals of some infants, each in other clothes, another crib and view.

    Args:
        subjects: how many; body and face are those of `simulate_crib_images` with the same seed.
        rehearsals: of each.
        size: (height, width) of the pictures.
        views: of the cameras, some of those of `jaxbed.simulate.crib_video`.
        seed: of all randomness.

    Returns:
        PICTURES of each rehearsal, subject by subject.
    """
    taken = [
        picture
        for subject in range(subjects)
        for night in range(rehearsals)
        for picture in _rehearsal(seed, subject, night, size, views)
    ]
    images, moments, views = zip(*taken, strict=True)
    faces = [moment.face for moment in moments]
    return CribImages(
        name="simulated",
        image=np.stack(images),
        posture=np.array([POSTURES.index(moment.posture) for moment in moments], np.int32),
        face=np.array([face_state(m.face, m.has_pacifier) for m in moments], np.int32),
        visible=np.array([face.visible for face in faces]),
        covered=np.array([face.covered for face in faces], np.float32),
        face_box=np.stack([face.box for face in faces]).astype(np.float32),
        landmarks=np.stack([face.landmarks for face in faces]).astype(np.float32),
        subject=np.repeat([f"sim-{s:03d}" for s in range(subjects)], rehearsals * PICTURES),
        view=np.array([VIEWS.index(view) for view in views], np.int32),
        light=np.array(
            [LIGHTS.index("day" if m.light.shape[-1] == 3 else "night") for m in moments], np.int32
        ),
    )


def sample_rehearsal(rng: np.random.Generator) -> Script:
    """Draws a script in which everything happens, in random order, half of it by night."""
    episodes, now = [], _REST_S
    for kind in rng.permutation(_ACTS):
        onset = now + LEADS_S[str(kind)]
        episodes.append(Episode(str(kind), onset, onset + _HOLD_S))
        now = onset + _HOLD_S + LEADS_S[str(kind)] + _REST_S
    dusk = rng.uniform(0, now)
    dark = (dusk, now) if rng.random() < 0.5 else (0.0, dusk)
    overlays = [Episode("night", *dark), Episode("pacifier", *sorted(rng.uniform(0, now, 2)))]
    return Script(now, (*overlays, *episodes))


def _rehearsal(
    seed: int, subject: int, night: int, size: tuple[int, int], views: tuple[str, ...]
) -> list[tuple[np.ndarray, Moment, str]]:
    """Returns pictures u8[h,w,3], what is true of them, and the view."""
    rng, stage_rng, play_rng = stream(seed, subject, _REHEARSAL, night).spawn(3)
    infant, face = sample_subject(seed, subject)
    look, crib = sample_surroundings(seed, subject, _FIRST_NIGHT + night, face)
    view = str(stage_rng.choice(views))
    script = sample_rehearsal(rng)
    player = Player(play_rng, set_stage(stage_rng, infant, look, crib, view, size), script)
    taken = []
    for time_s in _times(rng, script):
        moment = player.draw(time_s)
        exposure = sample_exposure(rng, by_day=moment.light.shape[-1] == 3)
        taken.append((develop(rng, moment.light * exposure.gain(moment.light)), moment, view))
    return taken


def _times(rng: np.random.Generator, script: Script) -> list[float]:
    """Draws when pictures are taken: at rest, in every act, and in movements."""
    rests, holds, moves = [(0.0, _REST_S)], [], []
    for act in script.episodes:
        if act.kind in LEADS_S:
            lead_s = LEADS_S[act.kind]
            holds.append((act.onset_s, act.end_s))
            moves += [(act.onset_s - lead_s, act.onset_s), (act.end_s, act.end_s + lead_s)]
            rests.append((act.end_s + lead_s, act.end_s + lead_s + _REST_S))
    times = []
    for kind, spans in (("rest", rests), ("hold", holds), ("move", moves)):
        # Every span once before any twice.
        order = np.resize(rng.permutation(len(spans)), _PICTURES[kind])
        times += [float(rng.uniform(*spans[n])) for n in order]
    return times
