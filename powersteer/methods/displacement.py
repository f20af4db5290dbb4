"""The map from a vector added at one site to the activations at another, which MELBO and DCT climb.

    F(v) = target activations at the target positions, v (d,) being added at the source positions      (m,)
    D(v) = F(v) - F(0)

A value costs a forward pass of every prompt, a gradient one product with J' more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .._util.checks import check_positive
from .._util.progress import progress_line
from ..errors import InvalidInput
from ..inputs.prompts import Prompts
from ..inputs.sites import Site
from ..model.jacobian import Jacobian
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector, rounding
from .activations import Array

__all__ = ["Displacement", "Progress", "objective_line"]

Progress = Callable[[int, int, float], object]  # (index of the vector, iteration, objective)
_FRACTION = 0.35  # of the site's norm: the radius, if none is given


class Displacement:
    """D and its derivative, for one set of prompts and one pair of sites; counts forward passes and products.

    how: arguments of `Model.jacobian`, whose InvalidInput it raises.
    """

    def __init__(self, model: Model, prompts: Prompts, source: Site, target: Site, **how: Any) -> None:
        self._started = time.perf_counter()
        self._model, self._how = model, how
        self.at_zero = model.jacobian(prompts, source, target, **how)
        self._base = self.at_zero.base.astype(np.float64)
        self.n_prompts = self.forward = len(self.at_zero.prompt_tokens)
        self.products = 0

    @property
    def provenance(self) -> dict[str, Any]:
        """Fields of the steering vectors."""
        return self.at_zero.linearization.provenance(self.at_zero.source_norm)

    def at(self, v: Array) -> tuple[Array, Jacobian]:
        """(D(v) (m,) in float64, the Jacobian at v), v (d,) not zero: one forward pass of every prompt.

        Raises InvalidInput where D(v) is no longer than the rounding error of the activations.
        """
        start = self.at_zero
        vector = SteeringVector.from_array(v, start.source.layer, start.source.name)
        steered = self._model.steered(vector, self._how["source_positions"])
        J = steered.jacobian(list(start.prompt_tokens), start.source, start.linearization.target, **self._how)
        self.forward += self.n_prompts
        moved = J.base - self._base
        length, noise = float(np.linalg.norm(moved)), rounding(float(np.linalg.norm(self._base)), J.dtype)
        if not length > noise:
            raise InvalidInput(
                f"a vector of norm {np.linalg.norm(v):.3g} at {start.source} does not move {start.target} at the target "
                f"positions, but for rounding ({length:.3g}, rounding may be {noise:.3g}); are all of them before the source "
                "positions, or is the radius too small?"
            )
        return moved, J

    def pull_back(self, J: Jacobian, g: Array) -> Array:
        """J'g (d,) in float64."""
        self.products += self.n_prompts
        return np.asarray(J.T @ g, np.float64)

    def radius(self, radius: float | None) -> float:
        """The given radius; for None a fraction of the site's mean activation norm."""
        return _FRACTION * self.at_zero.source_norm if radius is None else check_positive(radius, "radius")

    def vector(self, v: Array, method: str, seed: int, objective: float) -> SteeringVector:
        """The steering vector that adds v (d,)."""
        return SteeringVector.from_array(
            v.astype(self._model.dtype), method=method, seed=seed, objective=objective, **self.provenance
        )

    def with_cost(self, vectors: list[SteeringVector]) -> list[SteeringVector]:
        """The vectors, each with the work done so far for all of them."""
        cost = Cost(self.forward, self.products, time.perf_counter() - self._started)
        return [replace(v, cost=cost) for v in vectors]


@contextmanager
def objective_line(progress: bool | Progress, total: int) -> Iterator[Progress]:
    """The callable that an ascent of `total` iterations calls in each: the caller's, or that of a progress line."""
    if callable(progress):
        yield progress
        return
    with progress_line(progress, "search", total=total) as line:

        def callback(index: int, iteration: int, objective: float) -> None:
            line.set_description(f"vector {index}, objective {objective:.4g}", refresh=False)
            line.update()

        yield callback
