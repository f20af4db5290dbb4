"""Logistic regression with an L2 penalty, by Newton's method."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ..errors import NumericalError
from .activations import Array

__all__ = ["logistic_regression"]

_STEPS = 200  # Newton's method with step halving needs some ten
_ROUNDING = 64 * float(np.finfo(np.float64).eps)


def logistic_regression(X: Array, y: Array, C: float) -> tuple[Array, float, float]:
    """(w (d,), b, minimum) of  w.w/2 + C sum_i ln(1 + exp(-y_i (w.x_i + b))),  X (n, d) and y (n,) of 1 and -1.

    w is a combination of the rows of X. With X = U S V' it is V u, so that a step solves min(n, d) + 1 equations, however
    large d is.
    """
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    Z = np.column_stack([U * S, np.ones(len(X))])  # w.x + b = Z (u, b)
    penalty = np.append(np.ones(len(S)), 0.0)
    theta = np.zeros(len(penalty))

    def value(theta: Array) -> float:
        return float(penalty @ theta**2 / 2 + C * np.logaddexp(0.0, -y * (Z @ theta)).sum())

    now = value(theta)
    for _ in range(_STEPS):
        p = expit(-y * (Z @ theta))
        gradient = penalty * theta - C * Z.T @ (y * p)
        hessian = np.diag(penalty) + C * (Z.T * (p * (1 - p))) @ Z
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        decrease, size = float(gradient @ step), 1.0
        if decrease <= _ROUNDING * now:  # so near that the value cannot tell; this step is exact to second order
            theta = theta - step
            return Vt.T @ theta[:-1], float(theta[-1]), now
        while size > _ROUNDING and not value(theta - size * step) <= now - 1e-4 * size * decrease:
            size /= 2
        theta = theta - size * step
        now = value(theta)
    raise NumericalError(f"the probe did not converge in {_STEPS} steps of Newton's method; give a smaller C")
