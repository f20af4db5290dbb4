"""The map of a model: the directions in every layer that move every later layer most."""

from .atlas import Atlas
from .plan import EffectsPlan, Plan
from .results import NextTokenColumn
from .store import Pair, Sketch

__all__ = ["Atlas", "EffectsPlan", "NextTokenColumn", "Pair", "Plan", "Sketch"]
