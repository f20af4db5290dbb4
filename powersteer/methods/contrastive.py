"""Contrastive activation addition: the difference of mean activations on two sets of prompts."""

from __future__ import annotations

import time

import numpy as np

from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts, split
from ..inputs.sites import SiteLike
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector, rounding
from .activations import Activations, model_site

__all__ = ["caa"]


@deprecated_arguments(5, positions="read_positions")
def caa(
    model: Model,
    positive: Prompts,
    negative: Prompts,
    layer: int | SiteLike,
    site: str | None = None,
    *,
    read_positions: Positions = -1,
    paired: bool = True,
) -> SteeringVector:
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
        a whole site, "blocks.3.hook_mlp_out".
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
        `site_norm` is the mean over every position of all prompts; `target_positions` are the positions read.

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
    """
    started = time.perf_counter()
    at = model_site(model, layer, site, "resid_post")
    (good, _), (bad, _) = split(positive), split(negative)
    n = len(good)
    if paired and n != len(bad):
        raise InvalidInput(
            f"caa: {n} positive and {len(bad)} negative prompts are not pairs; give as many of "
            "each, or paired=False for the difference of the means"
        )
    read = Activations(model, [*good, *bad], at, read_positions)
    difference = np.mean(read.means[:n], 0) - np.mean(read.means[n:], 0)
    size = np.concatenate([norms[rows] for norms, rows in zip(read.norms, read.rows, strict=True)]).mean()
    here, there = (np.sort(np.concatenate(rows)) for rows in (read.rows[:n], read.rows[n:]))
    # the angles of rotary embeddings are float32, as in transformers: the same tokens at other positions differ by that
    noise = rounding(float(size), model.dtype if np.array_equal(here, there) else np.float32)
    length = float(np.linalg.norm(difference))
    if not length > noise:
        raise InvalidInput(
            f"caa: positive and negative prompts have the same mean activation at {at} at the positions read, but for "
            f"rounding (they differ by {length:.3g}, rounding may be {noise:.3g}); do they differ there or before, where "
            'the site\'s attention reaches? A smaller difference needs ps.load(..., dtype="float64")'
        )
    return SteeringVector.from_array(
        difference.astype(model.dtype), at.layer, at.name, method="caa", target_positions=read.rows, **read.fields,
        cost=Cost(len(read.means), 0, time.perf_counter() - started),
    )  # fmt: skip
