"""Effects of steering vectors on prompts: every vector, both signs, several scales, next to random vectors of equal norms.

Every steered prompt takes three passes, each in batches: a forward pass along the base continuation (KL, logits, the
target's response), a continuation, and a forward pass of the unsteered model over that continuation (perplexity).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_list, check_count, check_positive
from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.prompts import Ids, Prompts
from ..inputs.sites import Site
from ..methods.activations import unit
from ..model.generation import Generation, Sampling
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Callback, Steer, forward_rows, generate_rows, joined
from .degeneration import repetition
from .distributions import kl_divergence, log_softmax, nll
from .effect_table import NGRAM, Effect, Effects
from .scores import check_text_score, finite_score, token_id
from .target_response import jvps, nonlinearity, target_delta, target_sites

__all__ = ["NGRAM", "Effect", "Effects", "checked_pushes", "checked_samples", "effect_rows", "effects", "random_direction", "with_norms"]

Array = NDArray[Any]


@dataclass(frozen=True)
class _Push:
    """A vector, or none, at one sign and scale."""

    steer: Steer
    like: SteeringVector | None  # the vector whose target is read
    index: int
    label: tuple[int, str, int | str, int]  # source, site, target, rank
    sign: int
    scale: float
    norm: float


@dataclass(frozen=True)
class _Moved:
    """Results of the forward pass of a push on a prompt."""

    kl_end: float
    kl_continuation: float
    linearity: float
    logit_change: dict[str, float]


@deprecated_arguments(3, random="n_random")
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
    n_random: int = 8,
    seed: int = 0,
    temperature: float = 0.0,
    samples: int = 0,
    progress: bool | Report = False,
) -> Effects:
    """Effects of every vector on every prompt, at every sign and scale, added at every position.

    Parameters
    ----------
    model
        The base: the model, or a steered view of it.
    prompts
        One prompt or several.
    vectors
        One vector or several.
    scales
        Fractions of the site's mean activation norm: that of the vector, or else that on these prompts.
    signs
        1, -1 or both.
    max_new_tokens
        Of the greedy continuations; 0: none, and only the metrics of a forward pass.
    tokens
        Texts of one token, or ids, whose logits are followed.
    score
        A function of (prompt, continuation) that returns a number.
    stop
        As for `Model.generate`.
    n_random
        Number of random unit vectors at each site, added with the same signs and norms, so that the better of two signs
        compares with the better of two. They depend on seed, site and draw only.
    seed
        Seed of the random vectors and of the samples. The same arguments give the same bits.
    temperature, samples
        Number of continuations drawn at a temperature, besides the greedy one, of every vector, random vector and base.
        Sample i is that of `Model.generate` with `seed + i`: steered and base texts use the same random numbers.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    Effects

    Raises
    ------
    InvalidInput
        For vectors that do not fit the model, and numbers out of range.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Q: 12*3\\nA:"
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> effects = ps.effects(model, prompt, vec, scales=1.0, max_new_tokens=4, n_random=1)
    >>> [effect.sign for effect in effects], effects.base[0].text
    ([1, -1], ' It is 3')
    """
    given, signs, scales = checked_pushes(vectors, signs, scales)
    encoded, ids, _ = model._read(prompts)
    max_new_tokens, n_random, seed = (
        check_count(value, f"effects: {name}", least=0)
        for value, name in ((max_new_tokens, "max_new_tokens"), (n_random, "n_random"), (seed, "seed"))
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
    pushes += _random_pushes(model, given, signs, scales, n_random, seed)
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
            perplexities = _perplexities(model, t, generated, callback)
            records.append([
                _record(p, j, m, generated[i] if generated else None, perplexities[i] if generated else math.nan,
                        drawn[i * samples : (i + 1) * samples], score, encoded[j].given)
                for i, (p, m) in enumerate(zip([none, *pushes], moved, strict=True))
            ])  # fmt: skip
    settings = {
        "model": model.name, "weights": model.identity["weights"], "steering": list(model.steering),
        "scales": scales, "signs": signs, "max_new_tokens": max_new_tokens,
        "tokens": followed, "random": n_random, "seed": seed, "temperature": temperature, "samples": samples,
        "titles": [p.title for p in encoded],
    }  # fmt: skip
    return Effects(
        effects=tuple(e for of_prompt in records for e in of_prompt[1 : 1 + count]),
        random=tuple(e for of_prompt in records for e in of_prompt[1 + count :]),
        base=tuple(of_prompt[0] for of_prompt in records),
        prompts=tuple(p.text for p in encoded),
        settings=settings,
    )


def effect_rows(prompts: int, vectors: int, signs: int, scales: int, draws: int, max_new_tokens: int, samples: int) -> int:
    """Total of the progress of `effects`, of vectors at one site."""
    return _rows(prompts, (vectors + draws) * signs * scales, max_new_tokens, samples)


def _rows(prompts: int, pushes: int, max_new_tokens: int, samples: int) -> int:
    """For every steered and unsteered prompt: a forward pass, a continuation, a pass over it, and the samples."""
    return prompts * (pushes + 1) * (3 + samples if max_new_tokens else 1)


# ---- steered prompts


def checked_samples(temperature: float, samples: int, max_new_tokens: int) -> tuple[float, int]:
    """(temperature, samples). Raises InvalidInput for samples at temperature 0, and for a temperature without samples."""
    samples, warm = check_count(samples, "effects: samples", least=0), Sampling(temperature, 0, 1.0).temperature > 0
    if samples and not warm:
        raise InvalidInput(f"effects: samples is {samples} at temperature 0, where all are the greedy text; give a temperature")
    if warm and not samples:
        raise InvalidInput(f"effects: temperature is {temperature}, but samples is 0; give the number of samples a vector")
    if samples and not max_new_tokens:
        raise InvalidInput(f"effects: samples is {samples}, but max_new_tokens is 0; give it 1 or more")
    return float(temperature), samples


def checked_pushes(vectors: Any, signs: Any, scales: Any) -> tuple[list[SteeringVector], list[int], list[float]]:
    """The three as lists. Raises InvalidInput for values of another kind, and for a sign or scale that occurs twice."""
    vectors, signs, scales = as_list(vectors), as_list(signs), as_list(scales)
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("vectors must be one SteeringVector or more; svd.vectors and SteeringVector.from_array make them")
    if sorted(signs, key=repr) not in ([1], [-1], [-1, 1]):
        raise InvalidInput(f"signs are {signs!r}; they must be 1, -1 or both")
    scales = [check_positive(scale, "a scale") for scale in scales]
    if not scales or len(set(scales)) < len(scales):
        raise InvalidInput(f"scales are {scales!r}; give one or more, each once")
    return vectors, list(map(int, signs)), scales


def with_norms(model: Model, tokens: Sequence[Ids], vectors: Sequence[SteeringVector]) -> list[SteeringVector]:
    """The vectors; those without their site's mean activation norm get the one on these prompts."""
    sites = list(dict.fromkeys(v.location for v in vectors if not v.site_norm))
    if not sites:
        return list(vectors)
    acts = [a for _, a in forward_rows(model, tokens, [None] * len(tokens), sites=sites, rows="none")]
    norms = {
        site: float(np.concatenate([np.linalg.norm(a[i].astype(np.float64), axis=1) for a in acts]).mean())
        for i, site in enumerate(sites)
    }
    return [v if v.site_norm else replace(v, site_norm=norms[v.location]) for v in vectors]


def pushed(vector: SteeringVector, sign: int, scale: float) -> SteeringVector:
    """The vector with its own sign times `sign`, at a fraction of its site's norm."""
    return vector.relative(sign * scale)


def random_direction(model: Model, site: Site, *key: int) -> Array:
    """A unit vector (d,), uniform on the sphere, that depends on the site and the key."""
    rng = np.random.default_rng([*key, site.layer, site.index])
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
    for site, norm in dict.fromkeys((v.location, float(v.site_norm or 0)) for v in vectors):
        for draw in range(draws):
            direction = random_direction(model, site, seed, draw)
            v = SteeringVector(direction, site.layer, site.name, site_norm=norm, method="random", rank=draw, seed=seed)
            label = (site.layer, site.name, "random", draw)
            out += [
                _Push(pushed(v, sign, s), None, -1, label, int(sign), float(s), s * norm) for sign in signs for s in scales
            ]
    return out


def _label(v: SteeringVector) -> tuple[int, str, int | str, int]:
    return v.layer, v.site, v.method if v.target_layer is None else v.target_layer, v.rank or 0


# ---- metrics of a steered prompt


def _forward(
    model: Model, prompt: Ids, along: Ids, continued: bool, pushes: Sequence[_Push], followed: dict[str, int], callback: Callback
) -> list[_Moved]:
    """One record for each push, the first without steering. along: the prompt and the base continuation, without its
    last token."""
    n = len(prompt)
    sites = target_sites([p.like for p in pushes if p.like is not None])
    before, before_acts = next(forward_rows(model, [along], [None], [n], sites))
    callback(1)
    logp = log_softmax(before[n - 1 :])
    out = {0: _Moved(0.0, 0.0 if continued else math.nan, math.nan, dict.fromkeys(followed, 0.0))}
    for group in _by_site(pushes):
        some = [pushes[i] for i in group]
        jvp_of = _jvps(model, prompt, some)
        here = target_sites([p.like for p in some if p.like is not None])
        rows = forward_rows(model, [along] * len(some), [p.steer for p in some], [n] * len(some), here, callback=callback)
        for i, p, (after, acts) in zip(group, some, rows, strict=True):
            kl = kl_divergence(logp, log_softmax(after[n - 1 :]))
            remainder = math.nan
            if p.like is not None and p.index in jvp_of:
                read = before[n - 1], after[n - 1]
                if not isinstance(p.like.target, str):
                    (site,) = target_sites([p.like])
                    read = before_acts[sites.index(site)], acts[here.index(site)]
                length = p.sign * p.norm * math.copysign(1.0, p.like.scale)
                remainder = nonlinearity(target_delta(p.like, n, *read), length * jvp_of[p.index])
            shifts = _logit_changes(before[n - 1], after[n - 1], followed)
            out[i] = _Moved(float(kl[0]), float(kl.mean()) if continued else math.nan, remainder, shifts)
    return [out[i] for i in range(len(pushes))]


def _by_site(pushes: Sequence[_Push]) -> list[list[int]]:
    """Indices of all but the first, by site: the JVPs of one site are in memory at a time."""
    groups: dict[Any, list[int]] = {}
    for i, p in enumerate(pushes[1:], 1):
        groups.setdefault(p.label[:2], []).append(i)
    return list(groups.values())


def _jvps(model: Model, prompt: Ids, pushes: Sequence[_Push]) -> dict[int, Array]:
    """J @ direction by index of the vector, for vectors with a target."""
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
    """Of every continuation under the unsteered model; equal continuations are read once."""
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
