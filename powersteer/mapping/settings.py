"""What an atlas is asked to be, in a form that can be written down, compared and cut into units of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .._util.json_records import record
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions, canonical, prompt_positions
from ..inputs.prompts import Prompts, split, title
from ..inputs.sites import Site, near_head, parse_site, precedes
from ..model.model import Model

__all__ = ["NEXT_TOKEN", "PromptRecord", "Settings", "Target", "make_settings"]

Target = int | str  # a layer, or NEXT_TOKEN
NEXT_TOKEN = "next_token"
METHODS = ("auto", "krylov", "dense", "sketch")
VIEWS = ("stacked", "each", "both")


@dataclass(frozen=True)
class PromptRecord:
    """A prompt as the model saw it."""

    name: str
    text: str
    tokens: tuple[int, ...]
    title: str = field(default="", compare=False)  # of a chat: its last user's turn


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the numbers of an atlas are. Two runs of equal settings give the same bits, as far
    as `threads` (which is not among them) is the same."""

    model: dict[str, Any]  # its identity, weights included
    steering: tuple[str, ...]  # of the view that was linearised
    steering_hash: str
    dtype: str
    parallel: bool  # attention and MLP side by side
    prompts: tuple[PromptRecord, ...]
    positions: Any  # of layer targets, canonical, a slice as {"slice": [start, stop, step]}; the next token's is the last
    views: str  # "stacked" | "each" | "both"
    source_site: str
    target_site: str
    sources: tuple[int, ...]
    targets: tuple[Target, ...]  # layers ascending, then NEXT_TOKEN if asked for
    k: int
    tol: float
    seed: int
    method: str  # "auto" | "krylov" | "dense" | "sketch"
    sketch: int  # random vectors of the sketch; 0: none
    max_applications: int | None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Prompts of every view: all of them stacked, then each alone."""
        every = tuple(range(len(self.prompts)))
        alone = tuple((i,) for i in every)
        if len(every) == 1:
            return alone
        return {"stacked": (every,), "each": alone, "both": (every, *alone)}[self.views]

    @property
    def target_positions(self) -> Positions:
        """`positions` as the rest of powersteer takes them."""
        return slice(*self.positions["slice"]) if isinstance(self.positions, dict) else self.positions

    def targets_of(self, source: int) -> tuple[Target, ...]:
        """The targets that this source comes before."""
        start = Site(source, self.source_site)
        return tuple(
            t for t in self.targets if isinstance(t, str) or precedes(start, Site(t, self.target_site), self.parallel)
        )

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        data["prompts"] = [{key: value for key, value in p.items() if key != "title" or value} for p in data["prompts"]]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        prompts = [{"title": "", **p} for p in data["prompts"]]
        settings = record(cls, {**data, "prompts": prompts, "positions": _frozen(data["positions"])})
        settings._check()
        return settings

    def _check(self) -> None:
        """Raise InvalidInput for what `make_settings` never makes."""
        layers: Any = self.model.get("n_layers")
        d: Any = self.model.get("d_model")
        names = all(isinstance(self.model.get(key), str) for key in ("name", "weights"))
        numbers = all(isinstance(n, int) and 0 < n < 2**24 for n in (layers, d))
        known = self.views in VIEWS and self.method in METHODS and self.dtype in ("float32", "float64")
        if not (names and numbers and known and self.prompts and self.sources and self.targets):
            raise InvalidInput("its settings are incomplete")
        if not 1 <= self.k <= d or not {*self.sources, *self.targets} <= {*range(layers), NEXT_TOKEN}:
            raise InvalidInput(f"k, sources or targets are not those of a model of {layers} layers and d_model {d}")
        for site in (self.source_site, self.target_site):
            parse_site((0, site))
        for p in self.prompts:
            prompt_positions(self.target_positions, len(p.tokens))

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: Settings) -> Iterator[str]:
        """What differs, in words: here, there."""
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


def _frozen(positions: Any) -> Any:
    return tuple(positions) if isinstance(positions, list) else positions


def _prompt_difference(mine: Sequence[PromptRecord], theirs: Sequence[PromptRecord]) -> str:
    if len(mine) != len(theirs):
        return f"{len(mine)}, there {len(theirs)}"
    first = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    keys = [f.name for f in fields(PromptRecord) if getattr(mine[first], f.name) != getattr(theirs[first], f.name)]
    return f"prompt {first} has other {' and '.join(keys)}"


def make_settings(
    model: Model,
    prompts: Prompts,
    sources: Sequence[int] | None,
    targets: Sequence[Target] | None,
    k: int,
    sites: str | Sequence[str],
    positions: Positions,
    tol: float,
    views: str,
    next_token: bool,
    method: str,
    sketch: int,
    seed: int,
    max_applications: int | None,
) -> Settings:
    """Checked arguments of `atlas`. Raises InvalidInput for what the model does not have."""
    for value, allowed, name in ((views, VIEWS, "views"), (method, METHODS, "method")):
        if value not in allowed:
            raise InvalidInput(f"atlas: {name} is {shown(value)}; it must be one of {', '.join(allowed)}")
    source_site, target_site = _sites(sites)
    counts = {"k": (k, 1), "sketch": (sketch, 0), "seed": (seed, 0)}
    if max_applications is not None:
        counts["max_applications"] = (max_applications, 2)
    for name, (number, least) in counts.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise InvalidInput(f"atlas: {name} is {shown(number)}; it must be an integer >= {least}")
    if method == "sketch" and not sketch:
        raise InvalidInput("atlas: method='sketch' with sketch=0 computes nothing; sketch is its number of random vectors")
    if not (isinstance(tol, (int, float)) and 0 < tol < 1):
        raise InvalidInput(f"atlas: tol is {shown(tol)}; it must be a number between 0 and 1")
    if k > model.d_model:
        raise InvalidInput(f"atlas: k is {k}, but a Jacobian of {model.name!r} has at most {model.d_model} triplets")
    at = canonical(positions)
    settings = Settings(
        model=model.identity,
        steering=model.steering,
        steering_hash=model.steering_hash,
        dtype=str(model.dtype),
        parallel=model.spec.parallel,
        prompts=_prompts(model, prompts, positions),
        positions={"slice": [at.start, at.stop, at.step]} if isinstance(at, slice) else at,
        views=views,
        source_site=source_site,
        target_site=target_site,
        sources=_layers(model, sources, "sources", source_site),
        targets=(*_layers(model, _no_head(targets), "targets", target_site), *_head(targets, next_token)),
        k=k,
        tol=float(tol),
        seed=seed,
        method=method,
        sketch=sketch,
        max_applications=max_applications,
    )
    if not any(settings.targets_of(s) for s in settings.sources):
        raise InvalidInput("atlas: none of the sources comes before any of the targets")
    return settings


def _sites(sites: str | Sequence[str]) -> tuple[str, str]:
    pair = [sites, sites] if isinstance(sites, str) else list(sites)
    if len(pair) != 2:
        raise InvalidInput(f"atlas: sites is {sites!r}; it must be the name of a site, or two: the source's, the target's")
    source, target = (parse_site((0, name)).name for name in pair)
    return source, target


def _layers(model: Model, layers: Sequence[int] | None, name: str, site: str) -> tuple[int, ...]:
    rules: dict[str, Any] = {"n_layers": model.n_layers, "parallel": model.spec.parallel, "post_norms": model.spec.post_norms}
    if layers is None:
        layers = range(model.n_layers)
    for layer in layers if isinstance(layers, (list, tuple)) else ():
        if isinstance(layer, str):
            raise InvalidInput(f"atlas: {name} has {layer!r}: {near_head(layer)}It must be a list of layers, and next_token among targets")
    try:
        chosen = sorted({parse_site((layer, site), **rules).layer for layer in layers})
    except TypeError:
        raise InvalidInput(f"atlas: {name} is {layers!r}; it must be a list of layers") from None
    return tuple(chosen)


def _no_head(targets: Sequence[Target] | None) -> Sequence[int] | None:
    return None if targets is None else [t for t in targets if t != NEXT_TOKEN]  # type: ignore[misc]


def _head(targets: Sequence[Target] | None, next_token: bool) -> tuple[str, ...]:
    return (NEXT_TOKEN,) if next_token or (targets is not None and NEXT_TOKEN in targets) else ()


def _prompts(model: Model, prompts: Prompts, positions: Positions) -> tuple[PromptRecord, ...]:
    given, _ = split(prompts)
    records = []
    for i, prompt in enumerate(given):
        tokens = model.tokens(prompt)
        if len(tokens) > model.n_ctx:
            raise InvalidInput(f"prompt {i} has {len(tokens)} tokens; the context of {model.name!r} has {model.n_ctx}")
        if isinstance(prompt, str):
            text = prompt
        else:
            text = "".join(model.to_str_tokens(tokens)) if model.tokenizer else ""
        prompt_positions(positions, len(tokens))  # refuses what selects nothing
        records.append(PromptRecord(f"prompt {i}", text, tuple(tokens.tolist()), "" if text is prompt else title(prompt)))
    return tuple(records)
