"""Percentiles of any number of durations in a fixed amount of memory."""

import math

import numpy as np

_LEAST_MS, _MOST_MS, _RATIO = 0.1, 100_000.0, 1.02
_BINS = math.ceil(math.log(_MOST_MS / _LEAST_MS) / math.log(_RATIO))


class Histogram:
    """Counts durations in bins that grow by 2 %, from 0.1 ms to 100 s.

    Attributes:
        count: durations so far.
        most_ms: the longest one.
    """

    def __init__(self):
        self._counts = np.zeros(_BINS, np.int64)
        self.count, self.most_ms = 0, 0.0

    def add(self, duration_ms: float) -> None:
        """Counts a duration."""
        place = math.log(max(duration_ms, _LEAST_MS) / _LEAST_MS) / math.log(_RATIO)
        self._counts[min(int(place), _BINS - 1)] += 1
        self.count += 1
        self.most_ms = max(self.most_ms, duration_ms)

    def percentile_ms(self, share: float) -> float:
        """Returns what a share of the durations stays below, 2 % high at most; NaN for none.

        Args:
            share: within (0, 1].
        """
        if not self.count:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self._counts), share * self.count))
        return min(_LEAST_MS * _RATIO ** (place + 1), self.most_ms)
