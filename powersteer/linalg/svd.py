"""Singular value decomposition of a linear operator, with a certificate on every triplet.

The certificate of (u, sigma, v) is the larger of |J v - sigma u| and |J'u - sigma v| over sigma_1, from products that
the operator itself has made. A result is converged if none exceeds tol and a closing probe has found no larger value.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from .._core import CORES
from .._util.checks import check_count, check_positive, check_seed
from .._util.deprecated import deprecated_arguments
from .._util.progress import progress_line
from .._util.warn import warn_user
from ..errors import ConvergenceWarning, InvalidInput, NumericalError
from .adapters import CheckedMap, as_checked_map
from .result import SVDResult, result_of

__all__ = ["Progress", "SVDResult", "krylov_basis", "krylov_sizes", "solve", "svd", "warned"]

P = ParamSpec("P")
Array = NDArray[Any]
Progress = Callable[[int, float, Array], object]  # (applications, worst residual, leading sigma)

METHODS = ("krylov", "power", "dense")
_BASIS_BYTES = 2 << 30  # memory that the Krylov bases may take before they are restarted


def _warning(solver: Callable[P, SVDResult]) -> Callable[P, SVDResult]:
    @functools.wraps(solver)
    def call(*args: P.args, **kwargs: P.kwargs) -> SVDResult:
        return warned(solver(*args, **kwargs), kwargs.get("max_applications"))  # type: ignore[arg-type]

    return call


@deprecated_arguments(2)
@_warning
def svd(
    operator: Any,
    k: int,
    *,
    method: str = "krylov",
    tol: float = 1e-3,
    max_applications: int | None = None,
    seed: int = 0,
    iterations: int = 5,
    oversample: int = 0,
    block: int | None = None,
    progress: bool | Progress = False,
) -> SVDResult:
    """The k leading singular triplets of a real linear map of shape (m, d).

    Parameters
    ----------
    operator
        A Jacobian, a 2-D array (any strides, byte order, real dtype), a SciPy LinearOperator or sparse array, or any
        object with `shape`, `dtype` and apply/apply_t (on rows), matmat/rmatmat, matvec/rmatvec, or `@` and `.T`.
        Floats of up to 4 bytes are solved in float32, longer ones and integers in float64.
    k
        Number of triplets, 1 to min(m, d).
    method
        "krylov": block Golub-Kahan until every residual is at most tol, then a random probe of the complement, which
        goes on until a larger value is missed with probability 0.001 at most.
        "power": the published algorithm, block power iteration with k + oversample vectors, then Rayleigh-Ritz:
        (2 iterations + 1)(k + oversample) applications, whatever tol is. Certificate and probe are counted apart, as
        certificate_applications.
        "dense": LAPACK on the whole matrix, made by min(m, d) applications (none for an array).
    tol
        Largest residual of a converged triplet, over sigma_1.
    max_applications
        Most products of "krylov", counted by column; None: 500 + 50 k.
    seed
        Of the starting vectors and probes, 0 to 2^64 - 1.
    iterations, oversample
        Of "power".
    block
        Vectors that "krylov" multiplies at a time; None: what the operator's method `block()` returns, else 1.
    progress
        True: a progress line; a callable gets (applications, worst residual, sigma).

    Returns
    -------
    SVDResult. The same arguments and operator give the same bits.

    Raises
    ------
    InvalidInput
        For an argument outside its domain, a complex operator, and products of a wrong shape.
    NumericalError
        If a product is NaN or infinite. Exceptions of the operator itself pass through.

    Warns
    -----
    ConvergenceWarning
        If the result is not converged; it names the argument to raise.

    References
    ----------
    .. [1] G. Golub, W. Kahan, Calculating the Singular Values and Pseudo-Inverse of a Matrix, SIAM J. Numer. Anal. 2
       (1965), 205-224.

    Examples
    --------
    >>> import numpy as np
    >>> import powersteer as ps
    >>> A = np.diag([3.0, 2.0, 1.0]) @ np.ones((3, 5))
    >>> svd = ps.svd(A, k=1, tol=1e-6)
    >>> svd.converged, svd.U.shape, svd.S.shape, svd.Vh.shape
    (True, (3, 1), (1,), (1, 5))
    >>> bool(np.isclose(svd.S[0], np.linalg.norm(A, 2)))
    True
    """
    started = time.perf_counter()
    J = as_checked_map(operator)
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidInput(f"svd: method must be one of {', '.join(METHODS)}, got {method!r}")
    k = check_count(k, "svd: k", min(J.shape), f"a map of shape {J.shape} has no more singular triplets")
    seed, tol = check_seed(seed, "svd: seed"), check_positive(tol, "svd: tol")
    iterations = check_count(iterations, "svd: iterations", sys.maxsize)
    oversample = check_count(oversample, "svd: oversample", sys.maxsize, least=0)
    if method != "power" and (iterations != 5 or oversample != 0):
        raise InvalidInput(f"svd: iterations and oversample belong to method='power', not to {method!r}")
    if method != "krylov" and (block is not None or max_applications is not None):
        raise InvalidInput(f"svd: block and max_applications belong to method='krylov', not to {method!r}")
    core = CORES[J.dtype]
    with _observer(progress, tol) as callback:
        if method == "krylov":
            width = check_count(J.block if block is None else block, "svd: block", sys.maxsize)
            width, budget, basis = krylov_sizes(J.shape, k, width, max_applications, J.dtype)
            raw = core.svd_krylov(J, J.shape, k, width, tol, budget, seed, basis, callback)
        elif method == "power":
            basis = krylov_basis(J.shape, k, 1, J.dtype)
            raw = core.svd_power(J, J.shape, k, oversample, iterations, seed, tol, _budget(k), basis, callback)
        else:
            raw = _dense(J, k)
    return result_of(raw, J.dtype, tol, method=method, seed=seed, seconds=time.perf_counter() - started)


solve: Callable[..., SVDResult] = inspect.unwrap(svd)  # without its warning, for callers that collect many results


def warned(result: SVDResult, max_applications: int | None) -> SVDResult:
    """The result; warns if it is not converged."""
    if not result.converged:
        warn_user(_advice(result, max_applications), ConvergenceWarning)
    return result


def _budget(k: int) -> int:
    return 500 + 50 * k


def krylov_sizes(
    shape: tuple[int, int], k: int, block: int, max_applications: int | None, dtype: np.dtype[Any]
) -> tuple[int, int, int]:
    """(block, max_applications, max_basis) of a Krylov run."""
    width = min(block, *shape)
    budget = check_count(_budget(k) if max_applications is None else max_applications, "svd: max_applications", sys.maxsize)
    return width, budget, krylov_basis(shape, k, width, dtype)


def krylov_basis(shape: tuple[int, int], k: int, block: int, dtype: np.dtype[Any]) -> int:
    """Number of vectors that the Krylov bases hold before a restart."""
    affordable = _BASIS_BYTES // (2 * sum(shape) * dtype.itemsize)
    return min(*shape, max(k + max(2 * block, 12), min(4 * k + 150, affordable)))


def _dense(J: CheckedMap, k: int) -> dict[str, Any]:
    matrix = J.dense()
    if not np.isfinite(matrix).all():
        raise NumericalError("svd: the operator's matrix contains NaN or infinity")
    scale = float(np.abs(matrix).max(initial=0)) or 1.0
    scaled = matrix / J.dtype.type(scale)  # entries up to 1: products in the certificate neither overflow nor vanish
    try:
        U, S, Vh = np.linalg.svd(scaled, full_matrices=False)
    except np.linalg.LinAlgError as e:
        raise NumericalError(f"svd: LAPACK did not converge on the matrix of shape {J.shape}") from e
    S1 = float(S[0]) or 1.0
    left = np.linalg.norm(scaled @ Vh[:k].T - U[:, :k] * S[:k], axis=0) / S1
    right = np.linalg.norm(scaled.T @ U[:, :k] - Vh[:k].T * S[:k], axis=0) / S1
    certificate = np.stack([left, right], axis=1).astype(np.float64)
    sigma = S.astype(np.float64) * scale
    spent = J.dense_applications
    return {
        "U": U[:, :k].T, "S": sigma[:k], "V": Vh[:k], "residuals": certificate, "applications": spent,
        "certificate_applications": 0, "history": [(spent, float(certificate.max()), sigma[:k])],
        "next_sigma": float(sigma[k]) if k < len(sigma) else math.nan, "missed_probability": 0.0, "stop": "fixed",
    }  # fmt: skip


def _advice(r: SVDResult, budget: int | None) -> str:
    """Text of the warning: what is not converged, and the argument to raise."""
    good = int((r.residuals <= r.tol).sum())
    given = f"{budget}" if budget is not None else f"{_budget(len(r.S))}, the default"
    if good == len(r.S) and r.method == "power":
        return (
            f"all {good} triplets reach tol={r.tol:g}, but they are not the leading ones: a larger singular value is"
            " missing, or the probe for one did not end. Raise iterations or oversample, or use method='krylov'"
        )
    if good == len(r.S):
        return (
            f"all {good} triplets reach tol={r.tol:g}, but max_applications ended the probe for larger singular values"
            f" that were missed. Raise max_applications (now {given}) or tol"
        )
    what = (
        f"{good} of {len(r.S)} singular triplets reach tol={r.tol:g}; the worst residual is {r.residuals.max():.1e}. "
    )
    if r.stop == "precision" or r.method == "dense":
        floor = f"The operator's own rounding in {r.S.dtype} allows no better: "
        return what + floor + ("raise tol" if r.S.dtype == np.float64 else "raise tol, or use dtype float64")
    if r.method == "power":
        return (
            what + "Block power iteration does not depend on tol: raise iterations or oversample, or use method='krylov'"
        )
    return what + f"Raise max_applications (now {given}) or tol"


@contextmanager
def _observer(progress: bool | Progress, tol: float) -> Iterator[Progress | None]:
    """The function that a run calls with its progress: the caller's, or one that draws a line."""
    if progress is not True:
        if progress is not False and not callable(progress):
            raise InvalidInput(f"svd: progress must be True, False or a callable, got {progress!r}")
        yield progress or None
        return
    with progress_line(True, "svd", unit=" applications") as bar:

        def draw(applications: int, worst: float, sigma: Array) -> None:
            bar.set_postfix_str(f"residual {worst:.1e}, tol {tol:.0e}", refresh=False)
            bar.update(applications - bar.n)

        yield draw
