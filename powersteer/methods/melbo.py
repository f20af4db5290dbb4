"""MELBO: steering vectors of one norm that move later activations the most, found by gradient ascent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._util.checks import check_count, check_positive
from .._util.deprecated import deprecated_arguments
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import SiteLike
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .activations import Array, model_site, unit
from .displacement import Displacement, Progress, objective_line

__all__ = ["melbo"]

_BETAS, _EPS = (0.9, 0.98), 1e-8  # the published optimiser's


@deprecated_arguments(4, n="k", steps="iterations", positions="target_positions")
def melbo(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    *,
    k: int = 1,
    radius: float | None = None,
    iterations: int = 300,
    lr: float | None = None,
    power: float = 2.0,
    q: float | None = None,
    orthogonal: bool = True,
    source_site: str | None = None,
    target_site: str | None = None,
    target_positions: Positions = None,
    source_positions: Positions = None,
    seed: int = 0,
    progress: bool | Progress = False,
) -> list[SteeringVector]:
    """Steering vectors of norm `radius`, found one after the other, each a local maximum of

        f(v) = sum over prompts of (sum over target positions t of ‖z_t(v) - z_t(0)‖^power)^(1/q)

    where z_t is the target activation at one position (Mack & Turner 2024; their code takes the norm over positions for
    each coordinate instead, which is the same for power 2).

    The ascent is the published one: from a random direction, AMSGrad (betas 0.9 and 0.98) with the gradient projected
    to the tangent of the sphere, and the vector put back on the sphere after every iteration. The gradient is J'g, J
    being the Jacobian at the steered point.

    Parameters
    ----------
    model : Model
    prompts : prompt or list of prompts
    source, target : int or site
        Layers or sites. The published source is a bias of the MLP's down-projection, the published target
        `hidden_states[target]`, the input of block `target`.
    k : int
        Number of vectors.
    radius : float, optional
        Norm of the vectors. None is 0.35 of the source site's mean activation norm on the prompts; the published one is
        tuned by hand, see `calibrated_radius`.
    iterations : int
        Iterations of the ascent of each vector.
    lr : float, optional
        Learning rate; None is 0.001 radius (published: 0.001 at radius 1).
    power, q : float
        Exponents of f; q None is `power`.
    orthogonal : bool
        Keep gradient and vector orthogonal to the vectors found before (the published default is off).
    source_site, target_site : str, optional
        Sites beside layers; None is "down_proj" and "resid_pre", as published.
    target_positions, source_positions
        Positions of f, and positions where the vector is added, in the forms of `Model.steered`; None is all of them.
    seed : int
        Seed of the first directions.
    progress : bool or callable
        True for a progress bar; a callable gets (vector, iteration, f) at the points 0 to `iterations` of each ascent.

    Returns
    -------
    list of SteeringVector
        k vectors, whose `objective` is f at the end of the ascent.

    Raises
    ------
    InvalidInput
        For an argument out of its range, a source that does not come before the target, and a vector that moves the
        target positions by rounding only.

    References
    ----------
    A. Mack, A. Turner, "Mechanistically Eliciting Latent Behaviors in Language Models", Alignment Forum, April 2024, and
    its code, github.com/amack315/unsupervised-steering-vectors (src/unsupervised_steering.py).

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> f = []
    >>> v = ps.melbo(model, "Task: 3 * 4 =", 1, 3, iterations=5, progress=lambda i, step, value: f.append(value))[0]
    >>> v.location, v.target, len(f)
    (blocks.1.down_proj, blocks.3.hook_resid_pre, 6)
    >>> f[-1] > f[0]
    True
    """
    d = model.d_model
    k = check_count(k, "melbo: k", d if orthogonal else None, f"there are no more orthogonal vectors of {d} numbers")
    iterations, seed = check_count(iterations, "melbo: iterations"), check_count(seed, "melbo: seed", least=0)
    power = check_positive(power, "melbo: power")
    q = power if q is None else check_positive(q, "melbo: q")
    start, end = model_site(model, source, source_site, "down_proj"), model_site(model, target, target_site, "resid_pre")
    field = Displacement(model, prompts, start, end, target_positions=target_positions, source_positions=source_positions)
    radius = field.radius(radius)
    lr = 1e-3 * radius if lr is None else check_positive(lr, "melbo: lr")
    rng = np.random.default_rng(seed)
    found: list[SteeringVector] = []
    before = np.empty((0, d))
    with objective_line(progress, k * (iterations + 1)) as callback:
        for i in range(k):
            first = radius * unit(_orthogonal(rng.standard_normal(d), before))
            for step, point in enumerate(ascent(field, first, before, iterations, lr, power, q)):
                v, value = point
                callback(i, step, value)
            found.append(field.vector(v, "melbo", seed, value))
            if orthogonal:
                before = np.vstack([before, unit(v)])
    return field.with_cost(found)


def ascent(
    field: Displacement, v: Array, before: Array, iterations: int, lr: float, power: float = 2.0, q: float = 2.0
) -> Iterator[tuple[Array, float]]:
    """(v, f(v)) at the points 0 to `iterations` of the ascent from v (d,), orthogonal to the rows of `before` (n, d)."""
    radius, d = float(np.linalg.norm(v)), len(v)
    bounds = np.cumsum([len(p) for p in field.at_zero.target_positions])[:-1]
    moments = np.zeros((3, d))
    for step in range(iterations + 1):
        displaced, J = field.at(v)
        value, g = objective(displaced.reshape(-1, d), bounds, power, q)
        yield v, value
        if step == iterations:
            return
        uphill = _orthogonal(field.pull_back(J, g.ravel()), before)
        uphill -= (uphill @ v) * v / radius**2  # tangent to the sphere
        v = radius * unit(_orthogonal(v + _amsgrad(moments, uphill, step + 1, lr), before))


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
    """x (d,) without its part in the span of orthonormal rows."""
    return np.asarray(x - (before @ x) @ before)


def _amsgrad(moments: Array, gradient: Array, t: int, lr: float) -> Array:
    """The t-th step (d,) uphill of Adam whose second moment never falls (Reddi et al. 2018), as of
    torch.optim.AdamW(amsgrad=True, weight_decay=0). moments (3, d): mean, square and largest square, brought up to date."""
    (b1, b2), (mean, square, largest) = _BETAS, moments
    mean[:] = b1 * mean + (1 - b1) * gradient
    square[:] = b2 * square + (1 - b2) * gradient**2
    np.maximum(largest, square, out=largest)
    return np.asarray(lr / (1 - b1**t) * mean / (np.sqrt(largest / (1 - b2**t)) + _EPS))
