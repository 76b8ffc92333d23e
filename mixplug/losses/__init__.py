"""Metric losses: the eight losses of the thesis (Table 4.1), Metrix, and what it is compared with.

Derive a loss of your own from :class:`PairLoss` if it is a sum over positive and negative pairs of
an anchor, or else from :class:`MetricLoss`.
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
