"""Out-of-distribution detection: scores of examples, and what a threshold on them tells apart.

Letters: B examples, K classes, D width, N bank or in-distribution, M out-of-distribution examples.
Every score is larger for what looks more in-distribution: an example is taken for in-distribution
if its score is at least the threshold (3.4.4).
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.functional.exact_search import check_pair, nearest
from mixplug.functional.precision import exact_dtype

_BLOCK = 4096  # queries whose distance is taken again at a time


def max_softmax(logits: Tensor) -> Tensor:
    r"""Maximum class probability [0], ``max_c softmax(z)_c``, in [1/K, 1]; the thesis' score.

    Args:
        logits: z, (B, K).

    Returns:
        (B,), float32 or float64 if the logits are.

    Raises:
        ValueError: another shape.

    - [0]: A Baseline for Detecting Misclassified and Out-of-Distribution Examples, 2017,
      https://arxiv.org/abs/1610.02136
    """
    return _exact("max_softmax", logits).softmax(1).amax(1)


def max_logit(logits: Tensor) -> Tensor:
    r"""Maximum logit [0], ``max_c z_c``: confidence that the other classes do not normalize.

    Arguments: :func:`max_softmax`.

    - [0]: Scaling Out-of-Distribution Detection for Real-World Settings, 2022,
      https://arxiv.org/abs/1911.11132
    """
    return _exact("max_logit", logits).amax(1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Negative free energy [0], ``T logsumexp(z / T)``.

    Args:
        logits: z, (B, K).
        temperature: T > 0.

    Returns:
        (B,), float32 or float64 if the logits are; in [0] the energy has the other sign.

    Raises:
        ValueError: another shape, or T <= 0.

    - [0]: Energy-based Out-of-distribution Detection, 2020, https://arxiv.org/abs/2010.03759
    """
    if not temperature > 0:
        raise ValueError(f"energy needs a temperature > 0, got {temperature}.")
    return temperature * (_exact("energy", logits) / temperature).logsumexp(1)


def knn_score(embeddings: Tensor, bank: Tensor, k: int = 50) -> Tensor:
    r"""Minus the distance to the k-th nearest embedding of the training set [0].

        -||e / ||e|| - b / ||b||||,   b the k-th nearest of the bank;   in [-2, 0]

    An embedding of zeros has no direction: it is at distance 1 of all that have one. [0] takes
    k = 50 for CIFAR-10 and 200 for CIFAR-100.

    Args:
        embeddings: e, (B, D).
        bank: embeddings of training examples, (N, D), or of a share of them.
        k: 1 <= k <= N.

    Returns:
        (B,), float32 or float64 if the embeddings are; no gradient.

    Raises:
        ValueError: shapes do not fit, an empty set, a value that is not finite, or k beyond N.

    - [0]: Out-of-Distribution Detection with Deep Nearest Neighbors, 2022,
      https://arxiv.org/abs/2204.06507
    """
    check_pair("knn_score", embeddings, bank)
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"knn_score needs k between 1 and the {len(bank)} embeddings of the bank, got {k}."
        )
    dtype = exact_dtype(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False), torch.no_grad():
        queries, known = F.normalize(embeddings.to(dtype)), F.normalize(bank.to(dtype))
        _, ids = nearest(queries, known, k, "l2")
        # Taken again as a difference: the expanded square leaves 1e-4 where the distance is 0.
        parts = zip(queries.split(_BLOCK), ids[:, k - 1].split(_BLOCK), strict=True)
        return -torch.cat([(q - known[i]).square().sum(1).sqrt() for q, i in parts])


def detection_accuracy(inside: Tensor, outside: Tensor, threshold: float | Tensor) -> Tensor:
    r"""Detection accuracy, of in- and out-of-distribution examples in equal shares.

        1/2 P(inside >= t) + 1/2 P(outside < t)

    This is the accuracy of telling the two apart in a mixture of as many of each, however many
    there are of each here: a detector that accepts all, or none, has 1/2. The thesis takes t = 0.5
    on :func:`max_softmax`.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).
        threshold: t, in the units of the scores.

    Returns:
        Scalar in [0, 1], float32 or float64 if the scores are.

    Raises:
        ValueError: no scores, another shape, or scores that are not finite.
    """
    check_scores("detection_accuracy", inside, outside)
    dtype = exact_dtype(inside)
    return ((inside >= threshold).to(dtype).mean() + (outside < threshold).to(dtype).mean()) / 2


def best_detection_accuracy(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """The largest :func:`detection_accuracy` that any threshold has, and the threshold.

    All observed scores are tried, which is all that there is to try. It is chosen on the examples
    that it is measured on: an upper bound of what a threshold from elsewhere gives, at least 1/2.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).

    Returns:
        Two scalars: the accuracy, and the threshold; of several as good the smallest.

    Raises:
        ValueError: no scores, another shape, or scores that are not finite.
    """
    check_scores("best_detection_accuracy", inside, outside)
    thresholds = torch.cat([inside, outside]).unique()  # ascending
    low, high = inside.sort().values, outside.sort().values
    n, m = len(inside), len(outside)
    accepted = n - torch.searchsorted(low, thresholds)  # searchsorted counts what is below
    rejected = torch.searchsorted(high, thresholds)
    correct = accepted * m + rejected * n  # in integers, so that equal accuracies are equal
    best = (correct == correct.max()).nonzero()[0, 0]
    accuracy = correct[best].to(exact_dtype(inside)) / (2 * n * m)
    return accuracy, thresholds[best]


def false_positive_rate(inside: Tensor, outside: Tensor, tpr: float = 0.95) -> Tensor:
    """Share of out-of-distribution examples accepted where ``tpr`` of in-distribution ones are.

    The threshold is the largest score of an in-distribution example that accepts at least that
    share of them; scores equal to it are accepted. So in-distribution is the positive class;
    where it is the negative one, as in pytorch_ood, FPR95 is another number.

    Args:
        inside: scores of in-distribution examples, (N,).
        outside: scores of out-of-distribution examples, (M,).
        tpr: in (0, 1].

    Returns:
        Scalar in [0, 1], float32 or float64 if the scores are.

    Raises:
        ValueError: no scores, another shape, scores that are not finite, or tpr outside (0, 1].
    """
    check_scores("false_positive_rate", inside, outside)
    if not 0 < tpr <= 1:
        raise ValueError(f"false_positive_rate needs tpr in (0, 1], got {tpr}.")
    # As printed: 0.55 times 100 is 55, of which floating point makes more.
    accepted = math.ceil(Fraction(str(tpr)) * len(inside))
    threshold = inside.sort(descending=True).values[accepted - 1]
    return (outside >= threshold).to(exact_dtype(inside)).mean()


def check_scores(who: str, inside: Tensor, outside: Tensor) -> None:
    """Scores are two vectors, neither empty, all of their values finite."""
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.dim() != 1 or not len(scores):
            raise ValueError(
                f"{who} needs scores {name} (N,) with N >= 1, got {tuple(scores.shape)}."
            )
        bad = int((~scores.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{who} needs finite scores, but {bad} of {len(scores)} scores {name} are NaN or "
                f"infinite."
            )


def _exact(who: str, logits: Tensor) -> Tensor:
    if logits.dim() != 2 or not logits.shape[1]:
        raise ValueError(f"{who} needs logits (B, K) with K >= 1, got {tuple(logits.shape)}.")
    return logits.to(exact_dtype(logits))
