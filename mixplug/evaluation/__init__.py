"""Evaluations of checkpoints: the reliability card, frozen features, and localization.

Each is a function that the commands ``mixplug eval ...`` and mm configs call.
"""

from mixplug.evaluation.card import Card, Data, Settings, Stream, Subject, make_card
from mixplug.evaluation.frozen import (
    DavisResult,
    Discovery,
    Frozen,
    Probe,
    Protocol,
    discover,
    evaluate_davis,
)
from mixplug.evaluation.wsol import localize

__all__ = [
    "Card",
    "Data",
    "DavisResult",
    "Discovery",
    "Frozen",
    "Probe",
    "Protocol",
    "Settings",
    "Stream",
    "Subject",
    "discover",
    "evaluate_davis",
    "localize",
    "make_card",
]
