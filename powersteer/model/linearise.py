"""From the arguments of `Model.jacobian` to the core's linearisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Prompts
from ..inputs.sites import HEADS, Site, SiteLike, near_head, precedes, resolve_site
from ..vectors.interventions import core_steering
from .jacobian import Linearization
from .loaded import LoadedModel

__all__ = ["LAST_TWO", "linearise", "rows_of", "target_of"]

LAST_TWO = slice(-2, None)  # the default target positions of a site; recognised by identity


def target_of(model: LoadedModel, source: Site, target: int | SiteLike, name: str | None) -> Site | str:
    """The site that `target` and `target_site` name, or "logits" or "next_token". Raises InvalidInput unless the source
    comes before it in the computation."""
    if isinstance(target, str) and target in HEADS:
        if name is not None:
            raise InvalidInput(f"target {target!r} has no site, but target_site is {name!r}; leave it out")
        return target
    if isinstance(target, str) and (hint := near_head(target)):
        raise InvalidInput(f"there is no target {target!r}: {hint}A target is a layer, a site, or {' or '.join(HEADS)}")
    end = resolve_site(target, name, **model._site_rules)
    if not precedes(source, end, model.spec.parallel):
        raise InvalidInput(f"the source {source} does not come before the target {end} in the model's computation; swap them?")
    return end


def rows_of(target: Site | str, positions: Positions, length: int, head_at_last: bool = False) -> NDArray[np.int32]:
    """(n,) target positions in a prompt of this length: of "logits" and "next_token" by default the last, and always
    with head_at_last."""
    if isinstance(target, str) and (head_at_last or positions is LAST_TWO):
        positions = -1
    return prompt_positions(positions, length)


def linearise(
    model: LoadedModel,
    prompts: Prompts,
    groups: Sequence[tuple[int | SiteLike, Sequence[tuple[int | SiteLike, str | None]]]],
    *,
    source_site: str | None,
    target_positions: Positions,
    source_positions: Positions,
    reduce: str,
    heads_at_last: bool = False,
) -> tuple[Any, list[Linearization], list[tuple[int, int]]]:
    """(the core's Jacobian, a description of each pair, its indices of source and target there), from one forward pass.

    groups: sources, and the (target, target_site) of each. heads_at_last: "logits" and "next_token" are taken at the last
    position, whatever target_positions is.
    """
    encoded, tokens, _ = model._read(prompts)
    starts = [resolve_site(source, source_site, **model._site_rules) for source, _ in groups]
    if reduce not in ("stack", "mean"):
        raise InvalidInput(f"reduce is {reduce!r}; it must be 'stack' or 'mean'")
    lengths = [len(t) for t in tokens]
    rows_in = tuple(prompt_positions(source_positions, n) for n in lengths)
    read = tuple(encoded), tuple(tokens), rows_in
    rows_out: dict[Site | str, tuple[NDArray[np.int32], ...]] = {}  # of each target, in the core's order
    made, pairs = [], []
    for source, (start, (_, targets)) in enumerate(zip(starts, groups, strict=True)):
        for target, target_site in targets:
            end = target_of(model, start, target, target_site)
            if reduce == "mean" and end == "next_token":
                raise InvalidInput(
                    "reduce='mean' does not go with target='next_token': rows of different distributions have no mean"
                )
            rows = rows_out.setdefault(end, tuple(rows_of(end, target_positions, n, heads_at_last) for n in lengths))
            made.append(Linearization(start, end, reduce, *read, rows, model.steering, model.identity))
            pairs.append((source, list(rows_out).index(end)))
    with model._loaded.computing():
        core = model._loaded.module.Jacobian(
            model._loaded.core, tokens, core_steering(model._steering, lengths, lengths), [(s.layer, s.index) for s in starts],
            [end if isinstance(end, str) else (end.layer, end.index) for end in rows_out], [list(rows_in)] * len(starts),
            [list(rows) for rows in rows_out.values()], reduce == "mean",
        )  # fmt: skip
    return core, made, pairs
