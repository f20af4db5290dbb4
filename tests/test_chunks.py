"""Layers that see their own chunk of a text, layers without positions, and temperatures: Llama 4. Its logits, sites and Jacobians are
tested with those of the other families."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, copy
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch
from random_models import random_model
from test_core import core_model, random_prompts
from test_forward import DOUBLE, places, worst

import powersteer as ps
from powersteer._core import _core64
from powersteer.errors import BadCheckpoint, UnsupportedModel
from powersteer.loading import load_checkpoint

NAME, LONG = "llama4_text-long", 90  # chunks of 40 tokens, which are no multiple of a block of queries


@pytest.fixture
def both(loaded):
    with hf_models.exact(NAME) as double:
        yield loaded(NAME), double


def test_a_prompt_of_several_chunks(both, rng):
    """Logits and every site, and the attention of a layer with chunks and of one without."""
    model, double = both
    prompt = rng.integers(0, model.n_vocab, LONG).tolist()
    logits, acts = model.run_with_cache(prompt, sites=[*places(double), (0, "pattern"), (2, "pattern")])
    want, sites = hf_models.run(double, prompt, capture=places(double))
    assert worst(logits, want) < DOUBLE
    assert max(worst(acts[place], sites[place]) for place in sites) < DOUBLE
    causal, chunk = np.tri(LONG, dtype=bool), np.arange(LONG) // 40
    for layer, seen in ((0, causal & np.equal.outer(chunk, chunk)), (2, causal)):
        assert ((acts[layer, "pattern"] > 0) == seen).all()


@pytest.mark.parametrize("length", [38, 79])
def test_steered_greedy_text_goes_on_into_the_next_chunk(both, length, rng):
    """Through the cache of both, as one batch of prompts that end before and behind the first token of a chunk."""
    model, double = both
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (length, length + 3)]
    steer = [(0, "attn_out", rng.normal(size=model.d_model), None), (1, "mlp_out", rng.normal(size=model.d_model), None)]
    view = model
    for layer, site, vector, positions in steer:
        view = view.steered(ps.SteeringVector.from_array(vector, layer, site), positions=positions)
    together = view.generate(prompts, max_new_tokens=6, stop=[])
    for prompt, ours in zip(prompts, together, strict=True):
        with hf_models.hooked(double, steer), torch.no_grad():
            tokens = torch.tensor([prompt])
            theirs = double.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6)
        assert ours.tokens.tolist() == theirs[0, len(prompt) :].tolist()
        assert ours.tokens.tolist() == view.generate(prompt, max_new_tokens=6, stop=[]).tokens.tolist()


def test_a_jacobian_across_chunks(both, rng):
    model, double = both
    prompt, here, rows = rng.integers(0, model.n_vocab, LONG).tolist(), [5, 60], [39, 40, 89]
    J = model.jacobian(prompt, source=(0, "resid_pre"), target=(2, "resid_post"), source_positions=here, target_positions=rows)
    want = hf_models.jacobian(double, [prompt], (0, "resid_pre"), (2, "resid_post"), [here], [rows])
    assert worst(J.dense(), want) < DOUBLE and worst(J.T.dense(), want.T) < DOUBLE


@given(chunk=st.integers(1, 40), length=st.integers(1, 60), latent=st.sampled_from([None, (4, 7, 9)]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_chunks_are_prompts_of_their_own(chunk, length, latent, seed):
    """In a layer without positions; and nothing passes from one to another."""
    twin = random_model(seed, n_layers=1, chunk=chunk, latent=latent)
    core, tokens = core_model(twin), random_prompts(np.random.default_rng(seed), 23, (length,))[0]
    whole = core.forward([tokens], [], [], "all")[0][0]
    starts = range(0, length, chunk)
    pieces, _ = core.forward([tokens[i : i + chunk] for i in starts], [], [], "all")
    np.testing.assert_allclose(whole, np.concatenate(pieces), rtol=1e-11, atol=1e-12)
    if length > chunk:
        first = np.arange(chunk, dtype=np.int32)
        J = _core64.Jacobian(core, [tokens], [], (0, 0), (0, 5), [first], [np.array([chunk], np.int32)], False)
        assert not J.apply(np.eye(J.shape[1])).any() and not J.apply_t(np.eye(J.shape[0])).any()


REFUSED = [
    ({"layer_types": ["chunked_attention", "linear_attention", "full_attention"]}, UnsupportedModel, "'linear_attention'; .*chunked"),
    ({"attention_chunk_size": None, "layer_types": ["chunked_attention"] * 3}, BadCheckpoint, "layer 0 .*attention_chunk_size"),
    ({"no_rope_layers": [1, 0]}, BadCheckpoint, "lists 2 no_rope_layers for 3 layers"),
    ({"moe_layers": [0]}, BadCheckpoint, "no tensor 'model.layers.0.feed_forward.experts.gate_up_proj'"),
    ({"intermediate_size": 18}, BadCheckpoint, r"gate_up_proj.*\(5, 24, 34\).*\(5, 24, 36\)"),
    ({"intermediate_size_mlp": 42}, BadCheckpoint, r"feed_forward.gate_proj.weight.*\(41, 24\).*\(42, 24\)"),
    ({"floor_scale": 0}, BadCheckpoint, "'floor_scale' = 0 where a positive integer"),
    ({"sliding_window": 4}, UnsupportedModel, "sliding_window"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, changes, error, words):
    folder = copy("llama4_text", tmp_path)
    change_config(folder, **changes)
    with pytest.raises(error, match=words):
        load_checkpoint(folder)


def test_another_family_has_no_chunks(tmp_path):
    folder = copy("ministral", tmp_path)
    change_config(folder, layer_types=["chunked_attention"] * 3)
    with pytest.raises(UnsupportedModel, match="'chunked_attention'; supported are full_attention and sliding_attention"):
        load_checkpoint(folder)


def test_an_empty_list_of_layers_means_the_default(tmp_path, loaded):
    """As vendors' files have it."""
    folder = copy("llama4_text", tmp_path)
    want = [layer.rope for layer in load_checkpoint(folder).spec.layers]
    change_config(folder, no_rope_layers=[])
    assert [layer.rope for layer in load_checkpoint(folder).spec.layers] == want == [0, 0, -1]
