"""What a pass through a model gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Forward:
    """One pass through the model.

    Attributes:
        logits: (B, K), or (B, N, K) if dense.
        embedding: e, (B, D), or (B, N, D) if dense; as it was before any edit of embeddings.
    """

    logits: Tensor
    embedding: Tensor


class Tail(Protocol):
    """The part of a model between its last map and the embedding, as a function."""

    def prepare(self) -> None:
        """Make the model keep its last map from now on."""

    def take(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The map of the last pass (B, ...), and the function from such maps to (B, D)."""
