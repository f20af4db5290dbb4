"""The data of an atlas's report, as plain lists and dicts. A group of prompts is called a view there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .._version import __version__
from ..evaluate.effects import Effects
from .settings import FIELDS, Settings
from .store import Pair, Sketch

__all__ = ["page_cell", "page_data", "page_view"]

_OF_SKETCH = {"method": "sketch", "clusters": [], "cluster_open": False, "converged": False, "applications": 0}


def page_data(
    s: Settings, folder: Path | None, origin: str | None, views: list[dict[str, Any]], effects: Sequence[Effects | None]
) -> dict[str, Any]:
    """The whole page. origin: the path of the model; effects: those of every view."""
    parts = [part for part in effects if part]
    base = {e.prompt: e for part in parts for e in part.base}
    used: dict[str, Any] = parts[0].settings if parts else {"scales": [], "signs": []}
    steered = f"  # the atlas is of model.steered(...): {'; '.join(s.steering)}" if s.steering else ""
    atlas = "ps.atlas(model, prompts)" if folder is None else f"ps.Atlas.load({str(folder)!r})"
    return {
        "format": "powersteer-page-1",
        "title": f"Atlas of {s.model['name']}",
        "model": s.model,
        "version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {FIELDS.get(key, key): value for key, value in s.to_json().items() if key not in ("model", "prompts")}
        | {key: used[key] for key in ("max_new_tokens", "temperature", "samples") if key in used},
        "reproduce": {"load": f"model = ps.load({origin or s.model['name']!r}){steered}", "atlas": f"atlas = {atlas}"},
        "prompts": [
            {"name": p.name, "text": p.text, "n_tokens": len(p.tokens),
             "base_text": e.text if e else "", "base_score": e.score if e else None,
             "base_samples": e.samples if e else (), "base_sample_scores": e.sample_scores if e else ()}
            for i, p in enumerate(s.prompts) for e in [base.get(i)]
        ],
        "sources": list(s.sources),
        "targets": list(s.targets),
        "pairs": [[source, target] for source in s.sources for target in s.targets_of(source)],
        "views": views,
        "scales": used["scales"],
        "signs": used["signs"],
    }  # fmt: skip


def page_view(name: str, prompts: Sequence[int], cells: list[dict[str, Any]], effects: Effects | None) -> dict[str, Any]:
    """One group of prompts."""
    moved = {kind: [asdict(e) for e in getattr(effects, kind, ())] for kind in ("effects", "random")}
    return {"name": name, "prompts": list(prompts), "cells": cells, **moved}


def page_cell(result: Pair | Sketch, gain: list[float]) -> dict[str, Any]:
    """One pair, or its estimate."""
    filled = {"error": None} if isinstance(result, Pair) else {"residuals": [math.nan] * len(result.sigma), **_OF_SKETCH}
    cell = {**filled, **asdict(result), "gain": gain}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in cell.items() if key != "prompt_group"}
