"""Deep causal transcoding: a shallow model of a slice of layers as a function of added vectors; its inputs steer.

With the mean over target positions and prompts

    D(v) = mean (z(v) - z(0))  (d,),    J = dD/dv at v = 0  (d, d)

linear       D(v) ~ U S V'v: the leading singular triplets of J
exponential  D(v) ~ sum_i alpha_i (exp(v_i'v) - 1) u_i: unit u_i and v_i that climb sum_i u_i'D(R v_i)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .._util.checks import check_count, check_positive
from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import SiteLike
from ..linalg.operator import LinearMap
from ..linalg.svd import solve, svd
from ..model.jacobian import labelled, noise_level
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .activations import Array, model_site, unit
from .displacement import Displacement, Progress, objective_line

__all__ = ["calibrated_radius", "dct"]

_LAST_THREE = slice(-3, None)  # the published target positions
_RADII = (1e-3, 1e2)  # where a calibrated radius is searched, in units of the source site's norm
_TIE = 1e-9  # of the largest weight: less than this apart is rounding


@deprecated_arguments(4, n="k", positions="target_positions")
def dct(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    *,
    k: int = 12,
    method: str = "linear",
    radius: float | None = None,
    iterations: int = 10,
    init: str = "random",
    tol: float = 1e-3,
    source_site: str | None = None,
    target_site: str | None = None,
    target_positions: Positions = _LAST_THREE,
    source_positions: Positions = None,
    seed: int = 0,
    progress: bool | Progress = False,
) -> list[SteeringVector]:
    """The input directions of a deep causal transcoder (Mack & Turner 2024).

    Parameters
    ----------
    model : Model
    prompts : prompt or list of prompts
        The target is averaged over them.
    source, target : int or site
        Layers or sites. The published ones are both `hidden_states[layer]`, the input of a block.
    k : int
        Number of vectors, at most d_model.
    method : "linear" or "exponential"
        "linear" gives the right singular vectors of J, by Krylov iteration certified to `tol`, with unit scale. (The
        published code takes columns of LAPACK's Vh, whose rows they are, and projects J to 32 random outputs first.)

        "exponential" is the published alternation, `iterations` times: orthonormalise V; U <- D(R v_i),
        V <- R J(R v_i)'u_i with the old u_i, J at the steered point; normalise every column. It need not climb: follow it
        with `progress`. The vectors of the last iteration are sorted by alpha_i^2, alpha = K^-1 [u_i'D(R v_i)],
        K = U'U * expm1(V'V). Orthonormalisation keeps the sign of every column (the published QR may flip v_i against
        its u_i).
    radius : float, optional
        R, the scale of the vectors of "exponential". None is 0.35 of the source site's mean activation norm;
        `calibrated_radius` is the published choice.
    iterations : int
        Iterations of "exponential".
    init : "random" or "jacobian"
        Start of "exponential": random U and V, or V of the linear form and U = D(R V).
    tol : float
        Tolerance of the singular vectors.
    source_site, target_site : str, optional
        Sites beside layers; None is "resid_pre", as published.
    target_positions
        Positions that are averaged, in the forms of `Model.steered`; by default the last three, as published.
    source_positions
        Positions where a vector is added; None is all of them.
    seed : int
        Seed of the random numbers.
    progress : bool or callable
        For "exponential": True for a progress bar; a callable gets (vector, iteration, u_i'D(R v_i)).

    Returns
    -------
    list of SteeringVector
        k vectors with `sigma` and `residual`, or with `objective` = u_i'D(R v_i) at the end.

    Raises
    ------
    InvalidInput
        For an argument out of its range or of the other method, a source that does not come before the target, and
        vectors that move the target by rounding only.

    Warns
    -----
    ConvergenceWarning
        If a residual of the linear form exceeds tol.

    References
    ----------
    A. Mack, A. Turner, "Deep Causal Transcoding", Alignment Forum, December 2024, and its code,
    github.com/amack315/melbo-dct-post (src/dct.py).

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> v = ps.dct(model, "Task: 3 * 4 =", 1, 3, k=2)[0]
    >>> v.location, v.target, v.method, v.rank
    (blocks.1.hook_resid_pre, blocks.3.hook_resid_pre, 'dct-linear', 0)
    >>> v = ps.dct(model, "Task: 3 * 4 =", 1, 3, k=2, method="exponential", iterations=2, radius=0.5)[0]
    >>> v.method, round(v.scale, 3)
    ('dct-exponential', 0.5)
    """
    if method not in ("linear", "exponential"):
        raise InvalidInput(f"dct: method is {method!r}; it must be 'linear' or 'exponential'")
    if init not in ("random", "jacobian"):
        raise InvalidInput(f"dct: init is {init!r}; it must be 'random' or 'jacobian'")
    if method == "linear" and (radius is not None or iterations != 10 or init != "random"):
        raise InvalidInput("dct: radius, iterations and init belong to method='exponential', not to 'linear'")
    k = check_count(k, "dct: k", model.d_model, "V has orthonormal columns of d_model numbers")
    iterations, seed = check_count(iterations, "dct: iterations"), check_count(seed, "dct: seed", least=0)
    start, end = model_site(model, source, source_site, "resid_pre"), model_site(model, target, target_site, "resid_pre")
    how = {"target_positions": target_positions, "source_positions": source_positions, "reduce": "mean"}
    field = Displacement(model, prompts, start, end, **how)
    mean = _PromptMean(field)
    if method == "linear":
        result = svd(mean, k, tol=tol, seed=seed)
        noise = noise_level(field.at_zero.source_norm, mean.over(field.at_zero.base))
        vectors = labelled(result, lambda: field.provenance, noise).vectors
        return field.with_cost([replace(v, method="dct-linear") for v in vectors])
    radius = field.radius(radius)
    rng = np.random.default_rng(seed)
    if init == "random":
        V, U = unit(rng.standard_normal((2, k, model.d_model)))
    else:
        V = solve(mean, k, tol=tol, seed=seed).Vh.astype(np.float64)
        U = unit(mean.displaced(radius * V))
    with objective_line(progress, k * iterations) as callback:
        for step in range(iterations):
            V = orthonormal(V)
            outputs, inputs = np.empty_like(V), np.empty_like(V)
            for i in range(k):
                moved, J = field.at(radius * V[i])
                outputs[i] = mean.over(moved)
                inputs[i] = radius * field.pull_back(J, np.tile(U[i], field.n_prompts) / field.n_prompts)
                callback(i, step, float(U[i] @ outputs[i]))
            U, V = unit(outputs), unit(inputs)
    gains, order = rank(U, V, mean.displaced(radius * V))
    found = [field.vector(radius * V[i], "dct-exponential", seed, float(gains[i])) for i in order]
    return field.with_cost(found)


@deprecated_arguments(4, positions="target_positions")
def calibrated_radius(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    *,
    ratio: float = 0.5,
    samples: int = 30,
    source_site: str | None = None,
    target_site: str | None = None,
    target_positions: Positions = _LAST_THREE,
    source_positions: Positions = None,
    seed: int = 0,
) -> float:
    """The norm R at which the nonlinear part of D has `ratio` times the size of the linear part, the published radius:

        mean over random unit v of ‖D(R v) - R J v‖² / ‖R J v‖² = ratio²

    It costs `samples` forward passes of every prompt for each of about ten trial norms.

    Parameters
    ----------
    ratio : float
        Size of the nonlinear part relative to the linear part.
    samples : int
        Number of random directions.
    model, prompts, source, target, source_site, target_site, target_positions, source_positions, seed
        As for `dct`.

    Returns
    -------
    float
        R, a scale of steering vectors.

    Raises
    ------
    InvalidInput
        If no R between 0.001 and 100 times the source site's mean activation norm has that ratio: the residual stream
        adds a linear part that may outgrow the rest.

    References
    ----------
    A. Mack, A. Turner, "Deep Causal Transcoding", Alignment Forum, December 2024.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> where = {"source_site": "resid_pre", "target_site": "mlp_out", "samples": 2}
    >>> small, large = (ps.calibrated_radius(model, "Task: 3 * 4 =", 1, 2, ratio=ratio, **where) for ratio in (0.1, 0.4))
    >>> 0 < small < large
    True
    """
    from scipy.optimize import brentq

    ratio = check_positive(ratio, "calibrated_radius: ratio")
    samples = check_count(samples, "calibrated_radius: samples")
    seed = check_count(seed, "calibrated_radius: seed", least=0)
    start, end = model_site(model, source, source_site, "resid_pre"), model_site(model, target, target_site, "resid_pre")
    how = {"target_positions": target_positions, "source_positions": source_positions, "reduce": "mean"}
    field = Displacement(model, prompts, start, end, **how)
    mean = _PromptMean(field)
    V = unit(np.random.default_rng(seed).standard_normal((samples, model.d_model)))
    linear = mean.apply(V.astype(model.dtype)).astype(np.float64)

    def excess(log_r: float) -> float:
        r = math.exp(log_r)
        off = ((mean.displaced(r * V) - r * linear) ** 2).sum(1) / ((r * linear) ** 2).sum(1)
        return math.sqrt(off.mean()) - ratio

    low, high = (math.log(bound * field.at_zero.source_norm) for bound in _RADII)
    ends = excess(low), excess(high)
    if not ends[0] < 0 < ends[1]:
        raise InvalidInput(
            f"calibrated_radius: the ratio is {ends[0] + ratio:.3g} at the norm {math.exp(low):.3g} and "
            f"{ends[1] + ratio:.3g} at {math.exp(high):.3g}, so none between need have {ratio:g}; choose another ratio"
        )
    return math.exp(float(brentq(excess, low, high, xtol=1e-3)))


def orthonormal(V: Array) -> Array:
    """Orthonormal rows by Gram-Schmidt: each keeps its side of the span of the rows before it."""
    q, r = np.linalg.qr(V.T)
    return np.asarray((q * np.where(np.diag(r) < 0, -1.0, 1.0)).T)


def rank(U: Array, V: Array, moved: Array) -> tuple[Array, Array]:
    """(u_i'D(R v_i), the factors in descending order of alpha^2), U, V and moved = D(R v_i) being (n, d) rows."""
    gains = (moved * U).sum(1)
    kernel = (U @ U.T) * np.expm1(V @ V.T)
    alphas = np.linalg.lstsq(kernel, gains, rcond=None)[0]  # two factors may have become one
    return gains, _descending(alphas**2)


def _descending(weights: Array) -> Array:
    """Indices in descending order. Weights that differ by rounding alone are equal, and stand in the order of their
    indices: which of them is larger by a bit depends on the processor."""
    order = np.argsort(-weights, kind="stable")
    falls = -np.diff(weights[order]) > _TIE * weights.max()
    return order[np.lexsort((order, np.cumsum(np.r_[False, falls])))]


class _PromptMean(LinearMap):
    """J as the mean over prompts of a Jacobian whose rows are one target vector a prompt: (d, d). It counts its products."""

    def __init__(self, field: Displacement) -> None:
        J = field.at_zero
        super().__init__((J.shape[0] // field.n_prompts, J.shape[1]), J.dtype)
        self._field, self._J = field, J

    def over(self, rows: Array) -> Array:
        """(prompts * d,) -> (d,)"""
        return np.asarray(rows.reshape(self._field.n_prompts, -1).mean(0))

    def displaced(self, V: Array) -> Array:
        """D of every row, (n, d) -> (n, d)."""
        return np.array([self.over(self._field.at(v)[0]) for v in V])

    def block(self) -> int:
        return self._J.block()

    def apply(self, V: Array) -> Array:
        self._field.products += len(V) * self._field.n_prompts
        return np.asarray(self._J.apply(V).reshape(len(V), self._field.n_prompts, -1).mean(1))

    def apply_t(self, U: Array) -> Array:
        p = self._field.n_prompts
        self._field.products += len(U) * p
        return self._J.apply_t(np.tile(U, (1, p)) / self.dtype.type(p))
