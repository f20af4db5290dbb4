"""Response of a vector's target to the vector, exact and to first order, at any prompt.

    dF = F(s v) - F(0)    with F the target activation at the target positions, s v added at every position
    J v                   its derivative at 0, one JVP for each vector

For the target "next_token" F has the rows sqrt(p) (z - p'z), with p the probabilities at s = 0 and z the logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .._core._core32 import SWEEP_ROWS
from ..inputs.prompts import Ids
from ..inputs.sites import Site
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .distributions import Array, log_softmax

__all__ = ["jvps", "nonlinearity", "target_sites"]

Key = TypeVar("Key")
Read = tuple[Array, Mapping[Any, Array]]  # logits (n_vocab,) at the end of a prompt, activations (>= T, d) by site


def target_sites(vectors: Sequence[SteeringVector]) -> list[Site]:
    """The sites that are targets of the vectors, each once."""
    targets = (v.target for v in vectors)
    return list(dict.fromkeys(Site(*t) for t in targets if t is not None and not isinstance(t, str)))


def jvps(model: Model, prompt: Ids, vectors: Mapping[Key, SteeringVector]) -> dict[Key, Array]:
    """J @ direction (m,) in float64 at one prompt, by key, for every vector that has a target.

    Target positions are those that the vector was made with, counted from the prompt's end; the last two if they differ
    between its prompts; the last one for "next_token" and "logits". Positions before the prompt's start are left out.
    """
    out: dict[Key, Array] = {}
    groups: dict[Any, list[Key]] = {}
    for key, v in vectors.items():
        if v.target is not None:
            groups.setdefault((v.location, _reduce(v), tuple(_rows(v, len(prompt)))), []).append(key)
    width = max(1, SWEEP_ROWS // len(prompt))
    for (site, reduce, rows), members in groups.items():
        targets: list[Any] = list(dict.fromkeys(vectors[key].target for key in members))
        J = model.jacobians(prompt, site, targets, target_positions=list(rows), reduce=reduce)
        for first in range(0, len(members), width):
            some = members[first : first + width]
            columns = [(targets.index(vectors[key].target), vectors[key].direction[None].astype(J.dtype)) for key in some]
            out |= {key: row.astype(np.float64) for key, (row,) in zip(some, J._apply(columns), strict=True)}
    return out


def nonlinearity(vector: SteeringVector, n: int, jvp: Array, base: Read, steered: Read) -> float:
    """|dF - J delta| / |dF| of a vector with a target, at a prompt of n tokens, given J @ direction: 0 where the response
    is linear; NaN where dF is 0."""
    before, after = (read[0] if isinstance(vector.target, str) else read[1][vector.target] for read in (base, steered))
    rows = slice(None) if isinstance(vector.target, str) else [n + r for r in _rows(vector, n)]
    delta: Array = after[rows].astype(np.float64) - before[rows]
    if vector.target == "next_token":
        p = np.exp(log_softmax(before))
        delta = np.sqrt(p) * (delta - p @ delta)
    delta = delta.mean(0) if _reduce(vector) == "mean" else delta.ravel()
    size = float(np.linalg.norm(delta))
    return float(np.linalg.norm(delta - vector.scale * jvp)) / size if size > 0 else math.nan


def _reduce(vector: SteeringVector) -> str:
    return "stack" if isinstance(vector.target, str) else vector.reduce or "stack"


def _rows(vector: SteeringVector, n: int) -> list[int]:
    """Target rows, counted from the end of a prompt of n tokens."""
    if isinstance(vector.target, str):
        return [-1]
    pairs = zip(vector.target_positions, vector.prompt_tokens, strict=False)
    made_with = {tuple(at - len(tokens) for at in rows) for rows, tokens in pairs}
    rows = made_with.pop() if len(made_with) == 1 else (-2, -1)
    return [r for r in rows if r >= -n] or [-1]
