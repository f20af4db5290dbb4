"""GGUF files from strangers: every lie about a count, a length, an offset, a type or a name is one PowersteerError, found
without allocating what the lie asks for."""

import struct
import tracemalloc
from functools import cache

import gguf_vocabs
import hf_models
import pytest
from gguf_models import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_gguf_tokens import CUT, resized

from powersteer.errors import BadCheckpoint, PowersteerError, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.gguf import _library
from powersteer.loading.gguf_header import read_header

HUGE = [2**31, 2**32 - 1, 2**40, 2**61, 2**63, 2**64 - 1]
U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10


_library()  # its tables are made now, not while memory is measured


def loaded(path, data):
    """Load a file of these bytes and make its tokenizer; whatever happens, in little memory. An error is short."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        checkpoint = load_checkpoint(path)
        assert checkpoint.tokenizer is not None or checkpoint.notes
        assert all(0 <= one < checkpoint.spec.n_vocab for one in checkpoint.eos_ids)
        return checkpoint
    except PowersteerError as error:
        assert len(str(error)) < 2000
        raise
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20, f"{peak} bytes for a file of {len(data)}"


# ---- files made byte by byte -----------------------------------------------------------------------------------------


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def field(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def info(name="t", dims=(4,), kind=0, offset=0, n_dims=None):
    counted = struct.pack("<I", len(dims) if n_dims is None else n_dims)
    return text(name) + counted + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def file(fields=(), infos=(), data=bytes(256)):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(fields)) + b"".join([*fields, *infos])
    return head + bytes(-len(head) % 32) + data


def number(value):
    return struct.pack("<I", value)


def array(kind, n, data=b""):
    return struct.pack("<IQ", kind, n) + data


FIELDS = {
    "a text beyond the file": (field("k", STRING, struct.pack("<Q", 10**6)), "beyond"),
    "bytes beyond the file": (field("k", ARRAY, array(U8, 2**40)), "beyond"),
    "numbers that overflow": (field("k", ARRAY, array(U64, 2**61)), "beyond"),
    "texts beyond the file": (field("k", ARRAY, array(STRING, 2**63)), "beyond"),
    "an array of arrays": (field("k", ARRAY, array(ARRAY, 2, array(U8, 1, b"a") * 2)), "array of the value type 9"),
    "an unknown type": (field("k", 13, bytes(8)), "unknown value type 13"),
    "an array of an unknown type": (field("k", ARRAY, array(2**32 - 1, 1)), "value type 4294967295"),
    "a key without letters": (field("", U32, number(1)), "key of 0 letters"),
    "a long key": (field("k" * 70_000, U32, number(1)), "key of 70000 letters"),
    "a key that is not UTF-8": (field(b"\xff\xfe", U32, number(1)), "not UTF-8"),
    "a text that is not UTF-8": (field("k", STRING, text(b"ab\xc3")), "not UTF-8"),
    "an alignment of 0": (field("general.alignment", U32, number(0)), "general.alignment is 0"),
    "an alignment of 3": (field("general.alignment", U32, number(3)), "general.alignment is 3"),
    "an alignment that is a text": (field("general.alignment", STRING, text("32")), "general.alignment is '32'"),
    "an alignment that is an array": (field("general.alignment", ARRAY, array(U8, 1, b"\x20")), "general.alignment"),
}


@pytest.mark.parametrize("made, message", FIELDS.values(), ids=FIELDS)
def test_fields(made, message, tmp_path):
    with pytest.raises(BadCheckpoint, match=message):
        loaded(tmp_path / "m.gguf", file([made], [info()]))


def test_texts_are_decoded_when_they_are_read(tmp_path):
    (tmp_path / "m.gguf").write_bytes(
        file([field("good", ARRAY, array(STRING, 3, text("a") + text("") + text("é"))),
              field("bad", ARRAY, array(STRING, 2, text("a") + text(b"\x80")))], [info()])
    )  # fmt: skip
    fields = read_header(tmp_path / "m.gguf").fields
    assert list(fields["good"]) == ["a", "", "é"] and fields["good"][2] == "é" and len(fields["bad"]) == 2
    with pytest.raises(BadCheckpoint, match="m.gguf: the text at byte .* is not UTF-8"):
        list(fields["bad"])


def test_a_key_twice(tmp_path):
    with pytest.raises(BadCheckpoint, match="key 'k' twice"):
        loaded(tmp_path / "m.gguf", file([field("k", U32, number(1)), field("k", STRING, text("x"))]))


@pytest.mark.parametrize("alignment", [2**31, 2**63])
def test_a_huge_alignment(alignment, tmp_path):
    with pytest.raises(BadCheckpoint, match="beyond"):
        loaded(tmp_path / "m.gguf", file([field("general.alignment", U64, struct.pack("<Q", alignment))], [info()]))


INFOS = {
    "no dimension": (info(dims=()), "0 dimensions"),
    "five dimensions": (info(dims=(1,) * 5), "5 dimensions"),
    "a huge number of dimensions": (info(n_dims=2**32 - 1), "4294967295 dimensions"),
    "an empty dimension": (info(dims=(4, 0)), r"shape \(0, 4\)"),
    "a size that overflows to nothing": (info(dims=(2**32, 2**32)), "beyond"),
    "a size that overflows": (info(dims=(2**63, 2**63, 2**63, 8)), "beyond"),
    "more than the file": (info(dims=(65,)), "beyond"),
    "an offset beyond the file": (info(offset=10**9), "beyond"),
    "the largest offset": (info(offset=2**64 - 1), "beyond"),
    "a name without letters": (info(name=""), "tensor of 0 letters"),
    "a name that is not UTF-8": (info(name=b"\xff"), "not UTF-8"),
    "broken blocks": (info(kind=8, dims=(33,)), "'t' are not whole blocks of 32"),
    "broken large blocks": (info(kind=12, dims=(288, 2)), "288 numbers of tensor 't' are not whole blocks of 256"),
    "blocks that end early": (info(kind=12, dims=(256, 2)), "tensor 't' extends beyond"),  # 288 bytes
}


@pytest.mark.parametrize("made, message", INFOS.values(), ids=INFOS)
def test_tensors(made, message, tmp_path):
    with pytest.raises(BadCheckpoint, match=message):
        loaded(tmp_path / "m.gguf", file(infos=[made]))


@pytest.mark.parametrize("kind", [4, 5, 24, 26, 27, 99, 2**32 - 1])
def test_tensor_types_that_are_none(kind, tmp_path):
    with pytest.raises(UnsupportedModel, match="tensor 't'.*Q8_0"):
        loaded(tmp_path / "m.gguf", file(infos=[info(kind=kind)]))


def test_tensors_that_share(tmp_path):
    for infos, message in (
        ([info("a"), info("b", offset=8)], "'a' and 'b' overlap"),
        ([info("a", offset=32), info("b", dims=(9,), offset=0)], "'b' and 'a' overlap"),
        ([info("a"), info("a", offset=32)], "tensor 'a' twice"),
    ):
        with pytest.raises(BadCheckpoint, match=message):
            loaded(tmp_path / "m.gguf", file(infos=infos))


@pytest.mark.parametrize("at", [8, 16, 24])
@pytest.mark.parametrize("count", HUGE)
def test_huge_counts(at, count, tmp_path):
    """Numbers of tensors and fields, and the length of the first key."""
    data = file([field("k", U32, number(1))], [info()])
    with pytest.raises(BadCheckpoint):
        loaded(tmp_path / "m.gguf", data[:at] + struct.pack("<Q", count) + data[at + 8 :])


# ---- models with a lie -----------------------------------------------------------------------------------------------

VOCABULARIES = {
    "gpt2": {**gguf_vocabs.byte_level(CUT["llama-bpe"])[0], "tokenizer.ggml.pre": ("string", "llama-bpe")},
    "llama": gguf_vocabs.sentencepiece(),
}


@cache
def model(kind):
    """(a tiny transformers model, the metadata of its tokenizer)"""
    meta = VOCABULARIES[kind]
    return resized(hf_models.make("llama-biases"), len(meta["tokenizer.ggml.tokens"][1])), meta


@pytest.fixture(scope="module", params=VOCABULARIES)
def whole(request, tmp_path_factory):
    """(bytes of a model with its tokenizer, where its tensors begin)"""
    hf, meta = model(request.param)
    data = write(tmp_path_factory.mktemp("gguf") / "m.gguf", hf, top=meta).read_bytes()
    tensors = sum(parameter.numel() * 4 + -parameter.numel() * 4 % 32 for parameter in hf.parameters())
    return data, len(data) - tensors


def test_the_model_itself_loads(whole, tmp_path):
    checkpoint = loaded(tmp_path / "m.gguf", whole[0])
    assert checkpoint.tokenizer is not None and checkpoint.notes == ()


def test_every_truncation(whole, tmp_path):
    data, start = whole
    for n in [*range(0, start, 97), *range(start, len(data) - 32, 5003), len(data) - 33]:
        with pytest.raises(BadCheckpoint, match="beyond|shorter"):
            loaded(tmp_path / "m.gguf", data[:n])


WRONG = {
    "text": ("string", "x"),
    "number": ("uint32", 2**32 - 1),
    "negative": ("int32", -1),
    "fraction": ("float32", 0.5),
    "nan": ("float64", float("nan")),
    "flag": ("bool", True),
    "numbers": ("array", [1, 2]),
    "texts": ("array", ["a", "b"]),
}
KEYS = [
    *(f"llama.{key}" for key in ("block_count", "embedding_length", "attention.head_count", "attention.key_length",
                                 "attention.layer_norm_rms_epsilon", "context_length", "rope.freq_base",
                                 "rope.dimension_count", "rope.scaling.factor", "vocab_size")),
    *(f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges", "scores", "bos_token_id",
                                          "eos_token_id", "add_bos_token", "add_space_prefix")),
    "tokenizer.chat_template", "general.type", "split.count",
]  # fmt: skip
HARMLESS = {  # what may be said of these without harm: load as if it were not there, or mean it
    "llama.attention.layer_norm_rms_epsilon": {"number", "fraction"},
    "llama.rope.freq_base": {"number"},
    "llama.rope.scaling.factor": {"number", "fraction"},
    "tokenizer.ggml.pre": {"text"},  # no tokenizer, and a note that says so
    "tokenizer.ggml.model": {"text"},
    "tokenizer.ggml.bos_token_id": {"number", "negative"},  # none; a text then begins without it
    "tokenizer.ggml.eos_token_id": {"number", "negative"},
    "tokenizer.ggml.add_bos_token": {"flag"},
    "tokenizer.ggml.add_space_prefix": {"flag"},
    "tokenizer.chat_template": {"text"},
    "split.count": {"flag"},  # one
}


@pytest.mark.parametrize("key", KEYS)
def test_values_of_the_wrong_kind(key, tmp_path):
    """Nothing but a PowersteerError comes of them."""
    hf, meta = model("llama" if key.endswith(("scores", "space_prefix")) else "gpt2")
    for name, value in WRONG.items():
        changed = {"meta": {key.removeprefix("llama."): value}} if key.startswith("llama.") else {}
        top = meta if changed else {**meta, key: value}
        data = write(tmp_path / "w.gguf", hf, top=top, **changed).read_bytes()
        try:
            loaded(tmp_path / "m.gguf", data)
            passed = True
        except PowersteerError:
            passed = False
        assert passed == (name in HARMLESS.get(key, ())), (key, name)


def test_merges_in_a_circle(tmp_path):
    tokens = [*(chr(c) for c in range(97, 100)), "ab", "ba", "aba"]
    meta = {"tokenizer.ggml.model": ("string", "gpt2"), "tokenizer.ggml.pre": ("string", "gpt-2"),
            "tokenizer.ggml.tokens": ("array", tokens),
            "tokenizer.ggml.merges": ("array", ["a b", "b a", "ab a", "a ba", "a b"])}  # fmt: skip
    hf = resized(hf_models.make("llama-biases"), len(tokens))
    checkpoint = loaded(tmp_path / "m.gguf", write(tmp_path / "w.gguf", hf, top=meta).read_bytes())
    assert checkpoint.tokenizer.to_str_tokens(checkpoint.tokenizer.encode("ababab")) == ["aba", "ba", "b"]


NUMBERS = [struct.pack("<Q", n) for n in [0, 1, *HUGE]] + [struct.pack("<I", n) for n in range(32)]
EDIT = st.tuples(st.integers(0, 2**20), st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(EDIT, min_size=1, max_size=3), end=st.one_of(st.just(0), st.integers(0, 2**20)))
def test_damaged_files_are_errors(edits, end, whole, tmp_path):
    original, start = whole
    damaged = bytearray(original)
    for at, new in edits:
        damaged[at % start : at % start + len(new)] = new
    damaged = damaged[: len(damaged) - end % len(damaged)]
    try:
        checkpoint = loaded(tmp_path / "m.gguf", bytes(damaged))  # some damage does no harm, such as to a general key
    except PowersteerError:
        return
    if checkpoint.tokenizer is not None:
        ids = checkpoint.tokenizer.encode("Hello world, it's 10°")
        assert (ids < checkpoint.spec.n_vocab).all()
