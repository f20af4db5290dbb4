"""Singular values by rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._util.checks import as_list
from ..errors import InvalidInput
from ..linalg.svd import SVDResult
from ..mapping import Atlas
from .axes import COLOURS, PER_UNIT, Axes, PairKey, axes_for, heading, plain_text, require_type

__all__ = ["spectra"]

_LEGEND = 12  # largest number of lines in a legend


def spectra(
    results: Atlas | SVDResult | Sequence[SVDResult] | Mapping[str, SVDResult],
    *,
    pairs: Iterable[PairKey] | None = None,
    relative: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw singular values by rank: one line per result or pair, with error bars of residual x sigma_1, which bound the error.

    Results that did not converge have dashed lines.

    Parameters
    ----------
    results : Atlas, SVDResult, list of SVDResult or dict of SVDResult by label
        The spectra.
    pairs : list of (source, target), optional
        Pairs of an atlas; by default all computed pairs, without the next token unless `relative`.
    relative : bool
        Draw sigma / sigma_1, so that pairs with different units can share the axes.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        For a pair without a result, and for different units unless `relative`.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> svd = model.jacobian("Task: 3 * 4 =", 0, 2).svd(k=3)
    >>> ps.plots.spectra(svd).get_xlabel()
    'rank'
    """
    if isinstance(results, Atlas):
        s, layers_only = results.settings, not relative
        chosen = [(c.source, c.target) for c in results if not (layers_only and isinstance(c.target, str))]
        stored = [results.pair(*pair) for pair in (chosen if pairs is None else pairs)]
        rows: list[Any] = [(f"{c.source} → {c.target}", c.sigma, c.residuals, c.converged, c.target) for c in stored]
        model, prompts, facts = results.model_name, results.titles, [f"{s.source_site} → {s.target_site}", f"tol {s.tol:g}"]
    else:
        named = _named(results, pairs)
        origin = [r.provenance or {} for r in named.values()]
        each = zip(named.items(), origin, strict=True)
        rows = [(name, r.S, r.residuals, r.converged, o.get("target")) for (name, r), o in each]
        models = dict.fromkeys(str(o.get("model", "a linear operator")) for o in origin)
        tols = dict.fromkeys(f"{r.tol:g}" for r in named.values())
        model, prompts = ", ".join(models), [p for o in origin for p in o.get("prompts", ())]
        facts = [f"tol {', '.join(tols)}"]
    if not rows:
        raise InvalidInput("spectra: there is no singular value decomposition to draw")
    units = {target if isinstance(target, str) else "layer" for *_, target in rows}
    if len(units) > 1 and not relative:
        raise InvalidInput(f"spectra: σ of {' and '.join(sorted(units))} are in different units; relative=True compares them")
    ax = axes_for(ax)
    _draw_spectra(ax, rows, relative)
    ax.set(xlabel="rank", ylabel="σ / σ₁" if relative else f"σ ({PER_UNIT[units.pop()]})")
    ax.set_ylim(bottom=0)
    ax.locator_params("x", integer=True)
    heading(ax, rows[0][0] if len(rows) == 1 else f"{len(rows)} spectra", model, prompts, *facts)
    return ax


def _draw_spectra(ax: Axes, rows: Sequence[Any], relative: bool) -> None:
    import matplotlib

    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 0.85, len(rows)))
    for (name, sigma, residuals, converged, _), colour in zip(rows, colours, strict=True):
        values, errors = np.asarray(sigma, float), np.asarray(residuals, float) * sigma[0]
        unit = (sigma[0] or math.nan) if relative else 1.0
        ax.errorbar(range(len(values)), values / unit, np.nan_to_num(errors / unit), color=colour, marker=".", capsize=2,
                    linewidth=1, linestyle="-" if converged else "--", label=plain_text(name))  # fmt: skip
    if 1 < len(rows) <= _LEGEND:
        ax.legend(fontsize="small")


def _named(results: Any, pairs: Any) -> dict[str, SVDResult]:
    if pairs is not None:
        raise InvalidInput("spectra: pairs are of an Atlas; choose from a list of SVD results before the call")
    if not isinstance(results, Mapping):
        some = [results] if isinstance(results, SVDResult) else as_list(results)
        results = {f"{i}: {_of(r)}": r for i, r in enumerate(some)}
    for r in results.values():
        require_type(r, SVDResult, "spectra: results", "an Atlas, an SVDResult, or a list or dict of SVDResult")
    return {str(name): r for name, r in results.items()}


def _of(result: Any) -> str:
    o = getattr(result, "provenance", None) or {}
    target = o.get("target", "")
    return f"{o['layer']} → {target if isinstance(target, str) else target[0]}" if o else "operator"
