"""A real linear map given by its products: SciPy's LinearOperator with products on blocks of rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from ..errors import InvalidInput, shown

__all__ = ["LinearMap"]

Array = NDArray[Any]


class LinearMap(LinearOperator):  # type: ignore[misc]
    """A real linear map of shape (m, d) given by its products.

    It is a `scipy.sparse.linalg.LinearOperator`: `J @ v`, `J @ V`, `u @ J`, `J.T @ u`, `2 * J`, `J.T @ J` and
    `scipy.sparse.linalg.svds(J)` work. A subclass defines `apply` and `apply_t` on blocks of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from powersteer.linalg.operator import LinearMap
    >>> class Double(LinearMap):
    ...     def apply(self, V):
    ...         return 2 * V
    ...     apply_t = apply
    >>> J = Double((3, 3), np.dtype("f8"))
    >>> J @ np.ones(3), (J.T @ J @ np.ones((3, 2))).shape
    (array([2., 2., 2.]), (3, 2))
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        super().__init__(dtype, shape)

    @abstractmethod
    def apply(self, V: Array) -> Array:
        """J on every row of V.

        Parameters
        ----------
        V
            (n, d) contiguous array of `dtype`.

        Returns
        -------
        (n, m) array.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> ps.load("demo").jacobian("Q: 3*4", source=1, target=3).apply(np.eye(2, 160, dtype="f4")).shape
        (2, 320)
        """

    @abstractmethod
    def apply_t(self, U: Array) -> Array:
        """The transpose of J on every row of U.

        Parameters
        ----------
        U
            (n, m) contiguous array of `dtype`.

        Returns
        -------
        (n, d) array.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> ps.load("demo").jacobian("Q: 3*4", source=1, target=3).apply_t(np.eye(2, 320, dtype="f4")).shape
        (2, 160)
        """

    def dense(self) -> Array:
        """The matrix, by min(m, d) products.

        Returns
        -------
        (m, d) array.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").jacobian("Q: 3*4", source=1, target=3, target_positions=-1).dense().shape
        (160, 160)
        """
        m, d = self.shape
        if m < d:
            return self.apply_t(np.eye(m, dtype=self.dtype))
        return np.ascontiguousarray(self.apply(np.eye(d, dtype=self.dtype)).T)

    def aslinearoperator(self) -> LinearOperator:
        """This map itself, which is a `scipy.sparse.linalg.LinearOperator`.

        Examples
        --------
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobian("Q: 3*4", source=1, target=3)
        >>> J.aslinearoperator() is J
        True
        """
        return self

    def dot(self, x: Any) -> Any:
        """The product J @ x.

        Parameters
        ----------
        x
            A vector (d,), columns (d, n), a number or a LinearOperator.

        Returns
        -------
        (m,) or (m, n) array; a LinearOperator for a number or operator.

        Raises
        ------
        InvalidInput
            For a wrong shape, and for complex x.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobian("Q: 3*4", source=1, target=3)
        >>> J.dot(np.ones((160, 2))).shape
        (320, 2)
        """
        if not isinstance(x, LinearOperator) and not np.isscalar(x):
            x, d = np.asarray(x), self.shape[1]
            if x.ndim not in (1, 2) or x.shape[0] != d:
                raise InvalidInput(f"J @ x: J has shape {self.shape}, x has shape {x.shape}; x must be ({d},) or ({d}, n)")
        return super().dot(x)

    def __matmul__(self, x: Any) -> Any:
        """The product with a vector (d,), columns (d, n) or an operator."""
        if np.isscalar(x):
            raise InvalidInput(f"J @ x: x is the number {shown(x)}, and a matrix product needs an array; write x * J")
        return self.dot(x)

    def __rmatmul__(self, x: Any) -> Any:
        """u @ J = J' u for a vector (m,), U @ J for rows (n, m)."""
        if np.isscalar(x):
            raise InvalidInput(f"x @ J: x is the number {shown(x)}, and a matrix product needs an array; write x * J")
        if isinstance(x, LinearOperator):
            return super().__rmatmul__(x)
        return (self.T @ np.asarray(x).T).T

    def _matmat(self, X: Array) -> Array:
        """The product with columns (d, n), as contiguous rows of this map's dtype. SciPy derives every other product."""
        if X.dtype.kind not in "fiu":
            raise InvalidInput(f"J @ x: x has dtype {X.dtype}; J is real, and so must x be (use x.real and x.imag)")
        return np.transpose(self.apply(np.ascontiguousarray(X.T, dtype=self.dtype)))

    def _transpose(self) -> LinearMap:
        return _Transpose(self)

    _adjoint = _transpose  # the map is real


class _Transpose(LinearMap):
    """The transpose of a map; its own transpose is that map again."""

    def __init__(self, of: LinearMap) -> None:
        super().__init__(of.shape[::-1], of.dtype)
        self._of = of

    def apply(self, V: Array) -> Array:
        return self._of.apply_t(V)

    def apply_t(self, U: Array) -> Array:
        return self._of.apply(U)

    def _transpose(self) -> LinearMap:
        return self._of

    _adjoint = _transpose

    def __repr__(self) -> str:
        return f"{self._of!r}.T"
