"""What the sleep posture study says of the paper's claims.

The paper's images are not public, so its percentages are nobody's to reproduce. Which network is
better than which can be: with at least three seeds, from differences within each.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.sleep_posture_scores import over_seeds
from jaxbed.report import Claim

Scores = Mapping[str, Sequence[Mapping[str, float]]]
"""By label, one score by quantity for every seed, in percent."""

TABLE_I = {
    "resnet": {"posture": 91.21, "prone": 98.84, "supine": 88.23, "left": 90.66, "right": 84.98},
    "densenet": {"posture": 89.33, "prone": 78.96, "supine": 93.02, "left": 96.89, "right": 91.30},
    "multi_task": {"posture": 93.38},
    "dl": {
        "posture": 94.62,
        "prone": 91.07,
        "supine": 95.87,
        "left": 93.39,
        "right": 99.21,
        "blanket": 98.81,
    },
}
"""Published percentages by arm; that of multi_task is from Table II, the blanket's from the text.
Left of dl is printed 99.39, and the columns of prone and supine may be exchanged."""

BEST_WEIGHT = 0.5
"""Of the blanket in the paper's Fig. 3."""

_SHARES = {
    "sleep.acc.resnet": ("resnet", "posture"),
    "sleep.acc.densenet": ("densenet", "posture"),
    "sleep.acc.dl": ("dl", "posture"),
    "sleep.acc.dl.prone": ("dl", "prone"),
    "sleep.acc.dl.supine": ("dl", "supine"),
    "sleep.acc.dl.left": ("dl", "left"),
    "sleep.acc.dl.right": ("dl", "right"),
    "sleep.acc.blanket": ("dl", "blanket"),
}
GAINS = {"sleep.gain.mtl": ("multi_task", "resnet"), "sleep.gain.cbam": ("dl", "multi_task")}
_ENOUGH_SEEDS = 3


def claims(scores: Scores, *, about: str, weights: Mapping[str, float]) -> list[Claim]:
    """Puts our figures beside the published ones.

    Args:
        scores: of every label.
        about: what the figures here are of: data, split and size, one phrase.
        weights: the blanket's weight by label, where those were compared; else empty.
    """
    answers = [
        Claim(
            claim,
            mean_score(scores[arm], quantity),
            "not comparable",
            f"the paper's images are not public; ours are {about}",
        )
        for claim, (arm, quantity) in _SHARES.items()
        if arm in scores
    ]
    for claim, (better, worse) in GAINS.items():
        if {better, worse} <= set(scores):
            answers.append(_gain_claim(claim, paired(scores, better, worse), about))
    if weights:
        answers.append(_weight_claim(scores, weights, about))
    return answers


def mean_score(seeds: Sequence[Mapping[str, float]], quantity: str) -> float:
    """Averages one quantity over seeds."""
    return float(np.mean([scores[quantity] for scores in seeds]))


def mean_of_arm(scores: Scores, arm: str) -> float:
    """Averages the postures recognised by an arm over seeds, and over weights if several."""
    labels = [label for label in scores if label == arm or label.startswith(f"{arm}_w")]
    return float(np.mean([mean_score(scores[label], "posture") for label in labels]))


def paired(scores: Scores, label: str, other: str, quantity: str = "posture") -> list[float]:
    """Returns, for every seed, by how many points a label is above another."""
    return [
        own[quantity] - beside[quantity]
        for own, beside in zip(scores[label], scores[other], strict=True)
    ]


def _gain_claim(claim: str, gains: Sequence[float], about: str) -> Claim:
    gain = over_seeds(gains)
    told = ", ".join(f"{points:+.2f}" for points in gains)
    if len(gains) < _ENOUGH_SEEDS:
        why = f"{len(gains)} of at least {_ENOUGH_SEEDS} seeds ({told}); ask for --seeds"
        return Claim(claim, gain.mean, "not comparable", why)
    why = f"by the order, not the size: {gain} points, by seed {told}; {about}"
    verdict = "reproduced" if gain.low > 0 else "not reproduced"
    return Claim(claim, gain.mean, verdict, why)


def _weight_claim(scores: Scores, weights: Mapping[str, float], about: str) -> Claim:
    """Judges whether the published weight is better than every other one with every seed."""
    means = {label: mean_score(scores[label], "posture") for label in weights}
    best = max(means, key=means.get)
    told = ", ".join(f"{weights[label]:g}: {value:.2f} %" for label, value in means.items())
    seeds = len(scores[best])
    published = [label for label, weight in weights.items() if weight == BEST_WEIGHT]
    if seeds < _ENOUGH_SEEDS or not published:
        why = f"{seeds} of at least {_ENOUGH_SEEDS} seeds; postures by weight {told}"
        if not published:
            why = f"{BEST_WEIGHT:g} is not among --blanket-weights; postures by weight {told}"
        return Claim("sleep.weight.best", weights[best], "not comparable", why)
    others = [label for label in weights if label != published[0]]
    ahead = all(min(paired(scores, published[0], other)) > 0 for other in others)
    why = (
        f"postures by weight over {seeds} seeds {told}; {BEST_WEIGHT:g} is ahead of every other "
        f"with every seed: {'yes' if ahead else 'no'}; {about}"
    )
    return Claim(
        "sleep.weight.best", weights[best], "reproduced" if ahead else "not reproduced", why
    )
