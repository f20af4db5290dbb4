"""The result of a singular value decomposition: triplets, their certificate, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .._util.html import table
from ..errors import InvalidInput

__all__ = ["History", "SVDResult", "result_of"]

Array = NDArray[Any]
History = list[tuple[int, float, Array]]

_NEAR_TIE = 0.99  # entries this close to the largest count as tied with it when a sign is chosen
_MISSED = 1e-3  # probability that the core's probes of a run miss a value, SVD_MISSED
_HEADER = ("rank", "sigma", "/sigma1", "residual", "cluster")


@dataclass(frozen=True, eq=False, repr=False)
class SVDResult:
    """The k leading singular triplets of a map (m, d), descending, with a certificate on every triplet.

    `print(svd)` shows the table of triplets.

    Attributes
    ----------
    U, S, Vh
        Singular vectors and values: (m, k), (k,), (k, d).
    residuals
        (k,) the larger of the two columns of `certificate`.
    certificate
        (k, 2): |J v - sigma u| and |J'u - sigma v|, over sigma_1.
    converged
        Whether every residual is at most tol and missed_probability is at most 0.001; see Notes.
    clusters
        Ranks, from 0, of each cluster of two or more; see Notes.
    cluster_open
        Whether the last triplet also forms a cluster with the next one, which is beyond k.
    applications
        Products with J or its transpose, counted by column.
    certificate_applications
        Products made for the certificate alone, not in `applications`.
    history
        (applications, worst residual, sigma) after each step; infinity while there are fewer than k triplets.
    method, tol, seed
        As given.
    seconds
        Wall time.
    stop
        "certified", "max_applications", "precision" or "fixed".
    missed_probability
        Bound on the probability that the probe missed a larger value. 1: it found one, or did not finish.
    make_provenance
        Function that makes `provenance`; None for other operators than Jacobians.
    make_vectors
        Function that makes steering vectors of a result; None for other operators.

    Notes
    -----
    Converged: every triplet is one of J's, and they are the leading ones: J has no singular value above
    S[-1] + tol * S[0] on the complement of the vectors found. A random probe checks the second. It passes although a
    value is missing with probability missed_probability at most (0.001 over all probes of a run; 0 for "dense", and if
    the whole space is spanned). A value that exceeds S[-1] by no more than tol * S[0] counts as equal to it: any k of
    such values may be returned.

    Signs: in each row of Vh the largest entry in absolute value is positive; of entries within 1% of the largest the
    one of lowest index decides. U follows.

    Clusters: two consecutive triplets belong together if their singular values differ by no more than
    4 * max(residual of either, 16 eps) * sigma_1. Their vectors are determined only up to a rotation within the cluster
    (a residual r leaves an angle of about r / gap, here a quarter or more): compare subspaces, not vectors.

    Examples
    --------
    >>> import numpy as np
    >>> import powersteer as ps
    >>> svd = ps.svd(np.diag([3.0, 2.0, 2.0, 1.0]), k=3)
    >>> svd
    SVDResult(k=3 of a map (4, 4), krylov, converged at tol 1e-03, sigma 3 to 2)
    >>> svd.clusters
    [(1, 2)]
    """

    U: Array
    S: Array
    Vh: Array
    residuals: Array
    certificate: Array
    converged: bool
    clusters: list[tuple[int, ...]]
    cluster_open: bool
    applications: int
    certificate_applications: int
    history: History
    method: str
    tol: float
    seed: int
    seconds: float
    stop: str
    missed_probability: float = 1.0
    make_provenance: Callable[[], dict[str, Any]] | None = None
    make_vectors: Callable[[SVDResult], Any] | None = None

    @cached_property
    def provenance(self) -> dict[str, Any] | None:
        """Model, sites and prompts of a Jacobian; None for other operators. Prompts of token ids are decoded for it."""
        return None if self.make_provenance is None else self.make_provenance()

    @property
    def vectors(self) -> list[Any]:
        """The right singular vectors as a list of SteeringVector, for a result of Jacobian.svd."""
        if self.make_vectors is None:
            raise InvalidInput(
                "this SVD is of a plain operator, not of a model's Jacobian: its directions are the rows of Vh"
            )
        return list(self.make_vectors(self))

    def __len__(self) -> int:
        """k, the number of triplets."""
        return len(self.S)

    def _shape(self) -> tuple[int, int]:
        return self.U.shape[0], self.Vh.shape[1]

    def _state(self) -> str:
        return f"{'converged' if self.converged else f'NOT CONVERGED ({self.stop})'} at tol {self.tol:.0e}"

    def _head(self) -> str:
        extra = f" + {self.certificate_applications} for the certificate" if self.certificate_applications else ""
        cost = f"{self.applications} applications{extra}, {self.seconds:.2g} s"
        head = f"SVD of {self._shape()} by {self.method}: {self._state()}, {cost}"
        if 0 < self.missed_probability < 1:
            head += f"; a larger value is missed with probability at most {self.missed_probability:.1g}"
        return head

    def _rows(self) -> list[tuple[str, ...]]:
        label = {i: chr(ord("a") + n % 26) for n, ranks in enumerate(self.clusters) for i in ranks}
        rows = enumerate(zip(self.S, self.residuals, strict=True))
        return [
            (f"{i}", f"{s:.5g}", f"{s / self.S[0] if self.S[0] else 0:.4f}", f"{r:.1e}", label.get(i, "")) for i, (s, r) in rows
        ]

    def _foot(self) -> str:
        return f"the cluster of rank {len(self.S) - 1} goes on beyond k" if self.cluster_open else ""

    def __repr__(self) -> str:
        k, S = len(self.S), self.S
        return f"SVDResult(k={k} of a map {self._shape()}, {self.method}, {self._state()}, sigma {S[0]:.4g} to {S[-1]:.4g})"

    def __str__(self) -> str:
        rows = ["{:>5}  {:>11}  {:>8}  {:>9}  {}".format(*row) for row in [_HEADER, *self._rows()]]
        return "\n".join(filter(None, [self._head(), *rows, self._foot()]))

    def _repr_html_(self) -> str:
        return table(_HEADER, self._rows(), "; ".join(filter(None, [self._head(), self._foot()])))


def result_of(raw: dict[str, Any], dtype: np.dtype[Any], tol: float, **settings: Any) -> SVDResult:
    """The result of a solver of the core, with signs fixed and clusters marked. settings: method, seed, seconds."""
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
        clusters=_clusters(joined[:-1]),
        cluster_open=bool(joined[-1]),
        tol=tol,
        **settings,
        **{name: raw[name] for name in ("missed_probability", "applications", "certificate_applications", "history", "stop")},
    )


def _signs(V: Array) -> Array:
    """(k, 1) of +-1 that make the deciding entry of each row positive."""
    size = np.abs(V)
    decides = np.argmax(size >= _NEAR_TIE * size.max(axis=1, keepdims=True), axis=1)
    entries = np.take_along_axis(V, decides[:, None], axis=1)
    return np.where(entries < 0, -1, 1).astype(V.dtype)


def _joined(sigma: Array, residuals: Array, dtype: np.dtype[Any]) -> Array:
    """(len - 1,) bool: whether ranks i and i + 1 form a cluster. A NaN forms none."""
    noise = np.maximum(np.maximum(residuals[:-1], residuals[1:]), 16 * np.finfo(dtype).eps)
    return cast(Array, sigma[:-1] - sigma[1:] <= 4 * noise * sigma[0])


def _clusters(joined: Array) -> list[tuple[int, ...]]:
    """Runs of joined ranks."""
    runs = np.split(np.arange(len(joined) + 1), np.flatnonzero(~joined) + 1)
    return [tuple(run.tolist()) for run in runs if len(run) > 1]
