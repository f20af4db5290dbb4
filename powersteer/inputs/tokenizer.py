"""Texts and conversations to token ids and back.

The token that begins a sequence, if the model uses one, is there exactly once: texts get what the tokenizer adds of
itself, conversations what their template writes or else that token, neither a second one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ..errors import BadCheckpoint, InvalidInput, NotFound
from .chat_template import render_chat

__all__ = ["Tokenizer", "wrap_tokenizer"]

Ids = NDArray[np.int32]  # (T,)
T = TypeVar("T")


class Tokenizer:
    """A checkpoint's tokenizer and chat templates. Make one with `from_folder` or `wrap_tokenizer`."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        n_vocab: int,
        named: Mapping[str, str] | None = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        """named: {"bos_token": "<s>", ...}; templates: {"default": Jinja source, ...}. backend is taken over."""
        backend.no_truncation()
        backend.no_padding()
        self.n_vocab = n_vocab
        self.named = dict(named or {})
        self.templates = dict(templates or {})
        self._backend = backend
        self._bos = self._added_first()

    @classmethod
    def from_folder(cls, folder: Path, n_vocab: int, model_type: str = "") -> Tokenizer:
        """The tokenizer of a checkpoint folder. Raises NotFound if there is none that can be read, saying what is
        there instead; BadCheckpoint for damaged files."""
        config = _read_object(folder / "tokenizer_config.json")
        named, extra = _special_tokens(folder, config)
        if (folder / "tokenizer.json").is_file():
            backend = _guarded(folder / "tokenizer.json", tokenizers.Tokenizer.from_file)
            cut = backend.pre_tokenizer
            if gpt2 := config.get("tokenizer_class") in _GPT2 and isinstance(cut, tokenizers.pre_tokenizers.ByteLevel):
                cut.add_prefix_space = bool(config.get("add_prefix_space"))
        else:
            backend, gpt2 = _gpt2_files(folder, config, model_type), True
        if gpt2:
            named = {**dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), **named}
        _add_tokens(backend, folder, config, named, extra)
        if not (folder / "tokenizer.json").is_file():
            _put_around(backend, config, named)
        texts = {name: text for name, token in named.items() if (text := _content(token)) is not None}
        return cls(backend, n_vocab, texts, _templates(folder, config))

    @property
    def bos_id(self) -> int | None:
        """The token that begins every sequence, if the model uses one."""
        return self._bos

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The end token that the tokenizer names; a checkpoint's generation config may name others."""
        token = self._backend.token_to_id(self.named["eos_token"]) if "eos_token" in self.named else None
        return () if token is None else (token,)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The tokens that are no text, such as "</s>": what they look like, and their ids."""
        return {token.content: i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}

    def encode(self, text: str) -> Ids:
        """The ids of a text, (T,), with what the tokenizer adds. Raises InvalidInput if that is nothing at all, or
        if the tokenizer knows a token that the model does not."""
        ids = self._ids(text, True)
        if self._bos is not None and ids[:2] == [self._bos, self._bos] and self._ids(text, False)[:1] == [self._bos]:
            ids = ids[1:]  # the text brings its own
        return self._checked(ids)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> Ids:
        """The ids of a conversation, (T,). template: as for `render`. Raises InvalidInput as `encode` and `render`."""
        ids = self._ids(self.render(messages, **template), False)
        return self._checked(ids if self._bos is None or ids[:1] == [self._bos] else [self._bos, *ids])

    def render(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> str:
        """The text of a conversation. template: `add_generation_prompt` (default True), `tools`, `documents` and any
        variable of the chat template; `chat_template` names one of several templates, or is one.

        Raises InvalidInput if there is no template, or if it refuses the conversation.
        """
        source = self._template(template.pop("chat_template", None), template.get("tools"))
        return render_chat(source, messages, **{**self.named, **template})

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]], skip_special: bool = True) -> str:
        """Text of token ids. skip_special: leave out the likes of end tokens. Raises InvalidInput for an id outside
        the vocabulary."""
        values = [int(token) for token in ids]
        if wrong := [token for token in values if not 0 <= token < self.n_vocab]:
            raise InvalidInput(f"there is no token id {wrong[0]}: the vocabulary has 0 to {self.n_vocab - 1}")
        return str(self._backend.decode(values, skip_special_tokens=skip_special))

    def to_str_tokens(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """The text of each token, decoded for itself, as TransformerLens shows them."""
        return [self.decode([token], skip_special=False) for token in ids]

    def _ids(self, text: str, add_special: bool) -> list[int]:
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special).ids
            return ids
        except BaseException as error:
            if not _from_library(error):
                raise
            raise InvalidInput(f"the tokenizer cannot read the prompt: {error}") from None

    def _added_first(self) -> int | None:
        """What the tokenizer puts before a text, found by trying."""
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
            return self.templates.get(name, name)
        if tools is not None and "tool_use" in self.templates:
            return self.templates["tool_use"]
        if "default" in self.templates:
            return self.templates["default"]
        if self.templates:
            raise InvalidInput(
                f"this model has several chat templates; give chat_template= one of {list(self.templates)}"
            )
        raise InvalidInput("this model has no chat template; give the prompt as text, or a template as chat_template=")


def wrap_tokenizer(tokenizer: Any, n_vocab: int) -> Tokenizer:
    """Ours from a fast transformers tokenizer, a `tokenizers.Tokenizer` (both copied), or ours.

    Raises InvalidInput for anything else, slow tokenizers included.
    """
    if isinstance(tokenizer, Tokenizer):
        return Tokenizer(_copy(tokenizer._backend), n_vocab, tokenizer.named, tokenizer.templates)
    if isinstance(tokenizer, tokenizers.Tokenizer):
        return Tokenizer(_copy(tokenizer), n_vocab)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise InvalidInput(
            f"{type(tokenizer).__name__} is no fast tokenizer; load it with AutoTokenizer.from_pretrained, "
            "or give the prompts as token ids"
        )
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    templates = tokenizer.chat_template or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    return Tokenizer(_copy(backend), n_vocab, special, templates)


def _copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(backend.to_str())


# ---- files -----------------------------------------------------------------------------------------------------------


def _guarded(path: Path, read: Callable[[str], T]) -> T:
    """`read(path)` of the tokenizers library."""
    try:
        return read(str(path))
    except BaseException as error:
        if not _from_library(error):
            raise
        raise BadCheckpoint(f"{path} is not a tokenizer that can be read ({error}); download it again") from None


def _from_library(error: BaseException) -> bool:
    """Whether the tokenizers library raised this: it raises plain exceptions, and panics that are not even that."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} is not a JSON object; download it again")
    return value


def _content(token: Any) -> str | None:
    """A token in a config is a string, or an object with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Tokens with a name, {"bos_token": a string, an object or null}, and those without: of tokenizer_config.json,
    overridden by the older special_tokens_map.json unless the config lists its added tokens itself."""
    older = {} if "added_tokens_decoder" in config else _read_object(folder / "special_tokens_map.json")
    named = {name: token for name, token in {**config, **older}.items() if name.endswith("_token")}
    named.update({name: config[name] for name in named if name in config and name not in _NAMES and _content(config[name])})
    extra: list[Any] = []
    for file, one in (("tokenizer_config.json", config), ("special_tokens_map.json", older)):
        tokens = one.get("extra_special_tokens") or ()
        if isinstance(tokens, dict):  # with names of their own
            named.update(tokens)
            tokens = list(tokens.values())
        for key, found in (("extra_special_tokens", tokens), ("additional_special_tokens", one.get("additional_special_tokens"))):
            if not isinstance(found or (), (list, tuple)) or not all(_content(token) for token in found or ()):
                raise BadCheckpoint(f"{folder / file}: malformed {key}; download it again")
        extra += tokens or (() if extra else one.get("additional_special_tokens") or ())
    return {name: named[name] for name in [*_NAMES, *named] if name in named}, extra


_GPT2 = ("GPT2Tokenizer", "GPT2TokenizerFast")
# In the order of new ids; a model's own names, such as image_token, follow
_NAMES = "bos_token eos_token unk_token sep_token pad_token cls_token mask_token".split()
_OPTIONS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _added_token(token: Any, **options: bool) -> tokenizers.AddedToken:
    """Of a string, or of an object with its content and options."""
    given = {name: token[name] for name in _OPTIONS if isinstance(token.get(name), bool)} if isinstance(token, dict) else {}
    return tokenizers.AddedToken(_content(token), **{**given, **options})


def _listed_tokens(
    folder: Path, config: Mapping[str, Any], special: set[str]
) -> tuple[Path, list[tuple[int, tokenizers.AddedToken]]]:
    """The added tokens that are listed with their ids, by id, and the file that does it."""
    path, as_list = folder / "tokenizer_config.json", config.get("added_tokens_decoder")
    if as_list is not None:
        if not isinstance(as_list, dict) or not all(
            key.isdecimal() and isinstance(token, dict) and _content(token) for key, token in as_list.items()
        ):
            raise BadCheckpoint(f"{path}: malformed added_tokens_decoder; download it again")
        return path, sorted(((int(key), _added_token(token)) for key, token in as_list.items()), key=lambda item: item[0])
    path = folder / "added_tokens.json"
    older = _read_object(path)
    if not all(text and type(i) is int and i >= 0 for text, i in older.items()):
        raise BadCheckpoint(f"{path} is not an object of tokens and their ids; download it again")
    ordered = sorted(older.items(), key=lambda item: item[1])
    return path, [(i, _added_token(text, special=text in special, normalized=text not in special)) for text, i in ordered]


def _add_tokens(
    backend: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any], named: Mapping[str, Any], extra: Sequence[Any]
) -> None:
    """Tokens that the configs name beside the tokenizer's own file, in the order in which transformers adds them: those
    that the vocabulary lacks get the next ids."""
    special = [token for token in [*named.values(), *extra] if _content(token)]
    path, as_list = _listed_tokens(folder, config, {str(_content(token)) for token in special})
    known = backend.get_added_tokens_decoder().values()
    if "added_tokens_decoder" not in config:  # the tokenizer's own file is newer
        as_list = [(i, token) for i, token in as_list if token.content not in {one.content for one in known}]
    names = {_content(token) for token in named.values()}
    adding = [token for _, token in as_list if repr(token) not in {repr(one) for one in known}]
    present = {one.content for one in [*known, *adding]}
    plain = [one for one in known if one.content in names and not one.special]
    adding = [*(one for one in plain if one.content not in {token.content for token in adding}), *adding]
    for token in adding:
        token.special |= token.content in names
    # Of several entries with other options the last one counts, unless it was there before
    entries = dict.fromkeys((_content(token), json.dumps(token)) for token in special if _content(token) not in present)
    backend.add_tokens([*adding, *(_added_token(json.loads(entry), special=True) for _, entry in entries)])
    for i, token in as_list:
        if backend.token_to_id(token.content) != i:
            raise BadCheckpoint(
                f"{path} gives the token {token.content!r} id {i}, but the tokenizer gives it "
                f"{backend.token_to_id(token.content)}; download both files again"
            )


def _gpt2_files(folder: Path, config: Mapping[str, Any], model_type: str) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer from vocab.json and merges.txt, which is all that its first files are."""
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    kind = config.get("tokenizer_class", "GPT2Tokenizer" if model_type == "gpt2" else "")
    if not (vocab.is_file() and merges.is_file() and kind in _GPT2):
        others = ("tokenizer.model", "spiece.model", "vocab.json", "tekken.json", "tiktoken.model", "vocab.txt")
        found = [name for name in others if (folder / name).is_file()]
        raise NotFound(
            f"no tokenizer: there is no tokenizer.json in {folder}"
            + (f", only {', '.join(found)}" if found else "")
            + "; make one with transformers: AutoTokenizer.from_pretrained(path).save_pretrained(path)"
        )
    backend = tokenizers.Tokenizer(
        _guarded(vocab, lambda path: tokenizers.models.BPE.from_file(path, str(merges), fuse_unk=False))
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def _put_around(backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """The tokens around a text that the config of GPT-2's files asks for."""
    names = [("bos_token", "add_bos_token"), ("eos_token", "add_eos_token")]
    first, last = ([text] if config.get(flag) and (text := _content(named[name])) else [] for name, flag in names)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=[*first, "$A", *last],
        special_tokens=[(token, backend.token_to_id(token)) for token in {*first, *last}],
    )


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: of their own files, or else of tokenizer_config.json (one, or a list of named ones)."""
    files = {"default": folder / "chat_template.jinja"}
    files.update({path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))})
    found = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    if found:
        return found
    given = config.get("chat_template")
    if isinstance(given, list):
        given = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
    named = {"default": given} if isinstance(given, str) else given or {}
    if not isinstance(named, dict) or not all(isinstance(part, str) for pair in named.items() for part in pair):
        raise BadCheckpoint(f"{folder / 'tokenizer_config.json'} has a malformed chat_template; download it again")
    return named
