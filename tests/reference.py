"""The transformer block of csrc/ops/spec.h once more, in float64 NumPy, written for reading: no cache, no packing, no
speed. It takes what `powersteer.spec.Spec.to_core` gives the C core, `(spec, layers, top)`, and shares no code with it.

Every function works on arrays with any leading dimensions and on complex numbers, and uses only analytic operations
(x * x, never |x|). That gives exact derivatives for nothing: with v = i h e_j added at the source,
F(v) = F(0) + i h J e_j + O(h^2), so J = Im F / h without any cancellation, for h as small as we like. The columns of
a Jacobian are a leading dimension of one forward pass.

Alphabet: T tokens, C d_model, NH query heads, NKV key/value heads, HS head_dim, G = NH / NKV, F d_ff."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erf

SITES = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")
STEP = 1e-30  # of the complex-step derivative: the error is O(STEP^2)


@dataclass(frozen=True)
class Twin:
    """spec: the scalars of csrc/ops/spec.h; layers: one dict of tensors a layer; top: embedding, head, final norm."""

    spec: dict
    layers: list
    top: dict


@dataclass(frozen=True)
class Steer:
    """`vector` (..., C) is added to the activation at (layer, site); positions None: at every one."""

    layer: int
    site: str
    vector: np.ndarray
    positions: object = None


def matrix(w):
    """A stored weight as float64 (out, in). uint16 holds bfloat16 bits, the upper half of a float32's;
    (groups, rows, in) are the rows of an interleaved matrix."""
    w = np.asarray(w)
    if w.dtype == np.uint16:
        w = (w.astype(np.uint32) << 16).view(np.float32)
    return w.astype(np.float64).reshape(-1, w.shape[-1])


def linear(x, w, bias=None):
    """x (..., in) -> (..., out)"""
    y = x @ matrix(w).T
    return y if bias is None else y + bias


def norm(kind, eps, x, weights):
    """x (..., n): x / sqrt(mean x^2 + eps), or (x - mean) / sqrt(var + eps); times gain, plus bias. None: identity."""
    if weights is None:
        return x
    gain, bias = weights
    if kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    if gain is not None:
        y = y * gain
    return y if bias is None else y + bias


def heads(x, n):
    """(..., T, n*HS) -> (..., n, T, HS)"""
    return np.swapaxes(x.reshape(*x.shape[:-1], n, -1), -2, -3)


def head_norm(m, x, weights):
    """qk-norm of x (..., n, T, HS): "head" over each head alone, "full" over all n*HS numbers of a position."""
    n, T, HS = x.shape[-3:]
    kind, eps, (gain, bias) = m["norm"], m["norm_eps"], weights
    if m["qk_norm"] == "full":
        rows = np.swapaxes(x, -2, -3).reshape(*x.shape[:-3], T, n * HS)
        return heads(norm(kind, eps, rows, weights), n)
    gain = 1.0 if gain is None else np.reshape(gain, (n, 1, HS))
    bias = 0.0 if bias is None else np.reshape(bias, (n, 1, HS))
    return norm(kind, eps, x, (None, None)) * gain + bias


def rotate(m, table, x):
    """Rotary embedding of x (..., n, T, HS): pair i of a head turns by pos * inv_freq_i. The angle is rounded to
    float32, as transformers computes it; cosine and sine of it are float64."""
    inv_freq, scale, *switch = table
    if switch and x.shape[-2] > switch[1]:  # frequencies of a long sequence (longrope)
        inv_freq = switch[0]
    pos = np.arange(x.shape[-2], dtype=np.float32)
    angle = (pos[:, None] * np.asarray(inv_freq, dtype=np.float32)).astype(np.float64)  # (T, rope_dim/2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    dim = 2 * len(inv_freq)
    half = m["rope_style"] == "half"
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if half else (slice(0, dim, 2), slice(1, dim, 2))
    a, b = x[..., first], x[..., second]
    y = x.copy()
    y[..., first], y[..., second] = a * cos - b * sin, b * cos + a * sin
    return y


def clipped(c, x):
    """x limited to [-c, c], with derivative 0 beyond; c 0: as it is"""
    return np.where(np.abs(x.real) > c, np.clip(x.real, -c, c), x) if c else x


def softcap(c, x):
    return c * np.tanh(x / c) if c else x


def convolve(m, layer, x, first=0):
    """x (..., T, n), the channels from `first` on: each row becomes the sum of its own and the rows before it, weighted."""
    taps = np.asarray(layer["conv"], dtype=float)[:, first : first + x.shape[-1]]
    y = np.zeros_like(x)
    for j, w in enumerate(taps):
        back = len(taps) - 1 - j
        y[..., back:, :] = y[..., back:, :] + w * x[..., : max(x.shape[-2] - back, 0), :]
    return y if layer.get("conv_bias") is None else y + layer["conv_bias"][first : first + x.shape[-1]]


def short_conv(m, layer, x):
    """x (..., T, C) -> (..., T, C): q * conv(k * v), then the output projection."""
    q, k, v = (linear(x, layer[name], layer.get(f"{name}_bias")) for name in "qkv")
    return linear(q * convolve(m, layer, k * v), layer["o"], layer.get("o_bias"))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def delta_rule(m, layer, x):
    """x (..., T, C) -> (..., T, C): a state (HK, HV) a value head that decays and is corrected by each row, token by token."""
    NK, NV, HK, HV = (m[f"state_{name}"] for name in ("k_heads", "v_heads", "k_dim", "v_dim"))
    parts, first = [], 0
    for name in "qkv":
        c = convolve(m, layer, linear(x, layer[name], layer.get(f"{name}_bias")), first)
        parts.append(c * sigmoid(c))
        first += c.shape[-1]
    q, k, v = (heads(part, n) for part, n in zip(parts, (NK, NK, NV), strict=True))
    of_key = np.arange(NV) % NK if m.get("state_tiled") else np.arange(NV) // (NV // NK)
    q, k = ((y / np.sqrt((y * y).sum(-1, keepdims=True) + 1e-6))[..., of_key, :, :] for y in (q, k))
    q = q / np.sqrt(HK)
    t = linear(x, layer["a"], layer.get("a_bias")) + layer["decay_bias"]
    decay = np.exp(-layer["decay_rate"] * np.log(1 + np.exp(t)))  # (..., T, NV)
    strength = sigmoid(linear(x, layer["b"]))
    S, out = np.zeros((*x.shape[:-2], NV, HK, HV), x.dtype), []
    for t in range(x.shape[-2]):
        S = S * decay[..., t, :, None, None]
        e = strength[..., t, :, None] * (v[..., t, :] - (S * k[..., t, :, None]).sum(-2))
        S = S + k[..., t, :, None] * e[..., None, :]
        out.append((S * q[..., t, :, None]).sum(-2))  # (..., NV, HV)
    o = np.stack(out, -3)  # (..., T, NV, HV)
    gain = np.reshape(layer["o_norm"][0], (NV, HV))
    o = o / np.sqrt((o * o).mean(-1, keepdims=True) + m["norm_eps"]) * gain
    z = linear(x, layer["z"], layer.get("z_bias"))
    return linear(o.reshape(*o.shape[:-2], NV * HV) * z * sigmoid(z), layer["o"], layer.get("o_bias"))


def state_space(m, layer, x):
    """x (..., T, C) -> (..., T, C): a state (HK, HV) a head, that decays over a step of the row's own length, token by token."""
    NK, NV, HK, HV = (m[f"state_{name}"] for name in ("k_heads", "v_heads", "k_dim", "v_dim"))
    parts, first = {}, 0
    for name, n in (("q", NK), ("k", NK), ("v", NV)):
        c = convolve(m, layer, linear(x, layer[name], layer.get(f"{name}_bias")), first)
        parts[name] = np.repeat(heads(c * sigmoid(c), n), NV // n, axis=-3)
        first += c.shape[-1]
    q, k, v = parts.values()  # (..., NV, T, width)
    t = np.log(1 + np.exp(linear(x, layer["a"], layer.get("a_bias")) + layer["decay_bias"]))  # (..., T, NV)
    t = np.where(t.real < m.get("step_min", 0), m.get("step_min", 0), np.where(t.real > m.get("step_max", np.inf), m.get("step_max", 0), t))
    S, out = np.zeros((*x.shape[:-2], NV, HK, HV), x.dtype), []
    for i in range(x.shape[-2]):
        step = t[..., i, :, None, None]
        S = np.exp(-layer["decay_rate"][:, None, None] * step) * S + k[..., i, :, None] * (step * v[..., i, None, :])
        out.append((S * q[..., i, :, None]).sum(-2))
    skip = 0 if layer.get("skip") is None else layer["skip"][:, None] * np.swapaxes(v, -2, -3)
    o = np.stack(out, -3) + skip  # (..., T, NV, HV)
    z = linear(x, layer["z"], layer.get("z_bias"))
    u = (o.reshape(*o.shape[:-2], NV * HV) * z * sigmoid(z)).reshape(*o.shape[:-2], NK, -1)
    u = u / np.sqrt((u * u).mean(-1, keepdims=True) + m["norm_eps"])
    return linear(u.reshape(*o.shape[:-2], NV * HV) * layer["o_norm"][0], layer["o"], layer.get("o_bias"))


def mix(m, layer, x):
    mixers = {"attention": attention, "conv": short_conv, "delta": delta_rule, "mamba": state_space, "none": lambda *_: np.zeros_like(x)}
    return mixers[layer.get("mixer", "attention")](m, layer, x)


def latent_qkv(m, layer, x):
    """Queries, keys and values (..., NH, T, width), keys and values made of a latent vector that all heads share."""
    NH, R, RD = m["n_heads"], m["kv_rank"], m["rope_dim"]
    D = m["head_dim"] - RD
    low = x
    if m["q_rank"]:
        low = norm("rms", m["latent_eps"], linear(x, layer["q_a"], layer.get("q_a_bias")), layer["q_a_norm"])
    q = heads(linear(low, layer["q"], layer.get("q_bias")), NH)
    c = linear(x, layer["k"], layer.get("k_bias"))
    shared = c[..., None, :, R:]
    made = heads(linear(norm("rms", m["latent_eps"], c[..., :R], layer["kv_norm"]), layer["kv_b"]), NH)
    if layer["rope"] >= 0:
        table = m["rope"][layer["rope"]]
        q = np.concatenate([q[..., :D], rotate(m, table, q[..., D:])], -1)
        shared = rotate(m, table, shared)
    k = np.concatenate([made[..., :D], np.broadcast_to(shared, (*made.shape[:-1], RD))], -1)
    return q, k, made[..., D:]


def qkv(m, layer, x):
    """Queries, keys and values (..., NH, T, HS) of every head. Keys and values may be those of an earlier layer."""
    NH, NKV, own = m["n_heads"], m["n_kv_heads"], m["index"]

    def turned_and_normed(y, weights):
        for turn in (True, False) if m.get("qk_norm_last") else (False, True):
            if turn and layer["rope"] >= 0:
                y = rotate(m, m["rope"][layer["rope"]], y)
            if not turn and layer.get(weights) is not None:
                y = head_norm(m, y, layer[weights])
        return y

    def made(name):
        return clipped(m.get("clip_qkv", 0), heads(linear(x, layer[name], layer.get(f"{name}_bias")), NH if name == "q" else NKV))

    q = turned_and_normed(made("q"), "q_norm")
    if layer.get("keys_of", own) == own:
        k = made("k")
        v = made("v") if "v" in layer else k
        if "v_norm" in layer:
            v = head_norm(m | {"norm": "rms", "qk_norm": "head"}, v, layer["v_norm"])
        m["kept"][own] = turned_and_normed(k, "k_norm"), v
    k, v = m["kept"][layer.get("keys_of", own)]
    if "temper" in m and layer.get("tempered", True):
        rate, length, offset = m["temper"]
        q = q * (1 + rate * np.log(1 + (np.arange(x.shape[-2]) + offset) // length))[:, None]
    return q, np.repeat(k, NH // NKV, axis=-3), np.repeat(v, NH // NKV, axis=-3)  # query head h reads group h // G


def attention(m, layer, x):
    """x (..., T, C) -> (..., T, C): causal, grouped heads, within the layer's window and chunk."""
    T, NH = x.shape[-2], m["n_heads"]
    q, k, v = (latent_qkv if m.get("kv_rank") else qkv)(m, layer, x)
    scores = softcap(m["attn_softcap"], layer["attn_scale"] * (q @ np.swapaxes(k, -1, -2)))
    if "key_bias" in m:
        scores = scores + m["key_bias"].reshape(NH, 1, -1)[..., :T]
    i, j = np.arange(T)[:, None], np.arange(T)
    seen = (j <= i) & ((layer["window"] == 0) | (j > i - layer["window"]))
    if chunk := layer.get("chunk"):
        seen &= i // chunk == j // chunk
    sinks = None if layer.get("sinks") is None else np.asarray(layer["sinks"], float)[:, None, None]
    top = np.where(seen, scores.real, -np.inf).max(-1, keepdims=True)  # a constant: it cancels
    top = top if sinks is None else np.maximum(top, sinks)
    weights = np.where(seen, np.exp(np.where(seen, scores - top, 0)), 0)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - top)
    out = (weights / total) @ v  # (..., NH, T, HS)
    out = np.swapaxes(out, -2, -3)
    out = out.reshape(*out.shape[:-2], -1)
    if layer.get("z") is not None:
        out = out * sigmoid(linear(x, layer["z"], layer.get("z_bias")))
    return linear(out, layer["o"], layer.get("o_bias"))


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.where(x.real > 0, x, 0),
    "relu2": lambda x: np.where(x.real > 0, x * x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def xielu(positive, negative, slope, last, x):
    below = np.where(x.real < last, x, last)
    return np.where(x.real > 0, positive * x * x, negative * (np.expm1(below) - x)) + slope * x


def activation(m, constants):
    if m["act"] == "xielu":
        return lambda x: xielu(*constants, x)
    if m["act"] == "gelu_tanh" and constants:
        return lambda x: 0.5 * x * (1 + np.tanh(constants[0] * (x + 0.044715 * x**3)))
    return ACTIVATIONS[m["act"]]


def mlp(m, layer, x, constants=()):
    """x (..., T, C) -> (..., T, C): down(act(gate x) * up x), or down(act(up x))."""
    hidden = linear(x, layer["up"], layer.get("up_bias"))
    gate = linear(x, layer["gate"], layer.get("gate_bias")) if m["gated"] else None
    return linear(activated(m, constants or layer.get("act_constants", ()), gate, hidden), layer["down"], layer.get("down_bias"))


def activated(m, constants, gate, hidden):
    """act(gate) * hidden, or without a gate act(hidden)"""
    if m["act"] == "silu_clamped":
        alpha, limit = constants
        gate, hidden = (np.where(y.real > limit, limit, y) for y in (gate, hidden))
        return gate / (1 + np.exp(-alpha * gate)) * (1 + np.where(hidden.real < -limit, -limit, hidden))
    act = activation(m, constants)
    return act(hidden) if gate is None else act(gate) * hidden


def largest(n, x):
    """Whether each of x (..., E) is one of the n with the largest real parts, the first of equals."""
    order = np.argsort(-x.real, axis=-1, kind="stable")
    return np.argsort(order, axis=-1) < n


def sparsemixer(m, r):
    """(..., E): the k-th expert's share is its part of the softmax of those left that are near it."""
    share, left = np.zeros_like(r), np.ones(r.shape, bool)
    for _ in range(m["top_k"]):
        best = largest(1, np.where(left, r, -np.inf))
        top = np.where(best, r.real, -np.inf).max(-1, keepdims=True)
        near = left & ~((top - r.real) / np.maximum(np.abs(r.real), top) > 2 * m["route_jitter"])
        e = np.where(near, np.exp(np.where(near, r - top, 0)), 0)
        share = np.where(best, e / e.sum(-1, keepdims=True), share)
        left &= ~best
    return share


def shares(m, layer, x):
    """(..., T, E): the weight of every expert, 0 of those that are not chosen. The choice is made by real parts: a derivative
    keeps it fixed."""
    r = linear(x, layer["router"], layer.get("router_bias"))
    if m.get("route", "softmax") == "sparsemixer":
        return sparsemixer(m, r)
    by = p = softmax(r) if m.get("route", "softmax") == "softmax" else 1 / (1 + np.exp(-r))
    if layer.get("correction") is not None:
        by = p.real + np.asarray(layer["correction"], float)
        groups = by.reshape(*by.shape[:-1], m["n_groups"], -1)
        best = np.sort(groups, axis=-1)[..., -2:].sum(-1)
        by = np.where(largest(m["top_groups"], best)[..., None], groups, -np.inf).reshape(by.shape)
    share = np.where(largest(m["top_k"], by), p, 0)
    return m.get("route_scale", 1) * (share / share.sum(-1, keepdims=True) if m["norm_topk"] else share)


def mixture(m, layer, x):
    """x (..., T, C) -> (..., T, C): the chosen experts, weighted, and the shared one."""
    share, y, constants = shares(m, layer, x), 0, layer.get("act_constants", ())
    for e, weights in enumerate(layer["experts"]):
        w = share[..., e : e + 1]
        if m.get("scale_input"):
            y = y + np.where(w.real > 0, mlp(m, weights, w * x, constants), 0)
        else:
            y = y + w * mlp(m, weights, x, constants)
    if layer.get("shared") is None:
        return y
    gate = 1 if layer.get("shared_gate") is None else 1 / (1 + np.exp(-linear(x, layer["shared_gate"])))
    return y + gate * mlp(m, layer["shared"], x, constants)


def layer_input(m, layer, tokens, e, x):
    """What a layer's own input, of the tokens and the embedding e, adds to x."""
    u = norm("rms", m["input_eps"], linear(e, layer["in_proj"]), layer["in_norm"])
    u = u + m["input_scale"] * matrix(layer["in_embed"])[tokens]
    h = activated(m, layer.get("act_constants", ()), linear(x, layer["in_gate"]), u)
    return norm(m["norm"], m["norm_eps"], linear(h, layer["in_out"]), layer.get("post_in"))


def forward(twin, tokens, steer=()):
    """tokens (T,) ints -> logits (..., T, n_vocab), {(layer, site): (..., T, C)}. An activation is recorded after
    the vectors added to it. A parallel block has no resid_mid."""
    m, top, acts = twin.spec, twin.top, {}
    if "key_bias" in top:
        m = {**m, "key_bias": top["key_bias"]}
    s = m["resid_scale"]

    def visit(index, site, x):
        for v in steer:
            if (v.layer, v.site) == (index, site):
                here = np.zeros((len(tokens), 1))
                here[slice(None) if v.positions is None else v.positions] = 1
                x = x + here * np.asarray(v.vector)[..., None, :]
        acts[index, site] = x
        return x

    def normed(x, weights):
        return norm(m["norm"], m["norm_eps"], x, weights)

    x = matrix(top["embed"])[tokens] * m["embed_scale"]
    if top.get("pos_embed") is not None:
        x = x + matrix(top["pos_embed"])[: len(tokens)]
    x = normed(x, top.get("embed_norm"))
    m, e = {**m, "kept": {}}, x
    for index, layer in enumerate(twin.layers):
        m = {**m, **{name: layer.get(name, twin.spec[name]) for name in ("head_dim", "n_kv_heads", "d_ff")}, "index": index}
        x = visit(index, "resid_pre", x)
        e = e if index else x
        inner = normed(x, layer.get("norm1"))
        a = visit(index, "attn_out", s * normed(mix(m, layer, inner), layer.get("post1")))
        if m["parallel"]:
            inner = normed(x, layer["norm2"]) if layer.get("norm2") is not None else inner
        else:
            x = visit(index, "resid_mid", x + a)
            inner = normed(x, layer.get("norm2"))
        if "router" in layer:
            branch = mixture(m, layer, inner)
        else:
            branch = mlp(m, layer, inner, layer.get("act_constants", ())) if "up" in layer else np.zeros_like(x)
        d = visit(index, "down_proj", branch)
        b = visit(index, "mlp_out", s * normed(d, layer.get("post2")))
        x = x + a + b if m["parallel"] else x + b
        if "in_gate" in layer:
            x = x + layer_input(m, layer, tokens, e, x)
        x = visit(index, "resid_post", layer.get("out_scale", 1.0) * x)
    logits = m["logit_scale"] * linear(normed(x, top.get("final_norm")), top["lm_head"], top.get("lm_head_bias"))
    return softcap(m["logit_softcap"], logits), acts


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def target_value(twin, tokens, target, steer=()):
    """The activation at target = (layer, site), or for "logits" and "next_token" the logits: (..., T, width)."""
    logits, acts = forward(twin, tokens, steer)
    return logits if isinstance(target, str) else acts[target]


def jacobian(twin, prompts, source, target, source_positions=None, target_positions=None, mean=False, steer=()):
    """Dense d target / d v, v (C,) being added at source = (layer, site): (m, C).

    Rows are stacked: prompt by prompt, target position by target position; with mean, one averaged block a prompt.
    source_positions, target_positions: a list of positions a prompt; None: all of them, the last one for logits and
    next_token. For "next_token" the rows at a position are D (dlogits - 1 p' dlogits), p = softmax, D = diag sqrt p."""
    C = twin.spec["d_model"]
    blocks = []
    for i, tokens in enumerate(prompts):
        here = None if source_positions is None else source_positions[i]
        if target_positions is not None:
            there = target_positions[i]
        else:
            there = [len(tokens) - 1] if isinstance(target, str) else np.arange(len(tokens))
        probe = Steer(*source, 1j * STEP * np.eye(C), here)
        value = target_value(twin, tokens, target, [*steer, probe])
        value = np.broadcast_to(value, (C, *value.shape[-2:]))[:, there]  # (C, n, width); a column each
        J = value.imag / STEP
        if target == "next_token":
            p = softmax(value.real)
            J = np.sqrt(p) * (J - (p * J).sum(-1, keepdims=True))
        if mean:
            J = J.mean(1, keepdims=True)
        blocks.append(J.reshape(C, -1).T)
    return np.concatenate(blocks)


def greedy(twin, tokens, n, steer=()):
    """n greedy tokens after `tokens`, each from a whole new forward pass: what a KV cache must reproduce."""
    tokens = list(tokens)
    for _ in range(n):
        tokens.append(int(forward(twin, tokens, steer)[0][-1].argmax()))
    return tokens[-n:]


def sampling(logits, temperature, top_k=0, top_p=1.0):
    """Next-token probabilities (n_vocab,): the top_k largest, of these the fewest whose probability reaches top_p,
    at the given temperature, renormalised."""
    p = softmax(np.asarray(logits, dtype=np.float64) / temperature)
    order = np.argsort(-p, kind="stable")
    kept = order[: top_k or len(p)]
    before = np.concatenate([[0], np.cumsum(p[kept])[:-1]]) / p[kept].sum()  # mass of the larger ones
    kept = kept[before < top_p]
    out = np.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out
