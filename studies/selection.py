"""Candidates at equal side effect, the choice on validation items, and what the chosen one does on test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import powersteer as ps
from powersteer.evaluate import calibrate

__all__ = ["at_budget", "both_signs", "random_draws"]

N_DRAWS = 5


def both_signs(vectors: Sequence[ps.SteeringVector]) -> list[ps.SteeringVector]:
    return [sign * replace(v, scale=1.0) for v in vectors for sign in (1.0, -1.0)]


def at_budget(
    model: ps.Model, prompts: Sequence[Any], vectors: Sequence[ps.SteeringVector], kl: float, positions: Any = None, continuation: int = 0
) -> list[ps.SteeringVector | None]:
    """Each vector at the scale at which its mean KL on the prompts is the budget; None where no scale reaches it."""
    return calibrate(
        model, list(prompts), list(vectors), kl=kl, positions=positions, continuation=continuation, skip_unreached=True
    )


def random_draws(model: ps.Model, like: Sequence[ps.SteeringVector], draws: int = N_DRAWS) -> list[list[ps.SteeringVector]]:
    """As many unit vectors at the same sites, in each of some draws."""
    sites = [(v.layer, v.site) for v in like]
    found = []
    for draw in range(draws):
        at = {s: iter(ps.random_vectors(model, s[0], site=s[1], k=sites.count(s), seed=draw)) for s in set(sites)}
        found.append([replace(next(at[s]), site_norm=v.site_norm) for s, v in zip(sites, like, strict=True)])
    return found
