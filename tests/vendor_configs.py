"""Config files of vendors, as public repositories hold them: every key that is not of the training, the tokenizer or the file.
Some are of copies with fewer layers. Lists of the same few words are written as products."""

from __future__ import annotations

__all__ = ["MULTIMODAL", "TEXT"]


def at(places, n):
    """Layer types of n layers, with attention at these places and convolutions at the others."""
    return ["full_attention" if i in places else "conv" for i in range(n)]


TEXT = {
    "Llama 3.1 8B": {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings":
        131072, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "vocab_size": 128256},
    "SmolLM 1.7B": {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 2048,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": True, "vocab_size": 49152},
    "Mistral 7B": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type":
        "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta":
        10000.0, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000},
    "Qwen2.5 7B": {
        "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers":
        28, "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False, "use_mrope": False, "use_sliding_window":
        False, "vocab_size": 152064},
    "Qwen3 0.6B": {
        "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936},
    "Qwen3 30B A3B": {
        "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [], "model_type":
        "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps":
        1e-06, "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936},
    "Gemma 7B": {
        "attention_bias": False, "head_dim": 256, "hidden_act": "gelu", "hidden_size": 3072, "intermediate_size": 24576,
        "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "vocab_size": 256000},
    "Gemma 2 2B": {
        "attention_bias": False, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window": 4096, "vocab_size": 256000},
    "Gemma 3 text": {
        "attention_bias": False, "attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling":
        None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144},
    "Phi 3 mini": {
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}, "embd_pdrop": 0.0, "hidden_act": "silu", "hidden_size":
        3072, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 32,
        "num_hidden_layers": 1, "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "resid_pdrop": 0.0, "rms_norm_eps":
        1e-05, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2048, "tie_word_embeddings": False, "vocab_size": 32064},
    "phi-2 (IPEX)": {
        "auto_map": {"AutoModelForCausalLM": "modeling_phi.PhiForCausalLM"}, "embd_pdrop": 0.0, "hidden_act": "gelu_new", "hidden_size":
        2560, "intermediate_size": 10240, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi",
        "num_attention_heads": 32, "num_hidden_layers": 1, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm":
        False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 51200},
    "StableLM 3B": {
        "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 6912, "max_position_embeddings": 4096, "model_type": "stablelm",
        "layer_norm_eps": 1e-05, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor":
        0.25, "rope_theta": 10000, "tie_word_embeddings": False, "use_qkv_bias": False, "vocab_size": 50304},
    "Mixtral 8x7B": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type":
        "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "num_local_experts": 8, "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef":
        0.02, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000},
    "gpt-oss 20B": {
        "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
        "initial_context_length": 4096, "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4,
        "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False, "rms_norm_eps":
        1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "rope_type": "yarn", "truncate": False}, "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "swiglu_limit": 7.0, "tie_word_embeddings": False, "vocab_size": 201088},
    "DeepSeek V3": {
        "attention_bias": False, "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"}, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group":
        8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim":
        128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale":
        1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 10000,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4, "topk_method":
        "noaux_tc", "v_head_dim": 128, "vocab_size": 129280},
    "MiniCPM3 4B": {
        "auto_map": {"AutoModelForCausalLM": "modeling_minicpm.MiniCPM3ForCausalLM"}, "hidden_act": "silu", "hidden_size": 2560,
        "num_hidden_layers": 62, "intermediate_size": 6400, "max_position_embeddings": 32768, "model_type": "minicpm3",
        "num_attention_heads": 40, "num_key_value_heads": 40, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "q_lora_rank": 768,
        "kv_lora_rank": 256, "rms_norm_eps": 1e-05, "rope_scaling": {"type": "longrope", "long_factor": [1.0591234137867171,
        1.1241891283591912, 1.2596935748670968, 1.5380380402321725, 2.093982484148734, 3.1446935121267696, 4.937952647693647,
        7.524541999994549, 10.475458000005451, 13.062047352306353, 14.85530648787323, 15.906017515851266, 16.461961959767827,
        16.740306425132907, 16.87581087164081, 16.940876586213285], "short_factor": [1.0591234137867171, 1.1241891283591912,
        1.2596935748670968, 1.5380380402321725, 2.093982484148734, 3.1446935121267696, 4.937952647693647, 7.524541999994549,
        10.475458000005451, 13.062047352306353, 14.85530648787323, 15.906017515851266, 16.461961959767827, 16.740306425132907,
        16.87581087164081, 16.940876586213285], "original_max_position_embeddings": 32768}, "vocab_size": 73448, "scale_emb": 12,
        "dim_model_base": 256, "scale_depth": 1.4},
    "BLOOM": {
        "apply_residual_connection_post_layernorm": False, "attention_softmax_in_fp32": True, "bias_dropout_fusion": True,
        "hidden_dropout": 0.0, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True, "model_type": "bloom", "n_embed": 2048,
        "n_inner": None, "n_layer": 1, "num_attention_heads": 16, "offset_alibi": 100, "pretraining_tp": 2, "seq_length": 4096,
        "skip_bias_add": True, "skip_bias_add_qkv": False, "vocab_size": 250880},
    "CodeGen": {
        "activation_function": "gelu_new", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "gradient_checkpointing": False, "layer_norm_epsilon":
        1e-05, "model_type": "codegen", "n_ctx": 2048, "n_embd": 2048, "n_head": 16, "n_inner": None, "n_layer": 1, "n_positions": 2048,
        "resid_pdrop": 0.0, "rotary_dim": 64, "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True, "task_specific_params":
        {"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}}, "tie_word_embeddings": False, "tokenizer_class":
        "GPT2Tokenizer", "vocab_size": 51200},
    "Falcon 40B": {
        "alibi": False, "apply_residual_connection_post_layernorm": False, "bias": False, "hidden_dropout": 0.0, "hidden_size": 8192,
        "layer_norm_epsilon": 1e-05, "model_type": "falcon", "multi_query": True, "n_head": 128, "n_layer": 60,
        "new_decoder_architecture": True, "num_attention_heads": 128, "num_hidden_layers": 60, "num_kv_heads": 8, "parallel_attn": True,
        "vocab_size": 65024},
    "Falcon 7B": {
        "alibi": False, "apply_residual_connection_post_layernorm": False, "bias": False, "hidden_dropout": 0.0, "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05, "model_type": "falcon", "multi_query": True, "n_head": 16, "n_layer": 1,
        "new_decoder_architecture": False, "num_attention_heads": 16, "num_hidden_layers": 1, "parallel_attn": True, "vocab_size": 65024},
    "MPT 7B": {
        "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False, "clip_qkv": None, "prefix_lm": False, "qk_ln": False, "softmax_scale": None}, "d_model": 4096,
        "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4, "init_config": {"emb_init_std": None, "emb_init_uniform_lim":
        None, "fan_mode": "fan_in", "init_div_is_residual": True, "init_gain": 0, "init_nonlinearity": "relu", "init_std": 0.02, "name":
        "kaiming_normal_", "verbose": 0}, "init_device": "cpu", "learned_pos_emb": True, "logit_scale": None, "max_seq_len": 2048,
        "model_type": "mpt", "n_heads": 32, "n_layers": 32, "no_bias": True, "norm_type": "low_precision_layernorm", "resid_pdrop": 0,
        "tokenizer_name": "EleutherAI/gpt-neox-20b", "verbose": 0, "vocab_size": 50432},
    "OPT": {
        "activation_dropout": 0.0, "activation_function": "relu", "do_layer_norm_before": True, "dropout": 0.1, "ffn_dim": 8192,
        "hidden_size": 2048, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048, "model_type": "opt",
        "num_attention_heads": 16, "num_hidden_layers": 1, "prefix": "</s>", "vocab_size": 50272, "word_embed_proj_dim": 2048},
    "StarCoder": {
        "activation_function": "gelu", "attention_softmax_in_fp32": True, "multi_query": True, "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "inference_runner": 0, "layer_norm_epsilon": 1e-05, "max_batch_size": None, "max_sequence_length": None, "model_type":
        "gpt_bigcode", "n_embd": 2048, "n_head": 16, "n_inner": 24576, "n_layer": 1, "n_positions": 8192, "pad_key_length": True,
        "pre_allocate_kv_cache": False, "resid_pdrop": 0.1, "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "validate_runner_input": True, "vocab_size": 49152},
    "GPT-NeoX": {
        "attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "hidden_size": 2048,
        "intermediate_size": 24576, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox",
        "num_attention_heads": 16, "num_hidden_layers": 1, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
        "vocab_size": 50432},
    "GPT-J": {
        "activation_function": "gelu_new", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "gradient_checkpointing": False, "layer_norm_epsilon":
        1e-05, "model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 1, "n_positions": 2048, "resid_pdrop":
        0.0, "rotary": True, "rotary_dim": 64, "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True, "task_specific_params":
        {"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}}, "tie_word_embeddings": False, "tokenizer_class":
        "GPT2Tokenizer", "vocab_size": 50400},
    "granite-3.3-8b-instruct": {
        "attention_bias": False, "attention_multiplier": 0.0078125, "embedding_multiplier": 12.0, "hidden_act": "silu", "hidden_size":
        4096, "intermediate_size": 12800, "logits_scaling": 16.0, "max_position_embeddings": 131072, "mlp_bias": False, "model_type":
        "granite", "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000000.0, "tie_word_embeddings": True, "vocab_size": 49159},
    "OLMo-2-1124-7B-Instruct": {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "model_type": "olmo2", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 500000, "tie_word_embeddings": False, "vocab_size": 100352},
    "Olmo-3-7B": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "layer_types": ["sliding_attention", "sliding_attention",
        "sliding_attention", "full_attention"] * 8, "max_position_embeddings": 65536, "model_type": "olmo3", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-06, "rope_scaling": {"attention_factor":
        1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0, "original_max_position_embeddings": 8192, "rope_type":
        "yarn"}, "rope_theta": 500000.0, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 100278},
    "Hy-MT2-7B": {
        "add_classification_head": False, "attention_bias": False, "attention_head_dim": 128, "cla_share_factor": 2, "class_num": 0,
        "dense_list": [4096, 0], "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "im_end_id": 5, "im_newline_id": 11,
        "im_start_id": 4, "intermediate_size": 14336, "mask_init_id": 12, "max_position_embeddings": 262144, "mlp_bias": False,
        "model_type": "hunyuan_v1_dense", "norm_type": "rms", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads":
        8, "org_vocab_size": 128167, "pad_id": 127961, "pool_type": "last", "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling":
        {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"},
        "rope_theta": 10000.0, "text_end_id": 7, "text_start_id": 6, "tie_word_embeddings": True, "use_cla": False, "use_qk_norm": True,
        "use_rotary_pos_emb": True, "vocab_size": 128167},
    "GLM-4.7-Flash": {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10240, "max_position_embeddings":
        202752, "model_type": "glm4_moe_lite", "moe_intermediate_size": 1536, "topk_method": "noaux_tc", "norm_topk_prob": True,
        "num_attention_heads": 20, "n_group": 1, "topk_group": 1, "n_routed_experts": 64, "n_shared_experts": 1,
        "routed_scaling_factor": 1.8, "num_experts_per_tok": 4, "first_k_dense_replace": 1, "num_hidden_layers": 47,
        "num_key_value_heads": 20, "num_nextn_predict_layers": 1, "partial_rotary_factor": 1.0, "rms_norm_eps": 1e-05, "rope_scaling":
        None, "rope_theta": 1000000, "tie_word_embeddings": False, "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64, "v_head_dim": 256, "vocab_size": 154880},
    "starcoder2-15b": {
        "hidden_act": "gelu_pytorch_tanh", "hidden_size": 6144, "intermediate_size": 24576, "max_position_embeddings": 16384,
        "mlp_type": "default", "model_type": "starcoder2", "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_attention_heads": 48,
        "num_hidden_layers": 40, "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 100000, "sliding_window": 4096,
        "tie_word_embeddings": False, "use_bias": True, "vocab_size": 49152},
    "TinyStories-8M": {
        "activation_function": "gelu_new", "attention_layers": ["global", "local"] * 4, "attention_types": [[["global", "local"], 4]],
        "embed_dropout": 0, "gradient_checkpointing": False, "hidden_size": 256, "intermediate_size": None, "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 2048, "model_type": "gpt_neo", "num_heads": 16, "num_layers": 8, "resid_dropout": 0,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "vocab_size": 50257, "window_size": 256},
    "LFM2-1.2B": {
        "block_auto_adjust_ff_dim": True, "block_dim": 2048, "block_ff_dim": 12288, "block_multiple_of": 256, "block_norm_eps": 1e-05,
        "block_use_swiglu": True, "conv_L_cache": 3, "conv_bias": False, "conv_dim": 2048, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "hidden_size": 2048, "max_position_embeddings": 128000, "model_type": "lfm2", "norm_eps": 1e-05, "num_attention_heads": 32,
        "num_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "rope_theta": 1000000.0, "vocab_size": 65536},
    "LFM2-2.6B": {
        "block_auto_adjust_ff_dim": False, "block_dim": 2048, "block_ff_dim": 10752, "block_ffn_dim_multiplier": 1.0,
        "block_mlp_init_scale": 1.0, "block_multiple_of": 256, "block_norm_eps": 1e-05, "block_out_init_scale": 1.0, "block_use_swiglu":
        True, "block_use_xavier_init": True, "conv_L_cache": 3, "conv_bias": False, "conv_dim": 2048, "conv_dim_out": 2048,
        "conv_use_xavier_init": True, "hidden_size": 2048, "intermediate_size": 10752, "layer_types": at([2, 5, 9, 13, 17, 21, 24, 27],
        30), "max_position_embeddings": 128000, "model_type": "lfm2", "norm_eps": 1e-05, "num_attention_heads": 32, "num_heads": 32,
        "num_hidden_layers": 30, "num_key_value_heads": 8, "rope_theta": 1000000.0, "theta": 1000000.0, "tie_embedding": True,
        "use_pos_enc": True, "vocab_size": 65536},
    "LFM2.5-1.2B-Thinking": {
        "block_auto_adjust_ff_dim": True, "block_dim": 2048, "block_ffn_dim_multiplier": 1.0, "block_mlp_init_scale": 1.0,
        "block_multiple_of": 256, "block_norm_eps": 1e-05, "block_out_init_scale": 1.0, "block_use_swiglu": True,
        "block_use_xavier_init": True, "conv_L_cache": 3, "conv_bias": False, "conv_dim": 2048, "conv_use_xavier_init": True,
        "full_attn_idxs": None, "hidden_size": 2048, "intermediate_size": 12288, "layer_types": at([2, 5, 8, 10, 12, 14], 16),
        "max_position_embeddings": 128000, "model_type": "lfm2", "norm_eps": 1e-05, "num_attention_heads": 32, "num_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "vocab_size": 65536},
    "Qwen1.5-MoE-A2.7B-Chat": {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings":
        32768, "max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
        "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False, "use_sliding_window": False,
        "vocab_size": 151936},
    "Qwen3-Coder-Next": {
        "attention_bias": False, "decoder_sparse_step": 1, "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 5120, "layer_types": ["linear_attention", "linear_attention", "linear_attention",
        "full_attention"] * 12, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_value_head_dim": 128, "max_position_embeddings": 262144, "mlp_only_layers": [],
        "model_type": "qwen3_next", "moe_intermediate_size": 512, "norm_topk_prob": True, "num_attention_heads": 16, "num_experts": 512,
        "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2, "output_router_logits": False,
        "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 5000000, "router_aux_loss_coef":
        0.001, "shared_expert_intermediate_size": 512, "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936},
    "Apertus-8B-Instruct-2509": {
        "attention_bias": False, "hidden_act": "xielu", "hidden_dropout": 0.0, "hidden_size": 4096, "intermediate_size": 21504,
        "max_position_embeddings": 65536, "mlp_bias": False, "model_type": "apertus", "num_attention_heads": 32, "num_hidden_layers":
        32, "num_key_value_heads": 8, "post_norm": False, "qk_norm": True, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8,
        "high_freq_factor": 4, "low_freq_factor": 1, "original_max_position_embeddings": 8192, "rope_type": "llama3", "type": "llama3"},
        "rope_theta": 12000000, "tie_word_embeddings": False, "vocab_size": 131072},
    "ERNIE-4.5-0.3B": {
        "auto_map": {"AutoModelForCausalLM": "modeling_ernie4_5.Ernie4_5_ForCausalLM"}, "hidden_act": "silu", "hidden_size": 1024,
        "intermediate_size": 3072, "max_position_embeddings": 131072, "model_type": "ernie4_5", "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 128, "num_hidden_layers": 18, "rms_norm_eps": 1e-05, "vocab_size": 103424, "rope_theta":
        500000, "use_bias": False, "tie_word_embeddings": True},
    "EXAONE-4.0-1.2B": {
        "model_type": "exaone4", "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 30, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 65536, "rms_norm_eps": 1e-05, "rope_theta": 1000000, "rope_scaling":
        {"factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type":
        "llama3"}, "vocab_size": 102400, "sliding_window": None, "layer_types": ["full_attention"] * 30, "tie_word_embeddings": True},
    "EXAONE-4.0-32B": {
        "model_type": "exaone4", "hidden_size": 5120, "intermediate_size": 27392, "num_hidden_layers": 64, "num_attention_heads": 40,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "sliding_window": 4096,
        "sliding_window_pattern": "LLLG", "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention"] * 16, "rope_theta": 1000000, "rope_scaling": {"factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "vocab_size": 102400, "tie_word_embeddings": False},
    "Seed-OSS-36B-Instruct": {
        "model_type": "seed_oss", "attention_bias": True, "attention_out_bias": False, "head_dim": 128, "hidden_size": 5120,
        "intermediate_size": 27648, "max_position_embeddings": 524288, "mlp_bias": False, "num_attention_heads": 80,
        "num_hidden_layers": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": {"rope_type": "default"},
        "rope_theta": 10000000.0, "tie_word_embeddings": False, "vocab_size": 155136},
    "Nemotron-Mini-4B-Instruct": {
        "hidden_act": "relu2", "hidden_size": 3072, "intermediate_size": 9216, "max_position_embeddings": 4096, "model_type":
        "nemotron", "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8, "norm_eps": 1e-05, "rope_theta":
        10000, "partial_rotary_factor": 0.5, "tie_word_embeddings": False, "vocab_size": 256000, "kv_channels": 128},
    "SmolLM3-3B": {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008, "max_position_embeddings":
        65536, "max_window_layers": 28, "mlp_bias": False, "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": [1,
        1, 1, 0] * 9, "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4, "pretraining_tp": 2, "rms_norm_eps":
        1e-06, "rope_scaling": None, "rope_theta": 5000000.0, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window":
        False, "vocab_size": 128256},
    "OLMoE-1B-7B-0924": {
        "attention_bias": False, "clip_qkv": None, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 1024,
        "max_position_embeddings": 4096, "model_type": "olmoe", "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64,
        "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16, "output_router_logits": False, "rms_norm_eps":
        1e-05, "rope_scaling": None, "rope_theta": 10000.0, "router_aux_loss_coef": 0.01, "tie_word_embeddings": False, "vocab_size":
        50304},
}  # fmt: skip

# without their vision_config
MULTIMODAL = {
    "Gemma 3 27B": {
        "boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144, "mm_tokens_per_image": 256, "model_type":
        "gemma3", "text_config": {"head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text",
        "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "query_pre_attn_scalar": 168, "rope_scaling":
        {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}},
    "LLaVA 1.5 7B": {
        "ignore_index": -100, "image_token_index": 32000, "model_type": "llava", "projector_hidden_act": "gelu", "text_config":
        {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 32064}, "tie_word_embeddings":
        False, "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064},
    "Qwen2-VL 2B": {
        "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655,
        "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 1536, "intermediate_size": 8960, "max_position_embeddings":
        32768, "max_window_layers": 28, "model_type": "qwen2_vl", "num_attention_heads": 12, "num_hidden_layers": 28,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
        "use_sliding_window": False, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 151936},
    "Qwen2.5-VL 7B": {
        "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655,
        "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings":
        128000, "max_window_layers": 28, "model_type": "qwen2_5_vl", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": False,
        "use_sliding_window": False, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 152064},
    "Qwen3-VL 8B": {
        "image_token_id": 151655, "model_type": "qwen3_vl", "text_config": {"attention_bias": False, "head_dim": 128, "hidden_act":
        "silu", "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 262144, "model_type": "qwen3_vl_text",
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_theta": 5000000,
        "vocab_size": 151936}, "tie_word_embeddings": False, "video_token_id": 151656},
    "Qwen3.5 27B": {
        "image_token_id": 248056, "model_type": "qwen3_5", "text_config": {"attention_bias": False, "attn_output_gate": True,
        "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 17408,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 16, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_value_head_dim": 128,
        "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False, "num_attention_heads": 24, "num_hidden_layers": 64, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "vocab_size": 248320, "mamba_ssm_dtype": "float32", "rope_parameters": {"mrope_interleaved": True,
        "mrope_section": [11, 11, 10], "rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25}},
        "tie_word_embeddings": False, "video_token_id": 248057, "vision_end_token_id": 248054, "vision_start_token_id": 248053},
    "Llama 4 Scout": {
        "model_type": "llama4", "text_config": {"attention_bias": False, "attention_chunk_size": 8192, "head_dim": 128, "hidden_act":
        "silu", "hidden_size": 5120, "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "max_position_embeddings": 10485760, "model_type": "llama4_text", "num_attention_heads": 40, "num_experts_per_tok": 1,
        "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 16, "output_router_logits": False, "rms_norm_eps":
        1e-05, "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0, "original_max_position_embeddings":
        8192, "rope_type": "llama3"}, "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "use_qk_norm": True, "vocab_size": 202048}},
    "Llama 4 Maverick": {
        "boi_token_index": 200080, "eoi_token_index": 200081, "image_token_index": 200092, "model_type": "llama4", "text_config":
        {"attention_bias": False, "attention_chunk_size": 8192, "for_llm_compressor": True, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 5120, "interleave_moe_layer_step": 2, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "max_position_embeddings": 1048576, "model_type": "llama4_text", "nope_layer_interval": 4, "num_attention_heads": 40,
        "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 128, "output_router_logits":
        False, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0, "router_aux_loss_coef": 0.001,
        "router_jitter_noise": 0.0, "use_qk_norm": False, "vocab_size": 202048}},
    "Ministral 3 3B": {
        "model_type": "mistral3", "image_token_index": 10, "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
        "spatial_merge_size": 2, "vision_feature_layer": -1, "text_config": {"model_type": "ministral3", "hidden_act": "silu",
        "hidden_size": 3072, "num_hidden_layers": 26, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 9216, "max_position_embeddings": 262144, "vocab_size": 131072, "rms_norm_eps": 1e-05, "sliding_window":
        None, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "yarn", "type": "yarn", "rope_theta": 1000000.0, "factor":
        16.0, "beta_fast": 32.0, "beta_slow": 1.0, "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16384}}},
    "Mistral Small 3.2": {
        "image_token_index": 10, "model_type": "mistral3", "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
        "spatial_merge_size": 2, "text_config": {"head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 32768,
        "max_position_embeddings": 131072, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000000.0, "sliding_window": None, "vocab_size": 131072},
        "vision_feature_layer": -1},
}  # fmt: skip
