"""Calibration: how far confidence is from accuracy, and a temperature that brings them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.numbers import card_number
from mixplug.optional import optional

TEMPERATURES = (1e-3, 1e3)  # between which one is searched
_BLOCK = 1 << 22  # logits in float64 at a time


def confidences(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Largest probability of each example, and whether it is that of its class.

    Args:
        probabilities: (B, K), rows that sum to 1.
        labels: (B,) class indices.

    Returns:
        Two (B,) float64 tensors; the second one holds zeros and ones.

    Raises:
        ValueError: shapes do not fit, or no example.
    """
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"calibration needs probabilities (B, K) and labels (B,) with B >= 1, got "
            f"{tuple(probabilities.shape)} and {tuple(labels.shape)}."
        )
    confidence, predicted = probabilities.double().max(-1)
    return confidence, (predicted == labels).double()


def calibration_sums(confidence: Tensor, correct: Tensor, bins: int = 15) -> Tensor:
    """Sums per bin from which a reliability diagram is made; sums of batches add up.

    Args:
        confidence: (B,) in [0, 1].
        correct: (B,), 1 where the prediction is correct, else 0.
        bins: number of bins of equal width, see :func:`calibration_bins`.

    Returns:
        (3, bins) float64: number of examples, of correct ones, and sum of confidences.

    Raises:
        ValueError: bins < 1.
    """
    if bins < 1:
        raise ValueError(f"calibration needs bins >= 1, got {bins}.")
    confidence, correct = confidence.double(), correct.double()
    edges = torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    index = torch.bucketize(confidence, edges)
    sums = confidence.new_zeros(3, bins)
    return sums.index_add_(1, index, torch.stack([torch.ones_like(correct), correct, confidence]))


def bins_of_sums(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The reliability diagram, see :func:`calibration_bins`, of :func:`calibration_sums`.

    Raises:
        ValueError: no example.
    """
    if not sums[0].sum() > 0:
        raise ValueError("calibration needs one example at least, got none.")
    count = sums[0].clamp(min=1)
    return sums[0] / sums[0].sum(), sums[1] / count, sums[2] / count


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
    return bins_of_sums(calibration_sums(*confidences(probabilities, labels), bins))


@card_number(
    "ece",
    part="calibration",
    source="diagram",
    label="ECE",
    unit="%",
    higher_is_better=False,
    digits=2,
)
def ece_of_bins(share: Tensor, accuracy: Tensor, confidence: Tensor) -> Tensor:
    """:func:`expected_calibration_error` of a reliability diagram."""
    return (share * (accuracy - confidence).abs()).sum()


@card_number(
    "oe",
    part="calibration",
    source="diagram",
    label="OE",
    unit="%",
    higher_is_better=False,
    digits=2,
)
def oe_of_bins(share: Tensor, accuracy: Tensor, confidence: Tensor) -> Tensor:
    """:func:`overconfidence_error` of a reliability diagram."""
    return (share * confidence * (confidence - accuracy).clamp(min=0)).sum()


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""ECE [0]: ``sum_i share_i |accuracy_i - confidence_i|`` over bins, a fraction.

    Lower is better; the thesis prints percent (Table 3.6). Arguments: :func:`calibration_bins`.

    - [0]: On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599
    """
    return ece_of_bins(*calibration_bins(probabilities, labels, bins))


def overconfidence_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""OE [0]: ``sum_i share_i confidence_i max(confidence_i - accuracy_i, 0)``; a fraction.

    Only bins that are surer than right count, the surer the more. Arguments as in
    :func:`calibration_bins`.

    - [0]: On Mixup Training, 2019, https://arxiv.org/abs/1905.11001
    """
    return oe_of_bins(*calibration_bins(probabilities, labels, bins))


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Mean over examples of ``-log softmax(z)_y``, in nats: cross-entropy without smoothing.

    Args:
        logits: z, (B, K).
        labels: y, (B,) int64 in [0, K).

    Returns:
        Scalar in float32, or float64 if given.

    Raises:
        ValueError: shapes do not fit, no example, a class outside [0, K), or logits that are not
            finite.
    """
    return log_loss(logits, labels).mean()


@card_number(
    "nll",
    part="calibration",
    source="logits",
    label="NLL",
    unit="nats",
    higher_is_better=False,
    digits=3,
)
def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log softmax(z)_y`` of each example, (B,); :func:`negative_log_likelihood` is its mean.

    Arguments and errors: :func:`negative_log_likelihood`.
    """
    _check("negative_log_likelihood", logits, labels)
    return F.cross_entropy(logits.to(exact_dtype(logits)), labels, reduction="none")


@card_number(
    "brier",
    part="calibration",
    source="probabilities",
    label="Brier score",
    higher_is_better=False,
    digits=3,
)
def brier_score(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Brier score [0] of each example: ``sum_k (p_k - [k = y])^2``, in [0, 2].

    The score of a set is the mean; lower is better. In expectation it is smallest for the true
    probabilities, so it measures calibration and accuracy together.

    Args:
        probabilities: p, (B, K), rows that sum to 1.
        labels: y, (B,) int64 in [0, K).

    Returns:
        (B,) in float32, or float64 if given.

    Raises:
        ValueError: shapes do not fit, no example, a class outside [0, K), or probabilities that are
            not finite.

    - [0]: Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    _check("brier_score", probabilities, labels, "probabilities")
    p = probabilities.to(exact_dtype(probabilities))
    return p.scatter_add(1, labels[:, None], -torch.ones_like(p[:, :1])).square().sum(1)


def fit_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Temperature scaling [0]: the T > 0 of the smallest NLL of ``softmax(z / T)``.

    The NLL is convex in β = 1 / T, so its slope in β grows,

        mean_i ( sum_c p_ic(β) z_ic - z_iy ),   p(β) = softmax(β z),

    and T is where it is 0: no local minimum, no start, no step size. T(c z) = c T(z). The order of
    classes never changes, nor does accuracy.

    T is searched from 1e-3 to 1e3, and is one of these where the NLL still falls: 1e-3 if all
    examples are right, so that no confidence is enough; 1e3 if they are wrong so often that a guess
    is better. If all logits of every example are equal, T says nothing, and is 1. The NLL at T is
    never above that at 1, on these examples: fit T on others than it is judged on.

    Args:
        logits: z, (B, K), of examples that the network was not trained on.
        labels: y, (B,) int64 in [0, K).

    Returns:
        T, a scalar in float32, or float64 if given, on the device of the logits; no gradient.

    Raises:
        ValueError: as :func:`negative_log_likelihood`.
        ImportError: scipy is not installed.

    - [0]: as in :func:`expected_calibration_error`.
    """
    _check("fit_temperature", logits, labels)
    optimize = optional("scipy.optimize", "card", "temperature scaling")
    low, high = TEMPERATURES
    with torch.no_grad():
        if bool((logits == logits[:, :1]).all()):
            found = 1.0
        elif _slope(logits, labels, 1 / low) <= 0:  # 0 where every exponential has underflowed
            found = low
        elif _slope(logits, labels, 1 / high) >= 0:
            found = high
        else:
            found = 1 / optimize.brentq(
                lambda beta: _slope(logits, labels, beta), 1 / high, 1 / low, xtol=1e-12
            )
    return logits.new_tensor(found, dtype=exact_dtype(logits))


def _slope(logits: Tensor, labels: Tensor, beta: float) -> float:
    """Derivative of the NLL in β, in float64, a part of the examples at a time."""
    rows = max(1, _BLOCK // logits.shape[1])
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for z, y in zip(logits.split(rows), labels.split(rows), strict=True):
        z = z.double()
        above = z - z.gather(1, y[:, None])  # what all classes share cancels
        total += ((beta * above).softmax(1) * above).sum()
    return float(total) / len(logits)


def _check(who: str, logits: Tensor, labels: Tensor, what: str = "logits") -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        raise ValueError(
            f"{who} needs {what} (B, K) and labels (B,) with B >= 1, got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < logits.shape[1]:
        raise ValueError(f"{who} needs classes in [0, {logits.shape[1]}), got {low} to {high}.")
    if not logits.isfinite().all():
        raise ValueError(f"{who} needs finite {what}, but there are NaN or infinite values.")
