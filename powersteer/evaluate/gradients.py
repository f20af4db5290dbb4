"""Gradients of scores of logits with respect to vectors, and the change of a score that they predict.

    g = d score / dv at v = 0, of one item, v (d,) added to the activation at a site       (d,)
      = sum over the item's prompts of J' u,  J = dlogits/dv,  u = dscore/dlogits

One gradient gives the change g.v of the score, to first order, for every vector v at the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.sites import Site
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
    """Gradients (items, d) in float64 with respect to a vector at each site, added at `positions` of every prompt. Each item
    takes a forward pass and one sweep from the logits down to all sites."""
    score = check_gradient(score)
    sites = list(dict.fromkeys(sites))
    out = {site: np.empty((len(items), model.d_model)) for site in sites}
    for i, (item, tokens) in enumerate(zip(items, item_tokens(model, score, items), strict=True)):
        core, made, pairs = linearise(
            model, tokens, [(site, [("logits", None)]) for site in sites], source_site=None, target_positions=LAST_TWO,
            source_positions=positions, reduce="stack",
        )  # fmt: skip
        J = Jacobians(core, model.dtype, model.threads, made, pairs)
        logits = list(J.bases[0].reshape(len(tokens), model.n_vocab))
        u = _cotangent(score, score.gradient(model, item, logits), logits).astype(model.dtype)
        for site, (row,) in zip(sites, J._apply_t([(pair, u) for pair in range(len(sites))]), strict=True):
            out[site][i] = row
        if callback:
            callback(1)
    return out


def first_order_changes(model: Model, vectors: Sequence[SteeringVector], gradients: Mapping[Site, Array]) -> Array:
    """(vectors, items): change of the score of every item that each vector makes, to first order."""
    arrays = [model._interventions(v)[0].array.astype(np.float64) for v in vectors]
    return np.array([gradients[v.location] @ array for v, array in zip(vectors, arrays, strict=True)])


def _cotangent(score: LogitScore, given: Any, logits: Sequence[Array]) -> Array:
    """(1, prompts x n_vocab), from the gradient that a score gave."""
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.shape != (len(logits), len(logits[0])) or not np.isfinite(rows).all():
        raise InvalidInput(
            f"the gradient of {shown(score)} must be {len(logits)} arrays of {len(logits[0])} finite numbers, one for each prompt "
            "of the item"
        )
    return cast(Array, rows.reshape(1, -1))
