"""Rank correlation with an interval over groups of values that are alike."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

__all__ = ["Correlation", "correlation"]

RESAMPLES = 1000


class Correlation(NamedTuple):
    """Spearman's rho with its 95% bootstrap interval."""

    rho: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def correlation(x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable]) -> Correlation | None:
    """Resampled by group; None for fewer than three groups."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    kept = np.isfinite(x) & np.isfinite(y)
    by_group: dict[Hashable, list[int]] = {}
    for i in np.flatnonzero(kept):
        by_group.setdefault(groups[i], []).append(int(i))
    if len(by_group) < 3:
        return None
    members, rng = list(by_group.values()), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples without any variation
        draws = rng.integers(0, len(members), (RESAMPLES, len(members)))
        drawn = [np.concatenate([members[g] for g in draw]) for draw in draws]
        low, high = np.nanquantile([spearmanr(x[d], y[d]).statistic for d in drawn], [0.025, 0.975])
        return Correlation(float(spearmanr(x[kept], y[kept]).statistic), float(low), float(high))
