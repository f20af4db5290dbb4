"""Small vocabularies as GGUF metadata, trained on a few sentences."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import gguf
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? I'll say we've seen 1234567 of them.",
    "Hello world!  Two  spaces,   three, a\ttab\nand\n\n  new lines. ",
    "Ünïcödé näive café 日本語 🙂👩‍👩‍👧 e\u0301 ﬁ Ⅷ ½ ٣٤",
    "def f(x):\n    return x**2 + 10_000 == y  # THE'S IT'S\r\n",
    "don't DON'T   trailing   ",
    " leading, and <0x41> ▁ as text",
]
PIECES = ["a", " B", " ", "   ", "\n", "\n\n", "\r\n", "\t", "1", "12345", "é", "'s", "'LL", " ' ", "...", "!?", "日本", "漢字かな", "🙂",
          "½", "\u00a0", " SCREAM", "don't", "$5", "`x`", "/path/\n", "ا،", "Ⅷ", "²", "_", "\\", "[x]", "--", " (c)"]  # fmt: skip
CORPUS = TEXTS * 3 + ["the theory of the thing is that these things then thrive there"] * 4
SPECIAL = {"gpt2": ["<|begin|>", "<|end|>"], "llama": ["<unk>", "<s>", "</s>"]}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


@cache
def byte_level(cut, normaliser=None):
    """(metadata, the tokenizer that it describes). cut: a pre-tokenizer's state, as JSON."""
    backend = tokenizers.Tokenizer(models.BPE(fuse_unk=False))
    backend.pre_tokenizer = cut
    if normaliser:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    backend.add_special_tokens(SPECIAL["gpt2"])
    backend.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    vocab = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    kinds = {**dict.fromkeys(SPECIAL["gpt2"], CONTROL), "<tool>": USER_DEFINED}
    merges = json.loads(backend.to_str())["model"]["merges"]
    meta = {
        "model": ("string", "gpt2"),
        "tokens": ("array", [token for token, _ in vocab]),
        "token_type": ("array", [kinds.get(token, NORMAL) for token, _ in vocab]),
        "merges": ("array", [" ".join(merge) for merge in merges]),
        "bos_token_id": ("uint32", backend.token_to_id("<|begin|>")),
        "eos_token_id": ("uint32", backend.token_to_id("<|end|>")),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in meta.items()}, backend


@cache
def sentencepiece():
    """Metadata of a SentencePiece BPE with bytes, its scores falling with the order of the merges."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    trained.train_from_iterator(CORPUS[:2] + CORPUS[-4:], trainers.BpeTrainer(vocab_size=150, show_progress=False))
    pieces = [token for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    long = [piece for piece in pieces if len(piece) > 1]
    letters = [piece for piece in pieces if len(piece) == 1]
    tokens = [*SPECIAL["llama"], *bytes_, *long, *letters, "<tool>"]
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces) + [USER_DEFINED]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))] + [0.0]
    meta = {
        "model": ("string", "llama"),
        "tokens": ("array", tokens),
        "token_type": ("array", kinds),
        "scores": ("array", scores),
        "bos_token_id": ("uint32", 1),
        "eos_token_id": ("uint32", 2),
        "unknown_token_id": ("uint32", 0),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in meta.items()}


@cache
def uncut(spaces=False):
    """Metadata of a BPE trained on texts that are not cut, so that its tokens show where a reader cuts them.
    spaces: tokens are texts with "▁" for a space and bytes of their own, not GPT-2's spelling of bytes."""
    corpus = [*TEXTS, *(a + b for a in PIECES for b in PIECES)]
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    limits = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    if spaces:
        trained.normalizer = normalizers.Replace(" ", "▁")
        trained.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
        # the most frequent letters; of those that are as frequent as each other the trainer would take any
        letters = Counter("".join(corpus).replace(" ", "▁"))
        limits = {"limit_alphabet": 60, "initial_alphabet": sorted(letters, key=lambda x: (-letters[x], x))[:60]}
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=2500, max_token_length=12, show_progress=False, **limits))
    tokens = [token for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if spaces else []
    meta = {
        "model": ("string", "gpt2"),
        "tokens": ("array", [*tokens, *bytes_, "<|begin|>", "<|end|>"]),
        "token_type": ("array", [NORMAL] * len(tokens) + [BYTE] * len(bytes_) + [CONTROL] * 2),
        "merges": ("array", [" ".join(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]),
        "bos_token_id": ("uint32", len(tokens) + len(bytes_)),
        "eos_token_id": ("uint32", len(tokens) + len(bytes_) + 1),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in meta.items()}


def write_vocabulary(path, meta):
    """A GGUF file of nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, (kind, value) in {**meta, "llama.vocab_size": ("uint32", len(meta["tokenizer.ggml.tokens"][1]))}.items():
        getattr(writer, "add_" + kind)(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
