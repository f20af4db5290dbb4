"""A Qwen3-style decoder in PyTorch, small enough to train on one CPU core; parameter names are those of the Hugging
Face checkpoint, so that its state dict is the file that ships."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    n_vocab: int
    d_model: int = 160
    n_layers: int = 5
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 32
    d_ff: int = 384
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    n_ctx: int = 256

    def config(self) -> dict:
        """The Hugging Face config.json of this shape."""
        return {
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": self.n_vocab,
            "hidden_size": self.d_model, "intermediate_size": self.d_ff, "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads, "num_key_value_heads": self.n_kv_heads, "head_dim": self.head_dim,
            "hidden_act": "silu", "max_position_embeddings": self.n_ctx, "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta, "attention_bias": False, "attention_dropout": 0.0,
            "tie_word_embeddings": False, "use_sliding_window": False, "use_cache": True,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
        }  # fmt: skip


class Norm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, first half against second half; x (B, H, T, HS), cos and sin (T, HS)."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        self.q_proj = nn.Linear(s.d_model, s.n_heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.d_model, s.n_kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.d_model, s.n_kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.n_heads * s.head_dim, s.d_model, bias=False)
        self.q_norm, self.k_norm = Norm(s.head_dim, s.norm_eps), Norm(s.head_dim, s.norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, past: list | None) -> Tensor:
        B, T, _ = x.shape
        heads = lambda y: y.view(B, T, -1, self.shape.head_dim)  # noqa: E731
        q = rotate(self.q_norm(heads(self.q_proj(x))).transpose(1, 2), *rope)
        k = rotate(self.k_norm(heads(self.k_proj(x))).transpose(1, 2), *rope)
        v = heads(self.v_proj(x)).transpose(1, 2)
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
            past[:] = [k, v]
        groups = self.shape.n_heads // self.shape.n_kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and T > 1)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(s.d_model, s.d_ff, bias=False)
        self.up_proj = nn.Linear(s.d_model, s.d_ff, bias=False)
        self.down_proj = nn.Linear(s.d_ff, s.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, s: Shape, dropout: float):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(s.d_model, s.norm_eps), Norm(s.d_model, s.norm_eps)
        self.self_attn, self.mlp, self.dropout = Attention(s), MLP(s), dropout

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x: Tensor, rope, mask, past, push: Tensor | None) -> tuple[Tensor, Tensor]:
        """Block output and its mlp_out; push (d,) or (B, 1, d) is added to mlp_out at every position."""
        x = x + self.drop(self.self_attn(self.input_layernorm(x), rope, mask, past))
        out = self.drop(self.mlp(self.post_attention_layernorm(x)))
        if push is not None:
            out = out + push
        return x + out, out


class Body(nn.Module):
    def __init__(self, s: Shape, dropout: float):
        super().__init__()
        self.embed_tokens = nn.Embedding(s.n_vocab, s.d_model)
        self.layers = nn.ModuleList(Block(s, dropout) for _ in range(s.n_layers))
        self.norm = Norm(s.d_model, s.norm_eps)


class Network(nn.Module):
    def __init__(self, shape: Shape, dropout: float = 0.0):
        super().__init__()
        self.shape, self.model = shape, Body(shape, dropout)
        self.lm_head = nn.Linear(shape.d_model, shape.n_vocab, bias=False)
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angle = torch.outer(torch.arange(shape.n_ctx, dtype=torch.float64), shape.rope_theta**-half).repeat(1, 2)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def initialise(self) -> None:
        """Variance 1/fan-in; what writes to the residual stream is scaled down by the square root of twice the depth."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                std = weight.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * self.shape.n_layers)
                if "embed_tokens" in name:
                    std = 0.5
                nn.init.normal_(weight, std=std if "lm_head" not in name else std * 0.5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, push: dict[int, Tensor] | None = None,
                cache: list[list] | None = None, sites: dict[int, Tensor] | None = None,
                first: int = 0, stream: Tensor | None = None, last_only: bool = False) -> Tensor:  # fmt: skip
        """Logits (B, T, n_vocab) of tokens (B, T).

        push {layer: vector} is added to mlp_out; sites is filled with the mlp_out of every layer;
        cache, a list of n_layers lists, holds keys and values between calls;
        first, stream: start at that layer from its input instead of from the tokens.
        """
        done = cache[0][0].shape[2] if cache and cache[0] else 0
        x = self.model.embed_tokens(tokens) if stream is None else stream
        T = x.shape[1]
        rope = self.cos[done : done + T], self.sin[done : done + T]
        for i, block in enumerate(self.model.layers):
            if i < first:
                continue
            x, out = block(x, rope, mask, cache[i] if cache is not None else None, push.get(i) if push else None)
            if sites is not None:
                sites[i] = out
        if last_only:
            x = x[:, -1:]
        return self.lm_head(self.model.norm(x))

    def settings(self) -> dict:
        return asdict(self.shape)
