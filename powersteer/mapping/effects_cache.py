"""Effects of the vectors of an atlas, stored with it: one file for every group of prompts and source."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from .._util.checks import check_count
from .._util.progress import Report, progress_bar
from .._util.workers import ExecutorLike, Workers
from ..errors import InvalidInput, shown
from ..evaluate.effect_table import strength
from ..evaluate.effects import Baseline, Effect, Effects, checked_pushes, effects_by
from ..inputs.positions import describe
from ..model.model import Model
from ..model.remote import RemoteModel
from ..vectors.steering_vector import SteeringVector
from .settings import Settings
from .store import Store, json_name

__all__ = ["compute", "stored"]

# Arguments that files of earlier versions do not have
_SINCE = {"temperature": 0.0, "samples": 0, "positions": "all", "strength": "scales"}
_KEYS = {"n_random": "random"}  # argument -> its key in files, where they differ
Label = tuple[Any, int]  # target, rank: unique among the vectors of a source
_OF_CALLS = ("scales", "kl", "signs", "n_random", "skip_unreached")  # arguments that differ between the calls for one baseline
_EXTENDS = ("scales", "kl", "signs")  # more of these are computed and added to the stored ones


def compute(
    model: Model,
    store: Store,
    group: int,
    vectors_of: dict[int, list[SteeringVector]],
    resume: bool,
    progress: bool | Report,
    how: dict[str, Any],
    executor: ExecutorLike | None = None,
    threads: int = 1,
) -> Effects:
    """Effects of the vectors of every source, for a group of prompts. Stored effects are not computed again; missing vectors,
    signs and scales are added to them. how: arguments of `powersteer.effects`. Raises InvalidInput where effects with
    other arguments are stored, unless resume is False. executor, threads: workers and threads of each, as for `powersteer.atlas`."""
    settings = store.settings
    prompts = [list(settings.prompts[i].tokens) for i in settings.groups[group]]
    by = "scales" if how["kl"] is None else "kl"
    common = {_KEYS.get(k, k): v for k, v in _plain(how).items() if k not in (*_EXTENDS, "skip_unreached")}
    common |= {"positions": describe(how["positions"]), "atlas": settings.hash, "strength": by}
    todo = []
    for source, vectors in vectors_of.items():
        if vectors:
            _, signs, strengths = checked_pushes(vectors, how["signs"], how["scales"], how["kl"])
            kept = _read(store, group, source) if resume else None
            if kept is not None:
                _same({**kept.settings, **kept.settings["asked"]}, {by: strengths, "signs": signs, **common})
            calls_of_it = _missing(kept, vectors, signs, strengths, how["n_random"])
            todo.append((source, vectors, kept, [{by: at, "skip_unreached": how["skip_unreached"], **call} for at, call in calls_of_it]))
    if not todo:
        raise InvalidInput("this atlas has no computed pair yet, so it has no vectors")
    check_count(how["n_random"], "effects: n_random", least=0)
    of_all = {name: value for name, value in how.items() if name not in _OF_CALLS}
    calls, baseline = [call for *_, of_source in todo for call in of_source], Baseline(model, prompts, **of_all)
    found = [kept for _, _, kept, _ in todo]
    with progress_bar(progress, sum(map(baseline.rows, calls)), "effects") as report:
        run: Iterator[tuple[int, Effects]] = ((i, baseline.effects(**call, progress=_relay(report))) for i, call in enumerate(calls))
        if executor is not None:
            if by == "kl":  # a mean over all prompts, of which a worker has one
                calls = [{**call, "pushed": baseline.pushed(**call)} for call in calls]
            run = _reported(effects_by(Workers(executor), RemoteModel.of(model, threads), prompts, of_all, calls), calls, baseline, report)
        made: dict[int, Effects] = {}
        ends = list(accumulate(len(of_source) for *_, of_source in todo))
        for index, of_call in run:
            made[index] = of_call
            n = bisect(ends, index)  # its source
            of_source = range(ends[n] - len(todo[n][3]), ends[n])
            if made.keys() >= {*of_source}:
                extended = _extended(found[n], [(calls[i], made.pop(i)) for i in of_source], common, settings)
                store.put_text(json_name("effects", group, todo[n][0]), extended.to_json())
                found[n] = extended
    parts = [(vectors, part) for (_, vectors, *_), part in zip(todo, found, strict=True) if part is not None]
    return _joined([_of(part, map(_label, vectors), signs, strengths) for vectors, part in parts], settings, group)


def _reported(
    run: Iterator[tuple[int, Effects]], calls: Sequence[dict[str, Any]], baseline: Baseline, report: Callable[[int], object]
) -> Iterator[tuple[int, Effects]]:
    for index, made in run:
        report(baseline.rows(calls[index]))
        yield index, made


def _extended(
    found: Effects | None, made: Iterable[tuple[dict[str, Any], Effects]], common: dict[str, Any], settings: Settings
) -> Effects:
    """The effects of a source, with those of more calls."""
    for call, of_call in made:
        requested = {**common, "vectors": [list(_label(v)) for v in call["vectors"]]}
        found = _with(found, replace(of_call, settings={**of_call.settings, "asked": requested}), settings)
    assert found is not None  # of at least one call
    return found


def _label(v: SteeringVector) -> Label:
    return v.target_layer, v.rank or 0


def _missing(
    kept: Effects | None, vectors: Sequence[SteeringVector], signs: Sequence[int], strengths: Sequence[float], n_random: int
) -> list[tuple[list[float], dict[str, Any]]]:
    """Scales or budgets, and other arguments, of the calls of `effects` that compute what is missing, each a full table of
    vectors x signs x strengths."""
    there = {(e.target, e.rank, e.sign, strength(e)) for e in kept or ()}
    drawn = {(e.sign, strength(e)) for e in kept.random} if kept else set()
    strengths_of: dict[Any, dict[int, list[float]]] = {}
    for sign in signs:
        for at in strengths:
            lacking = tuple(i for i, v in enumerate(vectors) if (*_label(v), sign, at) not in there)
            if lacking:
                strengths_of.setdefault((lacking, (sign, at) in drawn), {}).setdefault(sign, []).append(at)
    calls = []
    for (lacking, with_random), by_sign in strengths_of.items():
        for some in dict.fromkeys(map(tuple, by_sign.values())):
            alike = [sign for sign, of_sign in by_sign.items() if tuple(of_sign) == some]
            call = {"vectors": [vectors[i] for i in lacking], "signs": alike, "n_random": 0 if with_random else n_random}
            calls.append((list(some), call))
    return calls


def _relay(report: Callable[[int], object]) -> Report:
    """Progress callback of one call, which reports to that of all calls."""
    before = 0

    def relay(done: int, total: int) -> None:
        nonlocal before
        report(done - before)
        before = done

    return relay


def _with(kept: Effects | None, made: Effects, settings: Settings) -> Effects:
    """Both as one table, in the order of a single call: vectors by target and rank, then signs and strengths."""
    if kept is None:
        return made
    labels = {tuple(label) for part in (kept, made) for label in part.settings["asked"]["vectors"]}
    order = sorted(labels, key=lambda label: (settings.targets.index(label[0]), label[1]))
    strengths = sorted({*kept.settings[_by(kept)], *made.settings[_by(made)]})
    signs = sorted({*kept.settings["signs"], *made.settings["signs"]}, reverse=True)
    every = replace(
        kept, effects=(*kept.effects, *made.effects), random=(*kept.random, *made.random),
        settings={**kept.settings, "asked": made.settings["asked"]},
    )  # fmt: skip
    both = _of(every, order, signs, strengths)

    def in_order(records: Iterable[Effect]) -> tuple[Effect, ...]:
        return tuple(sorted(records, key=lambda e: (e.prompt, e.vector, e.rank, -e.sign, strength(e))))

    return replace(both, effects=in_order(both.effects), random=in_order(both.random))


def _by(found: Effects) -> str:
    """The argument that gave the strengths."""
    return "scales" if found.settings.get("kl") is None else "kl"


def _of(found: Effects, labels: Iterable[Label], signs: Sequence[int], strengths: Sequence[float]) -> Effects:
    """Of the vectors with some labels, numbered in the order of the labels, at some signs and strengths."""
    index = {label: i for i, label in enumerate(labels)}
    here = [e for e in found.effects if (e.target, e.rank) in index and e.sign in signs and strength(e) in strengths]
    random = tuple(e for e in found.random if e.sign in signs and strength(e) in strengths)
    requested = (len(index) + found.settings["random"]) * len(signs) * len(strengths)  # at the one site of a source
    return replace(
        found,
        effects=tuple(replace(e, vector=index[e.target, e.rank]) for e in here),
        random=random,
        settings={**found.settings, "signs": list(signs), _by(found): list(strengths),
                  "unreached": requested - (len(here) + len(random)) // len(found.base),
                  "asked": {**found.settings["asked"], "vectors": [list(label) for label in index]}},
    )  # fmt: skip


def stored(store: Store, group: int) -> Effects | None:
    """The stored effects of a group of prompts; None: there are none."""
    found = (_read(store, group, source) for source in store.settings.sources)
    parts = [part for part in found if part is not None]
    return _joined(parts, store.settings, group) if parts else None


def _read(store: Store, group: int, source: int) -> Effects | None:
    try:
        text = store.text(json_name("effects", group, source))
        if text is None:
            return None
        found = Effects.from_json(text)
        requested = found.settings.get("asked")
        if isinstance(requested, dict):
            found.settings["asked"] = {**_SINCE, **requested}
        _check(found, store.settings, group, source)
        return found
    except InvalidInput as error:
        where = f"the stored effects of source {source}, prompt group {group}"
        raise InvalidInput(f"{where}: {error}; delete the file or give resume=False") from None


def _check(found: Effects, settings: Settings, group: int, source: int) -> None:
    requested, n_prompts = found.settings.get("asked"), len(settings.groups[group])
    records = [*found.effects, *found.random, *found.base]
    known = isinstance(requested, dict) and isinstance(requested.get("vectors"), list) and len(found.prompts) == n_prompts
    if not known or len(found.base) != n_prompts or not all(e.prompt < n_prompts for e in records):
        raise InvalidInput("the prompts or vectors are not those of the atlas")
    for label in requested["vectors"] if requested else ():
        if not isinstance(label, list) or len(label) != 2 or label[0] not in settings.targets or label[1] not in range(settings.k):
            raise InvalidInput(f"the atlas has no vector {shown(label)}")
    for key in (_by(found), "signs"):
        if not isinstance(found.settings[key], list) or not all(isinstance(x, (int, float)) for x in found.settings[key]):
            raise InvalidInput(f"{key} are {shown(found.settings[key])}")
    if any(e.source != source or e.target not in settings.targets or not 0 <= e.rank < settings.k for e in found.effects):
        raise InvalidInput("one of them is of a vector that the atlas does not have")


def _plain(how: dict[str, Any]) -> dict[str, Any]:
    """Arguments after a round trip through JSON. A function becomes its name and a digest of its code."""
    names = {key: _name(value) for key, value in how.items() if callable(value)}
    plain: dict[str, Any] = json.loads(json.dumps({**how, **names}, default=repr))
    return plain


def _name(function: Any) -> str:
    """Of a function: its name, with a digest of its code and closure; of another object: its class, with one of its contents."""
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{type(function).__qualname__} {_digest(repr(getattr(function, '__dict__', '')))}"
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return f"{function.__qualname__} {_digest(repr((code.co_code, code.co_consts, code.co_names, closed)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode("utf-8", "replace")).hexdigest()[:12]


def _same(there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InvalidInput if stored effects were computed with other arguments; additional signs and scales are allowed."""
    argument = {key: name for name, key in _KEYS.items()}
    changes = {k: f"{argument.get(k, k)} ({wanted[k]!r}, there {there.get(k)!r})" for k in wanted if wanted[k] != there.get(k)}
    if set(changes) - set(_EXTENDS):
        raise InvalidInput(
            f"this atlas holds effects with other arguments: {'; '.join(changes.values())}. Give the same arguments, or "
            "resume=False to compute them again"
        )


def _joined(parts: Sequence[Effects], settings: Settings, group: int) -> Effects:
    """One table of all sources, with prompts numbered as in the atlas and vectors numbered over all sources."""
    prompts = settings.groups[group]
    first = accumulate((len(part.settings["asked"]["vectors"]) for part in parts), initial=0)
    numbered = list(zip(parts, first, strict=False))
    return Effects(
        effects=tuple(replace(e, prompt=prompts[e.prompt], vector=n + e.vector) for part, n in numbered for e in part.effects),
        random=tuple(replace(e, prompt=prompts[e.prompt]) for part in parts for e in part.random),
        base=tuple(replace(e, prompt=prompts[e.prompt]) for e in parts[0].base),
        prompts=tuple(p.text for p in settings.prompts),
        settings={
            **{key: value for key, value in parts[0].settings.items() if key != "asked"},
            "titles": [p.title or p.text for p in settings.prompts],
            **{key: list(dict.fromkeys(x for part in parts for x in part.settings[key])) for key in (_by(parts[0]), "signs")},
            "unreached": sum(part.settings.get("unreached", 0) for part in parts),
        },
    )
