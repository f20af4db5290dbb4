"""Prompts: their forms, and a prompt as the model reads it.

One prompt is a text; a chat, which is a list of messages {"role": ..., "content": ...}; or token ids, a list of integers
or an integer array (T,). A batch is a list or tuple of prompts, of any kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_integer
from ..errors import InvalidInput, shown
from .tokenizer import Tokenizer

__all__ = ["EncodedPrompt", "Ids", "Prompt", "Prompts", "encode", "is_text", "split", "title", "token_ids", "user_turn"]

Ids = NDArray[np.int32]  # (T,)
Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | NDArray[np.integer[Any]]
Prompts = Prompt | Sequence[Prompt]

_FORMS = "a prompt is a text, a list of messages {'role': ..., 'content': ...}, or token ids (integers)"


class HasTokenizer(Protocol):
    @property
    def tokenizer(self) -> Tokenizer | None: ...


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A prompt as the model reads it."""

    given: Prompt
    ids: Ids  # (T,)
    reader: HasTokenizer  # the model; its tokenizer is not built unless the text of token ids is asked for

    @property
    def text(self) -> str:
        """The text, or the tokens decoded one by one; "" for token ids without a tokenizer."""
        if isinstance(self.given, str):
            return self.given
        tokenizer = self.reader.tokenizer
        return "" if tokenizer is None else "".join(tokenizer.to_str_tokens(self.ids))

    @property
    def title(self) -> str:
        """`title` of the prompt."""
        return title(self.given)


def split(prompts: Prompts) -> tuple[list[Any], bool]:
    """(prompts, is_batch): a list of at least one prompt, and whether a list of prompts was given.

    Raises InvalidInput for an empty list, and for anything that is neither a prompt nor a list of prompts.

    Examples
    --------
    >>> from powersteer.inputs.prompts import split
    >>> split("one"), split(["one", [5, 6]]), split([5, 6])
    ((['one'], False), (['one', [5, 6]], True), ([[5, 6]], False))
    """
    if isinstance(prompts, str) or hasattr(prompts, "__array__"):
        return [prompts], False
    if not isinstance(prompts, (list, tuple)):
        raise InvalidInput(f"cannot read a {type(prompts).__name__} as a prompt: {_FORMS}")
    if not prompts:
        raise InvalidInput(f"the prompt, or the list of prompts, is empty: {_FORMS}")
    kinds = {_kind(item) for item in prompts}
    if len(kinds) > 1:
        raise InvalidInput(f"a list mixes {' and '.join(sorted(kinds))}: {_FORMS}")
    return (list(prompts), True) if kinds == {"prompts"} else ([prompts], False)


def _kind(item: Any) -> str:
    if isinstance(item, Mapping):
        return "messages"
    if isinstance(item, (str, list, tuple)) or getattr(item, "ndim", 0) > 0:
        return "prompts"
    _token_id(item)
    return "token ids"


def is_text(prompt: Prompt) -> bool:
    """Whether a prompt needs a tokenizer: a text, or a chat."""
    return isinstance(prompt, str) or _is_chat(prompt)


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], Mapping)


def title(prompt: Prompt) -> str:
    """A title for tables and reports: a text itself, the last user's turn of a chat, "" for token ids."""
    if isinstance(prompt, str):
        return prompt
    turns = [m for m in prompt if m.get("role") == "user"] or list(prompt) if _is_chat(prompt) else []  # type: ignore[union-attr]
    content = turns[-1].get("content", "") if turns else ""  # type: ignore[union-attr]
    if isinstance(content, (list, tuple)):  # of parts
        content = " ".join(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


_SPECIAL = r"<[|｜]?[\w/▁]+[|｜]?>"  # a special token, in the spelling of most vocabularies
_USER = re.compile(
    rf"(?:<[^<>\s]*user[^<>\s]*>|{_SPECIAL}\s*user\b\s*(?:{_SPECIAL})?|\[INST\](?:\s*<<SYS>>.*?<</SYS>>)?)"
    rf"(.*?)(?={_SPECIAL}|\[/INST\]|$)",
    re.DOTALL | re.IGNORECASE,
)


def user_turn(text: str) -> str:
    """The last user's turn of a rendered chat, if special tokens mark it; else the whole text."""
    turns = [turn for turn in map(str.strip, _USER.findall(text)) if turn]
    return turns[-1] if turns else text


def encode(prompt: Prompt, tokenizer: Tokenizer | None, n_vocab: int, **template: Any) -> Ids:
    """The token ids of one prompt, (T,), T >= 1. template: variables of the chat template.

    Raises InvalidInput for an empty prompt, an id outside the vocabulary, and a text or chat without a tokenizer.
    """
    chat = _is_chat(prompt)
    if template and not chat:
        raise InvalidInput(f"{next(iter(template))!r} is for a chat template, but the prompt is not a chat")
    if not isinstance(prompt, str) and not chat:
        return token_ids(prompt, n_vocab)
    if tokenizer is None:
        raise InvalidInput("this model came without a tokenizer; give the prompt as token ids")
    return tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.encode_chat(prompt, **template)  # type: ignore[arg-type]


def token_ids(ids: Any, n_vocab: int) -> Ids:
    """The ids as int32 (T,), T >= 1. Raises InvalidInput, naming value and position, for an id outside the vocabulary."""
    if hasattr(ids, "__array__"):
        array = np.asarray(ids)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InvalidInput(
                f"token ids have shape {array.shape} and dtype {array.dtype}; integers (T,) are needed. A "
                "batch of prompts is a list of such arrays"
            )
        ids = array.tolist()
    values = [_token_id(value) for value in ids]
    if not values:
        raise InvalidInput("the prompt is empty; a model needs at least one token")
    for at, value in enumerate(values):
        if not 0 <= value < n_vocab:
            raise InvalidInput(f"there is no token id {value} (position {at}): the vocabulary has 0 to {n_vocab - 1}")
    return np.array(values, dtype=np.int32)


def _token_id(value: Any) -> int:
    if (number := as_integer(value)) is None:
        raise InvalidInput(f"cannot read {shown(value)} in a prompt: {_FORMS}")
    return number
