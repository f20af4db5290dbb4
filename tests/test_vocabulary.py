"""Tokens that a vector raises: the unembedding of transformers on the same weights, and torch.func's derivative of the logits."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import real_files
from random_checkpoints import GEMMA
from tiny import tiny

import powersteer as ps


def folded(hf, name):
    """TransformerLens's W_U (n_vocab, d) of a model whose final norm is folded, without its bias."""
    base = hf.base_model
    norm = next(getattr(base, part) for part in ("norm", "ln_f", "final_layer_norm", "final_layernorm") if hasattr(base, part))
    W = hf.get_output_embeddings().weight.double().detach().numpy()
    gain = norm.weight.double().detach().numpy() + (1 if hf_models.family_of(hf) in GEMMA else 0)
    W = W * gain
    return W - W.mean(1, keepdims=True) if hasattr(norm, "bias") and name != "llama" else W


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi", "gpt_neox", "qwen3"])
def test_unembedding_is_that_of_folded_norms(name, stored, loaded, kept, rng):
    model = loaded(name, "float64", stored)
    v = ps.SteeringVector.from_array(rng.normal(size=model.d_model), 1, "resid_post")

    def ask():
        with hf_models.exact(name, stored=stored) as hf:
            return folded(hf, name) @ v.vector

    want = kept(ask)
    for k in (3, model.n_vocab):
        top = v.top_tokens(model, k=k)
        assert [t.id for t in top] == np.argsort(-want, kind="stable")[:k].tolist()
        np.testing.assert_allclose([t.change for t in top], np.sort(want)[::-1][:k], rtol=1e-10, atol=1e-12)
        assert {t.text for t in top} == {""}
    low = (-2 * v).top_tokens(model, k=1)[0]
    assert low.id == int(np.argmin(want)) and low.change == pytest.approx(-2 * want.min(), rel=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "cohere"])
@pytest.mark.parametrize("positions", [None, [1, -1]])
def test_the_change_at_a_prompt_is_torch_funcs(name, positions, loaded, kept, rng):
    model = loaded(name)
    some = [rng.integers(0, model.n_vocab, n).tolist() for n in (6, 4)]
    v = ps.SteeringVector.from_array(rng.normal(size=model.d_model), 0, "mlp_out")
    rows = None if positions is None else [[1, len(p) - 1] for p in some]

    def ask():
        with hf_models.exact(name) as hf:
            return (hf_models.jacobian(hf, some, v.location, "logits", source_positions=rows) @ v.vector).reshape(2, -1).mean(0)

    want = kept(ask)
    top = v.top_tokens(model, some, k=7, positions=positions)
    np.testing.assert_allclose([t.change for t in top], np.sort(want)[::-1][:7], rtol=0, atol=1e-10 * np.abs(want).max())
    assert [t.id for t in top] == np.argsort(-want, kind="stable")[:7].tolist()


def test_texts_and_refusals():
    model = tiny()[0]
    v = ps.random_vectors(model, 1, site="resid_post")[0]
    for top in (v.top_tokens(model, k=258), v.top_tokens(model, "ab", k=258)):
        assert [t.text for t in top] == model.to_str_tokens([t.id for t in top])
        assert np.all(np.diff([t.change for t in top]) <= 0) and len({t.id for t in top}) == 258
    for how, message in [({"k": 0}, "k is 0"), ({"k": 259}, "at most 258"), ({"positions": -1}, "give prompts, too")]:
        with pytest.raises(ps.InvalidInput, match=message):
            v.top_tokens(model, **how)
    with pytest.raises(ps.InvalidInput, match="activations of this model have"):
        ps.SteeringVector([0.6, 0.8], 0, "mlp_out").top_tokens(model)


@pytest.mark.long
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_unembedding_of_blocks(name, rng):
    """A quantised head, a piece at a time, is that of its decoded numbers."""
    model = ps.load(getattr(real_files, name)(), threads=2)
    v = ps.SteeringVector.from_array(rng.normal(size=model.d_model), 3, "resid_post")
    x, head = v.vector * model.spec.final_norm.gain, model.spec.lm_head
    ids = rng.integers(0, model.n_vocab, 50)
    all_changes = {t.id: t.change for t in v.top_tokens(model, k=model.n_vocab)}
    want = [head[i : i + 1].decode()[0].astype(np.float64) @ x for i in ids]
    np.testing.assert_allclose([all_changes[int(i)] for i in ids], want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
