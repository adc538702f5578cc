"""Means, spreads and paired differences over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from scipy import stats

#: Fewer seeds show no gain, whatever their interval: three that agree by chance are no rarity.
LEAST_SEEDS = 5


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and half the width of its 95 % interval (Student's t over the seeds)."""

    mean: float
    half_width: float
    seeds: int

    @property
    def beats(self) -> bool:
        """Whether the whole interval is above 0, of enough seeds."""
        return self.seeds >= LEAST_SEEDS and self.mean - self.half_width > 0


def paired_difference(ours: pd.Series[float], control: pd.Series[float]) -> Difference | None:
    """How much better `ours` is, pairing the seeds that both have.

    Args:
        ours: Scores by seed.
        control: Scores by seed.

    Returns:
        The difference; None with fewer than two common seeds, from which no spread can be told.
    """
    both = (ours - control).dropna()
    if len(both) < 2:
        return None
    half_width = float(stats.t.ppf(0.975, len(both) - 1) * both.sem())
    return Difference(float(both.mean()), half_width, len(both))
