"""A metric by the strength of one vector."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidInput
from ..evaluate.strength import Curve
from ..vectors.steering_vector import SteeringVector
from .axes import GREY, Axes, axes_for, heading, plain_text, require_type

__all__ = ["strength_curve"]

COLOUR = "#0072B2"  # of Okabe and Ito


def strength_curve(curve: Curve, name: str = "", *, ax: Axes | None = None) -> Axes:
    """Draw a metric by the scale of one vector, with its 95% intervals, and the range and median of random vectors.

    Parameters
    ----------
    curve : Curve
        Of `powersteer.evaluate.curve`; without `n_random` there is no band.
    name : str
        What was measured, for the axis; its unit follows.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InvalidInput
        For anything but a Curve, and for one without points.
    MissingDependency
        Without matplotlib.

    Examples
    --------
    >>> prompts = ["Task: 3 * 4 =", "Task: 7 * 8 ="]
    >>> vec = model.jacobian(prompts, 0, 2).svd(1).vectors[0]
    >>> points = ps.evaluate.curve(lambda vs: ps.evaluate.kl(model, prompts, vs), vec, [0.5, 1.0], n_random=3)
    >>> ps.plots.strength_curve(points, "KL").get_ylabel()
    'KL (nats)'
    """
    require_type(curve, Curve, "strength_curve: curve", "a Curve, as powersteer.evaluate.curve returns")
    if not curve:
        raise InvalidInput("strength_curve: the curve has no points")
    ax, points = axes_for(ax), sorted(curve, key=lambda point: point[0])
    scales, results = [scale for scale, _ in points], [result for _, result in points]
    if curve.random:
        order = np.argsort([scale for scale, _ in curve], kind="stable")
        draws = np.array([[result.value for result in draw] for draw in curve.random])[:, order]
        label = f"{len(draws)} random vectors, range"
        ax.fill_between(scales, draws.min(0), draws.max(0), color=GREY, alpha=0.25, linewidth=0, label=label)
        ax.plot(scales, np.median(draws, 0), color=GREY, linestyle=":", label="their median")
    ax.plot(scales, [result.value for result in results], color=COLOUR, marker="o", label="vector, 95% interval")
    ax.vlines(scales, [result.low for result in results], [result.high for result in results], color=COLOUR)
    unit, vector = results[0].unit, curve.vector
    across = "scale (fraction of the site's mean activation norm)" if curve.relative else "length added"
    ax.set(xlabel=across, ylabel=plain_text(f"{name} ({unit})" if name else unit))
    ax.legend(fontsize="small")
    _head(ax, vector, results[0].n)
    return ax


def _head(ax: Axes, vector: SteeringVector, n: int) -> None:
    target = "" if vector.target_layer is None else f" → {vector.target_layer}"
    heading(ax, f"layer {vector.layer}{target}, {vector.method}".replace("_", " "), vector.model or "unknown model",
            vector.prompts, vector.site, f"measured on n = {n}", of="vector from ")  # fmt: skip
