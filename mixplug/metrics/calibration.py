"""Calibration of a stream of predictions, from sums that do not grow with the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.functional.calibration import (
    bins_of_sums,
    calibration_sums,
    confidences,
    fit_temperature,
)
from mixplug.functional.precision import exact_dtype
from mixplug.numbers import compute, numbers

PART = "calibration"
_PURPOSE = 0  # separates the draw of halves from other draws of a seed

Values = Mapping[str, Tensor]


@dataclass
class CalibrationMetrics:
    """Calibration numbers of a stream of batches: ECE, OE, NLL and all others that are registered.

    :mod:`mixplug.numbers` says which they are. The batch size does not matter: counts are integers
    and values are summed in float64. The evaluator ``mixplug.CalibrationError`` and the reliability
    card compute their numbers with this class.

    Attributes:
        bins: number of bins of equal width between 0 and 1.
        sums: (3, bins) float64 on the CPU, see
            :func:`mixplug.functional.calibration.calibration_sums`.
        totals: sums over examples of the numbers that are averaged over examples, by name.
    """

    bins: int = 15
    sums: Tensor = field(init=False, repr=False)
    totals: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"CalibrationMetrics needs bins >= 1, got {self.bins}.")
        self.reset()

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: probabilities (B, K) and classes (B,).

        Numbers that need logits, such as NLL, are then missing from :meth:`compute`.

        Raises:
            ValueError: shapes do not fit, or probabilities outside of [0, 1].
        """
        probabilities = probabilities.detach()
        largest = probabilities.amax() if probabilities.numel() else torch.zeros(())
        if not 0 <= float(largest) <= 1 + 1e-4:  # also refuses NaN
            raise ValueError(
                f"CalibrationMetrics.update needs probabilities in [0, 1], got {largest:.4g}: "
                f"logits go to update_logits."
            )
        self.add(values_of_probabilities(probabilities, labels))

    def update_logits(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, K) and classes (B,).

        Raises:
            ValueError: shapes do not fit, or logits that are not finite.
        """
        if not logits.isfinite().all():
            raise ValueError(
                "CalibrationMetrics.update_logits needs finite logits, but there are NaN or "
                "infinite values."
            )
        self.add(values_of_logits(logits.detach(), labels))

    def add(self, values: Values) -> None:
        """Add the values of a batch that :func:`values_of_probabilities` or its twin returned."""
        values = dict(values)
        pair = values.pop("confidence"), values.pop("correct")
        self._merge(
            calibration_sums(*pair, self.bins).cpu(),
            {name: float(value.sum()) for name, value in values.items()},
        )

    def merge(self, other: CalibrationMetrics) -> None:
        """Add all batches that another instance has seen, for example one of another rank.

        Raises:
            ValueError: it has another number of bins.
        """
        if other.bins != self.bins:
            raise ValueError(
                f"CalibrationMetrics.merge needs the same bins, got {self.bins} and {other.bins}."
            )
        if len(other):
            self._merge(other.sums, other.totals)

    def _merge(self, sums: Tensor, totals: Mapping[str, float]) -> None:
        # A number that one of the batches lacks would be wrong for all of them.
        known = {name: self.totals.get(name, 0.0) for name in totals}
        if len(self):
            known = {name: value for name, value in known.items() if name in self.totals}
        self.totals = {name: value + totals[name] for name, value in known.items()}
        self.sums = self.sums + sums

    def __len__(self) -> int:
        """Number of examples."""
        return int(self.sums[0].sum())

    def reset(self) -> None:
        """Forget all batches."""
        self.sums = torch.zeros(3, self.bins, dtype=torch.float64)
        self.totals = {}

    def diagram(self) -> tuple[Tensor, Tensor, Tensor]:
        """Share, accuracy and confidence of each bin, (bins,) each; 0 in an empty bin.

        Raises:
            ValueError: no batch was added.
        """
        return bins_of_sums(self.sums)

    def compute(self) -> dict[str, float]:
        """The calibration numbers by name, and 'accuracy' and 'confidence' (its mean).

        Shares are fractions.

        Raises:
            ValueError: no batch was added.
        """
        share, accuracy, confidence = self.diagram()
        found = compute(PART, "diagram", share, accuracy, confidence)
        found |= {name: total / len(self) for name, total in self.totals.items()}
        return {
            **{number.name: found[number.name] for number in numbers(PART) if number.name in found},
            "accuracy": float((share * accuracy).sum()),
            "confidence": float((share * confidence).sum()),
        }


def values_of_probabilities(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What calibration numbers need of each example, (B,) float64 each, by name.

    Args:
        probabilities: (B, K), rows that sum to 1.
        labels: (B,) class indices.

    Returns:
        'confidence', 'correct', and the numbers that are computed from probabilities.

    Raises:
        ValueError: shapes do not fit, or no example.
    """
    confidence, correct = confidences(probabilities, labels)
    found = {"confidence": confidence, "correct": correct}
    for number in numbers(PART, "probabilities"):
        found[number.name] = number.function(probabilities.double(), labels).double()
    return found


def values_of_logits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """As :func:`values_of_probabilities`, and the numbers that are computed from logits (B, K)."""
    exact = logits.to(exact_dtype(logits))
    found = values_of_probabilities(exact.softmax(-1), labels)
    for number in numbers(PART, "logits"):
        found[number.name] = number.function(exact, labels).double()
    return found


def cross_scaled(logits: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, list[float]]:
    """Logits after temperature scaling, each half of them with the temperature of the other half.

    So no example is evaluated with a temperature that was fitted on it, and all examples count.

    Args:
        logits: (N, K).
        labels: (N,).
        seed: the halves are drawn with it.

    Returns:
        The scaled logits (N, K), and both temperatures; [1.0] if there is only one example.
    """
    source = sampling.generators(seed, _PURPOSE, rank=-3).local
    halves = sampling.permutation(len(labels), source).chunk(2)
    if len(halves) < 2:
        return logits, [1.0]
    scaled, temperatures = logits.clone(), []
    for half, other in (halves, halves[::-1]):
        temperature = fit_temperature(logits[other], labels[other])
        scaled[half] = logits[half] / temperature
        temperatures.append(float(temperature))
    return scaled, temperatures
