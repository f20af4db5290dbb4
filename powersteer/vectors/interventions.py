"""Interventions: steering vectors and the positions they act at, ready for the C core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.warn import warn_user
from ..errors import InvalidInput, shown
from ..inputs.positions import Canonical, Positions, canonical, describe, steering_ranges
from ..inputs.sites import parse_site
from ..loading.spec import Spec
from .steering_vector import ProvenanceWarning, SteeringVector, action

__all__ = ["Intervention", "Steering", "core_steering", "make_interventions"]

Steering = SteeringVector | Sequence[SteeringVector]
_EVERY_POSITION = np.array([[0, np.iinfo(np.int32).max]], dtype=np.int32)


@dataclass(frozen=True, eq=False)
class Intervention:
    """A steering vector and the positions it acts at, with the array in the core's dtype.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> v = ps.random_vectors(model, 2)[0]
    >>> model.steered(2 * v, positions="generated").steering
    ('2 × blocks.2.hook_mlp_out at generated (random)',)
    >>> model.steered(v.ablate()).steering
    ('ablate blocks.2.hook_mlp_out at all (random)',)
    """

    vector: SteeringVector
    positions: Canonical
    site: tuple[int, int]  # layer, number of the site in the core
    array: NDArray[Any]  # (d,): scale * direction, or the direction of a vector that clamps
    coefficient: float | None = None  # of a vector that clamps

    def __str__(self) -> str:
        return f"{action(self.vector, 6)} at {describe(self.positions)} ({self.vector.method})"


def make_interventions(
    vectors: Steering, positions: Positions, spec: Spec, real: np.dtype[Any], weights: str
) -> tuple[Intervention, ...]:
    """One intervention for each vector. Raises InvalidInput for a vector that does not fit the model; warns with
    ProvenanceWarning about one that was made with another model."""
    as_list = [vectors] if isinstance(vectors, SteeringVector) else vectors
    if not isinstance(as_list, (list, tuple)) or not all(isinstance(v, SteeringVector) for v in as_list):
        raise InvalidInput(
            f"cannot steer with {shown(vectors)}: a SteeringVector or a list of them is needed; "
            "SteeringVector.from_array(array, layer, site) makes one"
        )
    if not as_list:
        raise InvalidInput("there is no vector to steer with: the list is empty")
    for vector in as_list:
        if vector.weights is not None and vector.weights != weights:
            warn_user(
                f"the vector at {vector.location} ({vector.method}) was made with another model ({vector.model or vector.weights}) and may "
                "mean nothing here; "
                "dataclasses.replace(vec, weights=None) if you know that it does",
                ProvenanceWarning,
            )
    return tuple(_intervention(vector, canonical(positions), spec, real) for vector in as_list)


def _intervention(vector: SteeringVector, positions: Canonical, spec: Spec, real: np.dtype[Any]) -> Intervention:
    if len(vector) != spec.d_model:
        raise InvalidInput(f"the vector has {len(vector)} numbers; activations of this model have {spec.d_model}")
    site = parse_site(vector.location, n_layers=spec.n_layers, parallel=spec.parallel, absent=spec.absent)
    direction, clamps = vector.direction.astype(np.float64), vector.operation == "clamp"
    with np.errstate(over="ignore"):
        added = np.ascontiguousarray(direction * vector.scale, dtype=real)
    if not np.isfinite(added).all():
        raise InvalidInput(f"the vector's scale {vector.scale:.6g} is too large for {real}")
    array = np.ascontiguousarray(direction / np.linalg.norm(direction), dtype=real) if clamps else added
    array.flags.writeable = False
    return Intervention(vector, positions, (site.layer, site.index), array, vector.scale if clamps else None)


def core_steering(
    interventions: Iterable[Intervention], lengths: Sequence[int], totals: Sequence[int], row: int | None = None
) -> list[tuple[int, int, NDArray[Any], int, NDArray[np.int32], float | None]]:
    """The core's list of (layer, site, vector, sequence or -1 for all, ranges of positions, coefficient or None).

    lengths: tokens of each prompt; totals: tokens of each sequence, the new ones included. row: index of the only
    sequence that is steered; None: every one is. Those at one site act in this order.
    """
    steer = []
    for item in interventions:
        if item.positions is None:
            steer.append((*item.site, item.array, -1 if row is None else row, _EVERY_POSITION, item.coefficient))
            continue
        for i in range(len(lengths)) if row is None else (row,):
            ranges = steering_ranges(item.positions, lengths[i], totals[i])
            if len(ranges):
                steer.append((*item.site, item.array, i, ranges, item.coefficient))
    return steer
