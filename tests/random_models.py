"""Random small models over the whole block table, as the core takes them: (spec, layers, top). Every weight differs from
its neutral value, so that one that is dropped shows."""

from __future__ import annotations

import numpy as np
import reference
from hypothesis import strategies as st


def random_model(seed=0, *, real=np.float64, stored=None, n_layers=2, d_model=12, n_vocab=23, n_heads=4, n_kv_heads=2,
                 head_dim=6, d_ff=20, n_ctx=64, norm="rms", qk_norm="none", parallel=False, gated=True, act="silu",
                 rope_style="half", rope_dim=4, softcap=0.0, window=0, norms=("norm1", "norm2"), biases=True,
                 scale=1.0, learned_positions=False, ropes=2, head_bias=False, n_experts=0, top_k=2, norm_topk=True, dense_layers=()):
    """stored: dtype of the matrices (default real); "bfloat16" for bits in uint16. norms: which of norm1, post1, norm2,
    post2 are there. scale: resid_scale; embed_scale and logit_scale follow from it."""
    rng = np.random.default_rng(seed)

    def matrix(n_out, n_in):
        w = rng.normal(size=(n_out, n_in)) * 1.3 / np.sqrt(n_in)
        if stored == "bfloat16":
            return (w.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return w.astype(stored or real)

    def vector(n, around=0.0):
        return (around + 0.3 * rng.normal(size=n)).astype(real)

    def freqs():
        return np.float32(rng.uniform(0.01, 1, rope_dim // 2)).astype(np.float64)

    def norm_of(n):
        return vector(n, 1.0), vector(n) if norm == "layer" else None

    W, WKV = n_heads * head_dim, n_kv_heads * head_dim
    shapes = {"q": (W, d_model), "k": (WKV, d_model), "v": (WKV, d_model), "o": (d_model, W), "gate": (d_ff, d_model),
              "up": (d_ff, d_model), "down": (d_model, d_ff)}
    if not gated:
        del shapes["gate"]
    layers = []
    for index in range(n_layers):
        layer = {"window": window if index % 2 == 0 else 0, "rope": index % (ropes + 1) - 1, "attn_scale": 0.4 + 0.1 * index}
        for name, shape in shapes.items():
            layer[name] = matrix(*shape)
            if biases:
                layer[f"{name}_bias"] = vector(shape[0])
        if n_experts and index not in dense_layers:
            names = ("gate", "up", "down") if gated else ("up", "down")
            layer = {key: value for key, value in layer.items() if key.removesuffix("_bias") not in names}
            layer["router"] = matrix(n_experts, d_model) * (1 if stored == "bfloat16" else 3)
            layer["experts"] = [{name: matrix(*shapes[name]) for name in names} for _ in range(n_experts)]
        for name in norms:
            layer[name] = norm_of(d_model)
        if qk_norm != "none":
            layer["q_norm"], layer["k_norm"] = norm_of(W), norm_of(WKV)
        layers.append(layer)
    spec = {"n_layers": n_layers, "d_model": d_model, "n_vocab": n_vocab, "n_heads": n_heads, "n_kv_heads": n_kv_heads,
            "head_dim": head_dim, "d_ff": d_ff, "n_ctx": n_ctx, "norm": norm, "norm_eps": 1e-5, "qk_norm": qk_norm,
            "parallel": parallel, "gated": gated, "act": act, "rope_style": rope_style, "rope_dim": rope_dim,
            "attn_softcap": softcap, "logit_softcap": softcap, "embed_scale": 1 + 0.5 * scale, "resid_scale": scale,
            "logit_scale": 1 - 0.2 * scale,
            "rope": [(freqs(), 1 + 0.1 * t, freqs(), 4) if t else (freqs(), 1.0) for t in range(ropes)]}
    if n_experts:
        spec |= {"n_experts": n_experts, "top_k": top_k, "d_expert": d_ff, "norm_topk": norm_topk}
    top = {"embed": matrix(n_vocab, d_model) if stored == "bfloat16" else matrix(n_vocab, d_model) * 2,
           "lm_head": matrix(n_vocab, d_model), "final_norm": norm_of(d_model)}
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
    parallel, n_experts = draw(st.booleans()), draw(st.sampled_from([0, 0, 2, 5]))
    norms = [("norm1", "norm2"), ("post1", "post2"), ("norm1", "post1", "norm2", "post2"), ("norm1", "post1", "norm2")]
    if parallel:
        norms += [("norm1",), ("norm1", "post2")]  # shared by both branches; a sequential MLP without a norm blows up
    return {
        "n_layers": draw(st.integers(1, 3)), "d_model": draw(st.integers(3, 16)), "n_vocab": draw(st.integers(2, 40)),
        "n_heads": n_kv_heads * draw(st.integers(1, 3)), "n_kv_heads": n_kv_heads, "head_dim": head_dim,
        "d_ff": draw(st.integers(1, 40)), "norm": draw(st.sampled_from(["rms", "layer"])),
        "qk_norm": draw(st.sampled_from(["none", "head", "full"])), "parallel": parallel,
        "gated": draw(st.booleans()), "act": draw(st.sampled_from(["silu", "gelu", "gelu_tanh", "relu", "relu2"])),
        "rope_style": draw(st.sampled_from(["half", "interleaved"])),
        "rope_dim": draw(st.integers(1, head_dim // 2)) * 2, "softcap": draw(st.sampled_from([0.0, 1.5])),
        "window": draw(st.sampled_from([0, 1, 3])), "biases": draw(st.booleans()), "scale": draw(st.sampled_from([1.0, 0.6])),
        "norms": draw(st.sampled_from(norms)),
        "learned_positions": draw(st.booleans()), "ropes": draw(st.integers(1, 2)), "head_bias": draw(st.booleans()),
        "n_experts": n_experts, "top_k": draw(st.integers(1, max(n_experts, 1))), "norm_topk": draw(st.booleans()),
        "dense_layers": draw(st.sampled_from([(), (0,)])),
        "seed": draw(st.integers(0, 2**31)),
    }
