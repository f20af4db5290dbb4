"""Arrays and operators of other libraries as a LinearMap, with every product checked."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import check_count
from ..errors import InvalidInput
from .operator import LinearMap

__all__ = ["CheckedMap", "as_checked_map"]

Array = NDArray[Any]
Product = Callable[[Array], Any]

_DENSE_BLOCK = 64  # unit vectors multiplied at a time


class CheckedMap(LinearMap):
    """An operator, or a matrix, with its two products on rows, of which shape and dtype are checked."""

    def __init__(
        self, operator: Any, shape: tuple[int, int], dtype: np.dtype[Any], products: tuple[Product, Product]
    ) -> None:
        super().__init__(shape, dtype)
        self._operator, self._products, self._name = operator, products, type(operator).__name__
        self.dense_applications = 0 if isinstance(operator, np.ndarray) else min(shape)

    @property
    def block(self) -> int:
        """Vectors at a time that the operator wants."""
        wanted = getattr(self._operator, "block", None)
        return check_count(wanted(), f"svd: {self._name}.block()", sys.maxsize) if callable(wanted) else 1

    def apply(self, V: Array) -> Array:
        return self._product(0, V)

    def apply_t(self, U: Array) -> Array:
        return self._product(1, U)

    def _product(self, side: int, x: Array) -> Array:
        n, length, what = len(x), self.shape[side], ("J'" if side else "J") + f" of {self._name}"
        try:
            y = self._products[side](x)
        except (NotImplementedError, ValueError, TypeError) as error:
            if not _from_scipy(error):
                raise
            given = ("matvec", "rmatvec")[side]
            raise InvalidInput(
                f"svd: {what} fails: SciPy cannot use its {given}, or it has none ({error}); give the operator a {given}"
            ) from error
        y = _array(y, what)
        if y.shape != (n, length) or y.dtype.kind not in "fiu":
            raise InvalidInput(
                f"svd: {what} on {n} vectors gives (vectors as rows) shape {y.shape},"
                f" dtype {y.dtype}; it must be real, of shape {(n, length)}, for an operator of shape {self.shape}"
            )
        with np.errstate(over="ignore"):  # to infinity, which the solver refuses
            return np.ascontiguousarray(y, dtype=self.dtype)

    def dense(self) -> Array:
        """The matrix (m, d): the known one, the operator's own `dense()`, or made by min(m, d) products."""
        if isinstance(self._operator, np.ndarray):
            return self._operator
        if callable(dense := getattr(self._operator, "dense", None)):
            matrix = _array(dense(), f"dense() of {self._name}")
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


def as_checked_map(operator: Any) -> CheckedMap:
    """An array or any operator with products, in float32 or float64. Raises InvalidInput for anything else."""
    name = type(operator).__name__
    if isinstance(operator, list | tuple) or hasattr(operator, "__array__"):
        return _of_array(_array(operator, f"the {name}"))
    shape = getattr(operator, "shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(n, int | np.integer) and n > 0 for n in shape)):
        raise InvalidInput(
            f"svd: {name} is not a linear operator: it needs a shape (m, d), m and d at least 1, and its shape is {shape!r}"
        )
    declared = getattr(operator, "dtype", None)
    dtype = np.dtype(np.float64) if declared is None else _real_dtype(declared, name)
    m, d = map(int, shape)
    return CheckedMap(operator, (m, d), dtype, _products(operator))


def _of_array(array: Array) -> CheckedMap:
    dtype = _real_dtype(array.dtype, "array")
    if array.ndim != 2 or not array.size:
        raise InvalidInput(f"svd: the array must have shape (m, d), m and d at least 1, got {array.shape}")
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InvalidInput("svd: the array has masked entries; fill them first")
    a = np.asarray(array, dtype=dtype.newbyteorder("="))
    if not (a.flags.c_contiguous or a.flags.f_contiguous):
        a = np.ascontiguousarray(a)
    return CheckedMap(a, a.shape, dtype, (lambda V: V @ a.T, lambda U: U @ a))


def _products(operator: Any) -> tuple[Product, Product]:
    """J and its transpose on rows, by the first pair of methods that the operator has."""

    def has(*names: str) -> bool:
        return all(callable(getattr(operator, name, None)) for name in names)

    if has("apply", "apply_t"):
        return operator.apply, operator.apply_t
    if has("matmat", "rmatmat"):
        return lambda V: operator.matmat(V.T).T, lambda U: operator.rmatmat(U.T).T
    if has("matvec", "rmatvec"):
        return (
            lambda V: [np.ravel(_array(operator.matvec(v), "the result of matvec")) for v in V],
            lambda U: [np.ravel(_array(operator.rmatvec(u), "the result of rmatvec")) for u in U],
        )
    if has("__matmul__") and hasattr(operator, "T"):
        transposed = operator.T
        return (
            lambda V: _array(operator @ V.T, "the result of @").T,
            lambda U: _array(transposed @ U.T, "the result of .T @").T,
        )
    raise InvalidInput(
        f"svd: {type(operator).__name__} has no products: apply and apply_t, matmat and rmatmat, matvec and rmatvec,"
        " or @ and .T"
    )


def _from_scipy(error: BaseException) -> bool:
    """Whether SciPy's LinearOperator raised the error itself, rather than a function that it calls."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") == "scipy.sparse.linalg._interface"


def _array(value: Any, what: str) -> Array:
    """np.asanyarray, whose errors are of many kinds: ragged lists, tensors that require grad, types NumPy lacks."""
    try:
        return np.asanyarray(value)
    except Exception as error:
        advice = "; convert it to float32 first" if "loat" in str(getattr(value, "dtype", "")) else ""
        raise InvalidInput(f"svd: {what} cannot be read as an array: {error}{advice}") from error


def _real_dtype(dtype: Any, what: str) -> np.dtype[Any]:
    """float32 for floats of up to 4 bytes, float64 for longer ones and integers."""
    try:
        dtype = np.dtype(dtype)
    except (TypeError, ValueError):
        raise InvalidInput(f"svd: the {what}'s dtype {dtype!r} is not a NumPy dtype; it must be real") from None
    if dtype.kind not in "fiub":
        raise InvalidInput(f"svd: the {what} has dtype {dtype}; it must be real")
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)
