"""Singular value decomposition of a linear operator, with a certificate on every triplet.

The certificate of (u, sigma, v) is the larger of |J v - sigma u| and |J'u - sigma v| over sigma_1, from products that
the operator itself has made. A result is converged if none exceeds tol and a closing probe has found no larger value.
"""

from __future__ import annotations

import math
import operator as op
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .._core import _core32, _core64
from .._core import blas as _blas  # noqa: F401  (_blas opens the library that the cores need)
from .._util.progress import progress_line
from ..errors import ConvergenceWarning, InvalidInput, NumericalError, shown

__all__ = ["Progress", "SVDResult", "krylov_basis", "solve", "svd", "warned"]

Array = NDArray[Any]
Progress = Callable[[int, float, Array], object]  # (applications, worst residual, leading sigma)
History = list[tuple[int, float, Array]]

METHODS = ("krylov", "power", "dense")
_CORES: dict[np.dtype[Any], Any] = {np.dtype(np.float32): _core32, np.dtype(np.float64): _core64}
_BASIS_BYTES = 2 << 30  # memory that the Krylov bases may take before they are restarted
_NEAR_TIE = 0.99  # entries this close to the largest count as tied with it when a sign is chosen
_DENSE_BLOCK = 64
_MISSED = 1e-3  # what the core's probes of a run may miss, SVD_MISSED


@dataclass(frozen=True, eq=False)
class SVDResult:
    """The k leading singular triplets of a map (m, d), sigma descending, and what they are worth.

    Converged means two things. Every residual is at most tol: each triplet is one of J's. And the triplets are the
    leading ones: J has no singular value above S[-1] + tol * S[0] on the complement of the vectors found. The second is
    known from a random probe, which passes although a value is missing with probability missed_probability at most
    (0.001 over all probes of a run; 0 if the whole space is spanned, or for "dense"). A value that exceeds S[-1] by no
    more than tol * S[0] counts as equal to it: of such values any k may be the ones returned.

    Signs: in each row of Vh the largest entry in absolute value is positive; of entries within 1% of the largest the
    one of lowest index decides. U follows.

    Clusters: two consecutive triplets belong together if their singular values differ by no more than
    4 * max(residual of either, 16 eps) * sigma_1. Their vectors are then known only up to a turn within the cluster (a
    residual r leaves an angle of about r / gap, here a quarter or more): compare subspaces, not vectors.
    """

    U: Array  # (m, k)
    S: Array  # (k,)
    Vh: Array  # (k, d)
    residuals: Array  # (k,) the larger of the two of `certificate`
    certificate: Array  # (k, 2): |J v - sigma u| and |J'u - sigma v|, over sigma_1
    converged: bool  # every residual is at most tol, and missed_probability is at most 0.001
    clusters: list[tuple[int, ...]]  # ranks, 0-based, of each cluster of two or more
    cluster_open: bool  # the last triplet forms a cluster with the next one, as far as that is known, which is not here
    applications: int  # J or J' on one column
    certificate_applications: int  # made for the certificate alone, not in `applications`
    history: History  # (applications, worst residual, sigma) after each step; infinity while there are fewer than k
    method: str
    tol: float
    seed: int
    seconds: float
    stop: str  # "certified" | "max_applications" | "precision" | "fixed"
    missed_probability: float = 1.0  # bound: that the probe missed a value. 1: it found one, or was not finished
    provenance: dict[str, Any] | None = None  # of what the operator was, where that is known
    make_vectors: Callable[[SVDResult], Any] | None = None  # turns Vh into steering vectors

    @property
    def vectors(self) -> Any:
        """The right singular vectors as a list of SteeringVector, for a result of Jacobian.svd."""
        if self.make_vectors is None:
            raise InvalidInput(
                "this SVD is of a plain operator, not of a model's Jacobian: its directions are the rows of Vh"
            )
        return self.make_vectors(self)

    def __repr__(self) -> str:
        m, d = self.U.shape[0], self.Vh.shape[1]
        state = "converged" if self.converged else f"NOT CONVERGED ({self.stop})"
        extra = f" + {self.certificate_applications} for the certificate" if self.certificate_applications else ""
        label = {i: chr(ord("a") + n % 26) for n, ranks in enumerate(self.clusters) for i in ranks}
        rows = [
            f"{i:5d}  {s:11.5g}  {s / self.S[0] if self.S[0] else 0:8.4f}  {r:9.1e}  {label.get(i, '')}"
            for i, (s, r) in enumerate(zip(self.S, self.residuals, strict=True))
        ]
        if self.cluster_open:
            rows.append(f"the cluster of rank {len(self.S) - 1} goes on beyond k")
        cost = f"{self.applications} applications{extra}, {self.seconds:.2g} s"
        head = f"SVD of ({m}, {d}) by {self.method}: {state} at tol {self.tol:.0e}, {cost}"
        if 0 < self.missed_probability < 1:
            head += f"; a larger value is missed with probability at most {self.missed_probability:.1g}"
        return "\n".join([head, " rank        sigma   /sigma1   residual  cluster", *rows])


def svd(
    operator: Any,
    k: int,
    method: str = "krylov",
    tol: float = 1e-3,
    max_applications: int | None = None,
    seed: int = 0,
    iterations: int = 5,
    oversample: int = 0,
    block: int | None = None,
    progress: bool | Progress = False,
) -> SVDResult:
    """The k leading singular triplets of a real linear map of shape (m, d), 1 <= k <= min(m, d).

    operator: a Jacobian, a 2-D array (any strides, byte order, real dtype), a SciPy LinearOperator or sparse array, or
    any object with `shape`, `dtype` and apply/apply_t (on rows), matmat/rmatmat, matvec/rmatvec, or `@` and `.T`.
    float64 and integers are solved in float64, shorter floats in float32; complex ones are refused.

    method
      "krylov"  block Golub-Kahan until every residual is at most tol, then a random probe of the complement, which
                goes on until nothing is missed but with probability 0.001. block: vectors at a time (None: what the
                operator asks for by `block()`, else 1).
                max_applications: the budget (None: 500 + 50 k).
      "power"   the published algorithm: `iterations` of block power iteration with k + oversample vectors, then
                Rayleigh-Ritz. (2 iterations + 1)(k + oversample) applications, whatever tol is. Counted apart, as
                certificate_applications: k for the residuals and, if all are at most tol, those of the same probe.
      "dense"   LAPACK on the whole matrix, by min(m, d) applications (none for an array).
    progress: True for a progress line (see powersteer.progress), or a callable that gets (applications, worst
    residual, sigma).

    What `converged` means is said at SVDResult. The same arguments and operator give the same bits. Warns
    ConvergenceWarning if the result is not converged, and says what to raise. Raises
    InvalidInput for an argument outside its domain, NumericalError if the operator returns NaN or infinity. What the
    operator itself raises passes through.
    """
    result = solve(operator, k, method, tol, max_applications, seed, iterations, oversample, block, progress)
    return warned(result, max_applications)


def solve(
    operator: Any,
    k: int,
    method: str = "krylov",
    tol: float = 1e-3,
    max_applications: int | None = None,
    seed: int = 0,
    iterations: int = 5,
    oversample: int = 0,
    block: int | None = None,
    progress: bool | Progress = False,
) -> SVDResult:
    """`svd` without its warning, for callers that collect many results."""
    started = time.perf_counter()
    map_ = _as_map(operator)
    k, seed, tol = _check_common(map_.shape, k, seed, tol, method)
    iterations = _integer(iterations, "iterations", 1, sys.maxsize)
    oversample = _integer(oversample, "oversample", 0, sys.maxsize)
    if method != "power" and (iterations != 5 or oversample != 0):
        raise InvalidInput(f"svd: iterations and oversample belong to method='power', not to {method!r}")
    if method != "krylov" and (block is not None or max_applications is not None):
        raise InvalidInput(f"svd: block and max_applications belong to method='krylov', not to {method!r}")
    with _observer(progress, tol) as callback:
        if method == "krylov":
            raw = _krylov(map_, k, tol, seed, _or_default(block, "block", map_.block), max_applications, callback)
        elif method == "power":
            most, basis = _budget(k), krylov_basis(map_.shape, k, 1, map_.dtype)
            core = _CORES[map_.dtype]
            raw = core.svd_power(map_, map_.shape, k, oversample, iterations, seed, tol, most, basis, callback)
        else:
            raw = _dense(map_, k)
    return _result(raw, map_.dtype, method, tol, seed, time.perf_counter() - started)


def warned(result: SVDResult, max_applications: int | None) -> SVDResult:
    """The result; if it is not converged with a warning that points at the line that called our caller."""
    if not result.converged:
        warnings.warn(_advice(result, max_applications), ConvergenceWarning, stacklevel=3)
    return result


def _krylov(
    map_: _Map, k: int, tol: float, seed: int, block: int, budget: int | None, callback: Progress | None
) -> dict[str, Any]:
    block = min(block, *map_.shape)
    budget = _or_default(budget, "max_applications", _budget(k))
    core = _CORES[map_.dtype]
    return cast(
        dict[str, Any],
        core.svd_krylov(map_, map_.shape, k, block, tol, budget, seed, krylov_basis(map_.shape, k, block, map_.dtype), callback),
    )


def _budget(k: int) -> int:
    return 500 + 50 * k


def krylov_basis(shape: tuple[int, int], k: int, block: int, dtype: np.dtype[Any]) -> int:
    """Vectors that the Krylov bases hold before they are restarted."""
    affordable = _BASIS_BYTES // (2 * sum(shape) * dtype.itemsize)
    return min(*shape, max(k + max(2 * block, 12), min(4 * k + 150, affordable)))


def _dense(map_: _Map, k: int) -> dict[str, Any]:
    matrix = map_.matrix()
    if not np.isfinite(matrix).all():
        raise NumericalError("svd: the operator's matrix contains NaN or infinity")
    scale = float(np.abs(matrix).max(initial=0)) or 1.0
    scaled = matrix / map_.dtype.type(scale)  # entries up to 1: products in the certificate neither overflow nor vanish
    try:
        U, S, Vh = np.linalg.svd(scaled, full_matrices=False)
    except np.linalg.LinAlgError as e:
        raise NumericalError(f"svd: LAPACK did not converge on the matrix of shape {map_.shape}") from e
    S1 = float(S[0]) or 1.0
    left = np.linalg.norm(scaled @ Vh[:k].T - U[:, :k] * S[:k], axis=0) / S1
    right = np.linalg.norm(scaled.T @ U[:, :k] - Vh[:k].T * S[:k], axis=0) / S1
    certificate = np.stack([left, right], axis=1).astype(np.float64)
    sigma = S.astype(np.float64) * scale
    spent = map_.dense_applications
    return {
        "U": U[:, :k].T, "S": sigma[:k], "V": Vh[:k], "residuals": certificate, "applications": spent,
        "certificate_applications": 0, "history": [(spent, float(certificate.max()), sigma[:k])],
        "next_sigma": float(sigma[k]) if k < len(sigma) else math.nan, "missed_probability": 0.0, "stop": "fixed",
    }  # fmt: skip


def _result(raw: dict[str, Any], dtype: np.dtype[Any], method: str, tol: float, seed: int, seconds: float) -> SVDResult:
    U, V, sigma, certificate = raw["U"], raw["V"], raw["S"], raw["residuals"]
    signs = _signs(V)
    residuals = certificate.max(axis=1)
    joined = _joined(np.append(sigma, raw["next_sigma"]), np.append(residuals, 0), dtype)
    return SVDResult(
        U=np.ascontiguousarray((signs * U).T),
        S=sigma.astype(dtype),
        Vh=signs * V,
        residuals=residuals,
        certificate=certificate,
        converged=bool((residuals <= tol).all()) and raw["missed_probability"] <= _MISSED,
        missed_probability=raw["missed_probability"],
        clusters=_clusters(joined[:-1]),
        cluster_open=bool(joined[-1]),
        applications=raw["applications"],
        certificate_applications=raw["certificate_applications"],
        history=raw["history"],
        method=method,
        tol=tol,
        seed=seed,
        seconds=seconds,
        stop=raw["stop"],
    )


def _signs(V: Array) -> Array:
    """(k, 1) of +-1 that make the deciding entry of each row positive."""
    size = np.abs(V)
    decides = np.argmax(size >= _NEAR_TIE * size.max(axis=1, keepdims=True), axis=1)
    entries = np.take_along_axis(V, decides[:, None], axis=1)
    return np.where(entries < 0, -1, 1).astype(V.dtype)


def _joined(sigma: Array, residuals: Array, dtype: np.dtype[Any]) -> Array:
    """(len - 1,) bool: rank i cannot be told apart from rank i + 1. A NaN is apart from everything."""
    noise = np.maximum(np.maximum(residuals[:-1], residuals[1:]), 16 * np.finfo(dtype).eps)
    return cast(Array, sigma[:-1] - sigma[1:] <= 4 * noise * sigma[0])


def _clusters(joined: Array) -> list[tuple[int, ...]]:
    clusters: list[tuple[int, ...]] = []
    for i in np.flatnonzero(joined).tolist():
        if clusters and clusters[-1][-1] == i:
            clusters[-1] += (i + 1,)
        else:
            clusters.append((i, i + 1))
    return clusters


def _advice(r: SVDResult, budget: int | None) -> str:
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
            what + "Block power iteration does not wait for tol: raise iterations or oversample, or use method='krylov'"
        )
    return what + f"Raise max_applications (now {given}) or tol"


# ---- arguments ----


def _integer(value: Any, name: str, least: int, most: int | None = None) -> int:
    try:
        number = op.index(value)
    except TypeError:
        raise InvalidInput(f"svd: {name} must be an integer, got {shown(value)}") from None
    if isinstance(value, bool | np.bool_) or number < least or (most is not None and number > most):
        limit = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidInput(f"svd: {name} must be an integer, {limit}, got {shown(value)}")
    return number


def _or_default(value: int | None, name: str, default: int) -> int:
    return default if value is None else _integer(value, name, 1, sys.maxsize)


def _check_common(shape: tuple[int, int], k: Any, seed: Any, tol: Any, method: Any) -> tuple[int, int, float]:
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidInput(f"svd: method must be one of {', '.join(METHODS)}, got {method!r}")
    k = _integer(k, "k", 1)
    if k > min(shape):
        raise InvalidInput(f"svd: k={k}, but a map of shape {shape} has only {min(shape)} singular triplets")
    if not isinstance(tol, int | float | np.integer | np.floating) or isinstance(tol, bool) or not (0 < tol < math.inf):
        raise InvalidInput(f"svd: tol must be a positive number, got {tol!r}")
    return k, _integer(seed, "seed", 0, 2**64 - 1), float(tol)


@contextmanager
def _observer(progress: bool | Progress, tol: float) -> Iterator[Progress | None]:
    """What a run reports to: the caller's callable, or a progress line."""
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


# ---- operators ----


class _Map(Protocol):
    """What the solvers see: real dtype of the core, apply and apply_t on rows."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    block: int
    dense_applications: int

    def apply(self, V: Array, /) -> Array: ...
    def apply_t(self, U: Array, /) -> Array: ...
    def matrix(self) -> Array: ...


Product = Callable[[Array], Any]


class _Products:
    """A map given by two functions on rows."""

    def __init__(
        self, operator: Any, shape: tuple[int, int], dtype: np.dtype[Any], apply: Product, apply_t: Product
    ) -> None:
        self.operator, self.shape, self.dtype = operator, shape, dtype
        self._apply, self._apply_t = apply, apply_t
        wanted = getattr(operator, "block", None)
        self.block = _integer(wanted(), f"{type(operator).__name__}.block()", 1, sys.maxsize) if callable(wanted) else 1
        self.dense_applications = min(shape)

    def apply(self, V: Array) -> Array:
        return self._checked(self._apply, V, "J", self.shape[0])

    def apply_t(self, U: Array) -> Array:
        return self._checked(self._apply_t, U, "J'", self.shape[1])

    def _checked(self, product: Product, x: Array, name: str, length: int) -> Array:
        n, what = len(x), f"{name} of {type(self.operator).__name__}"
        try:
            y = product(x)
        except (NotImplementedError, ValueError, TypeError) as error:
            if not _from_scipy(error):
                raise
            given = "matvec" if name == "J" else "rmatvec"
            raise InvalidInput(f"svd: {what} fails: SciPy cannot use its {given}, if it has one ({error})") from error
        y = _array(y, what)
        if y.shape != (n, length) or y.dtype.kind not in "fiu":
            raise InvalidInput(
                f"svd: {what} on {n} vectors gives (vectors as rows) shape {y.shape},"
                f" dtype {y.dtype}; it must be real, of shape {(n, length)}, for an operator of shape {self.shape}"
            )
        with np.errstate(over="ignore"):  # to infinity, which the solver refuses
            return np.ascontiguousarray(y, dtype=self.dtype)

    def matrix(self) -> Array:
        dense = getattr(self.operator, "dense", None)
        if callable(dense):
            matrix = _array(dense(), f"dense() of {type(self.operator).__name__}")
            if matrix.shape != self.shape or matrix.dtype.kind not in "fiu":
                raise InvalidInput(
                    f"svd: dense() gives shape {matrix.shape}, dtype {matrix.dtype}; it must be real, of the operator's"
                    f" shape {self.shape}"
                )
            return matrix.astype(self.dtype, copy=False)
        wide = self.shape[0] < self.shape[1]
        n, product = min(self.shape), self.apply_t if wide else self.apply
        starts = range(0, n, _DENSE_BLOCK)
        rows = np.concatenate([product(np.eye(min(_DENSE_BLOCK, n - i), n, i, dtype=self.dtype)) for i in starts])
        return rows if wide else rows.T


class _Matrix(_Products):
    def __init__(self, array: Array) -> None:
        dtype = _real_dtype(array.dtype, "array")
        if array.ndim != 2 or not array.size:
            raise InvalidInput(f"svd: the array must have shape (m, d), m and d at least 1, got {array.shape}")
        if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
            raise InvalidInput("svd: the array has masked entries; fill them first")
        a = np.asarray(array, dtype=dtype.newbyteorder("="))
        if not (a.flags.c_contiguous or a.flags.f_contiguous):
            a = np.ascontiguousarray(a)
        super().__init__(a, a.shape, dtype, lambda V: V @ a.T, lambda U: U @ a)
        self.dense_applications = 0
        self._a = a

    def matrix(self) -> Array:
        return self._a


def _from_scipy(error: BaseException) -> bool:
    """Whether SciPy's LinearOperator raised it about what it wraps, and not the code that it wraps."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")) == "scipy.sparse.linalg._interface"


def _array(value: Any, what: str) -> Array:
    """np.asanyarray, whose errors are of many kinds: ragged lists, tensors that require grad, types NumPy lacks."""
    try:
        return np.asanyarray(value)
    except Exception as error:
        raise InvalidInput(f"svd: {what} cannot be read as an array: {error}") from error


def _real_dtype(dtype: Any, what: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(dtype)
    except (TypeError, ValueError):
        raise InvalidInput(f"svd: the {what}'s dtype {dtype!r} is not a NumPy dtype; it must be real") from None
    if dtype.kind not in "fiub":
        raise InvalidInput(f"svd: the {what} has dtype {dtype}; it must be real")
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def _as_map(operator: Any) -> _Map:
    if isinstance(operator, list | tuple) or hasattr(operator, "__array__"):
        return _Matrix(_array(operator, f"the {type(operator).__name__}"))
    name = type(operator).__name__
    shape = getattr(operator, "shape", None)
    if (
        not isinstance(shape, tuple)
        or len(shape) != 2
        or not all(isinstance(n, int | np.integer) for n in shape)
        or min(shape) < 1
    ):
        raise InvalidInput(
            f"svd: {name} is no linear operator: it needs a shape (m, d), m and d at least 1, and here it is {shape!r}"
        )
    size = (int(shape[0]), int(shape[1]))
    declared = getattr(operator, "dtype", None)
    dtype = np.dtype(np.float64) if declared is None else _real_dtype(declared, name)
    products = _products(operator)
    if products is None:
        raise InvalidInput(
            f"svd: {name} has no products: apply and apply_t, matmat and rmatmat, matvec and rmatvec, or @ and .T"
        )
    return _Products(operator, size, dtype, *products)


def _products(operator: Any) -> tuple[Product, Product] | None:
    """J and J' on rows, by the first pair of methods that the operator has."""

    def has(*names: str) -> bool:
        return all(callable(getattr(operator, name, None)) for name in names)

    if has("apply", "apply_t"):
        return operator.apply, operator.apply_t
    if has("matmat", "rmatmat"):
        return lambda V: operator.matmat(V.T).T, lambda U: operator.rmatmat(U.T).T
    if has("matvec", "rmatvec"):
        return (
            lambda V: [np.ravel(_array(operator.matvec(v), "what matvec returns")) for v in V],
            lambda U: [np.ravel(_array(operator.rmatvec(u), "what rmatvec returns")) for u in U],
        )
    if has("__matmul__") and hasattr(operator, "T"):
        transposed = operator.T
        return (
            lambda V: _array(operator @ V.T, "what @ returns").T,
            lambda U: _array(transposed @ U.T, "what .T @ returns").T,
        )
    return None
