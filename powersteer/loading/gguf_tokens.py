"""The tokenizer in a GGUF file's metadata, built with the `tokenizers` library.

Two kinds, as llama.cpp calls them: "gpt2", byte-level BPE, whose way of cutting a text is only named
(tokenizer.ggml.pre) and is written out here for the names whose tokenizers are known; and "llama", SentencePiece's
BPE, whose merges follow from the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ..errors import BadCheckpoint, NotFound
from ..tokens import Tokenizer

__all__ = ["end_ids", "gguf_tokenizer"]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"  # how SentencePiece writes a space
_MAX_TOKEN = 512  # letters

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _byte_level(*first: pre_tokenizers.PreTokenizer, regex: bool = False) -> pre_tokenizers.PreTokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    return pre_tokenizers.Sequence([*first, last]) if first else last


def _cut(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


# tokenizer.ggml.pre → (how a text is cut, its normaliser, whether a piece that is a token is left whole)
_PRE: dict[str, tuple[pre_tokenizers.PreTokenizer, normalizers.Normalizer | None, bool]] = {
    "gpt-2": (_byte_level(regex=True), None, False),
    "llama-bpe": (_byte_level(_cut(_LLAMA3)), None, True),
    "qwen2": (_byte_level(_cut(_QWEN2)), normalizers.NFC(), False),
    "deepseek-r1-qwen": (_byte_level(_cut(_QWEN2)), None, False),
    "smollm": (_byte_level(pre_tokenizers.Digits(individual_digits=True), regex=True), None, False),
}


def gguf_tokenizer(fields: Mapping[str, Any], n_vocab: int, where: str) -> Tokenizer:
    """The tokenizer of a file. Raises NotFound with the reason if it cannot be built exactly, BadCheckpoint for
    metadata that contradicts itself."""
    meta = _Meta(fields, where)
    kind = meta.get("model", str, None)
    if kind not in ("gpt2", "llama"):
        raise meta.missing("model", kind, "gpt2 and llama are read")
    try:
        backend = _gpt2(meta) if kind == "gpt2" else _llama(meta)
        named = _named(meta)
        _add_first_and_last(meta, backend, named)
        return Tokenizer(backend, n_vocab, named, _templates(meta))
    except (BadCheckpoint, NotFound):
        raise
    except BaseException as error:  # the library raises plain exceptions, and panics that are not even that
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise meta.bad(f"makes no tokenizer ({error})") from None


def end_ids(fields: Mapping[str, Any], n_vocab: int) -> tuple[int, ...]:
    """The tokens that end a generation: of a text, of a turn, of a message."""
    ids = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return tuple(dict.fromkeys(one for one in ids if type(one) is int and 0 <= one < n_vocab))


class _Meta:
    """The keys tokenizer.ggml.*."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.fields, self.where = fields, where

    def bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.where}: tokenizer.ggml {what}; the file is damaged, get another copy")

    def missing(self, key: str, value: Any, why: str) -> NotFound:
        return NotFound(
            f"no tokenizer: {self.where} has tokenizer.ggml.{key} = {value!r}; {why}. Give prompts as token ids, or "
            "encode them with the model's own tokenizer"
        )

    def get(self, key: str, kind: type, default: Any) -> Any:
        value = self.fields.get("tokenizer.ggml." + key)
        if value is not None and type(value) is not kind:
            raise self.bad(f"has a {key} of the wrong type")
        return default if value is None else value

    def texts(self, key: str) -> list[str]:
        texts = self.get(key, list, None)
        if texts is None:
            raise self.bad(f"lacks its {key}")
        return list(texts)

    def numbers(self, key: str, length: int, default: float) -> list[Any]:
        numbers = self.get(key, np.ndarray, None)
        if numbers is None:
            return [default] * length
        if len(numbers) != length:
            raise self.bad(f"has {len(numbers)} {key} for {length} tokens")
        return list(numbers.tolist())

    def tokens(self) -> tuple[list[str], list[int]]:
        """Texts and types."""
        tokens = self.texts("tokens")
        if longest := next((one for one in tokens if len(one) > _MAX_TOKEN), None):
            raise self.missing("tokens", longest[:20] + "...", f"{len(longest)} letters make no token")
        return tokens, self.numbers("token_type", len(tokens), _NORMAL)

    def vocabulary(self, tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
        vocab: dict[str, int] = {}
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
            if kind != _UNUSED and vocab.setdefault(token, i) != i:
                raise self.missing("tokens", token, f"this is token {vocab[token]} and token {i}")
        return vocab

    def token(self, name: str) -> str | None:
        """The text of the token that tokenizer.ggml.<name>_token_id names."""
        i, tokens = self.get(name + "_token_id", int, None), self.texts("tokens")
        if i is not None and not 0 <= i < len(tokens):
            return None  # writers spell "none" as an id beyond the vocabulary
        return None if i is None else tokens[i]


# ---- the two kinds ---------------------------------------------------------------------------------------------------


def _gpt2(meta: _Meta) -> tokenizers.Tokenizer:
    pre = meta.get("pre", str, None)
    if pre not in _PRE:
        raise meta.missing("pre", pre, f"how texts are cut is known for {', '.join(_PRE)}")
    if meta.get("add_space_prefix", bool, False):
        raise meta.missing("add_space_prefix", True, "byte-level tokenizers that do so are not known")
    tokens, types = meta.tokens()
    merges = []
    for merge in meta.texts("merges"):
        left, space, right = merge.partition(" ")
        if not (left and space and right) or " " in right:
            raise meta.bad(f"has the merge {merge!r}, not two tokens")
        merges.append((left, right))
    cut, normaliser, whole = _PRE[pre]
    backend = tokenizers.Tokenizer(
        models.BPE(meta.vocabulary(tokens, types), merges, fuse_unk=False, ignore_merges=whole)
    )
    if normaliser is not None:
        backend.normalizer = normaliser
    backend.pre_tokenizer = cut
    backend.decoder = decoders.ByteLevel()
    _add_tokens(backend, tokens, types)
    return backend


def _llama(meta: _Meta) -> tokenizers.Tokenizer:
    if meta.fields.get("tokenizer.ggml.precompiled_charsmap") is not None:
        raise meta.missing("precompiled_charsmap", "...", "SentencePiece's normalisation is not done")
    if meta.get("remove_extra_whitespaces", bool, False):
        raise meta.missing("remove_extra_whitespaces", True, "only false is known")
    tokens, types = meta.tokens()
    vocab = meta.vocabulary(tokens, types)
    if not all(f"<0x{byte:02X}>" in vocab for byte in range(256)):
        raise meta.missing("tokens", "...", "it lacks tokens of single bytes, <0x00> to <0xFF>")
    scores = meta.numbers("scores", len(tokens), 0.0)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    backend = tokenizers.Tokenizer(
        models.BPE(vocab, _merges(tokens, types, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = meta.get("add_space_prefix", bool, True)
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    _add_tokens(backend, tokens, types)
    return backend


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """All ways to make a token of two, the best scores first; SentencePiece looks for the best token in this order."""
    rank = {token: i for i, token in enumerate(tokens) if types[i] == _NORMAL}
    found = [
        (-scores[i], rank[token[:cut]], rank[token[cut:]], token[:cut], token[cut:])
        for token, i in rank.items()
        for cut in range(1, len(token))
        if token[:cut] in rank and token[cut:] in rank
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def _add_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Tokens that are found in a text before it is cut."""
    for special, kinds in ((True, (_CONTROL, _UNKNOWN)), (False, (_USER_DEFINED,))):
        added = [token for token, kind in zip(tokens, types, strict=True) if kind in kinds and token]
        backend.add_tokens([tokenizers.AddedToken(token, special=special, normalized=False) for token in added])


# ---- around a text ---------------------------------------------------------------------------------------------------


def _named(meta: _Meta) -> dict[str, str]:
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    found = {f"{ours}_token": meta.token(name) for name, ours in names.items()}
    return {name: token for name, token in found.items() if token is not None}


def _add_first_and_last(meta: _Meta, backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> None:
    """What is put around a text; llama.cpp's assumptions where the file does not say."""
    begins = meta.get("model", str, "") == "llama" or meta.get("pre", str, "") == "llama-bpe"
    around: dict[str, list[str]] = {}
    for name, default in (("bos", begins), ("eos", False)):
        wanted = meta.get(f"add_{name}_token", bool, default)
        if wanted and f"{name}_token" not in named:
            raise meta.missing(f"add_{name}_token", True, f"and no {name}_token_id says which")
        around[name] = [named[f"{name}_token"]] if wanted else []
    if around["bos"] or around["eos"]:
        backend.post_processor = processors.TemplateProcessing(
            single=[*around["bos"], "$A", *around["eos"]],
            special_tokens=[(token, backend.token_to_id(token)) for token in {*around["bos"], *around["eos"]}],
        )


def _templates(meta: _Meta) -> dict[str, str]:
    """Chat templates by name."""
    start = "tokenizer.chat_template"
    found = {}
    for key, value in meta.fields.items():
        name = "default" if key == start else key.removeprefix(start + ".")
        if name == key or key == start + "s":  # the latter lists the names
            continue
        if not isinstance(value, str):
            raise meta.bad(f"has a template of the wrong type, {key}")
        found[name] = value
    return found
