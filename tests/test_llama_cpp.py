"""llama.cpp as the judge: its logits of the GGUF files we load, its tokens, and what it does with our control vectors.

It computes in float32, with its angles by repeated multiplication; Gemma's GELU comes from a table in half precision."""

import copy

import gguf_vocabs
import hf_models
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf_models import random_blocks, tensors_of, write
from llama_judge import llama_logits, llama_tokens, opened
from test_gguf import TOKENS, big, error, rounded, stories_file, wide_yarn
from test_gguf_tokens import CUT, resized

import powersteer as ps

NAMES = ["llama", "llama-biases", "llama-linear", "llama-llama3", "llama-yarn", "qwen2", "qwen3", "gemma", "gemma2",
         "gemma3_text", "gemma3_text-two_ropes"]  # fmt: skip


def bound(name):
    return 1e-3 if name.startswith("gemma") else 1e-5


def model_file(name, folder):
    hf = rounded(hf_models.make(name))
    if name.startswith(("gemma2", "gemma3")):
        hf.config.query_pre_attn_scalar = hf.config.head_dim
    return write(folder / f"{name}.gguf", hf)


def worst(what, ours, theirs):
    found = error(ours, theirs)
    print(f"{what}: relative error {found:.1e}")  # pytest -s shows them all
    return found


@pytest.mark.parametrize("name", NAMES)
def test_logits(name, tmp_path):
    path = model_file(name, tmp_path)
    assert worst(name, ps.load(path, dtype=np.float64)(TOKENS), llama_logits(path, TOKENS)) < bound(name)


def test_yarn(tmp_path):
    """For these architectures it does not read the betas that its converter writes, so they are given by hand."""
    path = write(tmp_path / "m.gguf", wide_yarn(beta_fast=3.0, beta_slow=0.25))
    theirs = llama_logits(path, TOKENS, yarn_beta_fast=3.0, yarn_beta_slow=0.25)
    assert worst("yarn", ps.load(path, dtype=np.float64)(TOKENS), theirs) < 1e-5


@pytest.mark.parametrize("kind, limit", [(Q.F16, 1e-3), (Q.BF16, 1e-2), (Q.Q8_0, 3e-2)])
def test_logits_of_rounded_weights(kind, limit, tmp_path):
    """llama.cpp rounds the activations as well, to the weights' type."""
    path = write(tmp_path / "m.gguf", big("llama"), kind)
    assert worst(kind.name, ps.load(path, dtype=np.float64)(TOKENS), llama_logits(path, TOKENS)) < limit


@pytest.mark.parametrize("kind", [Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K])
def test_k_quants_are_decoded_as_llama_cpp_decodes_them(kind, tmp_path):
    """In the embedding, whose rows llama.cpp decodes; the rest of the model is float32."""
    hf = big("llama", tie_word_embeddings=False)
    shape = tensors_of(hf)["token_embd.weight"].shape
    raw = {"token_embd.weight": (random_blocks(shape, kind, 1), kind)}
    path = write(tmp_path / "m.gguf", hf, raw=raw)
    assert worst(kind.name, ps.load(path, dtype=np.float64)(TOKENS), llama_logits(path, TOKENS)) < 1e-5


def test_a_trained_model(stories, tmp_path):
    path, text = stories_file(stories, tmp_path), "Once upon a time, Zoë had 3 <cats>.\nThey were happy."
    model = ps.load(path)
    with opened(path) as theirs:
        tokens = llama_tokens(theirs, text)
    assert model.tokenizer.encode(text).tolist() == tokens
    assert worst("stories260K", model(text), llama_logits(path, tokens)) < 1e-5


# ---- control vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("site", [(1, "resid_post"), (2, "resid_pre"), (1, "mlp_out"), (2, "resid_post")])
def test_control_vectors(name, site, tmp_path):
    """A vector that to_gguf wrote has the effect there that it has here."""
    path = model_file(name, tmp_path)
    model = ps.load(path, dtype=np.float64)
    direction = np.random.default_rng(3).standard_normal(model.d_model)
    vector = ps.SteeringVector.from_array(direction, *site)
    vector.to_gguf(tmp_path / "v.gguf", model_hint=model.identity["model_type"])
    steered, theirs = model.steered(vector)(TOKENS), llama_logits(path, TOKENS, control_vector=tmp_path / "v.gguf")
    assert worst(f"{name} steered at {site}", steered, theirs) < bound(name)
    assert error(steered, model(TOKENS)) > 0.1  # it is an effect that is compared


def test_a_control_vector_of_a_trained_model(stories, tmp_path):
    """As it is made and used: a singular direction, scaled to the site's norm."""
    path = stories_file(stories, tmp_path)
    model = ps.load(path, dtype=np.float64)
    prompt = "Once upon a time there was a little girl"
    vector = model.jacobian(prompt, source=(1, "resid_post"), target=(4, "resid_post")).svd(k=1).vectors[0].relative(0.5)
    vector.to_gguf(tmp_path / "v.gguf")
    tokens = model.tokenizer.encode(prompt).tolist()
    theirs = llama_logits(path, tokens, control_vector=tmp_path / "v.gguf")
    assert worst("stories260K steered", model.steered(vector)(prompt), theirs) < 1e-5
    assert error(theirs, model(prompt)) > 0.1


# ---- tokens ----------------------------------------------------------------------------------------------------------


def vocabulary_file(meta, folder):
    hf = resized(copy.deepcopy(hf_models.make("qwen2")), len(meta["tokenizer.ggml.tokens"][1]))
    return write(folder / "m.gguf", hf, top=meta)


@pytest.mark.parametrize("pre", CUT)
def test_byte_level_tokens(pre, tmp_path):
    meta, _ = gguf_vocabs.byte_level(CUT[pre], False)
    path = vocabulary_file({**meta, "tokenizer.ggml.pre": ("string", pre)}, tmp_path)
    ours = ps.load(path).tokenizer
    with opened(path) as model:
        for text in [*gguf_vocabs.TEXTS, "a<tool>b<|end|> c"]:
            if pre == "qwen2":  # whose tokenizer composes characters, which llama.cpp leaves out
                text = text.replace("e\u0301", "").replace("ﬁ", "")
            assert ours.encode(text).tolist() == llama_tokens(model, text), text


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokens(prefix, tmp_path):
    meta = {**gguf_vocabs.sentencepiece(), "tokenizer.ggml.add_space_prefix": ("bool", prefix)}
    path = vocabulary_file(meta, tmp_path)
    ours = ps.load(path).tokenizer
    with opened(path) as model:
        for text in [*gguf_vocabs.TEXTS, *gguf_vocabs.CORPUS[-1:], "a<tool>b</s> c", "a <tool> b"]:
            assert ours.encode(text).tolist() == llama_tokens(model, text), text
