"""How a vector's target answers to it, truly and to first order, on any prompt.

    dF = F(s v) - F(0)    with F the target activation at the target positions, s v added at every position
    J v                   its derivative at 0, by one JVP a vector

For the target "next_token" F has the rows sqrt(p) (z - p'z), with p the probabilities at s = 0 and z the logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.prompts import Ids
from ..inputs.sites import Site
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector

__all__ = ["jvps", "log_softmax", "nonlinearity", "target_delta", "target_sites"]

Array = NDArray[Any]
_LANE_ROWS = 1024  # rows of a sweep; with more its buffers leave the caches and nothing is gained


def log_softmax(logits: Array) -> Array:
    """Log-probabilities (..., n_vocab) in float64, nats."""
    z = logits.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    return z


def target_sites(vectors: Sequence[SteeringVector]) -> list[Site]:
    """The sites that are targets of some of the vectors."""
    targets = (v.target for v in vectors)
    return list(dict.fromkeys(Site(*t) for t in targets if t is not None and not isinstance(t, str)))


def jvps(model: Model, prompt: Ids, vectors: Sequence[SteeringVector]) -> dict[int, Array]:
    """J @ direction (m,) in float64 at one prompt, by index, for every vector that has a target.

    Target positions are those the vector was made with, counted from the prompt's end, where they are the same for all
    its prompts (else the last two), as far as this prompt goes; of "next_token" and "logits" the last one.
    """
    out: dict[int, Array] = {}
    groups: dict[Any, list[int]] = {}
    for i, v in enumerate(vectors):
        if v.target is not None:
            groups.setdefault((v.place, _reduce(v), tuple(_rows(v, len(prompt)))), []).append(i)
    lanes = max(1, _LANE_ROWS // len(prompt))
    for (place, reduce, rows), members in groups.items():
        targets: list[Any] = list(dict.fromkeys(vectors[i].target for i in members))
        J = model.jacobians(prompt, place, targets, positions=list(rows), reduce=reduce)
        for first in range(0, len(members), lanes):
            some = members[first : first + lanes]
            requested = [(targets.index(vectors[i].target), vectors[i].direction[None].astype(J.dtype)) for i in some]
            for i, (row,) in zip(some, J._apply(requested), strict=True):
                out[i] = row.astype(np.float64)
    return out


def target_delta(vector: SteeringVector, n: int, base: Array, steered: Array) -> Array:
    """dF (m,) of a vector with a target, in float64, from what that target reads at a prompt of n tokens, unsteered and
    steered: the logits (n_vocab,) at the prompt's end, or the activation (>= n, d) at the target's site."""
    if isinstance(vector.target, str):
        dz = steered.astype(np.float64) - base
        if vector.target == "logits":
            return dz
        p = np.exp(log_softmax(base))
        weighted: Array = np.sqrt(p) * (dz - p @ dz)
        return weighted
    rows = [n + r for r in _rows(vector, n)]
    moved: Array = steered[rows].astype(np.float64) - base[rows]
    return moved.mean(0) if _reduce(vector) == "mean" else moved.ravel()


def nonlinearity(moved: Array, predicted: Array) -> float:
    """|dF - J delta| / |dF|: 0 where the response is linear; NaN where nothing moved."""
    size = float(np.linalg.norm(moved))
    return float(np.linalg.norm(moved - predicted)) / size if size > 0 else math.nan


def _reduce(vector: SteeringVector) -> str:
    return "stack" if isinstance(vector.target, str) else vector.reduce or "stack"


def _rows(vector: SteeringVector, n: int) -> list[int]:
    """Target rows, counted from the end of a prompt of n tokens."""
    if isinstance(vector.target, str):
        return [-1]
    pairs = zip(vector.target_positions, vector.prompt_tokens, strict=False)
    made = {tuple(at - len(tokens) for at in rows) for rows, tokens in pairs}
    rows = made.pop() if len(made) == 1 else (-2, -1)
    return [r for r in rows if r >= -n] or [-1]
