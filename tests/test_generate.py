"""What is said, token by token, against transformers' own generate(), with its cache and without; and against a trained
model's text. Sampling, streaming and stops are in test_model and test_generation."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from oracles import torch, transformers

import powersteer as ps

NEW = 24  # beyond every sliding window (5), which the prompt may or may not exceed


def said_by_transformers(hf, prompt, steer=(), cache=True):
    """NEW greedy tokens. Without a cache every step is a whole forward pass, whose rows are absolute positions."""
    ids = torch.as_tensor(prompt)[None]
    with torch.no_grad(), hf_models.hooked(hf, steer):
        out = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, use_cache=cache)
    return out[0, len(prompt):].tolist()


def said(model, prompts):
    return [out.tokens.tolist() for out in model.generate(prompts, max_new_tokens=NEW, stop=[])]


def vector(model, rng, layer, site):
    """About as long as the activations are: it changes what is said."""
    return ps.SteeringVector.from_array(2 * rng.normal(size=model.d_model), layer, site)


@pytest.mark.parametrize("name", hf_models.CASES)
def test_greedy_tokens_with_and_without_a_cache(name, loaded, kept, rng):
    """In float64 on both sides, so that ties are no matter. Prompts within the window and beyond it, as one batch,
    steered at a random site at every position."""
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (3, 11)]
    layer = int(rng.integers(model.n_layers))
    v = vector(model, rng, layer, str(rng.choice(model.spec.sites(layer))))
    plain, steered = said(model, prompts), said(model.steered(v), prompts)
    assert plain != steered
    hooks, cache = [(v.layer, v.site, v.vector, None)], name not in hf_models.NOT_CACHED

    def ask():
        with hf_models.exact(name) as double:
            return [*([said_by_transformers(double, prompt, how, cache) for how in ((), hooks)] for prompt in prompts),
                    said_by_transformers(double, prompts[1], hooks, cache=False)]  # fmt: skip

    assert [[plain[0], steered[0]], [plain[1], steered[1]], steered[1]] == kept(ask)


@pytest.mark.parametrize("name", ["mistral", "gemma3_text", "gpt2-untied", "gpt_neox", "phi3-longrope_long"])
@pytest.mark.parametrize(("positions", "rows"), [("prompt", slice(0, 7)), ("generated", slice(7, None)),
                                                 (slice(-2, None), slice(5, None)), ([0, 6], [0, 6])])
def test_steered_at_some_positions(name, positions, rows, loaded, kept, rng):
    """Positions are absolute, whether they come with the prompt or one by one through the cache."""
    model = loaded(name)
    prompt = rng.integers(0, model.n_vocab, 7).tolist()
    vectors = [vector(model, rng, 1, site) for site in ("mlp_out", "resid_pre")]
    view = model.steered(vectors, positions=positions)

    def ask():
        with hf_models.exact(name) as double:
            return said_by_transformers(double, prompt, [(v.layer, v.site, v.vector, rows) for v in vectors], cache=False)

    assert said(view, [prompt]) == [kept(ask)] != said(model, [prompt])


@pytest.mark.parametrize("name", ["llama", "gemma2", "stablelm-parallel"])
def test_every_row_its_own_vector(name, loaded, kept, rng):
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (9, 2, 6)]
    a, b = vector(model, rng, 0, "attn_out"), vector(model, rng, 2, "resid_post")
    rows = [[a], [], [a, b]]
    out = model.generate(prompts, max_new_tokens=NEW, stop=[], steer=[a, None, [a, b]])
    hooks = [[(v.layer, v.site, v.vector, None) for v in row] for row in rows]

    def ask():
        with hf_models.exact(name) as double:
            return [said_by_transformers(double, prompt, row) for prompt, row in zip(prompts, hooks, strict=True)]

    assert [generation.tokens.tolist() for generation in out] == kept(ask)


# ---- a trained model


@pytest.fixture(scope="module")
def trained(stories):
    hf = transformers.AutoModelForCausalLM.from_pretrained(stories, attn_implementation="eager")
    hf = hf.eval().requires_grad_(False)
    return ps.load(stories, threads=2), hf, transformers.AutoTokenizer.from_pretrained(stories)


TEXTS = ["Once upon a time there was a little girl", "Tom and his dog", "The sun"]


def test_a_trained_models_logits_and_tokens(trained):
    model, hf, tokenizer = trained
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert model.tokens(text).tolist() == ids
        want = hf_models.run(hf, ids)[0]
        assert np.abs(model(text) - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("steer", [False, True])
def test_a_trained_models_text(trained, steer):
    """Steered by its own singular vector, at a third of the site's norm."""
    model, hf, tokenizer = trained
    vec = model.jacobian(TEXTS[0], source=1, target=4).svd(k=2).vectors[0].relative(0.35)
    view = model.steered(vec) if steer else model
    hooks = [(vec.layer, vec.site, vec.vector, None)] if steer else []
    for text, out in zip(TEXTS, view.generate(TEXTS, max_new_tokens=60, stop=[]), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad(), hf_models.hooked(hf, hooks):
            want = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False,
                               eos_token_id=None, pad_token_id=0)[0]
        assert out.tokens.tolist() == want[ids.shape[1]:].tolist()
        whole = tokenizer.decode(want, skip_special_tokens=True)
        assert text + out.text == whole
    assert (view.generate(TEXTS[0], max_new_tokens=60).text == model.generate(TEXTS[0], max_new_tokens=60).text) is not steer


def test_a_trained_models_jacobian(trained):
    model, hf, _ = trained
    text = TEXTS[1]
    ids = model.tokens(text)
    rows = [[len(ids) - 2, len(ids) - 1]]
    want = hf_models.jacobian(hf, [ids], (1, "mlp_out"), (4, "mlp_out"), None, rows)  # PyTorch in float32
    J = model.jacobian(text, 1, 4)
    assert np.linalg.norm(J.dense() - want) < 1e-4 * np.linalg.norm(want)
    S = np.linalg.svd(want.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(J.svd(k=12).S, S[:12], rtol=1e-3)
