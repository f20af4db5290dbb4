"""Steering vectors: the vectors, their files, and how they are added to a model."""

from .interventions import Intervention
from .steering_vector import Cost, ProvenanceWarning, SteeringVector, load_vectors, save_vectors
from .torch_hooks import Hook

__all__ = ["Cost", "Hook", "Intervention", "ProvenanceWarning", "SteeringVector", "load_vectors", "save_vectors"]
