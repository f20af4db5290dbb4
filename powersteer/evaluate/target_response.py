"""Response of a vector's target to the vector, exact and to first order, at any prompt.

    dF = F(s v) - F(0)    with F the target activation at the target positions, s v added at the steered positions
    J v                   its derivative at 0, one JVP for each vector

For the target "next_token" F has the rows sqrt(p) (z - p'z), with p the probabilities at s = 0 and z the logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._core._core32 import SWEEP_ROWS
from ..inputs.positions import Positions
from ..inputs.prompts import Ids
from ..inputs.sites import Site
from ..model.jacobian import Jacobians
from ..model.linearise import linearise
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .distributions import Array, log_softmax

__all__ = ["jvps", "nonlinearity", "target_sites"]

Read = tuple[Array, Mapping[Any, Array]]  # logits (n_vocab,) at the end of a prompt, activations (>= T, d) by site


def target_sites(vectors: Sequence[SteeringVector]) -> list[Site]:
    """The sites that are targets of the vectors, each once."""
    targets = (v.target for v in vectors)
    return list(dict.fromkeys(Site(*t) for t in targets if t is not None and not isinstance(t, str)))


def jvps(
    model: Model, prompt: Ids, vectors: Sequence[SteeringVector], positions: Positions = None
) -> Iterator[Array | None]:
    """J @ direction (m,) in float64 of every vector, added at `positions` of one prompt; None for one without a target, and
    for all where `positions` are generated ones. From one linearisation for all sites; one sweep of products is in memory.

    Target positions are those that the vector was made with, counted from the prompt's end; the last two if they differ
    between its prompts; the last one for "next_token" and "logits". Positions before the prompt's start are left out.

    One forward pass serves all vectors with the same target positions, and those with targets at the LM head; one sweep carries
    as many vectors as the core's streams hold.
    """
    if isinstance(positions, str) and positions == "generated":
        yield from [None] * len(vectors)
        return
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}  # by how the rows of targets are read, which heads leave open
    for i, v in sorted(enumerate(vectors), key=lambda item: isinstance(item[1].target, str)):
        if v.target is not None:
            key = _reduce(v), tuple(_rows(v, len(prompt)))
            any_rows = (other for other in groups if other[0] == "stack" and isinstance(v.target, str))
            groups.setdefault(next(any_rows, key), []).append(i)
    column: dict[int, tuple[Jacobians, int]] = {}
    for (reduce, rows), members in groups.items():
        targets: dict[Site, dict[Any, None]] = {}
        for i in members:
            targets.setdefault(vectors[i].location, {})[vectors[i].target] = None
        core, made, pairs = linearise(
            model, prompt, [(site, [(t, None) for t in of_site]) for site, of_site in targets.items()], source_site=None,
            target_positions=list(rows), source_positions=positions, reduce=reduce, heads_at_last=True,
        )  # fmt: skip
        J = Jacobians(core, model.dtype, model.threads, made, pairs)
        number: dict[Any, int] = {(pair.source, pair.target): k for k, pair in enumerate(made)}
        column |= {i: (J, number[vectors[i].location, vectors[i].target]) for i in members}
    width = max(1, SWEEP_ROWS // len(prompt))
    for first in range(0, len(vectors), width):
        some, found = range(first, min(first + width, len(vectors))), dict[int, Array]()
        for J in dict.fromkeys(column[i][0] for i in some if i in column):
            here = [i for i in some if i in column and column[i][0] is J]
            products = J._apply([(column[i][1], vectors[i].direction[None].astype(J.dtype)) for i in here])
            found |= {i: row.astype(np.float64) for i, (row,) in zip(here, products, strict=True)}
        yield from map(found.get, some)


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
