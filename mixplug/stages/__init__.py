"""A host model in stages: input x -> feature map A -> embedding e -> logits.

The model's own forward runs once, and functions are applied on the way: taps at named modules hand
what flows there to a mixer and take back what the mixer makes of it. Whatever lies between features
and classifier (norm, pooling, dropout, further blocks) is run by the model itself. The model's
class, parameters and state dict stay as they are.
"""

from mixplug.stages.forward import Edit, Forward, Tail
from mixplug.stages.frozen import FrozenNetworks
from mixplug.stages.of_0_1 import OLD_NAMES
from mixplug.stages.placement import DENSE, USEFUL, WHOLE, Need
from mixplug.stages.probe import Probe
from mixplug.stages.stages import Stages

__all__ = [
    "DENSE", "USEFUL", "WHOLE", "Edit", "Forward", "FrozenNetworks", "Need", "Probe", "Stages",
    "Tail",
]  # fmt: skip

globals().update(OLD_NAMES)
