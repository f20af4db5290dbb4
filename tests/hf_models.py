"""Tiny random transformers models of every family, and the oracles built on them with PyTorch: every site captured and
steered by forward hooks, and the dense Jacobian between two sites by torch.func.

transformers computes parts of a model in float32 whatever the model's dtype (norms, softmax, rotary angles), so
`model.double()` alone is an oracle of six digits. Inside `exact()` those casts go to float64 instead, except that a
rotary angle is still rounded to float32: that rounding is part of what a checkpoint means. There the oracle has 13."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from functools import lru_cache
from unittest import mock

import numpy as np
import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

FLOAT32, COS, SIN = torch.float32, torch.Tensor.cos, torch.Tensor.sin
GEMMA = ("gemma", "gemma2", "gemma3_text")  # gains are stored as gain - 1

# Odd and unequal sizes, so that no two can be confused; epsilons large enough that a wrong one shows.
SIZES = dict(vocab_size=61, hidden_size=24, intermediate_size=41, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=64, attn_implementation="eager", bos_token_id=1, eos_token_id=2, pad_token_id=0)
GPT2 = dict(vocab_size=61, n_embd=20, n_layer=3, n_head=4, n_positions=64, layer_norm_epsilon=3e-3, n_inner=37,
            attn_implementation="eager", bos_token_id=1, eos_token_id=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
RMS = dict(SIZES, num_key_value_heads=2, rms_norm_eps=3e-3)
LAYER = dict(SIZES, layer_norm_eps=3e-3)
HEAD = dict(RMS, head_dim=10)  # heads wider together than d_model
YARN = dict(rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5)
LLAMA3 = dict(rope_type="llama3", rope_theta=100.0, factor=4.0, low_freq_factor=0.5, high_freq_factor=2.0,
              original_max_position_embeddings=16)


def longrope(pairs, original=16):
    return dict(rope_type="longrope", rope_theta=100.0, short_factor=[1.0 + 0.25 * i for i in range(pairs)],
                long_factor=[1.5 + 0.75 * i for i in range(pairs)], original_max_position_embeddings=original)


# name -> (config class, its arguments). "family" is the plain case, "family-feature" turns one thing.
CASES = {
    "gpt2": ("GPT2Config", GPT2),
    "gpt2-inverse_layer_scale": ("GPT2Config", dict(GPT2, scale_attn_by_inverse_layer_idx=True)),
    "gpt2-no_attn_scale": ("GPT2Config", dict(GPT2, scale_attn_weights=False, activation_function="relu")),
    "gpt2-untied": ("GPT2Config", dict(GPT2, tie_word_embeddings=False, n_inner=None, activation_function="gelu")),
    "llama": ("LlamaConfig", HEAD),
    "llama-biases": ("LlamaConfig", dict(RMS, attention_bias=True, mlp_bias=True)),
    "llama-tied": ("LlamaConfig", dict(RMS, tie_word_embeddings=True, hidden_act="gelu", num_key_value_heads=4)),
    "llama-linear": ("LlamaConfig", dict(HEAD, rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=100.0))),
    "llama-dynamic": ("LlamaConfig", dict(HEAD, rope_parameters=dict(rope_type="dynamic", factor=3.0, rope_theta=100.0))),
    "llama-llama3": ("LlamaConfig", dict(HEAD, rope_parameters=LLAMA3)),
    "llama-yarn": ("LlamaConfig", dict(HEAD, rope_parameters=YARN)),
    "llama-yarn_mscale": ("LlamaConfig", dict(HEAD, rope_parameters=dict(YARN, mscale=1.3, mscale_all_dim=0.7, truncate=False))),
    "llama-yarn_attention_factor": ("LlamaConfig", dict(HEAD, rope_parameters=dict(YARN, attention_factor=0.8))),
    "mistral": ("MistralConfig", dict(HEAD, sliding_window=5)),
    "mistral-no_window": ("MistralConfig", dict(RMS, sliding_window=None)),
    "qwen2": ("Qwen2Config", RMS),
    "qwen2-window": ("Qwen2Config", dict(RMS, use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", dict(HEAD, tie_word_embeddings=True)),
    "qwen3-biases": ("Qwen3Config", dict(HEAD, attention_bias=True)),
    "qwen3-window": ("Qwen3Config", dict(HEAD, use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    "gpt_neox": ("GPTNeoXConfig", dict(LAYER, num_attention_heads=3, rotary_pct=0.5)),
    "gpt_neox-sequential": ("GPTNeoXConfig", dict(LAYER, use_parallel_residual=False, rotary_pct=1.0, hidden_act="gelu_new")),
    "gpt_neox-no_bias": ("GPTNeoXConfig", dict(LAYER, attention_bias=False, tie_word_embeddings=True, hidden_act="relu")),
    "phi": ("PhiConfig", dict(LAYER, num_attention_heads=3, num_key_value_heads=3, partial_rotary_factor=0.5)),
    "phi-qk_norm": ("PhiConfig", dict(LAYER, num_key_value_heads=2, qk_layernorm=True, partial_rotary_factor=0.4)),
    "phi3": ("Phi3Config", dict(RMS)),
    "phi3-window_partial": ("Phi3Config", dict(RMS, sliding_window=5, partial_rotary_factor=0.67, tie_word_embeddings=True)),
    "phi3-longrope_short": ("Phi3Config", dict(RMS, original_max_position_embeddings=64, rope_parameters=longrope(3, 64))),
    "phi3-longrope_long": ("Phi3Config", dict(RMS, original_max_position_embeddings=4, rope_parameters=longrope(3, 4))),
    "gemma": ("GemmaConfig", dict(HEAD, num_key_value_heads=1)),
    "gemma-untied": ("GemmaConfig", dict(HEAD, tie_word_embeddings=False, attention_bias=True)),
    "gemma2": ("Gemma2Config", dict(HEAD, sliding_window=5, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
                                    query_pre_attn_scalar=7)),
    "gemma2-no_softcap": ("Gemma2Config", dict(HEAD, sliding_window=5, attn_logit_softcapping=None, final_logit_softcapping=None,
                                               layer_types=["full_attention", "full_attention", "sliding_attention"])),
    "gemma3_text": ("Gemma3TextConfig", dict(HEAD, sliding_window=5, query_pre_attn_scalar=7, sliding_window_pattern=3,
                                             rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=100.0),
                                                                  sliding_attention=dict(rope_type="default", rope_theta=10.0)))),
    "gemma3_text-softcap": ("Gemma3TextConfig", dict(HEAD, sliding_window=5, final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
                                                     layer_types=["full_attention", "sliding_attention", "full_attention"])),
    "olmo2": ("Olmo2Config", RMS),
    "olmo2-biases": ("Olmo2Config", dict(RMS, attention_bias=True, tie_word_embeddings=True)),
    "smollm3": ("SmolLM3Config", dict(RMS, no_rope_layer_interval=2)),
    "smollm3-window": ("SmolLM3Config", dict(RMS, no_rope_layers=[1, 0, 0], use_sliding_window=True, sliding_window=5,
                                             attention_bias=True, mlp_bias=True, tie_word_embeddings=False)),
    "granite": ("GraniteConfig", dict(RMS, embedding_multiplier=2.5, logits_scaling=3.0, residual_multiplier=0.4, attention_multiplier=0.3)),
    "granite-biases": ("GraniteConfig", dict(RMS, attention_bias=True, mlp_bias=True, residual_multiplier=1.7, tie_word_embeddings=True)),
    "starcoder2": ("Starcoder2Config", dict(SIZES, num_key_value_heads=2, norm_epsilon=3e-3, sliding_window=5)),
    "starcoder2-no_bias": ("Starcoder2Config", dict(SIZES, num_key_value_heads=2, norm_epsilon=3e-3, use_bias=False, tie_word_embeddings=False)),
    "stablelm": ("StableLmConfig", dict(LAYER, num_key_value_heads=2, partial_rotary_factor=0.67)),
    "stablelm-parallel": ("StableLmConfig", dict(LAYER, num_key_value_heads=2, use_parallel_residual=True, use_qkv_bias=True,
                                                 qk_layernorm=True, partial_rotary_factor=0.67)),
    "stablelm-qk_norm": ("StableLmConfig", dict(LAYER, num_key_value_heads=4, qk_layernorm=True, use_qkv_bias=True, tie_word_embeddings=True)),
    "cohere": ("CohereConfig", dict(LAYER, num_key_value_heads=2, logit_scale=0.25)),
    "cohere-qk_norm": ("CohereConfig", dict(LAYER, num_key_value_heads=2, use_qk_norm=True, attention_bias=True, tie_word_embeddings=False)),
}
CASES = {name: case for name, case in CASES.items() if hasattr(transformers, case[0])}
FAMILIES = [name for name in CASES if "-" not in name]


def family_of(hf):
    return hf.config.model_type


def fill(hf, seed):
    """Random numbers for every parameter: nothing is 0 or 1, and every term of a block is of order one."""
    g = torch.Generator().manual_seed(seed)
    offset = 1.0 if family_of(hf) in GEMMA else 0.0
    for name, p in hf.named_parameters():
        z = torch.randn(p.shape, generator=g)
        if "norm" in name or ".ln_" in name:
            gain = name.endswith("weight")
            z = 1.0 - offset + 0.3 * z if gain else 0.3 * z
        elif p.ndim == 2 and "embed" in name or "wte" in name or "wpe" in name:
            z = 0.7 * z
        elif p.ndim == 2:
            fan_in = p.shape[0] if type(hf.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D" else p.shape[1]
            z = 1.3 * z / fan_in**0.5
        else:
            z = 0.4 * z
        p.data.copy_(z)


@lru_cache(maxsize=None)
def make(name, seed=0):
    """A transformers model of CASES in float32, in eval mode. Shared: do not change it."""
    config_class, arguments = CASES[name]
    config = getattr(transformers, config_class)(**arguments)
    hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    fill(hf, seed)
    hf.tie_weights()
    hf.generation_config.update(do_sample=False, eos_token_id=None, bos_token_id=None, pad_token_id=0)
    hf(torch.arange(8)[None])  # rotary tables that depend on the length are made at the first call: here, in float32
    return hf


@lru_cache(maxsize=None)
def make_double(name, seed=0):
    """The same weights in float64, for use inside exact()."""
    return copy.deepcopy(make(name, seed)).double()


@contextlib.contextmanager
def exact():
    """transformers' casts to float32 become casts to float64; rotary angles stay rounded to float32."""
    def of_angle(f):
        return lambda x: f(x.to(FLOAT32).to(torch.float64))

    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64), \
         mock.patch.multiple(torch.Tensor, float=torch.Tensor.double, cos=of_angle(COS), sin=of_angle(SIN)):
        yield


# ---- sites ----


@dataclass(frozen=True)
class Parts:
    """Module names within a block. post1, post2: the norms behind attention and MLP; inner: what takes resid_mid."""

    attn: str = "self_attn"
    post1: str | None = None
    inner: str = "post_attention_layernorm"
    post2: str | None = None
    down: str = "mlp.down_proj"


PARTS = {
    "gpt2": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_neox": Parts(attn="attention", down="mlp.dense_4h_to_h"),
    "phi": Parts(down="mlp.fc2"),
    "gemma2": Parts(post1="post_attention_layernorm", inner="pre_feedforward_layernorm", post2="post_feedforward_layernorm"),
    "gemma3_text": Parts(post1="post_attention_layernorm", inner="pre_feedforward_layernorm", post2="post_feedforward_layernorm"),
    "olmo2": Parts(post1="post_attention_layernorm", inner="mlp", post2="post_feedforward_layernorm"),
    "starcoder2": Parts(down="mlp.c_proj"),
}


def is_parallel(hf):
    c = hf.config
    return family_of(hf) in ("phi", "cohere") or getattr(c, "use_parallel_residual", False)


def site_names(hf):
    every = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")
    return tuple(s for s in every if not (s == "resid_mid" and is_parallel(hf)))


def blocks(hf):
    base = hf.base_model
    return base.h if family_of(hf) == "gpt2" else base.layers


def locate(hf, layer, site):
    """-> (module, whether the site is its input, factor between the module's value and the site's)"""
    parts, block = PARTS.get(family_of(hf), Parts()), blocks(hf)[layer]
    scale = getattr(hf.config, "residual_multiplier", 1.0)
    path, is_input, factor = {
        "resid_pre": ("", True, 1.0),
        "attn_out": (parts.post1 or parts.attn, False, scale),
        "resid_mid": (parts.inner, True, 1.0),
        "down_proj": (parts.down, False, 1.0),
        "mlp_out": (parts.post2 or "mlp", False, scale),
        "resid_post": ("", False, 1.0),
    }[site]
    return block.get_submodule(path), is_input, factor


def watch(hf, layer, site, change):
    """`change` maps the activation (1, T, C) at a site to a new one, or to None to leave it. -> the hook's handle"""
    module, is_input, scale = locate(hf, layer, site)

    def new(x):
        y = change(x * scale)
        return x if y is None else x + (y - x * scale) / scale

    def before(_, args, kwargs):
        if args:
            return (new(args[0]), *args[1:]), kwargs
        return args, dict(kwargs, hidden_states=new(kwargs["hidden_states"]))

    def after(_, args, output):
        return (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)

    return module.register_forward_pre_hook(before, with_kwargs=True) if is_input else module.register_forward_hook(after)


@contextlib.contextmanager
def hooked(hf, steer=(), capture=()):
    """Adds `steer` = [(layer, site, vector, positions or None)], records `capture` = [(layer, site)] in the dict it
    yields. Without a cache: a row's index is its position. With positions None a cache does no harm.
    A vector at resid_mid is added to attn_out, for the residual stream has no module of its own there."""
    record, handles = {}, []

    def adder(vector, positions):
        def change(x):
            here = torch.zeros(x.shape[1], 1, dtype=x.dtype)
            here[slice(None) if positions is None else torch.as_tensor(np.asarray(positions))] = 1
            return x + here * vector
        return change

    def recorder(place):
        def change(x):
            record[place] = x
        return change

    try:
        for layer, site, vector, positions in steer:
            vector = torch.as_tensor(vector).to(hf.dtype)
            handles.append(watch(hf, layer, "attn_out" if site == "resid_mid" else site, adder(vector, positions)))
        handles += [watch(hf, *place, recorder(place)) for place in capture]
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

        rows.append(torch.func.jacrev(value)(torch.zeros(hf.config.hidden_size, dtype=hf.dtype)))
    return torch.cat(rows).numpy()
