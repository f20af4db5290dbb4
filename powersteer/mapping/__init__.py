"""The map of a model: from which layer, along which directions, which later layer is moved."""

from .atlas import Atlas
from .plan import Plan

__all__ = ["Atlas", "Plan"]
