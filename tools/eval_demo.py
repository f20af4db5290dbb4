"""Measure the forks of a trained demo model with PyTorch alone: what it does unsteered, what it can do when the first
word is forced, and what Fisher, layer-to-layer power and random vectors at mlp_out do to it.

    python tools/eval_demo.py runs/demo --fork products --search

Vectors are computed on a few validation questions; source, target, rank, sign and scale are chosen on validation
questions; the figures reported are on test questions. Steering adds scale x mean norm of the site to mlp_out at every
position, prompt and generated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import demo_corpus
import torch
from demo_corpus import Question
from demo_network import Network
from torch import Tensor
from train_demo import load_network

SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
PIECES = demo_corpus.vocabulary()
NEWLINE = demo_corpus.IDS["\n"]


def prompt_of(question: Question, forced: bool = False) -> list[int]:
    ids = [demo_corpus.BOS, *demo_corpus.encode(question.prompt)]
    return ids + demo_corpus.encode(question.alternative)[:1] if forced else ids


def by_length(prompts: list[list[int]]) -> dict[int, list[int]]:
    groups = defaultdict(list)
    for i, ids in enumerate(prompts):
        groups[len(ids)].append(i)
    return groups


@torch.no_grad()
def decode(network: Network, prompts: list[list[int]], push: dict[int, Tensor] | None, limit: int = 48) -> list[str]:
    """Greedy continuations up to a newline, prompts of one length decoded as one batch through a KV cache."""
    texts = [""] * len(prompts)
    for members in by_length(prompts).values():
        tokens = torch.tensor([prompts[i] for i in members])
        cache, rows = [[] for _ in range(network.shape.n_layers)], []
        done = torch.zeros(len(members), dtype=torch.bool)
        while len(rows) < limit and not done.all():
            tokens = network(tokens, push=push, cache=cache, last_only=True)[:, -1].argmax(-1, keepdim=True)
            rows.append(tokens[:, 0])
            done |= (tokens[:, 0] == NEWLINE) | (tokens[:, 0] == demo_corpus.EOS)
        for row, i in enumerate(members):
            texts[i] = "".join(PIECES[step[row]] for step in rows).split("\n")[0]
    return texts


def accuracy(network: Network, asked: list[Question], push=None, forced: bool = False) -> float:
    """Share of questions whose greedy answer carries the alternative's result."""
    texts = decode(network, [prompt_of(q, forced) for q in asked], push)
    begin = [PIECES[demo_corpus.encode(q.alternative)[0]] if forced else "" for q in asked]
    return sum(q.solved(b + t) for q, b, t in zip(asked, begin, texts, strict=True)) / len(asked)


class Probe:
    """Validation questions prepared for quick tests of many vectors: the share whose next token is the alternative's
    first piece, and how much the next token's distribution moves, from the layer of the push onward only."""

    @torch.no_grad()
    def __init__(self, network: Network, asked: list[Question]):
        self.network, self.groups, self.count = network, [], len(asked)
        prompts = [prompt_of(q) for q in asked]
        for members in by_length(prompts).values():
            tokens = torch.tensor([prompts[i] for i in members])
            wanted = torch.tensor([demo_corpus.encode(asked[i].alternative)[0] for i in members])
            streams, x = [], network.model.embed_tokens(tokens)
            rope = network.cos[: tokens.shape[1]], network.sin[: tokens.shape[1]]
            for block in network.model.layers:
                streams.append(x)
                x, _ = block(x, rope, None, None, None)
            base = network.lm_head(network.model.norm(x[:, -1])).log_softmax(-1)
            self.groups.append((tokens, wanted, streams, base))

    @torch.no_grad()
    def shares(self, layer: int, vectors: Tensor) -> Tensor:
        """Share of questions flipped by each of vectors (N, d), added to mlp_out of a layer: (N,)."""
        N, flipped = len(vectors), torch.zeros(len(vectors))
        for tokens, wanted, streams, _ in self.groups:
            B, T = tokens.shape
            for some in torch.arange(N).split(max(1, 2048 // (B * T))):
                push = vectors[some].repeat_interleave(B, 0)[:, None]
                stream = streams[layer].repeat(len(some), 1, 1)
                logits = self.network(tokens, push={layer: push}, first=layer, stream=stream, last_only=True)
                hit = logits[:, -1].argmax(-1).view(len(some), B) == wanted
                flipped[some] += hit.sum(1).float()
        return flipped / self.count


def jacobians(network: Network, ids: list[int], target: int | str, last: int) -> Tensor:
    """Jacobians of a target after one prompt from a vector added to mlp_out of every layer: (n_layers, m, d).

    target: a layer (its mlp_out at the `last` positions) or "next_token" (Fisher-weighted logits of the last position).
    One reverse pass over m copies of the prompt serves every source layer.
    """
    n_layers, d = network.shape.n_layers, network.shape.d_model

    def outputs(copies: int) -> tuple[dict[int, Tensor], Tensor]:
        push = {i: torch.zeros(copies, 1, d, requires_grad=True) for i in range(n_layers)}
        sites: dict[int, Tensor] = {}
        logits = network(torch.tensor([ids] * copies), push=push, sites=sites)
        if target == "next_token":
            return push, logits[:, -1]
        return push, sites[target][:, -last:].flatten(1)

    with torch.no_grad():
        base = outputs(1)[1]
    rows = []
    for some in torch.arange(base.shape[1]).split(128):
        push, out = outputs(len(some))
        picked = out[torch.arange(len(some)), some].sum()
        used = [i for i in range(n_layers) if target == "next_token" or i <= target]
        grads = torch.autograd.grad(picked, [push[i] for i in used], allow_unused=True)
        full = torch.zeros(n_layers, len(some), d)
        for i, g in zip(used, grads, strict=True):
            full[i] = g[:, 0] if g is not None else 0.0
        rows.append(full)
    J = torch.cat(rows, 1)
    if target == "next_token":
        p = base[0].softmax(-1)
        J = p.sqrt()[:, None] * (J - (p[:, None] * J).sum(1, keepdim=True))
    return J


def top_vectors(network: Network, asked: list[Question], target: int | str, k: int, last: int) -> tuple[Tensor, Tensor]:
    """Top-k right singular vectors (n_layers, k, d) and values (n_layers, k) of the Jacobian stacked over questions."""
    stacked = torch.cat([jacobians(network, prompt_of(q), target, last) for q in asked], 1)
    _, S, Vh = torch.linalg.svd(stacked.double(), full_matrices=False)
    return Vh[:, :k].float(), S[:, :k].float()


@torch.no_grad()
def site_norms(network: Network, asked: list[Question]) -> list[float]:
    """Mean 2-norm of mlp_out over positions and questions, layer by layer."""
    total = torch.zeros(network.shape.n_layers)
    for q in asked:
        sites: dict[int, Tensor] = {}
        network(torch.tensor([prompt_of(q)]), sites=sites)
        total += torch.stack([sites[i].norm(dim=-1).mean() for i in range(network.shape.n_layers)])
    return (total / len(asked)).tolist()


def best_scales(probe: Probe, layer: int, units: Tensor, norm: float) -> list[dict]:
    """For each unit vector (N, d): the sign and smallest relative scale with the largest share on validation."""
    settings = [(sign, scale) for scale in SCALES for sign in (1, -1)]
    pushes = torch.cat([units * (sign * scale * norm) for sign, scale in settings])
    shares = probe.shares(layer, pushes).view(len(settings), len(units))
    best = shares.argmax(0).tolist()
    return [{"layer": layer, "index": i, "share": shares[b, i].item(), "sign": settings[b][0], "scale": settings[b][1],
             "vector": units[i] * (settings[b][0] * settings[b][1] * norm)} for i, b in enumerate(best)]  # fmt: skip


def refine(network: Network, found: list[dict], validation: list[Question], norms: list[float], keep: int) -> dict:
    """Of the `keep` settings with the largest next-token share, neighbours in scale included, the one with the best full
    accuracy on validation; adds "validation" to it."""
    best: dict = {}
    for entry in sorted(found, key=lambda e: -e["share"])[:keep]:
        place = SCALES.index(entry["scale"])
        for scale in SCALES[place : place + 3]:
            vector = entry["vector"] * (scale / entry["scale"])
            score = accuracy(network, validation, {entry["layer"]: vector})
            if not best or score > best["validation"]:
                best = {**entry, "scale": scale, "vector": vector, "validation": score}
        if best["validation"] == 1.0:
            break
    return best


def describe(network: Network, best: dict, test: list[Question]) -> dict:
    kept = {key: value for key, value in best.items() if key != "vector"}
    return {**kept, "norm": round(best["vector"].norm().item(), 2),
            "test": accuracy(network, test, {best["layer"]: best["vector"]})}  # fmt: skip


def example(network: Network, question: Question, push=None) -> str:
    return question.prompt + decode(network, [prompt_of(question)], push)[0]


def measure(network: Network, fork: str, a: argparse.Namespace) -> dict:
    validation, test = (demo_corpus.questions(fork, split, n) for split, n in (("validation", 32), ("test", a.tests)))
    seen, probe = validation[: a.prompts], Probe(network, validation)
    norms, n_layers = site_norms(network, seen), network.shape.n_layers
    with torch.no_grad():
        first = torch.cat([base.exp().gather(1, w[:, None])[:, 0] for _, w, _, base in probe.groups])
    report: dict = {"fork": fork, "unsteered": accuracy(network, test), "forced": accuracy(network, test, forced=True),
                    "p_alternative": round(first.mean().item(), 4),
                    "site_norms": [round(n, 2) for n in norms]}  # fmt: skip
    print(json.dumps(report), flush=True)
    V, S = top_vectors(network, seen, "next_token", 2, 1)
    report["fisher"] = []
    for layer in range(n_layers):
        best = refine(network, best_scales(probe, layer, V[layer, :1], norms[layer]), validation, norms, 1)
        report["fisher"].append(describe(network, best, test))
        print("fisher", layer, [round(s, 3) for s in S[layer].tolist()], report["fisher"][-1], flush=True)
    best = max(report["fisher"], key=lambda e: e["validation"])
    report["fisher_best"] = best
    if a.search:
        report |= search(network, fork, probe, seen, validation, test, norms, a)
    return report


def search(network, fork, probe, seen, validation, test, norms, a) -> dict:
    """The atlas search: every pair of layers, k vectors, both signs, all scales; and draws of as many random vectors."""
    n_layers, d, found = network.shape.n_layers, network.shape.d_model, []
    for target in range(1, n_layers):
        V, _ = top_vectors(network, seen[: a.power_prompts], target, a.k, a.last)
        for source in range(target):
            found += [{**e, "target": target} for e in best_scales(probe, source, V[source], norms[source])]
    by_source = [[e["share"] for e in found if e["layer"] == s] for s in range(n_layers - 1)]
    report: dict = {"power_share": sum(e["share"] > 0.5 for e in found) / len(found), "power_count": len(found),
                    "power_by_source": [round(sum(x > 0.5 for x in s) / len(s), 3) for s in by_source]}  # fmt: skip
    ranks = [[e["share"] for e in found if e["index"] == r] for r in range(a.k)]
    report["power_by_rank"] = [round(sum(x > 0.5 for x in s) / len(s), 3) for s in ranks]
    report["power"] = describe(network, refine(network, found, validation, norms, a.keep), test)
    print(json.dumps(report), flush=True)
    report["random"], report["random_shares"], every = [], [], []
    for draw in range(a.draws):
        generator, drawn = torch.Generator().manual_seed(1000 + draw), []
        for source in range(n_layers - 1):
            units = torch.randn(a.k * (n_layers - 1 - source), d, generator=generator)
            units /= units.norm(dim=1, keepdim=True)
            drawn += best_scales(probe, source, units, norms[source])
        report["random_shares"].append(sum(e["share"] > 0.5 for e in drawn) / len(drawn))
        report["random"].append(describe(network, refine(network, drawn, validation, norms, a.keep), test))
        every += drawn
        print("random", report["random_shares"][-1], report["random"][-1], flush=True)
    shares = [[e["share"] > 0.5 for e in every if e["layer"] == s] for s in range(n_layers - 1)]
    report["random_by_source"] = [round(sum(s) / len(s), 3) for s in shares]
    print("random by source", report["random_by_source"], flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run of train_demo.py")
    parser.add_argument("--fork", choices=demo_corpus.FAMILIES, action="append", help="repeatable; default all")
    parser.add_argument("--search", action="store_true", help="also the search over power and random vectors")
    for name, value in {"tests": 200, "prompts": 8, "power-prompts": 4, "k": 12, "last": 1, "keep": 12, "draws": 5}.items():
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the reports as JSON lines")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    network = load_network(a.folder)
    for fork in a.fork or demo_corpus.FAMILIES:
        began = time.time()
        report = measure(network, fork, a)
        best = report["fisher_best"]
        print(f"{fork}: unsteered {report['unsteered']:.3f} forced {report['forced']:.3f} Fisher {best['test']:.3f} "
              f"from layer {best['layer']} x {best['scale']}, {math.ceil(time.time() - began)} s", flush=True)  # fmt: skip
        if a.out:
            with a.out.open("a") as out:
                out.write(json.dumps({"run": str(a.folder), **vars_of(a), **report}) + "\n")


def vars_of(a: argparse.Namespace) -> dict:
    return {key: getattr(a, key) for key in ("tests", "prompts", "power_prompts", "k", "last", "draws")}


if __name__ == "__main__":
    main()
