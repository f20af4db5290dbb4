"""The cost of an atlas beside the published algorithm's, on the same pairs of the same model.

    python benchmarks/atlas.py [--layers 12] [--tokens 64] [--pairs 3] [--decay 0.4]    a random model of 125M shapes
    python benchmarks/atlas.py --real smollm2 --next-token                              a model of tests/real_files.py

Published: block power iteration with 12 vectors and 5 iterations for every pair; J v by double backward through the whole
model, one column at a time, in PyTorch. It is run on a few pairs; the time of all is that of a pair times their number.
powersteer: every pair, certified. A random model as transformers makes it has nearly flat spectra (sigma_12 / sigma_1 about
0.85), where the 12 leading triplets are hard for anyone; `decay` scales the i-th input of every weight by i^-decay, which
brings sigma_12 / sigma_1 to the 0.3-0.5 of published models. Both print the worst residual, max(|Jv - sigma u|, |J'u - sigma v|) / sigma_1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import powersteer as ps

K, ITERATIONS, ROWS = 12, 5, 2
CHAT = [{"role": "user", "content": "How can I learn to play the guitar well enough for a party in two months?"}]


def make_model(layers: int, decay: float, **shapes: int) -> Any:
    """Llama of 125M shapes, unless others are given, with random weights, their inputs scaled by i^-decay."""
    torch.manual_seed(0)
    usual = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_key_value_heads": 12,
             "vocab_size": 32000, "max_position_embeddings": 512}  # fmt: skip
    config = transformers.LlamaConfig(num_hidden_layers=layers, tie_word_embeddings=True, **(usual | shapes))
    config._attn_implementation = "eager"  # the fused kernel has no double backward
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    scale = torch.arange(1, config.hidden_size + 1.0) ** -decay
    scale /= scale.square().mean().sqrt()
    for layer in model.model.layers:
        a, m = layer.self_attn, layer.mlp
        for linear in (a.q_proj, a.k_proj, a.v_proj, m.gate_proj, m.up_proj):
            linear.weight.mul_(scale)
    return model


class Published:
    """F(v): v added to the MLP output of a layer at every position -> MLP output of another at the last two."""

    def __init__(self, model: Any, tokens: torch.Tensor, source: int, target: int) -> None:
        self.model, self.tokens, self.source, self.target = model, tokens, source, target

    def _forward(self, v: torch.Tensor) -> torch.Tensor:
        seen = {}
        layers = self.model.model.layers
        hooks = [
            layers[self.source].mlp.register_forward_hook(lambda _m, _i, out: out + v),
            layers[self.target].mlp.register_forward_hook(lambda _m, _i, out: seen.update(z=out)),
        ]
        try:
            self.model(self.tokens, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return seen["z"][0, -ROWS:].reshape(-1)  # type: ignore[no-any-return]

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(J x, J'J x), by double backward."""
        v = torch.zeros_like(x, requires_grad=True)
        z = self._forward(v)
        dummy = torch.zeros_like(z, requires_grad=True)
        (pulled,) = torch.autograd.grad(z, v, dummy, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, dummy, x, retain_graph=True)
        (back,) = torch.autograd.grad(z, v, pushed)
        return pushed.detach(), back.detach()

    def run(self, d: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(sigma, V (k, d), seconds): Gram-Schmidt in every step, Rayleigh-Ritz in the last."""
        started = time.perf_counter()
        V = torch.linalg.qr(torch.randn(d, K, generator=torch.Generator().manual_seed(0)))[0]
        for _ in range(ITERATIONS):
            Y, W = (torch.stack(columns, 1) for columns in zip(*[self.both(V[:, i]) for i in range(K)], strict=True))
            basis, V = V, torch.linalg.qr(W)[0]
        values, turn = torch.linalg.eigh(Y.T @ Y)  # Rayleigh-Ritz on the last products
        order = values.argsort(descending=True)
        return values[order].clamp(min=0).sqrt().numpy(), (basis @ turn[:, order]).T.numpy(), time.perf_counter() - started


def sgemm(rows: int) -> float:
    """GFLOPS of PyTorch's product of so many rows with a 1536 x 576 matrix."""
    x, w = torch.randn(rows, 576), torch.randn(1536, 576)
    best = np.inf
    for _ in range(50):
        started = time.perf_counter()
        torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - started)
    return float(2e-9 * rows * 1536 * 576 / best)


def residual(J: ps.jacobian.Jacobian, V: np.ndarray) -> float:  # type: ignore[name-defined]
    """The certificate of vectors that someone else found."""
    JV = J @ V.T.astype(J.dtype)
    sigma = np.linalg.norm(JV, axis=0)
    back = J.T @ (JV / sigma)
    return float(np.linalg.norm(back - sigma * V.T, axis=0).max() / sigma.max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3, help="on which the published algorithm is run")
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--sketch", type=int, default=16)
    parser.add_argument("--real", choices=["smollm2", "gemma3"], help="map this model, and not a random one")
    parser.add_argument("--next-token", action="store_true", help="map the next-token column as well")
    options = parser.parse_args(argv)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if options.real:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from real_models import Real

        real = Real(options.real)
        hf, model = real.hf, real.model
        hf.config._attn_implementation = "eager"
        hf.requires_grad_(False)
        tokens = model.tokens(CHAT if options.real == "smollm2" else CHAT[0]["content"])
    else:
        hf = make_model(options.layers, options.decay)
        tokens = np.random.default_rng(0).integers(3, 32000, options.tokens).astype(np.int32)
        model = ps.from_transformers(hf)
    say: Callable[..., None] = lambda *words: print(*words, flush=True)  # noqa: E731
    say(f"{model.n_layers} layers, {len(tokens)} tokens, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    say(f"torch sgemm of 600 rows: {sgemm(600):.0f} GFLOPS, of 50: {sgemm(50):.0f}")

    started = time.perf_counter()
    sketch = ps.atlas(model, tokens, k=K, next_token=options.next_token, sketch=options.sketch or 16, method="sketch")
    say(f"sketch: {time.perf_counter() - started:.1f} s for {len(sketch.pairs)} pairs")
    plan = ps.atlas_plan(model, tokens, k=K, next_token=options.next_token, sketch=options.sketch)
    started = time.perf_counter()
    atlas = ps.atlas(model, tokens, k=K, next_token=options.next_token, sketch=options.sketch, progress=True)
    ours = time.perf_counter() - started
    say(f"planned {plan.seconds:.0f} s; {sum(s.flops for s in plan.steps) / ours / 1e9:.0f} GFLOPS of the planned operations; "
        + ", ".join(f"{kind} {sum(c.method == kind for c in atlas)} pairs" for kind in ("krylov", "dense")))
    applications = np.array([c.applications for c in atlas])
    worst, ratio = np.nanmax(atlas.residuals), np.nanmedian(atlas.S[..., -1] / atlas.S[..., 0])
    say(f"powersteer: {len(atlas)} pairs in {ours:.1f} s; {applications.mean():.1f} applications a pair "
        f"(largest {applications.max()}); worst residual {worst:.1e}, all converged: {all(c.converged for c in atlas)}; "
        f"median sigma_{K} / sigma_1 {ratio:.2f}")  # fmt: skip

    layers = [pair for pair in atlas.pairs if not isinstance(pair[1], str)]
    pairs = [layers[i] for i in np.linspace(0, len(layers) - 1, options.pairs).astype(int)]
    seconds, residuals = [], []
    for source, target in pairs:
        _, V, took = Published(hf, torch.tensor(tokens)[None].long(), source, target).run(model.d_model)
        seconds.append(took)
        residuals.append(residual(model.jacobian(tokens, source, target), V))
        say(f"published, {source} -> {target}: {took:.1f} s, residual {residuals[-1]:.1e}")
    whole = float(np.mean(seconds)) * len(atlas.pairs)
    say(f"published: {np.mean(seconds):.1f} s a pair, {whole:.0f} s for {len(atlas.pairs)}; {K * (2 * ITERATIONS + 1)} "
        f"applications a pair; worst residual {max(residuals):.1e}\nratio of times: {whole / ours:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
