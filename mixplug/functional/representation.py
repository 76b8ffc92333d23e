"""Measures of the embedding space: alignment, uniformity, utilization, intrusion distance.

Letters: B examples, D width, Q queries, N gallery items, M mixed examples. No tensor of size B x B
is ever built.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings, check_pair, nearest
from mixplug.functional.precision import exact_dtype
from mixplug.numbers import card_number

_BLOCK = 2048  # examples per block, that is, 16 MiB of float32 distances at a time
_PAIRS = 1 << 22  # distances at a time if one side is a whole class


@card_number(
    "alignment",
    part="representation",
    source="embeddings",
    label="alignment",
    higher_is_better=False,
    digits=3,
)
def alignment(embeddings: Tensor, labels: Tensor, alpha: float = 2) -> Tensor:
    r"""Alignment [0]: mean distance of positive pairs, to the power alpha. Lower is better.

        mean over (i, j), i != j, y_i = y_j   of   ||e_i - e_j||^alpha

    Every pair has the same weight, so a class of n examples has weight n (n - 1). For alpha = 2,
    the sum over the pairs of a class with mean μ is ``2 n sum_i ||e_i - μ||^2``, which is computed
    without building any pair.

    Args:
        embeddings: e, (B, D). In [0] and in the thesis (§4.4.4) they have norm 1; this is not
            checked.
        labels: classes y, (B,) int64.
        alpha: exponent > 0.

    Returns:
        Scalar, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: shapes do not match, a value is not finite, alpha <= 0, less than two examples,
            or no two examples have the same class.

    - [0]: Understanding Contrastive Representation Learning through Alignment and Uniformity on
      the Hypersphere, 2020, https://arxiv.org/abs/2005.10242
    """
    check_embeddings("alignment", "embeddings", embeddings, least=2)
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"alignment needs embeddings (B, D) and labels (B,), got {tuple(embeddings.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if not alpha > 0:
        raise ValueError(f"alignment needs alpha > 0, got {alpha}.")
    _, classes, count = labels.unique(return_inverse=True, return_counts=True)
    pairs = int((count * (count - 1)).sum())
    if not pairs:
        raise ValueError(
            f"alignment needs at least two examples of the same class, but the {len(labels)} "
            f"labels are all different."
        )
    with torch.autocast(embeddings.device.type, enabled=False):
        e = embeddings.to(exact_dtype(embeddings))
        if alpha == 2:
            return _squares_of_pairs(e, classes, count) / pairs
        order = classes.argsort(stable=True)
        return _powers_of_pairs(e[order], classes[order], count, alpha) / pairs


@card_number(
    "uniformity",
    part="representation",
    source="unlabeled",
    label="uniformity",
    higher_is_better=False,
    digits=3,
)
def uniformity(embeddings: Tensor, t: float = 2) -> Tensor:
    r"""Uniformity [0]: log of the mean Gaussian similarity of all pairs. Lower is better.

        log mean over (i, j), i != j   of   exp(-t ||e_i - e_j||^2)

    Classes play no role. The mean is computed in the log domain, so distant examples do not give
    log 0. At most 2048 x 2048 pairs are in memory at a time, and each pair is computed once.

    Args:
        embeddings: e, (B, D). In [0] and in the thesis (§4.4.4) they have norm 1; this is not
            checked.
        t: scale > 0, in the units of 1 / distance^2.

    Returns:
        Scalar, float32 (float64 for float64 embeddings). 0 if all embeddings are equal.

    Raises:
        ValueError: wrong shape, a value is not finite, t <= 0, or less than two examples.

    - [0]: as in :func:`alignment`.
    """
    check_embeddings("uniformity", "embeddings", embeddings, least=2)
    if not t > 0:
        raise ValueError(f"uniformity needs t > 0, got {t}.")
    with torch.autocast(embeddings.device.type, enabled=False):
        e = embeddings.to(exact_dtype(embeddings))
        e = e - e.mean(0)  # keeps the distances, and loses fewer digits by cancellation
        parts = e.split(_BLOCK)
        terms = []
        for i, rows in enumerate(parts):
            own = torch.eye(len(rows), dtype=torch.bool, device=e.device)
            energy = (-t * _squared(rows, rows)).masked_fill(own, -torch.inf)
            terms.append(energy.flatten().logsumexp(0))
            for columns in parts[i + 1 :]:
                energy = -t * _squared(rows, columns)
                terms.append(energy.flatten().logsumexp(0) + math.log(2))  # (i, j) and (j, i)
        return torch.stack(terms).logsumexp(0) - math.log(len(e)) - math.log(len(e) - 1)


def utilization(queries: Tensor, gallery: Tensor) -> Tensor:
    r"""Utilization u(Q, X) of a training set by queries (eq. 4.25). Lower is better.

        1/Q sum_q min_x ||f(q) - f(x)||^2

    With mixup, the gallery contains both the clean and the mixed training examples.

    Args:
        queries: embeddings f(Q) of the test set, (Q, D).
        gallery: embeddings f(X) of the training set, (N, D).

    Returns:
        Scalar, float32 (float64 for float64 queries), differentiable.

    Raises:
        ValueError: shapes do not match, an empty set, or a value is not finite.
    """
    check_pair("utilization", queries, gallery)
    _, ids = nearest(queries, gallery, 1, "l2")
    # Recompute each distance from the difference: it is exactly 0 for a query that is in the
    # gallery, while the expanded square of the search leaves a rounding error.
    dtype = exact_dtype(queries)
    parts = zip(queries.split(_BLOCK), ids[:, 0].split(_BLOCK), strict=True)
    squares = [(q.to(dtype) - gallery[i].to(dtype)).square().sum(1) for q, i in parts]
    return torch.cat(squares).mean()


@card_number(
    "intrusion_distance",
    part="representation",
    source="mixtures",
    label="intrusion distance",
    higher_is_better=True,
    digits=3,
)
def intrusion_distance(mixed: Tensor, weights: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    r"""Intrusion distance (§5.4.7): distance of mixed embeddings to classes not mixed into them.

        mean over z~   of   min_z ||z~ - z||^2,   z clean, of a class without any weight in z~

    It measures manifold intrusion [0]; higher is better. A mixed embedding that contains all
    classes is excluded from the mean. MultiMix in training has m = b, so every mixed embedding
    contains every class of the batch, and the measure is undefined. To apply it, add clean
    examples of other classes to ``clean``, with weight 0.

    Args:
        mixed: mixed embeddings z~, (M, D), from mixing in any space.
        weights: weight >= 0 of each clean example in each mixed one, (M, B). Only zero or nonzero
            matters.
        clean: clean embeddings z, (B, D). They are not normalized, as the thesis defines no norm.
        labels: classes of the clean examples, (B,).

    Returns:
        Scalar, in squared units of the embeddings, float32 (float64 for float64 ``mixed``).

    Raises:
        ValueError: shapes do not match, an empty set, a value is not finite, a weight is negative,
            or every mixed embedding contains all classes.

    - [0]: MixUp as Locally Linear Out-Of-Manifold Regularization, 2019,
      https://arxiv.org/abs/1809.02499
    """
    _check_mixed(mixed, weights, clean, labels)
    known, classes = labels.unique(return_inverse=True)
    dtype, block = exact_dtype(mixed), max(1, _PAIRS // len(clean))
    with torch.autocast(mixed.device.type, enabled=False):
        z = clean.to(dtype)
        center = z.mean(0)  # keeps the distances, and loses fewer digits by cancellation
        total, count = z.new_zeros(()), z.new_zeros(())
        for part, weight in zip(mixed.split(block), weights.split(block), strict=True):
            rows = part.to(dtype)
            class_counts = weight.new_zeros(len(weight), len(known), dtype=torch.int32)
            class_counts.index_add_(1, classes, (weight > 0).int())
            own_class = (class_counts > 0)[:, classes]  # (rows, B): the class has been mixed in
            with torch.no_grad():
                squares = _squared(rows - center, z - center).masked_fill(own_class, torch.inf)
                ids = squares.argmin(1)
            has_other = ~own_class.all(1)
            distance = (rows - z[ids]).square().sum(1)
            total, count = total + (distance * has_other).sum(), count + has_other.sum()
    if not count:
        raise ValueError(
            f"intrusion_distance needs a mixed embedding in which some class has no weight, but "
            f"all {len(known)} classes have weight in all {len(mixed)} mixed embeddings (as with "
            f"m = b)."
        )
    return total / count


def _check_mixed(mixed: Tensor, weights: Tensor, clean: Tensor, labels: Tensor) -> None:
    check_embeddings("intrusion_distance", "mixed", mixed)
    check_embeddings("intrusion_distance", "clean", clean)
    shape = len(mixed), len(clean)
    if mixed.shape[1] != clean.shape[1] or weights.shape != shape or labels.shape != shape[1:]:
        raise ValueError(
            f"intrusion_distance needs mixed (M, D), weights (M, B), clean (B, D) and labels (B,), "
            f"got {tuple(mixed.shape)}, {tuple(weights.shape)}, {tuple(clean.shape)} and "
            f"{tuple(labels.shape)}."
        )
    least = float(weights.min())
    if not least >= 0:  # also true for NaN
        raise ValueError(f"intrusion_distance needs weights >= 0, got {least:.4g}.")


def _squares_of_pairs(e: Tensor, classes: Tensor, count: Tensor) -> Tensor:
    """Sum of squared distances over ordered pairs within each class, from the class means."""
    mean = e.new_zeros(len(count), e.shape[1]).index_add(0, classes, e) / count[:, None]
    spread = (e - mean[classes]).square().sum(1)
    return (2 * count[classes] * spread).sum()


def _powers_of_pairs(e: Tensor, classes: Tensor, count: Tensor, alpha: float) -> Tensor:
    """Sum of distances to the power alpha over ordered pairs within each class.

    The examples are sorted by class, so the pairs form a band along the diagonal.
    """
    end = count.cumsum(0)
    last = end[classes].tolist()  # end of the class of each example
    first = (end - count)[classes].tolist()
    total, start = e.new_zeros(()), 0
    while start < len(e):
        rows = min(_BLOCK, len(e) - start)
        while rows > 1 and rows * (last[start + rows - 1] - first[start]) > _PAIRS:
            rows //= 2
        stop = start + rows
        low, high = first[start], last[stop - 1]
        same_class = classes[start:stop, None] == classes[low:high]
        # a matrix product would lose digits by cancellation, which small powers magnify
        distance = torch.cdist(
            e[start:stop], e[low:high], compute_mode="donot_use_mm_for_euclid_dist"
        )
        total = total + (distance.pow(alpha) * same_class).sum()
        start = stop
    return total


def _squared(a: Tensor, b: Tensor) -> Tensor:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)
    return (squares - 2 * a @ b.mT).clamp(min=0)
