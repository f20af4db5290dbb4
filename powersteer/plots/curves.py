"""Effects by scale, and their distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from ..evaluate.effect_table import Effects, push, strength
from .axes import GREY, Axes, axes_for, heading, plain_text, require_type
from .measures import Sample, means, measure_label

__all__ = ["effect_curve", "violin"]

SIGNS = ((1, "+v", "#0072B2", "^"), (-1, "−v", "#D55E00", "v"))  # two colours of Okabe and Ito, with different shapes as well


@deprecated_arguments(2, what="value")
def effect_curve(effects: Effects, value: str = "kl_end", *, ax: Axes | None = None) -> Axes:
    """Draw an effect by scale: both signs of every vector, with the range and median of random vectors of the same norms.

    Parameters
    ----------
    effects : Effects
        Effects of vectors at one site of one layer, as `effects.where(source=3, target=9, rank=0)`.
    value : str
        "kl_end", "kl_continuation", "linearity", "repetition", "compression", "perplexity", "score" or "logit_change[token]";
        means over the prompts.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        For effects of more than one source, and for a value that was not measured.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> vec = model.jacobian("Task: 3 * 4 =", 0, 2).svd(1).vectors[0]
    >>> effects = ps.effects(model, "Task: 3 * 4 =", vec, scales=[0.5, 1.0], max_new_tokens=0)
    >>> ps.plots.effect_curve(effects).get_ylabel()
    "KL at the prompt's end (nats)"
    """
    vectors, random = _sampled(effects, value, "effect_curve")
    sources = sorted({f"{e.site} of layer {e.source}" for e, _ in vectors})
    if len(sources) > 1:
        raise InvalidInput(f"effect_curve: effects at {sources[0]} and {sources[1]}; choose one by effects.where(source=...)")
    ax = axes_for(ax)
    if random:
        _draw_band(ax, random)
    lines: dict[Any, list[tuple[float, float]]] = {}
    for e, x in vectors:
        lines.setdefault((e.sign, e.vector, e.target, e.rank), []).append((strength(e), x))
    faint = max(0.3, 1 / math.sqrt(len(lines)))
    for sign, name, colour, marker in SIGNS:
        of_sign = [sorted(points) for key, points in lines.items() if key[0] == sign]
        for i, points in enumerate(of_sign):
            ax.plot(*zip(*points, strict=True), color=colour, marker=marker, alpha=faint if len(lines) > 2 else 1.0,
                    label="_" if i else name)  # fmt: skip
    ax.legend(fontsize="small")
    _label(ax, effects, vectors, value, sources[0])
    return ax


def _draw_band(ax: Axes, random: Sample) -> None:
    """Range and median of the random draws, both signs, at every scale."""
    scales = sorted({strength(e) for e, _ in random})
    draws = [[x for e, x in random if strength(e) == s] for s in scales]
    if len(scales) == 1:
        scales, draws = [0.9 * scales[0], 1.1 * scales[0]], draws * 2
    label = f"{len({e.rank for e, _ in random})} random vectors, range"
    ax.fill_between(scales, [*map(min, draws)], [*map(max, draws)], color=GREY, alpha=0.25, linewidth=0, label=label)
    ax.plot(scales, [*map(np.median, draws)], color=GREY, linestyle=":", label="their median")


@deprecated_arguments(2, what="value")
def violin(effects: Effects, value: str = "kl_end", *, ax: Axes | None = None) -> Axes:
    """Draw the distribution of an effect over vectors and signs, next to that of random vectors, at every scale.

    The bars are medians and extremes.

    Parameters
    ----------
    effects : Effects
        Effects of any vectors.
    value, ax
        As for `effect_curve`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        For a value that was not measured.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> vectors = model.jacobian("Task: 3 * 4 =", 0, 2).svd(3).vectors
    >>> effects = ps.effects(model, "Task: 3 * 4 =", vectors, scales=[0.5], max_new_tokens=0)
    >>> ps.plots.violin(effects).get_ylabel()
    "KL at the prompt's end (nats)"
    """
    vectors, random = _sampled(effects, value, "violin")
    ax = axes_for(ax)
    scales = sorted({strength(e) for e, _ in vectors})
    handles = []
    groups = ((vectors, -0.21, SIGNS[0][2], "vectors"), (random, 0.21, GREY, "random vectors"))
    for records, shift, colour, name in groups:
        data = {i: some for i, s in enumerate(scales) if (some := [x for e, x in records if strength(e) == s])}
        if not data:
            continue
        parts = ax.violinplot(list(data.values()), [i + shift for i in data], widths=0.38, showmedians=True)
        bodies: Any = parts.pop("bodies")
        for artist in [*bodies, *parts.values()]:
            artist.set_color(colour)
        bodies[0].set_label(f"{name} ({max(map(len, data.values()))} a scale)")
        handles.append(bodies[0])
    ax.legend(handles=handles, fontsize="small")
    ax.set_xticks(range(len(scales)), [f"{s:g}" for s in scales])
    _label(ax, effects, vectors, value, ", ".join(sorted({e.site for e, _ in vectors})))
    return ax


def _sampled(effects: Effects, what: str, where: str) -> tuple[Sample, Sample]:
    """Means over prompts, of the vectors and of the random vectors with the same sites, signs, scales and norms."""
    require_type(effects, Effects, f"{where}: effects", "Effects, as powersteer.effects and atlas.effects return")
    pushes = set(map(push, effects))
    alike = [e for e in effects.random if push(e) in pushes]
    vectors, random = ([(e, x) for e, x in means(some, what) if math.isfinite(x)] for some in (effects, alike))
    if not vectors:
        raise InvalidInput(f"{where}: {what!r} was not measured in these {len(effects)} effects")
    return vectors, random


def _label(ax: Axes, effects: Effects, vectors: Sample, value: str, site: str) -> None:
    by_budget = vectors[0][0].budget is not None
    xlabel = "KL at the prompts' ends (nats)" if by_budget else "scale (fraction of the site's mean activation norm)"
    ax.set(xlabel=xlabel, ylabel=plain_text(measure_label(value)))
    what = {(e.vector, e.target, e.rank) for e, _ in vectors}
    first = vectors[0][0]
    one = f"layer {first.source} → {first.target}, rank {first.rank}".replace("_", " ")
    titles = effects.settings.get("titles") or effects.prompts
    prompts = [titles[i] or effects.prompts[i] for i in sorted({e.prompt for e in effects})]
    heading(ax, one if len(what) == 1 else f"{len(what)} vectors", effects.settings.get("model", "unknown model"), prompts, site)
