"""Random vectors, the baseline of every other method."""

from __future__ import annotations

import time

import numpy as np

from .._util.checks import check_count
from .._util.deprecated import deprecated_arguments
from ..inputs.prompts import Prompts, split
from ..inputs.sites import SiteLike
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector
from .activations import Activations, model_fields, model_site, unit

__all__ = ["random_vectors"]


@deprecated_arguments(2, n="k")
def random_vectors(
    model: Model,
    layer: int | SiteLike,
    *,
    k: int = 1,
    site: str | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
) -> list[SteeringVector]:
    """Independent unit vectors, uniform on the sphere.

    Parameters
    ----------
    model : Model
    layer, site : int and str
        Where the vectors are added; site None is "mlp_out". `layer` may also be a whole site.
    k : int
        Number of vectors. The first vectors of a seed do not depend on k.
    seed : int
        Seed of the random numbers. The same seed gives the same directions at every layer: vectors of several layers that are
        to be independent need several seeds.
    prompts : prompt or list of prompts, optional
        Measures the mean activation norm of the site, which `SteeringVector.relative` needs.

    Returns
    -------
    list of SteeringVector
        k vectors of scale 1.

    Raises
    ------
    InvalidInput
        For k < 1 and a site that the model does not have.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> ps.random_vectors(model, 2, k=2, prompts="Task: 3 * 4 =")[1]
    SteeringVector(1 × blocks.2.hook_mlp_out, d=160, random)
    """
    started = time.perf_counter()
    at = model_site(model, layer, site, "mlp_out")
    k, seed = check_count(k, "random_vectors: k"), check_count(seed, "random_vectors: seed", least=0)
    fields, passes = model_fields(model), 0
    if prompts is not None:
        read = Activations(model, split(prompts)[0], [at], None)
        fields, passes = {**read.fields(at), "source_positions": read.rows}, len(read.rows)
    directions = unit(np.random.default_rng(seed).standard_normal((k, model.d_model))).astype(model.dtype)
    cost = Cost(passes, 0, time.perf_counter() - started)
    return [SteeringVector(v, at.layer, at.name, method="random", seed=seed, cost=cost, **fields) for v in directions]
