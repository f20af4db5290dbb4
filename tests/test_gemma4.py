"""Gemma 4: keys that later layers see, inputs of layers, sizes of layers, in its configs, its cache and its derivatives."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, change_tensors, copy, equal_specs
from oracles import torch

import powersteer as ps
from powersteer.errors import BadCheckpoint, InvalidInput, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.config import family_of, read_hyperparameters, rope_settings
from powersteer.loading.multimodal import text_part
from powersteer.model.cost import cache_bytes

FULL, SLIDING = "full_attention", "sliding_attention"
ROPE = {FULL: dict(partial_rotary_factor=0.25, rope_theta=1000000.0, rope_type="proportional"),
        SLIDING: dict(rope_theta=10000.0, rope_type="default")}  # fmt: skip
# As the vendor's repositories have them, without vision and audio
E2B = dict(
    architectures=["Gemma4ForConditionalGeneration"], audio_token_id=258881, boa_token_id=256000, boi_token_id=255999, dtype="bfloat16",
    eoi_token_id=258882, eos_token_id=[1, 106], image_token_id=258880, initializer_range=0.02, model_type="gemma4",
    tie_word_embeddings=True, text_config=dict(
        attention_bias=False, attention_dropout=0.0, attention_k_eq_v=False, bos_token_id=2, dtype="bfloat16", enable_moe_block=False,
        eos_token_id=1, final_logit_softcapping=30.0, global_head_dim=512, head_dim=256, hidden_activation="gelu_pytorch_tanh",
        hidden_size=1536, hidden_size_per_layer_input=256, initializer_range=0.02, intermediate_size=6144,
        layer_types=([SLIDING] * 4 + [FULL]) * 7, max_position_embeddings=131072, model_type="gemma4_text", num_attention_heads=8,
        num_experts=None, num_global_key_value_heads=None, num_hidden_layers=35, num_key_value_heads=1, num_kv_shared_layers=20,
        pad_token_id=0, rms_norm_eps=1e-6, rope_parameters=ROPE, sliding_window=512, tie_word_embeddings=True, top_k_experts=None,
        use_bidirectional_attention=None, use_cache=True, use_double_wide_mlp=True, vocab_size=262144, vocab_size_per_layer_input=262144,
    ),
)  # fmt: skip
DENSE_31B = dict(E2B, text_config=dict(
    E2B["text_config"], attention_k_eq_v=True, hidden_size=5376, hidden_size_per_layer_input=0, intermediate_size=21504,
    layer_types=([SLIDING] * 5 + [FULL]) * 10, max_position_embeddings=262144, num_attention_heads=32, num_global_key_value_heads=4,
    num_hidden_layers=60, num_key_value_heads=16, num_kv_shared_layers=0, sliding_window=1024, use_bidirectional_attention="vision",
    use_double_wide_mlp=False,
))  # fmt: skip


@pytest.mark.parametrize(
    ("config", "last", "seen", "heads"),
    [(E2B, {"d_ff": 12288, "head_dim": 512}, {13, 14}, (1, 1)), (DENSE_31B, {"head_dim": 512, "n_kv_heads": 4}, {59, 58}, (16, 4))],
    ids=["gemma-4-E2B", "gemma-4-31B"],
)
def test_configs_of_vendors(config, last, seen, heads):
    config = text_part(config, "config").config
    family = family_of(config, "config")
    hyper = read_hyperparameters(config, family, "config")
    n = hyper.n_layers
    own = family.of_layer(hyper, n - 1)
    assert {name: own[name] for name in last} == last and own["keys_are_values"] == (n == 60) and hyper.tied
    assert {family.keys_of(hyper, i) for i in (n - 1, n - 2)} == seen
    assert tuple({**vars(hyper), **family.of_layer(hyper, i)}["n_kv_heads"] for i in (0, 5)) == heads
    assert family.rope is not None and family.rope.head_dims is not None and family.rope.head_dims(hyper) == (512, 256)
    assert [values["rope_theta"] for values, _ in rope_settings(config, family.rope, "config")] == [1e6, 1e4]


def test_sizes_are_spelled_in_two_ways(tmp_path):
    """Listed for each layer, as transformers saves them now, or for all layers with full attention."""
    listed = load_checkpoint(folder := copy("gemma4_text", tmp_path)).spec
    change_config(folder, per_layer_config=..., global_head_dim=12, num_global_key_value_heads=None)
    spec = load_checkpoint(folder).spec
    assert [layer.head_dim for layer in spec.layers] == [layer.head_dim for layer in listed.layers] == [None, 12, None, 12]
    assert [layer.keys_of for layer in spec.layers] == [None, None, 0, 1]


REFUSED = [
    ({"enable_moe_block": True}, UnsupportedModel, "'enable_moe_block' = True"),
    ({"use_bidirectional_attention": "all"}, UnsupportedModel, "'use_bidirectional_attention' = 'all'"),
    ({"num_kv_shared_layers": 3}, BadCheckpoint, "num_kv_shared_layers = 3 leaves no layer of each type"),
    ({"num_kv_shared_layers": 0}, BadCheckpoint, "no tensor 'model.layers.2.self_attn.k_proj.weight'"),
    ({"per_layer_config": {"1": {"head_dim": 12}, "3": {"head_dim": 10}}}, BadCheckpoint, "heads of several sizes"),
    ({"per_layer_config": {"1": {"d_ff": 12}}}, BadCheckpoint, "per_layer_config has the key 'd_ff'"),
    ({"per_layer_config": {"1": 3}}, BadCheckpoint, "an object of positive integers for each layer"),
    ({"hidden_size_per_layer_input": 5}, BadCheckpoint, r"embed_tokens_per_layer.*\(61, 28\).*\(61, 20\)"),
    ({"vocab_size_per_layer_input": 60}, BadCheckpoint, "inputs of layers have 60 tokens of 61"),
    ({"use_double_wide_mlp": False}, BadCheckpoint, r"layers.2.mlp.gate_proj.*\(82, 24\).*\(41, 24\)"),
    ({"attention_k_eq_v": True}, BadCheckpoint, "'model.layers.1.self_attn.v_proj.weight'.*does not belong"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, changes, error, words):
    folder = copy("gemma4_text", tmp_path)
    change_config(folder, **changes)
    with pytest.raises(error, match=words):
        load_checkpoint(folder)


def test_keys_of_layers_that_see_others_are_left_out(tmp_path):
    before = load_checkpoint(folder := copy("gemma4_text", tmp_path)).spec
    extra = {f"model.layers.2.self_attn.{name}.weight": torch.ones(20, 24) for name in ("k_proj", "v_proj")}
    change_tensors(folder, lambda tensors: tensors.update(extra))
    assert equal_specs(load_checkpoint(folder).spec, before)


def test_a_cache_has_keys_of_layers_with_their_own(loaded):
    assert cache_bytes(loaded("gemma4_text"), 10) == 10 * 8 * 2 * (2 * 6 + 2 * 12)
    assert cache_bytes(loaded("gemma4_text-keys_are_values"), 1) == 8 * 2 * (2 * 6 + 1 * 12)


def test_keys_are_read_where_they_are(loaded):
    model = loaded("gemma4_text")
    for site in ("k", "v", "rot_k"):
        with pytest.raises(InvalidInput, match=r"layer 2 has no keys and values of its own, but sees those of layer 0"):
            model.run_with_cache([1, 2], sites=[(2, site)])


def test_jacobian_of_the_embedding_is_autograd_s(loaded, rng):
    """From resid_pre of layer 0 through the inputs of all layers, as PyTorch's from inputs_embeds, tokens being fixed; from the
    stream behind layer 0 they are constants."""
    name, prompt = "gemma4_text", rng.integers(3, 61, 7)
    model, ids = loaded(name), torch.tensor(prompt)[None]
    with hf_models.exact(name) as hf:
        x = hf.model.embed_tokens(ids)
        tokens = hf.model.get_per_layer_inputs(ids)

        def logits(row):
            moved = torch.cat((x[:, :3], row[None, None], x[:, 4:]), 1)
            return hf(inputs_embeds=moved, per_layer_inputs=tokens, use_cache=False).logits[0, -1]

        want = torch.func.jacrev(logits)(x[0, 3]).numpy()
    J = model.jacobian(prompt, source=0, source_site="resid_pre", target="logits", source_positions=[3])
    assert np.linalg.norm(J.dense() - want) < 1e-12 * np.linalg.norm(want)
    assert np.linalg.norm((J.T @ np.eye(61)).T - want) < 1e-12 * np.linalg.norm(want)


def test_no_position_reaches_another_behind_the_last_keys(loaded, rng):
    """The last layers see keys of layers before them: there a tangent stays at its position."""
    model, prompt = loaded("gemma4_text"), rng.integers(3, 61, 9)
    for source, reaches in ((1, True), (2, False)):
        J = model.jacobian(prompt, source, 3, source_site="resid_pre", target_site="resid_post", source_positions=[4], target_positions=[8])
        assert bool(J.dense().any()) == bool((J.T @ np.ones(24)).any()) == reaches


def test_the_hook_of_a_transformers_model_is_at_the_embedding(loaded, rng):
    name, prompt = "gemma4_text", rng.integers(3, 61, 9).tolist()
    model, hf = loaded(name, "float32"), hf_models.make(name)
    vector = ps.SteeringVector.from_array(rng.normal(size=24), 0, "resid_pre")
    with vector.hook(hf, positions=[2, 3]):
        want = hf(torch.tensor(prompt)[None]).logits[0].numpy()
    got = model.steered(vector, positions=[2, 3])(prompt)
    assert np.abs(got - want).max() < 5e-5 * np.abs(want).max() < np.abs(model(prompt) - want).max()
