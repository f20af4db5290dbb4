"""powersteer: the directions a language model is sensitive to between any two layers, and steering with them, on a CPU.

model = powersteer.load("path/or/hub-id")
J = model.jacobian("Once upon a time", source=1, target=4)
vec = J.svd(k=12).vectors[0]
print(model.steered(vec.relative(0.5)).generate("Once upon a time").text)
"""

from . import errors, evaluate, plots
from ._core.blas import show_config
from ._version import __version__
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
from .evaluate.effects import Effect, Effects, effects
from .evaluate.search import SearchResult, search
from .linalg.svd import svd
from .mapping import Atlas
from .mapping.run import atlas, atlas_plan
from .methods.baselines import caa, power_vectors, random_vectors
from .methods.dct import calibrated_radius, dct
from .methods.jlens import JLens
from .methods.melbo import melbo
from .model.generation import Generation
from .model.model import Model, from_transformers, load
from .vectors.steering_vector import Cost, ProvenanceWarning, SteeringVector, load_vectors, save_vectors

__all__ = [
    "Atlas",
    "BadCheckpoint",
    "ConvergenceWarning",
    "Cost",
    "Effect",
    "Effects",
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
    "SearchResult",
    "SteeringVector",
    "UnsupportedModel",
    "__version__",
    "atlas",
    "atlas_plan",
    "caa",
    "calibrated_radius",
    "dct",
    "effects",
    "errors",
    "evaluate",
    "from_transformers",
    "load",
    "load_vectors",
    "melbo",
    "plots",
    "power_vectors",
    "random_vectors",
    "save_vectors",
    "search",
    "show_config",
    "svd",
]
