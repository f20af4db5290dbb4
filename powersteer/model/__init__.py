"""Models: loading, forward passes, steering, generation, Jacobians and their cost."""

from .activations import ActivationCache
from .construct import from_transformers, load, model_from_checkpoint
from .cost import Estimate
from .generation import Generation, Stream
from .jacobian import Jacobian, Jacobians, Linearization
from .model import Model

__all__ = [
    "ActivationCache",
    "Estimate",
    "Generation",
    "Jacobian",
    "Jacobians",
    "Linearization",
    "Model",
    "Stream",
    "from_transformers",
    "load",
    "model_from_checkpoint",
]
