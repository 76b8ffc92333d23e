"""How well a score tells in-distribution from out-of-distribution examples: the card's numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mixplug.functional.ood import (
    best_detection_accuracy,
    check_scores,
    detection_accuracy,
    energy,
    false_positive_rate,
    max_logit,
    max_softmax,
)
from mixplug.optional import optional

# Of logits (N, K), (N,): the larger, the more as in training.
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "max_softmax": max_softmax,
    "energy": energy,
    "max_logit": max_logit,
}
THRESHOLDS = {"max_softmax": 0.5}  # the thesis' (3.4.4); other scores have none that is natural


def ood_scores(inside: Tensor, outside: Tensor, threshold: float | None = None) -> dict[str, float]:
    """All numbers of out-of-distribution detection by one score, which is larger inside (3.4.4).

    All are fractions; all but 'fpr95' are better higher. AUROC and AUPR are scikit-learn's: AUROC
    counts ties half, AUPR is the average precision, a sum of steps and not trapezoids, which would
    be too good. A score that tells nothing has AUROC 1/2 and AUPR the share of positives, which
    depends on how many examples of each there are.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).
        threshold: for 'det_acc'; 0.5 is the thesis' for the maximum softmax.

    Returns:
        - 'auroc': area under the ROC curve;
        - 'aupr_in': average precision with in-distribution examples as positives;
        - 'aupr_out': with out-of-distribution examples as positives, by the negated score;
        - 'fpr95': :func:`~mixplug.functional.ood.false_positive_rate` at 95 %;
        - 'det_acc': :func:`~mixplug.functional.ood.detection_accuracy`, if a threshold is given;
        - 'det_acc_best' and 'threshold_best':
          :func:`~mixplug.functional.ood.best_detection_accuracy`.

    Raises:
        ValueError: no scores, another shape, or scores that are not finite.
        ImportError: scikit-learn is not installed.
    """
    check_scores("ood_scores", inside, outside)
    metrics = optional("sklearn.metrics", "card", "AUROC and AUPR")
    inside, outside = inside.detach().to("cpu").double(), outside.detach().to("cpu").double()
    score = torch.cat([inside, outside]).numpy()
    positive = torch.arange(len(score)).numpy() < len(inside)
    best, at = best_detection_accuracy(inside, outside)
    result = {
        "auroc": float(metrics.roc_auc_score(positive, score)),
        "aupr_in": float(metrics.average_precision_score(positive, score)),
        "aupr_out": float(metrics.average_precision_score(~positive, -score)),
        "fpr95": float(false_positive_rate(inside, outside, 0.95)),
        "det_acc_best": float(best),
        "threshold_best": float(at),
    }
    if threshold is not None:
        result["det_acc"] = float(detection_accuracy(inside, outside, threshold))
    return result
