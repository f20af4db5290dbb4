"""What a prompt is, and which arguments are one prompt and which are several.

One prompt: a text; a chat, which is a list of messages {"role": ..., "content": ...}; token ids, a list of integers or
an integer array (T,). Several: a list or tuple of prompts, of any kinds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput, shown
from .tokenizer import Tokenizer

__all__ = ["Ids", "Prompt", "Prompts", "encode", "is_text", "split", "title", "token_ids", "user_turn"]

Ids = NDArray[np.int32]  # (T,)
Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | NDArray[np.integer[Any]]
Prompts = Prompt | Sequence[Prompt]

_FORMS = "a prompt is a text, a list of messages {'role': ..., 'content': ...}, or token ids (integers)"


def split(prompts: Prompts) -> tuple[list[Any], bool]:
    """(prompts, several?): a list of at least one prompt, and whether a list of them is what was given.

    Raises InvalidInput for an empty list and for what is neither a prompt nor a list of them.
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
    """Whether it takes a tokenizer to read this prompt: a text, or a chat."""
    return isinstance(prompt, str) or _is_chat(prompt)


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], Mapping)


def title(prompt: Prompt) -> str:
    """What tells a prompt from others of its kind: a text itself, the last user's turn of a chat, "" of token ids."""
    if isinstance(prompt, str):
        return prompt
    turns = [m for m in prompt if m.get("role") == "user"] or list(prompt) if _is_chat(prompt) else []  # type: ignore[union-attr]
    content = turns[-1].get("content", "") if turns else ""  # type: ignore[union-attr]
    if isinstance(content, (list, tuple)):  # of parts
        content = " ".join(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


_SPECIAL = r"<[|｜]?[\w/▁]+[|｜]?>"  # a special token, as most vocabularies write them
_USER = re.compile(
    rf"(?:<[^<>\s]*user[^<>\s]*>|{_SPECIAL}\s*user\b\s*(?:{_SPECIAL})?|\[INST\](?:\s*<<SYS>>.*?<</SYS>>)?)"
    rf"(.*?)(?={_SPECIAL}|\[/INST\]|$)",
    re.DOTALL | re.IGNORECASE,
)


def user_turn(text: str) -> str:
    """The last user's turn of a chat that a template has rendered, where it is marked by special tokens; else the text."""
    turns = [turn for turn in map(str.strip, _USER.findall(text)) if turn]
    return turns[-1] if turns else text


def encode(prompt: Prompt, tokenizer: Tokenizer | None, n_vocab: int, **template: Any) -> Ids:
    """The token ids of one prompt, (T,), T >= 1. template: variables of the chat template.

    Raises InvalidInput for an empty prompt, an id outside the vocabulary, words without a tokenizer.
    """
    chat = _is_chat(prompt)
    if template and not chat:
        raise InvalidInput(f"{next(iter(template))!r} is for a chat template, but the prompt is no chat")
    if not isinstance(prompt, str) and not chat:
        return token_ids(prompt, n_vocab)
    if tokenizer is None:
        raise InvalidInput("this model came without a tokenizer; give the prompt as token ids")
    return tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.encode_chat(prompt, **template)  # type: ignore[arg-type]


def token_ids(ids: Any, n_vocab: int) -> Ids:
    """The ids as int32 (T,), T >= 1. Raises InvalidInput for what is no id of the vocabulary, naming it and where."""
    if hasattr(ids, "__array__"):
        array = np.asarray(ids)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InvalidInput(
                f"token ids have shape {array.shape} and dtype {array.dtype}; integers (T,) are needed. Several "
                "prompts are a list of such arrays"
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
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise InvalidInput(f"cannot read {shown(value)} in a prompt: {_FORMS}") from None
