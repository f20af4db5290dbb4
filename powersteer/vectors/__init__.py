"""Steering vectors: the vectors, their files, and how they are added to a model."""

from .interventions import Intervention
from .saved import load_vectors, save_vectors
from .steering_vector import Calibration, Cost, ProvenanceWarning, SteeringVector
from .torch_hooks import Hook

__all__ = ["Calibration", "Cost", "Hook", "Intervention", "ProvenanceWarning", "SteeringVector", "load_vectors", "save_vectors"]
