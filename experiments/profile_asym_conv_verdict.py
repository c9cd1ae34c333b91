"""What follows from the measurements of the regression networks: savings, causes, verdicts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.profile_asym_conv_measured import Group, LayerTime, Total, best, in_lax
from jaxbed.efficiency.clocks import beside
from jaxbed.report import Claim

# The published saving is 66 % when it is printed like the paper's.
_ROUNDS_TO_PUBLISHED = 65.5

_PUBLISHED_BATCH = {"forward": 1, "train": 16}


class Saving(NamedTuple):
    """How much less time one program takes than another, in percent.

    Attributes:
        percent: by their medians.
        low: of the 95 % interval.
        high: of the 95 % interval.
    """

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.low:.1f} to {self.high:.1f})"


def saving(standard: Total, own: Total) -> Saving:
    """Compares two totals of one group."""
    compared = beside(np.array(standard.durations_ms), np.array(own.durations_ms))
    ratios = (compared.ratio, compared.ratio_high, compared.ratio_low)
    return Saving(*(100 * (1 - ratio) for ratio in ratios))


def attribution(
    standard: Total,
    standard_layers: Sequence[LayerTime],
    own: Total,
    own_layers: Sequence[LayerTime],
) -> dict[str, float]:
    """Says what turns the saving of MACs into the saving of time, in points of percent.

    A network that spent on everything in proportion to its exact MACs what the standard one
    does would save what it saves of them. Each cause is what it spends beyond that, as a share of
    the standard network's time; for convolutions by kernel, beside the mean rate of the standard
    network's.

    Returns:
        Cause to points; but for the last, "achieved", they add up to it.
    """
    nominal = own.macs_nominal / standard.macs_nominal
    exact = own.macs_exact / standard.macs_exact

    def points(standard_ms: float, own_ms: float) -> float:
        return 100 * (exact * standard_ms - own_ms) / standard.ms

    theirs, ours = _parts(standard, standard_layers), _parts(own, own_layers)
    mean_ms_per_mac = theirs.conv_ms / standard.macs_exact
    rates = {}
    for kernel in dict.fromkeys(row.kernel for row in own_layers):
        rows = [row for row in own_layers if row.kernel == kernel]
        expected_ms = mean_ms_per_mac * sum(row.macs_exact for row in rows)
        beyond_ms = sum(_beyond_traffic_ms(row) for row in rows) - expected_ms
        rates[f"MACs per second of {kernel} convolutions"] = -100 * beyond_ms / standard.ms
    return {
        "MACs, every tap": 100 * (1 - nominal),
        "taps on padding, of which 3x3x3 has more": 100 * (nominal - exact),
        "memory traffic that no convolution can hide": points(theirs.traffic_ms, ours.traffic_ms),
        **rates,
        "bias, normalisation and ReLU": points(theirs.norm_ms, ours.norm_ms),
        "the rest: loss, optimiser, copies, dispatch": points(theirs.rest_ms, ours.rest_ms),
        "achieved": 100 * (1 - own.ms / standard.ms),
    }


class _Parts(NamedTuple):
    """What a network's time consists of.

    Attributes:
        traffic_ms: what memory adds to the bounds of its convolutions.
        conv_ms: what they take beyond that.
        norm_ms: what follows them.
        rest_ms: what the layers do not explain.
    """

    traffic_ms: float
    conv_ms: float
    norm_ms: float
    rest_ms: float


def _parts(total: Total, layers: Sequence[LayerTime]) -> _Parts:
    traffic_ms = sum(row.bound_ms - row.arithmetic_ms for row in layers)
    conv_ms = sum(_beyond_traffic_ms(row) for row in layers)
    norm_ms = sum(row.norm_ms for row in layers)
    return _Parts(traffic_ms, conv_ms, norm_ms, total.ms - traffic_ms - conv_ms - norm_ms)


def _beyond_traffic_ms(row: LayerTime) -> float:
    return row.conv_ms - (row.bound_ms - row.arithmetic_ms)


def claims(totals: Sequence[Total], *, published: bool, device: str) -> list[Claim]:
    """Answers the paper's figures on time, as far as the asymmetric network was measured.

    Args:
        totals: of all groups.
        published: whether the networks are the published ones.
        device: that they ran on.
    """
    answers = []
    for claim, direction in (
        ("preterm.train.saving", "train"),
        ("preterm.predict.saving", "forward"),
    ):
        group = _group_to_judge(totals, direction)
        fastest = best(totals, group) if group else {}
        if "asymmetric" not in fastest:
            continue
        if not published:
            why = "the networks measured are not those of Table I; take --preset quick or paper"
            answers.append(Claim(claim, None, "not comparable", why))
            continue
        answers.append(_saving_claim(claim, fastest, in_lax(totals, group)))
        if direction == "forward":
            answers += _time_claims(fastest, device)
    return answers


def _saving_claim(claim: str, fastest: dict[str, Total], lax: dict[str, Total]) -> Claim:
    standard, own = fastest["standard"], fastest["asymmetric"]
    saved = saving(standard, own)
    if saved.percent >= _ROUNDS_TO_PUBLISHED:
        verdict = "reproduced"
    elif saved.high < _ROUNDS_TO_PUBLISHED:
        verdict = "not reproduced"
    else:
        verdict = "not comparable"
    why = (
        f"measured in turns, batch {own.batch_size}, {own.dtype}: {saved} with the best lowering "
        f"of each ({standard.lowering}, {own.lowering})"
    )
    if {"standard", "asymmetric"} <= lax.keys():
        why += f", {saving(lax['standard'], lax['asymmetric'])} in plain lax"
    nominal, exact = theory(standard, own)
    why += (
        f"; the MACs allow {nominal:.1f} % with every tap and {exact:.1f} % without those on "
        "padding, and 66.7 % only where all widths are equal"
    )
    if "lean" in fastest:
        why += f"; the lean network saves {saving(standard, fastest['lean'])}"
    return Claim(claim, saved.percent, verdict, why)


def _time_claims(fastest: dict[str, Total], device: str) -> list[Claim]:
    answers = []
    for claim, kind in (("preterm.time.asym", "asymmetric"), ("preterm.time.std", "standard")):
        total = fastest[kind]
        why = (
            f"an RTX 2080 there, {device} here; batch {total.batch_size}, {total.dtype}, "
            "the network alone. Only the ratio of the two compares, see the saving"
        )
        seconds = total.ms / 1e3 / total.batch_size
        answers.append(Claim(claim, seconds, "not comparable", why))
    return answers


def theory(standard: Total, own: Total) -> tuple[float, float]:
    """Returns the share of MACs saved, nominal and exact, in percent."""
    nominal = 100 * (1 - own.macs_nominal / standard.macs_nominal)
    exact = 100 * (1 - own.macs_exact / standard.macs_exact)
    return nominal, exact


def _group_to_judge(totals: Sequence[Total], direction: str) -> Group | None:
    """Returns the group nearest to how the paper measured: one clip, batches of 16 in training."""
    groups = list(dict.fromkeys(t.group for t in totals if t.direction == direction))
    wanted = _PUBLISHED_BATCH[direction]
    # Of equals the first, which has the first dtype asked for.
    return min(groups, key=lambda group: abs(group.batch_size - wanted), default=None)
