"""Methods that find steering vectors. `dct` and `melbo` are modules here; their functions are powersteer's."""

from .contrastive import caa, pca, probe
from .dct import calibrated_radius
from .jlens import JLens, JLensMap
from .power import power_vectors
from .pullback import pull_back
from .random import random_vectors
from .sparse_autoencoder import sae_vectors

__all__ = ["JLens", "JLensMap", "caa", "calibrated_radius", "pca", "power_vectors", "probe", "pull_back", "random_vectors", "sae_vectors"]
