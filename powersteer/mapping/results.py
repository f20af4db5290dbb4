"""The stored results of an atlas: pairs, arrays over pairs, and vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import check_count
from ..errors import InvalidInput
from ..inputs.positions import prompt_positions
from ..inputs.sites import Site, near_head, precedes
from ..vectors.steering_vector import SteeringVector
from .settings import NEXT_TOKEN, Target
from .store import Pair, Sketch, Store

__all__ = ["NextTokenColumn", "Results"]

Array = NDArray[Any]


class NextTokenColumn:
    """Results of the target "next_token" for every source layer.

    Attributes
    ----------
    S, residuals, gain : ndarray, (n_layers, k)
        Singular values in sqrt(nats) per unit of the vector, their certificates, and the gains in sqrt(nats) (see
        `Atlas.gain`). NaN where nothing is computed.

    Examples
    --------
    >>> ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[]).next_token.S.shape
    (5, 2)
    """

    def __init__(self, S: Array, residuals: Array, gain: Array) -> None:
        self.S, self.residuals, self.gain = S, residuals, gain


class Results:
    """The results of one group of prompts, read from a store. Its attributes are documented by `Atlas`."""

    def __init__(self, store: Store, prompt_group: int) -> None:
        self._store, self._group = store, prompt_group
        self.settings, self.path = store.settings, store.path
        self.model_name, self.n_layers = str(self.settings.model["name"]), int(self.settings.model["n_layers"])
        self.sources, self.targets, self.k = self.settings.sources, self.settings.targets, self.settings.k
        self.pairs = [(s, t) for s in self.sources for t in self.settings.targets_of(s)]
        group = self.settings.groups[prompt_group]
        self._records = [self.settings.prompts[i] for i in group]
        self.prompts = [p.text for p in self._records]
        self.titles = [p.title or p.text for p in self._records]
        self.prompt_group_name = f"prompt {group[0]}" if len(group) == 1 else f"{len(group)} prompts stacked"

    @cached_property
    def _stored(self) -> dict[tuple[int, Target], Pair]:
        return {(p.source, p.target): p for p in self._store.pairs() if p.prompt_group == self._group}

    @cached_property
    def _sketches(self) -> dict[tuple[int, Target], Sketch]:
        return {(s.source, s.target): s for s in self._store.sketches() if s.prompt_group == self._group}

    def __iter__(self) -> Iterator[Pair]:
        """The computed pairs, by source, then target."""
        order = {t: i for i, t in enumerate(self.targets)}
        return iter(sorted(self._stored.values(), key=lambda p: (p.source, order[p.target])))

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def complete(self) -> bool:
        """Whether every requested pair is computed."""
        return set(self.pairs) <= set(self._stored)

    def pair(self, source: int, target: Target) -> Pair:
        """The stored result of a pair: singular values with certificates.

        Parameters
        ----------
        source : int
            Source layer.
        target : int or str
            Target layer, or "next_token".

        Raises
        ------
        InvalidInput
            If the pair is not in the atlas, with the reason.

        Examples
        --------
        >>> pair = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).pair(1, 3)
        >>> pair.method, len(pair.sigma), pair.converged
        ('krylov', 2, True)
        """
        try:
            return self._stored[source, target]
        except KeyError:
            raise InvalidInput(self._absent(source, target)) from None

    def _absent(self, source: int, target: Target) -> str:
        """The reason why a pair has no result."""
        pair = f"the pair {source} -> {target}"
        if (source, target) in self.pairs:
            return f"{pair} is not computed yet in this atlas of {self.model_name!r}"
        if target != NEXT_TOKEN and isinstance(target, str):
            return f"{pair}: there is no target {target!r}: {near_head(target)}Targets of this atlas are {_listing(self.targets)}"
        for layer in (source, target):
            if layer != NEXT_TOKEN and layer not in range(self.n_layers):
                return f"{pair} cannot exist: {self.model_name!r} has no layer {layer}; its layers are 0 to {self.n_layers - 1}"
        s = self.settings
        start, end = Site(source, s.source_site), target if isinstance(target, str) else Site(target, s.target_site)
        if isinstance(end, Site) and not precedes(start, end, s.parallel):
            return f"{pair} cannot exist: the source {start} does not come before the target {end} in the model's computation"
        return (
            f"{pair} was not requested in this atlas of {self.model_name!r}: its sources are {_listing(s.sources)}, "
            f"its targets {_listing(s.targets)}"
        )

    def sketch(self, source: int, target: Target) -> Sketch:
        """The estimated singular values of a pair, from random vectors. Raises InvalidInput if the pair has no estimate.

        Examples
        --------
        >>> atlas = ps.atlas(model, "Task: 3 * 4 =", sources=[1], targets=[3], method="sketch", sketch=16)
        >>> sketch = atlas.sketch(1, 3)
        >>> len(sketch.sigma), sketch.sigma[0] > sketch.error[0]
        (4, True)
        """
        try:
            return self._sketches[source, target]
        except KeyError:
            known = f"the pair {source} -> {target} has no sketch in this atlas"
            raise InvalidInput(known if (source, target) in self.pairs else self._absent(source, target)) from None

    def _array(self, values_of: Callable[[Pair], Sequence[float]]) -> Array:
        """(n_layers, n_layers + 1, k): a column for every target layer, and one for the next token."""
        out = np.full((self.n_layers, self.n_layers + 1, self.k), np.nan)
        for (source, target), pair in self._stored.items():
            values = values_of(pair)
            out[source, -1 if isinstance(target, str) else target, : len(values)] = values
        return out

    def _gain(self, pair: Pair | Sketch) -> list[float]:
        """The gain (see there) of every rank."""
        if pair.target == NEXT_TOKEN:
            return [x * pair.site_norm for x in pair.sigma]
        norm = pair.base_norm
        if norm is None and (pair.source, pair.target) in self._sketches:  # pairs of earlier versions do not have it
            norm = self._sketches[pair.source, pair.target].base_norm
        return [x * pair.site_norm / norm if norm else math.nan for x in pair.sigma]

    @property
    def S(self) -> Array:
        """Singular values (n_layers, n_layers, k): source, target, rank; in target units per unit of the vector."""
        return self._array(lambda pair: pair.sigma)[:, :-1]

    @property
    def residuals(self) -> Array:
        """Certificates (n_layers, n_layers, k) of the singular values (see `SVDResult`)."""
        return self._array(lambda pair: pair.residuals)[:, :-1]

    @property
    def gain(self) -> Array:
        """Gain (n_layers, n_layers, k): S x source norm / target norm, without unit.

        The relative change of the target, to first order, by a vector as long as the source's mean activation norm. The
        target norm is the 2-norm over all target rows. NaN in atlases of earlier versions that lack it.
        """
        return self._array(self._gain)[:, :-1]

    @property
    def next_token(self) -> NextTokenColumn:
        """Results of the target "next_token", each (n_layers, k)."""
        S, residuals = self._array(lambda pair: pair.sigma), self._array(lambda pair: pair.residuals)
        return NextTokenColumn(S[:, -1], residuals[:, -1], self._array(self._gain)[:, -1])

    @property
    def estimate(self) -> tuple[Array, Array]:
        """Estimated sigma_1 and its standard error, (n_layers, n_layers) each. NaN for pairs without an estimate: those that
        were cheaper to compute than to estimate."""
        out = np.full((2, self.n_layers, self.n_layers), np.nan)
        for (source, target), s in self._sketches.items():
            if not isinstance(target, str):
                out[:, source, target] = s.sigma[0], s.error[0]
        return out[0], out[1]

    def vector(self, source: int, target: Target, rank: int = 0) -> SteeringVector:
        """A right singular vector of a pair, as a unit steering vector at the source.

        Parameters
        ----------
        source, target : int, int or str
            As for `pair`.
        rank : int
            0 for the largest singular value.

        Raises
        ------
        InvalidInput
            If the pair is not in the atlas, or has no such rank.

        Examples
        --------
        >>> vec = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).vector(1, 3, rank=1)
        >>> vec.layer, vec.rank, vec.direction.shape
        (1, 1, (160,))
        """
        vectors = self.vectors(source, target)
        return vectors[check_count(rank, "rank", len(vectors) - 1, f"the last of the pair {source} -> {target}", least=0)]

    def vectors(self, source: int | None = None, target: Target | None = None) -> list[SteeringVector]:
        """All right singular vectors of a pair by rank, with their provenance. Without a source or a target, those of all
        computed pairs with the other, and without both, of the whole atlas. Raises InvalidInput as `pair`.

        Examples
        --------
        >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3])
        >>> [vec.rank for vec in atlas.vectors(1, "next_token")], len(atlas.vectors())
        ([0, 1], 4)
        >>> score = ps.evaluate.LogitDifference("1", "8")
        >>> changes = ps.evaluate.first_order(model, ["Task: 3 * 4 =", "Task: 2 * 4 ="], atlas.vectors(), score=score)
        >>> len(changes), changes[0].unit
        (4, 'nats to first order')
        """
        if source is None or target is None:
            ends = [(p.source, p.target) for p in self if source in (None, p.source) and target in (None, p.target)]
            return [v for pair in ends for v in self.vectors(*pair)]
        pair, s, prompts = self.pair(source, target), self.settings, self._records
        last = isinstance(target, str)
        at = [prompt_positions(slice(-1, None) if last else s.target_positions, len(p.tokens)) for p in prompts]
        shared: dict[str, Any] = {
            "layer": source,
            "site": s.source_site,
            "site_norm": pair.site_norm,
            "method": pair.method,
            "model": s.model["name"],
            "model_type": s.model["model_type"],
            "weights": s.model["weights"],
            "target": target if isinstance(target, str) else Site(target, s.target_site),
            "prompts": tuple(p.text for p in prompts),
            "prompt_tokens": tuple(p.tokens for p in prompts),
            "source_positions": tuple(tuple(range(len(p.tokens))) for p in prompts),
            "target_positions": tuple(tuple(rows.tolist()) for rows in at),
            "reduce": "stack",
            "steering": s.steering,
            "seed": s.seed,
        }
        rows = zip(self._store.vectors(pair), pair.sigma, pair.residuals, strict=True)
        return [SteeringVector(v, rank=i, sigma=x, residual=r, **shared) for i, (v, x, r) in enumerate(rows)]


def _listing(targets: Sequence[Target]) -> str:
    return ", ".join(map(str, targets))
