"""The Jacobian between two sites of a model, as a linear operator with a transpose.

    F(v) = target activation at the target positions, with v (d,) added to the source activation at its positions
    J    = dF/dv at v = 0                                                                                   (m, d)

m = (target positions of all prompts) x width, width = d, or n_vocab for the targets "logits" and "next_token"; with
reduce="mean" m = prompts x width. The matrix is not formed: a product sweeps the layers between source and target once for
a whole block of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, partialmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._util.deprecated import deprecated_arguments, deprecated_attribute
from ..errors import InvalidInput
from ..inputs.prompts import EncodedPrompt
from ..inputs.sites import Site
from ..linalg.lockstep import run_together
from ..linalg.operator import LinearMap
from ..linalg.svd import Progress, SVDResult, svd
from ..vectors.steering_vector import SteeringVector, rounding

if TYPE_CHECKING:
    from .._core._core32 import Jacobian as CoreJacobian

__all__ = ["Jacobian", "Jacobians", "Linearization", "labelled"]

Array = NDArray[Any]
_BLOCKS = (1, 2, 4)
_GEMM_ROWS = 48  # rows a thread needs for its products to run at nearly full speed; see benchmarks/SPEED.md


@dataclass(frozen=True, eq=False)
class Linearization:
    """Sites, prompts, positions and model that a Jacobian is of.

    Attributes
    ----------
    source, target
        Sites; target may be "logits" or "next_token".
    reduce
        "stack" or "mean".
    encoded
        The prompts as the model read them.
    prompt_tokens, source_positions, target_positions
        (n,) int32 array for each prompt.
    steering
        Descriptions of the interventions at the point of linearisation.
    model
        Identity of the model.

    Examples
    --------
    >>> import powersteer as ps
    >>> about = ps.load("demo").jacobian("Q: 3*4", source=1, target="next_token").linearization
    >>> about.source, about.target, about.prompts
    (blocks.1.hook_mlp_out, 'next_token', ('Q: 3*4',))
    """

    source: Site
    target: Site | str
    reduce: str
    encoded: tuple[EncodedPrompt, ...] = field(repr=False)
    prompt_tokens: tuple[NDArray[np.int32], ...]
    source_positions: tuple[NDArray[np.int32], ...]
    target_positions: tuple[NDArray[np.int32], ...]
    steering: tuple[str, ...]
    model: Mapping[str, Any]

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """Texts, "" where a prompt was token ids without a tokenizer. The tokenizer decodes token ids, and is built for that
        if it was not used before."""
        return tuple(prompt.text for prompt in self.encoded)

    def provenance(self, source_norm: float) -> dict[str, Any]:
        """Fields of the steering vectors of this Jacobian.

        Examples
        --------
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobian("Q: 3*4", source=1, target="next_token")
        >>> J.linearization.provenance(J.source_norm)["site"]
        'mlp_out'
        """
        same = ("target", "prompts", "prompt_tokens", "source_positions", "target_positions", "reduce", "steering")
        return {
            "layer": self.source.layer, "site": self.source.name, "site_norm": source_norm, "model": self.model["name"],
            "model_type": self.model["model_type"], "weights": self.model["weights"],
            **{name: getattr(self, name) for name in same},
        }  # fmt: skip


def noise_level(source_norm: float, base: Array) -> float:
    """The singular value of rounding: a vector as long as the source activation then moves the target activation F(0) by
    its rounding error."""
    return rounding(float(np.linalg.norm(base)), base.dtype) / source_norm if source_norm else 0.0


def labelled(result: SVDResult, provenance: Callable[[], Mapping[str, Any]], noise: float = 0.0) -> SVDResult:
    """The result of a solver with provenance: makes the fields of its steering vectors when they are first read. Its
    `vectors` raise InvalidInput if no singular value exceeds `noise`."""

    def vectors(r: SVDResult) -> list[SteeringVector]:
        about = r.provenance or {}
        if not r.S[0] > noise:
            raise InvalidInput(
                f"no direction at {Site(about['layer'], about['site'])} moves the target: the largest singular "
                f"value, {r.S[0]:.3g}, is zero to rounding ({noise:.3g}), and its vectors would be noise; are the target "
                "positions before the source positions, or out of reach of their attention?"
            )
        shared = SteeringVector(r.Vh[0], method=r.method, seed=r.seed, **about)
        return [
            replace(shared, direction=v, rank=i, sigma=sigma, residual=residual)
            for i, (v, sigma, residual) in enumerate(zip(r.Vh, r.S, r.residuals, strict=True))
        ]

    return replace(result, make_provenance=lambda: dict(provenance()), make_vectors=vectors)


class Jacobian(LinearMap):
    """Jacobian of one or several prompts, made by `Model.jacobian`.

    A `scipy.sparse.linalg.LinearOperator` of shape (m, d_model): `J @ v`, `J @ V`, `J.T @ u`, `u @ J`, `2 * J`,
    `scipy.sparse.linalg.svds(J)`. `J.linearization` holds sites, prompts and positions. Immutable, and safe to use from
    several threads at once.

    Attributes
    ----------
    source, target, prompt_tokens, target_positions, source_positions
        As in `Linearization`.
    source_norm
        Mean 2-norm of the source activation over the source positions of all prompts, steering included.
    nbytes
        Memory of the linearisation, in bytes.

    Examples
    --------
    >>> import numpy as np
    >>> import powersteer as ps
    >>> J = ps.load("demo").jacobian("Q: 3*4\\nA:", source=1, target=3)
    >>> J.shape
    (320, 160)
    >>> (J @ np.ones(160)).shape, (J.T @ np.ones((320, 2))).shape
    ((320,), (160, 2))
    >>> J.target_positions
    (array([6, 7], dtype=int32),)
    """

    if not TYPE_CHECKING:  # a checker reports old names
        positions = deprecated_attribute("Jacobian", "positions", "target_positions")
        subject = deprecated_attribute("Jacobian", "subject", "linearization")

    def __init__(self, core: CoreJacobian, dtype: np.dtype[Any], threads: int, linearization: Linearization) -> None:
        super().__init__(core.shape, dtype)
        self._core, self._threads, self.linearization = core, threads, linearization
        about = linearization
        self.source, self.target, self.prompt_tokens = about.source, about.target, about.prompt_tokens
        self.source_positions, self.target_positions = about.source_positions, about.target_positions
        self.source_norm, self.nbytes = core.source_norm, core.nbytes

    def apply(self, V: Array) -> Array:
        return self._core.apply(V)

    def apply_t(self, U: Array) -> Array:
        return self._core.apply_t(U)

    apply.__doc__, apply_t.__doc__ = LinearMap.apply.__doc__, LinearMap.apply_t.__doc__

    @property
    def base(self) -> Array:
        """F(0), (m,): activations, logits, or for "next_token" the probabilities. F(v) ≈ base + J @ v, except for
        "next_token", whose rows are weighted."""
        base: Array = self._core.base
        if self.linearization.reduce == "stack":
            return base
        ends = np.cumsum([len(p) for p in self.target_positions])
        return np.concatenate([part.mean(0) for part in np.split(base.reshape(ends[-1], -1), ends[:-1])])

    def block(self) -> int:
        """Number of vectors that a step of the SVD multiplies at a time: the fewest that fill a matrix product for every
        thread, because fewer vectors need fewer applications.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo", threads=1).jacobian("Q: 3*4\\nA:", source=1, target=3).block()
        4
        """
        needed = _GEMM_ROWS * self._threads
        return next((b for b in _BLOCKS if b * self._core.rows_per_vector >= needed), _BLOCKS[-1])

    @deprecated_arguments(2)
    def svd(
        self,
        k: int = 12,
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
        """The k leading singular triplets; their `vectors` are steering vectors at the source.

        Parameters
        ----------
        k
            Number of triplets.
        method, tol, max_applications, seed, iterations, oversample, block, progress
            As for `powersteer.svd`.

        Raises
        ------
        InvalidInput
            For an argument outside its domain; from `vectors` also if J is zero to rounding.

        Warns
        -----
        ConvergenceWarning
            If the result is not converged.

        Examples
        --------
        >>> import powersteer as ps
        >>> svd = ps.load("demo").jacobian("Q: 3*4\\nA:", source=1, target=3).svd(k=2)
        >>> svd.vectors[0].layer, svd.vectors[0].site, svd.vectors[0].rank
        (1, 'mlp_out', 0)
        """
        result = svd(
            self, k, method=method, tol=tol, max_applications=max_applications, seed=seed, iterations=iterations,
            oversample=oversample, block=block, progress=progress,
        )  # fmt: skip
        provenance = partial(self.linearization.provenance, self.source_norm)
        return labelled(result, provenance, noise_level(self.source_norm, self.base))

    def __repr__(self) -> str:
        steered = f", steered by {len(self.linearization.steering)}" if self.linearization.steering else ""
        n = len(self.prompt_tokens)
        return f"Jacobian({self.source} -> {self.target}, shape {self.shape}, {n} prompt{'s' * (n > 1)}, {self.dtype}{steered})"


class Jacobians:
    """Jacobians of several pairs of source and target, sharing one linearisation, made by `Model.jacobians`. Pairs are in the
    order of the sources, and those of a source in the order of the targets.

    `svd(k)` gives one result for each pair: all solvers advance together and share every sweep of the layers.

    Attributes
    ----------
    source_norm, nbytes
        As of `Jacobian`; of the first source if there are several.
    source_norms
        That of every pair's source.
    bases
        F(0) of every pair's target, (m,).

    Examples
    --------
    >>> import powersteer as ps
    >>> J = ps.load("demo").jacobians("Q: 3*4\\nA:", source=1, targets=[2, 3])
    >>> J.shapes
    ((320, 160), (320, 160))
    >>> [result.S.shape for result in J.svd(k=2)]
    [(2,), (2,)]
    """

    def __init__(
        self, core: Any, dtype: np.dtype[Any], threads: int, linearizations: Sequence[Linearization], pairs: Sequence[tuple[int, int]]
    ) -> None:
        """pairs: indices of the source and target of each in the core."""
        self._core, self.dtype, self._threads, self.linearizations = core, dtype, threads, tuple(linearizations)
        self._pairs = tuple(pairs)
        norms, shapes, bases = (
            value if isinstance(value, list) else [value] for value in (core.source_norm, core.shape, core.base)
        )
        self.source_norms: tuple[float, ...] = tuple(norms[source] for source, _ in pairs)
        self.source_norm = self.source_norms[0]
        self.shapes: tuple[tuple[int, int], ...] = tuple(shapes[target] for _, target in pairs)
        self.bases: list[Array] = [bases[target] for _, target in pairs]
        self.nbytes: int = core.nbytes

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.linearizations)

    def apply_all(self, V: Array, pairs: slice = slice(None)) -> list[Array]:
        """J of every target on the same vectors at the source, in one sweep.

        Parameters
        ----------
        V
            (n, d) array.
        pairs
            Jacobians of one source, among those of several.

        Returns
        -------
        A list of (n, m) arrays, one for each target.

        Raises
        ------
        InvalidInput
            If there are several sources.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobians("Q: 3*4\\nA:", source=1, targets=[2, "next_token"])
        >>> [U.shape for U in J.apply_all(np.ones((1, 160)))]
        [(1, 320), (1, 255)]
        """
        chosen = self._pairs[pairs]
        of_targets = self._core.apply_all(_only(chosen, 0), np.ascontiguousarray(V, dtype=self.dtype))
        return [of_targets[target] for _, target in chosen]

    def apply_t_all(self, U: Array, *, per_prompt: bool = False) -> list[Array]:
        """The transpose of J of every source on the same vectors at the target, in one sweep: with U the gradient of a function
        of the target, its gradients with respect to a vector added at each source.

        Parameters
        ----------
        U
            (n, m) array.
        per_prompt
            True for the gradients with respect to a vector of each prompt's own, which add up to that of a shared vector. What
            a prompt gets is the same, to the bit, with any other prompts.

        Returns
        -------
        A list of (n, d) arrays, one for each source; of (n, prompts, d) arrays with per_prompt.

        Raises
        ------
        InvalidInput
            If there are several targets.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobians(["Q: 3*4", "Q: 5+1"], source=[1, 2, 3], targets=["logits"])
        >>> [V.shape for V in J.apply_t_all(np.ones((1, 2 * 255)))]
        [(1, 160), (1, 160), (1, 160)]
        >>> [V.shape for V in J.apply_t_all(np.ones((1, 2 * 255)), per_prompt=True)]
        [(1, 2, 160), (1, 2, 160), (1, 2, 160)]
        """
        of_sources = self._core.apply_t_all(_only(self._pairs, 1), np.ascontiguousarray(U, dtype=self.dtype), bool(per_prompt))
        return [of_sources[source] for source, _ in self._pairs]

    def dense(self, pairs: slice = slice(None)) -> list[Array]:
        """Matrices (m, d) of all targets of one source, by one sweep with d vectors.

        Parameters
        ----------
        pairs
            As for `apply_all`.

        Examples
        --------
        >>> import powersteer as ps
        >>> [J.shape for J in ps.load("demo").jacobians("Q: 3*4\\nA:", source=1, targets=[2, 3]).dense()]
        [(320, 160), (320, 160)]
        """
        return [U.T for U in self.apply_all(np.eye(self.shapes[0][1], dtype=self.dtype), pairs)]

    @deprecated_arguments(2)
    def svd(
        self,
        k: int = 12,
        *,
        tol: float = 1e-3,
        seed: int = 0,
        max_applications: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[SVDResult]:
        """The k leading singular triplets of every pair, by Krylov iteration with one vector at a time for each.

        Parameters
        ----------
        k
            Number of triplets; all of them for a pair that has fewer.
        tol, seed, max_applications
            As for `powersteer.svd`.
        progress
            Called with the number of vectors that each sweep has multiplied.

        Returns
        -------
        A list of SVDResult, one for each pair. `converged` is not checked: there is no warning.

        Raises
        ------
        InvalidInput
            For an argument outside its domain.

        Examples
        --------
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobians("Q: 3*4\\nA:", source=1, targets=[2, "next_token"])
        >>> [result.converged for result in J.svd(k=2)]
        [True, True]
        """
        results = run_together(
            self.shapes, self.dtype, k, tol, seed, max_applications, self._apply, self._apply_t, self._threads, progress
        )
        labels = zip(results, self.linearizations, self.source_norms, self.bases, strict=True)
        return [labelled(r, partial(s.provenance, norm), noise_level(norm, base)) for r, s, norm, base in labels]

    def _products(self, side: int, requested: Sequence[tuple[int, Array]]) -> list[Array]:
        """J (side 0) or its transpose (side 1) of each requested pair on its rows."""
        out = [np.empty((len(x), self.shapes[i][side]), self.dtype) for i, x in requested]
        rows = [(*self._pairs[i], x, y) for (i, X), Y in zip(requested, out, strict=True) for x, y in zip(X, Y, strict=True)]
        if side:
            self._core.apply_t_each([(f, t, v, u) for f, t, u, v in rows])
        else:
            self._core.apply_each(rows)
        return out

    _apply, _apply_t = partialmethod(_products, 0), partialmethod(_products, 1)

    def __repr__(self) -> str:
        sources, targets = (", ".join(dict.fromkeys(str(getattr(one, end)) for one in self.linearizations)) for end in ("source", "target"))
        return f"Jacobians({sources} -> {targets}, {len(self.linearizations[0].prompt_tokens)} prompts, {self.dtype})"


def _only(pairs: Sequence[tuple[int, int]], side: int) -> int:
    """The core's index of the one source (side 0) or target (side 1) of all pairs."""
    index, *more = {pair[side] for pair in pairs}
    if more:
        name, what = ("apply_all", "source") if side == 0 else ("apply_t_all", "target")
        raise InvalidInput(f"{name} needs Jacobians of one {what}; these have {1 + len(more)}")
    return index
