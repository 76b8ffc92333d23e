"""Who is anchor and who is point, and which of them are pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Relation:
    """Anchors and the points that are positive or negative to them.

    Attributes:
        anchors: (A, D).
        anchor_labels: (A,).
        points: (P, D).
        point_labels: (P,).
        itself: whether anchor i is point i, which then is neither positive nor negative to it.
    """

    anchors: Tensor
    anchor_labels: Tensor
    points: Tensor
    point_labels: Tensor
    itself: bool

    @classmethod
    def among(cls, examples: Tensor, labels: Tensor) -> Relation:
        """Examples (B, D) that are anchors and points at once."""
        return cls(examples, labels, examples, labels, itself=True)

    def positive(self) -> Tensor:
        """P(a): (A, P) bool."""
        same = self.anchor_labels[:, None] == self.point_labels
        return same.fill_diagonal_(False) if self.itself else same

    def negative(self) -> Tensor:
        """N(a): (A, P) bool."""
        return self.anchor_labels[:, None] != self.point_labels


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (A, P) of rows (A, D) and (P, D), not in half precision under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT
