"""Metric losses: the eight of Table 4.1, Metrix, and the methods that Metrix is compared with.

Derive your own loss from :class:`PairLoss` if it is a sum over the positive and negative pairs of
an anchor (eq. 4.3), and from :class:`MetricLoss` otherwise. Equation, table and section numbers are
those of the thesis that ``mixplug.__doc__`` names.
"""

from mixplug.catalog import registered_in
from mixplug.losses.base import MetricLoss, PairLoss
from mixplug.losses.building import as_pair_loss, build_loss
from mixplug.losses.mixing import MixingLoss
from mixplug.losses.proxies import ProxyLoss, param_groups

_registered = registered_in(__name__)
globals().update(_registered)

__all__ = [
    "MetricLoss",
    "MixingLoss",
    "PairLoss",
    "ProxyLoss",
    "as_pair_loss",
    "build_loss",
    "param_groups",
    *_registered,
]
