"""Checks of page data, with one error that names the path of the first wrong value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput

__all__ = ["FORMAT", "check"]

FORMAT = "powersteer-page-1"
NUMBER = (int, float)
_PAGE = {
    "title": str, "model": Mapping, "version": str, "created": str, "settings": Mapping, "reproduce": Mapping,
    "prompts": list, "sources": list, "targets": list, "views": list, "scales": list, "signs": list,
}  # fmt: skip
_PROMPT = {"name": str, "text": str, "base_text": str}
_VIEW = {"name": str, "prompts": list, "cells": list, "effects": list, "random": list}
_CELL = {
    "source": int, "target": (int, str), "method": str, "sigma": list, "residuals": list, "clusters": list,
    "cluster_open": bool, "converged": bool, "applications": int, "site_norm": (*NUMBER, type(None)),
}  # fmt: skip
# Optional, since data of earlier versions lack them: in the page "pairs", of a prompt "base_score", "base_samples" and
# "base_sample_scores", of a cell "gain", of an effect "samples" and "sample_scores".
_EFFECT = {"source": int, "target": (int, str), "rank": int, "sign": int, "scale": NUMBER, "norm": NUMBER, "prompt": int}


def check(page: Any) -> None:
    """Raise InvalidInput with the path of the first wrong value, unless `page` is page data."""
    _fields("page data", page, _PAGE)
    if page.get("format") != FORMAT:
        raise InvalidInput(f"page data: format is {page.get('format')!r}, this version writes pages of {FORMAT!r}")
    for name in ("sources", "targets", "views"):
        _demand(len(page[name]) > 0, f"page data: {name} is empty; there is nothing to show")
    for i, prompt in enumerate(page["prompts"]):
        _fields(f"prompts[{i}]", prompt, _PROMPT)
        _check_samples(f"prompts[{i}]", prompt, "base_samples", "base_sample_scores")
    ends = set(page["sources"]), set(page["targets"])
    for pair in page.get("pairs", ()):
        known = len(pair) == 2 and all(end in some for end, some in zip(pair, ends, strict=True))
        _demand(known, f"page data: the pair {pair} of pairs is not in sources and targets")
    for i, view in enumerate(page["views"]):
        _check_view(f"views[{i}]", view, page)


def _check_view(where: str, view: Any, page: Mapping[str, Any]) -> None:
    _fields(where, view, _VIEW)
    prompts = range(len(page["prompts"]))
    _demand(all(p in prompts for p in view["prompts"]), f"{where}.prompts: {view['prompts']} are not all prompts")
    sources, targets, ranks = set(page["sources"]), set(page["targets"]), {}
    for i, cell in enumerate(view["cells"]):
        here = f"{where}.cells[{i}]"
        _fields(here, cell, _CELL)
        pair, k = (cell["source"], cell["target"]), len(cell["sigma"])
        _demand(pair[0] in sources and pair[1] in targets, f"{here}: {pair} is not in sources and targets")
        _demand(pair not in ranks, f"{here}: the pair {pair} occurs twice")
        _demand(k > 0 and len(cell["residuals"]) == k, f"{here}: sigma and residuals have {k} and {len(cell['residuals'])} entries")
        for name in ("error", "gain"):
            values = cell.get(name)
            _demand(values is None or len(values) == k, f"{here}: {name} must be null or have {k} entries")
        members = [r for ranks_ in cell["clusters"] for r in ranks_]
        _demand(all(r in range(k) for r in members), f"{here}: clusters {cell['clusters']} are not ranks below {k}")
        ranks[pair] = k
    for i, effect in enumerate(view["effects"]):
        _fields(f"{where}.effects[{i}]", effect, _EFFECT)
        pair = effect["source"], effect["target"]
        _demand(pair in ranks, f"{where}.effects[{i}]: the pair {pair} has no cell")
        _check_samples(f"{where}.effects[{i}]", effect, "samples", "sample_scores")
        known = 0 <= effect["rank"] < ranks[pair] and effect["prompt"] in prompts
        _demand(known, f"{where}.effects[{i}]: rank {effect['rank']} or prompt {effect['prompt']} is out of range")
    for i, effect in enumerate(view["random"]):
        _fields(f"{where}.random[{i}]", effect, _EFFECT)
        _check_samples(f"{where}.random[{i}]", effect, "samples", "sample_scores")
        known = effect["source"] in sources and effect["prompt"] in prompts
        _demand(known, f"{where}.random[{i}]: source {effect['source']} or prompt {effect['prompt']} is not on the page")


def _check_samples(where: str, item: Mapping[str, Any], texts: str, scores: str) -> None:
    generated, worth = item.get(texts) or (), item.get(scores) or ()
    _demand(all(isinstance(text, str) for text in generated), f"{where}: {texts} must be texts")
    _demand(len(worth) in (0, len(generated)), f"{where}: {scores} has {len(worth)} entries for {len(generated)} of {texts}")


def _fields(where: str, value: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} must be a dict, got {type(value).__name__}; Atlas.page_data() makes page data")
    for name, kind in kinds.items():
        if not isinstance(value.get(name), kind):
            found = f"is {type(value[name]).__name__}" if name in value else "is missing"
            raise InvalidInput(f"{where}: {name} {found}; Atlas.page_data() makes page data")


def _demand(fact: bool, message: str) -> None:
    if not fact:
        raise InvalidInput(message)
