"""Effects of steering vectors on prompts: every vector, both signs, several scales, next to random vectors of equal norms.

Every steered prompt takes three passes, each in batches: a forward pass along the base continuation (KL, logits, the
target's response), a continuation, and a forward pass of the unsteered model over that continuation (perplexity).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np

from .._util.checks import as_list, check_count, check_positive
from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.prompts import Ids, Prompts
from ..inputs.sites import Site
from ..methods.activations import unit
from ..model.generation import Generation, check_sampling
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Callback, forward_rows, generate_rows, joined
from .degeneration import repetition
from .distributions import Array, kl_divergence, log_softmax, nll
from .effect_table import Effect, Effects
from .scores import check_text_score, finite_score, token_id
from .target_response import jvps, nonlinearity, target_sites

__all__ = [
    "Effect", "Effects", "checked_pushes", "checked_samples", "effect_rows", "effects", "random_direction", "random_vector",
    "with_norms",
]  # fmt: skip

Push = tuple[SteeringVector, dict[str, Any]]  # a vector at one sign and scale, and the fields of an Effect that say so
_BASE = {"source": -1, "site": "", "target": "base", "rank": 0, "sign": 1, "scale": 0.0, "norm": 0.0, "vector": -1}
_NO_TEXT = {"kl_continuation": nan, "text": "", "repetition": nan, "compression": nan, "perplexity": nan, "score": None}


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
    max_new_tokens = check_count(max_new_tokens, "effects: max_new_tokens", least=0)
    n_random, seed = check_count(n_random, "effects: n_random", least=0), check_count(seed, "effects: seed", least=0)
    temperature, samples = checked_samples(temperature, samples, max_new_tokens)
    if score is not None:
        check_text_score(model, score)
        if not max_new_tokens:
            raise InvalidInput("effects: a score reads continuations, and max_new_tokens is 0; give it 1 or more")
    followed = {str(t): token_id(model, t) for t in as_list(tokens)}
    given = with_norms(model, ids, given)
    sites = {(v.location, v.site_norm): v for v in given}.values()
    random = [random_vector(model, like, seed, draw) for like in sites for draw in range(n_random)]
    pushes = _pushes(given, signs, scales, range(len(given))) + _pushes(random, signs, scales, [-1] * len(random))
    steer = [None, *(vector for vector, _ in pushes)]
    seeds = [(seed + i) % 2**64 for i in range(samples)]
    total = effect_rows(len(ids), len(given), len(signs), len(scales), len(random), max_new_tokens, samples)
    records: list[list[Effect]] = []
    with progress_bar(progress, total, "effects") as callback:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "callback": callback}
        base = generate_rows(model, ids, [None] * len(ids), **how) if max_new_tokens else None
        for j, t in enumerate(ids):
            along = t if base is None else joined(t, base[j].tokens[:-1])
            moved = _forward(model, t, along, pushes, followed, callback)
            texts: list[dict[str, Any]] = [_NO_TEXT] * len(steer)
            if base is not None:
                greedy = [base[j], *generate_rows(model, [t] * len(pushes), steer[1:], **how)]
                each = [s for s in steer for _ in seeds]  # `samples` of each, the base first
                seeds_of = seeds * len(steer)
                drawn = generate_rows(model, [t] * len(each), each, temperature=temperature, seeds=seeds_of, **how)
                groups = [[g, *drawn[i * samples : (i + 1) * samples]] for i, g in enumerate(greedy)]
                texts = _texts(model, t, groups, score, encoded[j].given, callback)
            labels = [_BASE, *(fields for _, fields in pushes)]
            records.append([
                Effect(prompt=j, **{**label, **m, **text}) for label, m, text in zip(labels, moved, texts, strict=True)
            ])  # fmt: skip
    count = 1 + len(given) * len(signs) * len(scales)
    return Effects(
        effects=tuple(e for of_prompt in records for e in of_prompt[1:count]),
        random=tuple(e for of_prompt in records for e in of_prompt[count:]),
        base=tuple(of_prompt[0] for of_prompt in records),
        prompts=tuple(p.text for p in encoded),
        settings={
            "model": model.name, "weights": model.identity["weights"], "steering": list(model.steering),
            "scales": scales, "signs": signs, "max_new_tokens": max_new_tokens, "tokens": followed, "random": n_random,
            "seed": seed, "temperature": temperature, "samples": samples, "titles": [p.title for p in encoded],
        },
    )  # fmt: skip


def effect_rows(prompts: int, vectors: int, signs: int, scales: int, draws: int, max_new_tokens: int, samples: int) -> int:
    """Total of the progress of `effects`, draws being of all sites. For every steered and unsteered prompt: a forward pass,
    a continuation, a pass over it, and the samples."""
    return prompts * ((vectors + draws) * signs * scales + 1) * (3 + samples if max_new_tokens else 1)


def checked_samples(temperature: float, samples: int, max_new_tokens: int) -> tuple[float, int]:
    """(temperature, samples). Raises InvalidInput for samples at temperature 0, and for a temperature without samples."""
    samples, warm = check_count(samples, "effects: samples", least=0), check_sampling(temperature, 0, 1.0)[0] > 0
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
        site: float(np.concatenate([np.linalg.norm(a[site].astype(np.float64), axis=1) for a in acts]).mean())
        for site in sites
    }
    return [v if v.site_norm else replace(v, site_norm=norms[v.location]) for v in vectors]


def random_direction(model: Model, site: Site, *key: int) -> Array:
    """A unit vector (d,), uniform on the sphere, that depends on the site and the key."""
    rng = np.random.default_rng([*key, site.layer, site.index])
    return np.asarray(unit(rng.standard_normal(model.d_model)), model.dtype)


def random_vector(model: Model, like: SteeringVector, seed: int, *key: int) -> SteeringVector:
    """A random unit vector at the site of another and with its norm; its rank is the last number of the key."""
    row = random_direction(model, like.location, seed, *key)
    return SteeringVector(row, like.layer, like.site, site_norm=like.site_norm, method="random", rank=key[-1], seed=seed)


def _pushes(
    vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float], indices: Sequence[int]
) -> list[Push]:
    out = []
    for (v, index), sign, scale in itertools.product(zip(vectors, indices, strict=True), signs, scales):
        pushed = v.relative(sign * scale)
        out.append((pushed, {
            "source": v.layer, "site": v.site, "target": v.method if v.target_layer is None else v.target_layer,
            "rank": v.rank or 0, "sign": sign, "scale": scale, "norm": abs(pushed.scale), "vector": index,
        }))  # fmt: skip
    return out


def _forward(
    model: Model, prompt: Ids, along: Ids, pushes: Sequence[Push], followed: dict[str, int], callback: Callback
) -> list[dict[str, Any]]:
    """Metrics of the base and of each push. along: the prompt and the base continuation, without its last token."""
    end = len(prompt) - 1
    steer = [vector for vector, _ in pushes]
    before, base = next(forward_rows(model, [along], [None], [end + 1], target_sites(steer)))
    callback(1)
    logp = log_softmax(before[end:])
    out = {-1: {"kl_end": 0.0, "kl_continuation": 0.0, "linearity": nan, "logit_change": dict.fromkeys(followed, 0.0)}}
    for site in dict.fromkeys(vector.location for vector in steer):  # the JVPs of one site are in memory at a time
        group = [(i, *push) for i, push in enumerate(pushes) if push[0].location == site]
        some = [vector for _, vector, _ in group]
        jvp_of = jvps(model, prompt, {label["vector"]: vector for _, vector, label in group})
        lengths = [end + 1] * len(some)
        rows = forward_rows(model, [along] * len(some), some, lengths, target_sites(some), callback=callback)
        for (i, vector, label), (after, acts) in zip(group, rows, strict=True):
            kl = kl_divergence(logp, log_softmax(after[end:]))
            jvp = jvp_of.get(label["vector"])
            response = nan if jvp is None else nonlinearity(vector, end + 1, jvp, (before[end], base), (after[end], acts))
            shift = after[end].astype(np.float64) - before[end]
            shift -= shift.mean()
            out[i] = {
                "kl_end": float(kl[0]), "kl_continuation": float(kl.mean()), "linearity": response,
                "logit_change": {name: float(shift[token]) for name, token in followed.items()},
            }  # fmt: skip
    return [out[i] for i in range(-1, len(pushes))]


def _texts(
    model: Model, prompt: Ids, groups: Sequence[Sequence[Generation]], score: Callable[[Any, str], float] | None, given: Any,
    callback: Callback,
) -> list[dict[str, Any]]:  # fmt: skip
    """Fields of an Effect from the continuations of each push, the greedy one first. The base reads equal ones once."""
    full = {g.tokens.tobytes(): joined(prompt, g.tokens) for g, *_ in groups}
    rows = forward_rows(model, list(full.values()), [None] * len(full), [len(prompt)] * len(full))
    perplexity: dict[bytes, float] = {}
    for (key, tokens), (logits, _) in zip(full.items(), rows, strict=True):
        nats, count = nll(logits, tokens, len(prompt))
        perplexity[key] = math.exp(min(nats / count, 700.0))
    callback(len(groups))
    out = []
    for generated in groups:
        repeats = repetition(generated[0])
        text, *samples = (g.text or "" for g in generated)
        scores = [None] if score is None else [finite_score(score(given, t)) for t in (text, *samples)]
        out.append({
            "text": text, "repetition": repeats.value, "compression": repeats.compression,
            "perplexity": perplexity[generated[0].tokens.tobytes()], "score": scores[0], "samples": tuple(samples),
            "sample_scores": tuple(scores[1:]),
        })  # fmt: skip
    return out
