"""Tiny random transformers models of every family, and the oracles built on them with PyTorch: every site captured and
steered by forward hooks, and the dense Jacobian between two sites by torch.func.

transformers computes parts of a model in float32 whatever the model's dtype (norms, softmax, rotary angles), so
`model.double()` alone is an oracle of six digits. Inside `exact(name)` those casts go to float64 instead, except that
a rotary angle is still rounded to float32: that rounding is part of what a checkpoint means. So it has fourteen."""

from __future__ import annotations

import contextlib
import copy
import sys
from dataclasses import dataclass
from functools import cache, partial
from unittest import mock

import numpy as np
import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

FLOAT32, COS, SIN, POLAR = torch.float32, torch.Tensor.cos, torch.Tensor.sin, torch.polar
GEMMA = ("gemma", "gemma2", "gemma3_text")
ONE_PLUS = (*GEMMA, "nemotron", "qwen3_5_text", "qwen3_next")  # gains are stored as gain - 1

# Odd and unequal sizes, so that no two can be confused; epsilons large enough that a wrong one shows.
SIZES = dict(vocab_size=61, hidden_size=24, intermediate_size=41, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
RMS = dict(SIZES, num_key_value_heads=2, rms_norm_eps=3e-3)
LAYER = dict(SIZES, layer_norm_eps=3e-3)
HEAD = dict(RMS, head_dim=10)  # heads wider together than d_model
GPT = dict(vocab_size=61, n_embd=20, n_layer=3, n_head=4, n_positions=64, layer_norm_epsilon=3e-3, bos_token_id=1, eos_token_id=2)
ROTARY = dict(GPT, n_embd=24, n_inner=37, rotary_dim=4)
FALCON = dict(vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, ffn_hidden_size=41, max_position_embeddings=64,
              layer_norm_epsilon=3e-3, bos_token_id=1, eos_token_id=2, pad_token_id=0)

LATENT = dict(SIZES, num_key_value_heads=4, rms_norm_eps=3e-3, q_lora_rank=9, kv_lora_rank=11, qk_nope_head_dim=5,
              qk_rope_head_dim=4, v_head_dim=7)
SIGMOIDS = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=17, n_group=4, topk_group=2)

MAMBA = dict(max_position_embeddings=160, mamba_n_heads=6, mamba_d_state=7, mamba_expand=2, mamba_chunk_size=16)

# family -> (config class, its arguments)
BASE = {
    "gpt2": ("GPT2Config", dict(vocab_size=61, n_embd=20, n_layer=3, n_head=4, n_positions=64, n_inner=37,
                                layer_norm_epsilon=3e-3, bos_token_id=1, eos_token_id=2)),
    "llama": ("LlamaConfig", HEAD),
    "mistral": ("MistralConfig", dict(HEAD, sliding_window=5)),
    "qwen2": ("Qwen2Config", RMS),
    "qwen3": ("Qwen3Config", dict(HEAD, tie_word_embeddings=True)),
    "gpt_neox": ("GPTNeoXConfig", dict(LAYER, num_attention_heads=3, rotary_pct=0.5)),
    "phi": ("PhiConfig", dict(LAYER, num_attention_heads=3, num_key_value_heads=3, partial_rotary_factor=0.5)),
    "phi3": ("Phi3Config", RMS),
    "gemma": ("GemmaConfig", dict(HEAD, num_key_value_heads=1)),
    "gemma2": ("Gemma2Config", dict(HEAD, sliding_window=5, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
                                    query_pre_attn_scalar=7)),
    "gemma3_text": ("Gemma3TextConfig", dict(HEAD, sliding_window=5, query_pre_attn_scalar=7,
                                             sliding_window_pattern=3)),
    "olmo2": ("Olmo2Config", RMS),
    "smollm3": ("SmolLM3Config", dict(RMS, no_rope_layer_interval=2)),
    "granite": ("GraniteConfig", dict(RMS, embedding_multiplier=2.5, logits_scaling=3.0, residual_multiplier=0.4,
                                      attention_multiplier=0.3)),
    "starcoder2": ("Starcoder2Config", dict(SIZES, num_key_value_heads=2, norm_epsilon=3e-3, sliding_window=5)),
    "stablelm": ("StableLmConfig", dict(LAYER, num_key_value_heads=2, partial_rotary_factor=0.67)),
    "cohere": ("CohereConfig", dict(LAYER, num_key_value_heads=2, logit_scale=0.25)),
    "ministral": ("MinistralConfig", dict(HEAD, sliding_window=5, layer_types=["full_attention", "sliding_attention", "full_attention"])),
    "ministral3": ("Ministral3Config", dict(HEAD, sliding_window=None, rope_parameters=dict(
        rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=5, beta_fast=4.0, beta_slow=0.5, mscale=1.0,
        mscale_all_dim=1.0, llama_4_scaling_beta=0.7))),
    "seed_oss": ("SeedOssConfig", HEAD),
    "ernie4_5": ("Ernie4_5Config", HEAD),
    "helium": ("HeliumConfig", dict(RMS, head_dim=6)),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", HEAD),
    "arcee": ("ArceeConfig", HEAD),
    "nemotron": ("NemotronConfig", dict(SIZES, num_key_value_heads=2, head_dim=10, norm_eps=3e-3, partial_rotary_factor=0.6)),
    "jais2": ("Jais2Config", dict(LAYER, num_key_value_heads=2)),
    "nanochat": ("NanoChatConfig", dict(RMS, final_logit_softcapping=3.0)),
    "apertus": ("ApertusConfig", HEAD),
    "olmo": ("OlmoConfig", dict(SIZES, num_key_value_heads=2, clip_qkv=0.9)),
    "olmo3": ("Olmo3Config", dict(RMS, num_hidden_layers=4, sliding_window=5)),
    "exaone4": ("Exaone4Config", dict(RMS, sliding_window=5, sliding_window_pattern=3)),
    "glm": ("GlmConfig", dict(HEAD, head_dim=12)),
    "glm4": ("Glm4Config", dict(HEAD, head_dim=12)),
    "cohere2": ("Cohere2Config", dict(LAYER, num_key_value_heads=2, logit_scale=0.25, sliding_window=5, sliding_window_pattern=2)),
    "gpt_bigcode": ("GPTBigCodeConfig", dict(GPT, n_inner=37)),
    "gpt_neo": ("GPTNeoConfig", dict(vocab_size=61, hidden_size=20, num_layers=3, num_heads=4, intermediate_size=37, window_size=5,
                                     attention_types=[[["global", "local"], 1], [["local"], 1]], max_position_embeddings=64,
                                     layer_norm_epsilon=3e-3, bos_token_id=1, eos_token_id=2)),
    "gptj": ("GPTJConfig", ROTARY),
    "codegen": ("CodeGenConfig", ROTARY),
    "opt": ("OPTConfig", dict(vocab_size=61, hidden_size=24, ffn_dim=41, num_hidden_layers=3, num_attention_heads=4,
                              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "bloom": ("BloomConfig", dict(vocab_size=61, hidden_size=24, n_layer=3, n_head=3, layer_norm_epsilon=3e-3, bos_token_id=1,
                                  eos_token_id=2, pad_token_id=0)),
    "mpt": ("MptConfig", dict(d_model=24, n_heads=3, n_layers=3, max_seq_len=64, vocab_size=61, layer_norm_epsilon=3e-3)),
    "falcon": ("FalconConfig", FALCON),
    "mixtral": ("MixtralConfig", dict(RMS, num_local_experts=5, num_experts_per_tok=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(HEAD, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=17)),
    "olmoe": ("OlmoeConfig", dict(RMS, num_experts=7, num_experts_per_tok=4)),
    "lfm2": ("Lfm2Config", dict(SIZES, max_position_embeddings=160, num_key_value_heads=2, norm_eps=3e-3, block_multiple_of=8,
                            full_attn_idxs=[1])),
    "qwen3_5_text": ("Qwen3_5TextConfig", dict(HEAD, max_position_embeddings=160, head_dim=16, linear_key_head_dim=5,
                                               linear_value_head_dim=7, linear_num_key_heads=2, linear_num_value_heads=4,
                                               full_attention_interval=2)),
    "qwen3_next": ("Qwen3NextConfig", dict(HEAD, max_position_embeddings=160, head_dim=16, linear_key_head_dim=5, linear_value_head_dim=7,
                                           linear_num_key_heads=2, linear_num_value_heads=4, full_attention_interval=3, num_experts=6,
                                           num_experts_per_tok=3, moe_intermediate_size=17, shared_expert_intermediate_size=29)),
    "qwen2_moe": ("Qwen2MoeConfig", dict(HEAD, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=17,
                                         shared_expert_intermediate_size=29)),
    "deepseek_v3": ("DeepseekV3Config", dict(LATENT, first_k_dense_replace=1, **SIGMOIDS)),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", dict(LATENT, **SIGMOIDS)),
    "minicpm3": ("MiniCPM3Config", dict(LATENT, scale_emb=2.5, scale_depth=0.9, dim_model_base=10)),
    "granitemoe": ("GraniteMoeConfig", dict(RMS, num_local_experts=5, num_experts_per_tok=2, embedding_multiplier=2.5,
                                            logits_scaling=3.0, residual_multiplier=0.4, attention_multiplier=0.3)),
    "phimoe": ("PhimoeConfig", dict(RMS, num_local_experts=6, router_jitter_noise=0.4)),
    "llama4_text": ("Llama4TextConfig", dict(HEAD, intermediate_size=17, intermediate_size_mlp=41, num_local_experts=5,
                                             num_experts_per_tok=2, interleave_moe_layer_step=2, no_rope_layer_interval=3,
                                             attention_chunk_size=5, floor_scale=4, attn_scale=0.7)),
    "gpt_oss": ("GptOssConfig", dict(HEAD, sliding_window=5, num_local_experts=5, num_experts_per_tok=2, swiglu_limit=0.9)),
    "granitemoehybrid": ("GraniteMoeHybridConfig", dict(
        RMS | MAMBA, mamba_n_groups=2, layer_types=["mamba", "attention", "mamba"], num_local_experts=5, num_experts_per_tok=2,
        shared_intermediate_size=29, embedding_multiplier=2.5, logits_scaling=3.0, residual_multiplier=0.4, attention_multiplier=0.3)),
    "bamba": ("BambaConfig", dict(RMS | MAMBA, num_attention_heads=6, mamba_n_groups=2, attn_layer_indices=[1])),
    "nemotron_h": ("NemotronHConfig", dict(
        vocab_size=61, hidden_size=24, intermediate_size=41, num_attention_heads=4, num_key_value_heads=2, head_dim=10, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, max_position_embeddings=160, layer_norm_epsilon=3e-3, hybrid_override_pattern="M*E-M",
        mamba_num_heads=6, mamba_head_dim=5, n_groups=3, ssm_state_size=7, chunk_size=16, n_routed_experts=8, num_experts_per_tok=3,
        moe_intermediate_size=17, moe_shared_expert_intermediate_size=29, n_group=4, topk_group=2, routed_scaling_factor=1.5)),
}


def rope(kind, **values):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=100.0, **values))


def longrope(original):
    return dict(original_max_position_embeddings=original,
                **rope("longrope", original_max_position_embeddings=original, short_factor=[1.0, 1.25, 1.5],
                       long_factor=[1.5, 2.25, 3.0]))


def yarn(**values):
    return rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5, **values)


FULL, SLIDING, LINEAR, CHUNKED = "full_attention", "sliding_attention", "linear_attention", "chunked_attention"
TIED, UNTIED = dict(tie_word_embeddings=True), dict(tie_word_embeddings=False)

# "family-feature" -> what it changes
VARIANTS = {
    "gpt2-inverse_layer_scale": dict(scale_attn_by_inverse_layer_idx=True),
    "gpt2-no_attn_scale": dict(scale_attn_weights=False, activation_function="relu"),
    "gpt2-untied": dict(n_inner=None, activation_function="gelu", **UNTIED),
    "llama-biases": dict(head_dim=None, attention_bias=True, mlp_bias=True),
    "llama-tied": dict(head_dim=None, hidden_act="gelu", num_key_value_heads=4, **TIED),
    "llama-linear": rope("linear", factor=2.5),
    "llama-dynamic": rope("dynamic", factor=3.0),
    "llama-llama3": rope("llama3", factor=4.0, low_freq_factor=0.5, high_freq_factor=2.0,
                         original_max_position_embeddings=16),
    "llama-yarn": yarn(),
    "llama-yarn_mscale": yarn(mscale=1.3, mscale_all_dim=0.7, truncate=False),
    "llama-yarn_attention_factor": yarn(attention_factor=0.8),
    "mistral-no_window": dict(head_dim=None, sliding_window=None),
    "qwen2-window": dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, **TIED),
    "qwen3-biases": dict(attention_bias=True, **UNTIED),
    "qwen3-window": dict(use_sliding_window=True, sliding_window=5, max_window_layers=2, **UNTIED),
    "gpt_neox-sequential": dict(use_parallel_residual=False, rotary_pct=1.0, hidden_act="gelu_new"),
    "gpt_neox-no_bias": dict(attention_bias=False, hidden_act="relu", **TIED),
    "phi-qk_norm": dict(num_attention_heads=4, num_key_value_heads=2, qk_layernorm=True, partial_rotary_factor=0.67),
    "phi3-window_partial": dict(sliding_window=5, partial_rotary_factor=0.67, **TIED),
    "phi3-longrope_short": longrope(64),
    "phi3-longrope_long": longrope(4),  # sequences of more than 4 tokens
    "gemma-untied": dict(num_key_value_heads=2, attention_bias=True, **UNTIED),
    "gemma2-no_softcap": dict(attn_logit_softcapping=None, final_logit_softcapping=None,
                              layer_types=[FULL, FULL, SLIDING]),
    "gemma3_text-softcap": dict(final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
                                layer_types=[FULL, SLIDING, FULL]),
    "gemma3_text-two_ropes": dict(rope_parameters={
        FULL: dict(rope_type="linear", factor=8.0, rope_theta=100.0),
        SLIDING: dict(rope_type="default", rope_theta=10.0)}),
    "ministral-all_local": dict(layer_types=None, **TIED),
    "seed_oss-biases": dict(attention_bias=False, attention_out_bias=True, mlp_bias=True, head_dim=None, **TIED),
    "ernie4_5-biases": dict(use_bias=True, head_dim=None, **UNTIED),
    "helium-biases": dict(attention_bias=True, mlp_bias=True, num_key_value_heads=4, **TIED),
    "hunyuan_v1_dense-alpha": dict(attention_bias=True, **TIED, **rope("dynamic", alpha=30.0, factor=1.0, beta_fast=32, beta_slow=1,
                                                                       mscale=1.0, mscale_all_dim=0.0)),
    "arcee-biases": dict(attention_bias=True, mlp_bias=True, hidden_act="gelu", head_dim=None, **TIED),
    "nemotron-biases": dict(attention_bias=True, mlp_bias=True, hidden_act="silu", head_dim=None, partial_rotary_factor=0.67, **TIED),
    "jais2-no_bias": dict(attention_bias=False, mlp_bias=False, hidden_act="gelu_new", **TIED),
    "nanochat-biases": dict(attention_bias=True, final_logit_softcapping=None, hidden_act="gelu", **TIED),
    "apertus-gelu": dict(attention_bias=True, hidden_act="gelu", **TIED, **rope("default")),
    "olmo-no_clip": dict(clip_qkv=None, attention_bias=True, num_key_value_heads=4, **TIED),
    "olmo3-two_ropes": dict(attention_bias=True, layer_types=[FULL, SLIDING, SLIDING, FULL], **TIED, rope_parameters={
        FULL: dict(rope_type="linear", factor=8.0, rope_theta=100.0), SLIDING: dict(rope_type="default", rope_theta=10.0)}),
    "exaone4-no_window": dict(sliding_window=None, layer_types=[FULL] * 3, num_key_value_heads=4, **TIED),
    "exaone4-letters": dict(sliding_window_pattern="LLLG", layer_types=[SLIDING, FULL, SLIDING]),
    "glm-no_bias": dict(attention_bias=False, partial_rotary_factor=1.0, **TIED),
    "glm4-no_bias": dict(attention_bias=False, num_key_value_heads=4, **TIED),
    "cohere2-biases": dict(attention_bias=True, layer_types=[FULL, SLIDING, SLIDING], **UNTIED),
    "gpt_bigcode-many_keys": dict(multi_query=False, scale_attn_weights=False, activation_function="relu", n_inner=None, **UNTIED),
    "gpt_neo-gelu": dict(activation_function="gelu", intermediate_size=None,
                         attention_types=[[["local", "global", "global"], 1]], **UNTIED),
    "gptj-gelu": dict(activation_function="gelu", n_inner=None, rotary_dim=6, **TIED),
    "codegen-gelu": dict(activation_function="gelu", n_inner=None, rotary_dim=2, **TIED),
    "opt-no_weights": dict(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu", **UNTIED),
    "bloom-four_heads": dict(n_head=4, **UNTIED),
    "mpt-clipped": dict(n_heads=6, attn_config=dict(clip_qkv=0.9, softmax_scale=0.3), **UNTIED),
    "falcon-new": dict(new_decoder_architecture=True, num_kv_heads=2, bias=True, **UNTIED),
    "falcon-new_one_norm": dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    "falcon-sequential": dict(parallel_attn=False, multi_query=False, bias=True, activation="relu"),
    "falcon-alibi": dict(parallel_attn=False, multi_query=False, bias=True, alibi=True, num_attention_heads=6),
    "olmo2-biases": dict(attention_bias=True, **TIED),
    "smollm3-window": dict(no_rope_layers=[1, 0, 0], use_sliding_window=True, sliding_window=5, attention_bias=True,
                           mlp_bias=True, **UNTIED),
    "granite-biases": dict(attention_bias=True, mlp_bias=True, residual_multiplier=1.7, **TIED),
    "starcoder2-no_bias": dict(sliding_window=None, use_bias=False, **UNTIED),
    "stablelm-parallel": dict(use_parallel_residual=True, use_qkv_bias=True, qk_layernorm=True),
    "stablelm-qk_norm": dict(num_key_value_heads=4, qk_layernorm=True, use_qkv_bias=True,
                             partial_rotary_factor=0.67, **TIED),
    "mixtral-window": dict(sliding_window=5, head_dim=10, num_experts_per_tok=1, router_jitter_noise=0.1, **TIED),
    "qwen3_moe-norm_topk": dict(norm_topk_prob=True, attention_bias=True, use_sliding_window=True, sliding_window=5,
                                **TIED),
    "qwen3_moe-some_dense": dict(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], hidden_act="gelu"),
    "olmoe-norm_topk": dict(norm_topk_prob=True, attention_bias=True, num_key_value_heads=4, **TIED),
    "lfm2-biases": dict(conv_bias=True, conv_L_cache=4, layer_types=["conv", FULL, "conv"], block_auto_adjust_ff_dim=False, **UNTIED),
    "lfm2-one_tap": dict(conv_L_cache=1, full_attn_idxs=[0, 2], block_ffn_dim_multiplier=1.7),
    "qwen3_5_text-biases": dict(attention_bias=True, layer_types=[FULL, LINEAR, FULL], linear_num_value_heads=2, linear_conv_kernel_dim=2,
                                **TIED),
    "qwen3_next-some_dense": dict(mlp_only_layers=[1], norm_topk_prob=False, attention_bias=True, linear_num_value_heads=2, **TIED),
    "qwen3_5_text-many_values": dict(layer_types=[LINEAR, LINEAR, FULL], linear_num_key_heads=1, linear_num_value_heads=6,
                                     linear_value_head_dim=3),
    "qwen2_moe-some_dense": dict(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], norm_topk_prob=True,
                                 use_sliding_window=True, sliding_window=5, max_window_layers=3, qkv_bias=False, **TIED),
    "granitemoe-biases": dict(attention_bias=True, num_experts_per_tok=1, hidden_act="gelu", **TIED),
    "phimoe-window_biases": dict(sliding_window=5, attention_bias=True, lm_head_bias=True, router_jitter_noise=0.05, **TIED),
    "phimoe-longrope": dict(original_max_position_embeddings=4, **rope(
        "longrope", original_max_position_embeddings=4, short_factor=[1.0, 1.25, 1.5], long_factor=[1.5, 2.25, 3.0],
        short_mscale=1.2, long_mscale=1.2)),
    "llama4_text-dense": dict(moe_layers=[0], use_qk_norm=False, no_rope_layers=[0, 1, 1], attention_bias=True, hidden_act="gelu",
                              layer_types=[CHUNKED, FULL, CHUNKED], num_experts_per_tok=1, **TIED),
    "llama4_text-long": dict(max_position_embeddings=160, attention_chunk_size=40, floor_scale=30),
    "llama4_text-llama3": dict(attn_temperature_tuning=False, interleave_moe_layer_step=1, attention_chunk_size=None,
                               **rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=1.0,
                                      original_max_position_embeddings=16)),
    "gpt_oss-full": dict(layer_types=[FULL] * 3, attention_bias=False, swiglu_alpha=1.3,
                         rope_parameters=dict(rope_type="default", rope_theta=100.0), **TIED),
    "deepseek_v3-q_proj": dict(q_lora_rank=None, attention_bias=True, rope_interleave=False, norm_topk_prob=False, n_shared_experts=2,
                               first_k_dense_replace=0, n_group=1, topk_group=1, **TIED),
    "deepseek_v3-yarn": yarn(mscale=1.3, mscale_all_dim=0.7),
    "glm4_moe_lite-some_dense": dict(mlp_layer_types=["sparse", "dense", "sparse"], q_lora_rank=None, n_group=2, topk_group=1),
    "minicpm3-q_proj": dict(q_lora_rank=None, attention_bias=True, mlp_bias=True, v_head_dim=None, scale_depth=None,
                            dim_model_base=None, **UNTIED),
    "minicpm3-longrope": rope("longrope", original_max_position_embeddings=4, short_factor=[1.0, 1.25], long_factor=[1.5, 2.25]),
    "granitemoehybrid-dense": dict(num_local_experts=0, num_experts_per_tok=0, position_embedding_type="rope", mamba_n_groups=1,
                                   mamba_d_head=8, mamba_proj_bias=True, attention_bias=True, layer_types=[LINEAR, LINEAR, FULL],
                                   time_step_limit=(0.6, 0.8), **TIED),
    "granitemoehybrid-attention": dict(layer_types=[FULL] * 3, position_embedding_type="rope", mamba_conv_bias=False, num_key_value_heads=4,
                                       num_experts_per_tok=1),
    "bamba-biases": dict(attn_layer_indices=[2], mamba_proj_bias=True, mlp_bias=True, attention_bias=True, mamba_n_groups=1, mamba_d_conv=2,
                         mamba_conv_bias=False, time_step_limit=(0.7, float("inf")), **TIED),
    "nemotron_h-one_group": dict(hybrid_override_pattern="E-M*M", use_bias=True, use_conv_bias=False, n_groups=1, conv_kernel=2,
                                 time_step_min=0.7, norm_topk_prob=False, n_group=1, topk_group=1, mlp_hidden_act="gelu",
                                 num_key_value_heads=4, **TIED),
    "nemotron_h-dense": dict(hybrid_override_pattern="M-M*-", mamba_head_dim=8, mamba_num_heads=3, head_dim=6),
    "cohere-qk_norm": dict(use_qk_norm=True, attention_bias=True, **UNTIED),
}
# whose steps are limited, but not where transformers computes a token alone, through its cache
LIMITED = ("granitemoehybrid-dense", "bamba-biases", "nemotron_h-one_group")
FAMILIES = [name for name in BASE if hasattr(transformers, BASE[name][0])]  # of the installed transformers
CASES = FAMILIES + [name for name in VARIANTS if name.split("-")[0] in FAMILIES]


def config_of(name):
    config_class, arguments = BASE[name.split("-")[0]]
    return getattr(transformers, config_class)(**arguments | VARIANTS.get(name, {}))


def family_of(hf):
    return hf.config.model_type


def is_gain_or_bias_of_a_norm(name):
    return "norm" in name or ".ln_" in name


def fill(hf, seed):
    """Random numbers for every parameter: nothing is 0 or 1, and every term of a block is of order one."""
    g = torch.Generator().manual_seed(seed)
    around = 0.0 if family_of(hf) in ONE_PLUS else 1.0  # a norm's weight
    for name, p in hf.named_parameters():
        z = torch.randn(p.shape, generator=g)
        if is_gain_or_bias_of_a_norm(name) or name.endswith("mamba.D") or name.endswith("mixer.D"):
            here = 1.0 if "linear_attn" in name else around
            z = 0.3 * z + here if name.endswith(("weight", ".D")) else 0.1 * z
        elif "act_fn" in name:
            z = 0.3 * z
        elif p.ndim == 1:
            z = 0.15 * z
        elif any(word in name for word in ("embed", "wte", "wpe")):
            z = 0.06 * z if family_of(hf) in GEMMA else 0.3 * z  # gemma multiplies by sqrt(d_model)
        else:
            transposed = type(hf.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"
            z = 1.3 * z / p.shape[0 if transposed else -1] ** 0.5  # of a convolution: the number of taps
            if name.endswith(("mlp.gate.weight", "router.weight")):
                z = 3 * z  # a router that decides
        p.data.copy_(z)
    for name, b in hf.named_buffers():
        if name.endswith("e_score_correction_bias"):
            b.copy_(0.3 * torch.randn(b.shape, generator=g))


def make(name, seed=0, stored="float32"):
    """A transformers model of CASES in eval mode, its parameters of the given dtype. Shared: do not change it."""
    return _make(name, seed, stored)


@cache
def _make(name, seed, stored):
    auto = transformers.AutoModelForCausalLM
    config = config_of(name)
    if hasattr(config, "num_experts_per_tok"):
        config._experts_implementation = "eager"
    # Falcon counts its biases twice in the other one
    implementation = "sdpa" if getattr(config, "alibi", False) else "eager"
    hf = auto.from_config(config, attn_implementation=implementation).eval().requires_grad_(False)
    fill(hf, seed)
    hf.tie_weights()
    hf.generation_config.update(do_sample=False, eos_token_id=None, bos_token_id=None, pad_token_id=0, use_cache=True)
    hf(torch.arange(8)[None])  # rotary tables that depend on the length are made at the first call: here, in float32
    for p in hf.parameters():
        p.data = p.data.to(getattr(torch, stored))
    return hf


@cache
def _double(name, seed, stored):
    return double(_make(name, seed, stored))


def double(hf):
    """A copy in float64 of a model that has run, whose rotary tables stay numbers of float32."""
    hf = copy.deepcopy(hf).double()
    for module in hf.modules():
        if hasattr(module, "rope_init_fn"):  # a table that is made at every call stays one of float32
            module.rope_init_fn = partial(lambda made, config: made, module.rope_init_fn(hf.config))
        if hasattr(module, "embed_positions") and hasattr(module, "pos_embd_dim"):  # a table, that is float32 otherwise
            dim = module.pos_embd_dim
            inv_freq = 1.0 / (10000 ** (torch.arange(0, dim, 2, dtype=torch.int64) / dim))
            angle = (torch.arange(module.max_positions).float()[:, None] * inv_freq).double()
            module.embed_positions = torch.cat((angle.sin(), angle.cos()), dim=1)
    return hf


@contextlib.contextmanager
def exact(name, seed=0, stored="float32"):
    """Yields the model of `make` in float64, for `exactly`."""
    hf = _double(name, seed, stored)  # made before the casts change: its rotary frequencies are float32 numbers
    with exactly(hf):
        yield hf


@contextlib.contextmanager
def exactly(hf):
    """Inside, transformers' casts to float32 are casts to float64, but rotary angles are still rounded to float32."""
    def of_angle(f):
        return lambda x: f(x.to(FLOAT32).to(torch.float64))

    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64), \
         mock.patch.multiple(torch.Tensor, float=torch.Tensor.double, cos=of_angle(COS), sin=of_angle(SIN)), \
         of_one_family(sys.modules[type(hf).__module__]):
        yield


def of_one_family(module):
    """What exact() changes in the code of a family beside casts."""
    if hasattr(module, "Llama4TextAttention"):  # it turns complex numbers
        return mock.patch.object(torch, "polar", lambda size, angle: POLAR(size, angle.to(FLOAT32).to(torch.float64)))
    if hasattr(module, "GeLUFunction"):  # its own derivative has constants of ten digits, and torch.func cannot take it
        return mock.patch.object(module.GeLUFunction, "apply", module.bloom_gelu_forward)
    if hasattr(module, "get_llama_4_attn_scale"):  # the logarithm of integers, which are no float64
        scale = module.get_llama_4_attn_scale
        return mock.patch.object(module, "get_llama_4_attn_scale", lambda positions, *args: scale(positions.double(), *args))
    return contextlib.nullcontext()


# ---- sites ----


@dataclass(frozen=True)
class Parts:
    """Module names within a block. post1, post2: the norms behind attention and MLP; inner: what takes resid_mid; mixers: what
    stands in the place of attention where that is absent; beside: what is added to the output of the MLP, where it exists."""

    attn: str = "self_attn"
    mixers: tuple[str, ...] = ("conv", "linear_attn", "mamba")
    post1: str | None = None
    inner: str = "post_attention_layernorm"
    post2: str | None = None
    down: str = "mlp.down_proj"
    mlp: str = "mlp"
    beside: str | None = None


POST_NORMS = dict(post1="post_attention_layernorm", post2="post_feedforward_layernorm")
PARTS = {
    "gpt2": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_bigcode": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_neo": Parts(attn="attn.attention", inner="ln_2", down="mlp.c_proj"),
    "gptj": Parts(attn="attn", down="mlp.fc_out"),
    "codegen": Parts(attn="attn", down="mlp.fc_out"),
    "opt": Parts(inner="final_layer_norm", down="fc2", mlp="fc2"),
    # these modules return the sum with the residual stream
    "bloom": Parts(attn="self_attention.dense", down="mlp.dense_4h_to_h", mlp="mlp.dense_4h_to_h"),
    "mpt": Parts(attn="attn", inner="norm_2", down="ffn.down_proj", mlp="ffn.down_proj"),
    "falcon": Parts(attn="self_attention", down="mlp.dense_4h_to_h"),
    "nanochat": Parts(down="mlp.fc2"),
    "apertus": Parts(inner="feedforward_layernorm"),
    "olmo3": Parts(inner="mlp", **POST_NORMS),
    "exaone4": Parts(inner="mlp", **POST_NORMS),
    "glm4": Parts(post1="post_self_attn_layernorm", post2="post_mlp_layernorm"),
    "gpt_neox": Parts(attn="attention", down="mlp.dense_4h_to_h"),
    "phi": Parts(down="mlp.fc2"),
    "gemma2": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "gemma3_text": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "olmo2": Parts(inner="mlp", **POST_NORMS),
    "starcoder2": Parts(down="mlp.c_proj"),
    "lfm2": Parts(inner="ffn_norm", mlp="feed_forward", down="feed_forward.w2"),
    "granitemoe": Parts(mlp="block_sparse_moe"),
    "llama4_text": Parts(mlp="feed_forward", down="feed_forward.down_proj"),
    "granitemoehybrid": Parts(mlp="shared_mlp", down="shared_mlp.output_linear", beside="block_sparse_moe"),
    "bamba": Parts(inner="pre_ff_layernorm", mlp="feed_forward", down="feed_forward.down_proj"),
    "nemotron_h": Parts(attn="mixer", mlp="mixer", down="mixer.down_proj"),
}


def is_parallel(hf):
    c = hf.config
    parallel = getattr(c, "use_parallel_residual", getattr(c, "parallel_attn", False))
    return family_of(hf) in ("phi", "cohere", "cohere2", "gptj", "codegen") or parallel


EVERY = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")
OF_ONE_BRANCH = {True: ("resid_pre", "attn_out", "resid_post"), False: ("resid_pre", "down_proj", "mlp_out", "resid_post")}


def site_names(hf, layer=None):
    """The sites of a layer; None: those that some layer has."""
    if family_of(hf) == "nemotron_h" and layer is not None:  # whose layers are a mixer, an MLP or a mixture alone
        return OF_ONE_BRANCH[hf.config.layer_types[layer] in ("linear_attention", "full_attention")]
    return tuple(s for s in EVERY if not (s == "resid_mid" and (is_parallel(hf) or family_of(hf) == "nemotron_h")))


def layers_with(hf, site):
    return [layer for layer in range(hf.config.num_hidden_layers) if site in site_names(hf, layer)]


def near(hf, layer, site):
    """The place, or the output of the layer's only branch if the layer lacks the site."""
    if site in site_names(hf, layer):
        return layer, site
    return layer, next(s for s in ("mlp_out", "attn_out", "resid_post") if s in site_names(hf, layer))


def module_at(block, path):
    """The module of a block, None if this block lacks it."""
    return dict(block.named_modules()).get(path)


def blocks(hf):
    base = getattr(hf.base_model, "decoder", getattr(hf.base_model, "model", hf.base_model))
    return next(getattr(base, name) for name in ("h", "blocks", "layers") if hasattr(base, name))


def has_attention(hf, layer):
    block = blocks(hf)[layer]
    attends = getattr(block, "block_type", "full_attention") == "full_attention"
    return attends and module_at(block, PARTS.get(family_of(hf), Parts()).attn) is not None


def is_mixture(hf, layer):
    parts, block = PARTS.get(family_of(hf), Parts()), blocks(hf)[layer]
    return any(hasattr(module_at(block, path), "experts") for path in (parts.mlp, parts.beside) if path)


def locate(hf, layer, site):
    """-> (module, whether the site is its input, factor between the module's value and the site's)"""
    parts, block = PARTS.get(family_of(hf), Parts()), blocks(hf)[layer]
    scale = getattr(block, "residual_scale", getattr(hf.config, "residual_multiplier", 1.0))
    down = parts.mlp if is_mixture(hf, layer) else parts.down  # of a mixture its sum, but for what is beside it
    attn = next((path for path in (parts.attn, *parts.mixers) if module_at(block, path) is not None), parts.attn)
    path, is_input, factor = {
        "resid_pre": ("", True, 1.0),
        "attn_out": (parts.post1 or attn, False, scale),
        "resid_mid": (parts.inner, True, 1.0),
        "down_proj": (down, False, 1.0),
        "mlp_out": (parts.post2 or parts.mlp, False, scale),
        "resid_post": ("", False, 1.0),
    }[site]
    return block.get_submodule(path), is_input, factor


def watch(hf, layer, site, change):
    """`change` maps the activation (1, T, C) at a site to a new one, or to None to leave it. -> the hooks' handles"""
    module, is_input, scale = locate(hf, layer, site)
    path = PARTS.get(family_of(hf), Parts()).beside if site in ("down_proj", "mlp_out") else None
    beside, there = module_at(blocks(hf)[layer], path), {}

    def new(x):
        rows = x.reshape(-1, *x.shape[-2:])  # experts are given (T, C)
        value = (rows + there["x"].reshape(rows.shape) if there else rows) * scale
        y = change(value)
        return x if y is None else (rows + (y - value) / scale).reshape(x.shape)

    def before(_, args, kwargs):
        return (new(args[0]), *args[1:]), kwargs

    def after(_, args, output):
        return (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)

    if is_input:
        return [module.register_forward_pre_hook(before, with_kwargs=True)]
    handles = [module.register_forward_hook(after)]
    if beside is not None:
        handles.append(beside.register_forward_hook(lambda _, __, output: there.update(x=output)))
    return handles


@contextlib.contextmanager
def hooked(hf, steer=(), capture=()):
    """Adds `steer` = [(layer, site, vector, positions)], positions a slice, a list, or None for every one; with a number behind
    it sets the coefficient along the vector, of length 1, to it. Records `capture` = [(layer, site)] in the dict it yields.
    A row's index is its position: use a cache only with None. A vector at resid_mid changes attn_out, for the residual
    stream has no module of its own there."""
    record, handles, entered = {}, [], {}

    def changer(layer, site, vector, positions, coefficient=None):
        def change(x):
            here = torch.zeros(x.shape[1], 1, dtype=x.dtype)
            here[slice(None) if positions is None else positions] = 1
            if coefficient is None:
                return x + here * vector
            whole = x + entered[layer] if site == "resid_mid" else x
            return x + here * (coefficient - whole @ vector)[..., None] * vector
        return change

    def enter(layer):
        def read(x):
            entered[layer] = x
        return read

    def recorder(place):
        def change(x):
            record[place] = x.clone()  # Falcon adds to it in place
        return change

    changes = []  # in the order in which the hooks of a module run: down_proj and mlp_out can be outputs of the same
    for layer, site, vector, *how in steer:
        vector = torch.as_tensor(vector).to(hf.dtype)
        changes.append((layer, "attn_out" if site == "resid_mid" else site, changer(layer, site, vector, *how)))
    changes += [(layer, "resid_pre", enter(layer)) for layer in {layer for layer, site, *_ in steer if site == "resid_mid"}]
    changes += [(*place, recorder(place)) for place in capture]
    try:
        for change in sorted(changes, key=lambda change: change[1] == "mlp_out"):
            handles += watch(hf, *change)
        yield record
    finally:
        for handle in handles:
            handle.remove()


def run(hf, tokens, steer=(), capture=()):
    """-> logits (T, n_vocab), {(layer, site): (T, C)} as NumPy arrays"""
    with torch.no_grad(), hooked(hf, steer, capture) as record:
        logits = hf(torch.as_tensor(np.asarray(tokens))[None].long(), use_cache=False).logits[0]
    return logits.numpy(), {place: x[0].numpy() for place, x in record.items()}


def jacobian(hf, prompts, source, target, source_positions=None, target_positions=None, mean=False, steer=()):
    """Dense Jacobian by torch.func, as reference.jacobian; target: (layer, site), "logits" or "next_token".

    For next_token the rows are d(2 sqrt(p))/dv: |d 2 sqrt(p)|^2 is the Fisher metric, and D (dlogits - 1 p'dlogits)
    with D = diag sqrt p is the same thing written out."""
    capture = [] if isinstance(target, str) else [target]
    settings = getattr(hf.config, "rope_parameters", None) or {}
    updates_in_place = settings.get("rope_type") == "longrope"  # its tables: torch.func refuses that
    rows = []
    for i, tokens in enumerate(prompts):
        here = None if source_positions is None else source_positions[i]
        if target_positions is not None:
            there = list(target_positions[i])
        else:
            there = [len(tokens) - 1] if isinstance(target, str) else list(range(len(tokens)))
        ids = torch.as_tensor(np.asarray(tokens))[None].long()

        def value(v, here=here, there=there, ids=ids):
            with hooked(hf, [*steer, (*source, v, here)], capture) as record:
                logits = hf(ids, use_cache=False).logits
            x = (logits if isinstance(target, str) else record[target])[0][there]
            if target == "next_token":
                x = 2 * torch.softmax(x, -1).sqrt()
            return x.mean(0) if mean else x.reshape(-1)

        v = torch.zeros(hf.config.hidden_size, dtype=hf.dtype)
        if updates_in_place:
            rows.append(torch.autograd.functional.jacobian(value, v))
        else:
            rows.append(torch.func.jacrev(value)(v))
    return torch.cat(rows).numpy()


# ---- inside attention and MLP ----

# family -> paths of what makes q, k and v, the gate (or what stands in its place), what multiplies it, and what takes the product
SPLIT_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PLAIN = (SPLIT_QKV, "mlp.up_proj", None)
INNER = {
    **dict.fromkeys(("arcee", "nemotron", "jais2", "apertus"), PLAIN),
    "nanochat": (SPLIT_QKV, "mlp.fc1", None),
    "glm": (SPLIT_QKV, "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "glm4": (SPLIT_QKV, "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "gpt_bigcode": (("attn.c_attn",), "mlp.c_fc", None),
    "gpt_neo": (("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"), "mlp.c_fc", None),
    "gptj": (("attn.q_proj", "attn.k_proj", "attn.v_proj"), "mlp.fc_in", None),
    "codegen": (("attn.qkv_proj",), "mlp.fc_in", None),
    "opt": (SPLIT_QKV, "fc1", None),
    "bloom": (("self_attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "falcon": (("self_attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "mpt": (("attn.Wqkv",), "ffn.up_proj", None),
    "gpt2": (("attn.c_attn",), "mlp.c_fc", None),
    "gpt_neox": (("attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "phi": (SPLIT_QKV, "mlp.fc1", None),
    "phi3": (("self_attn.qkv_proj",), "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "starcoder2": (SPLIT_QKV, "mlp.c_fc", None),
    "lfm2": (SPLIT_QKV, "feed_forward.w1", "feed_forward.w3"),
    "llama4_text": (SPLIT_QKV, "feed_forward.gate_proj", "feed_forward.up_proj"),
    "bamba": (SPLIT_QKV, "feed_forward.gate_proj", "feed_forward.up_proj"),
    "granitemoehybrid": (SPLIT_QKV, "shared_mlp.input_linear", "shared_mlp.input_linear"),
    "nemotron_h": (("mixer.q_proj", "mixer.k_proj", "mixer.v_proj"), "mixer.up_proj", None),
}


# family with attention of its own -> (path of attention, of what takes the heads' outputs)
OWN_ATTENTION = {
    "gpt_neo": ("attn.attention", "attn.attention.out_proj"),
    "bloom": ("self_attention", "self_attention.dense"),
    "falcon": ("self_attention", "self_attention.dense"),
    "mpt": ("attn", "attn.out_proj"),
}


def split_qkv(hf, made, heads, kv, width):
    """q, k and v of all heads, (T, heads, width) each, from the outputs of the projections."""
    family, groups = family_of(hf), 1
    if len(made) == 1:
        if family in ("gpt_neox", "bloom", "falcon", "gpt_bigcode"):
            groups = kv  # the heads of each group of keys, its key and its value beside each other
        if family == "codegen":
            groups = 4
        sizes = [n * width // groups for n in (heads, kv, kv)]
        made = made[0].reshape(len(made[0]), groups, -1).split(sizes, -1)
    if family == "codegen":
        made = (made[0], made[2], made[1])
    clip = getattr(getattr(hf.config, "attn_config", None), "clip_qkv", None)  # OLMo clips in place
    if clip:
        made = [x.clamp(-clip, clip) for x in made]
    return [x.reshape(len(x), -1, width) for x in made]


# families of latent attention; without q_lora_rank they have q_proj
LATENT_QKV = ("self_attn.q_b_proj", "self_attn.kv_b_proj", "self_attn.kv_a_proj_with_mqa")
LATENT = ("deepseek_v3", "glm4_moe_lite", "minicpm3")


def latent_qk(hf, made, heads, width):
    """q and k of all heads, (T, heads, width) each, before they are rotated: all heads have the same last part of k."""
    of_heads, shared = (made[i].reshape(len(made[i]), n, -1) for i, n in ((1, heads), (2, 1)))
    plain, turned = hf.config.qk_nope_head_dim, hf.config.qk_rope_head_dim
    k = torch.cat([of_heads[..., :plain], shared[..., -turned:].expand(-1, heads, -1)], -1)
    return made[0].reshape(-1, heads, width), k


def in_pairs(hf, x):
    """A head's rotated dimensions in the order in which they are stored: transformers leaves the first of all pairs before the
    second."""
    turned = hf.config.qk_rope_head_dim
    halves = x[..., -turned:].reshape(*x.shape[:-1], 2, -1)
    return torch.cat([x[..., :-turned], halves.transpose(-1, -2).flatten(-2)], -1)


def inside(hf, tokens, steer=()):
    """What is computed inside attention and MLP, {(layer, name): array}, by powersteer's short names: the outputs of the
    projections, the arguments and results of the attention function, the input of the down-projection."""
    family, found, handles = family_of(hf), {}, []
    qkv, pre, linear = INNER.get(family, (SPLIT_QKV, "mlp.gate_proj", "mlp.up_proj"))
    if family in LATENT:
        qkv = LATENT_QKV if hf.config.q_lora_rank else ("self_attn.q_proj", *LATENT_QKV[1:])
    module = sys.modules[type(hf).__module__]
    attention = getattr(module, "eager_attention_forward", None)
    turn = getattr(module, "apply_rotary_pos_emb", None)
    shape = {}  # (query heads, key heads, width) of each layer

    def attend(block, query, key, value, *args, **kwargs):
        z, pattern = attention(block, query, key, value, *args, **kwargs)
        layer = block.layer_idx
        shape[layer] = query.shape[1], key.shape[1], query.shape[-1]
        if family == "opt":
            query = query / block.scaling
        rows = {"rot_q": query, "rot_k": key, "v": value}
        found.update({(layer, name): x[0].transpose(0, 1) for name, x in rows.items()})
        found[layer, "pattern"], found[layer, "z"] = pattern[0], z[0]
        return z, pattern

    def output(place):
        return lambda _, __, x: found.__setitem__(place, x.reshape(-1, x.shape[-1]))

    def argument(place):
        return lambda _, args: found.__setitem__(place, args[0].reshape(-1, args[0].shape[-1]))

    def turned(q, k, *args):
        q, k = turn(q, k, *args)
        found.setdefault("turned", []).append((q[0].transpose(0, 1), k[0].transpose(0, 1)))
        return q, k

    def weights(layer):
        return lambda _, __, x: found.__setitem__((layer, "pattern"), x[1][0])

    for layer, block in enumerate(blocks(hf)):
        for i, path in enumerate(qkv if has_attention(hf, layer) else ()):
            handles.append(block.get_submodule(path).register_forward_hook(output((layer, i))))
        if family in OWN_ATTENTION:
            attn, out = map(block.get_submodule, OWN_ATTENTION[family])
            handles.append(attn.register_forward_hook(weights(layer)))
            handles.append(out.register_forward_pre_hook(argument((layer, "z"))))
            heads = hf.config.num_attention_heads
            shape[layer] = heads, getattr(attn, "num_kv_heads", heads), attn.head_dim
        if not is_mixture(hf, layer) and module_at(block, pre) is not None:
            handles.append(block.get_submodule(pre).register_forward_hook(output((layer, "pre"))))
            if linear not in (None, pre):
                handles.append(block.get_submodule(linear).register_forward_hook(output((layer, "pre_linear"))))
            down = PARTS.get(family, Parts()).down
            handles.append(block.get_submodule(down).register_forward_pre_hook(argument((layer, "post"))))
    try:
        name, ours = ("apply_rotary_pos_emb", turned) if family in OWN_ATTENTION else ("eager_attention_forward", attend)
        with mock.patch.object(module, name, ours) if hasattr(module, name) else contextlib.nullcontext():
            run(hf, tokens, steer)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (heads, kv, width) in shape.items():
        made = [found.pop((layer, i)) for i in range(len(qkv))]
        if len(made) == 3 and made[0].shape[-1] == 2 * heads * width:  # each head's q beside its gate
            made[0], gates = made[0].reshape(-1, heads, 2 * width).split(width, -1)
            found[layer, "z"] = found[layer, "z"] * torch.sigmoid(gates)  # what the output projection takes
        if family in LATENT:
            q, k = latent_qk(hf, made, heads, width)
            if getattr(hf.config, "rope_interleave", False):
                found.update({(layer, name): in_pairs(hf, found[layer, name]) for name in ("rot_q", "rot_k")})
        else:
            q, k, v = split_qkv(hf, made, heads, kv, width)
        found[layer, "q"], found[layer, "k"] = q, k
        if family in OWN_ATTENTION:
            rotated, keys = found["turned"][layer] if "turned" in found else (q, k)
            found[layer, "rot_q"], found[layer, "rot_k"], found[layer, "v"] = rotated, keys[:, :: keys.shape[1] // kv], v
            found[layer, "z"] = found[layer, "z"].reshape(-1, heads, width)
    for layer in range(hf.config.num_hidden_layers):
        if pre == linear and (layer, "pre") in found:
            found[layer, "pre"], found[layer, "pre_linear"] = found[layer, "pre"].chunk(2, -1)
    found.pop("turned", None)
    return {place: x.numpy() for place, x in found.items()}
