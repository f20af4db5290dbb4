"""A tiny model of every architecture that GGUF files can have beside those of gguf_models.py: family, and what of its config
differs from the one in hf_models.py because the format cannot say it."""

from __future__ import annotations

from functools import cache

import hf_models
from hf_configs import FULL, LINEAR, SLIDING, TIED, UNTIED, rope, yarn

_SMALL = dict(hidden_size=32, head_dim=8, max_position_embeddings=32)
_FF = dict(intermediate_size=96)  # four times the width
_STATES = dict(linear_key_head_dim=6, linear_value_head_dim=6, head_dim=40, rms_norm_eps=1e-6)
_YARN = yarn(mscale=1.0, mscale_all_dim=1.0)

MODELS = {
    "llama-mixtral": ("mixtral", {}),
    "mistral3": ("ministral3", {}),
    "smollm3": ("smollm3", dict(num_hidden_layers=5, no_rope_layer_interval=4)),
    "granite": ("granite", {}),
    "granite-biases": ("granite", dict(attention_bias=True, mlp_bias=True, **TIED)),
    "arcee": ("arcee", {}),
    "ernie4_5": ("ernie4_5", {}),
    "seed_oss": ("seed_oss", {}),
    "hunyuan-dense": ("hunyuan_v1_dense", {}),
    "apertus": ("apertus", {}),
    "olmo2": ("olmo2", {}),
    "olmo2-third": ("olmo3", {}),
    "olmo2-yarn": ("olmo3", dict(rope_parameters={
        FULL: dict(rope_type="yarn", factor=4.0, rope_theta=100.0, original_max_position_embeddings=16, attention_factor=1.138629436),
        SLIDING: dict(rope_type="default", rope_theta=100.0)})),
    "exaone4": ("exaone4", dict(num_hidden_layers=64)),  # llama.cpp sees windows in a model of so many layers
    "exaone4-no_window": ("exaone4", dict(sliding_window=None, layer_types=[FULL] * 3)),
    "chatglm": ("glm", dict(rms_norm_eps=1e-5, **_SMALL)),
    "glm4": ("glm4", {}),
    "gpt2": ("gpt2", dict(n_inner=None)),
    "starcoder": ("gpt_bigcode", dict(n_inner=None)),
    "starcoder2": ("starcoder2", dict(sliding_window=None)),
    "gptneox": ("gpt_neox", {}),
    "gptneox-sequential": ("gpt_neox", dict(use_parallel_residual=False, rotary_pct=1.0)),
    "stablelm": ("stablelm", {}),
    "stablelm-parallel": ("stablelm", dict(use_parallel_residual=True, use_qkv_bias=True)),
    "phi2": ("phi", _FF),
    "command-r": ("cohere", {}),
    "cohere2": ("cohere2", dict(num_hidden_layers=5, sliding_window_pattern=4)),
    "nemotron": ("nemotron", dict(head_dim=None, partial_rotary_factor=0.67)),
    "jais2": ("jais2", {}),
    "olmo": ("olmo", {}),
    "falcon": ("falcon", dict(ffn_hidden_size=96, max_position_embeddings=2048)),
    "falcon-new": ("falcon", dict(ffn_hidden_size=96, max_position_embeddings=2048, new_decoder_architecture=True, num_kv_heads=2,
                                  **UNTIED)),
    "bloom": ("bloom", dict(n_head=4)),
    "bloom-three_heads": ("bloom", {}),
    "mpt": ("mpt", dict(layer_norm_epsilon=1e-5, n_heads=4)),
    "mpt-clipped": ("mpt", dict(layer_norm_epsilon=1e-5, n_heads=6, attn_config=dict(clip_qkv=0.9))),
    "qwen2moe": ("qwen2_moe", dict(head_dim=6)),
    "qwen3moe": ("qwen3_moe", dict(norm_topk_prob=True)),
    "olmoe": ("olmoe", dict(rms_norm_eps=1e-5, num_key_value_heads=4)),
    "granitemoe": ("granitemoe", {}),
    "gpt-oss": ("gpt_oss", dict(swiglu_limit=7.0, **rope("default"))),
    "gpt-oss-yarn": ("gpt_oss", dict(swiglu_limit=7.0, **UNTIED)),
    "deepseek2": ("deepseek_v3", dict(rms_norm_eps=1e-6)),
    "deepseek2-yarn": ("deepseek_v3", dict(rms_norm_eps=1e-6, **_YARN)),
    "deepseek2-lite": ("deepseek_v3", dict(rms_norm_eps=1e-6, num_hidden_layers=26, q_lora_rank=None, norm_topk_prob=False,
                                           n_shared_experts=2)),  # llama.cpp sees q_proj in a model of so many layers
    "deepseek2-glm": ("glm4_moe_lite", dict(rms_norm_eps=1e-6)),
    "minicpm3": ("minicpm3", dict(rms_norm_eps=1e-6, qk_nope_head_dim=6, v_head_dim=None, scale_emb=12.0, scale_depth=1.4,
                               dim_model_base=256)),
    "qwen35": ("qwen3_5_text", _STATES),
    "qwen35-values": ("qwen3_5_text", dict(layer_types=[LINEAR, LINEAR, FULL], linear_num_key_heads=2, linear_num_value_heads=6,
                                          **_STATES)),
    "qwen3next": ("qwen3_next", dict(norm_topk_prob=True, **_STATES)),
    "lfm2": ("lfm2", {}),
}  # fmt: skip


@cache
def make(name):
    """The model of transformers. Shared: do not change it."""
    return build(*MODELS[name])


def build(family, changes):
    config_class, arguments = hf_models.BASE[family]
    config = getattr(hf_models.transformers, config_class)(**{**arguments, **changes})
    config._experts_implementation = "eager"
    hf = hf_models.transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    hf_models.fill(hf.requires_grad_(False), 3)
    hf.tie_weights()
    return hf
