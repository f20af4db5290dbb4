"""Random small models over the whole block table, as the core takes them: (spec, layers, top). Every weight differs from
its neutral value, so that one that is dropped shows."""

from __future__ import annotations

import numpy as np
import reference
from hypothesis import strategies as st


def random_model(seed=0, *, real=np.float64, stored=None, n_layers=2, d_model=12, n_vocab=23, n_heads=4, n_kv_heads=2,
                 head_dim=6, d_ff=20, n_ctx=64, norm="rms", qk_norm="none", parallel=False, gated=True, act="silu",
                 rope_style="half", rope_dim=4, softcap=0.0, window=0, norms=("norm1", "norm2"), biases=True,
                 scale=1.0, learned_positions=False, ropes=2, head_bias=False, n_experts=0, top_k=2, norm_topk=True, dense_layers=(),
                 d_shared=0, shared_gate=False, route="softmax", groups=(1, 1), scale_input=False, sinks=False,
                 mixers=(), gated_heads=False, conv_taps=3, state=(1, 2, 3, 4), latent=None, qk_norm_last=False, clip_qkv=0.0,
                 temper=None, key_bias=False, embed_norm=False, gains=True, chunk=0, unturned_alone=False, bare_layers=(), steps=None,
                 tiled=False, sizes=(), sharing=0, keys_are_values=False, v_norm=False, d_input=0, out_scale=1.0):
    """stored: dtype of the matrices (default real); "bfloat16" for bits in uint16. norms: which of norm1, post1, norm2,
    post2 are there; gains: whether they have weights. scale: resid_scale; embed_scale and logit_scale follow from
    it. groups: of experts, and how many of them a token chooses from, by a correction if there are more than one. mixers:
    those of the layers, over and over, "attention" unless given; state: heads of keys, of values, and their dimensions in
    a delta rule or a state space; tiled: which of them belong together; steps: limits of the latter's. latent: q_rank,
    kv_rank and v_dim of latent attention. chunk: of every other layer. unturned_alone: layers without rotation alone are
    tempered, and the others alone have a qk-norm. bare_layers: those without an MLP, if they have a mixer. sizes: of layers,
    over and over, where they differ; sharing: how many of the last layers see keys of an earlier one that fits; d_input:
    numbers of their own inputs."""
    rng = np.random.default_rng(seed)

    def matrix(n_out, n_in):
        w = rng.normal(size=(n_out, n_in)) * 1.3 / np.sqrt(n_in)
        if stored == "bfloat16":
            return (w.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return w.astype(stored or real)

    def vector(n, around=0.0):
        return (around + 0.3 * rng.normal(size=n)).astype(real)

    def freqs(t=0):
        pairs = max(rope_dim // 2 - t, 1) if sizes else rope_dim // 2
        return np.float32(rng.uniform(0.01, 1, pairs)).astype(np.float64)

    def norm_of(n):
        if not gains:
            return None, None
        return vector(n, 1.0), vector(n) if norm == "layer" else None

    W, WKV = n_heads * head_dim, n_kv_heads * head_dim
    shapes = {"q": (W, d_model), "k": (WKV, d_model), "v": (WKV, d_model), "o": (d_model, W), "gate": (d_ff, d_model),
              "up": (d_ff, d_model), "down": (d_model, d_ff)}
    if not gated:
        del shapes["gate"]

    def expert(width):
        sizes = {"gate": (width, d_model), "up": (width, d_model), "down": (d_model, width)}
        matrices = {name: matrix(*sizes[name]) for name in sizes if name in shapes}
        return matrices | ({f"{name}_bias": vector(sizes[name][0]) for name in matrices} if biases else {})

    if latent:
        clip_qkv, temper, key_bias, sizes, sharing, v_norm, keys_are_values = 0.0, None, False, (), 0, False, False  # of other attention
        q_rank, kv_rank, v_dim = latent
        n_kv_heads, rope_dim, qk_norm, mixers, gated_heads = 1, min(rope_dim, (head_dim - 1) // 2 * 2), "none", (), False
        D, low = head_dim - rope_dim, q_rank or d_model
        shapes |= {"q": (W, low), "k": (kv_rank + rope_dim, d_model), "o": (d_model, n_heads * v_dim),
                   "kv_b": (n_heads * (D + v_dim), kv_rank)} | ({"q_a": (q_rank, d_model)} if q_rank else {})
        del shapes["v"]
    NK, NV, HK, HV = state

    def mixer_of(kind):
        """(shapes of the weights, what else is there) of a mixer"""
        if kind == "attention":
            return {"z": (W, d_model)} if gated_heads else {}, {}
        if kind == "none":
            return {}, {"mixer": kind}
        recurrent = kind in ("delta", "mamba")
        width = (NK * HK, NK * HK, NV * HV, NV * HV) if recurrent else (d_model,) * 4
        own = {name: (n, d_model) for name, n in zip("qkv", width, strict=False)} | {"o": (d_model, width[3])}
        channels = sum(width[:3]) if recurrent else d_model
        more = {"mixer": kind, "conv": rng.normal(size=(conv_taps, channels)).astype(real) / conv_taps**0.5}
        if biases:
            more["conv_bias"] = vector(channels)
        if recurrent:
            own |= {"z": (NV * HV, d_model), "a": (NV, d_model)} | ({"b": (NV, d_model)} if kind == "delta" else {})
            more |= {"skip": vector(NV, 1.0)} if kind == "mamba" else {}
            more |= {"decay_rate": np.exp(vector(NV, -1)), "decay_bias": vector(NV), "o_norm": (vector(NV * HV, 1.0), None)}
        return own, more

    layers = []
    for index in range(n_layers):
        kind = mixers[index % len(mixers)] if mixers else "attention"
        own, more = mixer_of(kind)
        changed = dict(sizes[index % len(sizes)]) if sizes and kind == "attention" else {}
        if changed:
            H, KV, F = (changed.get(name, n) for name, n in (("head_dim", head_dim), ("n_kv_heads", n_kv_heads), ("d_ff", d_ff)))
            own = {"q": (n_heads * H, d_model), "k": (KV * H, d_model), "v": (KV * H, d_model), "o": (d_model, n_heads * H),
                   "gate": (F, d_model), "up": (F, d_model), "down": (d_model, F)} | ({"z": (n_heads * H, d_model)} if gated_heads else {})
            own = {name: shape for name, shape in own.items() if name != "gate" or gated}
            more = more | changed
        layer = {"window": window if index % 2 == 0 else 0, "rope": index % (ropes + 1) - 1, "attn_scale": 0.4 + 0.1 * index} | more
        if act == "silu_clamped":
            layer["act_constants"] = (1.7, 0.8)
        for name, shape in (shapes | own).items():
            layer[name] = matrix(*shape)
            if biases and name not in ("b", "kv_b"):
                layer[f"{name}_bias"] = vector(shape[0])
        if n_experts and index not in dense_layers:
            names = ("gate", "up", "down") if gated else ("up", "down")
            layer = {key: value for key, value in layer.items() if key.removesuffix("_bias") not in names}
            layer["router"] = matrix(n_experts, d_model) * (1 if stored == "bfloat16" else 3)
            layer["experts"] = [expert(d_ff) for _ in range(n_experts)]
            if biases:
                layer["router_bias"] = vector(n_experts)
            if groups[0] > 1:
                layer["correction"] = vector(n_experts)
            if d_shared:
                layer["shared"] = expert(d_shared)
            if shared_gate and d_shared:
                layer["shared_gate"] = matrix(1, d_model)
        if sinks:
            layer["sinks"] = vector(n_heads, 0.5)
        if act == "xielu" or (act == "gelu_tanh" and index):
            layer["act_constants"] = (0.7, 0.6, 0.5, -0.1) if act == "xielu" else (0.75,)
        if chunk and index % 2 == 0:
            layer["chunk"] = chunk
        if unturned_alone and layer["rope"] >= 0:
            layer["tempered"] = False
        for name in norms:
            layer[name] = norm_of(d_model)
        if latent:
            layer["kv_norm"] = vector(kv_rank, 1.0), None
            layer |= {"q_a_norm": (vector(q_rank, 1.0), None)} if q_rank else {}
            layer["rope"] = layer["rope"] if rope_dim else -1
        if kind == "attention" and not latent:
            if qk_norm != "none" and not (unturned_alone and layer["rope"] < 0):
                layer["q_norm"], layer["k_norm"] = norm_of(len(layer["q"])), norm_of(len(layer["k"]))
            if v_norm:
                layer["v_norm"] = vector(len(layer["k"]), 1.0), None
            fitting = [j for j, one in enumerate(layers) if "k" in one and one.get("mixer") is None and one["k"].shape == layer["k"].shape
                       and one.get("head_dim") == layer.get("head_dim")]
            if index >= n_layers - sharing and fitting:
                layer = {key: value for key, value in layer.items() if key not in ("k", "v", "k_bias", "v_bias", "k_norm", "v_norm")}
                layer["keys_of"] = fitting[-1]
            elif keys_are_values:
                layer = {key: value for key, value in layer.items() if key not in ("v", "v_bias")}
        if d_input:
            layer |= {"in_embed": matrix(n_vocab, d_input), "in_proj": matrix(d_input, d_model), "in_gate": matrix(d_input, d_model),
                      "in_out": matrix(d_model, d_input), "in_norm": (vector(d_input, 1.0), None)}
            if index % 2 == 0:
                layer["post_in"] = norm_of(d_model)
        if out_scale != 1:
            layer["out_scale"] = out_scale + 0.1 * index
        absent = {"q", "k", "v", "o", "norm1", "post1", "sinks"} if kind == "none" else set()
        if index in bare_layers and kind != "none" and not parallel:
            absent = {"gate", "up", "down", "norm2", "post2", "router", "experts", "correction", "shared", "shared_gate"}
        layers.append({key: value for key, value in layer.items() if key.removesuffix("_bias") not in absent})
    spec = {"n_layers": n_layers, "d_model": d_model, "n_vocab": n_vocab, "n_heads": n_heads, "n_kv_heads": n_kv_heads,
            "head_dim": head_dim, "d_ff": d_ff, "n_ctx": n_ctx, "norm": norm, "norm_eps": 1e-5, "qk_norm": qk_norm,
            "parallel": parallel, "gated": gated, "act": act, "rope_style": rope_style, "rope_dim": rope_dim,
            "attn_softcap": softcap, "logit_softcap": softcap, "embed_scale": 1 + 0.5 * scale, "resid_scale": scale,
            "logit_scale": 1 - 0.2 * scale, "qk_norm_last": qk_norm_last, "clip_qkv": clip_qkv,
            "rope": [(freqs(t), 1 + 0.1 * t, freqs(t), 4) if t else (freqs(), 1.0) for t in range(ropes)]}
    if d_input:
        spec |= {"d_input": d_input, "input_scale": 0.7, "input_eps": 0.3}
    if temper:
        spec["temper"] = temper
    if n_experts:
        spec |= {"n_experts": n_experts, "top_k": top_k, "d_expert": d_ff, "norm_topk": norm_topk, "d_shared": d_shared,
                 "route": route, "route_scale": 1.0 if route == "softmax" and norm_topk else 1.7, "route_jitter": 0.4,
                 "n_groups": groups[0], "top_groups": groups[1], "scale_input": scale_input}
    if steps and "mamba" in mixers:
        spec |= {"step_min": steps[0], "step_max": steps[1]}
    if set(mixers) & {"conv", "delta", "mamba"}:
        spec |= {"conv_taps": conv_taps, "state_k_heads": NK, "state_v_heads": NV, "state_k_dim": HK, "state_v_dim": HV,
                 "state_tiled": tiled and "mamba" not in mixers}
    if latent:
        spec |= {"q_rank": q_rank, "kv_rank": kv_rank, "v_dim": v_dim, "latent_eps": 1e-3}
    top = {"embed": matrix(n_vocab, d_model) if stored == "bfloat16" else matrix(n_vocab, d_model) * 2,
           "lm_head": matrix(n_vocab, d_model), "final_norm": norm_of(d_model)}
    if embed_norm:
        top["embed_norm"] = norm_of(d_model)
    if key_bias:
        top["key_bias"] = (rng.normal(size=(n_heads, 1)) * np.arange(n_ctx)).reshape(-1).astype(real)
    if learned_positions:
        top["pos_embed"] = matrix(n_ctx, d_model)
    if head_bias:
        top["lm_head_bias"] = vector(n_vocab)
    return reference.Twin(spec, layers, top)


@st.composite
def tables(draw):
    """Keyword arguments of random_model: any mix of what the block table can say."""
    n_kv_heads = draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([2, 5, 8]))
    parallel, n_experts, gated = draw(st.booleans()), draw(st.sampled_from([0, 0, 2, 6])), draw(st.booleans())
    acts = ["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "xielu", *(["silu_clamped"] if gated else [])]
    groups = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 2)] if n_experts == 6 else [(1, 1)]))
    mixers = [(), (), (), ("conv",), ("conv", "attention"), ("delta",), ("delta", "delta", "attention"), ("mamba",),
              ("attention", "mamba"), *([] if parallel else [("none",), ("mamba", "none", "attention")])]  # fmt: skip
    norms = [("norm1", "norm2"), ("post1", "post2"), ("norm1", "post1", "norm2", "post2"), ("norm1", "post1", "norm2")]
    if parallel:
        norms += [("norm1",), ("norm1", "post2")]  # shared by both branches; a sequential MLP without a norm blows up
    return {
        "n_layers": draw(st.integers(1, 3)), "d_model": draw(st.integers(3, 16)), "n_vocab": draw(st.integers(2, 40)),
        "n_heads": n_kv_heads * draw(st.integers(1, 3)), "n_kv_heads": n_kv_heads, "head_dim": head_dim,
        "d_ff": draw(st.integers(1, 40)), "norm": draw(st.sampled_from(["rms", "layer"])),
        "qk_norm": draw(st.sampled_from(["none", "head", "full"])), "parallel": parallel,
        "gated": gated, "act": draw(st.sampled_from(acts)),
        "rope_style": draw(st.sampled_from(["half", "interleaved"])),
        "rope_dim": draw(st.integers(1, head_dim // 2)) * 2, "softcap": draw(st.sampled_from([0.0, 1.5])),
        "window": draw(st.sampled_from([0, 1, 3])), "biases": draw(st.booleans()), "scale": draw(st.sampled_from([1.0, 0.6])),
        "norms": draw(st.sampled_from(norms)),
        "learned_positions": draw(st.booleans()), "ropes": draw(st.integers(1, 2)), "head_bias": draw(st.booleans()),
        "n_experts": n_experts, "top_k": draw(st.integers(1, max(n_experts // groups[0] * groups[1], 1))),
        "norm_topk": draw(st.booleans()), "d_shared": draw(st.sampled_from([0, 7])), "shared_gate": draw(st.booleans()),
        "route": draw(st.sampled_from(["softmax", "sigmoid", "sparsemixer"])), "groups": groups,
        "scale_input": draw(st.booleans()), "sinks": draw(st.booleans()),
        "dense_layers": draw(st.sampled_from([(), (0,)])),
        "mixers": draw(st.sampled_from(mixers)), "bare_layers": draw(st.sampled_from([(), (), (0,), (1, 2)])),
        "steps": draw(st.sampled_from([None, (0.4, 0.9)])),
        "gated_heads": draw(st.booleans()), "conv_taps": draw(st.integers(1, 4)),
        "state": draw(st.sampled_from([(1, 1, 1, 1), (1, 2, 3, 4), (2, 2, 5, 3), (2, 6, 4, 9), (1, 17, 2, 1)])),
        "tiled": draw(st.booleans()),
        "latent": draw(st.sampled_from([None, None, None, (0, 5, 3), (4, 7, 9)])),
        "qk_norm_last": draw(st.booleans()), "clip_qkv": draw(st.sampled_from([0.0, 0.0, 0.8])),
        "temper": draw(st.sampled_from([None, None, (0.3, 2, 0), (0.3, 3, 1)])), "key_bias": draw(st.booleans()),
        "embed_norm": draw(st.booleans()), "gains": draw(st.booleans()),
        "chunk": draw(st.sampled_from([0, 0, 1, 4])), "unturned_alone": draw(st.booleans()),
        "sizes": draw(st.sampled_from([(), (), ({}, {"head_dim": head_dim + 2, "n_kv_heads": 1, "d_ff": 9}), ({"d_ff": 3},)])),
        "sharing": draw(st.sampled_from([0, 0, 1, 2])), "keys_are_values": draw(st.booleans()), "v_norm": draw(st.booleans()),
        "d_input": draw(st.sampled_from([0, 0, 4])), "out_scale": draw(st.sampled_from([1.0, 0.8])),
        "seed": draw(st.integers(0, 2**31)),
    }
