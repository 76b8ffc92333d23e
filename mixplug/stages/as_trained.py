"""A network as if it had been trained a little, so that checks see what its layers do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class AsTrained:
    """Other parameters and statistics for a model, which are in it only within a context.

    A new network may hide layers: a residual branch whose last scale is 0 or 1e-6 changes nothing
    yet, and batch norm that has seen nothing lets features vanish or explode. So parameters that
    are constant are replaced by random ones, and averages by those of a batch. The model gets its
    own tensors back, not copies.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        source = torch.Generator().manual_seed(0)
        self._parameters = [
            (parameter, _drawn(parameter.data, source))
            for parameter in model.parameters()
            if _is_constant(parameter.data)
        ]
        self._norms: list[Any] = [
            module
            for module in model.modules()
            if isinstance(getattr(module, "running_mean", None), Tensor)
            and hasattr(module, "momentum")
        ]
        self._statistics: list[dict[str, Tensor]] = [
            {
                n: held.clone()
                for n, held in module._buffers.items()
                if held is not None and n in _STATISTICS
            }
            for module in self._norms
        ]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The model has the other parameters and statistics."""
        own = [parameter.data for parameter, _ in self._parameters]
        averages = [dict(module._buffers) for module in self._norms]
        try:
            for parameter, data in self._parameters:
                parameter.data = data
            for module, statistics in zip(self._norms, self._statistics, strict=True):
                module._buffers.update(statistics)
            yield
        finally:
            for (parameter, _), data in zip(self._parameters, own, strict=True):
                parameter.data = data
            for module, buffers in zip(self._norms, averages, strict=True):
                module._buffers.update(buffers)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """As :meth:`entered`; the statistics become those of the pass that runs in it."""
        momenta = [module.momentum for module in self._norms]
        with self.entered():
            try:
                for module in self._norms:
                    module.training, module.momentum = True, 1.0
                yield
            finally:
                for module, momentum in zip(self._norms, momenta, strict=True):
                    module.training, module.momentum = False, momentum


def _is_constant(data: Tensor) -> bool:
    if not data.is_floating_point() or data.numel() < 2:
        return False
    return bool((data == data.flatten()[0]).all())


def _drawn(data: Tensor, source: torch.Generator) -> Tensor:
    """Scales from 0.5 to 1.5, or weights that keep the variance."""
    if data.dim() <= 1:
        return (torch.rand(data.shape, generator=source) + 0.5).to(data)
    fan = max(1, math.prod(data.shape[1:]))
    return (torch.randn(data.shape, generator=source) / math.sqrt(fan)).to(data)
