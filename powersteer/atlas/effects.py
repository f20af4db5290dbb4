"""What the vectors of an atlas do, kept beside it: one file of effects for every view and source."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from ..effects import Effects, effects
from ..errors import InvalidInput
from ..model import Model
from ..vectors import SteeringVector
from .settings import Settings
from .store import Store

__all__ = ["compute", "stored"]

_SINCE = {"temperature": 0.0, "samples": 0}  # arguments that effects of earlier versions do not name
VectorsOf = Callable[[int], list[SteeringVector]]  # of a source


def compute(
    model: Model,
    store: Store,
    view: int,
    vectors_of: VectorsOf,
    ranks: int | list[int] | None,
    resume: bool,
    progress: bool,
    how: dict[str, Any],
) -> Effects:
    """Effects of the vectors of every source of a view, those that are stored left as they are. how: arguments of
    `powersteer.effects`. Raises InvalidInput where others than these are stored, unless resume is False."""
    settings = store.settings
    prompts = [list(settings.prompts[i].tokens) for i in settings.groups[view]]
    parts: list[Effects] = []
    for source in tqdm(settings.sources, desc="effects", unit=" sources", disable=None if progress else True):
        vectors = vectors_of(source)
        if not vectors:
            continue
        made_with = {**_plain(how), "ranks": ranks, "atlas": settings.hash, "vectors": [[v.target_layer, v.rank] for v in vectors]}
        found = _read(store, view, source) if resume else None
        if found is not None:
            _same(settings, found.settings["asked"], made_with)
        if found is None or found.settings["asked"] != made_with:  # cells were added since
            found = effects(model, prompts, vectors, **how)
            found = replace(found, settings={**found.settings, "asked": made_with})
            store.put_effects(view, source, found.to_json())
        parts.append(found)
    if not parts:
        raise InvalidInput("this atlas has no cell yet whose vectors could be tried")
    return _joined(parts, settings, view)


def stored(store: Store, view: int) -> Effects | None:
    """The effects that are there."""
    found = (_read(store, view, source) for source in store.settings.sources)
    parts = [part for part in found if part is not None]
    return _joined(parts, store.settings, view) if parts else None


def _read(store: Store, view: int, source: int) -> Effects | None:
    try:
        text = store.effects(view, source)
        found = None if text is None else Effects.from_json(text)
        if found is not None:
            asked = found.settings.get("asked")
            if isinstance(asked, dict):
                found.settings["asked"] = {**_SINCE, **asked}
            _check(found, store.settings, view, source)
        return found
    except InvalidInput as error:
        raise InvalidInput(f"the stored effects of source {source}, view {view}: {error}; delete the file, or resume=False") from None


def _check(found: Effects, settings: Settings, view: int, source: int) -> None:
    asked = found.settings.get("asked")
    group, records = settings.groups[view], [*found.effects, *found.random, *found.base]
    known = isinstance(asked, dict) and isinstance(asked.get("vectors"), list) and len(found.prompts) == len(group)
    if not known or len(found.base) != len(group) or not all(e.prompt < len(group) for e in records):
        raise InvalidInput("its prompts or vectors are not those of the atlas")
    if any(e.source != source or e.target not in settings.targets or not 0 <= e.rank < settings.k for e in found.effects):
        raise InvalidInput("an effect is of a vector that the atlas does not have")


def _plain(how: dict[str, Any]) -> dict[str, Any]:
    """Arguments as they come back from JSON; a function by its name and code, as far as they tell it from another."""
    names = {key: _name(value) for key, value in how.items() if callable(value)}
    plain: dict[str, Any] = json.loads(json.dumps({**how, **names}, default=repr))
    return plain


def _name(function: Any) -> str:
    """Of a function with its code and what it closes over; of another object its class and contents."""
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{type(function).__qualname__} {_digest(repr(getattr(function, '__dict__', '')))}"
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return f"{function.__qualname__} {_digest(repr((code.co_code, code.co_consts, code.co_names, closed)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode("utf-8", "replace")).hexdigest()[:12]


def _same(settings: Settings, there: dict[str, Any], asked: dict[str, Any]) -> None:
    changes = [
        f"{k} ({asked[k]!r}, there {there.get(k)!r})" for k in asked if k != "vectors" and asked[k] != there.get(k)
    ]
    if changes:
        raise InvalidInput(
            f"this atlas holds effects with other arguments: {'; '.join(changes)}. Give these, or resume=False to "
            "compute them anew"
        )


def _joined(parts: Sequence[Effects], settings: Settings, view: int) -> Effects:
    """One table: prompts numbered as in the atlas, vectors in a row over the sources."""
    group, first = settings.groups[view], 0
    every: dict[str, list[Any]] = {"effects": [], "random": []}
    for part in parts:
        for name, records in every.items():
            records += [
                replace(e, prompt=group[e.prompt], vector=e.vector if e.vector < 0 else e.vector + first)
                for e in getattr(part, name)
            ]
        first += len(part.settings["asked"]["vectors"])
    return Effects(
        effects=tuple(every["effects"]),
        random=tuple(every["random"]),
        base=tuple(replace(e, prompt=group[e.prompt]) for e in parts[0].base),
        prompts=tuple(p.text for p in settings.prompts),
        settings={key: value for key, value in parts[0].settings.items() if key != "asked"},
    )
