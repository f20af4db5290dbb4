"""Methods that find steering vectors. `dct` and `melbo` are modules here; their functions are powersteer's."""

from .contrastive import caa
from .dct import calibrated_radius
from .jlens import JLens, JLensMap
from .power import power_vectors
from .random import random_vectors

__all__ = ["JLens", "JLensMap", "caa", "calibrated_radius", "power_vectors", "random_vectors"]
