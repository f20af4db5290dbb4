"""Deep causal transcoding: a shallow model of what a slice of layers does to added vectors; its inputs steer.

A. Mack, A. Turner, "Deep Causal Transcoding", Alignment Forum, December 2024, and its code,
github.com/amack315/melbo-dct-post (src/dct.py). With the mean over target positions and prompts

    D(v) = mean (z(v) - z(0))  (d,),    J = dD/dv at v = 0  (d, d)

linear       D(v) ~ U S V'v: the leading singular triplets of J
exponential  D(v) ~ sum_i alpha_i (exp(v_i'v) - 1) u_i: unit u_i and v_i that climb sum_i u_i'D(R v_i)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import SiteLike
from ..linalg.operator import LinearMap
from ..linalg.svd import SVDResult, solve, warned
from ..model.jacobian import labelled, noise_level
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .displacement import Array, Displacement, Progress, check_count, check_positive, model_site, unit, watched

__all__ = ["calibrated_radius", "dct"]

_LAST_THREE = slice(-3, None)  # the published target positions
_RADII = (1e-3, 1e2)  # where a calibrated radius is searched, in units of the source site's norm
_TIE = 1e-9  # of the largest weight: less than this apart is rounding


def dct(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    n: int = 12,
    method: str = "linear",
    radius: float | None = None,
    iterations: int = 10,
    init: str = "random",
    tol: float = 1e-3,
    source_site: str | None = None,
    target_site: str | None = None,
    positions: Positions = _LAST_THREE,
    source_positions: Positions = None,
    seed: int = 0,
    progress: bool | Progress = False,
) -> list[SteeringVector]:
    """The n input directions of a deep causal transcoder (Mack & Turner 2024).

    Where: the published source and target are both `hidden_states[layer]`, the *input* of a block, so both sites are
    "resid_pre" if None (`source`, `target` may be whole sites); the target is averaged over the last three positions
    and over prompts.

    method
      "linear"       the right singular vectors of J, by Krylov iteration certified to `tol`, sigma descending; unit
                     scale. The published code takes columns of LAPACK's Vh for them, which they are not (they are its
                     rows), and projects J to 32 random outputs first; here it is neither.
      "exponential"  the published alternation, `iterations` times: orthonormalise V; U <- D(R v_i), V <- R J(R v_i)'u_i
                     with the old u_i, J at the steered point; normalise every column. radius R: the scale of the
                     vectors; None is 0.35 of the source site's mean activation norm, `calibrated_radius` the published
                     choice. init: V and U "random", or V from the linear form and U = D(R V) ("jacobian").
                     The alternation need not climb: watch it with `progress`. The vectors are those of the last iteration,
                     largest alpha_i^2 first, alpha = K^-1 [u_i'D(R v_i)], K = U'U * expm1(V'V).
                     Orthonormalisation keeps the sign of every column (the published QR may flip v_i against its u_i).
    progress: of "exponential": True for a tqdm line, or a callable that gets (factor, iteration, u_i'D(R v_i)).

    The vectors carry `sigma` and `residual` or `objective` = u_i'D(R v_i) at the end, and `cost`. Raises InvalidInput
    for an argument out of its range or of the other method, and for a source that does not come before the target.
    Warns with ConvergenceWarning if a residual of the linear form exceeds tol.
    """
    if method not in ("linear", "exponential"):
        raise InvalidInput(f"dct: method is {method!r}; it must be 'linear' or 'exponential'")
    if init not in ("random", "jacobian"):
        raise InvalidInput(f"dct: init is {init!r}; it must be 'random' or 'jacobian'")
    if method == "linear" and (radius is not None or iterations != 10 or init != "random"):
        raise InvalidInput("dct: radius, iterations and init belong to method='exponential', not to 'linear'")
    n = check_count(n, "dct: n", model.d_model, "V has orthonormal columns of d_model numbers")
    iterations, seed = check_count(iterations, "dct: iterations"), check_count(seed, "dct: seed", least=0)
    field = _field(model, prompts, source, target, source_site, target_site, positions, source_positions)
    if method == "linear":
        result = warned(_linear(field, n, tol, seed), None)
        vectors = labelled(result, field.provenance, noise_level(field.at_zero.source_norm, _mean(field, field.at_zero.base))).vectors
        return field.bill([replace(v, method="dct-linear") for v in vectors])
    radius = field.radius(radius)
    rng = np.random.default_rng(seed)
    if init == "random":
        V, U = unit(rng.standard_normal((n, model.d_model))), unit(rng.standard_normal((n, model.d_model)))
    else:
        V = _linear(field, n, tol, seed).Vh.astype(np.float64)
        U = _unit(np.array([_mean(field, field.at(radius * v)[0]) for v in V]))
    with watched(progress, n * iterations) as callback:
        for step in range(iterations):
            V = orthonormal(V)
            outputs, inputs = np.empty_like(V), np.empty_like(V)
            for i in range(n):
                moved, J = field.at(radius * V[i])
                outputs[i] = _mean(field, moved)
                inputs[i] = radius * field.pull_back(J, np.tile(U[i], field.n_prompts) / field.n_prompts)
                callback(i, step, float(U[i] @ outputs[i]))
            U, V = _unit(outputs), _unit(inputs)
    moved = np.array([_mean(field, field.at(radius * v)[0]) for v in V])
    gains, order = rank(U, V, moved)
    found = [field.vector(radius * V[i], "dct-exponential", seed, float(gains[i])) for i in order]
    return field.bill(found)


def calibrated_radius(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    ratio: float = 0.5,
    samples: int = 30,
    source_site: str | None = None,
    target_site: str | None = None,
    positions: Positions = _LAST_THREE,
    source_positions: Positions = None,
    seed: int = 0,
) -> float:
    """The norm R at which the slice is as nonlinear as `ratio` says, the published choice for DCT:

        mean over random unit v of |D(R v) - R J v|^2 / |R J v|^2 = ratio^2

    on `samples` directions. Arguments otherwise, and their defaults, as for `dct`. Costs `samples` forward passes of
    every prompt for each of about ten trial norms. Raises InvalidInput if no R between 0.001 and 100 times the source
    site's mean activation norm has that ratio: the residual stream adds a linear part that may outgrow the rest.
    """
    from scipy.optimize import brentq

    ratio = check_positive(ratio, "calibrated_radius: ratio")
    samples = check_count(samples, "calibrated_radius: samples")
    seed = check_count(seed, "calibrated_radius: seed", least=0)
    field = _field(model, prompts, source, target, source_site, target_site, positions, source_positions)
    V = unit(np.random.default_rng(seed).standard_normal((samples, model.d_model)))
    linear = _PromptMean(field).apply(V.astype(model.dtype)).astype(np.float64)

    def excess(log_r: float) -> float:
        r = math.exp(log_r)
        moved = np.array([_mean(field, field.at(r * v)[0]) for v in V])
        off = ((moved - r * linear) ** 2).sum(1) / ((r * linear) ** 2).sum(1)
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
    """Orthonormal rows by Gram-Schmidt: each keeps its side of those before it."""
    q, r = np.linalg.qr(V.T)
    rows: Array = (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T
    return rows


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


def _field(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    source_site: str | None,
    target_site: str | None,
    positions: Positions,
    source_positions: Positions,
) -> Displacement:
    start = model_site(model, source, source_site, "resid_pre")
    end = model_site(model, target, target_site, "resid_pre")
    return Displacement(model, prompts, start, end, positions, source_positions, "mean")


def _mean(field: Displacement, moved: Array) -> Array:
    """(prompts * d,) -> (d,)"""
    mean: Array = moved.reshape(field.n_prompts, -1).mean(0)
    return mean


def _unit(rows: Array) -> Array:
    if not np.linalg.norm(rows, axis=1).all():
        raise InvalidInput(
            "dct: a vector at the source does not move the target positions at all; are all of them before the source "
            "positions?"
        )
    return unit(rows)


def _linear(field: Displacement, n: int, tol: float, seed: int) -> SVDResult:
    return solve(_PromptMean(field), n, "krylov", tol, None, seed, 5, 0, None, False)


class _PromptMean(LinearMap):
    """The mean over prompts of a Jacobian whose rows are one target vector a prompt: (d, d). It counts its products."""

    def __init__(self, field: Displacement) -> None:
        J = field.at_zero
        super().__init__((J.shape[0] // field.n_prompts, J.shape[1]), J.dtype)
        self._field, self._J = field, J

    def block(self) -> int:
        return self._J.block()

    def apply(self, V: Array) -> Array:
        self._field.products += len(V) * self._field.n_prompts
        mean: Array = self._J.apply(V).reshape(len(V), self._field.n_prompts, -1).mean(1)
        return mean

    def apply_t(self, U: Array) -> Array:
        p = self._field.n_prompts
        self._field.products += len(U) * p
        return self._J.apply_t(np.tile(U, (1, p)) / self.dtype.type(p))
