"""Where keypoints fall on the bodies of PoPu: a weak check of what nobody annotated.

N maps, K keypoints. Places are (x to the right, y to the feet) in mm on the mat.
"""

from collections.abc import Sequence

import numpy as np

from experiments.keypoint_posture import Step
from experiments.keypoint_posture_data import PITCH_MM, SIZE
from jaxbed.codecs import mats
from jaxbed.data.body_parts import PARTS, Outline, part_at
from jaxbed.data.pressure import PressureMaps
from jaxbed.models.efd import HEATMAP_STRIDE

BESIDE = "beside the body"


def places_mm(
    maps: PressureMaps,
    steps: Sequence[Step],
    keypoints: np.ndarray,
    image_size: tuple[int, int],
) -> np.ndarray:
    """Tells where keypoints lie on the mat that the maps were measured with.

    Args:
        maps: N of them.
        steps: of the canonical frame, which moved them.
        keypoints: f32[N,K,D], of which columns 1 and 2 are row / h and column / w, counted from
            the middle of the first heatmap pixel.
        image_size: (H, W) of the encoder's input.

    Returns:
        f32[N,K,2].
    """
    pressure = mats.median_filtered(maps.pressure) if "median" in steps else maps.pressure
    on_grid = mats.resampled(pressure, maps.mat.pitch_mm, SIZE, PITCH_MM)
    shift = mats.centring_shift(on_grid) if "centred" in steps else np.zeros((len(maps), 2), int)
    corner = mats.centring_corner(maps.mat.size, maps.mat.pitch_mm, SIZE, PITCH_MM)
    # In canonical cells, from the outer corner of the first.
    middle = HEATMAP_STRIDE / 2 / np.asarray(image_size)
    cells = (keypoints[..., 1:3] + middle) * np.asarray(SIZE) - shift[:, None]
    return (cells * PITCH_MM + np.asarray(corner))[..., ::-1].astype(np.float32)


def shares(maps: PressureMaps, places: np.ndarray, outlines: Sequence[Outline]) -> dict[str, float]:
    """Returns the share of places f32[N,P,2] in every body part; NaN places do not count."""
    counts = np.zeros(len(PARTS) + 1)
    by_pose = {}
    for outline in outlines:
        by_pose.setdefault((outline.subject, outline.pose), []).append(outline)
    for i in range(len(maps)):
        pose = maps.label_names[maps.label[i]]
        drawn = by_pose.get((str(maps.subject[i]), pose)) or by_pose.get(("", pose))
        if drawn:
            known = places[i][np.isfinite(places[i]).all(axis=1)]
            counts += np.bincount(part_at(known, drawn) + 1, minlength=len(counts))
    total = max(counts.sum(), 1)
    named = dict(zip((BESIDE, *PARTS), (counts / total).tolist(), strict=True))
    return {name: named[name] for name in (*PARTS, BESIDE)}


def pressed_mm(maps: PressureMaps) -> np.ndarray:
    """Returns the middles of the pressed cells, f32[N,R*C,2]; NaN where nothing presses."""
    row, column = np.indices(maps.mat.size).reshape(2, -1)
    middle = (np.stack([column, row], axis=1) + 0.5) * maps.mat.pitch_mm
    limit = 0.05 * maps.mat.full_scale
    pressed = maps.pressure.reshape(len(maps), -1) > limit
    return np.where(pressed[..., None], middle, np.nan).astype(np.float32)
