"""Calibration: errors between confidence and accuracy, and temperature scaling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.functional.probabilities import check_probabilities
from mixplug.numbers import card_number
from mixplug.optional import optional

TEMPERATURES = (1e-3, 1e3)  # search range of fit_temperature
_BLOCK = 1 << 22  # logits converted to float64 at a time


def confidences(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of each example (its largest probability), and whether its class is correct.

    Args:
        probabilities: (B, K), rows that sum to 1.
        labels: class indices, (B,).

    Returns:
        Two tensors (B,) float64; the second one holds zeros and ones.

    Raises:
        ValueError: shapes do not match, no examples, a label outside [0, K), or rows that are no
            probabilities, such as logits.
    """
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"calibration needs probabilities (B, K) and labels (B,) with B >= 1, got "
            f"{tuple(probabilities.shape)} and {tuple(labels.shape)}."
        )
    _check("calibration", probabilities, labels, "probabilities")
    check_probabilities("calibration", probabilities)
    confidence, predicted = probabilities.double().max(-1)
    return confidence, (predicted == labels).double()


def calibration_sums(confidence: Tensor, correct: Tensor, bins: int = 15) -> Tensor:
    """Sums per bin for a reliability diagram. Sums of disjoint sets of examples can be added.

    Args:
        confidence: confidence of each example, in [0, 1], (B,).
        correct: 1 if the prediction is correct, otherwise 0, (B,).
        bins: number of bins of equal width, see :func:`calibration_bins`.

    Returns:
        (3, bins) float64, per bin: the number of examples, the number of correct predictions, and
        the sum of confidences.

    Raises:
        ValueError: bins < 1, or other shapes.
    """
    if bins < 1:
        raise ValueError(f"calibration needs bins >= 1, got {bins}.")
    if confidence.dim() != 1 or correct.shape != confidence.shape:
        raise ValueError(
            f"calibration_sums needs confidences (B,) and 0 or 1 for each, (B,), got "
            f"{tuple(confidence.shape)} and {tuple(correct.shape)}. For probabilities and labels "
            f"use calibration_bins."
        )
    confidence, correct = confidence.double(), correct.double()
    edges = torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    index = torch.bucketize(confidence, edges)
    sums = confidence.new_zeros(3, bins)
    return sums.index_add_(1, index, torch.stack([torch.ones_like(correct), correct, confidence]))


def bins_of_sums(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Convert the result of :func:`calibration_sums` into that of :func:`calibration_bins`.

    Raises:
        ValueError: no examples.
    """
    if not sums[0].sum() > 0:
        raise ValueError("calibration needs at least one example, got none.")
    count = sums[0].clamp(min=1)
    return sums[0] / sums[0].sum(), sums[1] / count, sums[2] / count


def calibration_bins(
    probabilities: Tensor, labels: Tensor, bins: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """Reliability diagram: share, accuracy and confidence per equal-width bin of confidence.

    The confidence of an example is its largest probability. Bin i is (i/bins, (i+1)/bins]; the
    first bin includes a confidence of 0.

    Args:
        probabilities: (B, K), rows that sum to 1.
        labels: class indices, (B,).
        bins: number of bins.

    Returns:
        Three tensors (bins,): share of all examples (sums to 1), accuracy, and mean confidence.
        All are fractions, and 0 for an empty bin.

    Raises:
        ValueError: see :func:`confidences`; or bins < 1.
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
    """:func:`expected_calibration_error` from the result of :func:`calibration_bins`."""
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
    """:func:`overconfidence_error` from the result of :func:`calibration_bins`."""
    return (share * confidence * (confidence - accuracy).clamp(min=0)).sum()


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""Expected calibration error (ECE) [0] over bins.

        sum_i share_i |accuracy_i - confidence_i|

    A fraction; lower is better. The thesis reports percent (Table 3.6). Arguments and errors: see
    :func:`calibration_bins`.

    - [0]: On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599
    """
    return ece_of_bins(*calibration_bins(probabilities, labels, bins))


def overconfidence_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""Overconfidence error (OE) [0] over bins.

        sum_i share_i confidence_i max(confidence_i - accuracy_i, 0)

    A fraction; lower is better. Only bins whose confidence exceeds their accuracy contribute, in
    proportion to their confidence. Arguments and errors: see :func:`calibration_bins`.

    - [0]: On Mixup Training, 2019, https://arxiv.org/abs/1905.11001
    """
    return oe_of_bins(*calibration_bins(probabilities, labels, bins))


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Negative log-likelihood (NLL): mean over examples of ``-log softmax(z)_y``, in nats.

    Args:
        logits: z, (B, K).
        labels: y, (B,) int64 in [0, K).

    Returns:
        Scalar, float32 (float64 for float64 input).

    Raises:
        ValueError: shapes do not match, no examples, a label outside [0, K), or non-finite logits.
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
    """``-log softmax(z)_y`` of each example, (B,). Its mean is :func:`negative_log_likelihood`.

    Arguments and errors: see :func:`negative_log_likelihood`.
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
        (B,), float32 (float64 for float64 input).

    Raises:
        ValueError: see :func:`confidences`.

    - [0]: Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    _check("brier_score", probabilities, labels, "probabilities")
    check_probabilities("brier_score", probabilities)
    p = probabilities.to(exact_dtype(probabilities))
    return p.scatter_add(1, labels[:, None], -torch.ones_like(p[:, :1])).square().sum(1)


def fit_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Temperature scaling [0]: the T > 0 that minimizes the NLL of ``softmax(z / T)``.

    The NLL is convex in β = 1 / T. Its derivative in β,

        mean_i ( sum_c p_ic(β) z_ic - z_iy ),   p(β) = softmax(β z),

    is therefore increasing, and T is found as its root. So the search has no local minima, no
    initial value and no step size. Scaling the logits scales the temperature: T(c z) = c T(z).
    The temperature changes neither the order of the classes nor accuracy.

    T is searched in [1e-3, 1e3]. If the minimum is outside, the nearer end is returned: 1e-3 if
    every example is classified correctly, since the NLL then decreases with ever higher
    confidence; 1e3 if errors are so frequent that uniform probabilities are better. If the logits
    of each example are all equal, T has no effect, and 1 is returned. On these examples, the NLL
    at T is never above the NLL at 1, so evaluate T on other examples than those it is fitted to.

    Args:
        logits: z, (B, K), of examples outside of the training set.
        labels: y, (B,) int64 in [0, K).

    Returns:
        T, a detached scalar, float32 (float64 for float64 input), on the device of the logits.

    Raises:
        ValueError: as in :func:`negative_log_likelihood`.
        ImportError: scipy is not installed.

    - [0]: as in :func:`expected_calibration_error`.
    """
    _check("fit_temperature", logits, labels)
    optimize = optional("scipy.optimize", "card", "temperature scaling")
    low, high = TEMPERATURES
    with torch.no_grad():
        if bool((logits == logits[:, :1]).all()):
            temperature = 1.0
        elif _slope(logits, labels, 1 / low) <= 0:  # it is 0 if every exponential underflows
            temperature = low
        elif _slope(logits, labels, 1 / high) >= 0:
            temperature = high
        else:
            temperature = 1 / optimize.brentq(
                lambda beta: _slope(logits, labels, beta), 1 / high, 1 / low, xtol=1e-12
            )
    return logits.new_tensor(temperature, dtype=exact_dtype(logits))


def _slope(logits: Tensor, labels: Tensor, beta: float) -> float:
    """Derivative of the NLL in β, in float64, computed over blocks of examples."""
    rows = max(1, _BLOCK // logits.shape[1])
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for z, y in zip(logits.split(rows), labels.split(rows), strict=True):
        z = z.double()
        relative = z - z.gather(1, y[:, None])  # a constant shift of all logits cancels
        total += ((beta * relative).softmax(1) * relative).sum()
    return float(total) / len(logits)


def _check(caller: str, logits: Tensor, labels: Tensor, name: str = "logits") -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        raise ValueError(
            f"{caller} needs {name} (B, K) and labels (B,) with B >= 1, got {tuple(logits.shape)} "
            f"and {tuple(labels.shape)}."
        )
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < logits.shape[1]:
        raise ValueError(f"{caller} needs labels in [0, {logits.shape[1]}), got {low} to {high}.")
    if not logits.isfinite().all():
        raise ValueError(f"{caller} needs finite {name}, got NaN or infinite values.")
