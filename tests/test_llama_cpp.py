"""llama.cpp as the judge: its logits of the GGUF files we load, its tokens, and what it does with our control vectors.

It computes in float32, with its angles by repeated multiplication; Gemma's GELU comes from a table in half precision."""

import copy

import gguf_architectures
import gguf_converted
import gguf_vocabs
import hf_models
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf_models import random_blocks, tensors_of, write
from llama_judge import llama_ends, llama_logits, llama_tokens, opened
from test_gguf import TOKENS, big, error, rounded, stories_file, wide_yarn
from test_gguf_tokens import CUT, resized

import powersteer as ps
from powersteer.loading.gguf import open_gguf
from powersteer.loading.gguf_pre import PRE
from powersteer.loading.gguf_tokenizer import end_ids, gguf_tokenizer

NAMES = ["llama", "llama-biases", "llama-linear", "llama-llama3", "llama-yarn", "qwen2", "qwen3", "gemma", "gemma2",
         "gemma3_text", "gemma3_text-two_ropes", "phi3", "phi3-longrope_long"]  # fmt: skip


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
def test_logits(name, kept, tmp_path):
    path = model_file(name, tmp_path)
    theirs = kept(lambda: llama_logits(path, TOKENS))
    assert worst(name, ps.load(path, dtype=np.float64)(TOKENS), theirs) < bound(name)


# transformers does not round the bounds of gpt-oss' ramp; the others have 26 layers, and a state over all tokens
LOOSER = {"gpt-oss-yarn": 1e-3, "deepseek2-lite": 1e-4, "qwen35-values": 3e-5, "qwen3next": 3e-5}
# through a table in half precision
GELU = ("gpt2", "starcoder", "starcoder2", "gptneox", "gptneox-sequential", "phi2", "falcon", "falcon-new", "bloom", "bloom-three_heads",
        "mpt", "mpt-clipped")  # fmt: skip


def bound_of(name):
    return 2e-3 if name in GELU else LOOSER.get(name, 1e-5)


@pytest.mark.parametrize("name", gguf_architectures.MODELS)
def test_logits_of_every_architecture(name, kept, tmp_path):
    path = gguf_converted.write(tmp_path / "m.gguf", name, gguf_architectures.make(name))
    theirs = kept(lambda: llama_logits(path, TOKENS))
    assert worst(name, ps.load(path, dtype=np.float64)(TOKENS), theirs) < bound_of(name)


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
def test_control_vectors(name, site, kept, tmp_path):
    """A vector that to_gguf wrote has the effect there that it has here."""
    path = model_file(name, tmp_path)
    model = ps.load(path, dtype=np.float64)
    direction = np.random.default_rng(3).standard_normal(model.d_model)
    vector = ps.SteeringVector.from_array(direction, *site)
    vector.to_gguf(tmp_path / "v.gguf", model_hint=model.identity["model_type"])
    steered, theirs = model.steered(vector)(TOKENS), kept(lambda: llama_logits(path, TOKENS, control_vector=tmp_path / "v.gguf"))
    assert worst(f"{name} steered at {site}", steered, theirs) < bound(name)
    assert error(steered, model(TOKENS)) > 0.1  # it is an effect that is compared


@pytest.mark.parametrize("name", gguf_architectures.MODELS)
def test_control_vectors_of_every_architecture(name, kept, tmp_path):
    path = gguf_converted.write(tmp_path / "m.gguf", name, gguf_architectures.make(name))
    model = ps.load(path, dtype=np.float64)
    direction = np.random.default_rng(3).standard_normal(model.d_model)
    vector = ps.SteeringVector.from_array(direction, 1, "resid_post", model_type=model.identity["model_type"])
    vector.to_gguf(tmp_path / "v.gguf")
    steered, theirs = model.steered(vector)(TOKENS), kept(lambda: llama_logits(path, TOKENS, control_vector=tmp_path / "v.gguf"))
    assert worst(f"{name} steered", steered, theirs) < bound_of(name)
    assert error(steered, model(TOKENS)) > 0.05


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


# Here ours has the model's own pattern, which llama.cpp could not write down: it takes other letters than ASCII's for
# upper-case and lower-case at once, and marks for no letters.
NO_MARKS = {"qwen2", "tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m", "tiny_aya",
            "cohere2moe", "kimi-k2", "youtu"}  # fmt: skip
NO_DIGITS = {"tiny_aya", "cohere2moe"}  # it cuts them in code, all numbers of Unicode alike


@pytest.mark.parametrize("pre", PRE)
def test_every_way_to_cut_a_text(pre, kept, rng, tmp_path):
    meta = {**gguf_vocabs.uncut(PRE[pre].spaces), "tokenizer.ggml.pre": ("string", pre)}
    path = gguf_vocabs.write_vocabulary(tmp_path / "m.gguf", meta)
    fields = open_gguf(path).fields
    ours = gguf_tokenizer(fields, len(fields["tokenizer.ggml.tokens"]), str(path))
    texts = [*gguf_vocabs.TEXTS, *("".join(rng.choice(gguf_vocabs.PIECES, rng.integers(2, 8))) for _ in range(100))]
    if pre in NO_MARKS:
        texts = [text.replace("e\u0301", "") for text in texts]
    if pre in NO_DIGITS:
        texts = ["".join(letter for letter in text if not letter.isnumeric()) or "a" for text in texts]
    assert_same_tokens(kept, path, ours, texts)


def assert_same_tokens(kept, path, ours, texts):
    def ask():
        with opened(path, vocab_only=True) as model:
            tokens = [llama_tokens(model, text) for text in texts]
        return np.array([len(one) for one in tokens], np.int16), np.concatenate(tokens).astype(np.int16)

    lengths, theirs = kept(ask)
    for text, want in zip(texts, np.split(theirs, np.cumsum(lengths, dtype=int)[:-1]), strict=True):
        assert ours.encode(text).tolist() == want.tolist(), text


def test_a_file_without_pre(kept, tmp_path):
    path = gguf_vocabs.write_vocabulary(tmp_path / "m.gguf", gguf_vocabs.uncut())
    assert_same_tokens(kept, path, gguf_tokenizer(open_gguf(path).fields, 10**6, str(path)), gguf_vocabs.TEXTS)


ENDS = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
        "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["]  # fmt: skip
FILL = ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_prefix>", "<｜fim▁hole｜>", "<MID>"]  # one of each kind
OTHERS = ["<|im_start|>", "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "< EOT >", "<|eot|>", "<unused1>", "<END>"]


def test_what_ends_a_generation(kept, rng, tmp_path):
    """Files with some of the tokens that look like ends or do not, of any type, and some of them named by keys."""
    meta = gguf_vocabs.uncut()
    tokens, kinds = (list(meta[f"tokenizer.ggml.{key}"][1])[:-2] for key in ("tokens", "token_type"))
    sizes = set()
    for _ in range(40):
        some = [*rng.permutation([one for one in ENDS + FILL + OTHERS if rng.random() < 0.4])]
        whole = {
            **meta,
            "tokenizer.ggml.pre": ("string", "gpt-2"),
            "tokenizer.ggml.bos_token_id": ("uint32", 0),
            "tokenizer.ggml.eos_token_id": ("uint32", int(rng.integers(len(tokens) + len(some)))),
            "tokenizer.ggml.tokens": ("array", tokens + [str(one) for one in some]),
            "tokenizer.ggml.token_type": ("array", kinds + rng.choice([1, 3, 4], len(some)).tolist()),
        }
        for name in ("eot", "eom", "fim_pad", "fim_rep", "fim_sep", "fim_pre"):
            if rng.random() < 0.3:
                whole[f"tokenizer.ggml.{name}_token_id"] = ("uint32", int(rng.integers(len(tokens) + len(some))))
        path = gguf_vocabs.write_vocabulary(tmp_path / "m.gguf", whole)
        fields = open_gguf(path).fields
        n_vocab = len(fields["tokenizer.ggml.tokens"])
        text = "a".join(some)

        def ask(path=path, n_vocab=n_vocab, text=text):
            with opened(path, vocab_only=True) as model:
                return sorted(llama_ends(model, n_vocab)), llama_tokens(model, text)

        ends, theirs = kept(ask)
        assert set(end_ids(fields, n_vocab)) == set(ends), some
        assert gguf_tokenizer(fields, n_vocab, "m.gguf").encode(text).tolist() == theirs, some
        sizes.add(len(ends))
    assert len(sizes) > 5
