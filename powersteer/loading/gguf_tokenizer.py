"""The tokenizer in a GGUF file's metadata, built with the `tokenizers` library.

Two kinds, in llama.cpp's names: "gpt2" (and "gemma4"), byte-pair encoding whose rule for splitting a text is given by
name (tokenizer.ggml.pre, see gguf_pre.py); and "llama", SentencePiece's BPE, whose merges follow from the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, processors

from ..errors import BadCheckpoint, NotFound
from ..inputs.tokenizer import Tokenizer
from ..inputs.tokenizer_files import from_library
from .gguf_header import Texts
from .gguf_pre import PRE, Pre, pre_tokenizer

__all__ = ["end_ids", "gguf_tokenizer", "names_tokenizer", "uncertain_cut"]

_KINDS = ("gpt2", "gemma4", "llama")

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"  # how SentencePiece writes a space
_MAX_TOKEN = 512  # characters

# Tokens that llama.cpp recognises by their text, beside the types and the keys. For each part of fill-in-the-middle the
# first text that is in the vocabulary counts, unless a key names the token; the last three end a generation.
_FILL = {
    "fim_pre": "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>",
    "fim_suf": "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>",
    "fim_mid": "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>",
    "fim_pad": "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]",
    "fim_rep": "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
    "fim_sep": "<|file_sep|>",
}
_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~["
).split()
# token that is not an end → (its type, if the vocabulary has all tokens of one of these sets)
_NO_ENDS: dict[str, tuple[int, tuple[set[str], ...]]] = {
    "<|end|>": (
        _USER_DEFINED,
        (
            {"<|return|>", "<|call|>"},
            {"<|return|>", "<|calls|>"},
            {"<|flush|>", "<|call|>"},
            {"<|flush|>", "<|calls|>"},
        ),
    ),
    "</s>": (_NORMAL, ({"<|tool_response>"},)),
}
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")  # parts of an answer
_DEFAULT_IDS = {"bos": 1, "eos": 2, "unknown": 0}  # of SentencePiece's vocabularies


def gguf_tokenizer(fields: Mapping[str, Any], n_vocab: int, where: str) -> Tokenizer:
    """The tokenizer of a file. Raises NotFound with the reason if it cannot be built exactly, BadCheckpoint for
    metadata that contradicts itself."""
    meta = _Meta(fields, where)
    kind = meta.get("model", str, None)
    if kind not in _KINDS:
        raise meta.missing("model", kind, "gpt2 and llama are read")
    try:
        backend = _llama(meta) if kind == "llama" else _gpt2(meta)
        named = _named(meta)
        _add_first_and_last(meta, backend, named)
        return Tokenizer(backend, n_vocab, named, _templates(meta))
    except (BadCheckpoint, NotFound):
        raise
    except BaseException as error:
        if not from_library(error):
            raise
        raise meta.bad(f"makes no tokenizer ({error})") from None


def names_tokenizer(fields: Mapping[str, Any]) -> bool:
    """Whether the file names a kind of tokenizer that is read."""
    kind = fields.get("tokenizer.ggml.model")
    return isinstance(kind, str) and kind in _KINDS


def uncertain_cut(fields: Mapping[str, Any]) -> bool:
    """Whether the file does not name its rule for splitting texts, so that llama.cpp's default is used."""
    byte_level = fields.get("tokenizer.ggml.model") == "gpt2"
    return byte_level and fields.get("tokenizer.ggml.pre", "default") == "default"


def end_ids(fields: Mapping[str, Any], n_vocab: int) -> tuple[int, ...]:
    """Ids of the tokens that end a generation, found as llama.cpp does: by the keys, and always also by the texts of
    tokens that end a text, a turn or a message. The keys of many chat models name the base model's end token only.
    """
    tokens = fields.get("tokenizer.ggml.tokens")
    ids = {token: i for i, token in enumerate(tokens)} if isinstance(tokens, Texts) else {}
    named = [_key_id(fields, name) for name in ("eos", "eot", "eom")]
    filling = [_fill(fields, ids, name) for name in ("fim_pad", "fim_rep", "fim_sep")]
    by_text = [ids[text] for text in _ENDS if text in ids]
    no_ends = {ids[text] for text in _no_ends(ids)}
    ends = [one for one in [*named, *filling, *by_text] if type(one) is int and 0 <= one < n_vocab and one not in no_ends]
    return tuple(dict.fromkeys(ends))


def _key_id(fields: Mapping[str, Any], name: str) -> Any:
    default = _DEFAULT_IDS.get(name) if fields.get("tokenizer.ggml.model") == "llama" else None
    return fields.get(f"tokenizer.ggml.{name}_token_id", default)


def _fill(fields: Mapping[str, Any], ids: Mapping[str, int], name: str) -> Any:
    given = _key_id(fields, name)
    return next((ids[text] for text in _FILL[name].split() if text in ids), None) if given is None else given


def _no_ends(ids: Mapping[str, int]) -> list[str]:
    """Tokens with the text of an end token that have another purpose in this vocabulary."""
    return [text for text, (_, where) in _NO_ENDS.items() if text in ids and any(one <= ids.keys() for one in where)]


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
        texts = self.get(key, Texts, None)
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
        """Texts and types, the latter corrected by the texts as llama.cpp corrects them."""
        tokens = self.texts("tokens")
        if longest := next((one for one in tokens if len(one) > _MAX_TOKEN), None):
            raise self.missing("tokens", longest[:20] + "...", f"{len(longest)} letters make no token")
        types = self.numbers("token_type", len(tokens), _NORMAL)
        ids = {token: i for i, token in enumerate(tokens)}
        unnamed = [name for name in _FILL if _key_id(self.fields, name) is None]
        control = [_fill(self.fields, ids, name) for name in unnamed] + [ids.get(text) for text in _ENDS]
        changes = dict.fromkeys(control, _CONTROL)
        changes.update({ids.get(text): _USER_DEFINED for text in _SHOWN})
        changes.update({ids[text]: _NO_ENDS[text][0] for text in _no_ends(ids)})
        return tokens, [changes.get(i, kind) for i, kind in enumerate(types)]

    def vocabulary(self, tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
        vocab: dict[str, int] = {}
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
            if kind != _UNUSED and vocab.setdefault(token, i) != i:
                raise self.missing("tokens", token, f"this is token {vocab[token]} and token {i}")
        return vocab

    def token(self, name: str) -> str | None:
        """The text of the token that tokenizer.ggml.<name>_token_id names."""
        i, tokens = self.get(name + "_token_id", int, _key_id(self.fields, name)), self.texts("tokens")
        if i is not None and not 0 <= i < len(tokens):
            return None  # writers spell "none" as an id beyond the vocabulary
        return None if i is None else tokens[i]


# ---- the two kinds ---------------------------------------------------------------------------------------------------


def _pre(meta: _Meta) -> Pre:
    """The rule for splitting texts; for old files without one, llama.cpp's default."""
    name = "gemma4" if meta.get("model", str, "") == "gemma4" else meta.get("pre", str, "default")
    if name not in PRE:
        raise meta.missing("pre", name, f"supported rules for splitting texts are {', '.join(PRE)}")
    return PRE[name]


def _gpt2(meta: _Meta) -> tokenizers.Tokenizer:
    pre = _pre(meta)
    if meta.get("add_space_prefix", bool, False):
        raise meta.missing("add_space_prefix", True, "only false is supported for byte-pair tokenizers")
    tokens, types = meta.tokens()
    merges = []
    for merge in meta.texts("merges"):
        left, space, right = merge.partition(" ")
        if not (left and space and right) or " " in right:
            raise meta.bad(f"has the merge {merge!r}, not two tokens")
        merges.append((left, right))
    backend = tokenizers.Tokenizer(
        models.BPE(
            meta.vocabulary(tokens, types), merges, fuse_unk=False, ignore_merges=pre.whole, byte_fallback=pre.spaces
        )
    )
    if pre.nfc:
        backend.normalizer = normalizers.NFC()
    if pre.spaces:
        backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.pre_tokenizer = pre_tokenizer(pre)
    texts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(texts) if pre.spaces else decoders.ByteLevel()
    _add_tokens(meta, backend, tokens, types)
    return backend


def _llama(meta: _Meta) -> tokenizers.Tokenizer:
    if meta.fields.get("tokenizer.ggml.precompiled_charsmap") is not None:
        raise meta.missing("precompiled_charsmap", "...", "SentencePiece's normalisation is not supported")
    if meta.get("remove_extra_whitespaces", bool, False):
        raise meta.missing("remove_extra_whitespaces", True, "only false is supported")
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
    _add_tokens(meta, backend, tokens, types)
    return backend


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """All pairs of tokens that form a token, the best scores first: the order in which SentencePiece merges."""
    rank = {token: i for i, token in enumerate(tokens) if types[i] == _NORMAL}
    found = [
        (-scores[i], rank[token[:cut]], rank[token[cut:]], token[:cut], token[cut:])
        for token, i in rank.items()
        for cut in range(1, len(token))
        if token[:cut] in rank and token[cut:] in rank
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def _add_tokens(meta: _Meta, backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Add the tokens that are matched before a text is split."""
    name = meta.fields.get("general.name")
    phi3 = isinstance(name, str) and any(one in name.lower() for one in ("phi-3", "phi3"))
    for special, kinds in ((True, (_CONTROL, _UNKNOWN)), (False, (_USER_DEFINED,))):
        added = [token for token, kind in zip(tokens, types, strict=True) if kind in kinds and token]
        backend.add_tokens(
            [
                tokenizers.AddedToken(
                    token,
                    special=special,
                    normalized=False,
                    rstrip=phi3 and token not in ("<unk>", "<s>", "<|endoftext|>"),  # the format has no key for it
                )
                for token in added
            ]
        )


# ---- around a text ---------------------------------------------------------------------------------------------------


def _named(meta: _Meta) -> dict[str, str]:
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    found = {f"{ours}_token": meta.token(name) for name, ours in names.items()}
    return {name: token for name, token in found.items() if token is not None}


def _add_first_and_last(meta: _Meta, backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> None:
    """Put bos and eos around a text, by the file's keys or else by llama.cpp's defaults."""
    pre = None if meta.get("model", str, "") == "llama" else _pre(meta)
    begins = pre is None or pre.begins
    around: dict[str, list[str]] = {}
    for name, default in (("bos", begins), ("eos", False)):
        wanted = meta.get(f"add_{name}_token", bool, default) or (name == "bos" and pre is not None and pre.always)
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
        if name == key or key == start + "s":  # the list of the names
            continue
        if not isinstance(value, str):
            raise meta.bad(f"has a template of the wrong type, {key}")
        found[name] = value
    return found
