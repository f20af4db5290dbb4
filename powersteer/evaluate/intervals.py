"""Means over prompts, with 95% confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from .._util.checks import check_count
from .._util.html import table
from ..errors import InvalidInput, shown
from .distributions import Array

__all__ = ["SHARE", "MetricResult", "bootstrap", "percentiles", "resample_counts", "summaries", "summary", "wilson"]

RESAMPLES = 2000
LEVEL = 0.95
SHARE = "share"  # the unit of a mean of zeros and ones, which gets the Wilson interval


@dataclass(frozen=True, eq=False, repr=False)
class MetricResult(float):
    """Mean of a metric over prompts, with a 95% confidence interval. It is a float: `result < 5`, `np.log(result)` and
    `pytest.approx` use its `value`, and so do `==` and `hash`.

    `0.5 in result` says whether the interval contains a number. `a - b` of two means over the same prompts is a MetricResult
    with the bootstrap interval of the differences, prompt by prompt; of perplexities, which are not means, of different units
    and of different numbers of prompts it is a plain float. A result has no truth value: `assert result` raises InvalidInput,
    so that nobody tests by mistake whether a metric is anything but 0.

    Attributes
    ----------
    value
        The mean; for a perplexity, the exponential of the mean over tokens.
    low, high
        Bounds of the interval. NaN for one prompt, from which there is no spread to estimate.
    n
        Number of prompts.
    seed
        Seed of the bootstrap.
    values
        (n,), one for each prompt.
    unit
        "nats", "share", "ratio", "perplexity", or what the score is measured in.
    interval
        "bootstrap" (percentile) or "wilson" (of a proportion).

    Examples
    --------
    >>> import powersteer as ps
    >>> result = ps.evaluate.summary([1, 0, 1, 1], "share")
    >>> result
    MetricResult(0.75 [0.3006, 0.9544] share (n = 4))
    >>> result > 0.5, float(result), f"{result:.0%}", result.n, 0.5 in result
    (True, 0.75, '75%', 4, True)
    >>> print(result - ps.evaluate.summary([0, 0, 0, 1], "share"))
    0.5 [0, 1] difference of share (n = 4)
    """

    value: float
    low: float
    high: float
    n: int
    seed: int
    values: tuple[float, ...]
    unit: str
    interval: str = "bootstrap"

    def __new__(cls, value: float, *_: Any, **__: Any) -> MetricResult:
        return super().__new__(cls, value)

    def __bool__(self) -> bool:
        raise InvalidInput(f"a metric has no truth value: compare it with a number, as in `result > 0.5`; this one is {self}")

    def __contains__(self, number: float) -> bool:
        if math.isnan(self.low):
            raise InvalidInput(f"a metric of one prompt has no interval that could hold {shown(number)}; measure on more prompts")
        return self.low <= number <= self.high

    def __sub__(self, other: float) -> MetricResult | float:
        difference = super().__sub__(other)
        if not isinstance(other, MetricResult) or (self.n, self.unit) != (other.n, other.unit):
            return difference
        each = np.subtract(self.values, other.values)
        if not math.isclose(each.mean(), difference, rel_tol=1e-9, abs_tol=1e-9 * (abs(self.value) + abs(other.value))):
            return difference  # not of means
        return summary(each, f"difference of {self.unit}", self.seed)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit} (n = {self.n})"

    def __repr__(self) -> str:
        return f"MetricResult({self})"

    def _repr_html_(self) -> str:
        row = f"{self.value:.4g}", f"{self.low:.4g} to {self.high:.4g}", self.unit, self.n
        return table(("value", "95% interval", "unit", "prompts"), [row])


def bootstrap(
    values: Sequence[float] | Array, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Parameters
    ----------
    values : (n,)
        One number for each prompt.
    level
        Confidence level, between 0 and 1.
    resamples
        Number of resamples.
    seed
        Seed of the resampling; the same seed gives the same bits.

    Returns
    -------
    (low, high)
        NaN for fewer than two values.

    Raises
    ------
    InvalidInput
        If `values` is not a list of numbers, or a number is out of range.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Examples
    --------
    >>> import powersteer as ps
    >>> low, high = ps.evaluate.bootstrap([1.0, 2.0, 3.0, 4.0])
    >>> 1.0 <= low < 2.5 < high <= 4.0
    True
    """
    x = _checked_values(values)
    return percentiles(resample_counts(len(x), resamples, seed) @ x / len(x), len(x), level)


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a proportion; unlike the normal one it is sensible at 0 and at n successes.

    Parameters
    ----------
    successes, n
        Number of successes, and of trials.
    level
        Confidence level, between 0 and 1.

    Returns
    -------
    (low, high)

    Raises
    ------
    InvalidInput
        Unless 0 <= successes <= n, n >= 1 and 0 < level < 1.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.

    Examples
    --------
    >>> import powersteer as ps
    >>> low, high = ps.evaluate.wilson(3, 4)
    >>> round(low, 4), round(high, 4)
    (0.3006, 0.9544)
    """
    if not 0 <= successes <= n or n < 1:
        raise InvalidInput(f"wilson: {successes} successes of {n}; they must be 0 to n, and n >= 1")
    _check_level(level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, extra = successes / n, z * z / n
    middle = p + extra / 2
    half = z * math.sqrt((p * (1 - p) + extra / 4) / n)
    low, high = (middle - half) / (1 + extra), (middle + half) / (1 + extra)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def summary(values: Sequence[float] | Array, unit: str, seed: int = 0) -> MetricResult:
    """Mean of one number for each prompt, with its interval.

    Parameters
    ----------
    values : (n,)
        One number for each prompt.
    unit
        What the numbers are measured in. Numbers of unit "share" that are all 0 or 1 are a proportion and get the
        Wilson interval, all others the bootstrap interval.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InvalidInput
        If `values` is not a list of numbers.

    Examples
    --------
    >>> import powersteer as ps
    >>> print(ps.evaluate.summary([0.5, 0.5], "nats"))
    0.5 [0.5, 0.5] nats (n = 2)
    """
    return summaries([values], unit, seed)[0]


def summaries(table: Sequence[Sequence[float] | Array] | Array, unit: str, seed: int = 0) -> list[MetricResult]:
    """`summary` of every row of a table (rows, prompts), with the same resamples of prompts."""
    results, counts = [], None
    for x in map(_checked_values, table):
        if unit == SHARE and set(x.tolist()) <= {0.0, 1.0}:
            how = (*wilson(int(x.sum()), len(x)), "wilson")
        else:
            counts = resample_counts(len(x), RESAMPLES, seed) if counts is None else counts
            how = (*percentiles(counts @ x / len(x), len(x)), "bootstrap")
        low, high, interval = how
        results.append(MetricResult(float(x.mean()), low, high, len(x), seed, tuple(x.tolist()), unit, interval))
    return results


def _checked_values(values: Sequence[float] | Array) -> Array:
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"an interval needs a list of numbers, not {shown(values)}") from None
    if x.ndim != 1 or not len(x):
        raise InvalidInput(f"an interval needs a list of at least one number; got an array of shape {x.shape}")
    return x


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidInput(f"the level of an interval is {level!r}; it must lie between 0 and 1, such as 0.95")


def resample_counts(n: int, resamples: int, seed: int) -> Array:
    """(resamples, n): how often each of n values is in each resample."""
    rng = np.random.default_rng(check_count(seed, "seed", least=0))
    return rng.multinomial(n, np.full(n, 1 / n), size=check_count(resamples, "resamples")).astype(np.float64)


def percentiles(statistics: Array, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval from the resampled statistics (resamples,) of n values."""
    _check_level(level)
    if n < 2:
        return math.nan, math.nan
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
