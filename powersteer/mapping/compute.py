"""Computing one unit of work, in this process or a worker: from a model and settings to pairs, vectors and sketches."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..inputs.positions import Canonical
from ..linalg.svd import SVDResult, solve
from ..model import Model, load
from ..model.jacobian import Jacobians
from ..vectors.steering_vector import SteeringVector
from .settings import Settings, Target
from .store import Pair, Sketch, WorkUnit

__all__ = ["Batch", "JobSpec", "compute", "compute_sketches", "run_batch", "run_remote"]

Array = NDArray[Any]


def jacobians_of(model: Model, settings: Settings, unit: WorkUnit) -> Jacobians:
    prompts = [np.array(settings.prompts[i].tokens, np.int32) for i in settings.groups[unit.prompt_group]]
    return model.jacobians(
        prompts, unit.source, unit.targets, source_site=settings.source_site, target_site=settings.target_site,
        target_positions=settings.target_positions,
    )  # fmt: skip


def compute(model: Model, settings: Settings, unit: WorkUnit, dense: bool) -> tuple[list[Pair], list[Array]]:
    """The pairs of a unit, and the vectors (k, d) of each."""
    J = jacobians_of(model, settings, unit)
    if dense:
        results = [solve(A, min(settings.k, *A.shape), method="dense", tol=settings.tol) for A in J.dense()]
    else:
        results = J.svd(settings.k, tol=settings.tol, seed=settings.seed, max_applications=settings.max_applications)
    pairs = [_pair(unit, t, r, b, J) for t, r, b in zip(unit.targets, results, J.bases, strict=True)]
    return pairs, [r.Vh for r in results]


def _pair(unit: WorkUnit, target: Target, r: SVDResult, base: Array, J: Jacobians) -> Pair:
    return Pair(
        prompt_group=unit.prompt_group,
        source=unit.source,
        target=target,
        method=r.method,
        sigma=tuple(map(float, r.S)),
        residuals=tuple(map(float, r.residuals)),
        converged=r.converged,
        clusters=tuple(r.clusters),
        cluster_open=r.cluster_open,
        applications=r.applications or J.shapes[0][1],  # a dense Jacobian: its columns
        stop=r.stop,
        site_norm=J.source_norm,
        base_norm=float(np.linalg.norm(base)),
        missed_probability=r.missed_probability,
    )


def compute_sketches(model: Model, settings: Settings, unit: WorkUnit) -> list[Sketch]:
    """Leading singular values of every target of a source, from products with `settings.sketch` random vectors.

    With omega (d, p) of independent unit normals, Y = J omega / sqrt(p) has E[Y Y'] = J J', and its eigenvalues are
    those of J J' spread out. To first order in 1/p (Lawley 1956) E[l_i] = l_i (1 + (1/p) sum_{j != i} l_j / (l_i - l_j)),
    whose far part is the trace: l_i is estimated as y_i - (|J|_F^2 - sum of those up to i) / p, and its standard error
    is l_i sqrt(2 / p). Both are rough for clustered values: the sketch orders the work, the certified run gives the values.
    """
    J = jacobians_of(model, settings, unit)
    p, d = settings.sketch, model.d_model
    rng = np.random.Generator(np.random.Philox(key=[settings.seed, unit.source]))
    omega = rng.standard_normal((p, d)).astype(J.dtype)
    return [_sketch(unit, t, Y, b, J, settings.k) for t, Y, b in zip(unit.targets, J.apply_all(omega), J.bases, strict=True)]


def _sketch(unit: WorkUnit, target: Target, Y: Array, base: Array, J: Jacobians, k: int) -> Sketch:
    p = len(Y)
    Y = Y.astype(np.float64) / np.sqrt(p)
    y = np.maximum(np.linalg.eigvalsh(Y @ Y.T)[::-1], 0.0)
    total = float(y.sum())  # unbiased for the squared Frobenius norm
    values: list[float] = []
    for i in range(min(k, len(y), max(1, p // 4))):  # the later ones are mostly noise
        values.append(max(0.0, float(y[i]) - max(0.0, total - sum(values) - float(y[i])) / p))
    sigma = np.sqrt(values)
    return Sketch(
        prompt_group=unit.prompt_group,
        source=unit.source,
        target=target,
        sigma=tuple(map(float, sigma)),
        error=tuple(map(float, sigma / np.sqrt(2 * p))),
        frobenius=float(np.sqrt(total)),
        site_norm=J.source_norm,
        base_norm=float(np.linalg.norm(base)),
    )


# ---- in another process ----


@dataclass(frozen=True)
class JobSpec:
    """What a worker process needs besides a batch. It maps the model's file itself, so this is small enough to send."""

    path: str
    threads: int
    settings: Settings
    steering: tuple[tuple[SteeringVector, Canonical], ...]

    def model(self) -> Model:
        """Load the model. Raises InvalidInput if the weights of the file are not those of the settings."""
        model = _loaded(self.path, self.settings.dtype, self.threads)
        if model.identity["weights"] != self.settings.model["weights"]:
            raise InvalidInput(f"the model at {self.path!r} is not the model of this atlas: the weights differ")
        for vector, positions in self.steering:
            model = model.steered(vector, positions)
        return model


@functools.lru_cache(maxsize=1)
def _loaded(path: str, dtype: str, threads: int) -> Model:
    return load(path, dtype=dtype, threads=threads)


@dataclass(frozen=True)
class Batch:
    """Units that one call of a worker computes: enough of them that the overhead of the call is small."""

    kind: str  # "krylov" | "dense" | "sketch"
    units: tuple[WorkUnit, ...]


def run_batch(model: Model, settings: Settings, batch: Batch) -> list[Any]:
    """For every unit: (pairs, vectors), or its list of sketches."""
    if batch.kind == "sketch":
        return [compute_sketches(model, settings, unit) for unit in batch.units]
    return [compute(model, settings, unit, batch.kind == "dense") for unit in batch.units]


def run_remote(job: JobSpec, batch: Batch) -> list[Any]:
    """`run_batch` in a worker process."""
    return run_batch(job.model(), job.settings, batch)
