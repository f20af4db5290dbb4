"""What the vectors of an atlas do, kept beside it: one file of effects for every view and source."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..evaluate.effects import Effect, Effects, checked_pushes, checked_samples, effect_rows, effects
from ..methods.displacement import check_count
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .settings import Settings
from .store import Store

__all__ = ["compute", "stored"]

_SINCE = {"temperature": 0.0, "samples": 0}  # arguments that effects of earlier versions do not name
VectorsOf = Callable[[int], list[SteeringVector]]  # of a source
Label = tuple[Any, int]  # target, rank: what tells the vectors of a source apart
_EXTENDS = ("scales", "signs", "ranks", "vectors")  # more of these are computed beside what is kept


def compute(
    model: Model,
    store: Store,
    view: int,
    vectors_of: VectorsOf,
    resume: bool,
    progress: bool | Report,
    how: dict[str, Any],
) -> Effects:
    """Effects of the vectors of every source of a view. What is kept is not computed again; vectors, signs and scales that
    are not there yet are added to it. how: arguments of `powersteer.effects`. Raises InvalidInput where effects with
    other arguments are kept, unless resume is False."""
    settings = store.settings
    prompts = [list(settings.prompts[i].tokens) for i in settings.groups[view]]
    common = {key: value for key, value in _plain(how).items() if key not in _EXTENDS} | {"atlas": settings.hash}
    todo = []
    for source in settings.sources:
        if vectors := vectors_of(source):
            _, signs, scales = checked_pushes(vectors, how["signs"], how["scales"])
            kept = _read(store, view, source) if resume else None
            if kept is not None:
                _same({**kept.settings, **kept.settings["asked"]}, {"scales": scales, "signs": signs, **common})
            todo.append((source, vectors, kept, _missing(kept, vectors, signs, scales)))
    if not todo:
        raise InvalidInput("this atlas has no cell yet whose vectors could be tried")
    how = {key: value for key, value in how.items() if key not in _EXTENDS}
    new = check_count(how["max_new_tokens"], "effects: max_new_tokens", least=0)
    check_count(how["random"], "effects: random", least=0)
    _, samples = checked_samples(how["temperature"], how["samples"], new)
    rows = sum(
        effect_rows(len(prompts), len(c.vectors), len(c.signs), len(c.scales), 0 if c.with_random else how["random"], new, samples)
        for *_, calls in todo for c in calls
    )  # fmt: skip
    parts: list[Effects] = []
    with progress_bar(progress, rows, "effects") as report:
        for source, vectors, kept, calls in todo:
            found = kept
            for call in calls:
                made = effects(
                    model, prompts, call.vectors, signs=call.signs, scales=call.scales, progress=_relay(report),
                    **{**how, "random": 0 if call.with_random else how["random"]},
                )  # fmt: skip
                found = _with(found, _named(made, common, call.vectors), settings)
            if found is not kept and found is not None:
                store.put_effects(view, source, found.to_json())
            parts.append(_of(found, vectors, signs, scales))
    return _joined(parts, settings, view)


@dataclass(frozen=True)
class Call:
    """Vectors that lack the same signs and scales."""

    vectors: list[SteeringVector]
    signs: list[int]
    scales: list[float]
    with_random: bool  # whether the random vectors of these signs and scales are kept already


def _label(v: SteeringVector) -> Label:
    return v.target_layer, v.rank or 0


def _missing(
    kept: Effects | None, vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float]
) -> list[Call]:
    """What is to be computed, in calls of full tables of vectors x signs x scales."""
    there = {(e.target, e.rank, e.sign, e.scale) for e in kept or ()}
    drawn = {(e.sign, e.scale) for e in kept.random} if kept else set()
    scales_of: dict[Any, dict[int, list[float]]] = {}
    for sign in signs:
        for scale in scales:
            lacking = tuple(i for i, v in enumerate(vectors) if (*_label(v), sign, scale) not in there)
            if lacking:
                scales_of.setdefault((lacking, (sign, scale) in drawn), {}).setdefault(sign, []).append(scale)
    calls = []
    for (lacking, with_random), by_sign in scales_of.items():
        for some in dict.fromkeys(map(tuple, by_sign.values())):
            alike = [sign for sign, of_sign in by_sign.items() if tuple(of_sign) == some]
            calls.append(Call([vectors[i] for i in lacking], alike, list(some), with_random))
    return calls


def _relay(report: Callable[[int], object]) -> Report:
    """The progress of one call, as part of all of them."""
    before = 0

    def relay(done: int, total: int) -> None:
        nonlocal before
        report(done - before)
        before = done

    return relay


def _named(made: Effects, common: dict[str, Any], vectors: Sequence[SteeringVector]) -> Effects:
    """Effects with what they were made with: the arguments in JSON, and the label of every vector."""
    return replace(made, settings={**made.settings, "asked": {**common, "vectors": [list(_label(v)) for v in vectors]}})


def _with(kept: Effects | None, made: Effects, settings: Settings) -> Effects:
    """One table of both: vectors by target and rank, then signs and scales, as if they had been computed together."""
    if kept is None:
        return made
    labels = {tuple(label) for part in (kept, made) for label in part.settings["asked"]["vectors"]}
    order = sorted(labels, key=lambda label: (settings.targets.index(label[0]), label[1]))
    place = {label: i for i, label in enumerate(order)}
    scales = sorted({*kept.settings["scales"], *made.settings["scales"]})
    signs = sorted({*kept.settings["signs"], *made.settings["signs"]}, reverse=True)

    def merged(name: str) -> tuple[Effect, ...]:
        every = [*getattr(kept, name), *getattr(made, name)]
        moved = [e if e.vector < 0 else replace(e, vector=place[e.target, e.rank]) for e in every]
        return tuple(sorted(moved, key=lambda e: (e.prompt, e.vector, e.rank, -e.sign, e.scale)))

    requested = {**made.settings["asked"], "vectors": [list(label) for label in order]}
    together = {**kept.settings, "scales": scales, "signs": signs, "asked": requested}
    return replace(kept, effects=merged("effects"), random=merged("random"), settings=together)


def _of(
    found: Effects | None, vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float]
) -> Effects:
    """What was requested of what is kept."""
    assert found is not None  # kept, or computed in at least one call
    labels = [list(_label(v)) for v in vectors]
    place = {tuple(label): i for i, label in enumerate(labels)}
    here = [e for e in found.effects if (e.target, e.rank) in place and e.sign in signs and e.scale in scales]
    return replace(
        found,
        effects=tuple(replace(e, vector=place[e.target, e.rank]) for e in here),
        random=tuple(e for e in found.random if e.sign in signs and e.scale in scales),
        settings={**found.settings, "signs": list(signs), "scales": list(scales),
                  "asked": {**found.settings["asked"], "vectors": labels}},
    )  # fmt: skip


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
            requested = found.settings.get("asked")
            if isinstance(requested, dict):
                found.settings["asked"] = {**_SINCE, **requested}
            _check(found, store.settings, view, source)
        return found
    except InvalidInput as error:
        raise InvalidInput(f"the stored effects of source {source}, view {view}: {error}; delete the file, or resume=False") from None


def _check(found: Effects, settings: Settings, view: int, source: int) -> None:
    requested, group = found.settings.get("asked"), settings.groups[view]
    records = [*found.effects, *found.random, *found.base]
    known = isinstance(requested, dict) and isinstance(requested.get("vectors"), list) and len(found.prompts) == len(group)
    if not known or len(found.base) != len(group) or not all(e.prompt < len(group) for e in records):
        raise InvalidInput("its prompts or vectors are not those of the atlas")
    for label in requested["vectors"] if requested else ():
        if not isinstance(label, list) or len(label) != 2 or label[0] not in settings.targets or label[1] not in range(settings.k):
            raise InvalidInput(f"the atlas has no vector {shown(label)}")
    for key in ("scales", "signs"):
        if not isinstance(found.settings[key], list) or not all(isinstance(x, (int, float)) for x in found.settings[key]):
            raise InvalidInput(f"its {key} are {shown(found.settings[key])}")
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


def _same(there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InvalidInput where what is kept was made with other arguments; more vectors, signs and scales are no others."""
    changes = {k: f"{k} ({wanted[k]!r}, there {there.get(k)!r})" for k in wanted if wanted[k] != there.get(k)}
    if set(changes) - set(_EXTENDS):
        raise InvalidInput(
            f"this atlas holds effects with other arguments: {'; '.join(changes.values())}. Give these, or resume=False to "
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
        settings={
            **{key: value for key, value in parts[0].settings.items() if key != "asked"},
            "titles": [p.title or p.text for p in settings.prompts],
            **{key: list(dict.fromkeys(x for part in parts for x in part.settings[key])) for key in ("scales", "signs")},
        },
    )
