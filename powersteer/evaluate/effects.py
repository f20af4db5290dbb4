"""What steering vectors do to prompts: every vector, both signs, several scales, beside random vectors of the same norms.

Three passes over all pushes of all prompts, each in batches: one forward pass along the base continuation (KL, logits,
the target's response), one continuation, one forward pass of the unsteered model over what was said (perplexity).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._util.atomic import read_text, write_text
from .._util.json_records import record
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, MissingDependency, NotFound
from ..inputs.prompts import Ids, Prompts, split, title
from ..inputs.sites import Site
from ..methods.displacement import check_count, check_positive, unit
from ..model.generation import Generation, Sampling
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Callback, Steer, forward_rows, generate_rows, joined
from .metrics import as_list, check_text_score, finite_score, kl_divergence, nll, repetition, token_id
from .target_response import jvps, log_softmax, nonlinearity, target_delta, target_sites

if TYPE_CHECKING:
    import pandas

__all__ = ["NGRAM", "Effect", "Effects", "checked_pushes", "checked_samples", "effect_rows", "effects", "random_direction", "with_norms"]

Array = NDArray[Any]
FORMAT = "powersteer-effects-1"
NGRAM = 4  # tokens, of `Effect.repetition`


@dataclass(frozen=True)
class Effect:
    """One vector, one sign, one scale, one prompt. NaN where there is nothing to measure."""

    source: int
    site: str
    target: int | str  # layer, "next_token", "logits", "random", "base", or the method of a vector without a target
    rank: int  # singular rank, 0 if the vector has none; of random vectors the draw
    sign: int  # +1 | -1
    scale: float  # fraction of the site's mean activation norm
    norm: float  # absolute length added
    prompt: int  # index into the prompts
    kl_end: float  # KL(base || steered) of the next token at the prompt's end, nats
    kl_continuation: float  # its mean per token along the base continuation, nats
    linearity: float  # |dF - J delta| / |dF| at the vector's own target
    logit_change: dict[str, float]  # by token: change of its logit less the mean over the vocabulary, at the prompt's end
    text: str  # steered continuation
    repetition: float  # share of 4-grams of its tokens that occurred before (see evaluate.repetition)
    compression: float  # zlib ratio
    perplexity: float  # of it under the base model
    score: float | None  # of the text
    vector: int  # index into the vectors; -1: none of them
    samples: tuple[str, ...] = ()  # steered continuations drawn at `temperature`
    sample_scores: tuple[float, ...] = ()  # of each


@dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """A table of effects, made by `powersteer.effects`. `effects` has the records of the vectors, `random` those of the
    yardstick at the same sites and norms, `base` one record of no steering for each prompt."""

    effects: tuple[Effect, ...]
    random: tuple[Effect, ...]
    base: tuple[Effect, ...]
    prompts: tuple[str, ...]
    settings: dict[str, Any]  # model, weights, scales, signs, max_new_tokens, tokens, random, seed, titles, temperature, samples

    def __iter__(self) -> Any:
        return iter(self.effects)

    def __len__(self) -> int:
        return len(self.effects)

    def where(self, **conditions: Any) -> Effects:
        """The records that agree with all conditions: field=value, field=[values] or field=function of the value. The
        yardstick keeps those that agree in prompt, source, site, sign, scale and norm, the base those of the prompt."""
        unknown = conditions.keys() - {f.name for f in fields(Effect)}
        if unknown:
            raise InvalidInput(f"where: an effect has no {sorted(unknown)[0]!r}; it has {[f.name for f in fields(Effect)]}")
        shared = {k: v for k, v in conditions.items() if k in ("prompt", "source", "site", "sign", "scale", "norm")}
        prompt = {k: v for k, v in conditions.items() if k == "prompt"}
        return replace(
            self,
            effects=_matching(self.effects, conditions),
            random=_matching(self.random, shared),
            base=_matching(self.base, prompt),
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """The records of the vectors as plain dicts."""
        return [asdict(e) for e in self.effects]

    def to_pandas(self) -> pandas.DataFrame:
        """A row for every record, the yardstick's and the base's included: their `target` is "random" and "base". A
        column "logit_change[token]" for every chosen token."""
        try:
            import pandas
        except ImportError:
            raise MissingDependency("to_pandas needs pandas: pip install powersteer[tables]") from None
        rows = []
        for effect in self.base + self.effects + self.random:
            row = asdict(effect)
            row |= {f"logit_change[{t}]": x for t, x in row.pop("logit_change").items()}
            rows.append(row)
        return pandas.DataFrame(rows)

    def to_json(self) -> str:
        """Everything, NaN as null. The same effects give the same text."""
        parts = {name: [_plain(asdict(e)) for e in getattr(self, name)] for name in ("effects", "random", "base")}
        whole = {"format": FORMAT, "settings": self.settings, "prompts": list(self.prompts), **parts}
        return json.dumps(whole, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Effects:
        """What `to_json` wrote. Raises InvalidInput for anything else."""
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise ValueError(f"its format is {whole['format']!r}")
            parts = {name: tuple(_effect(e) for e in whole[name]) for name in ("effects", "random", "base")}
            prompts, settings = tuple(whole["prompts"]), dict(whole["settings"])
            known = all(isinstance(p, str) for p in prompts) and {"scales", "signs"} <= set(settings)
            if not known or not all(0 <= e.prompt < len(prompts) for part in parts.values() for e in part):
                raise ValueError("prompts, scales or signs are missing")
            return cls(prompts=prompts, settings=settings, **parts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"these are no effects of this version of powersteer: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, all or nothing."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Effects:
        """Read what `save` wrote. Raises NotFound and InvalidInput."""
        if not Path(path).is_file():
            raise NotFound(f"there is no file {str(path)!r}")
        return cls.from_json(read_text(path))

    def __repr__(self) -> str:
        vectors = len({e.vector for e in self.effects})
        return (
            f"Effects({len(self.effects)} of {vectors} vectors on {len(self.base)} prompts, beside {len(self.random)} "
            f"of random vectors; scales {self.settings['scales']}, signs {self.settings['signs']})"
        )


@dataclass(frozen=True)
class _Push:
    """A vector, or none, at one sign and scale."""

    steer: Steer
    like: SteeringVector | None  # whose target is looked at
    index: int
    label: tuple[int, str, int | str, int]  # source, site, target, rank
    sign: int
    scale: float
    norm: float


@dataclass(frozen=True)
class _Moved:
    """What a forward pass says about a push on a prompt."""

    kl_end: float
    kl_continuation: float
    linearity: float
    logit_change: dict[str, float]


def effects(
    model: Model,
    prompts: Prompts,
    vectors: SteeringVector | Sequence[SteeringVector],
    *,
    scales: Sequence[float] = (0.35, 1.0),
    signs: Sequence[int] = (1, -1),
    max_new_tokens: int = 32,
    tokens: str | int | Iterable[str | int] = (),
    score: Callable[[Any, str], float] | None = None,
    stop: Any = None,
    random: int = 8,
    seed: int = 0,
    temperature: float = 0.0,
    samples: int = 0,
    progress: bool | Report = False,
) -> Effects:
    """What every vector does to every prompt, at every sign and scale, added at every position.

    scales: fractions of the site's mean activation norm that the vector knows, or else of that on these prompts.
    max_new_tokens: of the greedy continuations; 0: none, and only what a forward pass says. tokens: texts of one token,
    or ids, whose logits are followed. score(prompt, text): a number for every continuation. stop: as `Model.generate`.
    random: unit vectors drawn at each site as the yardstick, at the same signs and norms, so that the better of two signs
    is held against the better of two; they depend on seed, site and draw only. The same arguments give the same bits.
    samples: continuations drawn at `temperature`, besides the greedy one, of every vector, random vector and base. Sample
    i is that of `Model.generate` with `seed + i`, so steered and base texts come from the same random numbers.

    Raises InvalidInput for vectors that do not fit the model and numbers out of range.
    """
    given, signs, scales = checked_pushes(vectors, signs, scales)
    given_prompts, _ = split(prompts)
    ids: list[Ids] = model.tokens(given_prompts)
    max_new_tokens, random, seed = (
        check_count(value, f"effects: {name}", least=0)
        for value, name in ((max_new_tokens, "max_new_tokens"), (random, "random"), (seed, "seed"))
    )
    temperature, samples = checked_samples(temperature, samples, max_new_tokens)
    if score is not None:
        check_text_score(model, score)
        if not max_new_tokens:
            raise InvalidInput("effects: a score reads continuations, and max_new_tokens is 0; give it 1 or more")
    followed = {str(t): token_id(model, t) for t in as_list(tokens)}
    given = with_norms(model, ids, given)
    pushes = _given_pushes(given, signs, scales)
    count = len(pushes)
    pushes += _random_pushes(model, given, signs, scales, random, seed)
    none = _Push(None, None, -1, (-1, "", "base", 0), 1, 0.0, 0.0)
    seeds = [(seed + i) % 2**64 for i in range(samples)]
    records: list[list[Effect]] = []
    with progress_bar(progress, _rows(len(ids), len(pushes), max_new_tokens, samples), "effects") as callback:
        base = generate_rows(model, ids, [None] * len(ids), max_new_tokens, stop, callback) if max_new_tokens else None
        for j, t in enumerate(ids):
            along = t if base is None else joined(t, base[j].tokens[:-1])
            moved = _forward(model, t, along, base is not None, [none, *pushes], followed, callback)
            generated: list[Generation] = []
            drawn: list[Generation] = []  # `samples` of each, the base first
            if base is not None:
                steer = [p.steer for p in pushes]
                generated = [base[j], *generate_rows(model, [t] * len(pushes), steer, max_new_tokens, stop, callback)]
                each = [s for s in (None, *steer) for _ in seeds]
                drawn = generate_rows(
                    model, [t] * len(each), each, max_new_tokens, stop, callback, temperature, seeds * (len(pushes) + 1)
                )
            surprises = _perplexities(model, t, generated, callback)
            records.append([
                _record(p, j, m, generated[i] if generated else None, surprises[i] if generated else math.nan,
                        drawn[i * samples : (i + 1) * samples], score, given_prompts[j])
                for i, (p, m) in enumerate(zip([none, *pushes], moved, strict=True))
            ])  # fmt: skip
    settings = {
        "model": model.name, "weights": model.identity["weights"], "steering": list(model.steering),
        "scales": scales, "signs": signs, "max_new_tokens": max_new_tokens,
        "tokens": followed, "random": random, "seed": seed, "temperature": temperature, "samples": samples,
        "titles": list(map(title, given_prompts)),
    }  # fmt: skip
    return Effects(
        effects=tuple(e for of_prompt in records for e in of_prompt[1 : 1 + count]),
        random=tuple(e for of_prompt in records for e in of_prompt[1 + count :]),
        base=tuple(of_prompt[0] for of_prompt in records),
        prompts=tuple(model._text(p, t) for p, t in zip(given_prompts, ids, strict=True)),
        settings=settings,
    )


def effect_rows(prompts: int, vectors: int, signs: int, scales: int, draws: int, max_new_tokens: int, samples: int) -> int:
    """What the progress of `effects` counts to, of vectors at one site."""
    return _rows(prompts, (vectors + draws) * signs * scales, max_new_tokens, samples)


def _rows(prompts: int, pushes: int, max_new_tokens: int, samples: int) -> int:
    """Of every prompt, pushed and not: a forward pass, a continuation, one pass over that, and the samples."""
    return prompts * (pushes + 1) * (3 + samples if max_new_tokens else 1)


# ---- what is pushed


def checked_samples(temperature: float, samples: int, max_new_tokens: int) -> tuple[float, int]:
    """The first two. Raises InvalidInput for samples that cannot be drawn, and for a temperature without samples."""
    samples, warm = check_count(samples, "effects: samples", least=0), Sampling(temperature, 0, 1.0).temperature > 0
    if samples and not warm:
        raise InvalidInput(f"effects: samples is {samples} at temperature 0, where all are the greedy text; give a temperature")
    if warm and not samples:
        raise InvalidInput(f"effects: temperature is {temperature}, but samples is 0; give the number of samples a vector")
    if samples and not max_new_tokens:
        raise InvalidInput(f"effects: samples is {samples}, but max_new_tokens is 0; give it 1 or more")
    return float(temperature), samples


def checked_pushes(vectors: Any, signs: Any, scales: Any) -> tuple[list[SteeringVector], list[int], list[float]]:
    """The three as lists. Raises InvalidInput for what is no vector, sign or scale, or is there twice."""
    several, signs, scales = as_list(vectors), as_list(signs), as_list(scales)
    if not several or not all(isinstance(v, SteeringVector) for v in several):
        raise InvalidInput("vectors must be one SteeringVector or more; svd.vectors and SteeringVector.from_array make them")
    if sorted(signs, key=repr) not in ([1], [-1], [-1, 1]):
        raise InvalidInput(f"signs are {signs!r}; they must be 1, -1 or both")
    scales = [check_positive(scale, "a scale") for scale in scales]
    if not scales or len(set(scales)) < len(scales):
        raise InvalidInput(f"scales are {scales!r}; give one or more, each once")
    return several, list(map(int, signs)), scales


def with_norms(model: Model, tokens: Sequence[Ids], vectors: Sequence[SteeringVector]) -> list[SteeringVector]:
    """The vectors, those that do not know their site's mean activation norm with that on these prompts."""
    sites = list(dict.fromkeys(v.place for v in vectors if not v.site_norm))
    if not sites:
        return list(vectors)
    acts = [a for _, a in forward_rows(model, tokens, [None] * len(tokens), sites=sites, rows="none")]
    norms = {
        site: float(np.concatenate([np.linalg.norm(a[i].astype(np.float64), axis=1) for a in acts]).mean())
        for i, site in enumerate(sites)
    }
    return [v if v.site_norm else replace(v, site_norm=norms[v.place]) for v in vectors]


def pushed(vector: SteeringVector, sign: int, scale: float) -> SteeringVector:
    """The vector with its own sign times `sign`, at a fraction of its site's norm."""
    return vector.relative(sign * scale)


def random_direction(model: Model, place: Site, *key: int) -> Array:
    """A unit vector (d,), uniform on the sphere, of its own for every site and key."""
    rng = np.random.default_rng([*key, place.layer, place.index])
    row: Array = unit(rng.standard_normal(model.d_model)).astype(model.dtype)
    return row


def _given_pushes(vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float]) -> list[_Push]:
    return [
        _Push(pushed(v, sign, scale), v, i, _label(v), int(sign), float(scale), scale * float(v.site_norm or 0))
        for i, v in enumerate(vectors) for sign in signs for scale in scales
    ]  # fmt: skip


def _random_pushes(
    model: Model, vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float], draws: int, seed: int
) -> list[_Push]:
    out = []
    for place, norm in dict.fromkeys((v.place, float(v.site_norm or 0)) for v in vectors):
        for draw in range(draws):
            direction = random_direction(model, place, seed, draw)
            v = SteeringVector(direction, place.layer, place.name, site_norm=norm, method="random", rank=draw, seed=seed)
            label = (place.layer, place.name, "random", draw)
            out += [
                _Push(pushed(v, sign, s), None, -1, label, int(sign), float(s), s * norm) for sign in signs for s in scales
            ]
    return out


def _label(v: SteeringVector) -> tuple[int, str, int | str, int]:
    return v.layer, v.site, v.method if v.target_layer is None else v.target_layer, v.rank or 0


# ---- what it does


def _forward(
    model: Model, prompt: Ids, along: Ids, continued: bool, pushes: Sequence[_Push], followed: dict[str, int], callback: Callback
) -> list[_Moved]:
    """One record a push, the first of which is no steering. along: the prompt and the base continuation, without its
    last token."""
    n = len(prompt)
    sites = target_sites([p.like for p in pushes if p.like is not None])
    before, before_acts = next(forward_rows(model, [along], [None], [n], sites))
    callback(1)
    logp = log_softmax(before[n - 1 :])
    out = {0: _Moved(0.0, 0.0 if continued else math.nan, math.nan, dict.fromkeys(followed, 0.0))}
    for group in _by_place(pushes):
        some = [pushes[i] for i in group]
        slope_of = _slopes(model, prompt, some)
        here = target_sites([p.like for p in some if p.like is not None])
        rows = forward_rows(model, [along] * len(some), [p.steer for p in some], [n] * len(some), here, callback=callback)
        for i, p, (after, acts) in zip(group, some, rows, strict=True):
            kl = kl_divergence(logp, log_softmax(after[n - 1 :]))
            departs = math.nan
            if p.like is not None and p.index in slope_of:
                read = before[n - 1], after[n - 1]
                if not isinstance(p.like.target, str):
                    (place,) = target_sites([p.like])
                    read = before_acts[sites.index(place)], acts[here.index(place)]
                length = p.sign * p.norm * math.copysign(1.0, p.like.scale)
                departs = nonlinearity(target_delta(p.like, n, *read), length * slope_of[p.index])
            shifts = _logit_changes(before[n - 1], after[n - 1], followed)
            out[i] = _Moved(float(kl[0]), float(kl.mean()) if continued else math.nan, departs, shifts)
    return [out[i] for i in range(len(pushes))]


def _by_place(pushes: Sequence[_Push]) -> list[list[int]]:
    """Indices of all but the first, by site: the slopes of one site are held at a time."""
    groups: dict[Any, list[int]] = {}
    for i, p in enumerate(pushes[1:], 1):
        groups.setdefault(p.label[:2], []).append(i)
    return list(groups.values())


def _slopes(model: Model, prompt: Ids, pushes: Sequence[_Push]) -> dict[int, Array]:
    """J @ direction by index of the vector, of those with a target."""
    like = {p.index: p.like for p in pushes if p.like is not None}
    found = jvps(model, prompt, list(like.values()))
    return {index: found[i] for i, index in enumerate(like) if i in found}


def _logit_changes(before: Array, after: Array, followed: dict[str, int]) -> dict[str, float]:
    if not followed:
        return {}
    moved = after.astype(np.float64) - before
    moved -= moved.mean()
    return {name: float(moved[token]) for name, token in followed.items()}


def _perplexities(model: Model, prompt: Ids, generated: Sequence[Generation], callback: Callback) -> list[float]:
    """Of every continuation under the unsteered model; those that say the same are read once."""
    distinct = list({g.tokens.tobytes(): joined(prompt, g.tokens) for g in generated}.items())
    rows = forward_rows(model, [f for _, f in distinct], [None] * len(distinct), [len(prompt)] * len(distinct))
    found: dict[bytes, float] = {}
    for (key, full), (logits, _) in zip(distinct, rows, strict=True):
        nats, count = nll(logits, full, len(prompt))
        found[key] = math.exp(min(nats / count, 700.0))
    callback(len(generated))
    return [found[g.tokens.tobytes()] for g in generated]


def _record(
    push: _Push, prompt: int, moved: _Moved, generated: Generation | None, perplexity: float, drawn: Sequence[Generation],
    score: Callable[[Any, str], float] | None, given: Any,
) -> Effect:  # fmt: skip
    source, site, target, rank = push.label
    repeats = None if generated is None else repetition(generated, NGRAM)
    text = "" if generated is None else generated.text or ""
    samples = tuple(g.text or "" for g in drawn)
    return Effect(
        source=source, site=site, target=target, rank=rank, sign=push.sign, scale=push.scale, norm=push.norm,
        prompt=prompt, kl_end=moved.kl_end, kl_continuation=moved.kl_continuation, linearity=moved.linearity,
        logit_change=moved.logit_change, text=text,
        repetition=math.nan if repeats is None else repeats.value,
        compression=math.nan if repeats is None else repeats.compression,
        perplexity=perplexity,
        score=None if score is None or generated is None else finite_score(score(given, text)), vector=push.index,
        samples=samples,
        sample_scores=() if score is None else tuple(finite_score(score(given, s)) for s in samples),
    )  # fmt: skip


# ---- plain data

_FLOATS = [f.name for f in fields(Effect) if f.type == "float"]


def _matching(records: Sequence[Effect], conditions: dict[str, Any]) -> tuple[Effect, ...]:
    def agrees(value: Any, wanted: Any) -> bool:
        if callable(wanted):
            return bool(wanted(value))
        return value in wanted if isinstance(wanted, (list, tuple, set, frozenset, range)) else value == wanted

    return tuple(e for e in records if all(agrees(getattr(e, name), wanted) for name, wanted in conditions.items()))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}


def _effect(data: Any) -> Effect:
    filled = {k: math.nan if v is None and k in _FLOATS else v for k, v in data.items()} if isinstance(data, dict) else data
    return record(Effect, filled)
