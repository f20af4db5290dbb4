"""Candidates at equal side effect, the choice on validation items, and what the chosen one does on test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import powersteer as ps
from powersteer.evaluate import calibrate
from powersteer.evaluate.search import random_like

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


def random_draws(like: Sequence[ps.SteeringVector], draws: int = N_DRAWS) -> list[list[ps.SteeringVector]]:
    """For each draw a random unit vector for every vector, at its site and with its norm, as those of `ps.search`: all of
    them independent of each other, at other sites, too."""
    return [random_like(like, 0, draw) for draw in range(draws)]
