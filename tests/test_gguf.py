import copy
import json
import re
import struct
from pathlib import Path

import gguf_models
import hf_configs
import hf_models
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf import dequantize, quantize
from gguf_models import put, random_blocks, write
from oracles import torch
from random_checkpoints import GEMMA

import powersteer as ps
from powersteer.errors import BadCheckpoint, NotFound, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.blocks import Blocks
from powersteer.loading.gguf_header import Texts

TOKENS = [5, 1, 44, 17, 9, 58, 3, 3, 20, 31, 2, 60]


def logits(model):
    return model(TOKENS)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    made = {}

    def file(name):
        if name not in made:
            made[name] = write(folder / f"{name}.gguf", rounded(hf_models.make(name)))
        return made[name]

    return file


def rounded(hf):
    """Gemma's gains are stored with 1 added; make that exact."""
    hf = copy.deepcopy(hf)
    for name, parameter in hf.named_parameters():
        if "norm" in name and hf_models.family_of(hf) in GEMMA:
            parameter.data = (parameter.data * 1024).round() / 1024
    return hf


def error(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "llama-biases", "llama-tied", "llama-linear", "llama-yarn", "qwen2", "qwen3",
                                  "qwen3-biases", "gemma", "phi3", "phi3-window_partial"])  # fmt: skip
def test_float32_files_give_what_transformers_gives(name, files):
    if name == "llama-tied":  # has another activation, which the format cannot say
        hf = copy.deepcopy(hf_models.make("llama"))
        hf.lm_head.weight = hf.model.embed_tokens.weight
        hf.config.tie_word_embeddings = True
        path = write(files("llama").parent / "tied.gguf", hf)
    else:
        hf, path = rounded(hf_models.make(name)), files(name)
    wanted = logits(ps.from_transformers(hf, dtype=np.float64))
    assert error(logits(ps.load(path, dtype=np.float64)), wanted) < 1e-14


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "gemma3_text-two_ropes"])
def test_later_gemmas(name, tmp_path):
    hf = rounded(hf_models.make(name))
    hf.config.query_pre_attn_scalar = hf.config.head_dim  # the format has no other
    path = write(tmp_path / "m.gguf", hf)
    wanted = logits(ps.from_transformers(hf, dtype=np.float64))
    assert error(logits(ps.load(path, dtype=np.float64)), wanted) < 1e-14


@pytest.mark.parametrize("name", ["phi3-longrope_short", "phi3-longrope_long"])
def test_both_tables_of_phi3(name, files):
    """The scale of cos and sin is a float32 in the file."""
    wanted = logits(ps.from_transformers(hf_models.make(name), dtype=np.float64))
    assert error(logits(ps.load(files(name), dtype=np.float64)), wanted) < 1e-7
    assert error(logits(ps.load(files("phi3"), dtype=np.float64)), wanted) > 1e-3


@pytest.mark.parametrize("arch, n_layers", [("gemma2", 46), ("gemma3_text", 62)])
def test_the_gemmas_with_another_scale_are_known_by_their_layers(arch, n_layers, tmp_path):
    hf = tiny(arch, num_hidden_layers=n_layers)
    hf.config.query_pre_attn_scalar = hf.config.hidden_size // hf.config.num_attention_heads
    model = ps.load(write(tmp_path / "m.gguf", hf))
    assert model.spec.layers[-1].attn_scale == 6**-0.5
    assert [layer.window for layer in model.spec.layers] == [one.window for one in ps.from_transformers(hf).spec.layers]


def wide_yarn(**values):
    """Heads so wide that the bounds of yarn's ramp show."""
    return tiny("llama", head_dim=64, **hf_configs.rope("yarn", factor=4.0, original_max_position_embeddings=16, **values))


def test_yarn(tmp_path):
    found = []
    for values in ({}, dict(beta_fast=3.0, beta_slow=0.25)):
        hf = wide_yarn(**values)
        found.append(logits(ps.load(write(tmp_path / "m.gguf", hf), dtype=np.float64)))
        assert error(found[-1], logits(ps.from_transformers(hf, dtype=np.float64))) < 1e-14
    assert error(*found) > 1e-3


def test_llama3_factors(files):
    """They are float32 quotients of what transformers multiplies with, so the angles agree to float32."""
    wanted = logits(ps.from_transformers(hf_models.make("llama-llama3"), dtype=np.float64))
    assert error(logits(ps.load(files("llama-llama3"), dtype=np.float64)), wanted) < 1e-5
    plain = logits(ps.from_transformers(hf_models.make("llama"), dtype=np.float64))
    assert error(plain, wanted) > 1e-2


@pytest.mark.parametrize("kind", [Q.F16, Q.BF16])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_16_bit_files_stay_mapped(name, kind, tmp_path):
    hf = copy.deepcopy(hf_models.make(name))
    path = write(tmp_path / "m.gguf", hf, kind)
    dtype = {Q.F16: torch.float16, Q.BF16: torch.bfloat16}[kind]
    for parameter in hf.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.to(dtype).float()
    model = ps.load(path, dtype=np.float64)
    assert error(logits(model), logits(ps.from_transformers(hf, dtype=np.float64))) < 1e-14
    matrices = [model.spec.embed, *(getattr(model.spec.layers[1], slot) for slot in ("q", "k", "down"))]
    assert {one.dtype for one in matrices} == {np.dtype(np.float16 if kind == Q.F16 else np.uint16)}
    assert not any(one.flags.owndata or one.flags.writeable for one in matrices)


def big(arch, **changes):
    """Rows of whole blocks of 256."""
    return tiny(arch, hidden_size=256, intermediate_size=512, head_dim=64, num_hidden_layers=2, **changes)


def tiny(arch, **changes):
    config_class, arguments = hf_models.BASE[arch]
    config = getattr(hf_models.transformers, config_class)(**{**arguments, **changes})
    hf = hf_models.transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    hf_models.fill(hf.requires_grad_(False), 3)
    hf.tie_weights()
    return hf


IN_PLACE = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_NL, Q.IQ4_XS, Q.MXFP4]


def quantised(folder, arch, kinds):
    """(file with matrices of these types in turn, the same with what the gguf library decodes)"""
    folder.mkdir(exist_ok=True)
    hf, raw = big(arch), {}
    matrices = [(name, array) for name, array in gguf_models.tensors_of(hf).items() if array.ndim == 2]
    for i, (name, array) in enumerate(matrices):
        kind = kinds[i % len(kinds)]
        raw[name] = (quantize(array, kind) if kind in (Q.F32, Q.BF16) else random_blocks(array.shape, kind, i), kind)
        put(hf, name, dequantize(*raw[name]))
    return write(folder / "blocks.gguf", hf, raw=raw), write(folder / "decoded.gguf", hf)


@pytest.mark.parametrize("kind", IN_PLACE, ids=lambda kind: kind.name)
def test_blocks_give_the_bits_that_their_decoded_weights_give(kind, tmp_path):
    in_place, decoded = quantised(tmp_path, "llama", [kind])
    for dtype in (np.float32, np.float64):
        ours, theirs = (ps.load(path, dtype=dtype) for path in (in_place, decoded))
        for tokens in (TOKENS, TOKENS[:1], TOKENS * 4):
            wanted = theirs(tokens)
            assert np.abs(wanted).max() > 1e-3
            np.testing.assert_array_equal(ours(tokens), wanted)
    assert ours.identity["weights"] == theirs.identity["weights"] and ours.spec.n_params == theirs.spec.n_params
    assert ours.spec.stored.keys() == {kind.name, "F32"} and ours.spec.stored["F32"][0] == 5
    matrices = [matrix for matrix in ours.spec.arrays() if matrix.ndim == 2]
    assert all(isinstance(matrix, Blocks) and not matrix.data.flags.owndata for matrix in matrices)
    assert ours.estimate(TOKENS).weights == ours.spec.nbytes < in_place.stat().st_size


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
def test_a_mixture_of_types(arch, tmp_path):
    """As Q4_K_M has it; a tied head shares the blocks of the embedding. IQ3_S and TQ2_0 are decoded at load."""
    ours, theirs = (
        ps.load(path, dtype=np.float64)
        for path in quantised(tmp_path, arch, [Q.Q6_K, Q.Q4_K, Q.IQ3_S, Q.Q8_0, Q.TQ2_0, Q.F32, Q.BF16])
    )
    np.testing.assert_array_equal(ours(TOKENS), theirs(TOKENS))
    assert ours.spec.stored.keys() == {"Q6_K", "Q4_K", "Q8_0", "BF16", "F32"}
    if arch == "qwen3":
        assert ours.spec.lm_head is ours.spec.embed


def resident(path):
    """Bytes of a file that this process has read through its mapping."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.endswith(str(path))]
    return 1024 * int(next(line for line in lines[at:] if line.startswith("Rss:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what of a file was read")
def test_loading_reads_headers_alone(tmp_path, monkeypatch):
    """Neither weights nor the texts of the vocabulary, which are decoded for the first prompt of text."""
    texts = [f"<{i}>" for i in range(50_000)]
    hf = tiny("qwen3", hidden_size=256, head_dim=64, num_hidden_layers=2, intermediate_size=512, vocab_size=len(texts))
    top = {"tokenizer.ggml.model": (S, "llama"), "tokenizer.ggml.tokens": ("array", texts), "tokenizer.ggml.eos_token_id": (U, 7)}
    path = write(tmp_path / "m.gguf", hf, Q.Q4_0, top=top)
    monkeypatch.setattr(Texts, "_texts", None)  # to decode them is a TypeError
    model = ps.load(path)
    assert resident(path) < 4 << 20 < 7 << 20 < path.stat().st_size
    assert "tokenizer" not in repr(model) and "Q4_0 " in model._repr_html_()
    model(TOKENS)
    assert resident(path) > 7 << 20  # and all are searched for NaN when it first computes
    monkeypatch.undo()
    assert model.end_tokens == {7}
    assert model.tokenizer is None and "single bytes" in model.notes[0] and "no tokenizer" in repr(model)


def test_a_scale_that_is_not_finite_is_found(tmp_path):
    hf = big("llama")
    name = "blk.1.ffn_up.weight"
    data = random_blocks((512, 256), Q.Q4_K, 0)
    data[300, :2] = np.frombuffer(np.float16(np.inf).tobytes(), np.uint8)
    path = write(tmp_path / "m.gguf", hf, raw={name: (data, Q.Q4_K)})
    with pytest.raises(BadCheckpoint, match=f"'{name}' in .*m.gguf holds NaN or infinity"):
        load_checkpoint(path, check=True)
    with pytest.raises(BadCheckpoint, match=f"'{name}'"):
        ps.load(path)(TOKENS)


def test_a_head_that_repeats_the_embedding(tmp_path):
    """The config of a GGUF file ties nothing, so a second matrix is a head of its own, with the same logits."""
    hf = big("llama")
    data = random_blocks((61, 256), Q.Q5_0, 0)
    raw = {"token_embd.weight": (data, Q.Q5_0), "output.weight": (data, Q.Q5_0)}
    model = ps.load(write(tmp_path / "m.gguf", hf, raw=raw))
    assert model.spec.lm_head is not model.spec.embed and model.spec.stored["Q5_0"][0] == 2


def test_steering_and_jacobian_work(files):
    model = ps.load(files("llama"), dtype=np.float64)
    hf = ps.from_transformers(hf_models.make("llama"), dtype=np.float64)
    ours, theirs = (m.jacobian(TOKENS, source=(0, "resid_post"), target=(2, "resid_post")).svd(3) for m in (model, hf))
    np.testing.assert_allclose(ours.S, theirs.S, rtol=1e-9)
    assert model.identity["model_type"] == "llama"
    assert model.name == "llama"
    assert model.config["general.architecture"] == "llama"


def stories_file(folder, tmp_path):
    """The trained model as a GGUF file, with its SentencePiece vocabulary."""
    hf = hf_models.transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    assert tokens[3] == "<0x00>" and tokens[258] == "<0xFF>"
    top = {
        "model": (S, "llama"),
        "tokens": ("array", tokens),
        "token_type": ("array", [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)),
        "scores": ("array", [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)]),
        "bos_token_id": (U, 1),
        "eos_token_id": (U, 2),
    }
    return write(tmp_path / "stories.gguf", hf, top={f"tokenizer.ggml.{key}": value for key, value in top.items()})


def test_a_trained_model_and_its_tokenizer(stories, tmp_path):
    ours, theirs = (ps.load(path, dtype=np.float64) for path in (stories_file(stories, tmp_path), stories))
    for text in ["Once upon a time", " Zoë had 3 cats.\n\n  <s> 日本 \t", "They were happy. " * 8]:
        np.testing.assert_array_equal(ours.tokenizer.encode(text), theirs.tokenizer.encode(text))
        assert error(ours(text), theirs(text)) < 1e-13
    assert ours.generate("Once upon a time", max_new_tokens=30).text == theirs.generate("Once upon a time", max_new_tokens=30).text
    assert ours.end_tokens == theirs.end_tokens


def test_a_file_without_a_tokenizer_says_why(files):
    checkpoint = load_checkpoint(files("llama"))
    assert checkpoint.tokenizer is None
    assert re.search("tokenizer.ggml.model = 'none'; gpt2 and llama are read. Give prompts as token ids", *checkpoint.notes)


# ---- refusals --------------------------------------------------------------------------------------------------------

U, F, S = "uint32", "float32", "string"
REFUSED = [
    ({"attention.sliding_window": (U, 7)}, UnsupportedModel, r"'llama.attention.sliding_window' = 7"),
    ({"attention.scale": (F, 0.5)}, UnsupportedModel, r"'llama.attention.scale' = 0.5"),
    ({"expert_count": (U, 8)}, BadCheckpoint, "cannot take 0 of 8 experts"),
    ({"expert_count": (U, 8), "expert_used_count": (U, 2)}, BadCheckpoint, "no tensor 'blk.0.ffn_gate_exps.weight'"),
    ({"logit_scale": (F, 2.0)}, UnsupportedModel, r"llama.logit_scale"),
    ({"rope.scaling.type": (S, "longrope"), "rope.scaling.factor": (F, 2.0)}, UnsupportedModel, "scaling.type = 'longr"),
    ({"rope.scaling.attn_factor": (F, 1.2)}, UnsupportedModel, "llama.rope.scaling.attn_factor = 1.2"),
    ({"rope.scaling.yarn_log_multiplier": (F, 0.1)}, UnsupportedModel, "yarn_log_multiplier = 0.1"),
    ({"rope.dimension_count": (U, 6)}, UnsupportedModel, "llama.rope.dimension_count = 6"),
    ({"rope.freq_base": (F, float("nan"))}, BadCheckpoint, "rope_theta"),
    ({"attention.value_length": (U, 12)}, BadCheckpoint, "key_length = 10 and llama.attention.value_length = 12"),
    ({"attention.layer_norm_rms_epsilon": (F, -1.0)}, BadCheckpoint, "rms_epsilon' = -1.0"),
    ({"attention.head_count": None}, BadCheckpoint, "no 'llama.attention.head_count'"),
    ({"attention.head_count": (U, 0)}, BadCheckpoint, "head_count' = 0"),
    ({"attention.head_count_kv": ("array", [2, 1, 2])}, BadCheckpoint, r"head_count_kv' = \[2, 1, 2\]"),
    ({"block_count": (U, 4)}, BadCheckpoint, "no tensor 'blk.3"),
    ({"block_count": (U, 2)}, BadCheckpoint, "'blk.2.*does not belong"),
    ({"block_count": (U, 2**32 - 1)}, BadCheckpoint, "block_count"),
    ({"vocab_size": (U, 60)}, BadCheckpoint, r"token_embd.weight.*\(61, 24\).*\(60, 24\)"),
]


@pytest.mark.parametrize("meta, kind, message", REFUSED, ids=[" ".join(one[0]) for one in REFUSED])
def test_metadata_that_is_refused(meta, kind, message, tmp_path):
    path = write(tmp_path / "m.gguf", hf_models.make("llama"), meta=meta)
    with pytest.raises(kind, match=message):
        load_checkpoint(path)


def test_uniform_lists_of_layers_are_one_number(tmp_path, files):
    path = write(tmp_path / "m.gguf", hf_models.make("llama"), meta={"attention.head_count_kv": ("array", [2, 2, 2])})
    np.testing.assert_array_equal(logits(ps.load(path)), logits(ps.load(files("llama"))))


TOP = [
    ({"general.architecture": (S, "mamba")}, UnsupportedModel, "'mamba'.*safetensors"),
    ({"general.type": (S, "adapter")}, UnsupportedModel, "general.type = 'adapter'"),
    ({"split.count": ("uint16", 3)}, UnsupportedModel, "llama-gguf-split --merge"),
    ({"tokenizer.ggml.tokens": ("array", ["a", "b"])}, BadCheckpoint, "lists 2 tokens"),
]


@pytest.mark.parametrize("top, kind, message", TOP)
def test_files_that_are_refused(top, kind, message, tmp_path):
    path = tmp_path / "m.gguf"
    if "general.architecture" in top:
        data = write(path, hf_models.make("llama")).read_bytes()
        path.write_bytes(data.replace(struct.pack("<Q5s", 5, b"llama"), struct.pack("<Q5s", 5, b"mamba"), 1))
    else:
        write(path, hf_models.make("llama"), top=top)
    with pytest.raises(kind, match=message):
        load_checkpoint(path)


TENSORS = [
    (lambda t: t.pop("blk.1.attn_v.weight"), "no tensor 'blk.1.attn_v.weight'"),
    (lambda t: t.pop("output_norm.weight"), "no tensor 'output_norm.weight'"),
    (lambda t: t.update({"blk.0.extra.weight": np.ones(3, np.float32)}), "'blk.0.extra.weight'.*does not belong"),
    (lambda t: t.update({"rope_factors_long.weight": np.ones(5, np.float32)}), "'rope_factors_long.weight'.*does not belong"),
    (lambda t: t.update({"blk.0.attn_q.weight": np.ones((40, 25), np.float32)}), r"\(40, 25\).*\(40, 24\)"),
    (lambda t: t.update({"rope_freqs.weight": np.ones(4, np.float32)}), r"rope_freqs.*\(4,\).*\(5,\)"),
    (lambda t: t.update({"rope_freqs.weight": np.zeros(5, np.float32)}), "not all positive"),
    (lambda t: t["blk.2.ffn_up.weight"].put(7, np.nan), "'blk.2.ffn_up.weight'.*NaN"),
]


@pytest.mark.parametrize("change, message", TENSORS, ids=[one[1] for one in TENSORS])
def test_tensors_that_are_refused(change, message, tmp_path):
    hf = copy.deepcopy(hf_models.make("llama"))
    with pytest.raises(BadCheckpoint, match=message):
        load_checkpoint(write(tmp_path / "m.gguf", hf, change=change), check=True)


def test_qwen2_needs_its_biases(tmp_path):
    with pytest.raises(BadCheckpoint, match="no tensor 'blk.0.attn_q.bias'"):
        load_checkpoint(write(tmp_path / "m.gguf", hf_models.make("qwen2"), change=lambda t: t.pop("blk.0.attn_q.bias")))


def test_tensor_types_that_cannot_be_decoded(tmp_path):
    for kind, name in ((27, "I64"), (99, "unknown type 99")):
        path = write(tmp_path / "m.gguf", hf_models.make("llama"))
        data = bytearray(path.read_bytes())
        at = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 16
        assert data[at : at + 4] == bytes(4)
        data[at : at + 4] = struct.pack("<I", kind)
        path.write_bytes(data)
        with pytest.raises(UnsupportedModel, match=f"'blk.0.attn_q.weight'.*{name}.*Q8_0"):
            load_checkpoint(path)


def test_without_the_gguf_library(tmp_path, monkeypatch):
    """It is needed for types alone that the core does not know."""
    from powersteer.loading import gguf as gguf_files

    known, other = (quantised(tmp_path / name, "llama", kinds)[0] for name, kinds in (("a", IN_PLACE), ("b", [Q.IQ2_XXS])))
    gguf_files._library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    ps.load(known)(TOKENS)
    with pytest.raises(ps.errors.MissingDependency, match=r"'token_embd.weight' in .*type 16.*powersteer\[gguf\].*Q4_K_M"):
        load_checkpoint(other)


def test_no_file(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        ps.load(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadCheckpoint, match="shorter than the header"):
        ps.load(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"PK" * 40)
    with pytest.raises(BadCheckpoint, match="does not begin with GGUF"):
        ps.load(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"GGUF\0\0\0\3" + bytes(40))
    with pytest.raises(UnsupportedModel, match="version"):
        ps.load(tmp_path / "m.gguf")
