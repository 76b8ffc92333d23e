"""The classifier of a model: what it declares, and whether mixing commutes with it."""

from __future__ import annotations

from torch import Tensor, nn


def linear_head(head: nn.Module) -> nn.Linear | nn.Conv2d | None:
    """The classifier if it is linear, also as a 1x1 convolution, else None."""
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        return head
    if isinstance(head, nn.Conv2d) and type(head).forward is nn.Conv2d.forward:
        return head if head.kernel_size == (1, 1) and head.groups == 1 else None
    return None


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


def rows(logits: Tensor, classifier: str) -> Tensor:
    """Logits as (B, K); a 1x1 convolution gives (B, K, 1, 1).

    Raises:
        ValueError: more than one row per example.
    """
    if logits.dim() < 2 or logits[0, 0].numel() != 1:
        raise ValueError(
            f"The classifier {classifier!r} gives {tuple(logits.shape)} instead of one row of "
            f"logits per example. It must be the last module, after pooling."
        )
    return logits.flatten(1)
