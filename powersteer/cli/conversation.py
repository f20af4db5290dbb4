"""A conversation with a steered model: what `powersteer chat` does, apart from its terminal.

Every answer computes the whole conversation so far again: a decoder keeps its keys and values for one generation only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..evaluate.effects import with_norms
from ..inputs.positions import Positions
from ..model.model import Model
from ..vectors.saved import load_vectors
from ..vectors.steering_vector import SteeringVector, action

__all__ = ["STEERED", "UNSTEERED", "Answer", "Conversation"]

STEERED, UNSTEERED = "steered", "unsteered"
_GREETING = "Hello"  # on which a missing activation norm is measured
_INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Answer:
    """An answer, its finish_reason ("stop", "length" or "interrupted"), the interventions under which it was generated, and
    the answer of the plain model if that was requested."""

    text: str
    finish_reason: str
    steering: tuple[str, ...]
    unsteered: str | None = None


class Conversation:
    """Messages and the vectors that steer the answers.

    Parameters
    ----------
    model
        A model with a tokenizer.
    system
        The system message, if any.
    template
        A chat template in place of the model's: a Jinja source, or the name of one of several.
    positions
        Where the vectors act, as for `Model.steered`.
    max_new_tokens
        Of an answer; the context may leave less.
    seed
        Of the first answer; the next one has seed + 1, and so on.
    **options
        temperature, top_k and top_p of `Model.generate`.

    Raises
    ------
    InvalidInput
        For a model without a chat template, and a template that refuses the system message.

    Examples
    --------
    >>> import powersteer as ps
    >>> from powersteer.cli.conversation import Conversation
    >>> talk = Conversation(ps.load("demo"), template="Q: {{ messages[-1].content }}\\nA:")
    >>> talk.ask("3*4", lambda variant, piece: None).text
    ' It is 132.'
    >>> [message["role"] for message in talk.messages]
    ['user', 'assistant']
    """

    def __init__(
        self, model: Model, *, system: str | None = None, template: str | None = None, positions: Positions = None,
        max_new_tokens: int = 256, seed: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        self.model, self.vectors = model, list[SteeringVector]()
        self._given: list[SteeringVector] = []  # the same as they were added, whose signs scales refer to
        self._view, self._positions = model, positions
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._template = {} if template is None else {"chat_template": template}
        self._new, self._seed, self._options = max_new_tokens, seed, options
        self.turns: list[tuple[str, Answer]] = []  # message and answer
        if template is None and not model._need_tokenizer("chat").templates:
            raise InvalidInput(
                f"{model.name!r} has no chat template, as base models have none: give one by --template FILE, or continue a text "
                "by powersteer generate"
            )
        self._tokens([], _GREETING)

    def _messages(self, turns: list[tuple[str, Answer]]) -> list[dict[str, str]]:
        said = ((("user", text), ("assistant", answer.text)) for text, answer in turns)
        return self._system + [{"role": role, "content": text} for turn in said for role, text in turn]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far."""
        return self._messages(self.turns)

    def _tokens(self, turns: list[tuple[str, Answer]], text: str) -> Any:
        return self.model.tokens([*self._messages(turns), {"role": "user", "content": text}], **self._template)

    # ---- steering

    def steer(self, text: str) -> None:
        """Add the vectors of FILE, as saved, or of FILE:SCALE, at a multiple of their site's mean activation norm. A norm that
        a file lacks is measured on a greeting. After an error the conversation is steered as before."""
        file, scale = _file_and_scale(text)
        found = load_vectors(file)
        if scale is not None:
            found = with_norms(self.model, [self._tokens([], _GREETING)], found)
        self._set([*self._given, *found], [*self.vectors, *(v if scale is None else v.relative(scale) for v in found)])

    def scale(self, scale: float, number: int | None = None) -> None:
        """Set the strength of a vector, counted from 1, or of all: a multiple of its site's mean activation norm, with the
        sign relative to that in its file."""
        if not self._given:
            raise InvalidInput("there is no vector to scale: add one by /steer FILE")
        if number is not None and not 1 <= number <= len(self._given):
            raise InvalidInput(f"there is no vector {number}: they are 1 to {len(self._given)}")
        at = range(len(self._given)) if number is None else [number - 1]
        given, now = list(self._given), list(self.vectors)
        for i in at:
            (given[i],) = with_norms(self.model, [self._tokens([], _GREETING)], [given[i]])
            now[i] = given[i].relative(scale)
        self._set(given, now)

    def unsteer(self) -> None:
        """Remove all vectors."""
        self._set([], [])

    def _set(self, given: list[SteeringVector], vectors: list[SteeringVector]) -> None:
        view = self.model.steered(vectors, self._positions) if vectors else self.model  # refuses what does not fit
        self._given, self.vectors, self._view = given, vectors, view

    def steering(self) -> list[str]:
        """A line for each vector: what it does, and where."""
        lines = []
        for v in self.vectors:
            relative = (
                f", {v.scale / v.site_norm:.3g} of the activation norm" if v.operation == "add" and v.site_norm else ""
            )
            lines.append(f"{action(v)}{relative} ({v.method})")
        return lines

    # ---- answers

    def ask(
        self, text: str, emit: Callable[[str, str], object], *, compare: bool = False, again: bool = False
    ) -> Answer:
        """Answer a message.

        Parameters
        ----------
        text
            The message.
        emit
            Called with ("steered" or "unsteered", piece of text) as pieces are generated.
        compare
            Generate the plain model's answer as well, after the steered one. The conversation goes on from the steered one.
        again
            Replace the last turn.

        Returns
        -------
        Answer
            Ctrl-C ends it with finish_reason "interrupted"; the text so far stays in the conversation, and a turn without any
            text does not.

        Raises
        ------
        InvalidInput
            If the conversation fills the context.
        """
        turns = self.turns[:-1] if again else self.turns
        tokens = self._tokens(turns, text)
        room = self.model.n_ctx - len(tokens)
        if room < 1:
            raise InvalidInput(
                f"the conversation of {len(tokens)} tokens fills the context of {self.model.n_ctx}; begin anew by /reset"
            )
        options = {"max_new_tokens": min(self._new, room), "seed": self._seed + len(turns), **self._options}
        variants = [(STEERED, self._view), *([(UNSTEERED, self.model)] if compare else [])]
        texts, reason = dict.fromkeys([name for name, _ in variants], ""), _INTERRUPTED
        try:
            for name, view in variants:
                stream = view.generate(tokens, stream=True, **options)
                for piece in stream:
                    texts[name] += piece
                    emit(name, piece)
                reason = stream.result.finish_reason if name == STEERED else reason
        except KeyboardInterrupt:
            stream = None  # frees its cache
        answer = Answer(texts[STEERED], reason, self._view.steering, texts.get(UNSTEERED))
        if answer.text or reason != _INTERRUPTED:
            self.turns = [*turns, (text, answer)]
        return answer

    def reset(self) -> None:
        """Begin anew, with the same system message and steering."""
        self.turns = []


def _file_and_scale(text: str) -> tuple[str, float | None]:
    """ "v.safetensors:0.35" -> ("v.safetensors", 0.35); a file whose name ends like that is read as saved."""
    file, colon, number = text.rpartition(":")
    if not colon or os.path.exists(text):
        return text, None
    try:
        return file, float(number)
    except ValueError:
        return text, None  # a colon of the name
