"""powersteer: the directions a language model is sensitive to between any two layers, and steering with them, on a CPU.

Examples
--------
>>> import powersteer as ps
>>> model = ps.load("demo")  # or a path, a hub id, a .gguf file
>>> J = model.jacobian("Q: 12*3\\nA:", source=1, target=4)
>>> vec = J.svd(k=2).vectors[0]
>>> steered = model.steered(vec.relative(0.5))
>>> text = steered.generate("Q: 12*3\\nA:", max_new_tokens=8).text
"""

from typing import TYPE_CHECKING

from . import errors, evaluate, plots, testing
from ._core.blas import show_config
from ._util.deprecated import moved_module, register_moved_modules
from ._version import __version__
from .errors import (
    BadCheckpoint,
    ConvergenceWarning,
    InvalidInput,
    MissingDependency,
    MissingSite,
    NotFound,
    NumericalError,
    OutOfMemory,
    PowersteerError,
    UnsupportedModel,
)
from .evaluate.degeneration import Repetition
from .evaluate.effects import Effect, Effects, effects
from .evaluate.intervals import MetricResult
from .evaluate.search import Candidate, SearchResult, Selection, search
from .inputs.sites import Site
from .inputs.tokenizer import Tokenizer
from .linalg.operator import LinearMap
from .linalg.svd import SVDResult, svd
from .mapping.atlas import Atlas
from .mapping.plan import EffectsPlan, Plan, PlannedUnit
from .mapping.results import NextTokenColumn
from .mapping.run import atlas, atlas_plan
from .mapping.settings import PromptRecord, Settings
from .mapping.store import Pair, Sketch
from .methods import (
    JLens,
    JLensMap,
    caa,
    calibrated_radius,
    pca,
    power_vectors,
    probe,
    pull_back,
    random_vectors,
    sae_vectors,
)
from .methods.dct import dct
from .methods.melbo import melbo
from .model import (
    ActivationCache,
    Estimate,
    Generation,
    Jacobian,
    Jacobians,
    Model,
    Stream,
    from_transformers,
    load,
)
from .notebook import Comparison, Play, TokenShare
from .vectors.interventions import Intervention
from .vectors.saved import load_vectors, save_vectors
from .vectors.steered_file import load_steered, save_steered
from .vectors.steering_vector import Calibration, Cost, ProvenanceWarning, SteeringVector
from .vectors.torch_hooks import Hook

__all__ = [
    "ActivationCache",
    "Atlas",
    "BadCheckpoint",
    "Calibration",
    "Candidate",
    "Comparison",
    "ConvergenceWarning",
    "Cost",
    "Effect",
    "Effects",
    "EffectsPlan",
    "Estimate",
    "Generation",
    "Hook",
    "Intervention",
    "InvalidInput",
    "JLens",
    "JLensMap",
    "Jacobian",
    "Jacobians",
    "LinearMap",
    "MetricResult",
    "MissingDependency",
    "MissingSite",
    "Model",
    "NextTokenColumn",
    "NotFound",
    "NumericalError",
    "OutOfMemory",
    "Pair",
    "Plan",
    "PlannedUnit",
    "Play",
    "PowersteerError",
    "PromptRecord",
    "ProvenanceWarning",
    "Repetition",
    "SVDResult",
    "SearchResult",
    "Selection",
    "Settings",
    "Site",
    "Sketch",
    "SteeringVector",
    "Stream",
    "TokenShare",
    "Tokenizer",
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
    "load_steered",
    "load_vectors",
    "melbo",
    "pca",
    "plots",
    "power_vectors",
    "probe",
    "pull_back",
    "random_vectors",
    "sae_vectors",
    "save_steered",
    "save_vectors",
    "search",
    "show_config",
    "svd",
    "testing",
]

register_moved_modules(__name__)

if not TYPE_CHECKING:  # to a type checker, what is not listed here does not exist

    def __getattr__(name):
        return moved_module(__name__, name)


def __dir__() -> list[str]:
    return sorted(__all__)
