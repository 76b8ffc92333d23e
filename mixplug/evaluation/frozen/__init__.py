"""Evaluations of frozen vision transformers: k-NN, linear probe, object discovery, DAVIS."""

from mixplug.evaluation.frozen.davis import DavisResult, evaluate_davis
from mixplug.evaluation.frozen.discovery import Discovery, discover
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.knn import knn
from mixplug.evaluation.frozen.label_propagation import Protocol, segment
from mixplug.evaluation.frozen.linear import Probe, linear
from mixplug.renamed import old_names

__all__ = [
    "DavisResult",
    "Discovery",
    "Frozen",
    "Probe",
    "Protocol",
    "discover",
    "evaluate_davis",
    "knn",
    "linear",
    "segment",
]


__getattr__ = old_names(__name__)
