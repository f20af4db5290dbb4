"""An atlas as labelled arrays, cells and steering vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._util.progress import Report
from .._version import __version__
from ..errors import InvalidInput, MissingDependency, NotFound
from ..evaluate.effects import Effects
from ..evaluate.metrics import Score, as_list
from ..evaluate.search import SearchResult, search
from ..inputs.positions import prompt_positions
from ..inputs.prompts import Prompts
from ..inputs.sites import Site, near_head, precedes
from ..methods.displacement import check_count
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from . import effects_cache as kept
from .settings import NEXT_TOKEN, Settings, Target
from .store import Cell, Sketch, Store, open_folder

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["Atlas", "NextTokenColumn"]

Array = NDArray[Any]


class NextTokenColumn:
    """One target of an atlas, for every source."""

    def __init__(self, S: Array, residuals: Array, gain: Array) -> None:
        self.S = S  # (n_layers, k), NaN where there is none
        self.residuals = residuals  # (n_layers, k)
        self.gain = gain  # (n_layers, k), see `Atlas.gain`


class Atlas:
    """Singular values and vectors of the pairs of layers of a model: what `powersteer.atlas` returns, or `Atlas.load`.

    It shows what its store holds: while a folder is being filled, `load` it again to see more. Arrays have the axes
    (source layer, target layer, rank), with NaN where nothing was asked for or nothing is there yet.
    """

    def __init__(self, store: Store, model: Model | None = None, view: int = 0) -> None:
        self._store, self._model, self._view = store, model, view

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> Atlas:
        """The atlas in a folder, finished or not. model: the one it is of, for what steers it; None: loaded from where
        it was, once it is needed. Raises NotFound, and InvalidInput for a damaged folder or another model."""
        store = open_folder(Path(path).expanduser())
        if model is not None and model.identity["weights"] != store.settings.model["weights"]:
            raise InvalidInput(f"{str(path)!r} is the atlas of another model than {model.name!r}: the weights differ")
        if model is not None and model.steering_hash != store.settings.steering_hash:
            there = ", ".join(store.settings.steering) or "no vector"
            raise InvalidInput(f"{str(path)!r} is the atlas of a model steered by {there}; give that view of it")
        return cls(store, model)

    # ---- what it is of

    @property
    def settings(self) -> Settings:
        return self._store.settings

    @property
    def path(self) -> Path | None:
        """Its folder."""
        path: Path | None = getattr(self._store, "path", None)
        return path

    @property
    def model_name(self) -> str:
        return str(self.settings.model["name"])

    @property
    def prompts(self) -> list[str]:
        """The prompts of this view, as text."""
        return [self.settings.prompts[i].text for i in self.settings.groups[self._view]]

    @property
    def titles(self) -> list[str]:
        """What tells the prompts of this view apart: the text, of a chat the last user's turn."""
        return [self.settings.prompts[i].title or self.settings.prompts[i].text for i in self.settings.groups[self._view]]

    @property
    def sources(self) -> tuple[int, ...]:
        return self.settings.sources

    @property
    def targets(self) -> tuple[Target, ...]:
        """Layers, and "next_token" if it was asked for."""
        return self.settings.targets

    @property
    def k(self) -> int:
        return self.settings.k

    @property
    def n_layers(self) -> int:
        return int(self.settings.model["n_layers"])

    @property
    def view_name(self) -> str:
        group = self.settings.groups[self._view]
        return f"prompt {group[0]}" if len(group) == 1 else f"{len(group)} prompts stacked"

    def prompt(self, index: int) -> Atlas:
        """The atlas of one prompt alone. Raises InvalidInput if it was not computed (`views="each"` or "both")."""
        if (index,) not in self.settings.groups:
            raise InvalidInput(
                f"this atlas has no view of prompt {index} alone: it holds {len(self.settings.prompts)} prompts, "
                f"views={self.settings.views!r}; compute it with views='both'"
            )
        return self.views()[self.settings.groups.index((index,))]

    def views(self) -> list[Atlas]:
        """All views: the prompts stacked, each alone, as far as they were asked for."""
        return [Atlas(self._store, self._model, view) for view in range(len(self.settings.groups))]

    @property
    def model(self) -> Model:
        """The model, loaded from where it was if need be."""
        if self._model is None:
            from ..model.model import load

            path = getattr(self._store, "origin", {}).get("path")
            if path is None or not Path(path).exists():
                raise NotFound(f"the model of this atlas is not at {path!r} any more: Atlas.load(folder, model=...)")
            if self.settings.steering:
                raise InvalidInput("this atlas is of a steered model: Atlas.load(folder, model=model.steered(...))")
            found = load(path, dtype=self.settings.dtype)
            if found.identity["weights"] != self.settings.model["weights"]:
                raise InvalidInput(f"the model at {path!r} has changed since: its weights are not those of this atlas")
            self._model = found
        return self._model

    # ---- what it holds

    @cached_property
    def _cells(self) -> dict[tuple[int, Target], Cell]:
        return {(c.source, c.target): c for c in self._store.cells() if c.view == self._view}

    @cached_property
    def _sketches(self) -> dict[tuple[int, Target], Sketch]:
        return {(s.source, s.target): s for s in self._store.sketches() if s.view == self._view}

    def __iter__(self) -> Iterator[Cell]:
        """Its cells, by source, then target."""
        order = {t: i for i, t in enumerate(self.targets)}
        return iter(sorted(self._cells.values(), key=lambda c: (c.source, order[c.target])))

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def pairs(self) -> list[tuple[int, Target]]:
        """Every pair that was asked for."""
        return [(s, t) for s in self.sources for t in self.settings.targets_of(s)]

    @property
    def complete(self) -> bool:
        """Whether every pair that was asked for has its certified cell."""
        return set(self.pairs) <= set(self._cells)

    def cell(self, source: int, target: Target) -> Cell:
        """What is known of a pair. Raises InvalidInput for a pair that is not in the atlas."""
        try:
            return self._cells[source, target]
        except KeyError:
            raise InvalidInput(self._absent(source, target)) from None

    def _absent(self, source: int, target: Target) -> str:
        """Why there is nothing of a pair."""
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
            f"{pair} was not asked for in this atlas of {self.model_name!r}: its sources are {_listing(s.sources)}, "
            f"its targets {_listing(s.targets)}"
        )

    def sketch(self, source: int, target: Target) -> Sketch:
        """The estimate of a pair, from random vectors. Raises InvalidInput where there is none."""
        try:
            return self._sketches[source, target]
        except KeyError:
            known = f"the pair {source} -> {target} has no sketch in this atlas"
            raise InvalidInput(known if (source, target) in self.pairs else self._absent(source, target)) from None

    def _array(self, values_of: Callable[[Cell], Sequence[float]]) -> Array:
        """(n_layers, n_layers, k) of what the cells of layers have."""
        out = np.full((self.n_layers, self.n_layers, self.k), np.nan)
        for (source, target), cell in self._cells.items():
            if not isinstance(target, str):
                values = values_of(cell)
                out[source, target, : len(values)] = values
        return out

    def _next_token(self, values_of: Callable[[Cell], Sequence[float]]) -> Array:
        out = np.full((self.n_layers, self.k), np.nan)
        for (source, target), cell in self._cells.items():
            if target == NEXT_TOKEN:
                values = values_of(cell)
                out[source, : len(values)] = values
        return out

    def _gain(self, cell: Cell | Sketch) -> list[float]:
        """By rank: sigma in units that do not depend on the sites (see `gain`)."""
        if cell.target == NEXT_TOKEN:
            return [x * cell.site_norm for x in cell.sigma]
        norm = cell.base_norm
        if norm is None and (cell.source, cell.target) in self._sketches:  # cells of earlier versions do not have it
            norm = self._sketches[cell.source, cell.target].base_norm
        return [x * cell.site_norm / norm if norm else math.nan for x in cell.sigma]

    @property
    def S(self) -> Array:
        """(n_layers, n_layers, k) singular values, source x target x rank."""
        return self._array(lambda cell: cell.sigma)

    @property
    def residuals(self) -> Array:
        """(n_layers, n_layers, k), the certificate of each (see SVDResult)."""
        return self._array(lambda cell: cell.residuals)

    @property
    def gain(self) -> Array:
        """(n_layers, n_layers, k), S x source norm / target norm, without units: how much of itself the target moves, to
        first order, for a push as long as the source's mean activation norm. The target norm is the 2-norm over all of
        its rows, as S is. NaN where an atlas of an earlier version does not have it."""
        return self._array(self._gain)

    @property
    def next_token(self) -> NextTokenColumn:
        """S, residuals and gain (n_layers, k) of the Fisher target, S in sqrt(nats) per unit of the vector, gain (S x
        source norm) in sqrt(nats)."""
        return NextTokenColumn(
            self._next_token(lambda cell: cell.sigma),
            self._next_token(lambda cell: cell.residuals),
            self._next_token(self._gain),
        )

    @property
    def estimate(self) -> tuple[Array, Array]:
        """(sigma_1, standard error) of every pair from the sketch, (n_layers, n_layers) each; NaN where there is none, as
        for pairs that were cheaper to compute than to estimate."""
        out = np.full((2, self.n_layers, self.n_layers), np.nan)
        for (source, target), s in self._sketches.items():
            if not isinstance(target, str):
                out[:, source, target] = s.sigma[0], s.error[0]
        return out[0], out[1]

    def vector(self, source: int, target: Target, rank: int) -> SteeringVector:
        """A right singular vector as a unit steering vector at the source. Raises InvalidInput as `cell`."""
        vectors = self.vectors(source, target)
        return vectors[check_count(rank, "rank", len(vectors) - 1, f"the last of the pair {source} -> {target}", least=0)]

    def vectors(self, source: int, target: Target) -> list[SteeringVector]:
        """The vectors of a pair by rank, with their provenance."""
        cell, s = self.cell(source, target), self.settings
        prompts = [s.prompts[i] for i in s.groups[self._view]]
        last = isinstance(target, str)
        at = [prompt_positions(slice(-1, None) if last else s.target_positions, len(p.tokens)) for p in prompts]
        shared: dict[str, Any] = {
            "layer": source,
            "site": s.source_site,
            "site_norm": cell.site_norm,
            "method": cell.method,
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
        rows = zip(self._store.vectors(cell), cell.sigma, cell.residuals, strict=True)
        return [SteeringVector(v, rank=i, sigma=x, residual=r, **shared) for i, (v, x, r) in enumerate(rows)]

    def _vectors(self, ranks: int | Iterable[int] | None, pairs: Iterable[tuple[int, Target]]) -> list[SteeringVector]:
        """Those of the cells that are there among `pairs`; ranks: how many of each, which ones, or None for all."""
        wanted = range(self.k if ranks is None else ranks) if ranks is None or isinstance(ranks, int) else as_list(ranks)
        if not wanted or not set(wanted) <= set(range(self.k)):
            raise InvalidInput(f"ranks are {ranks!r}; they must be a number, or some of 0 to {self.k - 1}")
        return [v for pair in pairs if pair in self._cells for v in self.vectors(*pair) if v.rank in wanted]

    # ---- what its vectors do

    def effects(
        self,
        ranks: int | Iterable[int] | None = None,
        *,
        scales: Sequence[float] = (0.35, 1.0),
        signs: Sequence[int] = (1, -1),
        max_new_tokens: int = 32,
        tokens: str | int | Sequence[str | int] = (),
        score: Callable[[Any, str], float] | None = None,
        stop: Any = None,
        random: int = 8,
        seed: int = 0,
        temperature: float = 0.0,
        samples: int = 0,
        resume: bool = True,
        progress: bool | Report = True,
    ) -> Effects:
        """What the vectors of this view do to its prompts: KL, logits, linearity, continuations (the greedy one, and
        `samples` at `temperature`), signs of degeneration, beside random vectors of the same norms.
        The arguments are those of `powersteer.effects`.

        ranks: of each pair; a number n for the first n, None for all. They are kept in the atlas, source by source, and
        shown by `report`; what is there already is not computed again, and more ranks, scales or signs are added to it.
        Raises InvalidInput where effects with other arguments are kept, naming them; resume=False replaces them.
        """
        how = {"scales": as_list(scales), "signs": as_list(signs), "max_new_tokens": max_new_tokens,
               "tokens": as_list(tokens), "score": score, "stop": stop, "random": random, "seed": seed,
               "temperature": temperature, "samples": samples}  # fmt: skip
        ranks = ranks if ranks is None or isinstance(ranks, int) else as_list(ranks)

        def vectors_of(source: int) -> list[SteeringVector]:
            return self._vectors(ranks, [(source, t) for t in self.settings.targets_of(source)])

        return kept.compute(self.model, self._store, self._view, vectors_of, resume, progress, how)

    @property
    def kept_effects(self) -> Effects | None:
        """The effects of this view that are kept in the atlas; None before `effects` was called."""
        return kept.stored(self._store, self._view)

    def search(
        self,
        score: Score,
        validation: Prompts | Sequence[Any],
        test: Prompts | Sequence[Any],
        ranks: int | Iterable[int] | None = None,
        *,
        pairs: Iterable[tuple[int, Target]] | None = None,
        **how: Any,
    ) -> SearchResult:
        """The vector of this view, its sign and scale, with the best score on validation prompts, what that is worth on
        test prompts, and the best of as many random vectors. ranks: as for `effects`; pairs: (source, target); None:
        every pair that is computed. Other arguments and errors: see `powersteer.search`."""
        wanted = self.pairs if pairs is None else list(pairs)
        unknown = [pair for pair in wanted if pair not in self.pairs]
        if unknown:
            raise InvalidInput(f"search: {self._absent(*unknown[0])}")
        return search(self.model, self._vectors(ranks, wanted), score, validation, test, **how)

    # ---- for others

    def to_pandas(self) -> pandas.DataFrame:
        """A row for every vector: source, target, rank, sigma, residual, converged, method, applications, ..."""
        try:
            import pandas
        except ImportError:
            raise MissingDependency("to_pandas needs pandas: pip install powersteer[tables]") from None
        rows = [
            {
                "source": c.source, "target": c.target, "rank": i, "sigma": x, "residual": r, "gain": gain[i],
                "site_norm": c.site_norm,
                "cluster": next((n for n, ranks in enumerate(c.clusters) if i in ranks), -1), "method": c.method,
                "converged": c.converged, "applications": c.applications,
            }
            for c in self for gain in [self._gain(c)] for i, (x, r) in enumerate(zip(c.sigma, c.residuals, strict=True))
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def to_xarray(self) -> xarray.Dataset:
        """sigma and residual over (source, target, rank), and next_token_sigma over (source, rank)."""
        try:
            import xarray
        except ImportError:
            raise MissingDependency("to_xarray needs xarray: pip install powersteer[tables]") from None
        layers, column = range(self.n_layers), self.next_token
        return xarray.Dataset(
            {
                "sigma": (("source", "target", "rank"), self.S),
                "residual": (("source", "target", "rank"), self.residuals),
                "next_token_sigma": (("source", "rank"), column.S),
                "next_token_residual": (("source", "rank"), column.residuals),
            },
            {"source": layers, "target": layers, "rank": range(self.k)},
            {"model": self.model_name, "view": self.view_name, "source_site": self.settings.source_site,
             "target_site": self.settings.target_site, "tol": self.settings.tol},
        )  # fmt: skip

    def page_data(self) -> dict[str, Any]:
        """What the report shows, as plain data: all views, their cells, or sketches where there is no cell yet."""
        s, views = self.settings, self.views()
        parts = [view.kept_effects for view in views]
        base = {e.prompt: e for part in parts if part for e in part.base}
        read = {i: (e.text, e.score, e.samples, e.sample_scores) for i, e in base.items()}
        used: dict[str, Any] = next((part.settings for part in parts if part), {"scales": [], "signs": []})
        return {
            "format": "powersteer-page-1",
            "title": f"Atlas of {self.model_name}",
            "model": s.model,
            "version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {key: value for key, value in s.to_json().items() if key not in ("model", "prompts")}
            | {key: used[key] for key in ("max_new_tokens", "temperature", "samples") if key in used},
            "reproduce": self._reproduce(),
            "prompts": [
                {"name": p.name, "text": p.text, "n_tokens": len(p.tokens)}
                | dict(zip(("base_text", "base_score", "base_samples", "base_sample_scores"), read.get(i, ("", None, (), ())),
                           strict=True))
                for i, p in enumerate(s.prompts)
            ],
            "sources": list(self.sources),
            "targets": list(self.targets),
            "pairs": [list(pair) for pair in self.pairs],
            "views": [view._page_view(part) for view, part in zip(views, parts, strict=True)],
            "scales": used["scales"],
            "signs": used["signs"],
        }

    def _reproduce(self) -> dict[str, str]:
        path = getattr(self._store, "origin", {}).get("path") or self.model_name
        made = f"ps.Atlas.load({str(self.path)!r})" if self.path is not None else "ps.atlas(model, prompts)"
        steered = f"  # the atlas is of model.steered(...): {'; '.join(self.settings.steering)}" if self.settings.steering else ""
        return {"load": f"model = ps.load({path!r}){steered}", "atlas": f"atlas = {made}"}

    def _page_view(self, effects: Effects | None) -> dict[str, Any]:
        cells = [{**asdict(c), "error": None, "gain": self._gain(c)} for c in self]
        cells += [
            {"source": s.source, "target": s.target, "method": "sketch", "sigma": s.sigma, "error": s.error, "gain": self._gain(s),
             "residuals": [math.nan] * len(s.sigma), "clusters": [], "cluster_open": False, "converged": False,
             "applications": 0, "site_norm": s.site_norm}
            for pair, s in self._sketches.items() if pair not in self._cells
        ]  # fmt: skip
        cells = [{key: list(v) if isinstance(v, tuple) else v for key, v in c.items() if key != "view"} for c in cells]
        group = list(self.settings.groups[self._view])
        moved = {name: [asdict(e) for e in getattr(effects, name, ())] for name in ("effects", "random")}
        return {"name": self.view_name, "prompts": group, "cells": cells, **moved}

    def report(self, path: str | Path) -> None:
        """Write the atlas as one HTML file to explore, which needs no server and no network (see powersteer.report)."""
        from ..report import write_report

        write_report(self.page_data(), path)

    def __repr__(self) -> str:
        unsure = sum(not c.converged for c in self)
        state = f"{len(self)} of {len(self.pairs)} pairs" + (f", {unsure} not converged" if unsure else "")
        return f"Atlas({self.model_name!r}, {self.view_name}, k {self.k}, tol {self.settings.tol:g}, {state})"


def _listing(targets: Sequence[Target]) -> str:
    return ", ".join(map(str, targets))
