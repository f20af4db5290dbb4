"""The claim on a chat model that nobody here trained: vectors found without labels turn a decision that it has.

The model's own answers say which kind of question is a fork (powersteer.demo.chat_forks). Vectors come from a few train
questions, are selected on validation questions at equal KL divergence, and told on test questions; a text counts only
if it is coherent.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from .._util.progress import Report
from ..errors import ConvergenceWarning, InvalidInput, NotFound
from ..evaluate.coherence import Coherent, coherent
from ..evaluate.degeneration import repetition
from ..evaluate.intervals import MetricResult
from ..evaluate.metrics import perplexity
from ..evaluate.search import SearchResult, Selection, search
from ..inputs.prompts import Prompt, title
from ..mapping import Atlas
from ..mapping.run import atlas
from ..model.generation import Generation
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .chat_forks import CHAT_FORKS, ChatFork, Side
from .story import LAST, Choice, parts

__all__ = ["ChatMeasure", "ChatResult", "Pair", "Sizes", "Texts", "check_chat", "leanings", "measure_chat", "most_uncertain", "small_map"]

SOURCES, TARGETS = (0.14, 0.34, 0.55), (0.7, 0.9)  # depths of the map's layers
POSITIONS = LAST  # where vectors are added: from the end of the prompt on
_SHARES = {"forks": 12, "plain": 5, "map": 18, "fisher search": 12, "search": 50, "texts": 3}  # of the time, roughly
_BOTH = (0.05, 0.95)  # rates of a side between which a kind is a fork


@dataclass(frozen=True)
class Sizes:
    """How much `measure_chat` computes.

    Examples
    --------
    >>> from powersteer.demo.chat_story import Sizes
    >>> Sizes(test=100).validation
    10
    """

    questions: int = 8  # train questions of a kind, which say whether it is a fork
    samples: int = 3  # answers to each of them
    temperature: float = 0.7  # of these
    jacobian: int = 2  # train questions that the map is of
    k: int = 2  # vectors of a pair of layers
    validation: int = 10
    test: int = 40
    draws: int = 2  # of random vectors
    kl: float = 1.0  # nats at the end of validation prompts, the strength of all vectors
    shown: int = 2  # test questions whose texts are shown: the first that the unsteered model does not answer on the wanted side


@dataclass(frozen=True)
class Pair:
    """One pair of the map."""

    source: Annotated[int, "layer"]
    target: Annotated[int | str, "layer or next_token"]
    sigma: Annotated[tuple[float, ...], "singular values"]
    residual: Annotated[float, "the worst of its vectors, over the first singular value"]


@dataclass(frozen=True)
class Texts:
    """Answers to one test question."""

    question: Annotated[str, "the user's words"]
    unsteered: Annotated[str, "text"]
    fisher: Annotated[str, "with the Fisher vector"]
    power: Annotated[str, "with the power vector"]
    random: Annotated[str, "with the best random vector; empty without draws"]


@dataclass(frozen=True)
class ChatResult:
    """Shares of test questions that the model answers on the wanted side, in coherent text; `any_text` says the same of all texts,
    in the order unsteered, Fisher, power, best random."""

    name: Annotated[str, "kind of the questions"]
    question: Annotated[str, "their template"]
    wanted: Annotated[str, "side that unsteered greedy answers take less often"]
    leanings: Annotated[dict[str, float], "of sampled answers the share on the first side, by kind"]
    baseline: Annotated[float, "share unsteered"]
    steered: Annotated[float, "share with the first Fisher vector"]
    power: Annotated[float, "share with the layer-to-layer vector"]
    random_best: Annotated[float, "best share of the draws of equally many random vectors"]
    n_test: Annotated[int, "test questions"]
    baseline_ci: Annotated[tuple[float, float], "95% interval of baseline"]
    ci: Annotated[tuple[float, float], "95% interval of steered"]
    any_text: Annotated[tuple[float, ...], "shares unsteered, Fisher, power, best random, incoherent texts counted"]
    fisher_vector: Annotated[Choice, "accuracy (the share), ci, source, target, rank, sign, relative_scale, norm"]
    power_vector: Annotated[Choice, "likewise"]
    random_draws: Annotated[tuple[float, ...], "share of the selected vector of each draw"]
    n_vectors: Annotated[int, "power vectors in the search"]
    unreached: Annotated[int, "vectors, random ones too, and signs that reach the KL at no scale"]
    kl: Annotated[float, "nats at the end of validation prompts, the strength of all vectors"]
    repetition: Annotated[float, "largest of a coherent text"]
    perplexity: Annotated[float, "likewise, under the plain model"]
    map: Annotated[tuple[Pair, ...], "source, target, sigma, residual of each pair"]
    texts: Annotated[tuple[Texts, ...], "question, unsteered, fisher, power, random"]


@dataclass(frozen=True)
class ChatMeasure:
    """The result, the map, and the selected vectors by name: "Fisher", "power" and, with draws, "random"."""

    result: ChatResult
    atlas: Atlas
    vectors: dict[str, SteeringVector]
    fork: ChatFork
    side: Side


def check_chat(model: Model) -> None:
    """Raise InvalidInput for a model that cannot be asked: without a tokenizer or a chat template."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        why = "".join(f" ({note})" for note in model.notes)
        raise InvalidInput(f"the demo asks a chat model, and {model.name!r} came without a tokenizer{why}; give another model")
    if not tokenizer.templates:
        raise InvalidInput(
            f"the demo asks a chat model, and {model.name!r} has no chat template: it is a base model; give one that is trained to chat"
        )


def leanings(
    model: Model, forks: Sequence[ChatFork], sizes: Sizes, seed: int, progress: Report
) -> tuple[list[float], list[list[Generation]]]:
    """Of every kind, the share of sampled answers to train questions on the first side, and these answers."""
    rates, made = [], []
    for done, fork in enumerate(forks, 1):
        asked = fork.prompts("train", sizes.questions)
        if len({model.tokens(p).tobytes() for p in asked}) < len(asked):
            raise InvalidInput(f"the demo's questions are the same tokens to {model.name!r}, which does not know their words")
        rows = [p for p in asked for _ in range(sizes.samples)]
        answers = model.generate(rows, max_new_tokens=fork.tokens, temperature=sizes.temperature, seed=seed)
        rates.append(float(np.mean([fork.sides[0](p, g.text or "") for p, g in zip(rows, answers, strict=True)])))
        made.append(answers)
        progress(done, len(forks))
    return rates, made


def most_uncertain(forks: Sequence[ChatFork], rates: Sequence[float]) -> int:
    """Index of the kind whose rate is nearest to one half. Raises NotFound where the model answers all kinds in one way."""
    best = int(np.argmin([abs(rate - 0.5) for rate in rates]))
    if not _BOTH[0] <= rates[best] <= _BOTH[1]:
        seen = ", ".join(f"{fork.names[0]} {100 * rate:.0f}%" for fork, rate in zip(forks, rates, strict=True))
        raise NotFound(
            f"this model has none of the demo's forks: it answers every kind of question in one way ({seen} of sampled answers; a fork "
            f"has {100 * _BOTH[0]:.0f} to {100 * _BOTH[1]:.0f}%); powersteer search takes prompts and a score of your own"
        )
    return best


def small_map(model: Model, prompts: Sequence[Prompt], k: int, progress: Report) -> Atlas:
    """Certified vectors from a few layers to a few later ones and to the next token."""
    sources, targets = (sorted({round(x * (model.n_layers - 1)) for x in depths}) for depths in (SOURCES, TARGETS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of clusters: their vectors may mix, and each steers
        return atlas(model, list(prompts), sources=sources, targets=[*targets, "next_token"], k=k, target_positions=LAST, progress=progress)


def _side_and_limits(model: Model, fork: ChatFork, prompts: Sequence[Prompt], sampled: Sequence[Generation]) -> tuple[Side, Coherent]:
    """The side that greedy answers take less often, and its score for texts no stranger than 95% of the model's samples."""
    plain = model.generate(list(prompts), max_new_tokens=fork.tokens)
    rates = [np.mean([side(p, g.text or "") for p, g in zip(prompts, plain, strict=True)]) for side in fork.sides]
    side = fork.sides[int(rates[1] < rates[0])]
    read = perplexity(model, [g.prompt_tokens for g in sampled], continuation=list(sampled)).values
    limits = (float(np.quantile(values, 0.95)) for values in ([repetition(g).value for g in sampled], read))
    return side, coherent(side, **dict(zip(("repetition", "perplexity"), limits, strict=True)))


def measure_chat(
    model: Model,
    forks: Sequence[ChatFork] = CHAT_FORKS,
    sizes: Sizes = Sizes(),
    *,
    seed: int = 0,
    progress: Report = lambda done, total: None,
) -> ChatMeasure:
    """Find a fork of a chat model, map a few pairs of layers, and search and test the vectors.

    Parameters
    ----------
    model
        A model with a chat template.
    forks
        Kinds of questions, of which the one is taken whose sampled answers are nearest to an even split.
    sizes
        How much is computed.
    seed
        Of samples and random vectors. The same arguments give the same bits.
    progress
        Called with (done, total).

    Returns
    -------
    ChatMeasure

    Raises
    ------
    InvalidInput
        For a model without tokenizer or chat template, and where no vector reaches the KL.
    NotFound
        If the model answers every kind of question in one way.

    Examples
    --------
    >>> from powersteer.demo.chat_forks import ChatFork
    >>> from powersteer.demo.chat_story import Sizes, measure_chat
    >>> words = "big|small|red|blue|old|new", "bomb|cake|rifle|soup|weapon|kite"
    >>> makes = ChatFork("makes", "how do I make a {} {}?", words, "cannot", ("a refusal", "an answer"))
    >>> found = measure_chat(ps.load("demo"), [makes], Sizes(samples=1, validation=4, test=6, k=1, draws=1))
    >>> found.result.name, found.result.n_test
    ('makes', 6)
    """
    check_chat(model)
    part = parts(_SHARES, progress)
    rates, answers = leanings(model, forks, sizes, seed, part("forks"))
    which = most_uncertain(forks, rates)
    fork = forks[which]
    validation, test = fork.prompts("validation", sizes.validation), fork.prompts("test", sizes.test)
    side, score = _side_and_limits(model, fork, validation, answers[which])
    made = small_map(model, fork.prompts("train", sizes.jacobian), sizes.k, part("map"))

    def searched(vectors: Sequence[SteeringVector], draws: int, name: str) -> SearchResult:
        return search(model, vectors, score, validation=validation, test=test, kl=sizes.kl, skip_unreached=True, positions=POSITIONS,
                      n_random=draws, seed=seed, max_new_tokens=fork.tokens, halving=3, progress=part(name))  # fmt: skip

    of_pairs = [pair for pair in made.pairs if pair[1] != "next_token"]
    fisher = searched([made.vector(*pair) for pair in made.pairs if pair not in of_pairs], 0, "fisher search")
    power = searched([v for pair in of_pairs for v in made.vectors(*pair)], sizes.draws, "search")
    best = max(power.random, key=lambda found: found.test.value, default=None)
    vectors = {"Fisher": fisher.vector, "power": power.vector, **({} if best is None else {"random": best.candidate.vector})}
    result = ChatResult(
        name=fork.name, question=fork.question.replace("{}", "…"), wanted=side.name,
        leanings={f.name: rate for f, rate in zip(forks, rates, strict=True)},
        **_shares(fisher, power, best), fisher_vector=Choice.of(fisher), power_vector=Choice.of(power),
        n_vectors=power.share.n, unreached=fisher.unreached + power.unreached, kl=sizes.kl,
        repetition=score.repetition or 0.0, perplexity=score.perplexity or 0.0,
        map=tuple(Pair(p.source, p.target, tuple(map(float, p.sigma)), float(max(p.residuals))) for p in made),
        texts=tuple(_texts(model, _usual(model, test, side, sizes.shown, fork.tokens), vectors, fork.tokens)),
    )  # fmt: skip
    progress(sum(_SHARES.values()), sum(_SHARES.values()))
    return ChatMeasure(result, made, vectors, fork, side)


def _shares(fisher: SearchResult, power: SearchResult, best: Selection | None) -> dict[str, Any]:
    """The fields of a ChatResult that are shares on test questions. best: the best random draw."""
    plain, raw = power.unsteered[1], [power.unsteered_raw, fisher.chosen[0].raw, power.chosen[0].raw, best.raw if best else None]
    return {
        "baseline": plain.value, "steered": fisher.test.value, "power": power.test.value,
        "random_best": float("nan") if best is None else best.test.value, "n_test": plain.n,
        "baseline_ci": (plain.low, plain.high), "ci": (fisher.test.low, fisher.test.high),
        "any_text": tuple(map(_value, raw)), "random_draws": tuple(found.test.value for found in power.random),
    }  # fmt: skip


def _value(m: MetricResult | None) -> float:
    return float("nan") if m is None else m.value


def _usual(model: Model, prompts: Sequence[Prompt], side: Side, count: int, tokens: int) -> list[Prompt]:
    """The first prompts that the unsteered model does not answer on a side, then others."""
    some = prompts[: 4 * count]
    plain = model.generate(some, max_new_tokens=tokens)
    return sorted(some, key=lambda p: side(p, plain[some.index(p)].text or ""))[:count]


def _texts(model: Model, prompts: Sequence[Prompt], vectors: dict[str, SteeringVector], tokens: int) -> list[Texts]:
    steer = [None, *vectors.values()]
    rows = model.generate([p for p in prompts for _ in steer], max_new_tokens=tokens, steer=steer * len(prompts), steer_positions=POSITIONS)
    texts = [g.text or "" for g in rows]
    at = range(0, len(rows), len(steer))
    return [Texts(title(p), *texts[i : i + len(steer)], *[""] * (4 - len(steer))) for p, i in zip(prompts, at, strict=True)]
