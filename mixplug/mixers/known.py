"""Examples without a label, which have no part in a mix."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mixplug.functional.targets import IGNORED
from mixplug.mixed import HullMixed, Mixed


def labeled(y: Tensor, ignore_index: int = IGNORED) -> tuple[Tensor, Tensor | None]:
    """Targets whose ignored class indices are -100, and which examples (B,) have a label.

    The latter is None if all have one. On an accelerator it is always given for class indices: to
    ask whether all have one would be to wait.
    """
    if y.is_floating_point():
        return y, None
    ignored = (y == ignore_index) | (y == IGNORED)
    if y.device.type == "cpu" and not bool(ignored.any()):
        return y, None
    return torch.where(ignored, IGNORED, y), ~ignored


def of_known(mixed: Mixed | HullMixed, y: Tensor, known: Tensor | None) -> Mixed | HullMixed:
    """What a mixer returned, with the share of each term that has a label."""
    mixed = replace(mixed, from_indices=not y.is_floating_point())
    if known is None or mixed.share is not None or not isinstance(mixed, Mixed):
        return mixed
    if len(mixed.logits) != len(known):
        return mixed
    share = known.to(mixed.logits.device, torch.float32)
    terms = mixed.logits.shape[:-1]
    return replace(mixed, share=share.view(-1, *[1] * (len(terms) - 1)).expand(terms))


def left_out(permutation: Tensor, lam: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """π and λ by which each example of a pair with an ignored one is its own partner, λ = 1.

    Args:
        permutation: π, (B,).
        lam: λ, (B,).
        known: (B,) bool, whether an example has a label.
    """
    permutation, lam = permutation.to(known.device), lam.to(known.device)
    both = known & known[permutation]
    itself = torch.arange(len(known), device=known.device)
    return torch.where(both, permutation, itself), torch.where(both, lam, torch.ones_like(lam))
