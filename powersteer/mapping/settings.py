"""The arguments of an atlas, checked, in a form that can be saved, compared and divided into units of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from .._util.checks import as_list, check_count
from .._util.json_records import record
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions, canonical, prompt_positions
from ..inputs.prompts import Prompts
from ..inputs.sites import Site, near_head, parse_site, precedes
from ..model.model import Model

__all__ = ["NEXT_TOKEN", "PromptRecord", "Settings", "Target", "chosen_ranks", "make_settings"]

Target = int | str  # a layer, or NEXT_TOKEN
NEXT_TOKEN = "next_token"
METHODS = ("auto", "krylov", "dense", "sketch")
PROMPT_GROUPS = ("stacked", "each", "both")
FIELDS = {"positions": "target_positions", "views": "prompt_groups"}  # key in atlas.json -> field, where they differ


@dataclass(frozen=True)
class PromptRecord:
    """A prompt as the model saw it.

    Examples
    --------
    >>> import powersteer as ps
    >>> atlas = ps.atlas(ps.load("demo"), "Q: 6*8", sources=[1], targets=[2, 3], k=2, next_token=False)
    >>> atlas.settings.prompts[0].text
    'Q: 6*8'
    """

    name: str
    text: str
    tokens: tuple[int, ...]
    title: str = field(default="", compare=False)  # of a chat: its last user's turn


@dataclass(frozen=True)
class Settings:
    """Everything that the numbers of an atlas depend on, but for the number of threads: two runs with equal settings and
    equally many threads give the same bits.

    Examples
    --------
    >>> import powersteer as ps
    >>> atlas = ps.atlas(ps.load("demo"), "Q: 6*8", sources=[1], targets=[2, 3], k=2, next_token=False)
    >>> atlas.settings.sources, atlas.settings.targets
    ((1,), (2, 3))
    """

    model: dict[str, Any]  # its identity, weights included
    steering: tuple[str, ...]  # of the linearised model
    steering_hash: str
    dtype: str
    parallel: bool  # attention and MLP side by side
    prompts: tuple[PromptRecord, ...]
    target_positions: Any  # of layer targets, canonical; the next token has the last
    prompt_groups: str  # "stacked" | "each" | "both"
    source_site: str
    target_site: str
    sources: tuple[int, ...]
    targets: tuple[Target, ...]  # layers ascending, then NEXT_TOKEN if it was requested
    k: int
    tol: float
    seed: int
    method: str  # "auto" | "krylov" | "dense" | "sketch"
    sketch: int  # random vectors of the sketch; 0: none
    max_applications: int | None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the prompts of every group: all of them stacked, then each alone."""
        every = tuple(range(len(self.prompts)))
        alone = tuple((i,) for i in every)
        if len(every) == 1:
            return alone
        return {"stacked": (every,), "each": alone, "both": (every, *alone)}[self.prompt_groups]

    def targets_of(self, source: int) -> tuple[Target, ...]:
        """The targets that come after this source in the model's computation.

        Examples
        --------
        >>> import powersteer as ps
        >>> atlas = ps.atlas(ps.load("demo"), "Q: 6*8", sources=[1], targets=[2, 3], k=2, next_token=False)
        >>> atlas.settings.targets_of(1)
        (2, 3)
        """
        start = Site(source, self.source_site)
        return tuple(
            t for t in self.targets if isinstance(t, str) or precedes(start, Site(t, self.target_site), self.parallel)
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as atlas.json holds them.

        Examples
        --------
        >>> import powersteer as ps
        >>> atlas = ps.atlas(ps.load("demo"), "Q: 6*8", sources=[1], targets=[2, 3], k=2, next_token=False)
        >>> atlas.settings.to_json()["k"]
        2
        """
        keys = {field: key for key, field in FIELDS.items()}
        named = {keys.get(name, name): value for name, value in asdict(self).items()}
        data: dict[str, Any] = json.loads(json.dumps(named, default=lambda s: {"slice": [s.start, s.stop, s.step]}))
        data["prompts"] = [{key: value for key, value in p.items() if key != "title" or value} for p in data["prompts"]]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """Inverse of `to_json`. Raises ValueError, KeyError, TypeError or InvalidInput for other data.

        Examples
        --------
        >>> import powersteer as ps
        >>> atlas = ps.atlas(ps.load("demo"), "Q: 6*8", sources=[1], targets=[2, 3], k=2, next_token=False)
        >>> ps.Settings.from_json(atlas.settings.to_json()) == atlas.settings
        True
        """
        at = data["positions"]
        at = slice(*at["slice"]) if isinstance(at, dict) else tuple(at) if isinstance(at, list) else at
        prompts = [{"title": "", **p} for p in data["prompts"]]
        settings = record(cls, {FIELDS.get(k, k): v for k, v in {**data, "prompts": prompts, "positions": at}.items()})
        settings._check()
        return settings

    def _check(self) -> None:
        """Raise InvalidInput for values that `make_settings` never returns."""
        layers: Any = self.model.get("n_layers")
        d: Any = self.model.get("d_model")
        names = all(isinstance(self.model.get(key), str) for key in ("name", "weights"))
        numbers = all(isinstance(n, int) and 0 < n < 2**24 for n in (layers, d))
        known = self.prompt_groups in PROMPT_GROUPS and self.method in METHODS and self.dtype in ("float32", "float64")
        if not (names and numbers and known and self.prompts and self.sources and self.targets):
            raise InvalidInput("its settings are incomplete")
        if not 1 <= self.k <= d or not {*self.sources, *self.targets} <= {*range(layers), NEXT_TOKEN}:
            raise InvalidInput(f"k, sources or targets are not those of a model of {layers} layers and d_model {d}")
        for site in (self.source_site, self.target_site):
            parse_site((0, site))
        for p in self.prompts:
            prompt_positions(self.target_positions, len(p.tokens))

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: Settings) -> Iterator[str]:
        """The fields that differ, with their values here and there.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> few = ps.atlas(model, "Q: 6*8", sources=[1], targets=[3], k=2, next_token=False)
        >>> more = ps.atlas(model, "Q: 6*8", sources=[1], targets=[3], k=3, next_token=False)
        >>> list(few.settings.differences(more.settings))
        ['k (2, there 3)']
        """
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if mine == theirs:
                continue
            if f.name == "prompts":
                yield f"prompts ({_prompt_difference(mine, theirs)})"
            elif f.name == "model":
                keys = [key for key in mine if mine[key] != theirs.get(key)]
                yield "model (" + ", ".join(f"{key}: {mine[key]!r}, there {theirs.get(key)!r}" for key in keys) + ")"
            else:
                yield f"{f.name} ({mine!r}, there {theirs!r})"


def _prompt_difference(mine: Sequence[PromptRecord], theirs: Sequence[PromptRecord]) -> str:
    if len(mine) != len(theirs):
        return f"{len(mine)}, there {len(theirs)}"
    first = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    keys = [f.name for f in fields(PromptRecord) if getattr(mine[first], f.name) != getattr(theirs[first], f.name)]
    return f"prompt {first} has other {' and '.join(keys)}"


def chosen_ranks(k: int | Iterable[int] | None, most: int) -> list[int]:
    """Ranks of the vectors of a pair: the first k, those in a list, or all `most` for None. Raises InvalidInput."""
    ranks = range(k) if isinstance(k, int) else range(most) if k is None else as_list(k)
    if not ranks or not set(ranks) <= set(range(most)):
        raise InvalidInput(f"k is {k!r}; it must be a number of vectors from 1 to {most}, or a list of ranks from 0 to {most - 1}")
    return list(ranks)


def make_settings(
    model: Model,
    prompts: Prompts,
    *,
    sources: Sequence[int] | None,
    targets: Sequence[Target] | None,
    k: int,
    sites: str | Sequence[str],
    target_positions: Positions,
    tol: float,
    next_token: bool,
    **others: Any,
) -> Settings:
    """Check the arguments of `atlas`. others: those that are in the settings as they are: prompt_groups, method, sketch, seed,
    max_applications. Raises InvalidInput for sites, layers and positions that the model does not have."""
    for name, allowed in (("prompt_groups", PROMPT_GROUPS), ("method", METHODS)):
        if others[name] not in allowed:
            raise InvalidInput(f"atlas: {name} is {shown(others[name])}; it must be one of {', '.join(allowed)}")
    source_site, target_site = _sites(sites)
    check_count(k, "atlas: k")
    for name, least in (("sketch", 0), ("seed", 0), ("max_applications", 2)):
        if name != "max_applications" or others[name] is not None:
            check_count(others[name], f"atlas: {name}", least=least)
    if others["method"] == "sketch" and not others["sketch"]:
        raise InvalidInput("atlas: method='sketch' with sketch=0 computes nothing; sketch is the number of random vectors")
    if not (isinstance(tol, (int, float)) and 0 < tol < 1):
        raise InvalidInput(f"atlas: tol is {shown(tol)}; it must be a number between 0 and 1")
    if k > model.d_model:
        raise InvalidInput(f"atlas: k is {k}, but a Jacobian of {model.name!r} has at most {model.d_model} triplets")
    layers = None if targets is None else [t for t in targets if t != NEXT_TOKEN]
    last = (NEXT_TOKEN,) if next_token or (targets is not None and NEXT_TOKEN in targets) else ()
    settings = Settings(
        model=model.identity,
        steering=model.steering,
        steering_hash=model.steering_hash,
        dtype=str(model.dtype),
        parallel=model.spec.parallel,
        prompts=_prompts(model, prompts, target_positions),
        target_positions=canonical(target_positions),
        source_site=source_site,
        target_site=target_site,
        sources=_layers(model, sources, "sources", source_site),
        targets=(*_layers(model, layers, "targets", target_site), *last),
        k=k,
        tol=float(tol),
        **others,
    )
    if not any(settings.targets_of(s) for s in settings.sources):
        raise InvalidInput("atlas: none of the sources comes before any of the targets")
    return settings


def _sites(sites: str | Sequence[str]) -> tuple[str, str]:
    pair = [sites, sites] if isinstance(sites, str) else list(sites)
    if len(pair) != 2:
        raise InvalidInput(f"atlas: sites is {sites!r}; it must be the name of a site, or two names: of the source and of the target")
    source, target = (parse_site((0, name)).name for name in pair)
    return source, target


def _layers(model: Model, layers: Sequence[Any] | None, name: str, site: str) -> tuple[int, ...]:
    rules = model._site_rules
    if layers is None:
        layers = [layer for layer in range(model.n_layers) if site in model.spec.sites(layer)]
    for layer in layers if isinstance(layers, (list, tuple)) else ():
        if isinstance(layer, str):
            raise InvalidInput(f"atlas: {name} has {layer!r}: {near_head(layer)}It must be a list of layers, and next_token among targets")
    try:
        chosen = sorted({parse_site((layer, site), **rules).layer for layer in layers})
    except TypeError:
        raise InvalidInput(f"atlas: {name} is {layers!r}; it must be a list of layers") from None
    return tuple(chosen)


def _prompts(model: Model, prompts: Prompts, positions: Positions) -> tuple[PromptRecord, ...]:
    encoded, ids, _ = model._read(prompts)
    for tokens in ids:
        prompt_positions(positions, len(tokens))  # refuses a selection of nothing
    return tuple(
        PromptRecord(f"prompt {i}", p.text, tuple(p.ids.tolist()), "" if isinstance(p.given, str) else p.title)
        for i, p in enumerate(encoded)
    )
