"""Next-token distributions as log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from ..inputs.prompts import Ids

__all__ = ["Array", "kl_divergence", "log_softmax", "nll"]

Array = NDArray[Any]


def log_softmax(logits: Array) -> Array:
    """Log-probabilities (..., n_vocab) in float64, nats."""
    return np.asarray(scipy.special.log_softmax(logits.astype(np.float64), axis=-1))


def kl_divergence(p: Array, q: Array) -> Array:
    """KL (...) of log-probabilities (..., n_vocab), nats, never below 0."""
    return np.asarray(np.maximum(np.sum(np.exp(p) * (p - q), -1), 0.0))


def nll(logits: Array, tokens: Ids, start: int) -> tuple[float, int]:
    """(- sum of ln p of tokens[start:] in nats, their number); logits (len(tokens), n_vocab)."""
    logp = log_softmax(logits[start - 1 : -1])
    return -float(np.take_along_axis(logp, tokens[start:, None].astype(np.intp), 1).sum()), len(tokens) - start
