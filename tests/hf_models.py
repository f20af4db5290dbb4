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
from functools import cache
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
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
RMS = dict(SIZES, num_key_value_heads=2, rms_norm_eps=3e-3)
LAYER = dict(SIZES, layer_norm_eps=3e-3)
HEAD = dict(RMS, head_dim=10)  # heads wider together than d_model

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
    "mixtral": ("MixtralConfig", dict(RMS, num_local_experts=5, num_experts_per_tok=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(HEAD, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=17)),
    "olmoe": ("OlmoeConfig", dict(RMS, num_experts=7, num_experts_per_tok=4)),
}


def rope(kind, **values):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=100.0, **values))


def longrope(original):
    return dict(original_max_position_embeddings=original,
                **rope("longrope", original_max_position_embeddings=original, short_factor=[1.0, 1.25, 1.5],
                       long_factor=[1.5, 2.25, 3.0]))


def yarn(**values):
    return rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5, **values)


FULL, SLIDING = "full_attention", "sliding_attention"
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
    "cohere-qk_norm": dict(use_qk_norm=True, attention_bias=True, **UNTIED),
}
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
    around = 0.0 if family_of(hf) in GEMMA else 1.0  # a norm's weight
    for name, p in hf.named_parameters():
        z = torch.randn(p.shape, generator=g)
        if is_gain_or_bias_of_a_norm(name):
            z = 0.3 * z + around if name.endswith("weight") else 0.1 * z
        elif p.ndim == 1:
            z = 0.15 * z
        elif any(word in name for word in ("embed", "wte", "wpe")):
            z = 0.3 * z if around else 0.06 * z  # gemma multiplies by sqrt(d_model)
        else:
            transposed = type(hf.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"
            z = 1.3 * z / p.shape[0 if transposed else -1] ** 0.5
            if name.endswith("mlp.gate.weight"):
                z = 3 * z  # a router that decides
        p.data.copy_(z)


def make(name, seed=0, stored="float32"):
    """A transformers model of CASES in eval mode, its parameters of the given dtype. Shared: do not change it."""
    return _make(name, seed, stored)


@cache
def _make(name, seed, stored):
    auto = transformers.AutoModelForCausalLM
    config = config_of(name)
    if hasattr(config, "num_experts"):
        config._experts_implementation = "eager"
    hf = auto.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    fill(hf, seed)
    hf.tie_weights()
    hf.generation_config.update(do_sample=False, eos_token_id=None, bos_token_id=None, pad_token_id=0)
    hf(torch.arange(8)[None])  # rotary tables that depend on the length are made at the first call: here, in float32
    for p in hf.parameters():
        p.data = p.data.to(getattr(torch, stored))
    return hf


@cache
def _double(name, seed, stored):
    return copy.deepcopy(_make(name, seed, stored)).double()


@contextlib.contextmanager
def exact(name, seed=0, stored="float32"):
    """Yields the model of `make` in float64. Inside, transformers' casts to float32 are casts to float64, but rotary
    angles are still rounded to float32."""
    def of_angle(f):
        return lambda x: f(x.to(FLOAT32).to(torch.float64))

    hf = _double(name, seed, stored)  # made before the casts change: its rotary frequencies are float32 numbers
    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64), \
         mock.patch.multiple(torch.Tensor, float=torch.Tensor.double, cos=of_angle(COS), sin=of_angle(SIN)):
        yield hf


# ---- sites ----


@dataclass(frozen=True)
class Parts:
    """Module names within a block. post1, post2: the norms behind attention and MLP; inner: what takes resid_mid."""

    attn: str = "self_attn"
    post1: str | None = None
    inner: str = "post_attention_layernorm"
    post2: str | None = None
    down: str = "mlp.down_proj"


POST_NORMS = dict(post1="post_attention_layernorm", post2="post_feedforward_layernorm")
PARTS = {
    "gpt2": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_neox": Parts(attn="attention", down="mlp.dense_4h_to_h"),
    "phi": Parts(down="mlp.fc2"),
    "gemma2": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "gemma3_text": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "olmo2": Parts(inner="mlp", **POST_NORMS),
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
    down = "mlp.experts" if hasattr(block.mlp, "experts") else parts.down  # a mixture's sum
    path, is_input, factor = {
        "resid_pre": ("", True, 1.0),
        "attn_out": (parts.post1 or parts.attn, False, scale),
        "resid_mid": (parts.inner, True, 1.0),
        "down_proj": (down, False, 1.0),
        "mlp_out": (parts.post2 or "mlp", False, scale),
        "resid_post": ("", False, 1.0),
    }[site]
    return block.get_submodule(path), is_input, factor


def watch(hf, layer, site, change):
    """`change` maps the activation (1, T, C) at a site to a new one, or to None to leave it. -> the hook's handle"""
    module, is_input, scale = locate(hf, layer, site)

    def new(x):
        rows = x.reshape(-1, *x.shape[-2:])  # experts are given (T, C)
        y = change(rows * scale)
        return x if y is None else (rows + (y - rows * scale) / scale).reshape(x.shape)

    def before(_, args, kwargs):
        return (new(args[0]), *args[1:]), kwargs

    def after(_, args, output):
        return (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)

    if is_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


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
            record[place] = x
        return change

    try:
        for layer, site, vector, *how in steer:
            vector = torch.as_tensor(vector).to(hf.dtype)
            handles.append(watch(hf, layer, "attn_out" if site == "resid_mid" else site, changer(layer, site, vector, *how)))
        handles += [watch(hf, layer, "resid_pre", enter(layer)) for layer in {layer for layer, site, *_ in steer if site == "resid_mid"}]
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
INNER = {
    "gpt2": (("attn.c_attn",), "mlp.c_fc", None),
    "gpt_neox": (("attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "phi": (SPLIT_QKV, "mlp.fc1", None),
    "phi3": (("self_attn.qkv_proj",), "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "starcoder2": (SPLIT_QKV, "mlp.c_fc", None),
}


def inside(hf, tokens, steer=()):
    """What is computed inside attention and MLP, {(layer, name): array}, by powersteer's short names: the outputs of the
    projections, the arguments and results of the attention function, the input of the down-projection."""
    family, found, handles = family_of(hf), {}, []
    qkv, pre, linear = INNER.get(family, (SPLIT_QKV, "mlp.gate_proj", "mlp.up_proj"))
    module = sys.modules[type(hf).__module__]
    attention = module.eager_attention_forward
    shape = {}  # (query heads, key heads, width) of each layer

    def attend(block, query, key, value, *args, **kwargs):
        z, pattern = attention(block, query, key, value, *args, **kwargs)
        layer = block.layer_idx
        shape[layer] = query.shape[1], key.shape[1], query.shape[-1]
        rows = {"rot_q": query, "rot_k": key, "v": value}
        found.update({(layer, name): x[0].transpose(0, 1) for name, x in rows.items()})
        found[layer, "pattern"], found[layer, "z"] = pattern[0], z[0]
        return z, pattern

    def output(place):
        return lambda _, __, x: found.__setitem__(place, x.reshape(-1, x.shape[-1]))

    def argument(place):
        return lambda _, args: found.__setitem__(place, args[0].reshape(-1, args[0].shape[-1]))

    for layer, block in enumerate(blocks(hf)):
        for i, path in enumerate(qkv):
            handles.append(block.get_submodule(path).register_forward_hook(output((layer, i))))
        if not hasattr(block.mlp, "experts"):
            handles.append(block.get_submodule(pre).register_forward_hook(output((layer, "pre"))))
            if linear not in (None, pre):
                handles.append(block.get_submodule(linear).register_forward_hook(output((layer, "pre_linear"))))
            down = PARTS.get(family, Parts()).down
            handles.append(block.get_submodule(down).register_forward_pre_hook(argument((layer, "post"))))
    try:
        with mock.patch.object(module, "eager_attention_forward", attend):
            run(hf, tokens, steer)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (heads, kv, width) in shape.items():
        made = [found.pop((layer, i)) for i in range(len(qkv))]
        if family == "gpt_neox":  # each head's q, k and v beside each other
            q, k, _ = made[0].reshape(-1, heads, 3 * width).chunk(3, -1)
        else:
            q, k, _ = made if len(made) == 3 else made[0].split([heads * width, kv * width, kv * width], -1)
        found[layer, "q"], found[layer, "k"] = q.reshape(-1, heads, width), k.reshape(-1, kv, width)
        if pre == linear:
            found[layer, "pre"], found[layer, "pre_linear"] = found[layer, "pre"].chunk(2, -1)
    return {place: x.numpy() for place, x in found.items()}
