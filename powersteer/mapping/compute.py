"""Computing units of work, in this process or a worker: from a model and settings to pairs, vectors and sketches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..linalg.lockstep import matrices_together
from ..linalg.svd import SVDResult
from ..model import Model
from ..model.jacobian import Jacobians
from ..model.linearise import linearise
from ..model.remote import RemoteModel
from .settings import NEXT_TOKEN, Settings
from .store import Pair, Sketch, WorkUnit

__all__ = ["compute", "run_remote"]

Array = NDArray[Any]


def compute(
    model: Model, settings: Settings, kind: str, units: Sequence[WorkUnit], progress: Callable[[int], object] | None = None
) -> Iterator[Any]:
    """Of every unit, its pairs and the vectors (k, d) of each; or, of the kind "sketch", its list of sketches. Units have one group
    of prompts and share its forward pass.

    Krylov runs of all units advance together; progress is called with the number of vectors that each of their sweeps has
    multiplied. Units of other kinds are computed one after the other.
    """
    J, where = _jacobians(model, settings, units)
    left = iter(where)
    at = [list(itertools.islice(left, len(unit.targets))) for unit in units]
    if kind == "krylov":
        results = iter(J.svd(
            settings.k, tol=settings.tol, seed=settings.seed, max_applications=settings.max_applications, progress=progress
        ))  # fmt: skip
        for places in at:
            found = list(itertools.islice(results, len(places)))
            yield [_pair(place, r, r.applications) for place, r in zip(places, found, strict=True)], [r.Vh for r in found]
        return
    d, first = model.d_model, itertools.accumulate((len(unit.targets) for unit in units), initial=0)
    for unit, places, i in zip(units, at, first, strict=False):
        if kind == "sketch":
            rng = np.random.Generator(np.random.Philox(key=[settings.seed, unit.source]))
            omega = rng.standard_normal((settings.sketch, d)).astype(J.dtype)
            products = J.apply_all(omega, slice(i, i + len(places)))
            yield [_sketch(place, Y, settings.k) for place, Y in zip(places, products, strict=True)]
        else:
            matrices = J.dense(slice(i, i + len(places)))
            found = matrices_together(matrices, settings.k, settings.tol, settings.seed, model.threads)
            yield [_pair(place, r, d) for place, r in zip(places, found, strict=True)], [r.Vh for r in found]


def _jacobians(model: Model, settings: Settings, units: Sequence[WorkUnit]) -> tuple[Jacobians, list[dict[str, Any]]]:
    """The Jacobians of all pairs of the units, from one forward pass, and the fields of each that tell where it is."""
    group = units[0].prompt_group
    core, made, pairs = linearise(
        model, [np.array(settings.prompts[i].tokens, np.int32) for i in settings.groups[group]],
        [(unit.source, [(t, None if t == NEXT_TOKEN else settings.target_site) for t in unit.targets]) for unit in units],
        source_site=settings.source_site, target_positions=settings.target_positions, source_positions=None,
        reduce="stack", heads_at_last=True,
    )  # fmt: skip
    J = Jacobians(core, model.dtype, model.threads, made, pairs)
    ends = [(unit.source, target) for unit in units for target in unit.targets]
    return J, [
        {"prompt_group": group, "source": source, "target": target, "site_norm": norm, "base_norm": float(np.linalg.norm(base))}
        for (source, target), norm, base in zip(ends, J.source_norms, J.bases, strict=True)
    ]


def _pair(where: dict[str, Any], r: SVDResult, applications: int) -> Pair:
    return Pair(
        **where,
        method=r.method,
        sigma=tuple(map(float, r.S)),
        residuals=tuple(map(float, r.residuals)),
        converged=r.converged,
        clusters=tuple(r.clusters),
        cluster_open=r.cluster_open,
        applications=applications,
        stop=r.stop,
        missed_probability=r.missed_probability,
    )


def _sketch(where: dict[str, Any], Y: Array, k: int) -> Sketch:
    """Leading singular values of a target, from products (p, m) with p random vectors.

    With omega (d, p) of independent unit normals, Y = J omega / sqrt(p) has E[Y Y'] = J J', and its eigenvalues are
    those of J J' spread out. To first order in 1/p (Lawley 1956) E[l_i] = l_i (1 + (1/p) sum_{j != i} l_j / (l_i - l_j)),
    whose far part is the trace: l_i is estimated as y_i - (|J|_F^2 - sum of those up to i) / p, and its standard error
    is l_i sqrt(2 / p). Both are rough for clustered values: the sketch orders the work, the certified run gives the values.
    """
    p = len(Y)
    Y = Y.astype(np.float64) / np.sqrt(p)
    y = np.maximum(np.linalg.eigvalsh(Y @ Y.T)[::-1], 0.0)
    total = float(y.sum())  # unbiased for the squared Frobenius norm
    values: list[float] = []
    for i in range(min(k, len(y), max(1, p // 4))):  # the later ones are mostly noise
        values.append(max(0.0, float(y[i]) - max(0.0, total - sum(values) - float(y[i])) / p))
    sigma = np.sqrt(values)
    error = sigma / np.sqrt(2 * p)
    return Sketch(**where, sigma=tuple(map(float, sigma)), error=tuple(map(float, error)), frobenius=float(np.sqrt(total)))


def run_remote(remote: RemoteModel, settings: Settings, kind: str, units: Sequence[WorkUnit]) -> list[Any]:
    """`compute` in a worker process: units of one kind, enough of them that the overhead of the call is small."""
    return list(compute(remote.load(), settings, kind, units))
