"""Models whose layers are not all attention: their states in the decoder's cache, the sites that they lack, and configs as vendors
write them. Every family's logits, sites and Jacobians are tested with the others'."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, copy
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch
from random_models import random_model
from test_core import core_model, ids
from test_drafts import decoder_of
from test_forward import DOUBLE, places, worst

import powersteer as ps
from powersteer.errors import BadCheckpoint, InvalidInput, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.config import family_of, read_hyperparameters, rope_settings
from powersteer.model.cost import cache_bytes

FAMILIES = ["lfm2", "qwen3_5_text", "qwen3_next", "granitemoehybrid", "nemotron_h", "bamba"]
CASES = [name for name in hf_models.CASES if name.split("-")[0] in FAMILIES]
MIXERS = [("conv",), ("conv", "attention"), ("delta",), ("delta", "delta", "attention"), ("mamba",), ("attention", "none", "mamba")]
LONG = 150  # more than two chunks of 64, by which transformers computes the delta rule


@pytest.mark.parametrize("name", CASES)
def test_a_prompt_longer_than_chunks(name, loaded, rng):
    model = loaded(name)
    prompt = rng.integers(0, model.n_vocab, LONG).tolist()
    logits, acts = model.run_with_cache(prompt)
    with hf_models.exact(name) as double:
        want, sites = hf_models.run(double, prompt, capture=places(double))
    assert worst(logits, want) < DOUBLE
    assert max(worst(acts[place], sites[place]) for place in sites) < DOUBLE


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("length", [1, 2, 70])
def test_steered_greedy_text(name, length, loaded, rng):
    """Through the cache of both, past the taps of a convolution and a chunk."""
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (length, length + 1)]
    places = [(0, "attn_out"), hf_models.near(hf_models.make(name), 1, "mlp_out")]
    steer = [(*place, rng.normal(size=model.d_model), None) for place in places]
    view = model
    for layer, site, vector, positions in steer:
        view = view.steered(ps.SteeringVector.from_array(vector, layer, site), positions=positions)
    together = view.generate(prompts, max_new_tokens=12, stop=[])
    for prompt, ours in zip(prompts, together, strict=True):
        with hf_models.exact(name) as double, hf_models.hooked(double, steer), torch.no_grad():
            tokens = torch.tensor([prompt])
            theirs = double.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12)
        assert ours.tokens.tolist() == theirs[0, len(prompt) :].tolist()
        assert ours.tokens.tolist() == view.generate(prompt, max_new_tokens=12, stop=[]).tokens.tolist()


@given(mixers=st.sampled_from(MIXERS), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_resumed_decoder_is_one_that_was_given_the_tokens(mixers, data):
    """After any of the tokens that were fed, also before the first with logits, and again after steps."""
    core = core_model(random_model(data.draw(st.integers(0, 5)), ropes=1, mixers=mixers, conv_taps=data.draw(st.integers(1, 4))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    prompts = [rng.integers(0, 4, data.draw(st.integers(1, 7))).astype(np.int32) for _ in range(data.draw(st.integers(1, 4)))]
    counts = np.array([data.draw(st.integers(0, len(p))) for p in prompts], np.int32)
    kept = np.array([data.draw(st.integers(1, len(p))) for p in prompts], np.int32)
    then = rng.integers(0, 20, len(prompts)).astype(np.int32)
    given = [np.append(p[:n], t).astype(np.int32) for p, n, t in zip(prompts, kept, then, strict=True)]
    going, fresh = decoder_of(core, prompts), decoder_of(core, given)
    going.feed(0, prompts, [], counts)
    wanted = [(fresh.step(), fresh.logits()) for _ in range(3)]
    for _ in range(2):
        going.resume(kept, then)
        for tokens, logits in wanted:
            assert going.step().tolist() == tokens.tolist()
            np.testing.assert_allclose(going.logits(), logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mixers", MIXERS)
def test_a_step_that_fails_leaves_the_states(mixers):
    """Its interventions make the second step of sequence 1 infinite; sequence 0 goes on as if it were alone."""
    core = core_model(random_model(2, mixers=mixers, ropes=1))
    prompts = [ids(1, 2, 3), ids(4, 5)]
    bad = (1, 5, np.full(12, np.inf), 1, np.array([[3, 4]], np.int32))

    def decoder(steer):
        return type(decoder_of(core, prompts))(core, prompts, np.array([9, 9], np.int32), steer, 0.0, 0, 1.0, np.zeros(2, np.uint64))

    failing, whole = decoder([bad]), decoder([])
    for _ in range(2):
        assert failing.step().tolist() == whole.step().tolist()
    for _ in range(2):
        with pytest.raises(ps.PowersteerError, match="position 3"):
            failing.step()
    failing.stop(1)
    for _ in range(3):
        assert failing.step()[0] == whole.step()[0]
        assert np.array_equal(failing.logits()[0], whole.logits()[0])


def test_sites_of_attention_are_refused_by_name(loaded):
    for name, words in (("lfm2", "layer 0 has no attention but a short convolution"), ("qwen3_5_text", "layer 0.*delta rule")):
        model = loaded(name)
        for site in ("q", "k", "v", "rot_q", "rot_k", "pattern", "z"):
            with pytest.raises(InvalidInput, match=f"{words}.*attn.hook_{site}"):
                model.run_with_cache([1, 2], sites=[(0, site)])
        assert model.run_with_cache([1, 2], sites=[(1, "pattern"), (0, "pre"), (0, "attn_out")])[1][0, "attn_out"].shape == (2, 24)


def test_a_cache_has_keys_of_attention_alone(loaded):
    """For each token; and for each sequence, however long, two states of the other layers."""
    model = loaded("qwen3_5_text")
    state = 3 * (2 * 2 * 5 + 4 * 7) + 4 * 5 * 7
    assert cache_bytes(model, 10) - cache_bytes(model, 9) == 8 * 2 * 2 * 16
    assert cache_bytes(model, 0) == 8 * 2 * 2 * state
    assert cache_bytes(loaded("lfm2"), 0) == 8 * 2 * 2 * 2 * 24


REFUSED = [
    ("lfm2", {"layer_types": ["conv", "linear_attention", "conv"]}, UnsupportedModel, "'linear_attention'; supported are.* and conv"),
    ("lfm2", {"conv_L_cache": 4}, BadCheckpoint, r"conv.conv.weight.*\(24, 1, 3\).*\(24, 1, 4\)"),
    ("lfm2", {"full_attn_idxs": [0], "layer_types": ...}, BadCheckpoint, "no tensor 'model.layers.0.self_attn.q_proj.weight'"),
    ("lfm2", {"conv_bias": True}, BadCheckpoint, "no tensor 'model.layers.0.conv.conv.bias'"),
    ("lfm2", {"block_multiple_of": 7}, BadCheckpoint, r"feed_forward.w1.weight.*\(32, 24\).*\(28, 24\)"),
    ("qwen3_5_text", {"hidden_act": "gelu"}, UnsupportedModel, "'hidden_act' = 'gelu'"),
    ("qwen3_5_text", {"linear_num_value_heads": 3}, BadCheckpoint, "3 value heads of linear attention cannot share 2"),
    ("qwen3_5_text", {"linear_value_head_dim": 6}, BadCheckpoint, "in_proj_qkv|conv1d"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "error", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, name, changes, error, words):
    folder = copy(name, tmp_path)
    change_config(folder, **changes)
    with pytest.raises(error, match=words):
        load_checkpoint(folder)


# As the vendors' repositories have them, with what else they hold
LFM2_350M = dict(
    architectures=["Lfm2ForCausalLM"], block_auto_adjust_ff_dim=True, block_dim=1024, block_ff_dim=6656, block_ffn_dim_multiplier=1.0,
    block_mlp_init_scale=1.0, block_multiple_of=256, block_norm_eps=1e-5, block_out_init_scale=1.0, block_use_swiglu=True,
    block_use_xavier_init=True, bos_token_id=1, conv_L_cache=3, conv_bias=False, conv_dim=1024, conv_dim_out=1024,
    conv_use_xavier_init=True, eos_token_id=7, full_attn_idxs=[2, 5, 8, 10, 12, 14], hidden_size=1024, initializer_range=0.02,
    max_position_embeddings=128000, model_type="lfm2", norm_eps=1e-5, num_attention_heads=16, num_heads=16, num_hidden_layers=16,
    num_key_value_heads=8, pad_token_id=0, rope_theta=1000000.0, torch_dtype="bfloat16", use_cache=True, use_pos_enc=True, vocab_size=65536,
)  # fmt: skip
QWEN3_5_TEXT = dict(
    attention_bias=False, attention_dropout=0.0, attn_output_gate=True, dtype="bfloat16", eos_token_id=248044, full_attention_interval=4,
    head_dim=256, hidden_act="silu", hidden_size=1024, initializer_range=0.02, intermediate_size=3584,
    layer_types=(["linear_attention"] * 3 + ["full_attention"]) * 6, linear_conv_kernel_dim=4, linear_key_head_dim=128,
    linear_num_key_heads=16, linear_num_value_heads=16, linear_value_head_dim=128, mamba_ssm_dtype="float32",
    max_position_embeddings=262144, mlp_only_layers=[], model_type="qwen3_5_text", mtp_num_hidden_layers=1,
    mtp_use_dedicated_embeddings=False, num_attention_heads=8, num_hidden_layers=24, num_key_value_heads=2, rms_norm_eps=1e-6,
    tie_word_embeddings=True, use_cache=True, vocab_size=248320,
    rope_parameters=dict(mrope_interleaved=True, mrope_section=[11, 11, 10], partial_rotary_factor=0.25, rope_theta=10000000,
                         rope_type="default"),
)  # fmt: skip
QWEN3_NEXT = dict(
    architectures=["Qwen3NextForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=151643, decoder_sparse_step=1,
    eos_token_id=151645, full_attention_interval=4, head_dim=256, hidden_act="silu", hidden_size=2048, initializer_range=0.02,
    intermediate_size=5120, linear_conv_kernel_dim=4, linear_key_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
    linear_value_head_dim=128, max_position_embeddings=262144, mlp_only_layers=[], model_type="qwen3_next", moe_intermediate_size=512,
    norm_topk_prob=True, num_attention_heads=16, num_experts=512, num_experts_per_tok=10, num_hidden_layers=48, num_key_value_heads=2,
    output_router_logits=False, partial_rotary_factor=0.25, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=10000000,
    router_aux_loss_coef=0.001, shared_expert_intermediate_size=512, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True,
    use_sliding_window=False, vocab_size=151936,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "attention", "sizes"),
    [(LFM2_350M, [2, 5, 8, 10, 12, 14], dict(d_ff=4608, conv_taps=3, tied=True, head_dim=64)),
     (QWEN3_5_TEXT, range(3, 24, 4), dict(d_ff=3584, conv_taps=4, tied=True, head_dim=256, state_v_heads=16, state_k_dim=128)),
     (QWEN3_NEXT, range(3, 48, 4), dict(n_experts=512, top_k=10, d_shared=512, norm_topk=True, head_dim=256, state_v_heads=32))],
    ids=["LFM2-350M", "Qwen3.5-0.8B", "Qwen3-Next-80B-A3B"],
)  # fmt: skip
def test_configs_of_vendors(config, attention, sizes):
    family = family_of(config, "config")
    hyper = read_hyperparameters(config, family, "config")
    assert [i for i, kind in enumerate(hyper.layer_types) if kind == "full_attention"] == list(attention)
    assert {name: getattr(hyper, name) for name in sizes} == sizes
    assert family.rope is not None
    assert [values["rope_theta"] for values, _ in rope_settings(config, family.rope, "config")] == [
        config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    ]
