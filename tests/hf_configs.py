"""Configurations of tiny transformers models of every family, and of variants of them."""

from __future__ import annotations

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
FULL, SLIDING, LINEAR, CHUNKED = "full_attention", "sliding_attention", "linear_attention", "chunked_attention"
PROPORTIONAL = {FULL: dict(rope_type="proportional", rope_theta=100.0, partial_rotary_factor=0.5),
                SLIDING: dict(rope_type="default", rope_theta=10.0)}

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
    "gemma4_text": ("Gemma4TextConfig", dict(
        HEAD, num_hidden_layers=4, head_dim=6, global_head_dim=12, sliding_window=5, final_logit_softcapping=3.0, num_kv_shared_layers=2,
        layer_types=[SLIDING, FULL, SLIDING, FULL], use_double_wide_mlp=True, hidden_size_per_layer_input=7,
        vocab_size_per_layer_input=61, rope_parameters=PROPORTIONAL)),
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
    "phimoe": ("PhimoeConfig", dict(RMS, num_local_experts=6, num_experts_per_tok=2, router_jitter_noise=0.4)),
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
    "gemma4_text-keys_are_values": dict(
        attention_k_eq_v=True, num_global_key_value_heads=1, num_kv_shared_layers=3, attention_bias=True, num_hidden_layers=5,
        layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL], vocab_size_per_layer_input=64,
        use_double_wide_mlp=False, **UNTIED),
    "gemma4_text-no_inputs": dict(
        attention_k_eq_v=True, num_global_key_value_heads=4, num_kv_shared_layers=0, hidden_size_per_layer_input=0,
        final_logit_softcapping=None, layer_types=None, rope_parameters=None, hidden_activation="gelu"),
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
