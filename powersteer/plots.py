"""Figures with matplotlib (`pip install powersteer[plots]`), which is imported when the first one is drawn.

Every function draws into `ax`, or into axes of a new figure, returns the axes and never shows or saves. Under the title
stands in small print what the numbers are of. Colours are cividis, or, around zero, purple to orange: they stay apart in
the common kinds of colour blindness and in grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidInput, MissingDependency
from .evaluate.effects import Effect, Effects
from .inputs.prompts import user_turn
from .linalg.svd import SVDResult
from .mapping import Atlas
from .methods.displacement import check_count
from .vectors.steering_vector import SteeringVector

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cosine_map", "effect_curve", "sensitivity_map", "spectra", "violin"]

NEXT_TOKEN = "next_token"
Pair = tuple[int, int | str]
_COLOURS = "cividis"
_AROUND_ZERO = "PuOr"
_SIGNS = ((1, "+v", "#0072B2", "^"), (-1, "−v", "#D55E00", "v"))  # two of Okabe and Ito's, apart in shape as well
_GREY = "0.45"
_LEGEND = 12  # lines that a legend can still name
_BAR, _GAP, _TITLE = 0.13, 0.1, 0.5  # inches: width of a colour bar, what is left free beside it, height of a title
_LARGEST = 0.6  # share of the axes' place that bars or title may take
_LOG_SPAN = 30  # positive values that span more are coloured by their logarithm
_PER_UNIT = {"layer": "target units per unit of v", NEXT_TOKEN: "√nats per unit of v", "logits": "logits per unit of v"}
_SPECTRUM = {"sigma": "σ", "estimate": "σ, estimated by the sketch", "decay": "σ / σ₁", "residual": "residual / σ₁"}
_MEASURES = {  # fields of an Effect
    "kl_end": "KL at the prompt's end (nats)",
    "kl_continuation": "KL along the continuation (nats a token)",
    "linearity": "‖ΔF − Jδ‖ / ‖ΔF‖",
    "repetition": "repetition (share of n-grams)",
    "compression": "compression (zlib ratio)",
    "perplexity": "perplexity under the base model",
    "score": "score",
}


# ---- maps


def sensitivity_map(
    atlas: Atlas,
    value: str = "sigma",
    rank: int = 0,
    *,
    view: int | None = None,
    scale: float | None = None,
    sign: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A number of every pair as colours, source layers down, targets across, the next token apart at the right.

    value: "sigma", "decay" (σ over σ₁), "residual", "estimate" (σ of the sketch), or what the kept effects measure:
    "kl_end", "kl_continuation", "linearity", "repetition", "compression", "perplexity", "score",
    "logit_change[token]", their means over prompts. rank: of the vector, 0 the first. view: place in `atlas.views()`;
    None: the view that `atlas` is. scale: of the effect, needed where several were tried; sign: 1, -1, or None for
    the larger of both in absolute value.

    A cross marks a pair that was asked for and has no value, a ring one that did not converge. σ of the next token is
    in √nats and has colours of its own. Raises InvalidInput for what the atlas does not hold, MissingDependency without
    matplotlib.
    """
    _is(atlas, Atlas, "sensitivity_map: atlas", "an Atlas")
    if view is not None:
        views = atlas.views()
        atlas = views[check_count(view, "sensitivity_map: view", len(views) - 1, "the last of this atlas", least=0)]
    rank = check_count(rank, "sensitivity_map: rank", atlas.k - 1, "the last of this atlas", least=0)
    if value in _SPECTRUM:
        values, name, push = _spectrum_values(atlas, value, rank), _SPECTRUM[value], ""
    else:
        values, push = _effect_values(atlas, value, rank, scale, sign)
        name = _measure_label(value)
    ax = _axes(ax)
    _draw_map(ax, atlas, values, value, name)
    s = atlas.settings
    unsure = {(c.source, c.target) for c in atlas if not c.converged} & _there(values)
    missing = set(atlas.pairs) - _there(values)
    _marks(ax, atlas, missing, "x", "no value")
    _marks(ax, atlas, unsure, "o", "not converged")
    _head(ax, f"{name}, rank {rank}", atlas.model_name, atlas.titles, f"{s.source_site} → {s.target_site}",
          f"tol {s.tol:g}", push, "× no value" if missing else "", "○ not converged" if unsure else "")  # fmt: skip
    return ax


def _spectrum_values(atlas: Atlas, value: str, rank: int) -> dict[Pair, float]:
    def of(numbers: Sequence[float]) -> float:
        return float(numbers[rank]) if rank < len(numbers) else math.nan

    if value == "estimate":
        return {pair: of(sketch.sigma) for pair, sketch in atlas._sketches.items()}
    if value == "residual":
        return {(c.source, c.target): of(c.residuals) for c in atlas}
    return {(c.source, c.target): of(c.sigma) / ((c.sigma[0] or math.nan) if value == "decay" else 1.0) for c in atlas}


def _effect_values(
    atlas: Atlas, what: str, rank: int, scale: float | None, sign: int | None
) -> tuple[dict[Pair, float], str]:
    effects = atlas.kept_effects
    if effects is None:
        known = ", ".join([*_SPECTRUM, *_MEASURES])
        raise InvalidInput(
            f"sensitivity_map: {what!r} is of effects, and this view of the atlas holds none: atlas.effects(...) "
            f"measures them. Values are {known} and logit_change[token]"
        )
    records = [e for e in effects if e.rank == rank and sign in (None, e.sign)]
    scales = sorted({e.scale for e in records})
    if scale is None and len(scales) == 1:
        scale = scales[0]
    if scale not in scales:
        raise InvalidInput(f"sensitivity_map: scale is {scale}, sign {sign}; at rank {rank} there are scales {scales}")
    values: dict[Pair, float] = {}
    for e, x in _means((e for e in records if e.scale == scale), what):
        if math.isfinite(x):
            values[e.source, e.target] = max(values.get((e.source, e.target), 0.0), x, key=abs)
    return values, f"{'larger of both signs' if sign is None else f'{sign:+d} v'}, scale {scale:g}"


def _draw_map(ax: Axes, atlas: Atlas, values: Mapping[Pair, float], value: str, name: str) -> None:
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
            norm=_norm(own, signed), cmap=_AROUND_ZERO if signed else _COLOURS,
        )  # fmt: skip
        if np.isfinite(own).any() and (apart or targets is parts[1] or not parts[1]):
            unit = f" ({_PER_UNIT[NEXT_TOKEN if targets is parts[0] else 'layer']})" if apart else ""
            which = "next token: " if apart and targets is parts[0] else ""
            bars.insert(0, (mesh, which + name + unit))  # the next token's at the right, as its column is
    ax.set_facecolor("0.93")
    ax.set_aspect("equal")
    ax.set_ylim(edges[-1], edges[0])
    ax.set(xlabel="target layer", ylabel="source layer")
    labels = [("next\ntoken" if isinstance(t, str) else str(t)) for t in atlas.targets]
    _ticks(ax.set_xticks, [_column(atlas, t) for t in atlas.targets], labels)
    _ticks(ax.set_yticks, list(range(len(atlas.sources))), [str(s) for s in atlas.sources])
    _colour_bars(ax, bars)


def _column(atlas: Atlas, target: int | str) -> float:
    place = atlas.targets.index(target)
    return place + (0.5 if isinstance(target, str) and place else 0.0)


def _marks(ax: Axes, atlas: Atlas, pairs: Iterable[Pair], marker: str, label: str) -> None:
    from matplotlib.patheffects import withStroke

    x, y = [[_column(atlas, t) for _, t in pairs], [atlas.sources.index(s) for s, _ in pairs]]
    if x:
        light = [withStroke(linewidth=2.5, foreground="white")]  # seen on every colour
        ax.plot(x, y, marker, markersize=4, color="black", markerfacecolor="none", path_effects=light, label=label)


def _there(values: Mapping[Pair, float]) -> set[Pair]:
    return {pair for pair, x in values.items() if math.isfinite(x)}


def _norm(values: Iterable[float], signed: bool) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    finite = [x for x in values if math.isfinite(x)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if signed:
        top = max(abs(low), abs(high)) or 1.0
        return Normalize(-top, top)
    return LogNorm(low, high) if 0 < _LOG_SPAN * low < high else Normalize(low, high)


def cosine_map(
    vectors: Sequence[SteeringVector], *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """|cos| of the angle between every two steering vectors, as colours from 0 to 1: signs of singular vectors are
    arbitrary. To compare pairs of an atlas: `cosine_map([atlas.vector(s, t, 0) for s, t in pairs])`.

    labels: one a vector; None: source → target and rank. Within a cluster of singular values the vectors themselves are
    arbitrary, and so are their cosines. Raises InvalidInput for vectors of different lengths, MissingDependency without
    matplotlib.
    """
    vectors = list(vectors) if isinstance(vectors, Iterable) else []
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("cosine_map: vectors must be a list of SteeringVector; atlas.vector and svd.vectors make them")
    if len({len(v) for v in vectors}) > 1:
        raise InvalidInput(f"cosine_map: the vectors have lengths {sorted({len(v) for v in vectors})}; they must agree")
    names = [_label(v) for v in vectors] if labels is None else list(labels)
    if len(names) != len(vectors):
        raise InvalidInput(f"cosine_map: {len(names)} labels for {len(vectors)} vectors")
    rows = np.array([v.direction for v in vectors], np.float64)
    ax = _axes(ax)
    mesh = ax.pcolormesh(np.minimum(np.abs(rows @ rows.T), 1.0), vmin=0, vmax=1, cmap=_COLOURS)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    _colour_bars(ax, [(mesh, "|cos| between the vectors")])
    places = [i + 0.5 for i in range(len(vectors))]
    _ticks(ax.set_xticks, places, names, rotation=90)
    _ticks(ax.set_yticks, places, names)
    models = sorted({v.model or "unknown model" for v in vectors})
    residuals = [v.residual for v in vectors if v.residual is not None]
    _head(ax, f"{len(vectors)} steering vectors, |cos|", ", ".join(models), [p for v in vectors for p in v.prompts],
          ", ".join(sorted({v.site for v in vectors})), f"residuals ≤ {max(residuals):.1e}" if residuals else "")  # fmt: skip
    return ax


def _label(v: SteeringVector) -> str:
    target = "" if v.target is None else f" → {v.target_layer}"
    return f"{v.layer}{target.replace('_', ' ')}{'' if v.rank is None else f' #{v.rank}'}"


# ---- spectra


def spectra(
    results: Atlas | SVDResult | Sequence[SVDResult] | Mapping[str, SVDResult],
    *,
    pairs: Iterable[Pair] | None = None,
    relative: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Singular values by rank, a line for each result or pair, with bars of residual × σ₁, which bound their errors.

    results: an atlas, SVD results, or a dict of them by label. pairs: of an atlas, (source, target); None: all that are
    computed, with relative=False those of layers. relative: σ / σ₁, so that pairs of different units can stand together.
    Lines that did not converge are dashed. Raises InvalidInput for a pair without a cell and for units that do not go
    together, MissingDependency without matplotlib.
    """
    if isinstance(results, Atlas):
        s, layers_only = results.settings, not relative
        chosen = [(c.source, c.target) for c in results if not (layers_only and isinstance(c.target, str))]
        cells = [results.cell(*pair) for pair in (chosen if pairs is None else pairs)]
        rows = [(f"{c.source} → {c.target}", c.sigma, c.residuals, c.converged, c.target) for c in cells]
        model, prompts, facts = results.model_name, results.titles, [f"{s.source_site} → {s.target_site}", f"tol {s.tol:g}"]
    else:
        named = _named(results, pairs)
        origin = [r.provenance or {} for r in named.values()]
        rows = [
            (name, tuple(r.S), tuple(r.residuals), r.converged, o["target"] if isinstance(o.get("target"), str) else 0)
            for (name, r), o in zip(named.items(), origin, strict=True)
        ]
        models = dict.fromkeys(str(o.get("model", "a linear operator")) for o in origin)
        tols = dict.fromkeys(f"{r.tol:g}" for r in named.values())
        model, prompts = ", ".join(models), [p for o in origin for p in o.get("prompts", ())]
        facts = [f"tol {', '.join(tols)}"]
    if not rows:
        raise InvalidInput("spectra: there is no singular value decomposition to draw")
    units = {target if isinstance(target, str) else "layer" for *_, target in rows}
    if len(units) > 1 and not relative:
        raise InvalidInput(f"spectra: σ of {' and '.join(sorted(units))} are in different units; relative=True compares them")
    ax = _axes(ax)
    _draw_spectra(ax, rows, relative)
    ax.set(xlabel="rank", ylabel="σ / σ₁" if relative else f"σ ({_PER_UNIT[units.pop()]})")
    ax.set_ylim(bottom=0)
    ax.locator_params("x", integer=True)
    _head(ax, rows[0][0] if len(rows) == 1 else f"{len(rows)} spectra", model, prompts, *facts)
    return ax


def _draw_spectra(ax: Axes, rows: Sequence[tuple[str, Any, Any, bool, int | str]], relative: bool) -> None:
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS](np.linspace(0, 0.85, len(rows)))
    for (name, sigma, residuals, converged, _), colour in zip(rows, colours, strict=True):
        values, errors = np.asarray(sigma, float), np.asarray(residuals, float) * sigma[0]
        unit = (sigma[0] or math.nan) if relative else 1.0
        ax.errorbar(range(len(values)), values / unit, np.nan_to_num(errors / unit), color=colour, marker=".", capsize=2,
                    linewidth=1, linestyle="-" if converged else "--", label=_plain(name))  # fmt: skip
    if 1 < len(rows) <= _LEGEND:
        ax.legend(fontsize="small")


def _named(results: Any, pairs: Any) -> dict[str, SVDResult]:
    if pairs is not None:
        raise InvalidInput("spectra: pairs are of an Atlas; choose among SVD results before the call")
    if isinstance(results, SVDResult):
        results = [results]
    if not isinstance(results, Mapping):
        several = list(results) if isinstance(results, Iterable) else [results]
        results = {f"{i}: {_of(r)}": r for i, r in enumerate(several)}
    for r in results.values():
        _is(r, SVDResult, "spectra: results", "an Atlas, an SVDResult, or a list or dict of SVDResult")
    return {str(name): r for name, r in results.items()}


def _of(result: Any) -> str:
    o = getattr(result, "provenance", None) or {}
    target = o.get("target", "")
    return f"{o['layer']} → {target if isinstance(target, str) else target[0]}" if o else "operator"


# ---- effects


def effect_curve(effects: Effects, what: str = "kl_end", *, ax: Axes | None = None) -> Axes:
    """An effect against scale, both signs of every vector, over the range and median of random vectors of the same norms.

    effects: of vectors at one site of one layer, as `effects.where(source=3, target=9, rank=0)`. what: "kl_end",
    "kl_continuation", "linearity", "repetition", "compression", "perplexity", "score" or "logit_change[token]"; means
    over the prompts. Raises InvalidInput for effects of several sources and for what was not measured,
    MissingDependency without matplotlib.
    """
    vectors, random = _sampled(effects, what, "effect_curve")
    sources = sorted({f"{e.site} of layer {e.source}" for e, _ in vectors})
    if len(sources) > 1:
        raise InvalidInput(f"effect_curve: effects at {sources[0]} and {sources[1]}; choose one: effects.where(source=...)")
    ax = _axes(ax)
    _draw_band(ax, random)
    lines: dict[Any, list[tuple[float, float]]] = {}
    for e, x in vectors:
        lines.setdefault((e.sign, e.vector, e.target, e.rank), []).append((e.scale, x))
    faint = max(0.3, 1 / math.sqrt(len(lines)))
    for sign, name, colour, marker in _SIGNS:
        of_sign = [sorted(points) for key, points in lines.items() if key[0] == sign]
        for i, points in enumerate(of_sign):
            ax.plot(*zip(*points, strict=True), color=colour, marker=marker, alpha=faint if len(lines) > 2 else 1.0,
                    label="_" if i else name)  # fmt: skip
    ax.set(xlabel="scale (fraction of the site's mean activation norm)", ylabel=_plain(_measure_label(what)))
    ax.legend(fontsize="small")
    _effects_head(ax, effects, vectors, sources[0])
    return ax


def _draw_band(ax: Axes, random: Sequence[tuple[Effect, float]]) -> None:
    """Range and median of the random draws, both signs, at every scale."""
    scales = sorted({e.scale for e, _ in random})
    if not scales:
        return
    draws = [[x for e, x in random if e.scale == s] for s in scales]
    across = scales if len(scales) > 1 else [0.9 * scales[0], 1.1 * scales[0]]
    low, middle, high = (
        [f(d) for d in draws] * (1 if len(scales) > 1 else 2) for f in (min, lambda d: float(np.median(d)), max)
    )
    count = len({e.rank for e, _ in random})
    ax.fill_between(across, low, high, color=_GREY, alpha=0.25, linewidth=0, label=f"{count} random vectors, range")
    ax.plot(across, middle, color=_GREY, linestyle=":", label="their median")


def violin(effects: Effects, what: str = "kl_end", *, ax: Axes | None = None) -> Axes:
    """The distribution of an effect over vectors and signs beside that of random vectors, at every scale. what: as for
    `effect_curve`; means over the prompts; the bars are medians and extremes. Raises InvalidInput for what was not
    measured, MissingDependency without matplotlib."""
    vectors, random = _sampled(effects, what, "violin")
    ax = _axes(ax)
    scales = sorted({e.scale for e, _ in vectors})
    handles = []
    groups = ((vectors, -0.21, _SIGNS[0][2], "vectors"), (random, 0.21, _GREY, "random vectors"))
    for records, shift, colour, name in groups:
        data = {i: [x for e, x in records if e.scale == s] for i, s in enumerate(scales)}
        data = {i: values for i, values in data.items() if values}
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
    ax.set(xlabel="scale (fraction of the site's mean activation norm)", ylabel=_plain(_measure_label(what)))
    _effects_head(ax, effects, vectors, ", ".join(sorted({e.site for e, _ in vectors})))
    return ax


Sample = list[tuple[Effect, float]]


def _sampled(effects: Effects, what: str, where: str) -> tuple[Sample, Sample]:
    """Means over prompts of the vectors, and of the yardstick at the same sites, signs, scales and norms."""
    _is(effects, Effects, f"{where}: effects", "Effects, what powersteer.effects and atlas.effects return")
    pushes = {(e.source, e.site, e.sign, e.scale, e.norm, e.prompt) for e in effects}
    alike = [e for e in effects.random if (e.source, e.site, e.sign, e.scale, e.norm, e.prompt) in pushes]
    vectors, random = ([(e, x) for e, x in _means(some, what) if math.isfinite(x)] for some in (effects, alike))
    if not vectors:
        raise InvalidInput(f"{where}: {what!r} was not measured in these {len(effects)} effects")
    return vectors, random


def _means(records: Iterable[Effect], what: str) -> Sample:
    """(one of them, mean of the finite values) of the records that differ in nothing but the prompt."""
    read = _reader(what)
    groups: dict[Any, tuple[Effect, list[float]]] = {}
    for e in records:
        key = (e.vector, e.source, e.site, e.target, e.rank, e.sign, e.scale, e.norm)
        groups.setdefault(key, (e, []))[1].append(read(e))
    out = []
    for e, values in groups.values():
        finite = [x for x in values if math.isfinite(x)]
        out.append((e, sum(finite) / len(finite) if finite else math.nan))
    return out


def _reader(what: str) -> Callable[[Effect], float]:
    token = _token(what)
    if token is not None:
        return lambda e: e.logit_change.get(token, math.nan)
    if what not in _MEASURES:
        raise InvalidInput(f"an effect has no {what!r}; it has {', '.join(_MEASURES)} and logit_change[token]")

    def read(e: Effect) -> float:
        x = getattr(e, what)
        return math.nan if x is None else float(x)

    return read


def _token(what: str) -> str | None:
    """The token of "logit_change[token]"."""
    return what[len("logit_change[") : -1] if what.startswith("logit_change[") and what.endswith("]") else None


def _measure_label(what: str) -> str:
    token = _token(what)
    return _MEASURES.get(what, what) if token is None else f"logit of {token!r}, less the mean change (logits)"


def _effects_head(ax: Axes, effects: Effects, vectors: Sample, place: str) -> None:
    what = {(e.vector, e.target, e.rank) for e, _ in vectors}
    first = vectors[0][0]
    one = f"layer {first.source} → {first.target}, rank {first.rank}".replace("_", " ")
    titles = effects.settings.get("titles") or effects.prompts
    prompts = [titles[i] or effects.prompts[i] for i in sorted({e.prompt for e in effects})]
    _head(ax, one if len(what) == 1 else f"{len(what)} vectors", effects.settings.get("model", "unknown model"), prompts, place)


# ---- axes


def _is(value: Any, kind: type, where: str, wanted: str) -> None:
    if not isinstance(value, kind):
        raise InvalidInput(f"{where} must be {wanted}; got {type(value).__name__}")


def _axes(ax: Axes | None) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingDependency("plots need matplotlib: pip install powersteer[plots]") from None
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def _colour_bars(ax: Axes, bars: Sequence[tuple[Any, str]]) -> None:
    """Colour bars with their labels, and room for the title: all inside the axes' place, so that neighbours in a grid of
    subplots keep theirs, whatever lays the figure out."""
    from mpl_toolkits.axes_grid1 import Size, make_axes_locatable

    room = make_axes_locatable(ax)
    sizes, gap = [], _GAP  # inches
    for mesh, label in bars:
        own = room.append_axes("right", size=_BAR, pad=gap)
        ax.figure.colorbar(mesh, cax=own).set_label(_plain(label), fontsize="small")
        own.tick_params(labelsize="small")
        sizes += [gap, _BAR]
        gap = _GAP + (own.get_tightbbox().x1 - own.get_window_extent().x1) / ax.figure.dpi  # its numbers and label
    sizes.append(gap)
    place = ax.get_position(original=True).size  # fractions of the figure
    width, height = np.multiply(place, ax.figure.bbox.size) / ax.figure.dpi
    spared = min(1.0, _LARGEST * width / sum(sizes))
    across = [Size.Fixed(spared * size) for size in sizes]
    room.set_horizontal([*room.get_horizontal()[:1], *across])
    room.set_vertical([*room.get_vertical(), Size.Fixed(min(_TITLE, _LARGEST * height))])


def _ticks(setter: Callable[..., Any], places: Sequence[float], labels: Sequence[str], **how: Any) -> None:
    """About twenty of them at the most, the last one included."""
    step = math.ceil(len(places) / 20)
    some = range((len(places) - 1) % step, len(places), step)
    setter([places[i] for i in some], [_plain(labels[i]) for i in some], fontsize="small", **how)


def _head(ax: Axes, title: str, model: Any, prompts: Iterable[str], *facts: str) -> None:
    """The title, and in small print under it what the numbers are of."""
    texts = [" ".join(user_turn(p).split()) for p in dict.fromkeys(prompts)]
    first = texts[0] if texts else ""
    prompt = f"“{first if len(first) <= 60 else first[:59] + '…'}”" if first else "prompts given as tokens"
    more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
    note = " · ".join(filter(None, [str(model), *facts])) + f"\n{prompt}{more}"
    ax.set_title(_plain(title), loc="left", fontsize="medium", pad=22)
    ax.annotate(_plain(note), (0, 1), (0, 4), "axes fraction", textcoords="offset points", fontsize=6.5, va="bottom",
                color=_GREY, linespacing=1.3)  # fmt: skip


def _plain(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")
