"""An atlas: results, effects of its vectors, search, tables and report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._util.checks import as_list
from .._util.deprecated import deprecated_arguments, warn_deprecated
from .._util.html import heat_map
from .._util.progress import Report
from .._util.workers import ExecutorLike
from .._version import __version__
from ..errors import InvalidInput, MissingDependency, NotFound
from ..evaluate.effect_table import Effect, Effects, strength
from ..evaluate.scores import Score
from ..evaluate.search import SearchResult, search
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..model import Model, load
from ..report.check import FORMAT
from ..report.page import write_report
from ..vectors.steering_vector import SteeringVector
from . import effects_cache as kept
from .results import Results
from .settings import FIELDS, NEXT_TOKEN, Target, chosen_ranks
from .store import Pair, Sketch, Store, open_folder

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["Atlas"]

_OF_SKETCH = {"method": "sketch", "clusters": [], "cluster_open": False, "converged": False, "applications": 0}


class Atlas(Results):
    """Singular values and vectors of the pairs of layers of a model. Returned by `powersteer.atlas` and `Atlas.load`.

    Arrays have the axes (source layer, target layer, rank), with NaN for pairs that were not requested or are not computed
    yet. An atlas is a snapshot: while its folder is being filled, `load` it again for more. It is of one group of prompts,
    by default the first; `prompt` and `prompt_groups` give the others.

    Attributes
    ----------
    settings : Settings
        Everything that the numbers depend on.
    path : Path or None
        The folder; None: the atlas is in memory.
    model_name, n_layers : str, int
        Of the model.
    sources, targets : tuple
        Source layers; target layers, then "next_token" if it was requested.
    k : int
        Singular triplets of every pair.
    pairs : list of (source, target)
        Every requested pair.
    prompts, titles : list of str
        Texts of the prompts, and their short names: the text, or the last user's turn of a chat.
    prompt_group_name : str
        "prompt 3", or "5 prompts stacked".

    Examples
    --------
    >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[0, 1], targets=[2, 3])
    >>> atlas
    Atlas('demo', prompt 0, k 2, tol 0.01, 6 of 6 pairs)
    >>> atlas.vector(0, 3)
    SteeringVector(...)
    >>> atlas.pair(0, 3).converged
    True
    """

    def __init__(self, store: Store, model: Model | None = None, prompt_group: int = 0) -> None:
        super().__init__(store, prompt_group)
        self._model = model

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> Atlas:
        """Load the atlas in a folder, complete or not.

        Parameters
        ----------
        path : str or Path
            The folder.
        model : Model, optional
            The model of the atlas, which effects and search steer. By default it is loaded when it is first needed, from
            where it was.

        Raises
        ------
        NotFound
            If there is no atlas in the folder.
        InvalidInput
            If the folder is damaged, or the atlas is of another model.

        Examples
        --------
        >>> _ = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3], out="run")
        >>> ps.Atlas.load("run").complete
        True
        """
        store = open_folder(Path(path).expanduser())
        if model is not None and model.identity["weights"] != store.settings.model["weights"]:
            raise InvalidInput(f"{str(path)!r} is the atlas of another model than {model.name!r}: the weights differ")
        if model is not None and model.steering_hash != store.settings.steering_hash:
            there = ", ".join(store.settings.steering) or "no vector"
            raise InvalidInput(f"{str(path)!r} is the atlas of a model steered by {there}; give the model with this steering")
        return cls(store, model)

    # ---- prompts, model

    def prompt(self, index: int) -> Atlas:
        """The atlas of one prompt alone.

        Raises InvalidInput if it was not computed: `powersteer.atlas` computes it with `prompt_groups` "each" or "both".

        Examples
        --------
        >>> prompts = ["Task: 3 * 4 =", "Q: 628*8"]
        >>> atlas = ps.atlas(model, prompts, k=1, sources=[1], targets=[3], prompt_groups="each")
        >>> atlas.prompt(1).prompts
        ['Q: 628*8']
        """
        if (index,) not in self.settings.groups:
            raise InvalidInput(
                f"this atlas has no results of prompt {index} alone: it has {len(self.settings.prompts)} prompts, "
                f"prompt_groups={self.settings.prompt_groups!r}; compute it with prompt_groups='both'"
            )
        return self.prompt_groups()[self.settings.groups.index((index,))]

    def prompt_groups(self) -> list[Atlas]:
        """The atlases of all groups of prompts: the stacked prompts, then each prompt alone, as far as requested.

        Examples
        --------
        >>> prompts = ["Task: 3 * 4 =", "Q: 628*8"]
        >>> atlas = ps.atlas(model, prompts, k=1, sources=[1], targets=[3], prompt_groups="both")
        >>> [group.prompt_group_name for group in atlas.prompt_groups()]
        ['2 prompts stacked', 'prompt 0', 'prompt 1']
        """
        return [Atlas(self._store, self._model, group) for group in range(len(self.settings.groups))]

    @property
    def model(self) -> Model:
        """The model, loaded if necessary. Raises NotFound and InvalidInput if it is not where it was, or has changed."""
        if self._model is None:
            path = self._store.origin.get("path")
            if path is None or not Path(path).exists():
                raise NotFound(f"the model of this atlas is not at {path!r} any more: give it by Atlas.load(folder, model=...)")
            if self.settings.steering:
                raise InvalidInput("this atlas is of a steered model: give it by Atlas.load(folder, model=model.steered(...))")
            found = load(path, dtype=self.settings.dtype)
            if found.identity["weights"] != self.settings.model["weights"]:
                raise InvalidInput(f"the model at {path!r} has changed since: its weights are not those of this atlas")
            self._model = found
        return self._model

    # ---- effects, search

    def _vectors(self, k: int | Iterable[int] | None, pairs: Iterable[tuple[int, Target]]) -> list[SteeringVector]:
        """Vectors of some ranks (see `chosen_ranks`) of the computed pairs among `pairs`."""
        ranks = set(chosen_ranks(k, self.k))
        return [v for pair in pairs if pair in self._stored for v in self.vectors(*pair) if v.rank in ranks]

    @deprecated_arguments(2, ranks="k", random="n_random")
    def effects(
        self,
        k: int | Iterable[int] | None = None,
        *,
        scales: Sequence[float] | None = None,
        kl: float | Sequence[float] | None = None,
        skip_unreached: bool = False,
        signs: Sequence[int] = (1, -1),
        positions: Positions = None,
        max_new_tokens: int = 32,
        tokens: str | int | Sequence[str | int] = (),
        score: Score | None = None,
        stop: Any = None,
        n_random: int = 8,
        seed: int = 0,
        temperature: float = 0.0,
        samples: int = 0,
        resume: bool = True,
        executor: ExecutorLike | None = None,
        worker_threads: int = 1,
        progress: bool | Report = False,
    ) -> Effects:
        """Measure the effects of the vectors on the prompts: KL, logits, linearity, continuations, signs of degeneration.

        The effects are stored in the atlas, source by source, and shown by `report`. Stored effects are not computed
        again; more vectors, scales (or budgets) and signs are added to them.

        Parameters
        ----------
        k : int or list of int, optional
            Vectors of each pair: the first k, or the ranks in a list; all by default.
        resume : bool
            False replaces the stored effects.
        executor, worker_threads
            As for `powersteer.atlas`. The effects are the same bits, and are stored as soon as those of a source are complete.
        scales, kl, skip_unreached, signs, positions, max_new_tokens, tokens, score, stop, n_random, seed, temperature, samples, progress
            As for `powersteer.effects`.

        Returns
        -------
        Effects
            With those of random vectors of the same norms.

        Raises
        ------
        InvalidInput
            If effects with other arguments are stored, which are named.

        Examples
        --------
        >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3], next_token=False)
        >>> effects = atlas.effects(1, scales=[0.5], max_new_tokens=2, n_random=1)
        >>> [(e.source, e.target, e.rank, e.sign) for e in effects]
        [(1, 3, 0, 1), (1, 3, 0, -1)]
        """
        how = {"scales": scales, "kl": kl, "signs": signs, "skip_unreached": skip_unreached, "max_new_tokens": max_new_tokens,
               "tokens": as_list(tokens), "score": score, "stop": stop, "n_random": n_random, "seed": seed,
               "temperature": temperature, "samples": samples, "positions": positions}  # fmt: skip
        ranks = chosen_ranks(k, self.k)
        vectors = {s: self._vectors(ranks, [pair for pair in self.pairs if pair[0] == s]) for s in self.sources}
        return kept.compute(self.model, self._store, self._group, vectors, resume, progress, how, executor, worker_threads)

    @property
    def kept_effects(self) -> Effects | None:
        """The stored effects of this group of prompts; None before `effects` was called."""
        return kept.stored(self._store, self._group)

    @deprecated_arguments(2, ranks="k", random="n_random")
    def search(
        self,
        score: Score,
        *,
        validation: Prompts | Sequence[Any],
        test: Prompts | Sequence[Any],
        k: int | Iterable[int] | None = None,
        pairs: Iterable[tuple[int, Target]] | None = None,
        **how: Any,
    ) -> SearchResult:
        """Select a vector, sign and scale on validation prompts and report it on test prompts, next to random vectors.

        Parameters
        ----------
        score : callable or logit score
            As for `powersteer.search`.
        validation, test : prompts or items
            As for `powersteer.search`.
        k : int or list of int, optional
            Vectors of each pair: the first k, or the ranks in a list; all by default.
        pairs : list of (source, target), optional
            Pairs whose vectors are candidates; by default all computed pairs.
        **how
            Other arguments of `powersteer.search`, such as `executor` and `worker_threads`.

        Returns
        -------
        SearchResult

        Raises
        ------
        InvalidInput
            If a pair is not in the atlas, and as `powersteer.search`.

        Examples
        --------
        >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3], next_token=False)
        >>> score = ps.evaluate.LogitDifference("1", "2")
        >>> found = atlas.search(score, validation=["Q: 3*4"], test=["Q: 5*6"], scales=[0.5], n_random=1)
        >>> found.vector.layer, found.test.n
        (1, 1)
        """
        wanted = self.pairs if pairs is None else list(pairs)
        unknown = [pair for pair in wanted if pair not in self.pairs]
        if unknown:
            raise InvalidInput(f"search: {self._absent(*unknown[0])}")
        return search(self.model, self._vectors(k, wanted), score, validation=validation, test=test, **how)

    # ---- tables, report

    def to_pandas(self) -> pandas.DataFrame:
        """A table with one row per vector: source, target, rank, sigma, residual, gain, converged, method, applications, ...

        Raises MissingDependency without pandas.

        Examples
        --------
        >>> frame = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).to_pandas()
        >>> frame[["source", "target", "rank"]].values.tolist()
        [[1, 3, 0], [1, 3, 1], [1, 'next_token', 0], [1, 'next_token', 1]]
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependency("to_pandas needs pandas: pip install 'powersteer[tables]'") from None
        rows = [
            {
                "source": p.source, "target": p.target, "rank": i, "sigma": x, "residual": r, "gain": gain[i],
                "site_norm": p.site_norm,
                "cluster": next((n for n, ranks in enumerate(p.clusters) if i in ranks), -1), "method": p.method,
                "converged": p.converged, "applications": p.applications,
            }
            for p in self for gain in [self._gain(p)] for i, (x, r) in enumerate(zip(p.sigma, p.residuals, strict=True))
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def to_xarray(self) -> xarray.Dataset:
        """A dataset of sigma and residual over (source, target, rank), and of next_token_sigma and next_token_residual over
        (source, rank). Raises MissingDependency without xarray.

        Examples
        --------
        >>> data = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).to_xarray()
        >>> dict(data.sizes)
        {'source': 5, 'target': 5, 'rank': 2}
        """
        try:
            import xarray
        except ImportError:
            raise MissingDependency("to_xarray needs xarray: pip install 'powersteer[tables]'") from None
        layers, column = range(self.n_layers), self.next_token
        return xarray.Dataset(
            {
                "sigma": (("source", "target", "rank"), self.S),
                "residual": (("source", "target", "rank"), self.residuals),
                "next_token_sigma": (("source", "rank"), column.S),
                "next_token_residual": (("source", "rank"), column.residuals),
            },
            {"source": layers, "target": layers, "rank": range(self.k)},
            {"model": self.model_name, "prompt_group": self.prompt_group_name, "source_site": self.settings.source_site,
             "target_site": self.settings.target_site, "tol": self.settings.tol},
        )  # fmt: skip

    def page_data(self) -> dict[str, Any]:
        """The data of `report`, as plain lists and dicts: all groups of prompts, with estimates for pairs without a result.

        Examples
        --------
        >>> page = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).page_data()
        >>> page["title"], page["pairs"]
        ('Atlas of demo', [[1, 3], [1, 'next_token']])
        """
        s, groups = self.settings, {group: group.kept_effects for group in self.prompt_groups()}
        parts = [part for part in groups.values() if part]
        base = {e.prompt: e for part in parts for e in part.base}
        used: dict[str, Any] = parts[0].settings if parts else {"scales": [], "signs": []}
        by_kl = used.get("kl") is not None
        model = self._store.origin.get("path") or s.model["name"]
        steered = f"  # the atlas is of model.steered(...): {'; '.join(s.steering)}" if s.steering else ""
        atlas = "ps.atlas(model, prompts)" if self.path is None else f"ps.Atlas.load({str(self.path)!r})"
        return {
            "format": FORMAT,
            "title": f"Atlas of {s.model['name']}",
            "model": s.model,
            "version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {FIELDS.get(key, key): value for key, value in s.to_json().items() if key not in ("model", "prompts")}
            | {key: used[key] for key in ("max_new_tokens", "temperature", "samples") if key in used},
            "reproduce": {"load": f"model = ps.load({model!r}){steered}", "atlas": f"atlas = {atlas}"},
            "prompts": [
                {"name": p.name, "text": p.text, "n_tokens": len(p.tokens),
                 "base_text": e.text if e else "", "base_score": e.score if e else None,
                 "base_samples": e.samples if e else (), "base_sample_scores": e.sample_scores if e else ()}
                for i, p in enumerate(s.prompts) for e in [base.get(i)]
            ],
            "sources": list(s.sources),
            "targets": list(s.targets),
            "pairs": list(map(list, self.pairs)),
            "views": [_page_view(group, part) for group, part in groups.items()],
            "scales": used["kl" if by_kl else "scales"],
            "strength": "kl" if by_kl else "scale",
            "signs": used["signs"],
        }  # fmt: skip

    def report(self, path: str | Path) -> None:
        """Write the atlas as one interactive HTML file, which needs no server and no network.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        MissingDependency
            Without plotly (`pip install 'powersteer[report]'`).

        Examples
        --------
        >>> ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).report("atlas.html")
        """
        write_report(self.page_data(), path)

    def __repr__(self) -> str:
        unsure = sum(not p.converged for p in self)
        state = f"{len(self)} of {len(self.pairs)} pairs" + (f", {unsure} not converged" if unsure else "")
        return f"Atlas({self.model_name!r}, {self.prompt_group_name}, k {self.k}, tol {self.settings.tol:g}, {state})"

    def _repr_html_(self) -> str:
        layers = [t for t in self.targets if not isinstance(t, str)]
        values = self._array(lambda pair: pair.sigma)[list(self.sources)][:, layers or [-1], 0]
        caption = f"{self!r}: largest singular value by source (rows) and target (columns); {', '.join(map(repr, self.titles)):.200}"
        return heat_map(values, self.sources, layers or [NEXT_TOKEN], caption)

    if not TYPE_CHECKING:  # names of the previous release; a checker reports them as unknown
        _OLD = {"cell": "pair", "views": "prompt_groups", "view_name": "prompt_group_name"}

        def __getattr__(self, name: str) -> Any:
            if name in self._OLD:
                warn_deprecated(f"Atlas.{name} is now called Atlas.{self._OLD[name]}")
                return getattr(self, self._OLD[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)


def _page_view(group: Results, effects: Effects | None) -> dict[str, Any]:
    """A group of prompts, which is called a view there."""
    moved = {kind: [_page_effect(e) for e in getattr(effects, kind, ())] for kind in ("effects", "random")}
    results = [*group, *(s for pair, s in group._sketches.items() if pair not in group._stored)]
    cells = [_page_cell(result, group._gain(result)) for result in results]
    return {"name": group.prompt_group_name, "prompts": list(group.settings.groups[group._group]), "cells": cells, **moved}


def _page_effect(effect: Effect) -> dict[str, Any]:
    """An effect, whose scale is there what it was asked for: a budget takes its place."""
    return {key: value for key, value in asdict(effect).items() if key != "budget"} | {"scale": strength(effect)}


def _page_cell(result: Pair | Sketch, gain: list[float]) -> dict[str, Any]:
    filled = {"error": None} if isinstance(result, Pair) else {"residuals": [math.nan] * len(result.sigma), **_OF_SKETCH}
    cell = {**filled, **asdict(result), "gain": gain}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in cell.items() if key != "prompt_group"}
