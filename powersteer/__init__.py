"""powersteer: the directions a language model is sensitive to between any two layers, and steering with them, on a CPU.

model = powersteer.load("path/or/hub-id")
J = model.jacobian("Once upon a time", source=1, target=4)
vec = J.svd(k=12).vectors[0]
print(model.steered(vec.relative(0.5)).generate("Once upon a time").text)
"""

from . import errors
from ._blas import show_config
from ._version import __version__
from .atlas import Atlas, atlas, atlas_plan
from .errors import (
    BadCheckpoint,
    ConvergenceWarning,
    InvalidInput,
    MissingDependency,
    NotFound,
    NumericalError,
    OutOfMemory,
    PowersteerError,
    UnsupportedModel,
)
from .generation import Generation
from .jlens import JLens
from .model import Model, from_transformers, load
from .svd import svd
from .vectors import ProvenanceWarning, SteeringVector, load_vectors, save_vectors

__all__ = [
    "Atlas",
    "BadCheckpoint",
    "ConvergenceWarning",
    "Generation",
    "InvalidInput",
    "JLens",
    "MissingDependency",
    "Model",
    "NotFound",
    "NumericalError",
    "OutOfMemory",
    "PowersteerError",
    "ProvenanceWarning",
    "SteeringVector",
    "UnsupportedModel",
    "__version__",
    "atlas",
    "atlas_plan",
    "errors",
    "from_transformers",
    "load",
    "load_vectors",
    "save_vectors",
    "show_config",
    "svd",
]
