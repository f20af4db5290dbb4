"""Power vectors: leading right singular vectors of a Jacobian, with what they cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from .._util.deprecated import deprecated_arguments
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..inputs.sites import SiteLike
from ..model.linearise import LAST_TWO
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector

__all__ = ["power_vectors"]


@deprecated_arguments(4, positions="target_positions")
def power_vectors(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    *,
    k: int = 12,
    method: str = "krylov",
    source_site: str | None = None,
    target_site: str | None = None,
    target_positions: Positions = LAST_TWO,
    source_positions: Positions = None,
    seed: int = 0,
    **svd: Any,
) -> list[SteeringVector]:
    """The steering vectors of `model.jacobian(...).svd(k)`, with their cost.

    Parameters
    ----------
    model : Model
    prompts : prompt or list of prompts
        Several are stacked into one Jacobian.
    source : int or site
        Layer or site at which the vectors are added.
    target : int, site, "logits" or "next_token"
        Where their effect is measured.
    k : int
        Number of vectors.
    method : "krylov", "power" or "dense"
        Algorithm of the SVD, as for `powersteer.svd`.
    source_site, target_site : str, optional
        Sites beside layers; None is "mlp_out".
    target_positions, source_positions
        As for `Model.jacobian`.
    seed : int
        Seed of the SVD.
    **svd
        Other options of `Jacobian.svd`: `tol`, `iterations`, ...

    Returns
    -------
    list of SteeringVector
        k unit vectors, the largest singular value first.

    Raises
    ------
    InvalidInput
        As `Model.jacobian` and `Jacobian.svd`; if no vector moves the target by more than rounding.

    Warns
    -----
    ConvergenceWarning
        If a residual exceeds the tolerance.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> v = ps.power_vectors(model, "Task: 3 * 4 =", 1, 3, k=2)[0]
    >>> v.location, v.target, v.rank, v.cost.forward
    (blocks.1.hook_mlp_out, blocks.3.hook_mlp_out, 0, 1)
    """
    started = time.perf_counter()
    J = model.jacobian(
        prompts, source, target, source_site=source_site, target_site=target_site, target_positions=target_positions,
        source_positions=source_positions,
    )  # fmt: skip
    result = J.svd(k, method=method, seed=seed, **svd)
    n_prompts = len(J.prompt_tokens)
    products = (result.applications + result.certificate_applications) * n_prompts
    cost = Cost(n_prompts, products, time.perf_counter() - started)
    return [replace(v, cost=cost) for v in result.vectors]
