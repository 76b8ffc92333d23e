"""How embeddings lie in their space: alignment, uniformity, utilization, intrusion distance.

Letters: B examples, D width, Q queries, N gallery items, M mixed examples. Nothing of
size B x B is ever held.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixplug.functional.exact_search import check_embeddings, check_pair, nearest
from mixplug.functional.precision import exact_dtype
from mixplug.numbers import card_number

_BLOCK = 2048  # examples; 16 MiB of float32 distances at a time
_PAIRS = 1 << 22  # distances at a time where one side is a whole class


@card_number(
    "alignment",
    part="representation",
    source="embeddings",
    label="alignment",
    higher_is_better=False,
    digits=3,
)
def alignment(embeddings: Tensor, labels: Tensor, alpha: float = 2) -> Tensor:
    r"""Alignment [0]: the mean distance of positive pairs, to the power alpha; lower is better.

        mean over (i, j), i != j, y_i = y_j   of   ||e_i - e_j||^alpha

    Every pair weighs the same, so a class of n examples weighs n (n - 1). For alpha = 2 the pairs
    of a class with mean μ add up to ``2 n sum_i ||e_i - μ||^2``, and none of them is made.

    Args:
        embeddings: (B, D); [0] and the thesis (4.4.4) have them on the unit sphere, which is not
            checked.
        labels: (B,) int64 classes.
        alpha: > 0.

    Returns:
        Scalar in float32, or float64 if given.

    Raises:
        ValueError: shapes do not fit, a value is not finite, alpha <= 0, one example, or no two of
            one class.

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
            f"alignment needs a positive pair, but the {len(labels)} labels are all different."
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
    r"""Uniformity [0]: log of the mean Gaussian similarity of all pairs; lower is better.

        log mean over (i, j), i != j   of   exp(-t ||e_i - e_j||^2)

    Classes do not matter. The sum runs in the log domain, so that examples far from each other do
    not give log 0. At most 2048 x 2048 pairs are held at a time, each pair once.

    Args:
        embeddings: (B, D), on the unit sphere in [0] and in the thesis (4.4.4).
        t: > 0, in the units of 1 / distance^2.

    Returns:
        Scalar in float32, or float64 if given; 0 if all are one point.

    Raises:
        ValueError: a value is not finite, t <= 0, or less than two examples.

    - [0]: as in :func:`alignment`.
    """
    check_embeddings("uniformity", "embeddings", embeddings, least=2)
    if not t > 0:
        raise ValueError(f"uniformity needs t > 0, got {t}.")
    with torch.autocast(embeddings.device.type, enabled=False):
        e = embeddings.to(exact_dtype(embeddings))
        e = e - e.mean(0)  # distances stay, and cancel less digits
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
    r"""Utilization u(Q, X) of a training set by queries (4.25); lower is better.

        1/Q sum_q min_x ||f(q) - f(x)||^2

    With mixup, the gallery is the augmented set: clean and mixed training examples together.

    Args:
        queries: f(Q), (Q, D), embeddings of the test set.
        gallery: f(X), (N, D), embeddings of the training set.

    Returns:
        Scalar in float32, or float64 if the queries are; no gradient.

    Raises:
        ValueError: shapes do not fit, an empty set, or a value that is not finite.
    """
    check_pair("utilization", queries, gallery)
    _, ids = nearest(queries, gallery, 1, "l2")
    # Known by its id, the distance is taken again as a difference: of a query that is in the
    # gallery it is 0, not what the expanded square leaves.
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
    r"""Intrusion distance (5.4.7): how far mixtures stay from classes that are not in them.

        mean over z~   of   min_z ||z~ - z||^2,   z clean, of a class without any weight in z~

    Higher is better. Mixtures that leave no other class are left out of the mean. With MultiMix as
    it trains, m = b, every class of the batch is in every mixture, and the measure is empty. To
    have it, let ``clean`` hold examples of other classes too, with a weight of 0.

    Args:
        mixed: z~, (M, D), whatever space they were mixed in.
        weights: of the clean examples in each, (M, B), >= 0; only whether they are 0 matters.
        clean: z, (B, D). [0] defines no length of embeddings; none is given to them here.
        labels: classes of the clean ones, (B,).

    Returns:
        Scalar in float32, or float64 if given; squared units of the embeddings.

    Raises:
        ValueError: shapes do not fit, an empty set, a value that is not finite, a negative weight,
            or no mixture that leaves another class.

    - [0]: thesis 5.4.7; the phenomenon: MixUp as Locally Linear Out-Of-Manifold Regularization,
      2019, https://arxiv.org/abs/1809.02499
    """
    _check_mixed(mixed, weights, clean, labels)
    known, classes = labels.unique(return_inverse=True)
    dtype, block = exact_dtype(mixed), max(1, _PAIRS // len(clean))
    with torch.autocast(mixed.device.type, enabled=False):
        z = clean.to(dtype)
        center = z.mean(0)  # distances stay, and cancel less digits
        total, count = z.new_zeros(()), z.new_zeros(())
        for part, weight in zip(mixed.split(block), weights.split(block), strict=True):
            rows = part.to(dtype)
            inside = weight.new_zeros(len(weight), len(known), dtype=torch.int32)
            inside.index_add_(1, classes, (weight > 0).int())
            taken = (inside > 0)[:, classes]  # (rows, B): of a class in the mixture
            with torch.no_grad():
                squares = _squared(rows - center, z - center).masked_fill(taken, torch.inf)
                ids = squares.argmin(1)
            there = ~taken.all(1)
            distance = (rows - z[ids]).square().sum(1)
            total, count = total + (distance * there).sum(), count + there.sum()
    if not count:
        raise ValueError(
            f"intrusion_distance needs a clean class without weight in a mixture, but all "
            f"{len(known)} classes have weight in all {len(mixed)} mixtures (as with m = b)."
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
    if not least >= 0:  # NaN is not
        raise ValueError(f"intrusion_distance needs weights >= 0, got one of {least:.4g}.")


def _squares_of_pairs(e: Tensor, classes: Tensor, count: Tensor) -> Tensor:
    """Sum over ordered pairs of a class of squared distances, by class means."""
    mean = e.new_zeros(len(count), e.shape[1]).index_add(0, classes, e) / count[:, None]
    spread = (e - mean[classes]).square().sum(1)
    return (2 * count[classes] * spread).sum()


def _powers_of_pairs(e: Tensor, classes: Tensor, count: Tensor, alpha: float) -> Tensor:
    """Sum over ordered pairs of a class, examples sorted by class: a band along the diagonal."""
    end = count.cumsum(0)
    last = end[classes].tolist()  # where the class of an example ends
    first = (end - count)[classes].tolist()
    total, start = e.new_zeros(()), 0
    while start < len(e):
        rows = min(_BLOCK, len(e) - start)
        while rows > 1 and rows * (last[start + rows - 1] - first[start]) > _PAIRS:
            rows //= 2
        stop = start + rows
        low, high = first[start], last[stop - 1]
        alike = classes[start:stop, None] == classes[low:high]
        # a power of a difference of squares would magnify their rounding
        distance = torch.cdist(
            e[start:stop], e[low:high], compute_mode="donot_use_mm_for_euclid_dist"
        )
        total = total + (distance.pow(alpha) * alike).sum()
        start = stop
    return total


def _squared(a: Tensor, b: Tensor) -> Tensor:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)
    return (squares - 2 * a @ b.mT).clamp(min=0)
