"""Next-token distributions of rows of logits, compared in float64 one row at a time, which stays in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from ..inputs.prompts import Ids

__all__ = ["Array", "Reference", "log_softmax", "nll"]

Array = NDArray[Any]


def log_softmax(logits: Array) -> Array:
    """Log-probabilities (..., n_vocab) in float64, nats."""
    return np.asarray(scipy.special.log_softmax(logits.astype(np.float64), axis=-1))


def _exponentials(z: Array) -> tuple[Array, float, float]:
    """(exp(z - max z), their sum, ln sum exp z) of one row."""
    most = z.max()
    e = np.exp(np.subtract(z, most, dtype=np.float64))
    total = e.sum()
    return e, total, float(most + np.log(total))


class Reference:
    """Distributions p = softmax(logits), logits (n, n_vocab), that others are compared with."""

    def __init__(self, logits: Array) -> None:
        self._logits, self._p, self._lse = logits, np.empty(logits.shape), np.empty(len(logits))
        for i, z in enumerate(logits):
            e, total, self._lse[i] = _exponentials(z)
            np.divide(e, total, out=self._p[i])

    def kl(self, logits: Array) -> Array:
        """KL(p || softmax(logits)) of every row (n,), nats, never below 0 and 0 for equal logits."""
        out = np.empty(len(logits))
        for i, (p, mine, z) in enumerate(zip(self._p, self._logits, logits, strict=True)):
            apart = np.subtract(mine, z, dtype=np.float64)
            apart *= p
            out[i] = apart.sum() + (_exponentials(z)[2] - self._lse[i])
        return np.maximum(out, 0.0)


def nll(logits: Array, tokens: Ids) -> float:
    """- sum of ln p(token) in nats; each of the logits (n, n_vocab) predicts one of the tokens (n,)."""
    return sum(_exponentials(z)[2] - float(z[token]) for z, token in zip(logits, tokens, strict=True))
