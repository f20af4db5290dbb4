"""Train the built-in model: plain next-token prediction on the corpus of demo_corpus.py.

    python tools/train_demo.py runs/demo   # start, or carry on from the last checkpoint
    python tools/train_demo.py runs/demo --export powersteer/demo/demo_model

A run is a function of its settings: batches come from (seed, step), dropout from a generator whose state is kept in the
checkpoint. The folder holds settings.json, log.jsonl and checkpoint.pt (weights, optimiser, generator, step).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import demo_corpus
import torch
import torch.nn.functional as F
from demo_network import Network, Shape
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    shape: Shape = field(default_factory=lambda: Shape(len(demo_corpus.IDS)))
    recipe: demo_corpus.Recipe = field(default_factory=demo_corpus.Recipe)
    steps: int = 3000
    rows: int = 16  # sequences a batch
    length: int = 128  # tokens a sequence
    rate: float = 2e-3  # peak learning rate
    warmup: int = 100
    decay_from: float = 0.6  # share of the steps after which the rate falls linearly to zero
    weight_decay: float = 0.5  # on matrices only
    dropout: float = 0.2  # on what attention and MLP add to the residual stream; not in the shipped model
    seed: int = 0


def learning_rate(s: Settings, step: int) -> float:
    fall = (s.steps - step) / (s.steps * (1.0 - s.decay_from))
    return s.rate * min(1.0, (step + 1) / s.warmup, fall)


def document_mask(owners: Tensor) -> Tensor:
    """Additive causal mask (B, 1, T, T) that keeps each document to itself; owners (B, T) document numbers."""
    same = owners[:, :, None] == owners[:, None, :]
    seen = same & torch.ones(owners.shape[1], owners.shape[1], dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]


def loss_of(network: Network, s: Settings, step: int) -> Tensor:
    tokens, owners = demo_corpus.batch(s.seed, step, s.rows, s.length, s.recipe, step / s.steps)
    tokens, owners = torch.tensor(tokens), torch.tensor(owners)
    logits = network(tokens[:, :-1], document_mask(owners[:, :-1]))
    targets = tokens[:, 1:].masked_fill(owners[:, 1:] != owners[:, :-1], -100)  # a document does not predict the next
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def optimiser_of(network: Network, s: Settings) -> torch.optim.AdamW:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": s.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=s.rate, betas=(0.9, 0.95), fused=True)


def save(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(folder: Path, s: Settings, every: int = 100) -> None:
    torch.manual_seed(s.seed)
    network = Network(s.shape, s.dropout)
    network.initialise()
    network.train()
    optimiser, step, checkpoint = optimiser_of(network, s), 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["generator"])
        step = state["step"]
    total, began = 0.0, time.process_time()
    while step < s.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(s, step)
        loss = loss_of(network, s, step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step, total = step + 1, total + loss.item()
        if step % every == 0 or step == s.steps:
            count = every if step % every == 0 else step % every
            line = {"step": step, "loss": round(total / count, 4), "grad_norm": round(norm.item(), 3),
                    "cpu_seconds": round(time.process_time() - began, 1)}  # fmt: skip
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            total = 0.0
            save(checkpoint, {"weights": network.state_dict(), "optimiser": optimiser.state_dict(),
                              "generator": torch.get_rng_state(), "step": step})  # fmt: skip


def load_settings(folder: Path) -> Settings:
    raw = json.loads((folder / "settings.json").read_text())
    raw["recipe"]["weights"] = tuple(raw["recipe"]["weights"])
    return Settings(**{**raw, "shape": Shape(**raw["shape"]), "recipe": demo_corpus.Recipe(**raw["recipe"])})


def load_network(folder: Path) -> Network:
    """The network of a run's last checkpoint, its weights rounded to bfloat16 as they ship, in float32, no dropout."""
    network = Network(load_settings(folder).shape)
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["weights"]
    network.load_state_dict({name: w.bfloat16().float() for name, w in weights.items()})
    return network.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the last checkpoint as a Hugging Face folder and stop")
    kinds = {"steps": int, "rows": int, "rate": float, "dropout": float, "seed": int, "weight_decay": float}
    for name, kind in kinds.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind)
    parser.add_argument("--shape", default="{}", help='JSON, such as {"d_model": 256, "n_heads": 8}')
    parser.add_argument("--recipe", default="{}", help='JSON, such as {"mood_end": 0.2}')
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.export:
        from demo_export import export

        export(a.folder, a.export)
        return
    a.folder.mkdir(parents=True, exist_ok=True)
    if (a.folder / "settings.json").exists():
        settings = load_settings(a.folder)
    else:
        given = {name: getattr(a, name) for name in kinds if getattr(a, name) is not None}
        base = Settings(**given)
        settings = replace(base, shape=replace(base.shape, **json.loads(a.shape)),
                           recipe=replace(base.recipe, **json.loads(a.recipe)))  # fmt: skip
        (a.folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    assert {f.name for f in fields(Settings)} >= set(kinds)
    train(a.folder, settings)


if __name__ == "__main__":
    main()
