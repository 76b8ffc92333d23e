"""Calibration of a stream of predictions, of which only the sums of bins are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.functional.calibration import (
    bins_of_sums,
    calibration_sums,
    ece_of_bins,
    oe_of_bins,
)
from mixplug.functional.precision import exact_dtype


@dataclass
class CalibrationMetrics:
    """Sums up a reliability diagram, batch by batch, and makes numbers of it.

    They are those of :mod:`mixplug.functional.calibration` on all examples at once, whatever the
    batches: counts are whole numbers, confidences are summed in float64. Memory does not grow.

    Attributes:
        bins: of equal width, between 0 and 1.
        sums: (3, bins) float64 on the CPU: examples, right ones, and sum of confidences. To join
            ranks, add them up.
    """

    bins: int = 15
    sums: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"CalibrationMetrics needs bins >= 1, got {self.bins}.")
        self.reset()

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: probabilities (B, K) and classes (B,).

        Raises:
            ValueError: shapes do not fit, or probabilities that are not in [0, 1].
        """
        probabilities = probabilities.detach()
        confidence = probabilities.amax() if probabilities.numel() else torch.zeros(())
        if not 0 <= float(confidence) <= 1 + 1e-4:  # NaN is not in it
            raise ValueError(
                f"CalibrationMetrics.update needs probabilities in [0, 1], got {confidence:.4g}: "
                f"logits go to update_logits."
            )
        self.sums = self.sums + calibration_sums(probabilities, labels, self.bins).cpu()

    def update_logits(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, K) and classes (B,).

        Raises:
            ValueError: shapes do not fit, or NaN.
        """
        self.update(logits.to(exact_dtype(logits)).softmax(-1), labels)

    def merge(self, other: CalibrationMetrics) -> None:
        """Add what another one has seen.

        Raises:
            ValueError: it has another number of bins.
        """
        if other.bins != self.bins:
            raise ValueError(
                f"CalibrationMetrics.merge needs the same bins, got {self.bins} and {other.bins}."
            )
        self.sums = self.sums + other.sums

    def reset(self) -> None:
        """Forget all."""
        self.sums = torch.zeros(3, self.bins, dtype=torch.float64)

    def diagram(self) -> tuple[Tensor, Tensor, Tensor]:
        """Share, accuracy and confidence of every bin, (bins,) each; 0 in an empty one.

        Raises:
            ValueError: nothing was added.
        """
        return bins_of_sums(self.sums)

    def compute(self) -> dict[str, float]:
        """'ece', 'oe', 'accuracy' and 'confidence' (its mean), fractions.

        Raises:
            ValueError: nothing was added.
        """
        share, accuracy, confidence = self.diagram()
        return {
            "ece": float(ece_of_bins(share, accuracy, confidence)),
            "oe": float(oe_of_bins(share, accuracy, confidence)),
            "accuracy": float((share * accuracy).sum()),
            "confidence": float((share * confidence).sum()),
        }
