"""Latent behaviours: texts under the vectors of a map that neither many samples nor random vectors reach, counted by clusters.

    python studies/latent.py MODEL --out FOLDER            # the whole study, into FOLDER and docs/studies/latent.md
    python studies/latent.py MODEL --out FOLDER --quick    # the same code on little; its figures mean nothing

Stopped at any moment, it goes on from what the folder holds.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fork_kinds import KINDS
from items import UNRELATED, chat, split
from numpy.typing import NDArray
from page import add_arguments, folder_of
from results import Results, settings_of
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from selection import at_budget, both_signs, random_draws

import powersteer as ps

__all__ = [
    "BUDGETS", "DISTANCES", "FULL", "PROMPTS", "QUICK", "Latent", "Sizes", "clusters", "compression_distances", "cosine_distances",
    "count", "latent", "run",
]  # fmt: skip

PROMPTS = ("What makes a good life?", "Write a short story about a lighthouse.", "Hello!")
BUDGETS = (0.3, 1.0)  # nats
Bools = NDArray[np.bool_]
Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """How much is computed. Pairs are those of a model of 30 layers; others take the same depths."""

    prompts: int = len(PROMPTS)
    samples: int = 1000
    chunk: int = 125  # samples that are kept together
    tokens: int = 32
    unrelated: int = 6
    plain: int = 7  # validation prompts of each kind of fork, whose unsteered answers say what is coherent
    pairs: tuple[tuple[int, int], ...] = ((2, 14), (2, 26), (8, 14), (8, 26), (14, 20), (14, 26), (20, 24), (20, 28))


FULL = Sizes()
QUICK = Sizes(prompts=1, samples=8, chunk=4, tokens=6, unrelated=2, plain=1, pairs=((4, 20), (8, 26)))


# ---- distances and clusters


def cosine_distances(X: Array) -> Array:
    """(n, n) of the rows of X (n, d)."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    return np.clip(1 - unit @ unit.T, 0, None) * (1 - np.eye(len(X)))


def compression_distances(texts: Sequence[str]) -> Array:
    """(n, n) normalised compression distances of texts, by zlib; 0 for equal texts."""
    data = [text.encode() for text in texts]
    alone = [len(zlib.compress(d, 9)) for d in data]
    out = np.zeros((len(data), len(data)))
    for i, one in enumerate(data):
        for j in range(i):
            if one != data[j]:
                together = len(zlib.compress(data[j] + b"\n" + one, 9))
                out[i, j] = out[j, i] = (together - min(alone[i], alone[j])) / max(alone[i], alone[j])
    return out


DISTANCES = {"activations": "cosine of mean activations", "compression": "compression"}


def clusters(distances: Array, sampled: Bools) -> tuple[Array, float]:
    """(labels (n,) of average linkage, the threshold): the 95th percentile of a sample's distance to its nearest other one."""
    between = distances[np.ix_(sampled, sampled)] + np.diag(np.full(sampled.sum(), np.inf))
    threshold = float(np.percentile(between.min(1), 95))
    return fcluster(linkage(squareform(distances, checks=False), "average"), threshold, "distance"), threshold


def latent(labels: Array, treated: Array, others: Bools, counts: Bools | None = None) -> list[int]:
    """Labels of clusters that hold counted texts of at least two vectors and none of the others' texts.

    treated: (n,) names of the vectors whose texts these are, "" for other texts.
    """
    counts = np.ones(len(labels), bool) if counts is None else counts
    free = set(labels[treated != ""].tolist()) - set(labels[others].tolist())
    return sorted(c for c in free if len(set(treated[(labels == c) & (treated != "") & counts])) >= 2)


def count(distances: Array, sampled: Bools, treated: Array, control: Bools, counts: Bools | None = None) -> int:
    """Number of latent clusters among these texts alone: samples, treated ones and the control."""
    kept = sampled | (treated != "") | control
    labels, _ = clusters(distances[np.ix_(kept, kept)], sampled[kept])
    return len(latent(labels, treated[kept], (sampled | control)[kept], None if counts is None else counts[kept]))


# ---- texts


@dataclass
class Latent:
    """The study of one prompt: its texts, their embeddings, and which of them are coherent."""

    model: ps.Model
    results: Results
    sizes: Sizes
    index: int

    @property
    def prompt(self) -> list[dict[str, str]]:
        return chat(PROMPTS[self.index])

    def _vectors(self, kind: str) -> list[ps.SteeringVector]:
        """Of the map of this prompt, or random ones at the same sites, which all prompts share: signed, at both budgets."""
        depth = self.model.n_layers - 1
        pairs = [(round(s * depth / 29), round(t * depth / 29)) for s, t in self.sizes.pairs]

        def compute() -> list[ps.SteeringVector]:
            if kind == "map":
                found = [v for pair in pairs for v in ps.power_vectors(self.model, self.prompt, *pair, k=2, tol=1e-2)]
            else:
                (found,) = random_draws([ps.random_vectors(self.model, s)[0] for s, _ in pairs for _ in range(2)], 1)
            prompts = [chat(text) for text in UNRELATED[: self.sizes.unrelated]]
            return [v for kl in BUDGETS for v in at_budget(self.model, prompts, both_signs(found), kl) if v is not None]

        return self.results.vectors(f"{self.index}.map" if kind == "map" else "random", compute)

    def steered(self, kind: str) -> list[dict[str, Any]]:
        """Greedy texts: tokens, text, the vector's name (without its sign), its pair and scale."""

        def compute() -> list[dict[str, Any]]:
            vectors = self._vectors(kind)
            made = self.model.generate([self.prompt] * len(vectors), max_new_tokens=self.sizes.tokens, steer=vectors)
            return [{**_kept(g), **_about(v)} for g, v in zip(made, vectors, strict=True)]

        return self.results.once(f"{self.index}.{kind}.texts", compute)

    def samples(self) -> list[dict[str, Any]]:
        """Texts at temperature 1, with seeds from 0 on."""
        n, chunk = self.sizes.samples, self.sizes.chunk
        return [one for start in range(0, n, chunk) for one in self.results.once(
            f"{self.index}.samples {start}",
            lambda start=start: [_kept(g) for g in self.model.generate(
                [self.prompt] * min(chunk, n - start), max_new_tokens=self.sizes.tokens, temperature=1.0, seed=start
            )],
        )]  # fmt: skip

    def texts(self) -> list[dict[str, Any]]:
        """All of them: samples, then those of the map, then those of random vectors."""
        return [{"kind": kind, "vector": "", **one} for kind in ("sample", "map", "random") for one in (
            self.samples() if kind == "sample" else self.steered(kind)
        )]  # fmt: skip

    def embeddings(self) -> Array:
        """(texts, d): mean activation over a text's tokens in the plain model, after two thirds of its blocks."""

        def compute() -> Array:
            prompt = self.model.tokens(self.prompt)
            full = [np.concatenate([prompt, one["tokens"]]).astype(np.int32) for one in self.texts()]
            site, first = (round(2 * self.model.n_layers / 3) - 1, "resid_post"), len(prompt)
            parts = [self.model.activations(full[i : i + 128], site) for i in range(0, len(full), 128)]
            return np.array([a[min(first, len(a) - 1) :].mean(0) for part in parts for a in part])

        return self.results.array(f"{self.index}.embeddings", compute)

    def distances(self) -> dict[str, Array]:
        texts = [one["text"] for one in self.texts()]
        by_text = self.results.array(f"{self.index}.compression", lambda: compression_distances(texts).astype(np.float32))
        return {"activations": cosine_distances(self.embeddings().astype(np.float64)), "compression": by_text.astype(np.float64)}

    def limits(self) -> dict[str, float]:
        """Of a coherent text: 95th percentiles of the plain model's greedy answers."""

        def compute() -> dict[str, float]:
            topics = [(kind, topic) for kind in KINDS for topic in split(kind.topics, "validation", self.sizes.plain)]
            prompts = [chat(kind.phrasings[0].format(topic)) for kind, topic in topics]
            made = self.model.generate(prompts, max_new_tokens=self.sizes.tokens)
            read = [float(ps.evaluate.perplexity(self.model, [g.prompt_tokens], continuation=[g])) for g in made]
            repeated = [ps.evaluate.repetition(g).value for g in made]
            return {"repetition": float(np.percentile(repeated, 95)), "perplexity": float(np.percentile(read, 95))}

        return self.results.once("limits", compute)

    def coherent(self) -> Bools:
        """Whether each text is; that of samples is not asked and False."""

        def compute() -> list[bool]:
            limits, prompt = self.limits(), self.model.tokens(self.prompt)
            texts, told = self.texts(), list[bool]()
            for one in texts:
                repeated = ps.evaluate.repetition(one["tokens"]).value
                told.append(one["kind"] != "sample" and bool(one["tokens"]) and repeated <= limits["repetition"])
            kept = [i for i, ok in enumerate(told) if ok]
            nats = self.model.logprobs(prompt, [texts[i]["tokens"] for i in kept]) if kept else []
            for i, logs in zip(kept, nats, strict=True):
                told[i] = bool(np.exp(-logs.mean()) <= limits["perplexity"])
            return told

        return np.array(self.results.once(f"{self.index}.coherent", compute))

    # ---- counts

    def counted(self) -> Iterator[dict[str, Any]]:
        """For each distance, with and without the demand of coherence: clusters of the map, and of halves of map and random
        vectors against the other half of the random ones (means over the halves)."""
        texts = self.texts()
        kind, vector = (np.array([one[k] for one in texts]) for k in ("kind", "vector"))
        names = {k: list(dict.fromkeys(vector[kind == k])) for k in ("map", "random")}
        halves = {k: [np.isin(vector, names[k][start::2]) for start in (0, 1)] for k in names}
        sampled, coherent = kind == "sample", self.coherent()
        for name, distances in self.distances().items():
            for counts in (None, coherent):
                def number(treated: Bools, control: Bools, d: Array = distances, c: Bools | None = counts) -> int:
                    return count(d, sampled, np.where(treated, vector, ""), control, c)

                yield {
                    "distance": name, "coherent": counts is not None, "map": number(kind == "map", kind == "random"),
                    "random": number(kind == "random", kind == "map"),
                    "half map": float(np.mean([number(m, r) for m in halves["map"] for r in halves["random"]])),
                    "half random": float(np.mean([number(halves["random"][i], halves["random"][1 - i]) for i in (0, 1)])),
                }  # fmt: skip

    def found(self, distance: str) -> list[list[dict[str, Any]]]:
        """The latent clusters of the map: their texts, each with "coherent"."""
        texts, coherent = self.texts(), self.coherent()
        kind, vector = (np.array([one[k] for one in texts]) for k in ("kind", "vector"))
        labels, _ = clusters(self.distances()[distance], kind == "sample")
        chosen = latent(labels, np.where(kind == "map", vector, ""), kind != "map")
        return [[{**texts[i], "coherent": bool(coherent[i])} for i in np.flatnonzero(labels == c)] for c in chosen]

    def counts(self) -> list[dict[str, Any]]:
        """What `counted` yields, kept."""
        return self.results.once(f"{self.index}.counts", lambda: list(self.counted()))

    def done(self) -> bool:
        """Whether `compute` has come to its end."""
        return self.results.has(f"{self.index}.counts")

    def compute(self) -> None:
        for step in (lambda: self.steered("map"), lambda: self.steered("random"), self.samples, self.distances, self.coherent, self.counts):
            step()
            print(f"{time.strftime('%H:%M:%S')} {PROMPTS[self.index]}", flush=True)


def _kept(g: ps.Generation) -> dict[str, Any]:
    return {"text": g.text, "tokens": (g.tokens[:-1] if g.finish_reason == "stop" else g.tokens).tolist()}


def _about(v: ps.SteeringVector) -> dict[str, Any]:
    name = f"{v.layer}:{hashlib.sha256(np.abs(v.direction).tobytes()).hexdigest()[:8]}"
    target = "" if v.target is None else f" → {v.target.layer}, rank {v.rank}"
    budget = None if v.calibration is None else v.calibration.budget
    return {"vector": name, "about": f"{v.layer}{target}, {'+' if v.scale > 0 else '−'}, {budget:g} nats"}


def run(model: ps.Model, results: Results, sizes: Sizes, prompts: Sequence[int] | None = None) -> list[Latent]:
    """Compute what is missing, of some prompts or of all. Returns the studies of all."""
    studies = [Latent(model, results, sizes, i) for i in range(sizes.prompts)]
    for i in range(sizes.prompts) if prompts is None else prompts:
        studies[i].compute()
    return studies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, choices=range(len(PROMPTS)), action="append", help="compute only this (again for more)")
    parser.add_argument("--threads", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    from latent_page import write_page

    sizes = QUICK if args.quick else FULL
    model = ps.load(args.model, threads=args.threads)
    results = Results(args.out, settings_of(args.model, model, sizes), reads_only=args.only_page)
    studies = run(model, results, sizes, () if args.only_page else args.prompt)
    write_page(studies, folder_of(args) / "latent.md")


if __name__ == "__main__":
    main()
