"""A contrast at a later site, or of two logits, pulled back to an earlier site by the transpose of a Jacobian."""

from __future__ import annotations

import time

import numpy as np

from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import Site, SiteLike
from ..model.model import Model
from ..model.one_token import token_id
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import Cost, SteeringVector
from .activations import Array

__all__ = ["pull_back"]

Contrast = SteeringVector | tuple[str | int, str | int]


def pull_back(
    model: Model,
    prompts: Prompts,
    contrast: Contrast,
    source: int | SiteLike,
    *,
    source_site: str | None = None,
    target_positions: Positions = -1,
    source_positions: Positions = None,
) -> SteeringVector:
    """The gradient at an earlier site of how far the target moves along a contrast: J'c, the mean over prompts.

    c is what a vector adds at its own site, such as the difference of mean activations that `caa` finds there, or the
    difference of two logits; J is the Jacobian of that target with respect to a vector at the source. To first order
    no vector of its length at the source moves the target further along c.

    Parameters
    ----------
    model : Model
    prompts : prompt or list of prompts
        Where J is taken.
    contrast : SteeringVector, or a pair of tokens
        c: a vector at a site after the source; or (a, b), texts of one token or token ids, for logit a minus logit b.
    source, source_site : int and str
        Where the vector is added; source_site None is "mlp_out". `source` may also be a whole site.
    target_positions, source_positions
        As for `Model.jacobian`; the target's are averaged in every prompt.

    Returns
    -------
    SteeringVector
        J'c, whose norm is the scale and the `objective`: what a unit vector gains of c.F per unit of its length. `parents`
        names the contrast.

    Raises
    ------
    InvalidInput
        For a source that does not come before the contrast, another kind of contrast, and a contrast that nothing at the
        source changes.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Q: 3*4\\nA:"
    >>> late = ps.caa(model, "Q: 3*4", "Q: 3+4", layer=4)
    >>> v = ps.pull_back(model, prompt, late, source=1)
    >>> v.location, v.target, v.method
    (blocks.1.hook_mlp_out, blocks.4.hook_resid_post, 'pull_back')
    >>> ps.pull_back(model, prompt, ("3", "4"), source=1).parents
    ("logit '3' - logit '4'",)
    """
    started = time.perf_counter()
    target, c, about = _contrast(model, contrast)
    J = model.jacobian(
        prompts, source, target, source_site=source_site, target_positions=target_positions,
        source_positions=source_positions, reduce="mean",
    )  # fmt: skip
    n = len(J.prompt_tokens)
    gradient = J.T @ np.tile(c / n, n).astype(J.dtype)
    gain = float(np.linalg.norm(gradient.astype(np.float64)))
    if not gain > 0:
        raise InvalidInput(
            f"no vector at {J.source} changes the contrast at {J.target}: are the target positions before the source positions, "
            "or out of reach of their attention?"
        )
    return SteeringVector.from_array(
        gradient, method="pull_back", objective=gain, parents=(about,), **J.linearization.provenance(J.source_norm),
        cost=Cost(n, n, time.perf_counter() - started),
    )  # fmt: skip


def _contrast(model: Model, contrast: Contrast) -> tuple[Site | str, Array, str]:
    """(target, c, what it is in words)."""
    if isinstance(contrast, SteeringVector):
        check_adds(contrast, "pulled back")
        (added,) = model._interventions(contrast)
        return contrast.location, added.array.astype(np.float64), contrast._short()
    if not isinstance(contrast, (tuple, list)) or len(contrast) != 2:
        raise InvalidInput(f"a contrast is a SteeringVector or a pair of tokens, such as (' yes', ' no'), not {shown(contrast)}")
    a, b = (token_id(model, token) for token in contrast)
    if a == b:
        raise InvalidInput(f"the contrast {contrast!r} is of one token with itself")
    c = np.zeros(model.n_vocab)
    c[a], c[b] = 1.0, -1.0
    return "logits", c, f"logit {contrast[0]!r} - logit {contrast[1]!r}"
