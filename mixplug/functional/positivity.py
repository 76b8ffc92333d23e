"""Which mixed embeddings pull their anchor: Figure 4.2, as measured and by (4.14)."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.pairwise import TABLE, pair_share
from mixplug.functional.precision import exact_dtype


def positivity_threshold(lam: Tensor, beta: float, gamma: float, margin: float) -> Tensor:
    r"""Similarity below which a mixed pair pulls, the argument of F in (4.14).

    .. math::
        \frac{1}{\beta + \gamma} \ln \frac{\lambda}{1 - \lambda} + m

    Args:
        lam: λ in [0, 1], the weight of the positive.
        beta: of multi-similarity.
        gamma: of multi-similarity.
        margin: of multi-similarity.
    """
    return torch.logit(lam) / (beta + gamma) + margin


def acts_positive(
    s: Tensor, there: Tensor, lam: Tensor, beta: float, gamma: float, margin: float
) -> Tensor:
    r"""Pos(a, v): whether minimizing the mixed loss (4.13) makes a and v more similar (4.3.6).

    .. math::
        \partial \tilde\ell_{MS}(a) / \partial s(a, v) \le 0

    with all mixed pairs v of the anchor in the loss, a positive and a negative in each. The
    derivative is autograd's. It is a difference of exponentials: of similarities in float32 it
    can underflow, and 0 counts as positive.

    Args:
        s: similarities s(a, v), (A, V).
        there: which of them are pairs, (A, V) bool.
        lam: λ in [0, 1], a scalar, the weight of the positive in every pair.
        beta: of multi-similarity.
        gamma: of multi-similarity.
        margin: of multi-similarity.

    Returns:
        (A, V) bool, False where there is no pair.
    """
    with torch.enable_grad(), torch.autocast(s.device.type, enabled=False):
        leaf = s.detach().to(exact_dtype(s)).requires_grad_()
        weight = there.to(leaf.dtype)
        form = TABLE["MultiSimilarity"](beta, gamma, margin)
        share = pair_share(leaf, lam * weight, (1 - lam) * weight, form)
        (slope,) = torch.autograd.grad(share.total, leaf)
    return (slope <= 0) & there


def expected_positive(
    s: Tensor, there: Tensor, lam: Tensor, beta: float, gamma: float, margin: float
) -> Tensor:
    r"""What (4.23) says of Pos(a, v), which holds exactly if v is the anchor's only mixed pair.

    .. math::
        s(a, v) \le \frac{1}{\beta + \gamma} \ln \frac{\lambda}{1 - \lambda} + m

    Its mean over all pairs is (4.14): F_λ, the share of similarities below that threshold.
    Arguments and result are those of :func:`acts_positive`.
    """
    threshold = positivity_threshold(lam.to(s), beta, gamma, margin)
    return (s <= threshold) & there
