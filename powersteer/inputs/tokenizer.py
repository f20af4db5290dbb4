"""Texts and conversations to token ids and back.

The token that begins a sequence, if the model uses one, is there exactly once: the tokenizer adds it to a text that
does not begin with it, and to a conversation whose template does not write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput, shown
from .chat_template import render_chat
from .tokenizer_files import from_library, read_tokenizer

__all__ = ["Tokenizer", "wrap_tokenizer"]

Ids = NDArray[np.int32]  # (T,)


class Tokenizer:
    """A checkpoint's tokenizer and chat templates, as `model.tokenizer`.

    Attributes
    ----------
    n_vocab : int
        Size of the model's vocabulary.
    named : dict of str
        Special tokens by name, such as `{"bos_token": "<s>"}`.
    templates : dict of str
        Jinja sources of chat templates by name.
    bos_id : int or None
        Id of the token that begins every sequence; None if the model uses none.

    Examples
    --------
    >>> import powersteer as ps
    >>> tokenizer = ps.load("demo").tokenizer
    >>> tokenizer.bos_id, tokenizer.special_tokens["<s>"], tokenizer.n_vocab
    (1, 1, 255)
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        n_vocab: int,
        named: Mapping[str, str] | None = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        """named: {"bos_token": "<s>", ...}; templates: {"default": Jinja source, ...}. backend is modified."""
        backend.no_truncation()
        backend.no_padding()
        self.n_vocab = n_vocab
        self.named = dict(named or {})
        self.templates = dict(templates or {})
        self._backend = backend
        self.bos_id = self._added_first()

    @classmethod
    def from_folder(cls, folder: Path, n_vocab: int, model_type: str = "") -> Tokenizer:
        """Read the tokenizer of a checkpoint folder.

        Parameters
        ----------
        folder
            A folder with tokenizer.json, or with GPT-2's vocab.json and merges.txt.
        n_vocab
            Size of the model's vocabulary.
        model_type
            The model_type of config.json, which says whether a folder without tokenizer_config.json is of GPT-2.

        Raises
        ------
        NotFound
            If there is no tokenizer that can be read; the message names the files that are there instead.
        BadCheckpoint
            For damaged files.

        Examples
        --------
        >>> import powersteer as ps
        >>> from pathlib import Path
        >>> from powersteer.inputs.tokenizer import Tokenizer
        >>> model = ps.load("demo")
        >>> Tokenizer.from_folder(Path(model.path), model.n_vocab).encode("6*8").tolist()
        [1, 13, 17, 15]
        """
        backend, named, templates = read_tokenizer(folder, model_type)
        return cls(backend, n_vocab, named, templates)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Id of the tokenizer's end token, if it has one; a checkpoint's generation config may name others."""
        token = self.named_id("eos_token")
        return () if token is None else (token,)

    def named_id(self, name: str) -> int | None:
        """Id of a special token by its name, such as "bos_token"; None if the tokenizer has none of that name.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").tokenizer.named_id("bos_token")
        1
        """
        return self._backend.token_to_id(self.named[name]) if name in self.named else None

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens, such as "</s>", by their text."""
        return {token.content: i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}

    def encode(self, text: str, *, add_special: bool = True) -> Ids:
        """Token ids of a text, with the tokens that the tokenizer adds.

        Parameters
        ----------
        text
            The text.
        add_special
            Whether the tokenizer adds special tokens, such as the one that begins every sequence.

        Returns
        -------
        (T,) int32 array, T >= 1.

        Raises
        ------
        InvalidInput
            If there is no token, or one outside the model's vocabulary.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").tokenizer.encode("6*8").tolist()
        [1, 13, 17, 15]
        """
        ids, bos = self._ids(text, add_special), [self.bos_id]
        if add_special and ids[:2] == 2 * bos and self._ids(text, False)[:1] == bos:
            ids = ids[1:]  # the text brings its own
        return self._checked(ids)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> Ids:
        """Token ids of a conversation.

        Parameters
        ----------
        messages
            Messages `{"role": ..., "content": ...}`, at least one.
        **template
            As in `render`.

        Returns
        -------
        (T,) int32 array, T >= 1.

        Raises
        ------
        InvalidInput
            As `encode` and `render`.

        Examples
        --------
        >>> import powersteer as ps
        >>> chat = [{"role": "user", "content": "6*8"}]
        >>> template = "Q: {{ messages[0].content }}"
        >>> ps.load("demo").tokenizer.encode_chat(chat, chat_template=template).tolist()
        [1, 5, 4, 13, 17, 15]
        """
        ids = self._ids(self.render(messages, **template), False)
        return self._checked(ids if self.bos_id is None or ids[:1] == [self.bos_id] else [self.bos_id, *ids])

    def render(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> str:
        """Text of a conversation, written by the model's chat template.

        Parameters
        ----------
        messages
            Messages `{"role": ..., "content": ...}`, at least one.
        **template
            `add_generation_prompt` (default True), `tools`, `documents` and any variable of the chat template;
            `chat_template` is the name of one of several templates, or a Jinja source.

        Raises
        ------
        InvalidInput
            If there is no template, or if the template refuses the conversation.

        Examples
        --------
        >>> import powersteer as ps
        >>> chat = [{"role": "user", "content": "6*8"}]
        >>> ps.load("demo").tokenizer.render(chat, chat_template="Q: {{ messages[0].content }}")
        'Q: 6*8'
        """
        source = self._template(template.pop("chat_template", None), template.get("tools"))
        return render_chat(source, messages, **{**self.named, **template})

    @deprecated_arguments(2)
    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]], *, skip_special: bool = True) -> str:
        """Text of token ids.

        Parameters
        ----------
        ids
            Token ids, (T,).
        skip_special
            Whether special tokens, such as "</s>", are left out.

        Raises
        ------
        InvalidInput
            For an id outside the vocabulary.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").tokenizer.decode([1, 5, 4, 13, 17, 15])
        'Q: 6*8'
        """
        values = [int(token) for token in ids]
        if wrong := [token for token in values if not 0 <= token < self.n_vocab]:
            raise InvalidInput(f"there is no token id {wrong[0]}: the vocabulary has 0 to {self.n_vocab - 1}")
        return str(self._backend.decode(values, skip_special_tokens=skip_special))

    def to_str_tokens(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """Text of each token, decoded alone, as TransformerLens shows it.

        Parameters
        ----------
        ids
            Token ids, (T,).

        Returns
        -------
        list of T str

        Raises
        ------
        InvalidInput
            For an id outside the vocabulary.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").tokenizer.to_str_tokens([1, 5, 4, 13])
        ['<s>', 'Q:', ' ', '6']
        """
        return [self.decode([token], skip_special=False) for token in ids]

    def _ids(self, text: str, add_special: bool) -> list[int]:
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special).ids)
        except BaseException as error:
            if not from_library(error):
                raise
            raise InvalidInput(f"the tokenizer cannot read the prompt: {error}") from None

    def _added_first(self) -> int | None:
        """The token that the tokenizer puts before a text, found by encoding one; None if there is none."""
        bare, full = self._ids("the 1a.", False), self._ids("the 1a.", True)
        if len(full) == len(bare) or (bare and full[: len(bare)] == bare):
            return None
        return full[0] if bare or full[:1] != list(self.eos_ids) else None

    def _checked(self, ids: list[int]) -> Ids:
        if not ids:
            raise InvalidInput("the prompt is empty; a model needs at least one token")
        for at, token in enumerate(ids):
            if token >= self.n_vocab:
                raise InvalidInput(
                    f"the tokenizer makes {self._backend.id_to_token(token)!r} id {token} (at position {at}), outside "
                    f"the model's vocabulary of {self.n_vocab}; leave it out of the prompt"
                )
        return np.array(ids, dtype=np.int32)

    def _template(self, name: str | None, tools: Any) -> str:
        if name is not None:
            if name not in self.templates and "{" not in name:
                raise InvalidInput(
                    f"there is no chat template {shown(name)}: it is neither a file, nor Jinja source, nor one of the model's "
                    f"{list(self.templates)}"
                )
            return self.templates.get(name, name)
        for known in ("default",) if tools is None else ("tool_use", "default"):
            if known in self.templates:
                return self.templates[known]
        if self.templates:
            raise InvalidInput(
                f"this model has several chat templates; give chat_template= one of {list(self.templates)}"
            )
        raise InvalidInput("this model has no chat template; give the prompt as text, or a template as chat_template=")


def wrap_tokenizer(tokenizer: Any, n_vocab: int) -> Tokenizer:
    """A Tokenizer from a copy of a fast transformers tokenizer, a `tokenizers.Tokenizer` or another Tokenizer.

    Raises InvalidInput for anything else, such as a slow tokenizer of transformers.
    """
    if isinstance(tokenizer, Tokenizer):
        return Tokenizer(_copy(tokenizer._backend), n_vocab, tokenizer.named, tokenizer.templates)
    if isinstance(tokenizer, tokenizers.Tokenizer):
        return Tokenizer(_copy(tokenizer), n_vocab)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise InvalidInput(
            f"{type(tokenizer).__name__} is not a fast tokenizer; load it with AutoTokenizer.from_pretrained, "
            "or give the prompts as token ids"
        )
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    templates = tokenizer.chat_template or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    return Tokenizer(_copy(backend), n_vocab, special, templates)


def _copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(backend.to_str())
