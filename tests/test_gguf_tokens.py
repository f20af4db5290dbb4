import copy

import gguf_models
import gguf_vocabs
import hf_models
import numpy as np
import pytest
import torch
from gguf_vocabs import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

import powersteer as ps
from powersteer.errors import BadCheckpoint, NotFound, PowersteerError
from powersteer.loading.gguf_tokens import end_ids, gguf_tokenizer

# As tokenizer.json of Llama 3 and Qwen 2 spell them
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUT = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES]),
    "deepseek-r1-qwen": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES]),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
}


def fields(meta, **changes):
    """As a file gives them: arrays of numbers are arrays."""
    whole = {**meta, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}
    values = {key: value[1] for key, value in whole.items() if value is not None}
    return {
        key: np.array(value) if isinstance(value, list) and not isinstance(value[0], str) else value
        for key, value in values.items()
    }


def make(meta, **changes):
    found = fields(meta, **changes)
    return gguf_tokenizer(found, len(found.get("tokenizer.ggml.tokens", [])), "m.gguf")


def byte_level(kind, **changes):
    meta, original = gguf_vocabs.byte_level(CUT[kind], kind == "qwen2")
    return make(meta, **{"pre": ("string", kind), **changes}), original


@pytest.mark.parametrize("pre", CUT)
def test_byte_level(pre):
    ours, original = byte_level(pre, add_bos_token=("bool", False))
    assert ours.bos_id is None
    for text in [*TEXTS, "a<tool>b<|end|> c"]:
        wanted = original.encode(text).ids
        np.testing.assert_array_equal(ours.encode(text), wanted)
        assert ours.decode(wanted) == original.decode(wanted)
    assert ours.special_tokens == {"<|begin|>": original.token_to_id("<|begin|>"), "<|end|>": original.token_to_id("<|end|>")}


def test_a_piece_that_is_a_token_though_no_merges_make_it():
    """Llama 3 takes it whole, the others do not."""
    for pre, wanted in (("llama-bpe", ["fox"]), ("gpt-2", ["f", "o", "x"])):
        ours = make({"tokenizer.ggml.model": ("string", "gpt2"), "tokenizer.ggml.pre": ("string", pre),
                     "tokenizer.ggml.tokens": ("array", ["f", "o", "x", "fox", "fx"]),
                     "tokenizer.ggml.merges": ("array", ["f x"]), "tokenizer.ggml.add_bos_token": ("bool", False)})  # fmt: skip
        assert ours.to_str_tokens(ours.encode("fox")) == wanted


def test_the_first_token_is_what_the_file_says_or_llama_cpp_assumes():
    for pre, changes, wanted in (
        ("gpt-2", {}, False),
        ("llama-bpe", {}, True),
        ("gpt-2", {"add_bos_token": ("bool", True)}, True),
    ):
        ours, original = byte_level(pre, **changes)
        begin = original.token_to_id("<|begin|>")
        assert ours.bos_id == (begin if wanted else None)
        assert ours.encode("fox").tolist() == [begin] * wanted + original.encode("fox").ids


def test_the_last_token():
    ours, original = byte_level("gpt-2", add_eos_token=("bool", True))
    assert ours.encode("fox").tolist() == [*original.encode("fox").ids, original.token_to_id("<|end|>")]
    assert ours.bos_id is None


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("text", [text.strip("\r") for text in TEXTS])
def test_sentencepiece_round_trip(prefix, text):
    ours = make(gguf_vocabs.sentencepiece(), add_space_prefix=("bool", prefix))
    ids = ours.encode(text)
    assert ids[0] == ours.bos_id == 1
    assert ours.decode(ids) == text.replace("▁", " ")
    assert 0 not in ids  # bytes stand in for what is no token


def test_sentencepiece_takes_the_best_score_first():
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "a", "b", "c", "ab", "bc", "abc"]
    meta = {
        "tokenizer.ggml.model": ("string", "llama"),
        "tokenizer.ggml.tokens": ("array", pieces),
        "tokenizer.ggml.token_type": ("array", [2, 3, 3] + [6] * 256 + [1] * 6),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }
    for last, ab, bc, wanted in (
        ("abc", -1.0, -2.0, ["abc"]),
        ("zzz", -1.0, -2.0, ["ab", "c"]),
        ("zzz", -2.0, -1.0, ["a", "bc"]),
    ):
        tokens = ("array", [*pieces[:-1], last])
        ours = make({**meta, "tokenizer.ggml.scores": ("array", [0.0] * 262 + [ab, bc, -9.0])}, tokens=tokens)
        assert ours.to_str_tokens(ours.encode("abc")) == wanted


def test_templates_and_ends():
    meta, original = gguf_vocabs.byte_level(CUT["gpt-2"], False)
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    whole = fields({**meta, "tokenizer.chat_template": ("string", template), "tokenizer.chat_template.tool_use": ("string", "T")},
                   pre=("string", "gpt-2"), eot_token_id=("uint32", 3))  # fmt: skip
    ours = gguf_tokenizer(whole, 500, "m.gguf")
    assert ours.render([{"role": "user", "content": "fox"}]) == "<|begin|>fox"
    assert ours.templates["tool_use"] == "T"
    assert end_ids(whole, 500) == (original.token_to_id("<|end|>"), 3)


def test_the_first_token_comes_once():
    """However it is asked for: by the file, in the text, by the template."""
    meta, original = gguf_vocabs.byte_level(CUT["llama-bpe"], False)
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    ours = make({**meta, "tokenizer.chat_template": ("string", template)}, pre=("string", "llama-bpe"))
    wanted = [original.token_to_id("<|begin|>"), *original.encode("fox").ids]
    assert ours.encode("fox").tolist() == ours.encode("<|begin|>fox").tolist() == wanted
    assert ours.encode_chat([{"role": "user", "content": "fox"}]).tolist() == wanted


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (dict(model=("string", "bert")), NotFound, "model = 'bert'"),
        (dict(model=None), NotFound, "model = None"),
        (dict(pre=("string", "default")), NotFound, "pre = 'default'.*gpt-2, llama-bpe, qwen2, deepseek-r1-qwen, smollm"),
        (dict(pre=None), NotFound, "pre = None"),
        (dict(add_bos_token=("bool", True), bos_token_id=None), NotFound, "no bos_token_id"),
        (dict(add_bos_token=("bool", True), bos_token_id=("uint32", 10**6)), NotFound, "no bos_token_id"),
        (dict(add_bos_token=("uint32", 1)), BadCheckpoint, "add_bos_token of the wrong type"),
        (dict(merges=None), BadCheckpoint, "lacks its merges"),
        (dict(merges=("array", ["a b c"])), BadCheckpoint, "merge 'a b c'"),
        (dict(merges=("array", ["a zzzz"])), BadCheckpoint, "no tokenizer"),
        (dict(token_type=("array", [1, 2])), BadCheckpoint, "2 token_type for"),
        (dict(tokens=("array", ["a", "b", "a"]), token_type=None, merges=("array", ["a b"])), NotFound, "token 0 and token 2"),
        (dict(tokens=("array", ["a" * 600]), token_type=None), NotFound, "600 letters"),
    ],
)  # fmt: skip
def test_what_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        byte_level("gpt-2", **changes)


def test_sentencepiece_that_is_refused():
    for changes, message in (
        (dict(precompiled_charsmap=("array", [1, 2])), "precompiled_charsmap"),
        (dict(remove_extra_whitespaces=("bool", True)), "remove_extra_whitespaces"),
        (dict(tokens=("array", ["a", "b"]), token_type=None, scores=None), "single bytes"),
    ):
        with pytest.raises(NotFound, match=message):
            make(gguf_vocabs.sentencepiece(), **changes)


TEXT = st.text(max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["gpt2", "llama"]),
    tokens=st.lists(st.one_of(TEXT, st.sampled_from(["a", "b", "ab", "<s>"])), max_size=8),
    types=st.lists(st.integers(-1, 9), max_size=8),
    merges=st.lists(st.one_of(TEXT, st.sampled_from(["a b", "ab a"])), max_size=4),
    bos=st.integers(0, 12),
)
def test_hostile_metadata_is_an_error(kind, tokens, types, merges, bos):
    meta = {"model": kind, "tokens": tokens, "token_type": np.array(types, np.int32), "merges": merges,
            "pre": "llama-bpe", "bos_token_id": bos}  # fmt: skip
    if kind == "llama":
        meta["tokens"] = [f"<0x{i:02X}>" for i in range(256)] + tokens
        meta["token_type"] = np.array(([6] * 256 + types)[: len(meta["tokens"])], np.int32)
    try:
        made = gguf_tokenizer({f"tokenizer.ggml.{key}": value for key, value in meta.items()}, len(tokens), "m.gguf")
        made.encode("ab a")
    except PowersteerError:
        return


def test_a_model_with_its_tokenizer(tmp_path):
    meta, original = gguf_vocabs.byte_level(CUT["qwen2"], True)
    hf = resized(hf_models.make("qwen2"), len(meta["tokenizer.ggml.tokens"][1]))
    path = gguf_models.write(tmp_path / "m.gguf", hf, top={**meta, "tokenizer.ggml.pre": ("string", "qwen2")})
    model = ps.load(path)
    np.testing.assert_array_equal(model(TEXTS[0]), model(original.encode(TEXTS[0]).ids))
    assert model.end_tokens == {original.token_to_id("<|end|>")}


def resized(hf, n_vocab):
    hf = copy.deepcopy(hf)
    g = torch.Generator().manual_seed(5)
    for name, parameter in hf.named_parameters():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            parameter.data = torch.randn(n_vocab, hf.config.hidden_size, generator=g) * 0.3
    hf.config.vocab_size = n_vocab
    return hf
