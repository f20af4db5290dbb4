"""A metric of one vector by its strength, next to random vectors of the same strengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from .._util.checks import as_list, check_count
from ..errors import InvalidInput, shown
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import SteeringVector
from .effects import random_vector
from .intervals import MetricResult

__all__ = ["Curve", "curve"]


class Curve(list[tuple[float, MetricResult]]):
    """(scale, MetricResult) of one vector at several scales, made by `curve`.

    Attributes
    ----------
    vector
        The vector.
    relative
        Whether scales are fractions of the site's mean activation norm, or else lengths.
    random
        (draws, scales) results of random vectors.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> points = ps.evaluate.curve(lambda vs: ps.evaluate.kl(model, prompt, vs), vec, [0.5, 1.0], n_random=2)
    >>> len(points), len(points.random), len(points.random[0])
    (2, 2, 2)
    """

    def __init__(
        self, points: Iterable[tuple[float, MetricResult]], vector: SteeringVector, relative: bool,
        random: Sequence[Sequence[MetricResult]],
    ) -> None:  # fmt: skip
        super().__init__(points)
        self.vector, self.relative, self.random = vector, relative, [list(draw) for draw in random]


def curve(
    measure: Callable[[list[SteeringVector]], list[MetricResult]], vector: SteeringVector, scales: Sequence[float], *,
    relative: bool = True, n_random: int = 0, seed: int = 0,
) -> Curve:  # fmt: skip
    """A metric of one vector at several scales.

    Parameters
    ----------
    measure
        Called once, with the scaled vectors: `lambda vectors: ps.evaluate.kl(model, prompts, vectors)`.
    vector
        The vector.
    scales
        Fractions of the site's mean activation norm; negative ones steer in the other direction.
    relative
        False: `scales` are lengths.
    n_random
        Number of random unit vectors at the vector's site, which are measured at the same scales.
    seed
        Seed of the random vectors.

    Returns
    -------
    Curve
        A list of (scale, MetricResult); its `random` has those of the random vectors, and `plots.strength_curve` draws it.

    Raises
    ------
    InvalidInput
        With relative=True, for a vector without its site's norm.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> points = ps.evaluate.curve(lambda vs: ps.evaluate.kl(model, prompt, vs), vec, [0.0, 1.0])
    >>> [scale for scale, _ in points], points[0][1] == 0.0
    ([0.0, 1.0], True)
    """
    check_adds(vector, "scaled along a curve")
    sign = math.copysign(1.0, vector.scale)
    given = [float(s) for s in as_list(scales)]
    n_random, seed = check_count(n_random, "curve: n_random", least=0), check_count(seed, "curve: seed", least=0)
    lines = [vector, *(random_vector(vector, seed, draw) for draw in range(n_random))]
    pushed = [
        (replace(v, scale=sign, calibration=None).relative(s) if relative else replace(v, scale=sign * s, calibration=None))
        for v in lines for s in given
    ]
    results = measure(pushed)
    if not isinstance(results, (list, tuple)) or len(results) != len(pushed):
        raise InvalidInput(
            f"curve: measure must return a list of {len(pushed)} metrics, one for each vector it is given; it gave {shown(results)}"
        )
    own, *random = [results[i : i + len(given)] for i in range(0, len(results), len(given))]
    return Curve(zip(given, own, strict=True), vector, relative, random)
