"""Effects of steering vectors on prompts: every vector, both signs, several scales, next to random vectors of equal norms.

Every steered prompt takes three passes, each in batches: a forward pass along the base continuation (KL, logits, the
target's response); its own continuation, which goes on from that pass where it differs from the base's; and a forward pass of
the unsteered model over that continuation (perplexity).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np

from .._util.checks import as_list, check_count, check_positive
from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from .._util.workers import ExecutorLike, Workers
from ..errors import InvalidInput
from ..inputs.positions import Positions, describe
from ..inputs.prompts import Ids, Prompt, Prompts, split
from ..methods.activations import unit
from ..model.generation import Generation, check_sampling
from ..model.model import Model
from ..model.remote import RemoteModel
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import SteeringVector
from .batched import Callback, Steer, followed_rows, forward_rows, generate_rows, joined
from .calibration import attempts
from .degeneration import repetition
from .distributions import Array, Reference, nll
from .effect_table import Effect, Effects
from .scores import Score, check_text_score, text_values, token_id
from .target_response import jvps, nonlinearity, target_sites

__all__ = [
    "Baseline", "Effect", "Effects", "checked_pushes", "checked_samples", "effects", "pushed_vectors",
    "random_vector", "with_norms",
]  # fmt: skip

Push = tuple[SteeringVector, dict[str, Any]]  # a vector at one sign and scale, and the fields of an Effect that say so
# By index of the vector, ~j for random vector j; sign; and scale or budget
Pushed = dict[tuple[int, int, float], SteeringVector]
Fields = list[list[dict[str, Any]]]  # fields of an Effect by prompt, of the base and each push
_VECTORS = 16  # of a call of an executor
_BASE = {"source": -1, "site": "", "target": "base", "rank": 0, "sign": 1, "scale": 0.0, "norm": 0.0, "vector": -1}
_NO_TEXT = {"kl_continuation": nan, "text": "", "repetition": nan, "compression": nan, "perplexity": nan, "score": None}


@deprecated_arguments(3, random="n_random")
def effects(
    model: Model,
    prompts: Prompts,
    vectors: SteeringVector | Sequence[SteeringVector],
    *,
    scales: Sequence[float] | None = None,
    kl: float | Sequence[float] | None = None,
    skip_unreached: bool = False,
    signs: Sequence[int] = (1, -1),
    positions: Positions = None,
    max_new_tokens: int = 32,
    tokens: str | int | Iterable[str | int] = (),
    score: Score | None = None,
    stop: Any = None,
    n_random: int = 8,
    seed: int = 0,
    temperature: float = 0.0,
    samples: int = 0,
    executor: ExecutorLike | None = None,
    worker_threads: int = 1,
    progress: bool | Report = False,
) -> Effects:
    """Effects of every vector on every prompt, at every sign and scale.

    Parameters
    ----------
    model
        The base: the model, or a steered view of it.
    prompts
        One prompt or several.
    vectors
        One vector or several.
    scales
        Fractions of the site's mean activation norm: that of the vector, or else that on these prompts. None: 0.35 and 1.
    kl
        Budgets, in nats, instead of scales: every vector, random ones too, is added with each sign at the scale at which its
        mean KL divergence at the prompts' ends reaches the budget (`evaluate.calibrate`), so that vectors are compared at
        equal side effect. Random vectors that reach it at no scale are left out, and `settings["unreached"]` counts them.
    skip_unreached
        True: vectors that reach a budget at no scale are left out and counted as random ones are.
    signs
        1, -1 or both.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere.
    max_new_tokens
        Of the greedy continuations, which are those of `Model.generate` unless two logits differ by rounding only; 0: none,
        and only the metrics of a forward pass.
    tokens
        Texts of one token, or ids, whose logits are followed.
    score
        A function of (prompt, continuation) that returns a number, or `evaluate.coherent` of one.
    stop
        As for `Model.generate`.
    n_random
        Number of random unit vectors at each site, added with the same signs and norms, so that the better of two signs
        compares with the better of two; with `kl` at their own norms. They depend on seed, site and draw only.
    seed
        Seed of the random vectors and of the samples. The same arguments give the same bits.
    temperature, samples
        Number of continuations drawn at a temperature, besides the greedy one, of every vector, random vector and base.
        Sample i is that of `Model.generate` with `seed + i`: steered and base texts use the same random numbers.
    executor, worker_threads
        As for `powersteer.atlas`: workers get a prompt and some vectors at a time. The numbers are the same bits.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    Effects

    Raises
    ------
    InvalidInput
        For vectors that do not fit the model, numbers out of range, both scales and kl, and a budget that a vector does not
        reach.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Q: 12*3\\nA:"
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> effects = ps.effects(model, prompt, vec, scales=1.0, max_new_tokens=4, n_random=1)
    >>> [effect.sign for effect in effects], effects.base[0].text
    ([1, -1], ' It is 3')
    """
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "tokens": tokens, "score": score, "stop": stop, "seed": seed,
        "temperature": temperature, "samples": samples, "positions": positions,
    }  # fmt: skip
    baseline = Baseline(model, prompts, **how)
    given, signs, strengths = checked_pushes(vectors, signs, scales, kl)
    call: dict[str, Any] = {
        "vectors": with_norms(model, baseline.ids, given), "scales" if kl is None else "kl": strengths, "signs": signs,
        "n_random": check_count(n_random, "effects: n_random", least=0), "skip_unreached": skip_unreached,
    }  # fmt: skip
    if executor is None:
        return baseline.effects(**call, progress=progress)
    if kl is not None:  # a mean over all prompts, of which a worker has one
        call["pushed"] = baseline.pushed(**call)
    remote, workers = RemoteModel.of(model, worker_threads), Workers(executor)
    with progress_bar(progress, baseline.rows(call), "effects") as callback:
        ((_, made),) = effects_by(workers, remote, split(prompts)[0], how, [call])
        callback(baseline.rows(call))
    return made


class Baseline:
    """Prompts, how their continuations are made and read, and what the unsteered model makes of them: that is computed at
    the first call of `effects` and serves all of them. Arguments as of `powersteer.effects`."""

    def __init__(
        self, model: Model, prompts: Prompts, *, max_new_tokens: int, tokens: str | int | Iterable[str | int], stop: Any,
        score: Score | None, seed: int, temperature: float, samples: int, positions: Positions = None,
    ) -> None:  # fmt: skip
        self._model, self._score, self._stop, self._positions = model, score, stop, positions
        self._encoded, self.ids, _ = model._read(prompts)
        self._new = check_count(max_new_tokens, "effects: max_new_tokens", least=0)
        self._seed = check_count(seed, "effects: seed", least=0)
        self._temperature, self._samples = checked_samples(temperature, samples, self._new)
        if score is not None:
            check_text_score(model, score)
            if not self._new:
                raise InvalidInput("effects: a score reads continuations, and max_new_tokens is 0; give it 1 or more")
        self._followed = {str(t): token_id(model, t) for t in as_list(tokens)}
        self._base: list[list[Generation]] = []  # of each prompt the greedy continuation and the samples
        self._base_texts: list[dict[str, Any]] = []
        self._perplexity: dict[tuple[int, bytes], float] = {}  # of a continuation of a prompt under the unsteered model

    def rows(self, call: Mapping[str, Any]) -> int:
        """Total of the progress of `effects` with these arguments."""
        draws = len({(v.location, v.site_norm) for v in call["vectors"]}) * call["n_random"]
        return self._rows((len(call["vectors"]) + draws) * len(call["signs"]) * len(call.get("kl") or call["scales"]))

    def _rows(self, pushes: int) -> int:
        """Of every steered and unsteered prompt: a forward pass, a continuation, a pass over it, and the samples."""
        return len(self.ids) * (pushes + 1) * (3 + self._samples if self._new else 1)

    def pushed(
        self, vectors: Sequence[SteeringVector], *, signs: Sequence[int], n_random: int, scales: Sequence[float] = (),
        kl: Sequence[float] | None = None, skip_unreached: bool = False,
    ) -> Pushed:  # fmt: skip
        """The vectors, and the random ones, as `effects` adds them."""
        sites = {(v.location, v.site_norm): v for v in vectors}.values()
        random = [random_vector(like, self._seed, draw) for like in sites for draw in range(n_random)]
        return pushed_vectors(self._model, self.ids, vectors, random, signs, scales, kl, self._positions, skip_unreached)

    def effects(
        self, vectors: Sequence[SteeringVector], *, signs: Sequence[int], n_random: int, progress: bool | Report,
        scales: Sequence[float] = (), kl: Sequence[float] | None = None, pushed: Pushed | None = None, skip_unreached: bool = False,
    ) -> Effects:  # fmt: skip
        """The effects of vectors on the prompts. pushed: what `pushed` returns, if it is known."""
        given = with_norms(self._model, self.ids, vectors)
        if pushed is None:
            pushed = self.pushed(given, signs=signs, n_random=n_random, scales=scales, kl=kl, skip_unreached=skip_unreached)
        pushes = [_push(v, *key, kl is not None) for key, v in pushed.items()]
        prompts, sites = len(self.ids), {(v.location, v.site_norm) for v in given}
        requested = (len(given) + len(sites) * n_random) * len(signs) * len(kl or scales)
        given = [given[i] for i in dict.fromkeys(index for index, *_ in pushed) if i >= 0]
        with progress_bar(progress, self._rows(len(pushes)), "effects") as callback:
            moved, texts = self._measured(given, pushes, callback)
        labels = [_BASE, *(fields for _, fields in pushes)]
        records = [
            Effect(prompt=j, **{**label, **m, **text})
            for j in range(prompts) for label, m, text in zip(labels, moved[j], texts[j], strict=True)
        ]  # fmt: skip
        per, count = len(labels), 1 + sum(index >= 0 for index, *_ in pushed)
        return Effects(
            effects=tuple(e for i, e in enumerate(records) if 1 <= i % per < count),
            random=tuple(e for i, e in enumerate(records) if count <= i % per),
            base=tuple(records[::per]),
            prompts=tuple(p.text for p in self._encoded),
            settings={
                "model": self._model.name, "weights": self._model.identity["weights"], "steering": list(self._model.steering),
                "scales": list(scales), "kl": kl, "unreached": requested - len(pushed), "signs": signs,
                "positions": describe(self._positions), "max_new_tokens": self._new, "tokens": self._followed,
                "random": n_random, "seed": self._seed, "temperature": self._temperature, "samples": self._samples,
                "titles": [p.title for p in self._encoded],
            },
        )  # fmt: skip

    def _measured(self, vectors: Sequence[SteeringVector], pushes: Sequence[Push], callback: Callback) -> tuple[Fields, Fields]:
        """Fields of an Effect that are read off logits, and off continuations: of every prompt, of the base and each push."""
        steer, n = [vector for vector, _ in pushes], len(self.ids)
        if not self._new:
            return self._moved(vectors, pushes, [], callback), [[_NO_TEXT] * (1 + len(steer))] * n
        if known := bool(self._base):
            callback(n * (1 + self._samples))
        else:
            greedy = generate_rows(self._model, self.ids, [None] * n, self._new, self._stop)
            self._base = self._with_samples(greedy, [None], callback)
        continued: list[Generation] = []
        moved = self._moved(vectors, pushes, continued, callback)
        per = 1 + len(steer)
        groups = self._with_samples([g for i, g in enumerate(continued) if i % per], steer, callback)
        if not known:
            self._base_texts = self._texts(self._base, 1, callback)
        texts = iter(self._texts(groups, len(steer), callback))
        return moved, [[base, *itertools.islice(texts, len(steer))] for base in self._base_texts]

    def _moved(
        self, vectors: Sequence[SteeringVector], pushes: Sequence[Push], continued: list[Generation], callback: Callback
    ) -> Fields:
        """Read off one forward pass along the base continuation, from which the greedy continuations go on: those of the base
        and each push are appended to `continued`, prompt after prompt."""
        steer: list[Steer] = [None, *(vector for vector, _ in pushes)]
        greedy = [g.tokens for g, *_ in self._base] or [np.empty(0, np.int32)] * len(self.ids)
        prompts, drafts = ([x for x in each for _ in steer] for each in (self.ids, greedy))
        sites, every = target_sites([vector for vector, _ in pushes]), steer * len(self.ids)
        if self._new:
            rows = followed_rows(
                self._model, prompts, drafts, every, sites, self._new, self._stop, continued, callback,
                self._positions,
            )  # fmt: skip
        else:
            rows = forward_rows(self._model, prompts, every, sites=sites, rows="last", callback=callback, positions=self._positions)
        out = []
        for j, (t, continuation) in enumerate(zip(self.ids, greedy, strict=True)):
            before, base = next(rows)
            reference, products = Reference(before), jvps(self._model, t, vectors, self._positions)
            if len(continuation):
                self._perplexity[j, continuation.tobytes()] = _perplexity(before, continuation)
            fields = {"kl_end": 0.0, "kl_continuation": 0.0, "linearity": nan, "logit_change": dict.fromkeys(self._followed, 0.0)}
            out.append([fields])
            for index, group in itertools.groupby(pushes, lambda push: push[1]["vector"]):
                jvp = next(products) if index >= 0 else None
                for (vector, _), (after, acts) in zip(group, rows, strict=False):
                    kl, shift = reference.kl(after), after[0].astype(np.float64) - before[0]
                    shift -= shift.mean()
                    response = nan if jvp is None else nonlinearity(vector, len(t), jvp, (before[0], base), (after[0], acts))
                    out[-1].append({
                        "kl_end": float(kl[0]), "kl_continuation": float(kl.mean()), "linearity": response,
                        "logit_change": {name: float(shift[token]) for name, token in self._followed.items()},
                    })  # fmt: skip
        return out

    def _with_samples(self, greedy: Sequence[Generation], steer: Sequence[Steer], callback: Callback) -> list[list[Generation]]:
        """The greedy continuations of every prompt under each steering, each with its samples."""
        samples = self._samples
        seeds = [(self._seed + i) % 2**64 for i in range(samples)]
        drawn = generate_rows(
            self._model, [g.prompt_tokens for g in greedy for _ in seeds], [s for s in list(steer) * len(self.ids) for _ in seeds],
            self._new, self._stop, callback, self._temperature, seeds * len(greedy), self._positions,
        )  # fmt: skip
        return [[g, *drawn[i * samples : (i + 1) * samples]] for i, g in enumerate(greedy)]

    def _texts(self, groups: Sequence[Sequence[Generation]], per_prompt: int, callback: Callback) -> list[dict[str, Any]]:
        """Fields of an Effect from continuations, the greedy one first. The base reads equal ones once."""
        keys = [(i // per_prompt, g.tokens.tobytes()) for i, (g, *_) in enumerate(groups)]
        tokens = {key: g.tokens for key, (g, *_) in sorted(zip(keys, groups, strict=True), key=lambda pair: pair[0])}
        new = {key: c for key, c in tokens.items() if key not in self._perplexity}  # those with a common beginning in a row
        prompts = [self.ids[j] for j, _ in new]
        rows = forward_rows(
            self._model, [joined(t, c[:-1]) for t, c in zip(prompts, new.values(), strict=True)], [None] * len(new),
            list(map(len, prompts)), rows=list(map(len, new.values())), callback=callback,
        )  # fmt: skip
        for (key, c), (logits, _) in zip(new.items(), rows, strict=True):
            self._perplexity[key] = _perplexity(logits, c)
        callback(len(groups) - len(new))
        given = [self._encoded[j].given for (j, _), some in zip(keys, groups, strict=True) for _ in some]
        made, out = list(itertools.chain.from_iterable(groups)), []
        values = iter([] if self._score is None else text_values(self._model, self._score, given, made))
        for key, generated in zip(keys, groups, strict=True):
            repeats = repetition(generated[0])
            text, *samples = (g.text or "" for g in generated)
            scores: list[float | None] = list(itertools.islice(values, len(generated))) or [None]
            out.append({
                "text": text, "repetition": repeats.value, "compression": repeats.compression,
                "perplexity": self._perplexity[key], "score": scores[0], "samples": tuple(samples),
                "sample_scores": tuple(scores[1:]),
            })  # fmt: skip
        return out


def effects_by(
    workers: Workers, remote: RemoteModel, prompts: Sequence[Prompt], how: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, Effects]]:
    """(index, effects of calls[index]) as workers end them. how, calls: arguments of a Baseline of the prompts, and of its
    `effects`. A worker gets one prompt and some of the vectors; the first of them come with the random ones."""
    tasks, parts = [], []
    for index, call in enumerate(calls):
        for j, prompt in enumerate(prompts):
            for first in range(0, len(call["vectors"]), _VECTORS):
                tasks.append((remote, prompt, how, _part(call, first)))
                parts.append((index, j, first))
    results: dict[tuple[int, int, int], Effects] = {}
    left = Counter(index for index, *_ in parts)
    for i, made in workers.run(_of_one_prompt, tasks):
        results[parts[i]] = made
        index = parts[i][0]
        left[index] -= 1
        if not left[index]:
            yield index, _joined({key[1:]: results.pop(key) for key in sorted(results) if key[0] == index})


def _part(call: Mapping[str, Any], first: int) -> dict[str, Any]:
    """The call for some of its vectors."""
    here = range(first, first + _VECTORS)
    part = {**call, "vectors": call["vectors"][first : here.stop], "n_random": 0 if first else call["n_random"]}
    if "pushed" in call:
        part["pushed"] = {
            (i if i < 0 else i - first, sign, strength): v
            for (i, sign, strength), v in call["pushed"].items() if i in here or (i < 0 and not first)
        }  # fmt: skip
    return part


def _of_one_prompt(remote: RemoteModel, prompt: Prompt, how: Mapping[str, Any], call: Mapping[str, Any]) -> Effects:
    return Baseline(remote.load(), [prompt], **how).effects(**call, progress=False)


def _joined(parts: Mapping[tuple[int, int], Effects]) -> Effects:
    """The parts by prompt and first vector, in this order, as one table."""
    whole = [part for (_, first), part in parts.items() if not first]
    return Effects(
        effects=tuple(replace(e, prompt=j, vector=first + e.vector) for (j, first), part in parts.items() for e in part.effects),
        random=tuple(replace(e, prompt=j) for (j, _), part in parts.items() for e in part.random),
        base=tuple(replace(part.base[0], prompt=j) for j, part in enumerate(whole)),
        prompts=tuple(part.prompts[0] for part in whole),
        settings={**whole[0].settings, "titles": [part.settings["titles"][0] for part in whole]},
    )


def _perplexity(logits: Array, tokens: Ids) -> float:
    return math.exp(min(nll(logits, tokens) / len(tokens), 700.0))


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


def checked_pushes(
    vectors: Any, signs: Any, scales: Any, budgets: Any = None
) -> tuple[list[SteeringVector], list[int], list[float]]:
    """Vectors, signs, and scales or budgets as lists. Raises InvalidInput for values of another kind, for a sign, scale or
    budget that occurs twice, and for both scales and budgets."""
    vectors, signs = as_list(vectors), as_list(signs)
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("vectors must be one SteeringVector or more; svd.vectors and SteeringVector.from_array make them")
    for v in vectors:
        check_adds(v, "added with signs and scales")
    if sorted(signs, key=repr) not in ([1], [-1], [-1, 1]):
        raise InvalidInput(f"signs are {signs!r}; they must be 1, -1 or both")
    if scales is not None and budgets is not None:
        raise InvalidInput("strengths are given twice: give scales, or kl, the divergences at which the scales are found")
    name, values = ("scales", (0.35, 1.0) if scales is None else scales) if budgets is None else ("kl", budgets)
    strengths = [check_positive(value, "a scale" if name == "scales" else "kl") for value in as_list(values)]
    if not strengths or len(set(strengths)) < len(strengths):
        raise InvalidInput(f"{name} are {strengths!r}; give one or more, each once")
    return vectors, list(map(int, signs)), strengths


def pushed_vectors(
    model: Model, prompts: Sequence[Ids], vectors: Sequence[SteeringVector], random: Sequence[SteeringVector],
    signs: Sequence[int], scales: Sequence[float], kl: Sequence[float] | None, positions: Positions, skip_unreached: bool,
) -> Pushed:  # fmt: skip
    """Vectors as they are added: at scales, fractions of the site's norm, or at KL divergences on the prompts. Without those
    random vectors that do not reach a divergence. Raises InvalidInput for another vector that does not, unless it is skipped."""
    every = [*enumerate(vectors), *((~j, v) for j, v in enumerate(random))]
    signed = {(i, sign): sign * v for i, v in every for sign in signs}
    found: dict[tuple[int, int, float], SteeringVector] = {}
    for s in scales if kl is None else kl:
        at = [v.relative(s) for v in signed.values()] if kl is None else attempts(model, prompts, list(signed.values()), s, positions)
        for (i, sign), v in zip(signed, at, strict=True):
            if isinstance(v, SteeringVector):
                found[i, sign, s] = v
            elif i >= 0 and not skip_unreached:
                raise v
    order = itertools.product((i for i, _ in every), signs, scales if kl is None else kl)
    return {key: found[key] for key in order if key in found}


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


def random_vector(like: SteeringVector, seed: int, *key: int) -> SteeringVector:
    """A random unit vector, uniform on the sphere, at the site of another and with its norm. It depends on the site, the seed and
    the key, whose last number is its rank."""
    rng = np.random.default_rng([seed, *key, like.layer, like.location.index])
    row = np.asarray(unit(rng.standard_normal(len(like))), like.direction.dtype)
    return SteeringVector(row, like.layer, like.site, site_norm=like.site_norm, method="random", rank=key[-1], seed=seed)


def _push(v: SteeringVector, index: int, sign: int, strength: float, by_kl: bool) -> Push:
    """A vector as it is added, and the fields of an Effect that say so."""
    return v, {
        "source": v.layer, "site": v.site, "target": v.method if v.target_layer is None else v.target_layer, "rank": v.rank or 0,
        "sign": sign, "scale": abs(v.scale) / (v.site_norm or nan) if by_kl else strength, "norm": abs(v.scale),
        "vector": max(index, -1), "budget": strength if by_kl else None,
    }  # fmt: skip
