"""The Jacobian between two sites of a model, as a linear operator with a transpose.

    F(v) = target activation at the target positions, v (d,) being added to the source activation at its positions
    J    = dF/dv at v = 0                                                                                   (m, d)

m = (target positions of all prompts) x width, width = d, or n_vocab for the targets "logits" and "next_token"; with
reduce="mean" m = prompts x width. Nothing is formed: a product sweeps the layers between source and target once for a
whole block of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..inputs.sites import Site
from ..linalg.lockstep import Column, run_together
from ..linalg.operator import LinearMap
from ..linalg.svd import Progress, SVDResult, solve, warned
from ..vectors.steering_vector import SteeringVector, rounding

__all__ = ["Jacobian", "Jacobians", "Linearization", "labelled"]

Array = NDArray[Any]
_BLOCKS = (1, 2, 4)
_GEMM_ROWS = 48  # rows a thread needs for its products to run at nearly full speed; see benchmarks/SPEED.md


class CoreJacobian(Protocol):
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def base(self) -> Array: ...
    @property
    def source_norm(self) -> float: ...
    @property
    def rows_per_vector(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def apply(self, V: Array, /) -> Array: ...
    def apply_t(self, U: Array, /) -> Array: ...


@dataclass(frozen=True, eq=False)
class Linearization:
    """What a Jacobian is a Jacobian of."""

    source: Site
    target: Site | str  # "logits" | "next_token"
    reduce: str  # "stack" | "mean"
    prompts: tuple[str, ...]  # as text, as far as it is known
    prompt_tokens: tuple[NDArray[np.int32], ...]
    source_positions: tuple[NDArray[np.int32], ...]  # by prompt
    target_positions: tuple[NDArray[np.int32], ...]
    steering: tuple[str, ...]  # interventions at the point of linearisation
    model: Mapping[str, Any]  # its identity

    def provenance(self, source_norm: float) -> dict[str, Any]:
        """What a vector of this Jacobian says about where it comes from."""
        return {
            "layer": self.source.layer,
            "site": self.source.name,
            "site_norm": source_norm,
            "model": self.model["name"],
            "model_type": self.model["model_type"],
            "weights": self.model["weights"],
            "target": self.target,
            "prompts": self.prompts,
            "prompt_tokens": self.prompt_tokens,
            "source_positions": self.source_positions,
            "target_positions": self.target_positions,
            "reduce": self.reduce,
            "steering": self.steering,
        }

    def label(self, result: SVDResult, source_norm: float, base: Array) -> SVDResult:
        """The result of a solver, knowing where its vectors come from. base: F(0)."""
        return labelled(result, self.provenance(source_norm), noise_level(source_norm, base))


def noise_level(source_norm: float, base: Array) -> float:
    """The singular value below which rounding decides: a vector as long as the source activation then moves the target
    activation F(0) by no more than its rounding."""
    return rounding(float(np.linalg.norm(base)), base.dtype) / source_norm if source_norm else 0.0


def labelled(result: SVDResult, provenance: Mapping[str, Any], noise: float = 0.0) -> SVDResult:
    """The result of a solver with fields for its vectors: where they stand and where they come from. Asking for the
    vectors raises InvalidInput if no singular value exceeds `noise`."""

    def vectors(r: SVDResult) -> list[SteeringVector]:
        if not r.S[0] > noise:
            raise InvalidInput(
                f"no direction at {Site(provenance['layer'], provenance['site'])} moves the target: the largest singular "
                f"value, {r.S[0]:.3g}, is zero to rounding ({noise:.3g}), and its vectors would be noise; are the target "
                "positions before the source positions, or out of reach of their attention?"
            )
        shared = SteeringVector(r.Vh[0], method=r.method, seed=r.seed, **provenance)
        return [
            replace(shared, direction=v, rank=i, sigma=sigma, residual=residual)
            for i, (v, sigma, residual) in enumerate(zip(r.Vh, r.S, r.residuals, strict=True))
        ]

    return replace(result, provenance=dict(provenance), make_vectors=vectors)


class Jacobian(LinearMap):
    """J of one or several prompts, made by `Model.jacobian`.

    `J @ v`, `J @ V`, `J.T @ u`, `u @ J`, `J.dense()`, `J.aslinearoperator()`, `J.svd(k)`. Immutable, and usable from
    several threads. The attributes of `J.subject` say what it is of; `prompt_tokens`, `positions` (the target's) and
    `source_positions` hold one array a prompt.
    """

    def __init__(self, core: CoreJacobian, dtype: np.dtype[Any], threads: int, linearization: Linearization) -> None:
        super().__init__(core.shape, dtype)
        self._core, self._threads, self.linearization = core, threads, linearization

    def apply(self, V: Array) -> Array:
        return self._core.apply(V)

    def apply_t(self, U: Array) -> Array:
        return self._core.apply_t(U)

    @property
    def source(self) -> Site:
        return self.linearization.source

    @property
    def target(self) -> Site | str:
        return self.linearization.target

    @property
    def prompt_tokens(self) -> tuple[NDArray[np.int32], ...]:
        return self.linearization.prompt_tokens

    @property
    def positions(self) -> tuple[NDArray[np.int32], ...]:
        return self.linearization.target_positions

    @property
    def source_positions(self) -> tuple[NDArray[np.int32], ...]:
        return self.linearization.source_positions

    @property
    def source_norm(self) -> float:
        """Mean 2-norm of the source activation over the source positions of all prompts, steering included."""
        return self._core.source_norm

    @property
    def nbytes(self) -> int:
        """Memory that the linearisation holds."""
        return self._core.nbytes

    @property
    def base(self) -> Array:
        """F(0), (m,): activations, logits, or for "next_token" the probabilities. F(v) is about base + J @ v, except
        for "next_token", whose rows are weighted."""
        base = self._core.base
        if self.linearization.reduce == "stack":
            return base
        rows = base.reshape(sum(map(len, self.positions)), -1)
        ends = np.cumsum([len(p) for p in self.positions])
        return np.concatenate([part.mean(0) for part in np.split(rows, ends[:-1])])

    def block(self) -> int:
        """Vectors a step of the SVD takes at a time: the fewest that fill a matrix product for every thread. Fewer
        vectors need fewer applications, so no more than that."""
        needed = _GEMM_ROWS * self._threads
        return next((b for b in _BLOCKS if b * self._core.rows_per_vector >= needed), _BLOCKS[-1])

    def svd(
        self,
        k: int = 12,
        method: str = "krylov",
        tol: float = 1e-3,
        max_applications: int | None = None,
        seed: int = 0,
        iterations: int = 5,
        oversample: int = 0,
        block: int | None = None,
        progress: bool | Progress = False,
    ) -> SVDResult:
        """The k leading singular triplets, as `powersteer.svd`; their `vectors` are steering vectors at the source."""
        result = solve(self, k, method, tol, max_applications, seed, iterations, oversample, block, progress)
        return self.linearization.label(warned(result, max_applications), self.source_norm, self.base)

    def __repr__(self) -> str:
        target = self.target if isinstance(self.target, str) else str(self.target)
        steered = f", steered by {len(self.linearization.steering)}" if self.linearization.steering else ""
        n = len(self.prompt_tokens)
        return (
            f"Jacobian({self.source} -> {target}, shape {self.shape}, {n} prompt{'s' * (n > 1)}, {self.dtype}{steered})"
        )


class Jacobians:
    """The Jacobians from one source to several targets, on one tape: `Model.jacobians`.

    `svd(k)` gives a result a target; all of them advance together, each with a vector of its own in every sweep.
    `apply_all(V)` multiplies all of them by the same vectors in one sweep, and `dense()` gives their matrices so.
    """

    def __init__(self, core: Any, dtype: np.dtype[Any], linearizations: Sequence[Linearization]) -> None:
        self._core, self.dtype, self.linearizations = core, dtype, tuple(linearizations)
        self.shapes: tuple[tuple[int, int], ...] = tuple(core.shape) if len(linearizations) > 1 else (core.shape,)

    def __len__(self) -> int:
        return len(self.linearizations)

    @property
    def source_norm(self) -> float:
        """Mean 2-norm of the source activation over the source positions of all prompts, steering included."""
        return float(self._core.source_norm)

    @property
    def bases(self) -> list[Array]:
        """F(0) of every target, (m,)."""
        return list(self._core.base) if len(self) > 1 else [self._core.base]

    @property
    def nbytes(self) -> int:
        """Memory that the linearisation holds."""
        return int(self._core.nbytes)

    def apply_all(self, V: Array) -> list[Array]:
        """J on every row of V (n, d), for every target: a list of (n, m)."""
        return list(self._core.apply_all(np.ascontiguousarray(V, dtype=self.dtype)))

    def dense(self) -> list[Array]:
        """Every matrix (m, d), by d columns swept once for all targets."""
        return [U.T for U in self.apply_all(np.eye(self.shapes[0][1], dtype=self.dtype))]

    def svd(self, k: int = 12, tol: float = 1e-3, seed: int = 0, max_applications: int | None = None) -> list[SVDResult]:
        """The k leading triplets for every target (all, where there are fewer), by Krylov iteration with one vector at
        a time for each, certified to tol. The results say whether they converged; no warning is given. Raises
        InvalidInput as `powersteer.svd`."""

        def one_target(lane: Column) -> SVDResult:
            shape = self.shapes[lane.index]
            J = _Shaped(lane, shape, self.dtype)
            return solve(J, min(k, *shape), tol=tol, max_applications=max_applications, seed=seed, block=1)

        results = run_together(len(self), one_target, self._apply, self._apply_t)
        labels = zip(self.linearizations, results, self.bases, strict=True)
        return [s.label(r, self.source_norm, base) for s, r, base in labels]

    def _apply(self, requested: Sequence[tuple[int, Array]]) -> list[Array]:
        out = [np.empty((len(V), self.shapes[i][0]), self.dtype) for i, V in requested]
        self._core.apply_each(
            [(i, v, u) for (i, V), U in zip(requested, out, strict=True) for v, u in zip(V, U, strict=True)]
        )
        return out

    def _apply_t(self, requested: Sequence[tuple[int, Array]]) -> list[Array]:
        out = [np.empty((len(U), self.shapes[i][1]), self.dtype) for i, U in requested]
        self._core.apply_t_each(
            [(i, v, u) for (i, U), V in zip(requested, out, strict=True) for v, u in zip(V, U, strict=True)]
        )
        return out

    def __repr__(self) -> str:
        s = self.linearizations[0]
        targets = ", ".join(str(one.target) for one in self.linearizations)
        return f"Jacobians({s.source} -> {targets}, {len(s.prompt_tokens)} prompts, {self.dtype})"


@dataclass(frozen=True, eq=False)
class _Shaped:
    """A lane as the solver wants its operator."""

    lane: Column
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def apply(self, V: Array) -> Array:
        return self.lane.apply(V)

    def apply_t(self, U: Array) -> Array:
        return self.lane.apply_t(U)
