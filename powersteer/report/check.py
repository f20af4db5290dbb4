"""Checks of page data, with one error that names the path of the first wrong value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
# Optional, since data of earlier versions lack them: in the page "pairs" and "strength" ("kl": scales are budgets), of a prompt
# "base_score", "base_samples" and "base_sample_scores", of a cell "gain", of an effect "samples" and "sample_scores".
_EFFECT = {"source": int, "target": (int, str), "rank": int, "sign": int, "scale": NUMBER, "norm": NUMBER, "prompt": int}


def check(page: Any) -> None:
    """Raise InvalidInput with the path of the first wrong value, unless `page` is page data."""
    _fields("page data", page, _PAGE)
    if page.get("format") != FORMAT:
        raise InvalidInput(f"page data: format is {page.get('format')!r}, this version writes pages of {FORMAT!r}")
    for name in ("sources", "targets", "views"):
        _demand(len(page[name]) > 0, f"page data: {name} is empty; there is nothing to show")
    for where, prompt in _each("prompts", page["prompts"], _PROMPT):
        _check_samples(where, prompt, "base_samples", "base_sample_scores")
    ends = set(page["sources"]), set(page["targets"])
    for pair in page.get("pairs", ()):
        known = len(pair) == 2 and all(end in some for end, some in zip(pair, ends, strict=True))
        _demand(known, f"page data: the pair {pair} of pairs is not in sources and targets")
    for where, view in _each("views", page["views"], _VIEW):
        _check_view(where, view, page)


def _check_view(where: str, view: Mapping[str, Any], page: Mapping[str, Any]) -> None:
    prompts = range(len(page["prompts"]))
    _demand(all(p in prompts for p in view["prompts"]), f"{where}.prompts: {view['prompts']} are not all prompts")
    sources, targets, ranks = set(page["sources"]), set(page["targets"]), {}
    for here, cell in _each(f"{where}.cells", view["cells"], _CELL):
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
    for here, effect in _each(f"{where}.effects", view["effects"], _EFFECT):
        pair = effect["source"], effect["target"]
        _demand(pair in ranks, f"{here}: the pair {pair} has no cell")
        _check_samples(here, effect, "samples", "sample_scores")
        known = 0 <= effect["rank"] < ranks[pair] and effect["prompt"] in prompts
        _demand(known, f"{here}: rank {effect['rank']} or prompt {effect['prompt']} is out of range")
    for here, effect in _each(f"{where}.random", view["random"], _EFFECT):
        _check_samples(here, effect, "samples", "sample_scores")
        known = effect["source"] in sources and effect["prompt"] in prompts
        _demand(known, f"{here}: source {effect['source']} or prompt {effect['prompt']} is not on the page")


def _each(where: str, items: Any, kinds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every item that has these fields, and its path."""
    for i, item in enumerate(items):
        _fields(f"{where}[{i}]", item, kinds)
        yield f"{where}[{i}]", item


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
