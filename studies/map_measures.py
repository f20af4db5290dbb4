"""What maps of a model have in common: shares of subspaces, how they turn with depth, correlations between maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import powersteer as ps

__all__ = ["additive_rest", "agreement", "decay", "principal_cosines", "shared", "spans", "turning"]

Array = NDArray[Any]
Spans = dict[tuple[int, int | str], Array]  # by source and target: orthonormal rows
_RESAMPLES = 1000


def principal_cosines(A: Array, B: Array) -> Array:
    """Cosines of the principal angles between the spans of orthonormal rows (..., k, d), descending."""
    return np.minimum(np.linalg.svd(A @ np.swapaxes(B, -1, -2), compute_uv=False), 1.0)


def shared(A: Array, B: Array) -> Array:
    """How much of one span of k dimensions lies in another: the mean squared cosine of their principal angles. Of random spans
    of k among d dimensions it is k / d on average."""
    return np.asarray((principal_cosines(A, B) ** 2).mean(-1))


def spans(atlas: ps.Atlas, k: int) -> Spans:
    """Of every computed pair of an atlas the first k right singular vectors."""
    found: dict[tuple[int, int | str], list[Array]] = defaultdict(list)
    for v in atlas.vectors():
        target = v.target if isinstance(v.target, str) else v.target[0]
        if v.rank < k:
            found[v.layer, target].append(v.direction)
    return {pair: np.array(rows, np.float64) for pair, rows in found.items() if len(rows) == k}


def turning(found: Spans) -> dict[str, dict[int, list[float]]]:
    """Shares between the spans of pairs, by how many layers apart their targets (with one source) or sources (with one target) are."""
    pairs = [pair for pair in found if not isinstance(pair[1], str)]
    by_lag: dict[str, dict[int, list[float]]] = {"targets": defaultdict(list), "sources": defaultdict(list)}
    for i, (s, t) in enumerate(pairs):
        for other in pairs[i + 1 :]:
            if s == other[0]:
                by_lag["targets"][abs(other[1] - t)].append(float(shared(found[s, t], found[other])))
            elif t == other[1]:
                by_lag["sources"][abs(other[0] - s)].append(float(shared(found[s, t], found[other])))
    return {what: dict(sorted(lags.items())) for what, lags in by_lag.items()}


def decay(atlas: ps.Atlas) -> Array:
    """Median over pairs of layers of sigma / sigma_1, by rank: (k,)."""
    S = atlas.S.reshape(-1, atlas.k)
    S = S[np.isfinite(S).all(1)]
    return np.asarray(np.median(S / S[:, :1], axis=0))


def additive_rest(values: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """What is left of values of pairs without a constant for every source and one for every target (least squares)."""
    pairs = list(values)
    design = np.array([[s == a for a, _ in pairs] + [t == b for _, b in pairs] for s, t in pairs], float)
    y = np.array(list(values.values()))
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return dict(zip(pairs, rest.tolist(), strict=True))


def agreement(a: Mapping[tuple[int, int], float], b: Mapping[tuple[int, int], float]) -> tuple[float, float, float, int]:
    """Pearson correlation of two maps over the pairs of both, a 95% interval by bootstrap over sources, and how many pairs."""
    pairs = [pair for pair in a if pair in b]
    x, y, source = (np.array(values) for values in ([a[p] for p in pairs], [b[p] for p in pairs], [p[0] for p in pairs]))
    members = [np.flatnonzero(source == s) for s in np.unique(source)]
    rng, found = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        some = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if np.ptp(x[some]) > 0 and np.ptp(y[some]) > 0:
            found.append(np.corrcoef(x[some], y[some])[0, 1])
    low, high = np.percentile(found, [2.5, 97.5])
    return float(np.corrcoef(x, y)[0, 1]), float(low), float(high), len(pairs)
