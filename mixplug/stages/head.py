"""The classifier of a model: what it declares, and whether mixing commutes with it."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn


def linear_head(head: nn.Module) -> nn.Linear | nn.Conv2d | None:
    """The classifier if it is linear, also as a 1x1 convolution, else None.

    A subclass with a forward of its own, such as timm's ``Linear``, is linear if it computes the
    same for random weights and inputs.
    """
    if isinstance(head, nn.Conv2d) and type(head).forward is nn.Conv2d.forward:
        return head if head.kernel_size == (1, 1) and head.groups == 1 else None
    if not isinstance(head, nn.Linear):
        return None
    plain = type(head).forward is nn.Linear.forward
    return head if plain or _computes_linear(head) else None


@torch.no_grad()
def _computes_linear(head: nn.Linear) -> bool:
    source = torch.Generator().manual_seed(0)
    alone = copy.deepcopy(head).float().cpu().eval()  # without the model's hooks taking part
    alone._forward_hooks.clear()
    alone._forward_pre_hooks.clear()
    for parameter in alone.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=source))
    x = torch.randn(4, head.in_features, generator=source)
    try:
        return torch.allclose(alone(x), F.linear(x, alone.weight, alone.bias), rtol=1e-4, atol=1e-4)
    except (RuntimeError, TypeError):
        return False


def declared(head: nn.Module, what: str, *names: str) -> int:
    """A width that the classifier has as an attribute under one of ``names``.

    Raises:
        ValueError: it has none of them.
    """
    width = next((getattr(head, name) for name in names if hasattr(head, name)), None)
    if width is None:
        raise ValueError(
            f"A mixer with parameters needs {what}, which the classifier {type(head).__name__} "
            f"does not declare ({' or '.join(names)})."
        )
    return int(width)
