"""Mamba-2's state space, and layers that are a mixer, an MLP or a mixture alone: what is particular to them. Every family's
logits, sites and Jacobians are tested with the others', their cache in test_hybrid.py."""

from __future__ import annotations

import math

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, copy
from random_models import random_model
from test_core import core_model, ids

import powersteer as ps
from powersteer._core import _core64
from powersteer.errors import BadCheckpoint, InvalidInput, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.config import family_of, read_hyperparameters
from powersteer.model.cost import cache_bytes

EVERYWHERE = np.array([[0, 2**31 - 1]], np.int32)


def test_derivatives_have_the_same_bits_for_any_number_of_threads():
    """Heads that share a key add to its cotangent in parts."""
    twin = random_model(3, mixers=("mamba",), state=(1, 19, 3, 2), n_layers=2)
    rng = np.random.default_rng(0)
    prompts = [ids(*rng.integers(0, 23, n)) for n in (9, 4)]
    rows = [np.arange(len(p), dtype=np.int32) for p in prompts]
    found = []
    for threads in (1, 2, 3):
        J = _core64.Jacobian(core_model(twin, threads=threads), prompts, [], (0, 0), (1, 5), rows, rows, False)
        found.append((J.apply(np.eye(12)), J.apply_t(np.random.default_rng(1).normal(size=(11, J.shape[0])))))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_step_is_limited_and_has_no_slope_beyond(loaded, rng):
    """The limits of two variants are such that some steps are beyond them, and their derivatives are 0."""
    for name, low, high in (("granitemoehybrid-dense", 0.6, 0.8), ("nemotron_h-one_group", 0.7, math.inf)):
        assert loaded(name).spec.step_limit == (low, high)
        spec, layers, top = loaded(name).spec.to_core(np.float64)
        free = _core64.Model({k: v for k, v in spec.items() if not k.startswith("step_")}, layers, top, 1)
        prompt = rng.integers(0, 61, 20).astype(np.int32)
        limited = loaded(name)._loaded.core.forward([prompt], [], [], "all")[0][0]
        assert np.abs(free.forward([prompt], [], [], "all")[0][0] - limited).max() > 1e-3
        model, start, end, h = loaded(name), ps.Site(0, "resid_pre"), ps.Site(len(layers) - 1, "resid_post"), 1e-5
        v = rng.normal(size=model.d_model)
        ends = [model.steered(ps.SteeringVector.from_array(sign * h * v, *start)).activations(prompt, end) for sign in (1, -1)]
        want = (ends[0] - ends[1]).ravel() / (2 * h)
        got = model.jacobian(prompt, start, end, target_positions=None) @ v
        np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())


# ---- layers that lack a part -----------------------------------------------------------------------------------------


def test_sites_that_a_layer_lacks_are_refused_by_name(loaded):
    """Layers: a state space, attention, a mixture, an MLP, a state space."""
    model, hf = loaded("nemotron_h"), hf_models.make("nemotron_h")
    for layer, word, absent in (
        (0, "has no MLP", ("resid_mid", "down_proj", "mlp_out")), (1, "has no MLP", ("resid_mid", "mlp_out")),
        (2, "is an MLP or a mixture alone", ("attn_out", "resid_mid")), (3, "is an MLP or a mixture alone", ("attn_out",)),
    ):  # fmt: skip
        for site in absent:
            vector = ps.SteeringVector.from_array(np.ones(model.d_model), layer, site)
            for use in (
                lambda: model.run_with_cache([1, 2], sites=[(layer, site)]),  # noqa: B023
                lambda: model.steered(vector),  # noqa: B023
                lambda: vector.hook(hf),  # noqa: B023
                lambda: model.jacobian([1, 2], source=0, source_site="resid_pre", target=layer, target_site=site),  # noqa: B023
            ):
                with pytest.raises(InvalidInput, match=f"layer {layer} {word}: it has no {site}"):
                    use()
    with pytest.raises(InvalidInput, match="layer 2 is an MLP or a mixture alone.* what it adds to resid_pre is mlp_out"):
        model.jacobian([1, 2], source=2, source_site="attn_out", target=3)
    with pytest.raises(InvalidInput, match="layer 0 has no MLP.* what it adds to resid_pre is attn_out"):
        model.jacobian([1, 2], source=0, target=3)
    for site, words in (((2, "q"), "layer 2 has no attention: "), ((0, "z"), "layer 0 has no attention but a state space: .*attn_out is"),
                        ((1, "post"), "layer 1 has no MLP"), ((2, "pre"), "layer 2 has a mixture"),
                        ((3, "pre_linear"), "has no gate; use mlp.hook_pre")):  # fmt: skip
        with pytest.raises(InvalidInput, match=words):
            model.run_with_cache([1, 2], sites=[site])
    acts = model.run_with_cache([1, 2], sites=[(1, "pattern"), (3, "post")])[1]
    assert acts[1, "pattern"].shape == (4, 2, 2) and acts[3, "post"].shape == (2, 41)


def test_default_sites_are_those_that_there_are(loaded):
    model = loaded("nemotron_h")
    assert [model.spec.sites(layer) for layer in (0, 3)] == [["resid_pre", "attn_out", "resid_post"],
                                                            ["resid_pre", "down_proj", "mlp_out", "resid_post"]]  # fmt: skip
    acts = model.run_with_cache([3, 4, 5])[1]
    assert {(layer, name) for layer, name in acts} == {(layer, name) for layer in range(5) for name in model.spec.sites(layer)}
    for layer in range(5):
        branch = (layer, "mlp_out" if (layer, "mlp_out") in acts else "attn_out")
        np.testing.assert_array_equal(acts[layer, "resid_pre"] + acts[branch], acts[layer, "resid_post"])
    whole = ps.atlas(loaded("granitemoehybrid"), [[3, 4, 5]], k=1, next_token=False)
    assert (whole.settings.sources, whole.settings.targets) == ((0, 1, 2), (0, 1, 2))
    some = ps.atlas(model, [[3, 4, 5]], k=1, next_token=False)
    assert some.settings.sources == some.settings.targets == (2, 3)


@pytest.mark.parametrize(("layer", "words"), [
    ({"mixer": "none"}, "a layer with no mixer and an MLP has 'q'"),
    ({"mixer": "attention", "conv": np.ones((3, 12))}, "a layer with attention and an MLP has 'conv'"),
    ({"mixer": "attention", "skip": np.ones(2)}, "a layer with attention and an MLP has 'skip'"),
    ({"up": None, "down": None}, "a layer with attention and no MLP has 'gate'"),
    ({"up": None, "down": None, "gate": None, "gate_bias": None, "up_bias": None, "down_bias": None},
     "a layer with attention and no MLP has 'norm2'"),
])  # fmt: skip
def test_a_layer_with_what_it_has_no_use_for_is_refused(layer, words):
    twin = random_model(0, ropes=1, conv_taps=3)
    twin.spec.update(conv_taps=3, state_k_heads=1, state_v_heads=2, state_k_dim=3, state_v_dim=4)
    twin.layers[0] = {name: value for name, value in (twin.layers[0] | layer).items() if value is not None}
    with pytest.raises(ps.PowersteerError, match=words):
        core_model(twin)


def test_what_the_core_refuses_of_a_state_space():
    for change, words in (
        (lambda spec, layer: layer.pop("o_norm"), "a state space needs decay_rate, decay_bias and o_norm"),
        (lambda spec, layer: layer.update(b=layer["a"]), "a layer with state space and an MLP has 'b'"),
        (lambda spec, layer: layer.pop("a"), "the weight a is missing"),
        (lambda spec, layer: spec.update(step_min=2.0, step_max=1.0), "step_min must be neither negative nor above step_max"),
        (lambda spec, layer: spec.update(state_tiled=True), "heads of a state space are neighbours, not tiled"),
        (lambda spec, layer: spec.update(parallel=True) or [layer.pop(name) for name in list(layer) if name[:4] in ("up", "down", "gate")
                                                            or name in ("up_bias", "norm2")], "lacks its mixer or its MLP"),
    ):  # fmt: skip
        twin = random_model(0, mixers=("mamba",), n_layers=1)
        change(twin.spec, twin.layers[0])
        with pytest.raises(ps.PowersteerError, match=words):
            core_model(twin)


def test_a_cache_has_states_of_state_spaces_and_keys_of_attention(loaded):
    model = loaded("nemotron_h")  # M*E-M: 6 heads of 7 x 5 numbers, and 3 rows of 72 channels
    assert cache_bytes(model, 0) == 8 * 2 * 2 * (3 * 72 + 6 * 7 * 5)
    assert cache_bytes(model, 10) - cache_bytes(model, 9) == 8 * 2 * 2 * 10


def test_an_estimate_counts_what_a_layer_has(loaded):
    """Of a mixture alone its router, the experts of a token and the shared one; of a state space two passes over its state."""
    model, n = loaded("nemotron_h"), 20
    said = model.estimate(list(range(n)), 2, 2, source_site="resid_pre", target_site="resid_post", target_positions=None).flops
    assert said == 2 * n * 24 * (8 + 2 * (3 * 17 + 29))
    said = model.estimate(list(range(n)), 0, 0, source_site="resid_pre", target_site="resid_post", target_positions=None).flops
    assert said == 2 * n * (24 * (30 + 72 + 6) + 24 * 30 + 2 * (3 * 72 + 6 * 7 * 5))


# ---- configs ---------------------------------------------------------------------------------------------------------

REFUSED = [
    ("granitemoehybrid", {"hidden_act": "gelu"}, UnsupportedModel, "'hidden_act' = 'gelu'"),
    ("granitemoehybrid", {"mamba_d_head": 5}, BadCheckpoint, "6 heads of mamba_d_head = 5 are not mamba_expand"),
    ("granitemoehybrid", {"mamba_n_groups": 4}, BadCheckpoint, "6 value heads of linear attention cannot share 4"),
    ("granitemoehybrid", {"mamba_d_state": 5}, BadCheckpoint, "mamba"),
    ("granitemoehybrid", {"time_step_limit": [0.5, 0.1]}, BadCheckpoint, "time_step_limit"),
    ("granitemoehybrid", {"time_step_limit": [0.5]}, BadCheckpoint, "time_step_limit.*list of two numbers"),
    ("granitemoehybrid", {"layer_types": ["mamba", "attention", "conv"]}, UnsupportedModel, "layer 2 the type 'conv'"),
    ("granitemoehybrid", {"num_experts_per_tok": 0}, BadCheckpoint, "num_experts_per_tok"),
    ("granitemoehybrid", {"num_local_experts": 0}, BadCheckpoint, "block_sparse_moe.*does not belong"),
    ("nemotron_h", {"moe_latent_size": 12}, UnsupportedModel, "'moe_latent_size' = 12"),
    ("nemotron_h", {"mlp_bias": True}, UnsupportedModel, "'mlp_bias' = True"),
    ("nemotron_h", {"layers_block_type": ["mamba", "attention", "moe", "mlp", "conv"]}, UnsupportedModel, "layer 4 the type 'conv'"),
    ("nemotron_h", {"layers_block_type": ..., "hybrid_override_pattern": "M*E-X"}, BadCheckpoint, "the letter 'X'"),
    ("nemotron_h", {"layers_block_type": ..., "hybrid_override_pattern": "M*E-"}, BadCheckpoint, "layers.4.*does not belong"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "error", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, name, changes, error, words):
    folder = copy(name, tmp_path)
    change_config(folder, **changes)
    with pytest.raises(error, match=words):
        load_checkpoint(folder)


# As the vendors' repositories have them
GRANITE = dict(
    architectures=["GraniteMoeHybridForCausalLM"], attention_bias=False, attention_dropout=0.0, attention_multiplier=0.015625,
    bos_token_id=100257, embedding_multiplier=12, eos_token_id=100257, hidden_act="silu", initializer_range=0.1, init_method="mup",
    mamba_chunk_size=256, mamba_conv_bias=True, mamba_d_conv=4, mamba_expand=2, mamba_n_groups=1, mamba_proj_bias=False,
    model_type="granitemoehybrid", normalization_function="rmsnorm", output_router_logits=False, pad_token_id=100256, rms_norm_eps=1e-5,
    rope_scaling=None, router_aux_loss_coef=0.0, tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.56.0",
    use_cache=True, vocab_size=100352,
)  # fmt: skip
GRANITE_4_3B = dict(
    GRANITE, hidden_size=2560, intermediate_size=8192, layer_types=["attention"] * 40, logits_scaling=10, mamba_d_head=40,
    mamba_d_state=256, mamba_n_heads=128, max_position_embeddings=131072, num_attention_heads=40, num_experts_per_tok=0,
    num_hidden_layers=40, num_key_value_heads=8, num_local_experts=0, position_embedding_type="rope", residual_multiplier=0.22,
    rope_theta=10000000, shared_intermediate_size=8192,
)  # fmt: skip
GRANITE_4_H_350M = dict(
    GRANITE, hidden_size=768, intermediate_size=2048, logits_scaling=3, mamba_d_head=32, mamba_d_state=128, mamba_n_heads=48,
    layer_types=["attention" if i in (10, 13, 17, 27) else "mamba" for i in range(32)], max_position_embeddings=32768,
    num_attention_heads=12, num_experts_per_tok=0, num_hidden_layers=32, num_key_value_heads=4, num_local_experts=0,
    position_embedding_type="nope", residual_multiplier=0.246, rope_theta=10000, shared_intermediate_size=2048,
)  # fmt: skip
GRANITE_4_H_TINY = dict(
    GRANITE, hidden_size=1536, intermediate_size=512, logits_scaling=6, mamba_d_head=64, mamba_d_state=128, mamba_n_heads=48,
    layer_types=["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)], max_position_embeddings=131072,
    num_attention_heads=12, num_experts_per_tok=6, num_hidden_layers=40, num_key_value_heads=4, num_local_experts=64,
    position_embedding_type="nope", residual_multiplier=0.22, rope_theta=10000, shared_intermediate_size=1024,
)  # fmt: skip
NEMOTRON_3_NANO = dict(
    architectures=["NemotronHForCausalLM"], attention_bias=False, attention_dropout=0.0,
    auto_map=dict(AutoConfig="configuration_nemotron_h.NemotronHConfig", AutoModel="modeling_nemotron_h.NemotronHForCausalLM",
                  AutoModelForCausalLM="modeling_nemotron_h.NemotronHForCausalLM"),
    bos_token_id=1, chunk_size=128, conv_kernel=4, eos_token_id=2, expand=2, head_dim=128, hidden_dropout=0.0, hidden_size=2688,
    hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", initializer_range=0.02, intermediate_size=1856,
    layer_norm_epsilon=1e-5, mamba_head_dim=64, mamba_hidden_act="silu", mamba_num_heads=64, mamba_proj_bias=False,
    mamba_ssm_cache_dtype="float32", max_position_embeddings=262144, mlp_bias=False, mlp_hidden_act="relu2", model_type="nemotron_h",
    moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712, n_group=1, n_groups=8, n_routed_experts=128,
    n_shared_experts=1, norm_eps=1e-5, norm_topk_prob=True, num_attention_heads=32, num_experts_per_tok=6, num_hidden_layers=52,
    num_key_value_heads=2, num_logits_to_keep=1, pad_token_id=0, partial_rotary_factor=1.0, rescale_prenorm_residual=True,
    residual_in_fp32=False, rope_theta=10000, routed_scaling_factor=2.5, sliding_window=None, ssm_state_size=128,
    tie_word_embeddings=False, time_step_floor=0.0001, time_step_max=0.1, time_step_min=0.001, topk_group=1, torch_dtype="bfloat16",
    transformers_version="4.55.4", use_bias=False, use_cache=True, use_conv_bias=True, use_mamba_kernels=True, vocab_size=131072,
)  # fmt: skip
NEMOTRON_H_8B = dict(
    architectures=["NemotronHForCausalLM"], attention_bias=False, attention_dropout=0.0, attention_head_dim=128, bos_token_id=1,
    chunk_size=128, conv_kernel=4, eos_token_id=3, expand=2, hidden_dropout=0.0, hidden_size=4096,
    hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", initializer_range=0.02, intermediate_size=21504,
    layer_norm_epsilon=1e-5, mamba_head_dim=64, mamba_hidden_act="silu", mamba_num_heads=128, mamba_proj_bias=False,
    max_position_embeddings=8192, mlp_bias=False, mlp_hidden_act="relu2", model_type="nemotron_h", n_groups=8, num_attention_heads=32,
    num_hidden_layers=52, num_key_value_heads=8, num_logits_to_keep=1, pad_token_id=0, rescale_prenorm_residual=True,
    residual_in_fp32=False, rms_norm_eps=1e-5, sliding_window=None, ssm_state_size=128, tie_word_embeddings=False,
    time_step_floor=0.0001, time_step_max=0.1, time_step_min=0.001, time_step_rank=256, torch_dtype="bfloat16",
    transformers_version="4.48.0.dev0", use_bias=False, use_cache=True, use_conv_bias=True, use_mamba_kernels=True, vocab_size=131072,
)  # fmt: skip
NO_LIMIT = (0.0, math.inf)
VENDORS = {
    "granite-4.0-micro": (GRANITE_4_3B, {"full_attention": 40}, dict(n_experts=0, d_ff=8192, positions="rope", head_dim=64)),
    "granite-4.0-h-350m": (GRANITE_4_H_350M, {"full_attention": 4, "linear_attention": 28},
                           dict(d_ff=2048, state_k_heads=1, state_v_heads=48, state_k_dim=128, state_v_dim=32, step_limit=NO_LIMIT)),
    "granite-4.0-h-tiny": (GRANITE_4_H_TINY, {"full_attention": 4, "linear_attention": 36},
                           dict(n_experts=64, top_k=6, d_expert=512, d_shared=1024, state_v_dim=64, positions="nope", tied=True)),
    "Nemotron-3-Nano-30B-A3B": (NEMOTRON_3_NANO, {"full_attention": 6, "linear_attention": 23, "moe": 23},
                                dict(n_layers=52, n_experts=128, top_k=6, d_expert=1856, d_shared=3712, route_scale=2.5, conv_taps=4,
                                     state_k_heads=8, state_v_heads=64, step_limit=(0.001, math.inf), act="relu2", head_dim=128)),
    "Nemotron-H-8B": (NEMOTRON_H_8B, {"full_attention": 4, "linear_attention": 24, "mlp": 24},
                      dict(n_layers=52, n_experts=0, d_ff=21504, state_v_heads=128, state_v_dim=64, tied=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", VENDORS)
def test_configs_of_vendors(name):
    config, layers, sizes = VENDORS[name]
    hyper = read_hyperparameters(config, family_of(config, "config"), "config")
    assert {kind: hyper.layer_types.count(kind) for kind in set(hyper.layer_types)} == layers
    assert {key: getattr(hyper, key) for key in sizes} == sizes


def test_a_state_space_is_the_default_of_granite():
    hyper = read_hyperparameters({**GRANITE_4_H_TINY, "layer_types": None}, family_of(GRANITE, "config"), "config")
    assert hyper.layer_types == ["linear_attention"] * 40
