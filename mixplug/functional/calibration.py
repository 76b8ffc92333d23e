"""Calibration: how far confidence is from accuracy."""

from __future__ import annotations

import torch
from torch import Tensor


def calibration_bins(
    probabilities: Tensor, labels: Tensor, bins: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """Reliability diagram: share, accuracy and confidence of equal-width bins of confidence.

    A bin is (i/bins, (i+1)/bins]; a confidence of 0 belongs to the first.

    Args:
        probabilities: (B, K), rows that sum to 1.
        labels: (B,) class indices.
        bins: number of bins.

    Returns:
        Three (bins,) tensors: share of the examples (sums to 1), accuracy, and mean confidence,
        all fractions; 0 in an empty bin.

    Raises:
        ValueError: shapes do not fit, no example, or bins < 1.
    """
    if bins < 1:
        raise ValueError(f"calibration needs bins >= 1, got {bins}.")
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"calibration needs probabilities (B, K) and labels (B,) with B >= 1, got "
            f"{tuple(probabilities.shape)} and {tuple(labels.shape)}."
        )
    confidence, predicted = probabilities.double().max(-1)
    correct = (predicted == labels).double()
    edges = torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    index = torch.bucketize(confidence, edges)
    sums = confidence.new_zeros(3, bins)
    sums.index_add_(1, index, torch.stack([torch.ones_like(correct), correct, confidence]))
    count = sums[0].clamp(min=1)
    return sums[0] / len(labels), sums[1] / count, sums[2] / count


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""ECE [0]: ``sum_i share_i |accuracy_i - confidence_i|`` over bins, a fraction.

    Lower is better; the thesis prints percent (Table 3.6). Arguments: :func:`calibration_bins`.

    - [0]: On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599
    """
    share, accuracy, confidence = calibration_bins(probabilities, labels, bins)
    return (share * (accuracy - confidence).abs()).sum()


def overconfidence_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""OE [0]: ``sum_i share_i confidence_i max(confidence_i - accuracy_i, 0)``; a fraction.

    Only bins that are surer than right count, the surer the more. Arguments as in
    :func:`calibration_bins`.

    - [0]: On Mixup Training, 2019, https://arxiv.org/abs/1905.11001
    """
    share, accuracy, confidence = calibration_bins(probabilities, labels, bins)
    return (share * confidence * (confidence - accuracy).clamp(min=0)).sum()
