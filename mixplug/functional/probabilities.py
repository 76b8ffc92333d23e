"""What rows of scores are: probabilities, or logits, log-probabilities or sigmoids."""

from __future__ import annotations

from torch import Tensor

_ROUNDING = 1e-2  # of the sum of a row in half precision


def check_probabilities(caller: str, p: Tensor) -> None:
    """Require rows of probabilities, and say what other rows may be.

    Args:
        caller: name of the function for the error message.
        p: finite rows, (B, K).

    Raises:
        ValueError: a value is outside [0, 1], or a row does not sum to 1 within 0.01, which
            rounding to half precision keeps.
    """
    sums = p.double().sum(1)
    low, high = float(p.amin()), float(p.amax())
    first, last = float(sums.amin()), float(sums.amax())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING and max(1 - first, last - 1) <= _ROUNDING:
        return
    if low < 0:
        logs = high <= 0 and bool(((p.double().exp().sum(1) - 1).abs() <= _ROUNDING).all())
        what, advice = ("log-probabilities", "exp()") if logs else ("logits", "softmax(-1)")
    elif high > 1 + _ROUNDING:
        what, advice = "logits", "softmax(-1)"
    else:
        what = "scores of independent classes, such as sigmoids"
        advice = "softmax(-1) of the logits"
    raise ValueError(
        f"{caller} needs probabilities, rows in [0, 1] that sum to 1, got values from {low:.4g} to "
        f"{high:.4g} and sums from {first:.4g} to {last:.4g}. These may be {what}: pass {advice}."
    )
