"""Results compared up to what does not matter: the interval of a metric, the sign of a vector, a rotation within a cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import check_positive
from ..errors import InvalidInput, shown
from ..evaluate.intervals import MetricResult
from ..linalg.result import SVDResult
from ..vectors.steering_vector import SteeringVector, action

__all__ = ["Approx", "approx"]

Array = NDArray[Any]
_REL = 1e-2  # of vectors and singular values; a sine of 0.01 is half a degree
_ROUNDING = 1e-6  # of a metric beyond its interval, relative


@dataclass(frozen=True, eq=False, repr=False)
class Approx:
    """A result that others may be compared with by `==`, made by `approx`.

    Attributes
    ----------
    expected, rel, abs
        As given to `approx`.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.testing.approx(0.5, abs=0.1)
    approx(0.5, abs=0.1)
    """

    expected: Any
    rel: float | None
    abs: float | None

    __array_ufunc__ = None  # NumPy leaves `array == approx(...)` to this class
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, actual: object) -> bool:
        return next(self._lines(actual), None) is None

    def differences(self, actual: object) -> list[str]:
        """What keeps `actual` from being equal, a line for each; the pytest plugin prints them below a failed assertion.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.testing.approx(0.5, abs=0.1).differences(0.7)
        ['0.7 differs from 0.5 by 0.2, more than 0.1']
        """
        return list(self._lines(actual))

    def _lines(self, actual: object) -> Iterator[str]:
        return _differences(actual, self.expected, self.rel, self.abs)

    def __repr__(self) -> str:
        given = "".join(
            f", {name}={value:g}" for name, value in (("rel", self.rel), ("abs", self.abs)) if value is not None
        )
        return f"approx({self.expected!r}{given})"


def approx(expected: Any, *, rel: float | None = None, abs: float | None = None) -> Approx:
    """Compare with a result up to what does not matter: `assert result == approx(expected)`.

    Parameters
    ----------
    expected
        A number, MetricResult, SteeringVector or SVDResult, or a list of these; see Notes.
    rel, abs
        Tolerance, the larger of rel * |expected| and abs. Without either: for metrics their interval, for vectors and SVDs
        rel=0.01.

    Raises
    ------
    InvalidInput
        For a value of another kind; where neither side is a metric with an interval and there is no tolerance.

    Notes
    -----
    Metrics: without a tolerance, a metric equals a number that its interval contains, and another metric of as many prompts if
    the interval of `a - b` contains 0. Few prompts have wide intervals: that two metrics are equal in this sense shows little,
    that they are not shows a difference.

    Vectors: equal if they are added at the same site and |v - w| or |v + w| is within the tolerance of |w|, v and w being what
    is added, scale included.

    SVDs: singular values are equal within the tolerance of the largest. Singular vectors are compared up to sign, and those of
    a cluster as the subspace that they span: the sine of the largest angle is at most the tolerance over sigma_1. A last cluster that
    goes on beyond k has no subspace to compare.

    Examples
    --------
    >>> import powersteer as ps
    >>> from powersteer.testing import approx
    >>> share = ps.evaluate.summary([1, 0, 1, 1], "share")
    >>> share == approx(0.5), share == approx(0.5, abs=0.1)
    (True, False)
    >>> J = ps.load("demo").jacobian("Q: 3*4\\nA:", source=1, target=3)
    >>> svd, again = J.svd(k=2), J.svd(k=2, method="dense")
    >>> svd == approx(again), -svd.vectors[0] == approx(again.vectors[0]), svd.vectors[1] == approx(again.vectors[0])
    (True, True, False)
    """
    _check_kind(expected)
    rel, abs = (None if x is None else check_positive(x, f"approx: {name}") for x, name in ((rel, "rel"), (abs, "abs")))
    return Approx(expected, rel, abs)


def _check_kind(expected: Any) -> None:
    if isinstance(expected, (list, tuple)):
        for item in expected:
            _check_kind(item)
    elif not isinstance(expected, (Real, SteeringVector, SVDResult)):
        raise InvalidInput(
            f"approx compares numbers, metrics, steering vectors, SVDs, and lists of these, not {shown(expected)}; "
            "numpy.testing.assert_allclose compares arrays"
        )


def _differences(actual: Any, expected: Any, rel: float | None, abs: float | None) -> Iterator[str]:
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            yield f"{shown(actual)} is not a list of {len(expected)}"
            return
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            yield from (f"[{i}]: {line}" for line in _differences(a, e, rel, abs))
        return
    kind, compare = next((k, c) for k, c in _COMPARE.items() if isinstance(expected, k))
    if isinstance(actual, kind):
        yield from compare(actual, expected, rel, abs)
    else:
        yield f"{shown(actual)} is not a {kind.__name__}"


def _tolerance(size: float, rel: float | None, abs: float | None) -> float:
    """Of something of this size; without rel and abs that of a vector."""
    return _REL * size if rel is None and abs is None else max((rel or 0.0) * size, abs or 0.0)


def _numbers(actual: Any, expected: Any, rel: float | None, abs: float | None) -> Iterator[str]:
    a, e = float(actual), float(expected)
    if rel is None and abs is None:
        yield from _outside(actual, expected)
        return
    allowed = _tolerance(math.fabs(e), rel, abs)
    if a != e and not math.fabs(a - e) <= allowed:
        yield f"{actual} differs from {expected} by {math.fabs(a - e):.3g}, more than {allowed:.3g}"


def _outside(actual: Any, expected: Any) -> Iterator[str]:
    """A line if an interval does not contain what it should."""
    both = isinstance(actual, MetricResult) and isinstance(expected, MetricResult)
    if both:
        metric, number = actual - expected, 0.0
    else:
        metric, number = (actual, expected) if isinstance(actual, MetricResult) else (expected, actual)
    if not isinstance(metric, MetricResult) or math.isnan(metric.low):
        raise InvalidInput(
            f"{actual} and {expected} have no interval to compare by; give approx a tolerance: abs= or rel="
        )
    slack = _ROUNDING * math.fabs(float(expected))
    if not metric.low - slack <= number <= metric.high + slack:
        yield f"the difference is {metric}, without 0" if both else f"{float(number):.4g} is not in the interval of {metric}"


def _vectors(actual: SteeringVector, expected: SteeringVector, rel: float | None, abs: float | None) -> Iterator[str]:
    if (actual.location, len(actual)) != (expected.location, len(expected)):
        yield f"it is of {len(actual)} numbers at {actual.location}, not of {len(expected)} at {expected.location}"
        return
    if actual.operation != expected.operation:
        yield f"it is {action(actual)}, not {action(expected)}"
        return
    if expected.operation == "clamp":  # to c along u is to -c along -u
        c, w = actual.scale, expected.direction.astype(np.float64)
        v = actual.direction.astype(np.float64)
        if v @ w < 0:
            c, v = -c, -v
        allowed = _tolerance(math.fabs(expected.scale), rel, abs)
        if not (np.linalg.norm(v - w) <= (rel or _REL) and math.fabs(c - expected.scale) <= allowed):
            yield f"it sets {c:.4g}, not {expected.scale:.4g} within {allowed:.3g}, along a direction at the cosine {v @ w:.4f}"
        return
    v, w = (np.asarray(x.direction, dtype=np.float64) * x.scale for x in (actual, expected))
    distance = min(np.linalg.norm(v - w), np.linalg.norm(v + w))
    allowed = _tolerance(math.fabs(expected.scale), rel, abs)
    if not distance <= allowed:
        cosine = float(actual.direction @ expected.direction)
        yield (
            f"up to sign the vectors are {distance:.3g} apart, more than {allowed:.3g}: their cosine is {cosine:.4f}, "
            f"their norms are {math.fabs(actual.scale):.4g} and {math.fabs(expected.scale):.4g}"
        )


def _svds(actual: SVDResult, expected: SVDResult, rel: float | None, abs: float | None) -> Iterator[str]:
    shapes = [(s.U.shape, s.Vh.shape) for s in (actual, expected)]
    if shapes[0] != shapes[1]:
        yield f"U and Vh are of the shapes {shapes[0]}, not {shapes[1]}"
        return
    first = float(expected.S[0])
    allowed = _tolerance(first, rel, abs)
    for rank, (a, e) in enumerate(zip(actual.S, expected.S, strict=True)):
        if not math.fabs(float(a) - float(e)) <= allowed:
            yield f"singular value {rank} is {a:.5g}, not {e:.5g} within {allowed:.3g}"
    sine = allowed / first if first else 0.0
    for ranks in _groups(actual, expected):
        (A, B), (C, D) = ((x[list(ranks)].astype(np.float64) for x in (s.Vh, s.U.T)) for s in (actual, expected))
        name = f"of rank {ranks[0]}" if len(ranks) == 1 else f"of ranks {ranks[0]} to {ranks[-1]}, a cluster,"
        for side, mine, theirs in (("right", A, C), ("left", B, D)):
            if not (angle := np.linalg.norm(mine - mine @ theirs.T @ theirs, 2)) <= sine:
                yield f"{side} vectors {name} are off: the sine of the largest angle is {angle:.3g}, more than {sine:.3g}"
                break
        else:  # the same subspaces; u and v of a triplet may turn only together
            if not np.linalg.norm(A @ C.T - B @ D.T, 2) <= 4 * sine:
                yield f"right and left vectors {name} do not belong together: a sign differs in one of them alone"


def _groups(a: SVDResult, b: SVDResult) -> Iterator[tuple[int, ...]]:
    """Ranks whose vectors are determined together, of both results; without a last cluster that goes on beyond k."""
    joined = {pair for s in (a, b) for ranks in s.clusters for pair in pairwise(ranks)}
    starts = [i for i in range(len(a)) if (i - 1, i) not in joined]
    groups = [tuple(range(i, j)) for i, j in pairwise([*starts, len(a)])]
    yield from groups[:-1] if a.cluster_open or b.cluster_open else groups


_COMPARE: dict[type[Any], Any] = {SteeringVector: _vectors, SVDResult: _svds, Real: _numbers}
