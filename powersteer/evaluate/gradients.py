"""Gradients of scores of logits with respect to vectors, and the change of a score that they predict.

    g = d score / dv at v = 0, of one item, v (d,) added to the activation at a site       (d,)
      = sum over the item's prompts of J' u,  J = dlogits/dv,  u = dscore/dlogits

One gradient gives the change g.v of the score, to first order, for every vector v at the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.sites import Site
from ..model.cost import spans
from ..model.jacobian import Jacobians
from ..model.linearise import LAST_TWO, linearise
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Callback
from .distributions import Array
from .scores import LogitScore, Score, item_tokens

__all__ = ["check_gradient", "first_order_changes", "score_gradients"]


def check_gradient(score: Score) -> LogitScore:
    """The score. Raises InvalidInput unless its class, or one that inherits from it, defines the gradient of its `value`."""
    if isinstance(score, LogitScore):
        of_value, of_gradient = (next(k for k in type(score).__mro__ if name in vars(k)) for name in ("value", "gradient"))
        if of_gradient is not LogitScore and issubclass(of_gradient, of_value):
            return score
    raise InvalidInput(
        f"the score {shown(score)} has no gradient; first-order changes and a screen by a number of candidates need a "
        "LogitScore that defines `gradient` with its `value`, such as evaluate.LogitDifference(a, b)"
    )


def score_gradients(
    model: Model,
    items: Sequence[Any],
    score: Score,
    sites: Sequence[Site],
    positions: Positions = None,
    callback: Callback | None = None,
) -> dict[Site, Array]:
    """Gradients (items, d) in float64 with respect to a vector at each site, added at `positions` of every prompt. A batch of
    items, as many as memory permits, takes a forward pass and one cotangent, which passes all sites on its way from the logits
    down. An item's gradients have the same bits in any batch."""
    score = check_gradient(score)
    sites = list(dict.fromkeys(sites))
    out = {site: np.empty((len(items), model.d_model)) for site in sites}
    tokens = item_tokens(model, score, items)
    if not all(tokens):
        empty = [bool(prompts) for prompts in tokens].index(False)
        raise InvalidInput(f"{shown(score)} has no prompts for item {empty}; a score needs the logits of one prompt or more")
    for part in spans([_item_bytes(model, [len(t) for t in prompts], sites) for prompts in tokens]):
        core, made, pairs = linearise(
            model, [t for prompts in tokens[part] for t in prompts], [(site, [("logits", None)]) for site in sites],
            source_site=None, target_positions=LAST_TWO, source_positions=positions, reduce="stack",
        )  # fmt: skip
        J = Jacobians(core, model.dtype, model.threads, made, pairs)
        ends = np.cumsum([0, *(len(prompts) for prompts in tokens[part])])  # an item's prompts are ends[i] to ends[i + 1]
        logits = J.bases[0].reshape(-1, model.n_vocab)
        u = np.empty_like(logits)
        for item, first, last in zip(items[part], ends, ends[1:], strict=False):
            u[first:last] = _cotangent(score, score.gradient(model, item, list(logits[first:last])), *logits[first:last].shape)
        for site, (of_prompts,) in zip(sites, J.apply_t_all(u.reshape(1, -1), per_prompt=True), strict=True):
            out[site][part] = np.add.reduceat(of_prompts.astype(np.float64), ends[:-1])
        if callback:
            callback(len(ends) - 1)
    return out


def _item_bytes(model: Model, lengths: Sequence[int], sites: Sequence[Site]) -> int:
    """Bytes of the linearisation of an item with prompts of these lengths, and of its sweep."""
    first = min(sites, key=lambda site: (site.layer, site.index))
    counted = model._loaded.module.Jacobian.count_bytes(
        model._loaded.core, lengths, (first.layer, first.index), "logits", len(lengths), 1
    )
    per_site = (sum(lengths) + len(lengths)) * model.d_model  # the activation, and the gradients
    return int(sum(counted.values())) + model.dtype.itemsize * (len(sites) * per_site + 2 * len(lengths) * model.n_vocab)


def first_order_changes(model: Model, vectors: Sequence[SteeringVector], gradients: Mapping[Site, Array]) -> Array:
    """(vectors, items): change of the score of every item that each vector makes, to first order."""
    arrays = [model._interventions(v)[0].array.astype(np.float64) for v in vectors]
    return np.array([gradients[v.location] @ array for v, array in zip(vectors, arrays, strict=True)])


def _cotangent(score: LogitScore, given: Any, n: int, n_vocab: int) -> Array:
    """(n, n_vocab), the gradient that a score gave for an item of n prompts."""
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.shape != (n, n_vocab) or not np.isfinite(rows).all():
        raise InvalidInput(
            f"the gradient of {shown(score)} must be {n} arrays of {n_vocab} finite numbers, one for each prompt of the item"
        )
    return rows
