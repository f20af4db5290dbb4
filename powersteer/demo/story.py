"""The claim on the built-in model: directions found without labels flip its decisions. Every run computes all Jacobians,
vectors, searches and answers.

For each fork (powersteer.demo.forks), the vectors are computed from plain questions of the validation split, their layer,
sign and scale are selected on that split, and accuracies are on test questions, which are in neither the search nor the
training data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from .._util.progress import Report
from ..errors import ConvergenceWarning
from ..evaluate.metrics import accuracy
from ..evaluate.scores import LogitScore, score_table
from ..evaluate.search import Candidate, SearchResult, random_like, search
from ..inputs.prompts import Ids, Prompt
from ..loading.hub import BUILT_IN
from ..mapping.run import atlas
from ..model import Model, load
from ..vectors.steering_vector import SteeringVector
from .forks import Question, questions

__all__ = ["Choice", "FirstWord", "ForkResult", "Solved", "fisher_vectors", "load_demo", "measure", "pair_vectors", "parts"]

SCALES = (0.35, 0.7, 1.0, 1.4)
ANSWER = 48  # tokens: the longest answer, and some
VALIDATION, TEST = 16, 200  # questions a fork
JACOBIAN = 8  # validation questions whose Jacobians are stacked
_SHARES = {"fisher map": 1, "fisher search": 20, "map": 10, "search": 60, "same norm": 9}  # of the time, roughly
LAST = slice(-1, None)  # target positions: where the answer begins


def load_demo(threads: int | None = None) -> Model:
    """The built-in model, whatever the current folder has; `ps.load("demo")` prefers a checkpoint in a folder demo/.

    Examples
    --------
    >>> from powersteer.demo.story import load_demo
    >>> load_demo().n_layers
    5
    """
    return load(BUILT_IN["demo"], threads=threads)


@dataclass(frozen=True)
class Solved:
    """A score: whether a continuation is the alternative answer to its question, in every character.

    Examples
    --------
    >>> from powersteer.demo.forks import questions
    >>> from powersteer.demo.story import Solved
    >>> (question,) = questions("recipes", "test", 1)
    >>> solved = Solved.of([question])
    >>> solved(question.prompt, question.default), solved(question.prompt, question.alternative)
    (False, True)
    """

    by_prompt: dict[Prompt, Question]

    @classmethod
    def of(cls, asked: Sequence[Question]) -> Solved:
        return cls({q.prompt: q for q in asked})

    def __call__(self, prompt: Any, text: str) -> bool:
        return self.by_prompt[prompt].solved(text)


@dataclass(frozen=True)
class FirstWord(LogitScore):
    """A score: whether the most probable next token begins the alternative answer. It is cheap, and ignores the rest."""

    begins: dict[Prompt, int]  # token id
    unit = "share"

    @classmethod
    def of(cls, model: Model, asked: Sequence[Question]) -> FirstWord:
        return cls({q.prompt: int(forced(model, q)[-1]) for q in asked})

    def prompts(self, item: Any) -> Sequence[Prompt]:
        return [item]

    def value(self, model: Model, item: Any, logits: Sequence[Any]) -> float:
        return float(logits[0].argmax() == self.begins[item])


def forced(model: Model, question: Question) -> Ids:
    """The prompt and the first token of the alternative answer, as token ids (T,)."""
    tokens: Ids = model.tokens(question.prompt + question.alternative)
    return tokens[: len(model.tokens(question.prompt)) + 1]


def fisher_vectors(
    model: Model, prompts: Sequence[str], k: int = 1, progress: bool | Report = False
) -> list[SteeringVector]:
    """The first k Fisher vectors of every layer's MLP output."""
    return _vectors(model, prompts, k, targets=["next_token"], progress=progress)


def pair_vectors(
    model: Model, prompts: Sequence[str], k: int = 12, progress: bool | Report = False
) -> list[SteeringVector]:
    """The first k vectors of every pair of layers."""
    return _vectors(model, prompts, k, next_token=False, progress=progress)


def _vectors(model: Model, prompts: Sequence[str], k: int, **arguments: Any) -> list[SteeringVector]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of clusters: their vectors may mix, and each steers
        made = atlas(model, list(prompts), k=k, target_positions=LAST, **arguments)
    return [v for pair in made.pairs for v in made.vectors(*pair)]


@dataclass(frozen=True)
class Choice:
    """The vector that a search selected, and its accuracy on test questions."""

    accuracy: float
    ci: tuple[float, float]  # 95%, Wilson
    source: int
    target: int | str
    rank: int
    sign: int
    relative_scale: float  # of the site's mean activation norm
    norm: float  # absolute length added

    @classmethod
    def of(cls, found: SearchResult) -> Choice:
        c: Candidate = found.chosen[0].candidate
        target = -1 if c.vector.target_layer is None else c.vector.target_layer
        return cls(
            found.test.value, (found.test.low, found.test.high), c.vector.layer, target, c.vector.rank or 0, c.sign,
            c.scale, abs(c.vector.scale),
        )  # fmt: skip


@dataclass(frozen=True)
class ForkResult:
    """Accuracies of whole answers on test questions. source, target, rank, sign and relative_scale are the Fisher vector's."""

    name: Annotated[str, "products, recipes or sentences"]
    baseline: Annotated[float, "accuracy unsteered"]
    steered: Annotated[float, "accuracy with the Fisher vector"]
    power: Annotated[float, "accuracy with the layer-to-layer vector that the search selected"]
    random_best: Annotated[float, "the best of equally many random vectors, selected in the same way"]
    random_same_norm: Annotated[float, "mean over random vectors at the Fisher vector's site and norm"]
    n_test: Annotated[int, "test questions"]
    ci: Annotated[tuple[float, float], "95% interval of steered"]
    source: Annotated[int, "layer of the Fisher vector"]
    target: Annotated[int | str, "next_token"]
    rank: Annotated[int, "0, the first"]
    sign: Annotated[int, "1 or -1"]
    relative_scale: Annotated[float, "of the site's mean activation norm"]
    forced: Annotated[float, "accuracy unsteered, the alternative answer's first word given"]
    power_vector: Annotated[Choice, "accuracy, ci, source, target, rank, sign, relative_scale, norm"]
    fisher_vector: Annotated[Choice, "likewise"]
    random_draws: Annotated[tuple[float, ...], "accuracy of the selected vector of each draw"]
    n_vectors: Annotated[int, "power vectors in the search"]
    share: Annotated[float, "of them that reach half on validation questions, at some sign and scale"]
    random_share: Annotated[float, "of the random ones"]


@dataclass(frozen=True)
class Measure:
    """Results of a fork, and the two selected vectors."""

    result: ForkResult
    fisher: SteeringVector
    power: SteeringVector


def measure(
    model: Model,
    fork: str,
    *,
    k: int = 12,
    draws: int = 1,
    same_norm: int = 4,
    n_test: int = TEST,
    seed: int = 0,
    progress: Report = lambda done, total: None,
) -> Measure:
    """Search and test the vectors of one fork of the built-in model.

    Parameters
    ----------
    model
        The built-in model.
    fork
        "products", "recipes" or "sentences".
    k
        Vectors of each pair of layers.
    draws
        Searches among random vectors.
    same_norm
        Random vectors at the site and norm of the selected Fisher vector.
    n_test
        Test questions.
    seed
        Of the random vectors.
    progress
        Called with (done, total).

    Returns
    -------
    Measure
    """
    validation, test = questions(fork, "validation", VALIDATION), questions(fork, "test", n_test)
    prompts, tests = [q.prompt for q in validation], [q.prompt for q in test]
    score, screen = Solved.of([*validation, *test]), FirstWord.of(model, validation)

    part = parts(_SHARES, progress)

    def searched(vectors: Sequence[SteeringVector], random: int, name: str) -> SearchResult:
        return search(model, vectors, score, validation=prompts, test=tests, scales=SCALES, n_random=random, seed=seed,
                      max_new_tokens=ANSWER, screen=screen, halving=4, progress=part(name))  # fmt: skip

    fisher = searched(fisher_vectors(model, prompts[:JACOBIAN], progress=part("fisher map")), 0, "fisher search")
    power = searched(pair_vectors(model, prompts[:JACOBIAN], k, progress=part("map")), draws, "search")
    chosen = fisher.vector
    same = [v * abs(chosen.scale) for v in random_like([replace(chosen, scale=1.0)] * same_norm, seed, 10**6)]
    at_norm = accuracy(model, tests, same, score=score, max_new_tokens=ANSWER, progress=part("same norm"))
    first, second = Choice.of(fisher), Choice.of(power)
    scores = tuple(found.test.value for found in power.random)
    result = ForkResult(
        name=fork, baseline=fisher.unsteered[1].value, steered=first.accuracy, power=second.accuracy,
        random_best=max(scores, default=float("nan")), random_same_norm=sum(m.value for m in at_norm) / len(at_norm),
        n_test=n_test, ci=first.ci, source=first.source, target=first.target, rank=first.rank, sign=first.sign,
        relative_scale=first.relative_scale, forced=forced_accuracy(model, test), power_vector=second,
        fisher_vector=first, random_draws=scores, n_vectors=power.share.n, share=power.share.value,
        random_share=power.random_share.value if power.random_share is not None else float("nan"),
    )  # fmt: skip
    progress(sum(_SHARES.values()), sum(_SHARES.values()))
    return Measure(result, chosen, power.vector)


def parts(shares: dict[str, int], progress: Report) -> Callable[[str], Report]:
    """Callbacks of the parts of a computation, in order, that report the progress of the whole. shares: of the whole."""
    begin = {name: sum(list(shares.values())[:i]) for i, name in enumerate(shares)}

    def part(name: str) -> Report:
        return lambda done, total: progress(begin[name] + shares[name] * done // max(total, 1), sum(shares.values()))

    return part


def forced_accuracy(model: Model, asked: Sequence[Question]) -> float:
    """Accuracy where the first token of the alternative answer is given: the ability of the model apart from its decision."""
    prompts = [forced(model, q) for q in asked]
    begun = {p.tobytes(): (q, str(model.to_str_tokens(p)[-1])) for q, p in zip(asked, prompts, strict=True)}

    def score(prompt: Any, text: str) -> bool:
        question, first = begun[prompt.tobytes()]
        return question.solved(first + text)

    return float(score_table(model, prompts, [None], score, ANSWER).mean())
