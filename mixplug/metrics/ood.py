"""Out-of-distribution detection: scores of an example, and numbers of how well they separate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixplug.functional import ood
from mixplug.numbers import card_number, compute, numbers
from mixplug.optional import optional

PART = "ood"


@dataclass(frozen=True)
class Score:
    """A score of an example that is higher for examples like those of the training set.

    Attributes:
        label: name in tables, and in docs/definitions.md.
        function: logits (N, K) to scores (N,); None if the score is not one of logits.
        threshold: natural threshold, if there is one: at or above it an example is taken for
            in-distribution.
    """

    label: str
    function: Callable[[Tensor], Tensor] | None
    threshold: float | None = None


SCORES: Mapping[str, Score] = {
    "max_softmax": Score("maximum of softmax", ood.max_softmax, 0.5),  # thesis 3.4.4
    "energy": Score("energy", ood.energy),
    "max_logit": Score("maximum of logits", ood.max_logit),
    "knn": Score("k-NN", None),  # compares with training images: mixplug.functional.ood.knn_score
}


def scores_of_logits(logits: Tensor) -> dict[str, Tensor]:
    """All scores that are computed from logits (N, K), (N,) each, by name."""
    return {name: one.function(logits) for name, one in SCORES.items() if one.function is not None}


card_number(
    "det_acc", part=PART, source="threshold", label="Det Acc at 0.5", unit="%",
    higher_is_better=True,
)(ood.detection_accuracy)  # fmt: skip


@card_number(
    "det_acc_best",
    part=PART,
    source="scores",
    label="Det Acc, best",
    unit="%",
    higher_is_better=True,
)
def detection_accuracy_at_best(inside: Tensor, outside: Tensor) -> Tensor:
    """The accuracy of :func:`mixplug.functional.ood.best_detection_accuracy`."""
    return ood.best_detection_accuracy(inside, outside)[0]


@card_number("auroc", part=PART, source="scores", label="AUROC", unit="%", higher_is_better=True)
def auroc(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve; ties count half."""
    score, positive = _ranked(inside, outside)
    return float(_sklearn().roc_auc_score(positive, score))


@card_number(
    "aupr_in", part=PART, source="scores", label="AUPR (ID)", unit="%", higher_is_better=True
)
def aupr_in(inside: Tensor, outside: Tensor) -> float:
    """Average precision with in-distribution examples as positives."""
    score, positive = _ranked(inside, outside)
    return float(_sklearn().average_precision_score(positive, score))


@card_number(
    "aupr_out", part=PART, source="scores", label="AUPR (OOD)", unit="%", higher_is_better=True
)
def aupr_out(inside: Tensor, outside: Tensor) -> float:
    """Average precision with out-of-distribution examples as positives, by the negated score."""
    score, positive = _ranked(inside, outside)
    return float(_sklearn().average_precision_score(~positive, -score))


card_number("fpr95", part=PART, source="scores", label="FPR95", unit="%", higher_is_better=False)(
    ood.false_positive_rate
)


def ood_scores(inside: Tensor, outside: Tensor, threshold: float | None = None) -> dict[str, float]:
    """All numbers of out-of-distribution detection by one score (thesis 3.4.4).

    Shares are fractions. AUROC and AUPR come from scikit-learn: AUROC counts ties half; AUPR is the
    average precision, a sum of steps, since trapezoids overestimate it. A score without any
    information has AUROC 1/2, and AUPR equal to the share of positives, which depends on the
    numbers of examples.

    Args:
        inside: scores of in-distribution examples, (N,), higher than those of others.
        outside: scores of out-of-distribution examples, (M,).
        threshold: for 'det_acc'; the thesis takes 0.5 for the maximum of softmax.

    Returns:
        The numbers of the card's part 'ood' (see :mod:`mixplug.numbers`) by name, such as 'auroc',
        'aupr_in', 'aupr_out', 'fpr95' and 'det_acc_best'; 'det_acc' only if a threshold is given;
        and 'threshold_best', the threshold of 'det_acc_best'.

    Raises:
        ValueError: no scores, another shape, or scores that are not finite.
        ImportError: scikit-learn is not installed.
    """
    ood.check_scores("ood_scores", inside, outside)
    inside, outside = inside.detach().to("cpu").double(), outside.detach().to("cpu").double()
    found = compute(PART, "scores", inside, outside)
    if threshold is not None:
        found |= compute(PART, "threshold", inside, outside, threshold)
    _, best = ood.best_detection_accuracy(inside, outside)
    ordered = {number.name: found[number.name] for number in numbers(PART) if number.name in found}
    return {**ordered, "threshold_best": float(best)}


def _ranked(inside: Tensor, outside: Tensor) -> tuple[Any, Any]:
    """Scores of all examples as numpy arrays, and which of them are in-distribution."""
    score = torch.cat([inside, outside]).cpu().numpy()
    return score, torch.arange(len(score)).numpy() < len(inside)


def _sklearn() -> Any:
    return optional("sklearn.metrics", "card", "AUROC and AUPR")
