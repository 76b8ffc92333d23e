"""Out-of-distribution (OOD) detection: scores of examples, and accuracy of a threshold on them.

Letters: B examples, K classes, D width, N in-distribution (or bank) examples, M out-of-distribution
examples. A larger score means more in-distribution: an example is classified as in-distribution if
its score is at least the threshold (§3.4.4).
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.exact_search import check_pair, nearest
from mixplug.functional.precision import exact_dtype

_BLOCK = 4096  # queries whose distance is recomputed at a time


def max_softmax(logits: Tensor) -> Tensor:
    r"""Maximum softmax probability [0]: ``max_c softmax(z)_c``, in [1/K, 1].

    The thesis uses this score (§3.4.4).

    Args:
        logits: z, (B, K).

    Returns:
        (B,), float32 (float64 for float64 logits).

    Raises:
        ValueError: wrong shape.

    - [0]: A Baseline for Detecting Misclassified and Out-of-Distribution Examples, 2017,
      https://arxiv.org/abs/1610.02136
    """
    return _exact("max_softmax", logits).softmax(1).amax(1)


def max_logit(logits: Tensor) -> Tensor:
    r"""Maximum logit [0]: ``max_c z_c``, a confidence without normalization over classes.

    Arguments, result and errors: see :func:`max_softmax`.

    - [0]: Scaling Out-of-Distribution Detection for Real-World Settings, 2022,
      https://arxiv.org/abs/1911.11132
    """
    return _exact("max_logit", logits).amax(1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Negative free energy: ``T logsumexp(z / T)``, the energy of [0] with opposite sign.

    Args:
        logits: z, (B, K).
        temperature: T > 0.

    Returns:
        (B,), float32 (float64 for float64 logits).

    Raises:
        ValueError: wrong shape, or T <= 0.

    - [0]: Energy-based Out-of-distribution Detection, 2020, https://arxiv.org/abs/2010.03759
    """
    if not temperature > 0:
        raise ValueError(f"energy needs a temperature > 0, got {temperature}.")
    return temperature * (_exact("energy", logits) / temperature).logsumexp(1)


def knn_score(embeddings: Tensor, bank: Tensor, k: int = 50) -> Tensor:
    r"""k-NN score [0]: negative distance to the k-th nearest embedding of the training set.

        -||e / ||e|| - b / ||b||||,   b the k-th nearest embedding of the bank;   in [-2, 0]

    A zero embedding stays zero, so its distance to any nonzero one is 1. [0] uses k = 50 for
    CIFAR-10 and k = 200 for CIFAR-100.

    Args:
        embeddings: e, (B, D).
        bank: embeddings of all or some training examples, (N, D).
        k: 1 <= k <= N.

    Returns:
        (B,), detached, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: shapes do not match, an empty set, a value is not finite, or k is not in [1, N].

    - [0]: Out-of-Distribution Detection with Deep Nearest Neighbors, 2022,
      https://arxiv.org/abs/2204.06507
    """
    check_pair("knn_score", embeddings, bank)
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"knn_score needs k between 1 and {len(bank)}, the size of the bank, got {k}."
        )
    dtype = exact_dtype(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False), torch.no_grad():
        queries, known = F.normalize(embeddings.to(dtype)), F.normalize(bank.to(dtype))
        _, ids = nearest(queries, known, k, "l2")
        # Recompute the distance as a norm of the difference: the expanded square of nearest is
        # inaccurate for small distances and would give 1e-4 in place of 0.
        parts = zip(queries.split(_BLOCK), ids[:, k - 1].split(_BLOCK), strict=True)
        return -torch.cat([(q - known[i]).square().sum(1).sqrt() for q, i in parts])


def detection_accuracy(inside: Tensor, outside: Tensor, threshold: float | Tensor) -> Tensor:
    r"""Detection accuracy at a threshold, with in- and out-of-distribution in equal shares.

        1/2 P(inside >= t) + 1/2 P(outside < t)

    Both groups have weight 1/2, whatever their sizes. So a detector that accepts all examples, or
    none, has accuracy 1/2. The thesis uses t = 0.5 on :func:`max_softmax` (§3.4.4).

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).
        threshold: t, in the units of the scores.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 scores).

    Raises:
        ValueError: no scores, wrong shape, or a score is not finite.
    """
    check_scores("detection_accuracy", inside, outside)
    dtype = exact_dtype(inside)
    return ((inside >= threshold).to(dtype).mean() + (outside < threshold).to(dtype).mean()) / 2


def best_detection_accuracy(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Largest :func:`detection_accuracy` over all thresholds, and its threshold.

    It suffices to try every observed score as the threshold. The threshold is chosen on the same
    examples that it is evaluated on. The result is at least 1/2 and an upper bound for thresholds
    chosen on other data.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).

    Returns:
        Two scalars: the accuracy, and the threshold (the smallest of several best ones).

    Raises:
        ValueError: no scores, wrong shape, or a score is not finite.
    """
    check_scores("best_detection_accuracy", inside, outside)
    thresholds = torch.cat([inside, outside]).unique()  # ascending
    low, high = inside.sort().values, outside.sort().values
    n, m = len(inside), len(outside)
    accepted = n - torch.searchsorted(low, thresholds)  # searchsorted counts smaller scores
    rejected = torch.searchsorted(high, thresholds)
    correct = accepted * m + rejected * n  # in integers, so that equal accuracies are equal
    best = (correct == correct.max()).nonzero()[0, 0]
    accuracy = correct[best].to(exact_dtype(inside)) / (2 * n * m)
    return accuracy, thresholds[best]


def false_positive_rate(inside: Tensor, outside: Tensor, tpr: float = 0.95) -> Tensor:
    """False positive rate (FPR) at a given true positive rate (TPR), such as FPR95.

    In-distribution is the positive class. The threshold is the largest in-distribution score that
    accepts at least a share ``tpr`` of the in-distribution examples. The result is the share of
    out-of-distribution examples whose score is at least this threshold. Libraries that take
    out-of-distribution as the positive class, such as pytorch_ood, report another number as FPR95.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).
        tpr: true positive rate, in (0, 1].

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 scores).

    Raises:
        ValueError: no scores, wrong shape, a score is not finite, or tpr is outside (0, 1].
    """
    check_scores("false_positive_rate", inside, outside)
    if not 0 < tpr <= 1:
        raise ValueError(f"false_positive_rate needs tpr in (0, 1], got {tpr}.")
    # The decimal value of tpr: in floating point, 0.55 * 100 exceeds 55, and its ceiling is 56.
    accepted = math.ceil(Fraction(str(tpr)) * len(inside))
    threshold = inside.sort(descending=True).values[accepted - 1]
    return (outside >= threshold).to(exact_dtype(inside)).mean()


def check_scores(caller: str, inside: Tensor, outside: Tensor) -> None:
    """Require two nonempty vectors of finite scores, (N,) and (M,).

    Raises:
        ValueError: no scores, wrong shape, or a score is not finite.
    """
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.dim() != 1 or not len(scores):
            raise ValueError(
                f"{caller} needs {name} scores (N,) with N >= 1, got {tuple(scores.shape)}."
            )
        bad = int((~scores.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{caller} needs finite scores, but {bad} of {len(scores)} {name} scores are NaN "
                f"or infinite."
            )


def _exact(caller: str, logits: Tensor) -> Tensor:
    """Logits (B, K) in the precision of :func:`exact_dtype`."""
    if logits.dim() != 2 or not logits.shape[1]:
        raise ValueError(f"{caller} needs logits (B, K) with K >= 1, got {tuple(logits.shape)}.")
    return logits.to(exact_dtype(logits))
