"""A look for values that no training step may have, without waiting for an accelerator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDING = 1e-3  # how far a sum of shares may be outside of [0, 1]


class _Seen(NamedTuple):
    """A value that was not read yet, and how to judge it."""

    value: Tensor
    fault: Callable[[Tensor], str]  # the fault that the value shows, '' if there is none
    what: str

    def require_fine(self) -> None:
        fault = self.fault(self.value)
        if fault:
            late = "" if self.value.device.type == "cpu" else " This was noticed one step late."
            raise ValueError(f"{self.what}: {fault}{late}")


class Watch:
    """Looks for NaN in embeddings, and for measured shares outside of [0, 1].

    On the CPU a fault raises in the step that has it. On an accelerator it raises in the next step,
    because to read the answer at once is to wait for it.
    """

    def __init__(self) -> None:
        self._nan: Tensor | None = None
        self._shares: _Seen | None = None
        self._pending: list[_Seen] = []

    def see(self, embedding: Tensor, further: bool = False) -> None:
        """Look at the embeddings of a pass; those of a ``further`` one add to the last ones."""
        flag = embedding.detach().isnan().any()
        self._nan = self._nan | flag if further and self._nan is not None else flag

    def see_shares(self, shares: Tensor, what: str) -> None:
        """Look at measured shares.

        Args:
            shares: of any shape, with at least one element.
            what: the step, for the message.

        Raises:
            ValueError: they are on the CPU, and one is not finite or not in [0, 1].
        """
        seen = _Seen(torch.stack(shares.detach().float().aminmax()), _not_shares, what)
        if seen.value.device.type == "cpu":
            seen.require_fine()
        else:
            self._shares = seen

    def check(self, what: str) -> None:
        """Raise ValueError for a fault of this step (CPU), or of the last one (accelerator)."""
        seen = [] if self._nan is None else [_Seen(self._nan, _nan, what)]
        seen += [] if self._shares is None else [self._shares]
        due = self._pending + [one for one in seen if one.value.device.type == "cpu"]
        self._pending = [one for one in seen if one.value.device.type != "cpu"]
        self._nan = self._shares = None
        for one in due:
            one.require_fine()


def _nan(flag: Tensor) -> str:
    if not bool(flag):
        return ""
    return (
        "the features that reach the classifier are NaN. The input, the learning rate or mixed "
        "precision is the usual cause."
    )


def _not_shares(bounds: Tensor) -> str:
    low, high = bounds.tolist()
    if math.isfinite(high - low) and low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return ""
    return f"measured shares must be finite and in [0, 1], got {low:g} to {high:g}."
