"""Arithmetic of steering vectors: what each result keeps of the provenance of the vectors it was made from."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_list
from .._util.warn import warn_user
from ..errors import InvalidInput, shown
from ..inputs.sites import Site
from .codec import ProvenanceWarning, finite_factor

__all__ = ["Arithmetic", "check_adds"]

V = TypeVar("V", bound="Arithmetic")
# Fields that a result of several vectors keeps if all of them agree
_SHARED = ("site_norm", "model", "model_type", "weights")


def check_adds(vector: Arithmetic, purpose: str) -> None:
    """Raises InvalidInput for a vector that clamps, which cannot be `purpose`, a participle."""
    if vector.operation != "add":
        raise InvalidInput(f"{vector!r} is not added, and cannot be {purpose}: do that before clamp() or ablate()")


class Arithmetic:
    """Operators and methods of `SteeringVector` that give another vector, or a number, from one or two vectors.

    A factor changes the scale and keeps every other field but `calibration`, which was of the old scale. A result of
    several vectors keeps the model and the activation norm, if they agree; `method` says how it was made and `parents` of
    what. Fields of how a vector was found, such as target and singular value, do not apply to it and are dropped.
    """

    if TYPE_CHECKING:
        direction: NDArray[Any]
        scale: float
        operation: str
        method: str
        rank: int | None
        site_norm: float | None

        @property
        def vector(self) -> NDArray[Any]: ...
        @property
        def location(self) -> Site: ...
        @classmethod
        def from_array(cls: type[V], vector: Any, layer: int | str, site: str | None = None, **provenance: Any) -> V: ...

    def relative(self: V, fraction: float) -> V:
        """This direction with a scale relative to the activation it is added to.

        Parameters
        ----------
        fraction : float
            The new scale is `fraction * site_norm`, with the sign of the present scale, whose size is ignored.

        Raises
        ------
        InvalidInput
            If site_norm is unknown or zero, and for a vector that clamps: `v.relative(0.25).clamp()`.

        Examples
        --------
        >>> import powersteer as ps
        >>> v = ps.SteeringVector([0.6, 0.8], 3, "mlp_out", site_norm=20.0)
        >>> v.relative(0.25).scale, (-v).relative(0.25).scale
        (5.0, -5.0)
        """
        check_adds(self, "given a scale relative to the activation")
        if self.site_norm is None:
            raise InvalidInput(
                "this vector does not know its site's activation norm: multiply it by an absolute scale, or set the "
                "norm with dataclasses.replace(vec, site_norm=...)"
            )
        if not self.site_norm > 0:
            raise InvalidInput(
                f"the activation at {self.location} is zero on this vector's prompts, so that every fraction of its norm is: "
                "multiply the vector by an absolute scale"
            )
        return self._scaled(math.copysign(1.0, self.scale) * finite_factor(fraction) * self.site_norm)

    def cosine(self, other: Arithmetic) -> float:
        """Cosine of the angle between what two vectors add, -1 to 1. `a @ b` is their dot product.

        Parameters
        ----------
        other : SteeringVector
            At the same site.

        Raises
        ------
        InvalidInput
            For a vector at another site, for one that clamps, and for a scale of 0, which has no direction.

        Examples
        --------
        >>> import powersteer as ps
        >>> a, b = (ps.SteeringVector.from_array(x, 3, "mlp_out") for x in ([3.0, 4.0], [5.0, 0.0]))
        >>> a @ b, round(a.cosine(b), 6), round(a.cosine(-2 * b), 6)
        (15.0, 0.6, -0.6)
        """
        _same_site([self, _vector(other)], "have no angle to each other")
        if not (self.scale and other.scale):
            raise InvalidInput(f"{self!r} and {other!r} have no angle to each other: a scale is 0")
        cosine = _dot(self.direction, other.direction) / math.sqrt(
            _dot(self.direction, self.direction) * _dot(other.direction, other.direction)
        )
        return math.copysign(min(max(cosine, -1.0), 1.0), cosine * self.scale * other.scale)

    def project(self: V, onto: Arithmetic | Sequence[Arithmetic]) -> V:
        """The part of this vector along another, or in the span of several.

        Parameters
        ----------
        onto : SteeringVector or list of them
            At the same site; their scales do not matter.

        Returns
        -------
        SteeringVector
            Its method is "projection". `a.project(b) + a.orthogonalise(b)` adds what `a` does.

        Raises
        ------
        InvalidInput
            For vectors at another site, for those that clamp, and if nothing but rounding is left.

        Examples
        --------
        >>> import powersteer as ps
        >>> a, b = (ps.SteeringVector.from_array(x, 3, "mlp_out") for x in ([3.0, 4.0], [5.0, 0.0]))
        >>> a.project(b).vector.tolist(), a.project(b).parents
        ([3.0, 0.0], ('5 × given', '5 × given'))
        """
        others, inside = self._parts(onto)
        return self._combined(inside, "projection", others)

    def orthogonalise(self: V, against: Arithmetic | Sequence[Arithmetic]) -> V:
        """This vector without its part along another, or in the span of several.

        Parameters
        ----------
        against : SteeringVector or list of them
            At the same site; their scales do not matter.

        Returns
        -------
        SteeringVector
            Its method is "orthogonalised".

        Raises
        ------
        InvalidInput
            For vectors at another site, for those that clamp, and if nothing but rounding is left.

        Examples
        --------
        >>> import powersteer as ps
        >>> a, b = (ps.SteeringVector.from_array(x, 3, "mlp_out") for x in ([3.0, 4.0], [5.0, 0.0]))
        >>> a.orthogonalise(b).vector.tolist()
        [0.0, 4.0]
        """
        others, inside = self._parts(against)
        return self._combined(self.vector.astype(np.float64) - inside, "orthogonalised", others)

    # ---- operators

    def __mul__(self: V, factor: float) -> V:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        return self._scaled(self.scale * finite_factor(factor))

    __rmul__ = __mul__

    def __truediv__(self: V, divisor: float) -> V:
        if not isinstance(divisor, numbers.Real):
            return NotImplemented
        if divisor == 0:
            raise InvalidInput("a steering vector cannot be divided by 0")
        return self._scaled(self.scale / finite_factor(divisor))

    def __neg__(self: V) -> V:
        return self._scaled(-self.scale)

    def __add__(self: V, other: V) -> V:
        if not isinstance(other, Arithmetic):
            return NotImplemented
        _same_site([self, other], "do not add up to one vector; steer with both: model.steered([a, b])")
        return self._combined(np.add(self.vector, other.vector), "sum", [other])

    def __sub__(self: V, other: V) -> V:
        return self + -other if isinstance(other, Arithmetic) else NotImplemented

    def __matmul__(self, other: Arithmetic) -> float:
        if not isinstance(other, Arithmetic):
            return NotImplemented
        _same_site([self, other], "have no dot product")
        return _dot(self.vector, other.vector)

    # ---- what they share

    def _scaled(self: V, scale: float) -> V:
        check_adds(self, "scaled")
        return replace(self, scale=scale, calibration=None)  # type: ignore[type-var]

    def _parts(self, others: Any) -> tuple[list[Arithmetic], NDArray[np.float64]]:
        """(the other vectors, the part (d,) of what this one adds that is in their span)."""
        found = [_vector(v) for v in as_list(others)]
        if not found:
            raise InvalidInput("there is no vector to project on: the list is empty")
        _same_site([self, *found], "cannot be projected on each other")
        U, S, _ = np.linalg.svd(np.array([v.direction for v in found], np.float64).T, full_matrices=False)
        basis = U[:, S[0] * len(self.direction) * np.finfo(found[0].direction.dtype).eps < S]
        return found, basis @ (basis.T @ self.vector.astype(np.float64))

    def _combined(self: V, total: NDArray[Any], method: str, others: Sequence[Arithmetic]) -> V:
        """The vector that adds `total`, made from this one and others. Raises InvalidInput where it is zero to rounding."""
        parents: list[Arithmetic] = [self, *others]
        size = abs(self.scale) + (abs(others[0].scale) if method == "sum" else 0.0)
        dtype = np.result_type(*(v.direction for v in parents))
        if np.linalg.norm(total.astype(np.float64)) <= 4 * np.finfo(dtype).eps * size:
            names = " and ".join(map(repr, parents))
            raise InvalidInput(f"nothing but rounding is left of {names} ({method}); a steering vector must not be zero")
        if len({v.weights for v in parents} - {None}) > 1:  # type: ignore[attr-defined]
            warn_user(f"a {method} of vectors that were made with different models may mean nothing", ProvenanceWarning)
        common = {name: getattr(self, name) for name in _SHARED if all(getattr(v, name) == getattr(self, name) for v in others)}
        about = tuple(v._short() for v in parents)
        return self.from_array(total.astype(dtype), *self.location, method=method, parents=about, **common)

    def _short(self) -> str:
        """A few words that tell a parent from another: its scale, method and rank."""
        return f"{self.scale:.6g} × {self.method}" + ("" if self.rank is None else f" {self.rank}")


def _vector(value: Any) -> Arithmetic:
    if not isinstance(value, Arithmetic):
        raise InvalidInput(f"{shown(value)} is not a SteeringVector; SteeringVector.from_array(array, layer, site) makes one")
    return value


def _same_site(vectors: Sequence[Arithmetic], but: str) -> None:
    """Raises InvalidInput unless the vectors can be combined: all add, at one site."""
    first = vectors[0]
    for v in vectors:
        check_adds(v, "combined with another vector")
    for v in vectors[1:]:
        if v.location != first.location or len(v.direction) != len(first.direction):
            raise InvalidInput(
                f"vectors at {first.location} ({len(first.direction)}) and {v.location} ({len(v.direction)}) {but}"
            )


def _dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(a.astype(np.float64) @ b.astype(np.float64))
