"""How far a vector that is added at one site moves the activations at another: the map that MELBO and DCT climb.

    F(v) = target activations at the target positions, v (d,) being added at the source positions      (m,)
    D(v) = F(v) - F(0)

Every value costs a forward pass of every prompt, every gradient one J' product more.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.progress import progress_line
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import Site, SiteLike, resolve_site
from ..model.jacobian import Jacobian
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector, rounding

__all__ = ["Displacement", "Progress", "check_count", "check_positive", "model_site", "unit", "watched"]

Array = NDArray[Any]
Progress = Callable[[int, int, float], object]  # (number of the vector, step, objective)
_FRACTION = 0.35  # of the site's norm: the radius, if none is given


class Displacement:
    """D and its derivative, for one set of prompts and pair of sites. It counts what it spends.

    Raises InvalidInput as `Model.jacobian`: a source that does not come before the target, an empty list of prompts.
    """

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        source: Site,
        target: Site,
        positions: Positions,
        source_positions: Positions,
        reduce: str,
    ) -> None:
        self._started = time.perf_counter()
        self._model, self._source_positions = model, source_positions
        self._where = {
            "source": source, "target": target, "positions": positions,
            "source_positions": source_positions, "reduce": reduce,
        }  # fmt: skip
        self.at_zero: Jacobian = model.jacobian(prompts, **self._where)  # type: ignore[arg-type]
        self._base = self.at_zero.base.astype(np.float64)
        self._tokens = list(self.at_zero.prompt_tokens)
        self.n_prompts = self.forward = len(self._tokens)
        self.products = 0

    def at(self, v: Array) -> tuple[Array, Jacobian]:
        """(D(v) (m,) in float64, the Jacobian at v), v (d,) not zero: one forward pass of every prompt.

        Raises InvalidInput where D(v) is no longer than the rounding of the activations: its direction would be noise.
        """
        place = self.at_zero.source
        view = self._model.steered(SteeringVector.from_array(v, place.layer, place.name), self._source_positions)
        J = view.jacobian(self._tokens, **self._where)  # type: ignore[arg-type]
        self.forward += self.n_prompts
        moved = J.base - self._base
        length, noise = float(np.linalg.norm(moved)), rounding(float(np.linalg.norm(self._base)), J.dtype)
        if not length > noise:
            raise InvalidInput(
                f"a vector of norm {np.linalg.norm(v):.3g} at {place} does not move {self.at_zero.target} at the target "
                f"positions, but for rounding ({length:.3g}, rounding may be {noise:.3g}); are all of them before the source "
                "positions, or is the radius too small?"
            )
        return moved, J

    def pull_back(self, J: Jacobian, g: Array) -> Array:
        """J'g (d,) in float64."""
        self.products += self.n_prompts
        pulled: Array = J.T @ g
        return pulled.astype(np.float64)

    def radius(self, radius: float | None) -> float:
        """The radius that was asked for; else a fraction of the site's mean activation norm."""
        return _FRACTION * self.at_zero.source_norm if radius is None else check_positive(radius, "radius")

    @property
    def provenance(self) -> dict[str, Any]:
        return self.at_zero.linearization.provenance(self.at_zero.source_norm)

    def vector(self, v: Array, method: str, seed: int, objective: float) -> SteeringVector:
        """The steering vector that adds v (d,)."""
        return SteeringVector.from_array(
            v.astype(self._model.dtype), method=method, seed=seed, objective=objective, **self.provenance
        )

    def bill(self, vectors: list[SteeringVector]) -> list[SteeringVector]:
        """The vectors, each with what all of them have cost."""
        cost = Cost(self.forward, self.products, time.perf_counter() - self._started)
        return [replace(v, cost=cost) for v in vectors]


def model_site(model: Model, layer: int | SiteLike, name: str | None, default: str) -> Site:
    """The site of a model that is meant by a layer, with a name beside it or else the default, or by a whole site."""
    spec = model.spec
    return resolve_site(
        layer, name, default, n_layers=spec.n_layers, parallel=spec.parallel, post_norms=spec.post_norms
    )


def unit(x: Array) -> Array:
    """Each row at length 1."""
    rows: Array = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return rows


def check_count(value: Any, name: str, most: int | None = None, why: str = "", least: int = 1) -> int:
    """An integer from `least` to `most`. Raises InvalidInput with `name`, and `why` there is no more."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)) or number < least:
        raise InvalidInput(f"{name} is {shown(value)}; it must be an integer >= {least}")
    if most is not None and number > most:
        raise InvalidInput(f"{name} is {number}; it must be at most {most}: {why}")
    return number


def check_positive(value: Any, name: str) -> float:
    """A finite number > 0. Raises InvalidInput with `name`."""
    number = not isinstance(value, bool) and isinstance(value, (int, float, np.integer, np.floating))
    if not number or not 0 < float(value) < math.inf:
        raise InvalidInput(f"{name} is {shown(value)}; it must be a finite number > 0")
    return float(value)


@contextmanager
def watched(progress: bool | Progress, total: int) -> Iterator[Progress]:
    """What a search of `total` steps reports to: the caller's callable, or a progress line."""
    if callable(progress):
        yield progress
        return
    with progress_line(progress, "search", total=total) as line:

        def callback(index: int, step: int, objective: float) -> None:
            line.set_description(f"vector {index}, objective {objective:.4g}", refresh=False)
            line.update()

        yield callback
