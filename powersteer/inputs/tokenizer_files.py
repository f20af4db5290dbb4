"""Tokenizers of checkpoint folders: tokenizer.json or GPT-2's first files, and the configs beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tokenizers

from .._util.json_files import read_json
from ..errors import BadCheckpoint, NotFound

__all__ = ["from_library", "has_tokenizer", "read_tokenizer"]

T = TypeVar("T")


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint folder has a file that a tokenizer can be made of."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def read_tokenizer(folder: Path, model_type: str) -> tuple[tokenizers.Tokenizer, dict[str, str], dict[str, str]]:
    """(the tokenizer, special tokens by name, chat templates by name) of a checkpoint folder.

    Raises NotFound if there is no tokenizer that can be read, BadCheckpoint for damaged files.
    """
    config = _read_object(folder / "tokenizer_config.json")
    named, extra = _special_tokens(folder, config)
    path = folder / "tokenizer.json"
    if path.is_file():
        backend = _guarded(path, tokenizers.Tokenizer.from_file)
        cut = backend.pre_tokenizer
        if gpt2 := config.get("tokenizer_class") in _GPT2 and isinstance(cut, tokenizers.pre_tokenizers.ByteLevel):
            cut.add_prefix_space = bool(config.get("add_prefix_space"))
    else:
        backend, gpt2 = _gpt2_files(folder, config, model_type), True
    if gpt2:
        named = {**dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), **named}
    _add_tokens(backend, folder, config, named, extra)
    if not path.is_file():
        _put_around(backend, config, named)
    texts = {name: text for name, token in named.items() if (text := _content(token)) is not None}
    return backend, texts, _templates(folder, config)


def _guarded(path: Path, read: Callable[[str], T]) -> T:
    """`read(path)`, a function of the tokenizers library whose errors become BadCheckpoint."""
    try:
        return read(str(path))
    except BaseException as error:
        if not from_library(error):
            raise
        raise BadCheckpoint(f"{path} is not a tokenizer that can be read ({error}); download it again") from None


def from_library(error: BaseException) -> bool:
    """Whether the tokenizers library raised this. Its panics derive from BaseException only."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no file."""
    return read_json(path) if path.is_file() else {}


def _content(token: Any) -> str | None:
    """Text of a token in a config, which is a string or an object with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Special tokens with a name, {"bos_token": a string, an object or null}, and special tokens without a name.

    From tokenizer_config.json, overridden by the older special_tokens_map.json unless the config lists its added tokens.
    """
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
    """An AddedToken from a string, or from an object with its content and options."""
    given = {name: token[name] for name in _OPTIONS if isinstance(token.get(name), bool)} if isinstance(token, dict) else {}
    return tokenizers.AddedToken(_content(token), **{**given, **options})


def _listed_tokens(
    folder: Path, config: Mapping[str, Any], special: set[str]
) -> tuple[Path, list[tuple[int, tokenizers.AddedToken]]]:
    """The added tokens that a file lists with their ids, in the order of the ids, and that file."""
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
    """Add the tokens that the configs name, in the order in which transformers adds them: a token that the vocabulary
    lacks gets the next id."""
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
    """GPT-2's tokenizer from vocab.json and merges.txt, the only files of its first release."""
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
    """Put the tokens around a text that the config of GPT-2's files requests."""
    names = [("bos_token", "add_bos_token"), ("eos_token", "add_eos_token")]
    first, last = ([text] if config.get(flag) and (text := _content(named[name])) else [] for name, flag in names)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=[*first, "$A", *last],
        special_tokens=[(token, backend.token_to_id(token)) for token in {*first, *last}],
    )


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: from files, or else from tokenizer_config.json (one template, or a list with names)."""
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
