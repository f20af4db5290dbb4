"""MELBO: vectors of one norm that move later activations the most, found by gradient ascent.

A. Mack, A. Turner, "Mechanistically Eliciting Latent Behaviors in Language Models", Alignment Forum, April 2024, and
its code, github.com/amack315/unsupervised-steering-vectors (src/unsupervised_steering.py).
"""

from __future__ import annotations

import numpy as np

from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import SiteLike
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .displacement import Array, Displacement, Progress, check_count, check_positive, model_site, unit, watched

__all__ = ["melbo"]

_BETAS, _EPS = (0.9, 0.98), 1e-8  # the published optimiser's


def melbo(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    n: int = 1,
    radius: float | None = None,
    steps: int = 300,
    lr: float | None = None,
    power: float = 2.0,
    q: float | None = None,
    orthogonal: bool = True,
    source_site: str | None = None,
    target_site: str | None = None,
    positions: Positions = None,
    source_positions: Positions = None,
    seed: int = 0,
    progress: bool | Progress = False,
) -> list[SteeringVector]:
    """n steering vectors of norm `radius`, found one after the other, each a local maximum of

        f(v) = sum over prompts of (sum over target positions t of |z_t(v) - z_t(0)|^power)^(1/q)

    with |.| the Euclidean norm of one position's target activation (Mack & Turner 2024; their code takes it over
    positions for each coordinate instead, which is the same thing for power 2).

    Where: the published source is a bias on the MLP's down-projection, so `source_site` is "down_proj" if None; the
    published target is `hidden_states[target]`, the *input* of block `target`, so `target_site` is "resid_pre".
    Both may be whole sites. positions: of the target, published and by default all. source_positions: None, all.
    Ascent, as published: from a random direction, `steps` of AMSGrad (betas 0.9 and 0.98) with learning rate `lr`, the
    gradient projected to the tangent of the sphere, the vector put back on it after every step. orthogonal: gradient
    and vector are kept orthogonal to the vectors before (the published default is off). The gradient is J'g at the
    steered point.
    radius: None is 0.35 of the source site's mean activation norm on the prompts; it is published as 1 and tuned by
    hand, see `calibrated_radius`. lr: None is 0.001 radius (published: 0.001 at radius 1). q: None is `power`.
    progress: True for a tqdm line, or a callable that gets (vector, step, f) at the points 0 to `steps` of each ascent.

    The vectors carry `objective`, f at the end, and `cost`. Raises InvalidInput for an argument out of its range, for a
    source that does not come before the target, and where a vector moves the target positions by rounding alone.
    """
    d = model.d_model
    n = check_count(n, "melbo: n", d if orthogonal else None, f"there are no more orthogonal vectors of {d} numbers")
    steps, seed = check_count(steps, "melbo: steps"), check_count(seed, "melbo: seed", least=0)
    power = check_positive(power, "melbo: power")
    q = power if q is None else check_positive(q, "melbo: q")
    field = Displacement(
        model, prompts, model_site(model, source, source_site, "down_proj"),
        model_site(model, target, target_site, "resid_pre"), positions, source_positions, "stack",
    )  # fmt: skip
    radius = field.radius(radius)
    lr = 1e-3 * radius if lr is None else check_positive(lr, "melbo: lr")
    bounds = np.cumsum([len(p) for p in field.at_zero.positions])[:-1]
    rng = np.random.default_rng(seed)
    found: list[SteeringVector] = []
    before = np.empty((0, d))
    with watched(progress, n * (steps + 1)) as callback:
        for i in range(n):
            v = radius * unit(_orthogonal(rng.standard_normal(d), before))
            optimiser = _AMSGrad(d, lr)
            for step in range(steps):
                displaced, J = field.at(v)
                value, g = objective(displaced.reshape(-1, d), bounds, power, q)
                callback(i, step, value)
                ascent = _orthogonal(field.pull_back(J, g.ravel()), before)
                ascent -= (ascent @ v) * v / radius**2  # tangent to the sphere
                v = radius * unit(_orthogonal(v + optimiser.step(ascent), before))
            value, _ = objective(field.at(v)[0].reshape(-1, d), bounds, power, q)
            callback(i, steps, value)
            found.append(field.vector(v, "melbo", seed, value))
            if orthogonal:
                before = np.vstack([before, unit(v)])
    return field.bill(found)


def objective(displaced: Array, bounds: Array, power: float, q: float) -> tuple[float, Array]:
    """(f, df/dz), z (rows, d) being split into prompts at `bounds`.

    f_i = s^(1/q), s = sum_t |z_t|^p      df_i/dz_t = (p/q) s^(1/q - 1) |z_t|^(p - 2) z_t, and 0 where z_t = 0
    """
    value, gradient = 0.0, np.zeros_like(displaced)
    for z, g in zip(np.split(displaced, bounds), np.split(gradient, bounds), strict=True):
        norms = np.linalg.norm(z, axis=1, keepdims=True)
        moved = norms[:, 0] > 0
        s = float((norms**power).sum())
        if s > 0:
            value += s ** (1 / q)
            g[moved] = (power / q) * s ** (1 / q - 1) * norms[moved] ** (power - 2) * z[moved]
    return value, gradient


def _orthogonal(x: Array, before: Array) -> Array:
    """x (d,) less its part in the span of orthonormal rows."""
    rest: Array = x - (before @ x) @ before
    return rest


class _AMSGrad:
    """Adam whose second moment never falls (Reddi et al. 2018), as torch.optim.AdamW(amsgrad=True, weight_decay=0)."""

    def __init__(self, d: int, lr: float) -> None:
        self._lr, self._t = lr, 0
        self._mean, self._square, self._largest = np.zeros((3, d))

    def step(self, gradient: Array) -> Array:
        """What to add (d,) to climb."""
        b1, b2 = _BETAS
        self._t += 1
        self._mean = b1 * self._mean + (1 - b1) * gradient
        self._square = b2 * self._square + (1 - b2) * gradient**2
        self._largest = np.maximum(self._largest, self._square)
        scale = np.sqrt(self._largest / (1 - b2**self._t)) + _EPS
        change: Array = self._lr / (1 - b1**self._t) * self._mean / scale
        return change
