"""The map of a model: from which layer, along which directions, which later layer is moved."""

from .plan import Plan
from .run import atlas, atlas_plan
from .table import Atlas

__all__ = ["Atlas", "Plan", "atlas", "atlas_plan"]
