"""The cost of effects and of a search, beside the same passes in transformers.

    python benchmarks/effects.py [--model smollm2] [--vectors 8] [--random 2] [--new 20] [--rounds 2] [--no-search]

Vectors at layers spread over the model, both signs, two scales, random vectors beside, on one chat: of every steered row a
forward pass along the base continuation (KL), a greedy continuation, and the perplexity of that under the base.
transformers: float32 weights of the same file, as many rows a batch as ours, one vector a row added by hooks, a cache for
the continuation, logits of the positions that are read only. Both run in turn; each time is the best of the rounds. The
shares of the parts are those of a run under the profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import os
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import powersteer as ps

CHAT = [
    {"role": "system", "content": "You are a helpful assistant who answers in full sentences."},
    {"role": "user", "content": "How can I learn to play the guitar well enough for a party?"},
]
COUNTRIES = "France Italy Spain Japan China Peru Egypt Kenya Chile Cuba Norway Sweden Poland".split()
SCALES, BATCH = (0.35, 0.7), 48
PARTS = {  # of the profile: functions of the core or of the package
    "forward": "method 'forward'", "decoding": "method 'step'", "passes with a cache": "method 'feed'", "linearisation": "(linearise)",
    "products of J": "method 'apply_each'", "distributions": "distributions.py",
}  # fmt: skip


def vectors_of(model: ps.Model, n: int, prompt: Any) -> list[ps.SteeringVector]:
    """Random directions at layers spread over the model; their targets are a few layers on, or the next token."""
    rng, last = np.random.default_rng(0), model.n_layers - 1
    layers = np.linspace(0, last - 3, n).round().astype(int).tolist()
    acts = model.run_with_cache(prompt, [(layer, "mlp_out") for layer in layers])[1]
    return [
        dataclasses.replace(
            ps.SteeringVector.from_array(rng.standard_normal(model.d_model), layer, "mlp_out"), scale=1.0,
            site_norm=float(np.linalg.norm(acts[layer, "mlp_out"], axis=1).mean()),
            target="next_token" if i % 4 == 3 else (layer + 3, "mlp_out"),
        )
        for i, layer in enumerate(layers)
    ]  # fmt: skip


class Peer:
    """The same passes in transformers."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf.eval()

    @contextmanager
    def steered(self, rows: Sequence[ps.SteeringVector | None]) -> Iterator[None]:
        """One vector a row, added at every position."""
        hooks = []
        for layer in {v.layer for v in rows if v is not None}:
            added = np.array([v.direction * v.scale if v is not None and v.layer == layer else np.zeros(len(v or rows[1])) for v in rows])
            shift = torch.as_tensor(added, dtype=torch.float32)[:, None]
            mlp = self.hf.model.layers[layer].mlp
            hooks.append(mlp.register_forward_hook(lambda _m, _i, out, shift=shift: out + shift))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def logits(self, tokens: torch.Tensor, rows: Sequence[ps.SteeringVector | None], n: int) -> torch.Tensor:
        with self.steered(rows):
            return self.hf(tokens, use_cache=False, logits_to_keep=n).logits.log_softmax(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def effects(self, prompt: np.ndarray, rows: Sequence[ps.SteeringVector], new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(mean KL along the base continuation, tokens, perplexity) of every row."""
        ids = torch.as_tensor(prompt)[None].long()
        base = self.hf.generate(ids, max_new_tokens=new, do_sample=False)
        p, found = self.logits(base[:, :-1], [None], new), []
        for first in range(0, len(rows), BATCH):
            some = rows[first : first + BATCH]
            q = self.logits(base[:, :-1].expand(len(some), -1), some, new)
            kl = (p.exp() * (p - q)).sum(-1).mean(-1)
            with self.steered(some):
                full = self.hf.generate(ids.expand(len(some), -1), max_new_tokens=new, do_sample=False)
            own = self.logits(full[:, :-1], [None] * len(some), new)
            nats = -own.gather(-1, full[:, -new:, None])[..., 0].mean(-1)
            found.append((kl.numpy(), full[:, -new:].numpy(), nats.exp().numpy()))
        kl, tokens, perplexity = map(np.concatenate, zip(*found, strict=True))
        return kl, tokens, perplexity


def shares(work: Callable[[], object]) -> str:
    """Shares of the parts in the time of a run."""
    profile = cProfile.Profile()
    profile.runcall(work)
    stats: Any = pstats.Stats(profile)
    total, parts = stats.total_tt, {}
    for name, of in PARTS.items():
        spent = sum(row[3 if of[0] == "(" else 2] for key, row in stats.stats.items() if of in f"{key[0]}({key[2]})")
        parts[name] = spent / total
    return ", ".join(f"{name} {share:.0%}" for name, share in [*parts.items(), ("the rest", 1 - sum(parts.values()))])


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "gemma3"], default="smollm2")
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--random", type=int, default=2)
    parser.add_argument("--new", type=int, default=20, help="tokens of a continuation")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-search", action="store_true")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from real_models import Real

    real = Real(options.model)
    model, peer = real.model, None if options.no_peer else Peer(real.hf)
    prompt = model.tokens(CHAT if options.model == "smollm2" else CHAT[1]["content"])
    vectors, new = vectors_of(model, options.vectors, prompt), options.new
    say: Callable[..., None] = lambda *words: print(*words, flush=True)  # noqa: E731
    say(f"{options.model}, {len(prompt)} tokens, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")

    def ours() -> ps.Effects:
        return ps.effects(model, prompt, vectors, scales=SCALES, max_new_tokens=new, n_random=options.random, stop=[])

    table = ours()
    random = [ps.evaluate.effects.random_vector(v, 0, draw) for v in vectors for draw in range(options.random)]
    pushed = [v.relative(sign * scale) for v in (*vectors, *random) for sign in (1, -1) for scale in SCALES]
    best = {"powersteer": np.inf, "transformers": np.inf}
    theirs = None
    for _ in range(options.rounds):
        best["powersteer"] = min(best["powersteer"], seconds(ours)[0])
        if peer:
            spent, theirs = seconds(lambda: peer.effects(prompt, pushed, new))
            best["transformers"] = min(best["transformers"], spent)
    rows = len(pushed)
    say(f"effects of {len(vectors)} vectors, {rows} rows of {new} tokens: "
        + "; ".join(f"{name} {s:.2f} s, {rows / s:.1f} rows/s" for name, s in best.items() if np.isfinite(s)))
    if theirs:
        kl, tokens, perplexity = theirs
        texts = [model.tokenizer.decode(t) for t in tokens]
        same = [e for e in zip((*table, *table.random), texts, perplexity, kl, strict=True) if e[0].text.strip() == e[1].strip()]
        worst = max(abs(e.kl_continuation / k - 1) for e, k in zip((*table, *table.random), kl, strict=True))
        say(f"  powersteer {best['transformers'] / best['powersteer']:.2f}x; equal texts {len(same)} of {rows}; KL within {worst:.1e}, "
            f"perplexity of equal texts within {max(abs(e.perplexity / x - 1) for e, _, x, _ in same):.1e}")
    say(f"  {shares(ours)}")
    if options.no_search:
        return
    prompts = [f"The capital of {c} is" for c in COUNTRIES]
    few = vectors[:4]
    for name, score in {"a logit score": ps.evaluate.LogitDifference(" the", " a"), "texts": ps.evaluate.contains("the")}.items():
        spent, found = seconds(lambda score=score: ps.search(
            model, few, score, validation=prompts[:10], test=prompts[10:], scales=SCALES, n_random=2, max_new_tokens=8,
        ))  # fmt: skip
        scored = 3 * len(found.ranked) * 10
        say(f"search among {len(found.ranked)} candidates by {name}, 2 draws, 10 prompts: {spent:.2f} s, {scored / spent:.0f} rows/s")


if __name__ == "__main__":
    main()
