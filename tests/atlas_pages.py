"""Made-up page data of any size, for tests of the report: plausible spectra, effects and texts, with what goes wrong in
real ones: missing pairs, cells that did not converge, NaN, and prompts that are HTML."""

from __future__ import annotations

import math

import numpy as np

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> & </script><!-- "quoted" \\ \u2028 é 日本'
NEXT = "next_token"
WORDS = (
    "the a little girl named Lily and her mom went to park saw big red ball she was happy wanted play with it but "
    "dog ran away so they said no let us find him tree was very tall bird could not fly home because rain came down "
    "one day there once upon time friend box car boat water sun cake jump look smile help share toy good bad hard"
).split()


def page(n_layers=6, n_prompts=2, k=4, scales=(0.35, 1.0), words=40, draws=4, next_token=True, seed=0, logits=("yes", " no"), samples=0):
    """Page data of n_layers, a stacked view and one view a prompt; `words` in each continuation, 0 for none; `samples`
    of each besides."""
    rng = np.random.default_rng([seed, n_layers, n_prompts, k])
    sources = list(range(n_layers - 1))
    targets = [*range(1, n_layers), *([NEXT] if next_token else [])]
    texts = ["Once upon a time there was a little girl. " + sentence(rng, 12) for _ in range(n_prompts)]
    texts[0] = HOSTILE
    prompts = [
        {"name": f"prompt {i}" if i else "prompt 0 <b>bold</b>", "text": text, "n_tokens": len(text.split()),
         "base_text": sentence(rng, words), "base_score": 1.0, "base_samples": [sentence(rng, words) for _ in range(samples)],
         "base_sample_scores": [float(i % 2) for i in range(samples)]}
        for i, text in enumerate(texts)
    ]
    groups = ([list(range(n_prompts))] if n_prompts > 1 else []) + [[i] for i in range(n_prompts)]
    make = View(rng, sources, targets, k, scales, draws, prompts, words, logits, samples)
    return {
        "format": "powersteer-page-1",
        "title": "Atlas of a <made-up> model & co",
        "model": {"name": "made-up-6", "model_type": "llama", "weights": "0123456789abcdef", "n_layers": n_layers, "d_model": 64},
        "version": "0.1",
        "created": "2026-01-02T03:04:05Z",
        "settings": {"k": k, "tol": 1e-2, "source_site": "mlp_out", "target_site": "mlp_out", "positions": "slice(-2, None)",
                     "seed": 0, "dtype": "float32", "max_new_tokens": words,
                     "temperature": 0.7 if samples else 0.0, "stopped_at": math.nan},
        "reproduce": {"load": "model = ps.load('made-up-6')", "atlas": "atlas = ps.Atlas.load('run/')"},
        "prompts": prompts,
        "sources": sources,
        "targets": targets,
        "pairs": [[s, t] for s in sources for t in targets if t == NEXT or t > s],
        "views": [make.view(group) for group in groups],
        "scales": list(scales),
        "signs": [1, -1],
    }  # fmt: skip


def sentence(rng, n):
    return " ".join(np.array(WORDS)[rng.integers(0, len(WORDS), n)]) if n else ""


class View:
    def __init__(self, rng, sources, targets, k, scales, draws, prompts, words, logits, samples):
        self.samples = samples
        self.rng, self.sources, self.targets, self.k, self.scales = rng, sources, targets, k, scales
        self.draws, self.prompts, self.words, self.logits = draws, prompts, words, logits

    def view(self, group):
        cells = [self.cell(s, t) for s in self.sources for t in self.targets if t == NEXT or t > s]
        if len(cells) > 8:
            cells.pop(5)  # a pair that is not there yet
            cells[2] |= {"method": "sketch", "converged": False, "error": [0.1 * x for x in cells[2]["sigma"]]}
        steered = [
            self.effect(c["source"], c["target"], r, sign, scale, p, c["site_norm"], 1 + 3 * c["sigma"][r] / c["sigma"][0])
            for c in cells[:-1] for r in range(self.k) for sign in (1, -1) for scale in self.scales for p in group
        ]  # fmt: skip
        steered[0]["kl_continuation"] = math.nan
        steered[1]["perplexity"] = None
        random = [
            self.effect(s, "random", r, sign, scale, p, self.norm(s), 1)
            for s in self.sources for r in range(self.draws) for sign in (1, -1) for scale in self.scales for p in group
        ]  # fmt: skip
        name = f"{len(group)} prompts stacked" if len(group) > 1 else f"prompt {group[0]} alone <i>"
        return {"name": name, "prompts": group, "cells": cells, "effects": steered, "random": random}

    def norm(self, source):
        return 0.5 + 0.25 * source

    def cell(self, source, target):
        depth = len(self.targets) if target == NEXT else target
        first = math.exp(0.12 * (depth - source) - 0.03 * source + self.rng.normal(0, 0.15)) * (0.2 if target == NEXT else 4)
        sigma = first * np.sort((1 + np.arange(self.k)) ** -0.35 * (1 + 0.02 * self.rng.random(self.k)))[::-1]
        gain = sigma * self.norm(source) / (1 if target == NEXT else 2.0**target)
        residuals = 10 ** self.rng.uniform(-4.5, -2, self.k)
        return {
            "source": source, "target": target, "method": "krylov", "sigma": sigma.tolist(), "gain": gain.tolist(),
            "residuals": residuals.tolist(),
            "clusters": [[2, 3]] if self.k > 3 and self.rng.random() < 0.5 else [], "cluster_open": bool(self.rng.random() < 0.1),
            "converged": True, "applications": int(self.rng.integers(30, 60)), "site_norm": self.norm(source), "error": None,
        }  # fmt: skip

    def effect(self, source, target, rank, sign, scale, prompt, norm, strength):
        noise = float(self.rng.lognormal(0, 0.4))
        kl = 0.2 * strength * scale**2 * noise * (1 + 0.2 * sign)
        base = self.prompts[prompt]["base_text"].split()
        words = list(np.array(WORDS)[self.rng.integers(0, len(WORDS), len(base))])
        keep = self.rng.integers(0, len(base) + 1)
        return {
            "source": source, "site": "mlp_out", "target": target, "rank": rank, "sign": sign, "scale": scale,
            "norm": scale * norm, "prompt": prompt, "kl_end": kl, "kl_continuation": 0.6 * kl,
            "linearity": math.nan if target == "random" else min(1.5, 0.3 * scale * noise),
            "logit_change": {token: sign * kl * (1 - 2 * i) for i, token in enumerate(self.logits)},
            "text": " ".join(base[:keep] + words[keep:]), "repetition": min(1.0, 0.1 * noise), "compression": 0.6,
            "perplexity": 5 + 10 * kl, "score": float(noise > 1.2),
            "samples": [sentence(self.rng, len(base)) for _ in range(self.samples)],
            "sample_scores": [float(x > 0.5) for x in self.rng.random(self.samples)],
        }  # fmt: skip
