"""Heat maps: a value of every pair of an atlas, cosines between vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.checks import check_count
from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from ..evaluate.effect_table import strength
from ..mapping import Atlas
from ..mapping.settings import NEXT_TOKEN
from ..vectors.steering_vector import SteeringVector
from .axes import AROUND_ZERO, COLOURS, PER_UNIT, Axes, PairKey, axes_for, colour_bars, heading, require_type, ticks
from .measures import MEASURES, means, measure_label

__all__ = ["cosine_map", "sensitivity_map"]

_LOG_SPAN = 30  # positive values with a larger ratio are coloured by their logarithm
_SPECTRUM = {"sigma": "σ", "estimate": "σ, estimated by the sketch", "decay": "σ / σ₁", "residual": "residual / σ₁"}


@deprecated_arguments(2, view="prompt_group")
def sensitivity_map(
    atlas: Atlas,
    value: str = "sigma",
    *,
    rank: int = 0,
    prompt_group: int | None = None,
    scale: float | None = None,
    sign: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a value of every pair as a heat map: source layers down, target layers across, the next token at the right.

    A cross marks a requested pair without a value, a ring a pair that did not converge. Sigma of the next token is in
    sqrt(nats) and has its own colour bar.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    value : str
        "sigma", "decay" (sigma / sigma_1), "residual", "estimate" (sigma of the sketch), or a measure of the stored
        effects, as a mean over prompts: "kl_end", "kl_continuation", "linearity", "repetition", "compression", "perplexity",
        "score", "logit_change[token]".
    rank : int
        Rank of the vector, 0 for the first.
    prompt_group : int, optional
        Index into `atlas.prompt_groups()`; by default the group that `atlas` is of.
    scale : float, optional
        Scale, or KL budget, of the effect. Needed if the effects have more than one.
    sign : {1, -1}, optional
        Sign of the effect; by default the one with the larger absolute value.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        If the atlas does not have the value.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=1, sources=[0, 1], targets=[2, 3])
    >>> ax = ps.plots.sensitivity_map(atlas)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('target layer', 'source layer')
    """
    require_type(atlas, Atlas, "sensitivity_map: atlas", "an Atlas")
    if prompt_group is not None:
        groups = atlas.prompt_groups()
        last = len(groups) - 1, "the last of this atlas"
        atlas = groups[check_count(prompt_group, "sensitivity_map: prompt_group", *last, least=0)]
    rank = check_count(rank, "sensitivity_map: rank", atlas.k - 1, "the last of this atlas", least=0)
    if value in _SPECTRUM:
        found, name, push = _spectrum_values(atlas, value, rank), _SPECTRUM[value], ""
    else:
        found, push = _effect_values(atlas, value, rank, scale, sign)
        name = measure_label(value)
    values = {pair: x for pair, x in found.items() if math.isfinite(x)}
    ax = axes_for(ax)
    _draw_map(ax, atlas, values, value, name)
    s = atlas.settings
    unsure = {(c.source, c.target) for c in atlas if not c.converged} & values.keys()
    missing = set(atlas.pairs) - values.keys()
    _marks(ax, atlas, missing, "x", "no value")
    _marks(ax, atlas, unsure, "o", "not converged")
    heading(ax, f"{name}, rank {rank}", atlas.model_name, atlas.titles, f"{s.source_site} → {s.target_site}",
          f"tol {s.tol:g}", push, "× no value" if missing else "", "○ not converged" if unsure else "")  # fmt: skip
    return ax


def _spectrum_values(atlas: Atlas, value: str, rank: int) -> dict[PairKey, float]:
    rows: dict[PairKey, Any] = {(c.source, c.target): c.residuals if value == "residual" else c.sigma for c in atlas}
    if value == "estimate":
        rows = {pair: sketch.sigma for pair, sketch in atlas._sketches.items()}
    unit = {pair: (x[0] or math.nan) if value == "decay" else 1.0 for pair, x in rows.items()}
    return {pair: float(x[rank]) / unit[pair] for pair, x in rows.items() if rank < len(x)}


def _effect_values(
    atlas: Atlas, what: str, rank: int, scale: float | None, sign: int | None
) -> tuple[dict[PairKey, float], str]:
    effects = atlas.kept_effects
    if effects is None:
        known = ", ".join([*_SPECTRUM, *MEASURES])
        raise InvalidInput(
            f"sensitivity_map: {what!r} is measured by effects, and the atlas has none for these prompts: call "
            f"atlas.effects(...). Values are {known} and logit_change[token]"
        )
    records = [e for e in effects if e.rank == rank and sign in (None, e.sign)]
    scales = sorted({strength(e) for e in records})
    if scale is None and len(scales) == 1:
        scale = scales[0]
    if scale not in scales:
        raise InvalidInput(f"sensitivity_map: scale is {scale}, sign {sign}; at rank {rank} there are scales {scales}")
    values: dict[PairKey, float] = {}
    for e, x in means((e for e in records if strength(e) == scale), what):
        if math.isfinite(x):
            values[e.source, e.target] = max(values.get((e.source, e.target), 0.0), x, key=abs)
    at = f"scale {scale:g}" if effects.settings.get("kl") is None else f"KL {scale:g} nats"
    return values, f"{'larger of both signs' if sign is None else f'{sign:+d} v'}, {at}"


def _draw_map(ax: Axes, atlas: Atlas, values: Mapping[PairKey, float], value: str, name: str) -> None:
    apart = value in ("sigma", "estimate")  # the next token is in another unit
    signed = value.startswith("logit_change")
    edges = np.arange(len(atlas.sources) + 1) - 0.5
    parts: list[list[int | str]] = [[t for t in atlas.targets if isinstance(t, str) == named] for named in (True, False)]
    bars: list[tuple[Any, str]] = []
    for targets in filter(None, parts):
        grid = np.array([[values.get((s, t), math.nan) for t in targets] for s in atlas.sources])
        own = [x for (_, t), x in values.items() if t in targets or not apart]
        mesh = ax.pcolormesh(
            _column(atlas, targets[0]) + np.arange(len(targets) + 1) - 0.5, edges, np.ma.masked_invalid(grid),
            norm=_norm(own, signed), cmap=AROUND_ZERO if signed else COLOURS,
        )  # fmt: skip
        if own and (apart or targets is parts[1] or not parts[1]):
            which, unit = ("next token: ", NEXT_TOKEN) if targets is parts[0] else ("", "layer")
            label = f"{which}{name} ({PER_UNIT[unit]})" if apart else name
            bars.insert(0, (mesh, label))  # the next token's at the right, as its column is
    ax.set_facecolor("0.93")
    ax.set_aspect("equal")
    ax.set_ylim(edges[-1], edges[0])
    ax.set(xlabel="target layer", ylabel="source layer")
    labels = [("next\ntoken" if isinstance(t, str) else str(t)) for t in atlas.targets]
    ticks(ax.set_xticks, [_column(atlas, t) for t in atlas.targets], labels)
    ticks(ax.set_yticks, list(range(len(atlas.sources))), [str(s) for s in atlas.sources])
    colour_bars(ax, bars)


def _column(atlas: Atlas, target: int | str) -> float:
    column = atlas.targets.index(target)
    return column + (0.5 if isinstance(target, str) and column else 0.0)


def _marks(ax: Axes, atlas: Atlas, pairs: Iterable[PairKey], marker: str, label: str) -> None:
    from matplotlib.patheffects import withStroke

    x, y = [[_column(atlas, t) for _, t in pairs], [atlas.sources.index(s) for s, _ in pairs]]
    if x:
        light = [withStroke(linewidth=2.5, foreground="white")]  # visible on every colour
        ax.plot(x, y, marker, markersize=4, color="black", markerfacecolor="none", path_effects=light, label=label)


def _norm(values: Sequence[float], signed: bool) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    low, high = min(values, default=0.0), max(values, default=1.0)
    if signed:
        top = max(abs(low), abs(high)) or 1.0
        return Normalize(-top, top)
    return LogNorm(low, high) if 0 < _LOG_SPAN * low < high else Normalize(low, high)


def cosine_map(
    vectors: Sequence[SteeringVector], *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the absolute cosine between every two steering vectors, as colours from 0 to 1.

    The sign of a singular vector is arbitrary, so the cosine has none. Within a cluster of singular values the vectors
    themselves are arbitrary, and so are their cosines.

    Parameters
    ----------
    vectors : sequence of SteeringVector
        Vectors of one length, for instance `[atlas.vector(s, t) for s, t in pairs]`.
    labels : sequence of str, optional
        One label per vector; by default source, target and rank.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        For vectors of different lengths.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> vectors = model.jacobian("Task: 3 * 4 =", 0, 2).svd(3).vectors
    >>> ps.plots.cosine_map(vectors).get_title(loc="left")
    '3 steering vectors, |cos|'
    """
    vectors = list(vectors) if isinstance(vectors, Iterable) else []
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("cosine_map: vectors must be a list of SteeringVector, as atlas.vectors and svd.vectors return")
    if len({len(v) for v in vectors}) > 1:
        raise InvalidInput(f"cosine_map: the vectors have lengths {sorted({len(v) for v in vectors})}; they must agree")
    names = [_label(v) for v in vectors] if labels is None else list(labels)
    if len(names) != len(vectors):
        raise InvalidInput(f"cosine_map: {len(names)} labels for {len(vectors)} vectors")
    rows = np.array([v.direction for v in vectors], np.float64)
    ax = axes_for(ax)
    mesh = ax.pcolormesh(np.minimum(np.abs(rows @ rows.T), 1.0), vmin=0, vmax=1, cmap=COLOURS)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    colour_bars(ax, [(mesh, "|cos| between the vectors")])
    places = [i + 0.5 for i in range(len(vectors))]
    ticks(ax.set_xticks, places, names, rotation=90)
    ticks(ax.set_yticks, places, names)
    models = sorted({v.model or "unknown model" for v in vectors})
    residuals = [v.residual for v in vectors if v.residual is not None]
    heading(ax, f"{len(vectors)} steering vectors, |cos|", ", ".join(models), [p for v in vectors for p in v.prompts],
          ", ".join(sorted({v.site for v in vectors})), f"residuals ≤ {max(residuals):.1e}" if residuals else "")  # fmt: skip
    return ax


def _label(v: SteeringVector) -> str:
    target = "" if v.target is None else f" → {v.target_layer}"
    return f"{v.layer}{target.replace('_', ' ')}{'' if v.rank is None else f' #{v.rank}'}"
