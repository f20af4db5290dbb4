"""Vectors that separate the activations of two sets of prompts: difference of means, principal component, linear probe.

All read the same: the activation of each prompt at one site, or at several from the same forward passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from .._util.checks import check_positive
from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts, split
from ..inputs.sites import Site, SiteLike
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector, rounding
from .activations import Activations, Array, model_site
from .logistic import logistic_regression

__all__ = ["caa", "pca", "probe"]

Layers = int | SiteLike | Sequence[int | SiteLike]
# From activations (n, d) of positive and (m, d) of negative prompts, the rounding error of one, and the site:
# the array to add, and further fields of the vector
Finder = Callable[[Array, Array, float, Site], tuple[Array, dict[str, Any]]]


@overload
def caa(  # type: ignore[overload-overlap]
    model: Model, positive: Prompts, negative: Prompts, layer: int | SiteLike, site: str | None = ..., *,
    read_positions: Positions = ..., paired: bool = ...,
) -> SteeringVector: ...  # fmt: skip
@overload
def caa(
    model: Model, positive: Prompts, negative: Prompts, layer: Sequence[int | SiteLike], site: str | None = ..., *,
    read_positions: Positions = ..., paired: bool = ...,
) -> list[SteeringVector]: ...  # fmt: skip
@deprecated_arguments(5, positions="read_positions")
def caa(
    model: Model,
    positive: Prompts,
    negative: Prompts,
    layer: Layers,
    site: str | None = None,
    *,
    read_positions: Positions = -1,
    paired: bool = True,
) -> SteeringVector | list[SteeringVector]:
    """Contrastive activation addition: the mean over pairs of prompts of the difference of their activations.

    The vector is the mean over i of `activation(positive[i]) - activation(negative[i])`; its norm is the scale. As
    published it is added after the prompt: `model.steered(v, "generated")`.

    Parameters
    ----------
    model : Model
    positive, negative : prompt or list of prompts
        Prompts that show the behaviour, and prompts that show its opposite.
    layer, site : int and str
        Where activations are read and the vector is added; site None is "resid_post", as published. `layer` may also be
        a whole site, "blocks.3.hook_mlp_out", or a list or range of either: then there is a vector for each, from the
        same forward passes.
    read_positions
        Positions of each prompt at which its activation is read, in the forms of `Model.steered`; the mean over several.
        The default is the last token. The published prompts close a bracket after the token of the answer letter, which is
        read: position -2.
    paired : bool
        Require lists of equal length. False: the mean over one list minus the mean over the other, which is the same
        vector for equal lengths.

    Returns
    -------
    SteeringVector
        `site_norm` is the mean over every position of all prompts; `target_positions` are the positions read. A list of
        them for several layers.

    Raises
    ------
    InvalidInput
        For an empty list, unequal lengths of pairs, and mean activations that differ by rounding only.

    References
    ----------
    N. Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", 2023, arXiv:2312.06681.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> v = ps.caa(model, ["Task: 3 * 4 ="], ["Task: 3 + 4 ="], layer=2, read_positions=-1)
    >>> v.location, len(v), v.method
    (blocks.2.hook_resid_post, 160, 'caa')
    >>> [v.layer for v in ps.caa(model, ["Task: 3 * 4 ="], ["Task: 3 + 4 ="], layer=range(1, 4))]
    [1, 2, 3]
    """

    def find(good: Array, bad: Array, noise: float, at: Site) -> tuple[Array, dict[str, Any]]:
        return _mean_difference(good, bad, noise, at, "caa"), {}

    return _contrast(model, positive, negative, layer, site, read_positions, paired, "caa", find)


@overload
def pca(  # type: ignore[overload-overlap]
    model: Model, positive: Prompts, negative: Prompts, layer: int | SiteLike, site: str | None = ..., *,
    method: str = ..., read_positions: Positions = ...,
) -> SteeringVector: ...  # fmt: skip
@overload
def pca(
    model: Model, positive: Prompts, negative: Prompts, layer: Sequence[int | SiteLike], site: str | None = ..., *,
    method: str = ..., read_positions: Positions = ...,
) -> list[SteeringVector]: ...  # fmt: skip
def pca(
    model: Model,
    positive: Prompts,
    negative: Prompts,
    layer: Layers,
    site: str | None = None,
    *,
    method: str = "pca_diff",
    read_positions: Positions = -1,
) -> SteeringVector | list[SteeringVector]:
    """First principal component of the differences between pairs of prompts, as repeng computes it.

    Parameters
    ----------
    model, positive, negative, layer, site, read_positions
        As for `caa`; repeng reads the last token at "resid_post".
    method : "pca_diff" or "pca_center"
        Component of the differences `activation(positive[i]) - activation(negative[i])`, whose mean is subtracted: the
        direction in which the difference varies most from pair to pair. Or that of all activations, each minus the mean
        of its pair: the direction in which the difference itself is largest.

    Returns
    -------
    SteeringVector
        Of scale 1. Its sign is the one by which more of the positive prompts than of the negative ones have the larger
        projection of their pair; for as many of both the largest entry is positive. `objective` is the variance along it.
        A list of vectors for several layers.

    Raises
    ------
    InvalidInput
        For an empty list, unequal lengths, and differences that vary by rounding only, such as that of a single pair with
        "pca_diff".

    References
    ----------
    T. Vogel, repeng, 2024, github.com/vgel/repeng; A. Zou et al., "Representation Engineering", 2023, arXiv:2310.01405.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> positive, negative = (["Q: 3 %s 4 =" % op, "Q: 5 %s 6 =" % op] for op in "*+")
    >>> ps.pca(model, positive, negative, layer=2, method="pca_center")
    SteeringVector(1 × blocks.2.hook_resid_post, d=160, pca_center)
    """
    if method not in ("pca_diff", "pca_center"):
        raise InvalidInput(f"pca: method is {shown(method)}; it must be 'pca_diff' or 'pca_center'")

    def find(good: Array, bad: Array, noise: float, at: Site) -> tuple[Array, dict[str, Any]]:
        differences = good - bad
        rows = differences - differences.mean(0) if method == "pca_diff" else np.vstack([differences, -differences]) / 2
        _, sigma, components = np.linalg.svd(rows, full_matrices=False)
        deviation = sigma[0] / np.sqrt(len(rows))
        if not deviation > noise:
            raise InvalidInput(
                f"pca: the differences between pairs are the same at {at} at the positions read, but for rounding (they vary by "
                f"{deviation:.3g}, rounding may be {noise:.3g}), and have no principal component: give more pairs, "
                "method='pca_center', or caa"
            )
        along = differences @ components[0]
        largest = components[0][np.argmax(np.abs(components[0]))]
        sign = np.sign(np.sum(along > 0) - np.sum(along < 0)) or np.sign(largest)
        return sign * components[0], {"objective": float(sigma[0] ** 2 / (len(rows) - 1))}

    return _contrast(model, positive, negative, layer, site, read_positions, True, method, find)


@overload
def probe(  # type: ignore[overload-overlap]
    model: Model, positive: Prompts, negative: Prompts, layer: int | SiteLike, site: str | None = ..., *,
    C: float = ..., read_positions: Positions = ...,
) -> SteeringVector: ...  # fmt: skip
@overload
def probe(
    model: Model, positive: Prompts, negative: Prompts, layer: Sequence[int | SiteLike], site: str | None = ..., *,
    C: float = ..., read_positions: Positions = ...,
) -> list[SteeringVector]: ...  # fmt: skip
def probe(
    model: Model,
    positive: Prompts,
    negative: Prompts,
    layer: Layers,
    site: str | None = None,
    *,
    C: float = 1.0,
    read_positions: Positions = -1,
) -> SteeringVector | list[SteeringVector]:
    """Normal of a linear probe: logistic regression of positive against negative prompts on their activations.

    The probe minimises ‖w‖²/2 + C sum over prompts of ln(1 + exp(-y (w.x + b))), y = 1 or -1, which is
    scikit-learn's LogisticRegression(C=C) on the activations as they are; the vector is w/‖w‖.

    Parameters
    ----------
    model, positive, negative, layer, site, read_positions
        As for `caa`; the lists may differ in length.
    C : float
        Inverse of the strength of the penalty; the larger, the closer the probe is to the widest margin.

    Returns
    -------
    SteeringVector
        Of scale 1, towards the positive prompts; `objective` is minus the minimum, in nats. A list of vectors for several
        layers.

    Raises
    ------
    InvalidInput
        For an empty list, C <= 0, and mean activations that differ by rounding only.

    References
    ----------
    G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", 2016, arXiv:1610.01644.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> positive, negative = (["Q: 3 %s 4 =" % op, "Q: 5 %s 6 =" % op] for op in "*+")
    >>> v = ps.probe(model, positive, negative, layer=2)
    >>> v, v.cosine(ps.caa(model, positive, negative, layer=2)) > 0.5
    (SteeringVector(1 × blocks.2.hook_resid_post, d=160, probe), True)
    """
    C = check_positive(C, "probe: C")

    def find(good: Array, bad: Array, noise: float, at: Site) -> tuple[Array, dict[str, Any]]:
        _mean_difference(good, bad, noise, at, "probe")
        w, _, loss = logistic_regression(np.vstack([good, bad]), np.repeat([1.0, -1.0], [len(good), len(bad)]), C)
        return w / np.linalg.norm(w), {"objective": -loss}

    return _contrast(model, positive, negative, layer, site, read_positions, False, "probe", find)


def _contrast(
    model: Model, positive: Prompts, negative: Prompts, layer: Layers, site: str | None, read_positions: Positions,
    paired: bool, method: str, find: Finder,
) -> SteeringVector | list[SteeringVector]:  # fmt: skip
    """The vector that `find` makes of the activations at a site; a list of vectors for several layers."""
    started = time.perf_counter()
    is_site = isinstance(layer, str) or (isinstance(layer, tuple) and len(layer) == 2 and isinstance(layer[1], str))
    is_list = isinstance(layer, Sequence) and not is_site
    layers: list[Any] = list(layer) if isinstance(layer, Sequence) and is_list else [layer]
    sites = [model_site(model, one, site, "resid_post") for one in layers]
    if not sites or len(set(sites)) < len(sites):
        raise InvalidInput(f"{method}: layers are {shown(layer)}; give one or more, each once")
    (good, _), (bad, _) = split(positive), split(negative)
    n = len(good)
    if paired and n != len(bad):
        raise InvalidInput(
            f"{method}: {n} positive and {len(bad)} negative prompts are not pairs; give as many of each"
            + (", or paired=False for the difference of the means" if method == "caa" else "")
        )
    read = Activations(model, [*good, *bad], sites, read_positions)
    here, there = (np.sort(np.concatenate(rows)) for rows in (read.rows[:n], read.rows[n:]))
    # the angles of rotary embeddings are float32, as in transformers: the same tokens at other positions differ by that
    dtype = model.dtype if np.array_equal(here, there) else np.float32
    vectors = []
    for at in sites:
        size = np.concatenate([norms[rows] for norms, rows in zip(read.norms[at], read.rows, strict=True)]).mean()
        means = np.array(read.means[at])
        array, fields = find(means[:n], means[n:], rounding(float(size), dtype), at)
        vectors.append(SteeringVector.from_array(
            array.astype(model.dtype), at.layer, at.name, method=method, target_positions=read.rows, **fields, **read.fields(at),
            cost=Cost(len(read.rows), 0, time.perf_counter() - started),
        ))  # fmt: skip
    return vectors if is_list else vectors[0]


def _mean_difference(good: Array, bad: Array, noise: float, at: Site, method: str) -> Array:
    """Difference (d,) of the mean activations. Raises InvalidInput where it is rounding."""
    difference = good.mean(0) - bad.mean(0)
    length = float(np.linalg.norm(difference))
    if not length > noise:
        raise InvalidInput(
            f"{method}: positive and negative prompts have the same mean activation at {at} at the positions read, but for "
            f"rounding (they differ by {length:.3g}, rounding may be {noise:.3g}); do they differ there or before, where "
            'the site\'s attention reaches? A smaller difference needs ps.load(..., dtype="float64")'
        )
    return np.asarray(difference)
