"""A prompt's plain and steered continuation, compared while they are generated. Knows nothing of notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompt, split
from ..inputs.sites import Site
from ..inputs.tokenizer import Tokenizer
from ..vectors.interventions import Steering
from ..vectors.steering_vector import SteeringVector

__all__ = ["Comparison", "ModelLike", "Session", "TokenShare"]

Array = NDArray[Any]
_TOP = 5  # most tokens listed of each distribution
_LISTED = 1e-3  # least probability of a token that is listed, in either
_LEAST = 1.0  # a slider goes at least so far, in units of the activation's norm
_ROOM = 2.0  # and so many times as far as the vector's own strength


class Continuation(Protocol):
    """One sequence during generation."""

    tokens: list[int]
    generated: str  # its text so far


class ModelLike(Protocol):
    """What is needed of `Model`, which builds on this folder."""

    @property
    def n_layers(self) -> int: ...
    def tokens(self, prompt: Prompt) -> Ids: ...
    def activations(self, prompt: Prompt, site: Site) -> Array: ...
    def _need_tokenizer(self, purpose: str) -> Tokenizer: ...
    def _interventions(self, vectors: Steering, positions: Positions = None) -> Any: ...
    def _follow(
        self, prompt: Ids, draft: Ids, interventions: Any, max_new_tokens: int
    ) -> tuple[Array, Continuation, Iterator[str]]: ...


@dataclass(frozen=True)
class TokenShare:
    """A candidate for the token after the prompt, with its probability in both models.

    Examples
    --------
    >>> import powersteer as ps
    >>> token = ps.load("demo").play("Q: 3*4\\nA:", ps.random_vectors(model, 2)[0]).wait().next_tokens[0]
    >>> token.text, token.plain > 0.8
    (' It', True)
    """

    text: str
    plain: float
    steered: float


@dataclass(frozen=True)
class Comparison:
    """A steered continuation beside the plain one, as far as they are generated.

    Attributes
    ----------
    prompt, plain, steered
        Texts.
    strengths
        One for each vector, in units of the activation's norm at its site.
    parts_at
        The number of characters before the first token that differs; None while the texts agree.
    kl
        KL(plain || steered) of the next token at the prompt's end, in nats; None until it is known.
    mean_kl
        The same, as the mean over the tokens of the plain continuation.
    next_tokens
        The likeliest tokens after the prompt, those of the plain model first.
    finished
        Whether nothing more comes.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> vec = model.jacobian("Q: 3*4\\nA:", 1, 3).svd(k=1).vectors[0]
    >>> seen = model.play("Q: 3*4\\nA:", vec.relative(0)).wait()
    >>> seen.plain, seen.steered == seen.plain, seen.kl, seen.parts_at
    (' It is 132.', True, 0.0, None)
    """

    prompt: str
    strengths: tuple[float, ...]
    plain: str = ""
    steered: str = ""
    parts_at: int | None = None
    kl: float | None = None
    mean_kl: float | None = None
    next_tokens: tuple[TokenShare, ...] = ()
    finished: bool = False


class Session:
    """A prompt, vectors, and the plain continuation, which is generated once. Runs in one thread at a time.

    strengths: those of the vectors as they were given; limits: how far each may reasonably go.
    """

    def __init__(
        self, model: ModelLike, prompt: Prompt, vectors: Steering, positions: Positions = None, max_new_tokens: int = 64
    ) -> None:
        prompts, is_batch = split(prompt)
        if is_batch:
            raise InvalidInput(f"play compares continuations of one prompt; got a list of {len(prompts)}")
        tokenizer = model._need_tokenizer("show a continuation")
        self._model, self._positions, self._max_new_tokens = model, positions, max_new_tokens
        self._prompt = model.tokens(prompt)
        self._str_tokens = tokenizer.to_str_tokens
        self.prompt = "".join(self._str_tokens(self._prompt))
        model._interventions(vectors, positions)  # every error in them, before anything is computed
        self.vectors = (vectors,) if isinstance(vectors, SteeringVector) else tuple(vectors)
        first, self._plain, pieces = model._follow(self._prompt, np.empty(0, np.int32), (), max_new_tokens)
        self._pieces = self._recorded(pieces)
        sizes = (len(self._plain.tokens), len(self._plain.generated))
        self._sizes = [(0, 0), sizes]  # tokens and characters of the plain continuation, at each piece
        self._complete = False
        self._logits = first  # (n, n_vocab) of the plain model along its continuation; (1, n_vocab) until it is complete
        self._norms = [self._norm(vector) for vector in self.vectors]
        self.strengths = tuple(v.scale / norm for v, norm in zip(self.vectors, self._norms, strict=True))
        self.limits = tuple(max(_LEAST, _ROOM * abs(s)) for s in self.strengths)

    def _norm(self, vector: SteeringVector) -> float:
        """Mean norm of the activation at a vector's site: the vector's own, or that on this prompt."""
        norm = vector.site_norm or float(
            np.linalg.norm(self._model.activations(self._prompt, vector.location), axis=-1).mean()
        )
        return norm or 1.0  # of a site that is zero: the scale itself

    def at(self, strengths: Sequence[float]) -> list[SteeringVector]:
        """The vectors at these strengths."""
        if len(strengths) != len(self.vectors) or not all(np.isfinite(strengths)):
            raise InvalidInput(
                f"strengths are {shown(strengths)}; {len(self.vectors)} finite numbers are needed, one for each vector"
            )
        return [
            v if strength == own else replace(v, scale=strength * norm, calibration=None)
            for v, own, strength, norm in zip(self.vectors, self.strengths, strengths, self._norms, strict=True)
        ]

    def run(self, strengths: Sequence[float]) -> Iterator[Comparison]:
        """Compare the continuations at these strengths; each item replaces the one before. Closing it stops between tokens.

        The steered model first reads prompt and plain continuation, as far as it has come, in one pass, which gives the KL
        divergences and the tokens up to the first that differs; it is decoded from there.
        """
        vectors, whole = self.at(strengths), self._complete
        logits, row, pieces = self._follow(vectors)
        seen = self._with(Comparison(self.prompt, tuple(strengths)), row)
        yield seen
        seen = self._measured(seen, logits, whole)
        yield seen
        for _ in zip_longest(self._pieces, pieces):
            seen = self._with(seen, row)
            yield seen
        if not whole:
            seen = self._measured(seen, self._follow(vectors)[0], self._complete)
        yield replace(self._with(seen, row), finished=True)

    def _recorded(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces of the plain continuation, whose sizes are kept, and its logits after the last."""
        for piece in pieces:
            self._sizes.append((len(self._plain.tokens), len(self._plain.generated)))
            yield piece
        self._logits, self._complete = self._follow([])[0], True

    def _measured(self, seen: Comparison, logits: Array, whole: bool) -> Comparison:
        """What is seen, with what the logits of the steered model say."""
        divergences = [_kl(p, q) for p, q in zip(self._logits, logits, strict=False)]
        mean = float(np.mean(divergences)) if whole else None
        return replace(seen, kl=divergences[0], mean_kl=mean, next_tokens=self._next_tokens(self._logits[0], logits[0]))

    def _with(self, seen: Comparison, row: Continuation) -> Comparison:
        """What is seen when the steered continuation has come so far."""
        return replace(seen, plain=self._plain.generated, steered=row.generated, parts_at=self._parts_at(row.tokens))

    def _follow(self, vectors: list[SteeringVector]) -> tuple[Array, Continuation, Iterator[str]]:
        """The model with vectors, along the plain continuation."""
        acting = [v for v in vectors if v.scale or v.operation != "add"]
        draft = np.array(self._plain.tokens, np.int32)
        interventions = self._model._interventions(acting, self._positions) if acting else ()
        return self._model._follow(self._prompt, draft, interventions, self._max_new_tokens)

    def _parts_at(self, tokens: list[int]) -> int | None:
        """Characters before the first token that differs from the plain continuation's; None without one."""
        plain = self._plain.tokens
        same = next((i for i, (a, b) in enumerate(zip(plain, tokens, strict=False)) if a != b), None)
        return None if same is None else max(n for count, n in self._sizes if count <= same)

    def _next_tokens(self, plain: Array, steered: Array) -> tuple[TokenShare, ...]:
        """The likeliest tokens of either distribution, by logits (n_vocab,)."""
        p, q = np.exp(_log_softmax(plain)), np.exp(_log_softmax(steered))
        top = [int(i) for shares in (p, q) for i in np.argsort(-shares, kind="stable")[:_TOP]]
        ids = dict.fromkeys(i for i in top if max(p[i], q[i]) >= _LISTED)
        return tuple(
            TokenShare(text, float(p[i]), float(q[i])) for i, text in zip(ids, self._str_tokens(list(ids)), strict=True)
        )


def _log_softmax(logits: Array) -> Array:
    return np.asarray(log_softmax(logits.astype(np.float64)))


def _kl(plain: Array, steered: Array) -> float:
    """KL divergence of the distributions of logits (n_vocab,), nats."""
    p, q = _log_softmax(plain), _log_softmax(steered)
    return max(0.0, float(np.exp(p) @ (p - q)))
