"""What a pass through a model gives, and a look for NaN in it."""

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


class NanWatch:
    """Looks for NaN without waiting for an accelerator."""

    def __init__(self) -> None:
        self._flag: Tensor | None = None
        self._pending: tuple[Tensor, str] | None = None

    def see(self, embedding: Tensor, further: bool = False) -> None:
        """Look at the embeddings of a pass; those of a ``further`` one add to the last ones."""
        flag = embedding.detach().isnan().any()
        self._flag = self._flag | flag if further and self._flag is not None else flag

    def check(self, what: str) -> None:
        """Raise ValueError if there was a NaN in the last pass, or in a further one.

        On an accelerator the error comes at the next call, because to read the answer is to wait.
        """
        pending, self._pending = self._pending, None
        flag, self._flag = self._flag, None
        if flag is not None and flag.device.type == "cpu":
            pending = (flag, what)
        elif flag is not None:
            self._pending = (flag, what)
        if pending is not None and bool(pending[0]):
            late = " This was noticed one step late." if pending[0].device.type != "cpu" else ""
            raise ValueError(
                f"{pending[1]}: the features that reach the classifier are NaN. The input, the "
                f"learning rate or mixed precision is the usual cause.{late}"
            )
