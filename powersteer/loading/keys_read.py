"""What transformers reads of a config.json. Written by tools/config_keys.py: do not edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# fmt: off
# the version that was read
TRANSFORMERS: str = "5.24.0"
# key that the code of every family reads → what it takes without it; ...: no one constant
EVERY: Mapping[str, Any] = {
    "PreTrainedConfig": ..., "_attention_heads": ..., "_attn_implementation": None, "_attn_implementation_internal": ...,
    "_check_received_keys": ..., "_commit_hash": None, "_experts_implementation": None, "_experts_implementation_internal": ...,
    "_heterogeneity_spec": ..., "_is_quantized": ..., "_layers": ..., "_name_or_path": None, "_output_attentions": ...,
    "_post_init_done": False, "_rope_type_labels": None, "_token_id": ..., "allow_all_kernels": ...,
    "allow_global_per_layer_attribute_access": ..., "architectures": None, "attn_implementation": None, "attribute_map": ..., "auto": ...,
    "base_model_pp_plan": ..., "base_model_tp_plan": ..., "chunk_size_feed_forward": 0, "decoder": ..., "deepgemm_megamoe": ...,
    "default_rope_type": ..., "default_theta": ..., "distributed_config": None, "dtype": None, "eager": ..., "embed_dim": ...,
    "encoder": ..., "experts_implementation": None, "factor": ..., "fusion_config": None, "generator": ...,
    "gradient_checkpointing": False, "id2label": None, "ignore_keys_at_rope_validation": ..., "initializer_factor": ...,
    "is_causal": True, "is_encoder_decoder": False, "is_heterogeneous": ..., "kv_sharing_modes": None, "label2id": None, "meta": ...,
    "mlp_layer_types": None, "model_type": ..., "mtp_layer_types": None, "mtp_mlp_layer_types": None, "mtp_per_layer_config": None,
    "name_or_path": "", "num_labels": None, "number_of_conv_states": 1, "output_attentions": False, "output_hidden_states": False,
    "per_layer_attributes": ..., "per_layer_config": None, "problem_type": None, "return_dict": True, "rope_scaling": None,
    "rope_theta": None, "sep_token_id": None, "serialize_explicit_per_layer_config": ..., "single_label_classification": ...,
    "sub_configs": ..., "sub_configs_defaults": ..., "text_encoder": ..., "torch_dtype": None, "transformers_version": None,
    "transformers_weights": None
}
# the same of single families
FAMILY: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 2048, "mlp_bias": False,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "pretraining_tp": 1,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 32000
    },
    "mistral": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": None, "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 14336, "layer_types": None, "max_position_embeddings": ..., "num_attention_heads": 32, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 32000
    },
    "ministral": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": None, "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 14336, "layer_types": None, "max_position_embeddings": ..., "num_attention_heads": 32, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 32000
    },
    "ministral3": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 14336, "layer_types": None, "max_position_embeddings": 262144, "num_attention_heads": 32, "num_heads": ...,
        "num_hidden_layers": 34, "num_key_value_heads": 8, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": 11, "partial_rotary_factor": None, "rms_norm_eps": 1e-05, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 131072
    },
    "smollm3": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 32768, "mlp_bias": False,
        "no_rope_layer_interval": 4, "no_rope_layers": None, "num_attention_heads": 16, "num_heads": ..., "num_hidden_layers": 36,
        "num_key_value_heads": 4, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": 128004,
        "partial_rotary_factor": None, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": True, "use_cache": True, "use_sliding_window": False, "vision_config": ..., "vocab_size": 128256
    },
    "granite": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "attention_multiplier": 1.0, "bos_token_id": 1,
        "embedding_multiplier": 1.0, "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu",
        "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None,
        "logits_scaling": 1.0, "max_position_embeddings": 2048, "mlp_bias": False, "num_attention_heads": 32, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": None, "partial_rotary_factor": None, "residual_multiplier": 1.0, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ...,
        "vocab_size": 32000
    },
    "seed_oss": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.1, "attention_out_bias": False, "bos_token_id": 0,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 27648, "layer_types": None, "max_position_embeddings": 524288, "mlp_bias": False,
        "num_attention_heads": 80, "num_heads": ..., "num_hidden_layers": 64, "num_key_value_heads": 8, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "pretraining_tp": 1,
        "residual_dropout": 0.1, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 155136
    },
    "ernie4_5": {
        "attention_chunk_size": None, "attention_dropout": ..., "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_types": None, "max_position_embeddings": 131072, "num_attention_heads": 16, "num_heads": ..., "num_hidden_layers": 18,
        "num_key_value_heads": 2, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "rms_norm_eps": 1e-05, "rope_parameters": None, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": True, "use_bias": False, "use_cache": True, "vision_config": ..., "vocab_size": 103424
    },
    "helium": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "first_k_dense_replace": ..., "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 7040, "layer_types": None, "max_position_embeddings": 4096, "mlp_bias": False,
        "num_attention_heads": 20, "num_heads": ..., "num_hidden_layers": 24, "num_key_value_heads": 20, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 3, "partial_rotary_factor": None, "rms_norm_eps": 1e-08,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 48000
    },
    "hunyuan_v1_dense": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eod_token_id": 3,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 2048,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 0, "partial_rotary_factor": None, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 290943
    },
    "arcee": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
        "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "relu2", "hidden_size": 2560, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 18432, "layer_types": None, "max_position_embeddings": 4096, "mlp_bias": False,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 32000
    },
    "nemotron": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 3,
        "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "relu2", "hidden_size": 6144, "init_std": ...,
        "initializer_range": 0.0134, "intermediate_size": 24576, "layer_types": None, "max_position_embeddings": 4096, "mlp_bias": False,
        "norm_eps": 1e-05, "num_attention_heads": 48, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 256000
    },
    "jais2": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 150024,
        "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "relu2", "hidden_size": 3328, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 26624, "layer_norm_eps": 1e-05, "layer_types": None,
        "max_position_embeddings": 8192, "mlp_bias": True, "num_attention_heads": 26, "num_heads": ..., "num_hidden_layers": 32,
        "num_key_value_heads": None, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 150272
    },
    "nanochat": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
        "final_logit_softcapping": 15.0, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "relu2", "hidden_size": 768,
        "init_std": ..., "initializer_range": 0.02, "intermediate_size": 8192, "layer_types": None, "max_position_embeddings": 2048,
        "num_attention_heads": 6, "num_heads": ..., "num_hidden_layers": 12, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "rms_norm_eps": 1e-06,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 50304
    },
    "apertus": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "xielu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 14336, "layer_types": None, "max_position_embeddings": 65536,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 3, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 131072
    },
    "qwen2": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None, "first_k_dense_replace": ...,
        "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 22016, "layer_types": None, "max_position_embeddings": 32768, "max_window_layers": 28,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": 32, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-06,
        "rope_parameters": None, "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "qwen3": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
        "first_k_dense_replace": ..., "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 22016, "layer_types": None, "max_position_embeddings": 32768,
        "max_window_layers": 28, "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": 32,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "olmo": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "clip_qkv": None,
        "eos_token_id": 50279, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 2048,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "rope_parameters": None,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ...,
        "vocab_size": 50304
    },
    "olmo2": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": 50279,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 2048,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 50304
    },
    "olmo3": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": 50279,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None, "max_position_embeddings": 2048,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 50304
    },
    "exaone4": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 16384, "layer_types": None, "max_position_embeddings": 2048, "num_attention_heads": 32, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-05, "rope_parameters": None, "sliding_window": 4096,
        "sliding_window_pattern": 4, "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ...,
        "vocab_size": 102400
    },
    "glm": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
        "first_k_dense_replace": ..., "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 13696, "layer_types": None, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 40, "num_key_value_heads": 2, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 151329, "partial_rotary_factor": None, "rms_norm_eps": 1.5625e-07,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 151552
    },
    "glm4": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
        "first_k_dense_replace": ..., "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 13696, "layer_types": None, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 40, "num_key_value_heads": 2, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 151329, "partial_rotary_factor": None, "rms_norm_eps": 1.5625e-07,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 151552
    },
    "phi": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 2,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "gelu_new", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 8192, "layer_norm_eps": 1e-05, "layer_types": None,
        "max_position_embeddings": 2048, "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 24,
        "num_key_value_heads": None, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "qk_layernorm": False, "resid_pdrop": 0.0, "rope_parameters": None, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 51200
    },
    "phi3": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 3072, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 8192, "layer_types": None, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": None, "num_mtp_layers": None,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "partial_rotary_factor": ..., "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 32064
    },
    "gemma": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1,
        "first_k_dense_replace": ..., "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 24576, "layer_types": None, "max_position_embeddings": 8192,
        "num_attention_heads": 16, "num_heads": ..., "num_hidden_layers": 28, "num_key_value_heads": 16, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 0, "partial_rotary_factor": None, "rms_norm_eps": 1e-06,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": True,
        "use_bidirectional_attention": None, "use_cache": True, "vision_config": ..., "vocab_size": 256000
    },
    "gemma2": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "attn_logit_softcapping": 50.0,
        "bos_token_id": 2, "eos_token_id": 1, "final_logit_softcapping": 30.0, "first_k_dense_replace": ..., "head_dim": 256,
        "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 9216, "layer_types": None, "max_position_embeddings": 8192, "num_attention_heads": 8, "num_heads": ...,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": 0, "partial_rotary_factor": None, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "sliding_window": 4096, "text_config": ..., "tie_word_embeddings": True, "use_bidirectional_attention": None, "use_cache": True,
        "vision_config": ..., "vocab_size": 256000
    },
    "gemma3_text": {
        "_sliding_window_pattern": ..., "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0,
        "attn_logit_softcapping": None, "boi_token_id": ..., "boi_token_index": 255999, "bos_token_id": 2, "eoi_token_id": ...,
        "eoi_token_index": 256000, "eos_token_id": 1, "final_logit_softcapping": None, "first_k_dense_replace": ..., "head_dim": 256,
        "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "image_token_id": ...,
        "image_token_index": 262144, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 9216, "layer_types": None,
        "max_position_embeddings": 131072, "mm_tokens_per_image": 256, "num_attention_heads": 8, "num_heads": ...,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "pad_token_id": 0, "partial_rotary_factor": None, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": ..., "rope_parameters": None, "sliding_window": 4096, "sliding_window_pattern": 6, "text_config": None,
        "tie_word_embeddings": True, "use_bidirectional_attention": False, "use_cache": True, "vision_config": None, "vocab_size": 262208
    },
    "gemma4_text": {
        "attention_bias": False, "attention_chunk_size": 12, "attention_context_left": 13, "attention_context_right": 0,
        "attention_dropout": 0.0, "attention_invalid_logits_value": -1000000000.0, "attention_k_eq_v": False, "attention_logit_cap": 50.0,
        "audio_config": None, "audio_token_id": 258881, "boa_token_id": 256000, "boi_token_id": 255999, "bos_token_id": 2,
        "conv_kernel_size": 5, "enable_moe_block": False, "eoa_token_index": 258883, "eoi_token_id": 258882, "eos_token_id": 1,
        "final_logit_softcapping": None, "first_k_dense_replace": ..., "flex_attention": ..., "global_head_dim": 512,
        "gradient_clipping": 10000000000.0, "head_dim": ..., "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": ..., "hidden_size_per_layer_input": 256, "image_token_id": 258880, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": ..., "is_compileable": ..., "layer_types": None, "max_position_embeddings": 131072,
        "moe_intermediate_size": None, "num_attention_heads": ..., "num_experts": None, "num_global_key_value_heads": None,
        "num_heads": ..., "num_hidden_layers": ..., "num_key_value_heads": ..., "num_kv_shared_layers": 0, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "output_proj_dims": 1536, "output_router_logits": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "patch_size": 16, "pooling_kernel_size": 3, "position_embedding_size": ..., "residual_weight": 0.5,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "sdpa": ..., "sliding_window": 512, "standardize": False,
        "subsampling_conv_channels": ..., "text_config": None, "tie_word_embeddings": True, "top_k_experts": None,
        "use_bidirectional_attention": None, "use_cache": True, "use_clipped_linears": ..., "use_double_wide_mlp": False,
        "video_token_id": 258884, "vision_config": None, "vocab_size": 262144, "vocab_size_per_layer_input": 262144
    },
    "gpt2": {
        "activation_function": "gelu_new", "add_cross_attention": False, "attention_chunk_size": None, "attention_dropout": ...,
        "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "first_k_dense_replace": ..., "head_dim": ...,
        "hidden_act": "silu", "hidden_size": ..., "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "layer_types": None, "max_position_embeddings": ..., "n_embd": 768, "n_head": 12, "n_inner": None, "n_layer": 12,
        "n_positions": 1024, "num_attention_heads": ..., "num_heads": ..., "num_hidden_layers": ..., "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.1, "rope_parameters": ..., "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True,
        "sliding_window": None, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "text_config": ..., "tie_word_embeddings": True, "use_cache": True,
        "vision_config": ..., "vocab_size": 50257
    },
    "gpt_bigcode": {
        "activation_function": "gelu_pytorch_tanh", "add_cross_attention": False, "attention_chunk_size": None, "attention_dropout": ...,
        "attention_softmax_in_fp32": True, "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": ..., "init_std": ...,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "layer_types": None, "max_position_embeddings": ..., "multi_query": True,
        "n_embd": 768, "n_head": 12, "n_inner": None, "n_layer": 12, "n_positions": 1024, "num_attention_heads": ..., "num_heads": ...,
        "num_hidden_layers": ..., "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "resid_pdrop": 0.1, "rope_parameters": ..., "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True, "sliding_window": None, "text_config": ..., "tie_word_embeddings": True, "use_cache": True,
        "vision_config": ..., "vocab_size": 50257
    },
    "gpt_neo": {
        "activation_function": "gelu_new", "attention_chunk_size": None, "attention_dropout": 0.0, "attention_layers": ...,
        "attention_types": None, "bos_token_id": 50256, "classifier_dropout": 0.1, "embed_dropout": 0.0, "eos_token_id": 50256,
        "expand_attention_types_params": ..., "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048,
        "init_std": ..., "initializer_range": 0.02, "intermediate_size": None, "layer_norm_epsilon": 1e-05, "layer_types": None,
        "max_position_embeddings": 2048, "num_attention_heads": ..., "num_heads": 16, "num_hidden_layers": ..., "num_layers": 24,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "resid_dropout": 0.0, "rope_parameters": ..., "sliding_window": None, "text_config": ..., "tie_word_embeddings": True,
        "use_cache": True, "vision_config": ..., "vocab_size": 50257, "window_size": 256
    },
    "gptj": {
        "activation_function": "gelu_new", "attention_chunk_size": None, "attention_dropout": ..., "attn_pdrop": 0.0,
        "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256, "first_k_dense_replace": ..., "head_dim": ...,
        "hidden_act": "silu", "hidden_size": ..., "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "layer_types": None, "max_position_embeddings": ..., "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28,
        "n_positions": 2048, "num_attention_heads": ..., "num_heads": ..., "num_hidden_layers": ..., "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "resid_pdrop": 0.0,
        "rope_parameters": ..., "rotary_dim": 64, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 50400
    },
    "codegen": {
        "activation_function": "gelu_new", "attention_chunk_size": None, "attention_dropout": ..., "attn_pdrop": 0.0,
        "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256, "first_k_dense_replace": ..., "head_dim": ...,
        "hidden_act": "silu", "hidden_size": ..., "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "layer_types": None, "max_position_embeddings": ..., "n_ctx": 2048, "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28,
        "n_positions": 2048, "num_attention_heads": ..., "num_heads": ..., "num_hidden_layers": ..., "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": ..., "partial_rotary_factor": None, "resid_pdrop": 0.0,
        "rope_parameters": ..., "rotary_dim": 64, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False,
        "use_cache": True, "vision_config": ..., "vocab_size": 50400
    },
    "opt": {
        "_remove_final_layer_norm": False, "activation_function": "relu", "attention_chunk_size": None, "attention_dropout": 0.0,
        "bos_token_id": 2, "do_layer_norm_before": True, "dropout": 0.1, "enable_bias": True, "eos_token_id": 2, "ffn_dim": 3072,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 768, "init_std": 0.02,
        "initializer_range": ..., "layer_norm_elementwise_affine": True, "layer_types": None, "layerdrop": 0.0,
        "max_position_embeddings": 2048, "num_attention_heads": 12, "num_heads": ..., "num_hidden_layers": 12, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 1, "partial_rotary_factor": None, "rope_parameters": ...,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": True, "use_cache": True, "vision_config": ...,
        "vocab_size": 50272, "word_embed_proj_dim": None
    },
    "gpt_neox": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "classifier_dropout": 0.1,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "gelu", "hidden_dropout": 0.0,
        "hidden_size": 6144, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 24576, "is_decoder": False,
        "layer_norm_eps": 1e-05, "layer_types": None, "max_position_embeddings": 2048, "num_attention_heads": 64, "num_heads": ...,
        "num_hidden_layers": 44, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "rope_parameters": None, "rotary_emb_base": ..., "rotary_pct": 0.25, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "use_parallel_residual": True, "vision_config": ...,
        "vocab_size": 50432
    },
    "starcoder2": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 50256, "embedding_dropout": 0.0, "eos_token_id": 50256,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "init_std": ...,
        "initializer_range": 0.018042, "intermediate_size": 12288, "layer_types": None, "max_position_embeddings": 4096,
        "norm_epsilon": 1e-05, "num_attention_heads": 24, "num_heads": ..., "num_hidden_layers": 30, "num_key_value_heads": 2,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "residual_dropout": 0.0, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": True,
        "use_bias": True, "use_cache": True, "vision_config": ..., "vocab_size": 49152
    },
    "stablelm": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0, "first_k_dense_replace": ...,
        "head_dim": ..., "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 2560, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 6912, "layer_norm_eps": 1e-05, "layer_types": None, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": 32, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None, "qk_layernorm": False,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "use_parallel_residual": False, "use_qkv_bias": False, "vision_config": ..., "vocab_size": 50304
    },
    "bloom": {
        "apply_residual_connection_post_layernorm": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 64,
        "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "layer_types": None, "max_position_embeddings": ...,
        "n_embed": None, "n_head": 8, "n_layer": 2, "num_attention_heads": ..., "num_heads": ..., "num_hidden_layers": ...,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "pretraining_tp": 1, "rope_parameters": ..., "sliding_window": None, "slow_but_exact": False, "text_config": ...,
        "tie_word_embeddings": True, "use_cache": True, "vision_config": ..., "vocab_size": 250880
    },
    "mpt": {
        "alibi": True, "alibi_bias_max": 8, "attention_chunk_size": None, "attention_dropout": ..., "attn_config": None,
        "attn_impl": "torch", "attn_pdrop": 0, "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "base_config_key": ...,
        "bos_token_id": None, "clip_qkv": None, "d_model": 2048, "emb_pdrop": 0.0, "embedding_fraction": 1.0, "eos_token_id": None,
        "expansion_ratio": 4, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": ...,
        "init_device": "cpu", "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "layer_types": None,
        "learned_pos_emb": True, "logit_scale": None, "max_position_embeddings": ..., "max_seq_len": 2048, "n_heads": 16, "n_layers": 24,
        "no_bias": True, "norm_type": "low_precision_layernorm", "num_attention_heads": ..., "num_heads": ..., "num_hidden_layers": ...,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "partial_rotary_factor": None,
        "prefix_lm": False, "qk_ln": False, "resid_pdrop": 0.0, "rope_parameters": ..., "sliding_window": None, "softmax_scale": None,
        "text_config": ..., "tie_word_embeddings": True, "use_cache": False, "vision_config": ..., "vocab_size": 50368
    },
    "falcon": {
        "activation": "gelu", "alibi": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bias": False, "bos_token_id": 11,
        "eos_token_id": 11, "ffn_hidden_size": None, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu",
        "hidden_dropout": 0.0, "hidden_size": 4544, "init_std": ..., "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "layer_types": None, "max_position_embeddings": 2048, "multi_query": True, "n_embed": None, "new_decoder_architecture": False,
        "num_attention_heads": 71, "num_heads": ..., "num_hidden_layers": 32, "num_kv_heads": None, "num_ln_in_parallel_attn": None,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None, "parallel_attn": True,
        "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": True,
        "use_cache": True, "vision_config": ..., "vocab_size": 65024
    },
    "cohere": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 5, "eos_token_id": 255001,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 8192, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 22528, "layer_norm_eps": 1e-05, "layer_types": None, "logit_scale": 0.0625,
        "max_position_embeddings": 8192, "num_attention_heads": 64, "num_heads": ..., "num_hidden_layers": 40,
        "num_key_value_heads": None, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": True,
        "use_cache": True, "use_qk_norm": False, "vision_config": ..., "vocab_size": 256000
    },
    "cohere2": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 5, "eos_token_id": 255001,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 8192, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 22528, "layer_norm_eps": 1e-05, "layer_types": None, "logit_scale": 0.0625,
        "max_position_embeddings": 8192, "num_attention_heads": 64, "num_heads": ..., "num_hidden_layers": 40,
        "num_key_value_heads": None, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": 4096, "sliding_window_pattern": 4, "text_config": ...,
        "tie_word_embeddings": True, "use_cache": True, "vision_config": ..., "vocab_size": 256000
    },
    "mixtral": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": ...,
        "head_dim": None, "hidden_act": "silu", "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": 14336, "layer_types": None, "max_position_embeddings": ..., "num_attention_heads": 32, "num_experts": ...,
        "num_experts_per_tok": 2, "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "num_mtp_layers": None, "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": None,
        "partial_rotary_factor": None, "rms_norm_eps": 1e-05, "rope_parameters": None, "router_aux_loss_coef": 0.001,
        "router_jitter_noise": 0.0, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "use_cache": True,
        "vision_config": ..., "vocab_size": 32000
    },
    "qwen3_moe": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "decoder_sparse_step": 1,
        "eos_token_id": None, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 6144, "layer_types": None, "max_position_embeddings": 32768,
        "mlp_only_layers": None, "moe_intermediate_size": 768, "norm_topk_prob": False, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_heads": ..., "num_hidden_layers": 24, "num_key_value_heads": 4, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-06, "rope_parameters": None, "router_aux_loss_coef": 0.001, "sliding_window": 4096, "text_config": ...,
        "tie_word_embeddings": False, "use_cache": True, "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "olmoe": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "clip_qkv": None,
        "eos_token_id": 50279, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 2048, "layer_types": None, "max_position_embeddings": 4096,
        "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_heads": ...,
        "num_hidden_layers": 16, "num_key_value_heads": None, "num_local_experts": ..., "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": 1, "partial_rotary_factor": None,
        "rms_norm_eps": 1e-05, "rope_parameters": None, "router_aux_loss_coef": 0.01, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 50304
    },
    "qwen2_moe": {
        "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "decoder_sparse_step": 1, "eos_token_id": None,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 5632, "layer_types": None, "max_position_embeddings": 32768,
        "max_window_layers": 28, "mlp_only_layers": None, "moe_intermediate_size": 1408, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_heads": ..., "num_hidden_layers": 24,
        "num_key_value_heads": 16, "num_mtp_layers": None, "original_max_position_embeddings": ..., "output_router_logits": False,
        "pad_token_id": None, "partial_rotary_factor": None, "qkv_bias": True, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 5632, "sliding_window": 4096, "text_config": ...,
        "tie_word_embeddings": False, "use_cache": True, "use_sliding_window": False, "vision_config": ..., "vocab_size": 151936
    },
    "granitemoe": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "attention_multiplier": 1.0, "bos_token_id": 1,
        "embedding_multiplier": 1.0, "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu",
        "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None,
        "logits_scaling": 1.0, "max_position_embeddings": 2048, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": None, "num_local_experts": 8, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None,
        "residual_multiplier": 1.0, "rms_norm_eps": 1e-06, "rope_parameters": None, "router_aux_loss_coef": 0.001, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 32000
    },
    "phimoe": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "input_jitter_noise": 0.0, "intermediate_size": 6400, "layer_types": None, "lm_head_bias": False,
        "max_position_embeddings": ..., "num_attention_heads": 32, "num_experts_per_tok": 2, "num_heads": ..., "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 16, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.01, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 32064
    },
    "gpt_oss": {
        "attention_bias": True, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": None,
        "first_k_dense_replace": ..., "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 2880, "layer_types": None, "max_position_embeddings": 131072,
        "num_attention_heads": 64, "num_experts": ..., "num_experts_per_tok": 4, "num_heads": ..., "num_hidden_layers": 36,
        "num_key_value_heads": 8, "num_local_experts": 128, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "router_aux_loss_coef": 0.001, "sliding_window": 128, "swiglu_alpha": 1.702, "swiglu_limit": 7.0,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 201088
    },
    "llama4_text": {
        "attention_bias": False, "attention_chunk_size": 8192, "attention_dropout": 0.0, "attn_scale": 0.1,
        "attn_temperature_tuning": True, "base_config_key": ..., "boi_token_id": ..., "boi_token_index": 200080, "bos_token_id": 1,
        "eoi_token_id": ..., "eoi_token_index": 200081, "eos_token_id": 2, "first_k_dense_replace": ..., "floor_scale": 8192,
        "head_dim": 128, "hidden_act": ..., "hidden_size": ..., "image_size": 448, "image_token_id": ..., "image_token_index": 200092,
        "init_std": ..., "initializer_range": 0.02, "interleave_moe_layer_step": 1, "intermediate_size": ...,
        "intermediate_size_mlp": 16384, "layer_types": None, "max_position_embeddings": ..., "moe_layers": None,
        "multi_modal_projector_bias": False, "no_rope_layer_interval": 4, "no_rope_layers": None, "norm_eps": 1e-05,
        "num_attention_heads": ..., "num_channels": 3, "num_experts_per_tok": 1, "num_heads": ..., "num_hidden_layers": ...,
        "num_key_value_heads": 8, "num_local_experts": 16, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "patch_size": 14, "pixel_shuffle_ratio": 0.5,
        "projector_dropout": 0.0, "projector_input_dim": 4096, "projector_output_dim": 4096, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "sliding_window": None, "text_config": None,
        "tie_word_embeddings": False, "use_cache": True, "use_qk_norm": True, "vision_config": None,
        "vision_feature_select_strategy": "default", "vision_output_dim": 7680, "vocab_size": 202048
    },
    "deepseek_v3": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
        "first_k_dense_replace": 3, "head_dim": ..., "hidden_act": "silu", "hidden_size": 7168, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512, "layer_types": None, "max_position_embeddings": 4096,
        "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_heads": ..., "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_local_experts": ..., "num_mtp_layers": 1, "original_max_position_embeddings": ..., "output_router_logits": False,
        "pad_token_id": None, "partial_rotary_factor": None, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_interleave": True, "rope_parameters": None, "routed_scaling_factor": 2.5,
        "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "topk_group": 4, "use_cache": True, "v_head_dim": 128,
        "vision_config": ..., "vocab_size": 129280
    },
    "glm4_moe_lite": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
        "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 2048, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 10240, "kv_lora_rank": 512, "layer_types": None,
        "max_position_embeddings": 202752, "moe_intermediate_size": 1536, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 1,
        "norm_topk_prob": True, "num_attention_heads": 20, "num_experts_per_tok": 4, "num_heads": ..., "num_hidden_layers": 47,
        "num_key_value_heads": 20, "num_local_experts": ..., "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "pretraining_tp": 1, "q_lora_rank": 768,
        "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-05, "rope_interleave": True, "rope_parameters": None,
        "routed_scaling_factor": 1.8, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "topk_group": 1,
        "use_cache": True, "v_head_dim": 256, "vision_config": ..., "vocab_size": 154880
    },
    "minicpm3": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": 1, "dim_model_base": 256,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": None, "hidden_act": "silu", "hidden_size": 2560, "init_std": ...,
        "initializer_range": 0.1, "intermediate_size": 6400, "kv_lora_rank": 256, "layer_types": None, "logits_scaling": ...,
        "max_position_embeddings": 32768, "mlp_bias": False, "num_attention_heads": 40, "num_heads": ..., "num_hidden_layers": 62,
        "num_key_value_heads": 40, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": None,
        "partial_rotary_factor": None, "pretraining_tp": 1, "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
        "rms_norm_eps": 1e-05, "rope_parameters": None, "scale_depth": 1.4, "scale_emb": 12, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": True, "use_cache": True, "v_head_dim": None, "vision_config": ..., "vocab_size": 73448
    },
    "lfm2": {
        "attention_chunk_size": None, "attention_dropout": ..., "block_auto_adjust_ff_dim": True, "block_ff_dim": ...,
        "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256, "bos_token_id": 1, "conv_L_cache": 3, "conv_bias": False,
        "eos_token_id": 2, "first_k_dense_replace": ..., "full_attn_idxs": None, "head_dim": ..., "hidden_act": "silu",
        "hidden_size": 2560, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 12288, "layer_types": None,
        "max_position_embeddings": 128000, "norm_eps": 1e-05, "num_attention_heads": 32, "num_heads": ..., "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_mtp_layers": None, "original_max_position_embeddings": ..., "pad_token_id": 0,
        "partial_rotary_factor": None, "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_embedding": ...,
        "tie_word_embeddings": True, "use_cache": True, "vision_config": ..., "vocab_size": 65536
    },
    "qwen3_5_text": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "base_config_key": ..., "bos_token_id": None,
        "depth": 27, "eos_token_id": None, "first_k_dense_replace": ..., "full_attention_interval": 4, "head_dim": 256, "hidden_act": ...,
        "hidden_size": ..., "image_token_id": 248056, "in_channels": 3, "init_std": ..., "initializer_range": 0.02,
        "intermediate_size": ..., "layer_types": None, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128, "max_position_embeddings": 32768,
        "num_attention_heads": 16, "num_heads": 16, "num_hidden_layers": 32, "num_key_value_heads": 4, "num_mtp_layers": None,
        "num_position_embeddings": 2304, "original_max_position_embeddings": ..., "out_hidden_size": 3584, "pad_token_id": None,
        "partial_rotary_factor": None, "patch_size": 16, "rms_norm_eps": 1e-06, "rope_parameters": None, "sliding_window": None,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "text_config": None, "tie_word_embeddings": False, "use_cache": True,
        "video_token_id": 248057, "vision_config": None, "vision_end_token_id": 248054, "vision_start_token_id": 248053,
        "vocab_size": 248320
    },
    "qwen3_next": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "bos_token_id": None, "decoder_sparse_step": 1,
        "eos_token_id": None, "first_k_dense_replace": ..., "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu",
        "hidden_size": 2048, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 5632, "layer_types": None,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "max_position_embeddings": 32768, "mlp_only_layers": None, "moe_intermediate_size": 512,
        "norm_topk_prob": True, "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10, "num_heads": ...,
        "num_hidden_layers": 48, "num_key_value_heads": 2, "num_mtp_layers": None, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None, "rms_norm_eps": 1e-06,
        "rope_parameters": None, "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 512, "sliding_window": None,
        "text_config": ..., "tie_word_embeddings": False, "use_cache": True, "vision_config": ..., "vocab_size": 151936
    },
    "granitemoehybrid": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "attention_multiplier": 1.0, "bos_token_id": 1,
        "embedding_multiplier": 1.0, "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu",
        "hidden_size": 4096, "init_std": ..., "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": None,
        "layers_block_type": ..., "logits_scaling": 1.0, "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4,
        "mamba_d_head": "auto", "mamba_d_state": 256, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128,
        "mamba_proj_bias": False, "max_position_embeddings": 2048, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_heads": ...,
        "num_hidden_layers": 32, "num_key_value_heads": None, "num_local_experts": 8, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "output_router_logits": False, "pad_token_id": None, "partial_rotary_factor": None,
        "position_embedding_type": None, "residual_multiplier": 1.0, "rms_norm_eps": 1e-06, "rope_parameters": None,
        "router_aux_loss_coef": 0.001, "shared_intermediate_size": 1024, "sliding_window": None, "text_config": ...,
        "tie_word_embeddings": False, "time_step_limit": ..., "use_cache": True, "vision_config": ..., "vocab_size": 32000
    },
    "nemotron_h": {
        "_list_to_pattern": ..., "_pattern_to_list": ..., "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0,
        "bos_token_id": 1, "chunk_size": 128, "conv_kernel": 4, "eos_token_id": 2, "expand": 2, "first_k_dense_replace": ...,
        "head_dim": 128, "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 4096, "hybrid_override_pattern": None,
        "init_std": ..., "initializer_range": 0.02, "intermediate_size": 21504, "layer_norm_epsilon": 1e-05, "layer_types": ...,
        "layers_block_type": None, "mamba_chunk_size": None, "mamba_conv_bias": None, "mamba_d_conv": None, "mamba_dt_init_floor": None,
        "mamba_dt_limit": None, "mamba_dt_max": None, "mamba_dt_min": None, "mamba_expand": None, "mamba_head_dim": 64,
        "mamba_hidden_act": "silu", "mamba_n_groups": None, "mamba_num_heads": 128, "mamba_proj_bias": False,
        "mamba_ssm_cache_dtype": "float32", "max_position_embeddings": 4096, "mlp_bias": False, "mlp_hidden_act": "relu2",
        "moe_intermediate_size": 7688, "moe_latent_size": None, "moe_shared_expert_intermediate_size": 7688,
        "moe_shared_expert_overlap": True, "mtp_hybrid_override_pattern": None, "mtp_layers_block_type": None, "n_group": 1,
        "n_groups": 8, "n_routed_experts": 8, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_heads": ..., "num_hidden_layers": ..., "num_key_value_heads": 8, "num_local_experts": ...,
        "num_logits_to_keep": 1, "num_mtp_layers": None, "num_nextn_predict_layers": 0, "original_max_position_embeddings": ...,
        "output_router_logits": False, "pad_token_id": 0, "partial_rotary_factor": None, "rescale_prenorm_residual": True,
        "residual_in_fp32": False, "rope_parameters": ..., "routed_scaling_factor": 1.0, "sliding_window": None, "ssm_state_size": 128,
        "text_config": ..., "tie_word_embeddings": False, "time_step_floor": 0.0001, "time_step_limit": ..., "time_step_max": 0.1,
        "time_step_min": 0.001, "topk_group": 1, "use_bias": False, "use_cache": True, "use_conv_bias": True, "use_mamba_kernels": True,
        "vision_config": ..., "vocab_size": 131072
    },
    "bamba": {
        "attention_bias": False, "attention_chunk_size": None, "attention_dropout": 0.0, "attn_layer_indices": None, "bos_token_id": 1,
        "eos_token_id": 2, "first_k_dense_replace": ..., "head_dim": ..., "hidden_act": "silu", "hidden_size": 4096, "init_std": ...,
        "initializer_range": 0.02, "intermediate_size": 14336, "layer_types": ..., "layers_block_type": ..., "mamba_chunk_size": 256,
        "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": "auto", "mamba_d_state": 256, "mamba_expand": 2, "mamba_n_groups": 1,
        "mamba_n_heads": 128, "mamba_proj_bias": False, "max_position_embeddings": 262144, "mlp_bias": False, "num_attention_heads": 32,
        "num_heads": ..., "num_hidden_layers": 32, "num_key_value_heads": 8, "num_logits_to_keep": 1, "num_mtp_layers": None,
        "original_max_position_embeddings": ..., "pad_token_id": 0, "partial_rotary_factor": None, "rms_norm_eps": 1e-05,
        "rope_parameters": None, "sliding_window": None, "text_config": ..., "tie_word_embeddings": False, "time_step_limit": ...,
        "use_cache": True, "vision_config": ..., "vocab_size": 128000, "z_loss_coefficient": 0.0
    },
}
# model_type → name that its configuration has for a key → that key
OTHER_NAMES: Mapping[str, Mapping[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"
    },
    "gpt_bigcode": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"
    },
    "gpt_neo": {
        "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"
    },
    "gptj": {
        "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"
    },
    "codegen": {
        "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"
    },
    "bloom": {
        "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"
    },
    "mpt": {
        "num_attention_heads": "n_heads", "hidden_size": "d_model", "num_hidden_layers": "n_layers"
    },
    "mixtral": {
        "num_experts": "num_local_experts"
    },
    "qwen3_moe": {
        "num_experts": "num_local_experts"
    },
    "olmoe": {
        "num_local_experts": "num_experts"
    },
    "gpt_oss": {
        "num_experts": "num_local_experts"
    },
    "deepseek_v3": {
        "num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"
    },
    "glm4_moe_lite": {
        "num_local_experts": "n_routed_experts", "head_dim": "qk_rope_head_dim"
    },
    "granitemoehybrid": {
        "layers_block_type": "layer_types"
    },
    "nemotron_h": {
        "layer_types": "layers_block_type", "num_local_experts": "n_routed_experts"
    },
    "bamba": {
        "layer_types": "layers_block_type"
    },
}
# model_type → its causal language model
MODELS: Mapping[str, str] = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "ministral": "MinistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM", "smollm3": "SmolLM3ForCausalLM", "granite": "GraniteForCausalLM",
    "seed_oss": "SeedOssForCausalLM", "ernie4_5": "Ernie4_5ForCausalLM", "helium": "HeliumForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM", "arcee": "ArceeForCausalLM", "nemotron": "NemotronForCausalLM",
    "jais2": "Jais2ForCausalLM", "nanochat": "NanoChatForCausalLM", "apertus": "ApertusForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "olmo": "OlmoForCausalLM", "olmo2": "Olmo2ForCausalLM", "olmo3": "Olmo3ForCausalLM",
    "exaone4": "Exaone4ForCausalLM", "glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM", "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM", "gpt2": "GPT2LMHeadModel", "gpt_bigcode": "GPTBigCodeForCausalLM", "gpt_neo": "GPTNeoForCausalLM",
    "gptj": "GPTJForCausalLM", "codegen": "CodeGenForCausalLM", "opt": "OPTForCausalLM", "gpt_neox": "GPTNeoXForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM", "stablelm": "StableLmForCausalLM", "bloom": "BloomForCausalLM", "mpt": "MptForCausalLM",
    "falcon": "FalconForCausalLM", "cohere": "CohereForCausalLM", "cohere2": "Cohere2ForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "olmoe": "OlmoeForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM", "phimoe": "PhimoeForCausalLM", "gpt_oss": "GptOssForCausalLM",
    "llama4_text": "Llama4ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM", "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "minicpm3": "MiniCPM3ForCausalLM", "lfm2": "Lfm2ForCausalLM", "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM", "granitemoehybrid": "GraniteMoeHybridForCausalLM", "nemotron_h": "NemotronHForCausalLM",
    "bamba": "BambaForCausalLM"
}
# kind of rotary settings → keys of its dictionary that are read; "": whatever the kind
ROPE: Mapping[str, list[str]] = {
    "": [
        "alpha", "full_attention", "llama_4_scaling_beta", "long_mscale", "mrope_section", "original_max_position_embeddings",
        "partial_rotary_factor", "rope_theta", "rope_type", "short_mscale", "sliding_attention", "type"
    ],
    "dynamic": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "linear": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "llama3": [
        "factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings", "partial_rotary_factor", "rope_theta"
    ],
    "longrope": [
        "attention_factor", "factor", "long_factor", "original_max_position_embeddings", "partial_rotary_factor", "rope_theta",
        "short_factor"
    ],
    "proportional": [
        "factor", "partial_rotary_factor", "rope_theta"
    ],
    "yarn": [
        "attention_factor", "beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim", "original_max_position_embeddings",
        "partial_rotary_factor", "rope_theta", "rope_type", "truncate"
    ],
}
