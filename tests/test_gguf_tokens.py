import copy
import json

import gguf_models
import gguf_vocabs
import hf_models
import numpy as np
import pytest
from gguf_vocabs import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch
from tokenizers import Regex, pre_tokenizers

import powersteer as ps
from powersteer.cli import main
from powersteer.errors import BadCheckpoint, NotFound, PowersteerError
from powersteer.loading.gguf_header import Texts
from powersteer.loading.gguf_pre import PRE, pre_tokenizer
from powersteer.loading.gguf_tokenizer import end_ids, gguf_tokenizer, uncertain_cut

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
    """As a file gives them: arrays of numbers are arrays, arrays of texts are Texts."""
    whole = {**meta, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}
    values = {key: value[1] for key, value in whole.items() if value is not None}
    return {key: listed(value) if isinstance(value, list) else value for key, value in values.items()}


def listed(values):
    if not isinstance(values[0], str):
        return np.array(values)
    raw = b"".join(len(text.encode()).to_bytes(8, "little") + text.encode() for text in values)
    return Texts(raw, 0, len(values), BadCheckpoint)


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


# Texts with a bar wherever they are cut; test_llama_cpp.py compares all the rows of the table with llama.cpp
CUTS = {
    "gpt-2": "I|'m| I|'|M| x|+|1234| y|  | z|\n\n",
    "default": "I|'|m| I|'|M| x|+|123|4| y|`",
    "falcon": "I|'|m| x|+| |123|4|`",
    "starcoder": "I|'m| x|+|1|2| |3",
    "llama-bpe": "I|'m| I|'M| x|+|123|4|,\n\n|  | y|.a",
    "qwen2": "I|'M|+|1|2|,\n\n|  | y",
    "qwen35": "e\u0301|'M|+|1|2|,\n\n|  | y",
    "ufakzeka": "I|'Mx|+|1|2|,\n\n|  | y",
    "gpt-4o": "camel|Case|HTTPGet| don't|,/\n|123|4",
    "tekken": "camel|Case| don|'t|,/\n|1|2",
    "tiny_aya": "camel|Case| |1|234|567",
    "kimi-k2": "camel|Case|漢字|abc|123|4|,\n|/\n",
    "deepseek-llm": "\n|\n| I|'| M|  | x| +|1234| |漢字|a",
    "deepseek-coder": "\n|\n| I|'| M|  | x| +|1|2| |漢",
    "deepseek-v3": "漢字|abc|123|4|'m| x| +,\n\n|.a",
    "superbpe": "1|234|567| a b 'c|12",
    "bloom": "a+1| b|(| c|, | d|.",
    "viking": "a+|1|2| b|(| c",
    "chameleon": "a|    |  | b|\n|!|!|1|2",
    "jais-2": "a|    | | b|,\n|123|4",
}


@pytest.mark.parametrize("pre", CUTS)
def test_where_texts_are_cut(pre):
    """The vocabulary has no merges, but whole pieces are tokens, and only pieces can be."""
    pieces, text = CUTS[pre].split("|"), CUTS[pre].replace("|", "")
    cut = pre_tokenizer(PRE[pre]).pre_tokenize_str(text)
    assert [text[begin:end] for _, (begin, end) in cut] == pieces


def test_a_file_that_does_not_say_how_texts_are_cut():
    """llama.cpp has a default for those; the reader is told."""
    for changes in ({"pre": None}, {"pre": ("string", "default")}):
        ours, _ = byte_level("gpt-2", **changes)
        assert ours.to_str_tokens(ours.encode("x 1234'm")) == make(
            gguf_vocabs.byte_level(CUT["gpt-2"], False)[0], pre=("string", "default")
        ).to_str_tokens(ours.encode("x 1234'm"))
        assert uncertain_cut(fields(gguf_vocabs.byte_level(CUT["gpt-2"], False)[0], **changes))
    assert not uncertain_cut(fields(gguf_vocabs.sentencepiece()))


def spaces(**changes):
    """A vocabulary of Gemma 4's kind: bytes are tokens, and a run of newlines is one."""
    letters = [*"▁abc\n", "ab", "▁ab", "\n\n", "▁▁"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    meta = {
        "tokenizer.ggml.model": ("string", "gemma4"),
        "tokenizer.ggml.tokens": ("array", ["<pad>", "<eos>", "<bos>", "<turn|>", "</s>", "<|tool_response>", *bytes_, *letters]),
        "tokenizer.ggml.token_type": ("array", [3, 3, 3, 1, 3, 4] + [6] * 256 + [1] * len(letters)),
        "tokenizer.ggml.merges": ("array", ["a b", "▁ ab", "\n \n", "▁ ▁"]),
        "tokenizer.ggml.bos_token_id": ("uint32", 2),
        "tokenizer.ggml.eos_token_id": ("uint32", 1),
    }
    return make(meta, **changes), fields(meta, **changes)


def test_gemma4():
    ours, found = spaces(add_bos_token=("bool", False))  # which llama.cpp takes for a mistake
    text = "ab  ab\n\n é<turn|>c"
    ids = ours.encode(text)
    assert ids[0] == ours.bos_id == 2 and ours.decode(ids) == text.replace("<turn|>", "")
    tokens = [found["tokenizer.ggml.tokens"][i] for i in ids[1:]]
    assert tokens == ["ab", "▁", "▁ab", "\n\n", "▁", "<0xC3>", "<0xA9>", "<turn|>", "c"]
    assert end_ids(found, 999) == (1, 3, 5)  # not "</s>", a plain token where there is a "<|tool_response>"
    assert "</s>" not in ours.special_tokens


def chat(tokens, **changes):
    """Fields with a few tokens of one type, whose eos is the first."""
    meta = {"tokenizer.ggml.model": ("string", "gpt2"), "tokenizer.ggml.tokens": ("array", tokens),
            "tokenizer.ggml.token_type": ("array", [3] * len(tokens)), "tokenizer.ggml.eos_token_id": ("uint32", 0)}  # fmt: skip
    return fields(meta, **changes)


@pytest.mark.parametrize(
    "tokens, changes, ends",
    [
        (["a", "<|im_end|>", "<|im_start|>"], {}, "a <|im_end|>"),
        (["</s>", "<end_of_turn>", "<start_of_turn>"], {}, "</s> <end_of_turn>"),
        (["a", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>"], {}, "a <|eot_id|> <|eom_id|>"),
        (["a", "<|im_end|>"], dict(token_type=("array", [1, 1])), "a <|im_end|>"),  # whatever its type
        (["a", "b", "c", "d"], dict(eot_token_id=("uint32", 2), eom_token_id=("uint32", 3)), "a c d"),
        (["a", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|fim_prefix|>"], {}, "a <|fim_pad|> <|repo_name|> <|file_sep|>"),
        (["a", "<|fim_pad|>", "b"], dict(fim_pad_token_id=("uint32", 2)), "a b"),
        (["<|return|>", "<|call|>", "<|end|>"], {}, "<|return|> <|call|>"),  # where <|end|> ends a message only
        (["<|return|>", "<|end|>"], {}, "<|return|> <|end|>"),
        (["a", "<｜end▁of▁sentence｜>", "_<EOT>", "[e~["], {}, "a _<EOT> <｜end▁of▁sentence｜> [e~["),
        (["a", "b", "c"], dict(eos_token_id=None), ""),
        (["a", "b", "c"], dict(eos_token_id=None, model=("string", "llama")), "c"),  # id 2 by default
    ],
)
def test_what_ends_a_turn(tokens, changes, ends):
    found = chat(tokens, **changes)
    assert [tokens[i] for i in end_ids(found, len(tokens))] == ends.split()
    assert end_ids(found, 1) in ((), (0,))  # ids beyond the model's are no ends
    assert end_ids({"tokenizer.ggml.eos_token_id": np.arange(2), "tokenizer.ggml.tokens": "text"}, 9) == ()


def test_a_token_that_ends_a_turn_is_found_in_a_text_whatever_its_type():
    for kind in (1, 3, 4):
        whole = {"<|im_end|>": kind, "<|channel|>": kind, "<fim_prefix>": kind, "a": 1, "aa": 1}
        ours = make({}, model=("string", "gpt2"), pre=("string", "gpt-2"), tokens=("array", list(whole)), merges=("array", ["a a"]),
                    token_type=("array", list(whole.values())))  # fmt: skip
        assert ours.encode("a<|im_end|>a<|channel|><fim_prefix>").tolist() == [3, 0, 3, 1, 2]
        assert ours.special_tokens == {"<|im_end|>": 0, "<fim_prefix>": 2}  # the channel's name is part of an answer


def test_phi3_drops_spaces_after_its_own_tokens():
    meta = {**gguf_vocabs.sentencepiece(), "general.name": ("string", "Phi 3 mini phi3")}
    ours, plain = make(meta), make(gguf_vocabs.sentencepiece())
    assert ours.encode("<tool>  the").tolist() == plain.encode("<tool>the").tolist() != plain.encode("<tool>  the").tolist()
    assert ours.encode("<s>  the").tolist() == plain.encode("<s>  the").tolist()


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
        (dict(pre=("string", "afmoe")), NotFound, "pre = 'afmoe'.*gpt-2, .*falcon.*llama-bpe, .*qwen2"),
        (dict(pre=("string", "")), NotFound, "pre = ''"),
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


def test_a_note_on_the_tokenizer_is_not_taken_for_a_missing_one(tmp_path, capsys):
    meta, original = gguf_vocabs.byte_level(CUT["gpt-2"], False)
    hf = resized(hf_models.make("llama"), len(meta["tokenizer.ggml.tokens"][1]))
    model = ps.load(gguf_models.write(tmp_path / "m.gguf", hf, top=meta))
    (note,) = model.notes
    assert "no tokenizer.ggml.pre" in note and "no tokenizer " not in note and "notes" not in repr(model)
    assert model.tokens("abc").tolist() == original.encode("abc").ids
    assert main(["info", str(tmp_path / "m.gguf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]


def resized(hf, n_vocab):
    hf = copy.deepcopy(hf)
    g = torch.Generator().manual_seed(5)
    for name, parameter in hf.named_parameters():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            parameter.data = torch.randn(n_vocab, hf.config.hidden_size, generator=g) * 0.3
    hf.config.vocab_size = n_vocab
    return hf
