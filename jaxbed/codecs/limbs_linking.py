"""Candidates of joints become limbs, on the host.

B images, K candidates for a joint; see jaxbed.codecs.limbs for the order of joints, limbs and
connections.

Source: Migliorelli et al. (see jaxbed.models.preterm_pose), joint linking. Differs from it in
that the two connections of a limb are matched together, see `match`.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


def link(
    xy_px: np.ndarray, scores: np.ndarray, *, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Links candidates to the limbs of one person per image.

    A limb with a missing joint or connection is missing: its three joints are NaN.

    Args:
        xy_px: f32[B,12,K,2], the candidates of every joint.
        scores: f32[B,8,K,K], those of their pairs along every connection, from inner to outer
            joint; -inf where there is no pair.
        threshold: what the score of a pair must exceed.

    Returns:
        f32[B,12,2], joints in pixels, and f32[B,4], the mean score of a limb's connections, 0
        if it is missing.
    """
    images, joints = xy_px.shape[:2]
    allowed = np.where(scores > threshold, scores, -np.inf)
    joints_px = np.full((images, joints, 2), np.nan, np.float32)
    limb_scores = np.zeros((images, joints // 3), np.float32)
    for image, limb in np.ndindex(limb_scores.shape):
        chains = match(*allowed[image, 2 * limb : 2 * limb + 2])
        if chains:
            total, chosen = max(chains, key=lambda chain: chain[0])
            joint = 3 * limb + np.arange(3)
            joints_px[image, joint] = xy_px[image, joint, chosen]
            limb_scores[image, limb] = total / 2
    return joints_px, limb_scores


def match(upper: np.ndarray, lower: np.ndarray) -> list[tuple[float, list[int]]]:
    """Finds the chains of three joints that share no joint and have the largest total weight.

    The paper matches each connection on its own, after which the two need not agree on the
    middle joint. Here one maximum-weight bipartite matching covers both, with the inner joints
    and the far ends of the middle ones on its left, the near ends of the middle joints and the
    outer ones on its right. A middle joint that is not used pairs with itself, so that it
    takes part in both connections or in none.

    Args:
        upper: f32[K,K], weight of every pair of inner and middle joint; -inf forbids it.
        lower: f32[K,K], likewise of middle and outer joint.

    Returns:
        Total weight and the indices of inner, middle and outer joint, for every chain.
    """
    count = len(upper)
    unused = np.where(np.eye(count), 0, -np.inf)
    left_over = np.zeros((count, count))  # inner joints with outer ones, in no chain
    weights = np.block([[upper, left_over], [unused, lower]])
    _, partner = linear_sum_assignment(weights, maximize=True)
    chains = []
    for inner, middle in enumerate(partner[:count]):
        if middle < count:
            outer = partner[count + middle] - count
            total = upper[inner, middle] + lower[middle, outer]
            chains.append((float(total), [inner, int(middle), int(outer)]))
    return chains
