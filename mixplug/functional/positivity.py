"""Positivity of mixed embeddings, measured and in theory (eq. 4.14 and Figure 4.2).

A mixed embedding v is positive for an anchor a if minimizing the loss makes a and v more similar.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.pairwise import TABLE, pair_share
from mixplug.functional.precision import exact_dtype
from mixplug.renamed import renamed_keys


def positivity_threshold(lam: Tensor, beta: float, gamma: float, margin: float) -> Tensor:
    r"""Largest similarity at which a mixed embedding is positive, the argument of F in eq. 4.14.

    .. math::
        \frac{1}{\beta + \gamma} \ln \frac{\lambda}{1 - \lambda} + m

    Args:
        lam: λ in [0, 1], the weight of the positive example.
        beta: β of the multi-similarity loss.
        gamma: γ of the multi-similarity loss.
        margin: m of the multi-similarity loss.

    Returns:
        Same shape as ``lam``.
    """
    return torch.logit(lam) / (beta + gamma) + margin


@renamed_keys(there="is_pair")
def acts_positive(
    s: Tensor, is_pair: Tensor, lam: Tensor, beta: float, gamma: float, margin: float
) -> Tensor:
    r"""Pos(a, v): whether minimizing the mixed loss (eq. 4.13) makes a and v more similar (§4.3.6).

    .. math::
        \partial \tilde\ell_{MS}(a) / \partial s(a, v) \le 0

    The loss contains all mixed embeddings v of the anchor. Each v mixes a positive and a negative.
    The derivative is computed by autograd. It is a difference of exponentials, which can underflow
    to 0 for similarities in float32; 0 counts as positive.

    Args:
        s: similarities s(a, v), (A, V).
        is_pair: whether (a, v) is a pair of the loss, (A, V) bool.
        lam: λ in [0, 1], a scalar, the weight of the positive example in every v.
        beta: β of the multi-similarity loss.
        gamma: γ of the multi-similarity loss.
        margin: m of the multi-similarity loss.

    Returns:
        (A, V) bool, False where ``is_pair`` is False.
    """
    with torch.enable_grad(), torch.autocast(s.device.type, enabled=False):
        leaf = s.detach().to(exact_dtype(s)).requires_grad_()
        weight = is_pair.to(leaf.dtype)
        form = TABLE["MultiSimilarity"](beta, gamma, margin)
        share = pair_share(leaf, lam * weight, (1 - lam) * weight, form)
        (slope,) = torch.autograd.grad(share.total, leaf)
    return (slope <= 0) & is_pair


@renamed_keys(there="is_pair")
def expected_positive(
    s: Tensor, is_pair: Tensor, lam: Tensor, beta: float, gamma: float, margin: float
) -> Tensor:
    r"""Pos(a, v) in theory (eq. 4.23), which is exact for an anchor with a single v.

    .. math::
        s(a, v) \le \frac{1}{\beta + \gamma} \ln \frac{\lambda}{1 - \lambda} + m

    The mean over all pairs is eq. 4.14: F_λ, the share of similarities up to that threshold.
    Arguments and result: see :func:`acts_positive`.
    """
    threshold = positivity_threshold(lam.to(s), beta, gamma, margin)
    return (s <= threshold) & is_pair
