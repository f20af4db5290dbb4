"""What transformers reads of a config.json. Written by tools/config_keys.py: do not edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# fmt: off
# the version that was read
TRANSFORMERS: str = "5.24.0"
# key that the code of every family reads → what it takes without it; ...: no one constant
EVERY: Mapping[str, Any] = {
    "PreTrainedConfig": ..., "_attention_heads": ..., "_attn_implementation": None,
    "_attn_implementation_internal": ..., "_check_received_keys": ..., "_commit_hash": None,
    "_experts_implementation": None, "_experts_implementation_internal": ..., "_heterogeneity_spec": ...,
    "_is_quantized": ..., "_layers": ..., "_name_or_path": None, "_output_attentions": ..., "_post_init_done": False,
    "_rope_type_labels": None, "_token_id": ..., "allow_all_kernels": ...,
    "allow_global_per_layer_attribute_access": ..., "architectures": None, "attention_chunk_size": None,
    "attn_implementation": None, "attribute_map": ..., "auto": ..., "base_model_pp_plan": ...,
    "base_model_tp_plan": ..., "chunk_size_feed_forward": 0, "decoder": ..., "deepgemm_megamoe": ...,
    "default_rope_type": ..., "default_theta": ..., "distributed_config": None, "dtype": None, "eager": ...,
    "embed_dim": ..., "encoder": ..., "experts_implementation": None, "factor": ..., "first_k_dense_replace": ...,
    "fusion_config": None, "generator": ..., "gradient_checkpointing": False, "id2label": None,
    "ignore_keys_at_rope_validation": ..., "init_std": ..., "initializer_factor": ..., "is_causal": True,
    "is_encoder_decoder": False, "is_heterogeneous": ..., "kv_sharing_modes": None, "label2id": None,
    "layer_types": None, "meta": ..., "mlp_layer_types": None, "model_type": ..., "mtp_layer_types": None,
    "mtp_mlp_layer_types": None, "mtp_per_layer_config": None, "name_or_path": "", "num_heads": ...,
    "num_labels": None, "num_mtp_layers": None, "number_of_conv_states": 1, "output_attentions": False,
    "output_hidden_states": False, "per_layer_attributes": ..., "per_layer_config": None, "problem_type": None,
    "return_dict": True, "rope_scaling": None, "rope_theta": None, "sep_token_id": None,
    "serialize_explicit_per_layer_config": ..., "single_label_classification": ..., "sub_configs": ...,
    "sub_configs_defaults": ..., "text_encoder": ..., "torch_dtype": None, "transformers_version": None,
    "transformers_weights": None, "use_cache": True
}
# the same of single families
FAMILY: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": None,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
        "max_position_embeddings": 2048, "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "vision_config": ...,
        "vocab_size": 32000
    },
    "mistral": {
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": None, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": ...,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096, "text_config": ...,
        "tie_word_embeddings": False, "vision_config": ..., "vocab_size": 32000
    },
    "qwen2": {
        "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None, "head_dim": ..., "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 22016, "max_position_embeddings": 32768,
        "max_window_layers": 28, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096, "text_config": ...,
        "tie_word_embeddings": False, "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "qwen3": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 22016, "max_position_embeddings": 32768, "max_window_layers": 28,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096, "text_config": ...,
        "tie_word_embeddings": False, "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "smollm3": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
        "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 32768, "mlp_bias": False, "no_rope_layer_interval": 4,
        "no_rope_layers": None, "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4,
        "original_max_position_embeddings": ..., "pad_token_id": 128004, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": True, "use_sliding_window": False, "vision_config": ..., "vocab_size": 128256
    },
    "granite": {
        "attention_bias": False, "attention_dropout": 0.0, "attention_multiplier": 1.0, "bos_token_id": 1,
        "embedding_multiplier": 1.0, "eos_token_id": 2, "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 11008, "logits_scaling": 1.0, "max_position_embeddings": 2048,
        "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "residual_multiplier": 1.0, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "vision_config": ..., "vocab_size": 32000
    },
    "olmo2": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": 50279,
        "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 2048, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": None, "original_max_position_embeddings": ...,
        "pad_token_id": 1, "partial_rotary_factor": None, "rms_norm_eps": 1e-05, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "vision_config": ...,
        "vocab_size": 50304
    },
    "phi3": {
        "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "head_dim": ...,
        "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": None, "original_max_position_embeddings": 4096, "pad_token_id": 32000,
        "partial_rotary_factor": ..., "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "vision_config": ...,
        "vocab_size": 32064
    },
    "gemma": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 24576,
        "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 16, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": True, "use_bidirectional_attention": None, "vision_config": ...,
        "vocab_size": 256000
    },
    "gemma2": {
        "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2,
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "silu",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": True, "use_bidirectional_attention": None,
        "vision_config": ..., "vocab_size": 256000
    },
    "gemma3_text": {
        "_sliding_window_pattern": ..., "attention_bias": False, "attention_dropout": 0.0,
        "attn_logit_softcapping": None, "boi_token_id": ..., "boi_token_index": 255999, "bos_token_id": 2,
        "eoi_token_id": ..., "eoi_token_index": 256000, "eos_token_id": 1, "final_logit_softcapping": None,
        "head_dim": 256, "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
        "image_token_id": ..., "image_token_index": 262144, "initializer_range": 0.02, "intermediate_size": 9216,
        "max_position_embeddings": 131072, "mm_tokens_per_image": 256, "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": ..., "rope_parameters": None, "sliding_window": 4096, "sliding_window_pattern": 6,
        "text_config": None, "tie_word_embeddings": True, "use_bidirectional_attention": False, "vision_config": None,
        "vocab_size": 262208
    },
    "mixtral": {
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": None, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": ...,
        "num_attention_heads": 32, "num_experts": ..., "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 8, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "vision_config": ..., "vocab_size": 32000
    },
    "qwen3_moe": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "decoder_sparse_step": 1,
        "eos_token_id": None, "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 6144, "max_position_embeddings": 32768, "mlp_only_layers": None,
        "moe_intermediate_size": 768, "norm_topk_prob": False, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 24, "num_key_value_heads": 4,
        "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": None,
        "partial_rotary_factor": None, "rms_norm_eps": 1e-06, "rope_parameters": None, "router_aux_loss_coef": 0.001,
        "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": False, "use_sliding_window": False,
        "vision_config": ..., "vocab_size": 151936
    },
    "olmoe": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "clip_qkv": None,
        "eos_token_id": 50279, "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 2048, "max_position_embeddings": 4096, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
        "num_key_value_heads": None, "num_local_experts": ..., "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": 1, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "router_aux_loss_coef": 0.01, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": False, "vision_config": ..., "vocab_size": 50304
    },
    "gpt2": {
        "activation_function": "gelu_new", "add_cross_attention": False, "attention_dropout": ..., "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "head_dim": ..., "hidden_act": "silu",
        "hidden_size": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "max_position_embeddings": ...,
        "n_embd": 768, "n_head": 12, "n_inner": None, "n_layer": 12, "n_positions": 1024, "num_attention_heads": ...,
        "num_hidden_layers": ..., "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "reorder_and_upcast_attn": False, "resid_pdrop": 0.1, "rope_parameters": ...,
        "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "sliding_window": None,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "text_config": ..., "tie_word_embeddings": True,
        "vision_config": ..., "vocab_size": 50257
    },
    "gpt_neox": {
        "attention_bias": True, "attention_dropout": 0.0, "bos_token_id": 0, "classifier_dropout": 0.1,
        "eos_token_id": 2, "head_dim": ..., "hidden_act": "gelu", "hidden_dropout": 0.0, "hidden_size": 6144,
        "initializer_range": 0.02, "intermediate_size": 24576, "is_decoder": False, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "num_attention_heads": 64, "num_hidden_layers": 44,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rope_parameters": None, "rotary_emb_base": ..., "rotary_pct": 0.25, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_parallel_residual": True, "vision_config": ...,
        "vocab_size": 50432
    },
    "phi": {
        "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 2, "head_dim": ...,
        "hidden_act": "gelu_new", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": 32, "num_hidden_layers": 24,
        "num_key_value_heads": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "qk_layernorm": False, "resid_pdrop": 0.0, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "vision_config": ...,
        "vocab_size": 51200
    },
    "starcoder2": {
        "attention_dropout": 0.0, "bos_token_id": 50256, "embedding_dropout": 0.0, "eos_token_id": 50256,
        "head_dim": ..., "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "initializer_range": 0.018042,
        "intermediate_size": 12288, "max_position_embeddings": 4096, "norm_epsilon": 1e-05, "num_attention_heads": 24,
        "num_hidden_layers": 30, "num_key_value_heads": 2, "original_max_position_embeddings": ...,
        "pad_token_id": None, "partial_rotary_factor": None, "residual_dropout": 0.0, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": True, "use_bias": True,
        "vision_config": ..., "vocab_size": 49152
    },
    "stablelm": {
        "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0, "head_dim": ..., "hidden_act": "silu",
        "hidden_dropout": 0.0, "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 6912,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "qk_layernorm": False, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_parallel_residual": False, "use_qkv_bias": False,
        "vision_config": ..., "vocab_size": 50304
    },
    "cohere": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 5, "eos_token_id": 255001, "head_dim": ...,
        "hidden_act": "silu", "hidden_size": 8192, "initializer_range": 0.02, "intermediate_size": 22528,
        "layer_norm_eps": 1e-05, "logit_scale": 0.0625, "max_position_embeddings": 8192, "num_attention_heads": 64,
        "num_hidden_layers": 40, "num_key_value_heads": None, "original_max_position_embeddings": ...,
        "pad_token_id": 0, "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": True, "use_qk_norm": False, "vision_config": ...,
        "vocab_size": 256000
    },
}
# model_type → name that its configuration has for a key → that key
OTHER_NAMES: Mapping[str, Mapping[str, str]] = {
    "mixtral": {
        "num_experts": "num_local_experts"
    },
    "qwen3_moe": {
        "num_experts": "num_local_experts"
    },
    "olmoe": {
        "num_local_experts": "num_experts"
    },
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer"
    },
}
# model_type → its causal language model
MODELS: Mapping[str, str] = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "smollm3": "SmolLM3ForCausalLM", "granite": "GraniteForCausalLM",
    "olmo2": "Olmo2ForCausalLM", "phi3": "Phi3ForCausalLM", "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "olmoe": "OlmoeForCausalLM", "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM", "phi": "PhiForCausalLM", "starcoder2": "Starcoder2ForCausalLM",
    "stablelm": "StableLmForCausalLM", "cohere": "CohereForCausalLM"
}
# kind of rotary settings → keys of its dictionary that are read; "": whatever the kind
ROPE: Mapping[str, list[str]] = {
    "": [
        "full_attention", "partial_rotary_factor", "rope_theta", "rope_type", "sliding_attention", "type"
    ],
    "dynamic": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "linear": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "llama3": [
        "factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings", "partial_rotary_factor",
        "rope_theta"
    ],
    "longrope": [
        "attention_factor", "factor", "long_factor", "original_max_position_embeddings", "partial_rotary_factor",
        "rope_theta", "short_factor"
    ],
    "proportional": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "yarn": [
        "attention_factor", "beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim",
        "original_max_position_embeddings", "partial_rotary_factor", "rope_theta", "truncate"
    ],
}
