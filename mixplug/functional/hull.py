"""Convex combinations of a whole batch, and their cross-entropy without building them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

_CHUNK = 1 << 19  # logits in flight: 2 MiB of float32, which stay in a core's cache
_CHUNK_DEVICE = 1 << 26  # on an accelerator, where launches cost more than memory: 256 MiB


def multimix(z: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the batch's convex hull and their targets: ``Λ Z`` and ``Λ Y`` (5.6)-(5.7).

    Args:
        z: Z, (B, D) embeddings.
        y: Y, (B, K) target rows.
        weights: Λ, (M, B), rows on the simplex, row k holds λ_k. The thesis has it transposed.

    Returns:
        ``z_mixed`` (M, D) and ``y_mixed`` (M, K).

    Raises:
        ValueError: the three do not agree on B, or are not matrices.
    """
    if z.dim() != 2 or y.dim() != 2 or weights.dim() != 2:
        raise ValueError(
            f"multimix needs z (B, D), y (B, K), weights (M, B), got {tuple(z.shape)}, "
            f"{tuple(y.shape)}, {tuple(weights.shape)}."
        )
    if not z.shape[0] == y.shape[0] == weights.shape[1]:
        raise ValueError(
            f"multimix needs one B: z has {z.shape[0]}, y {y.shape[0]}, weights {weights.shape[1]}."
        )
    with torch.autocast(y.device.type, enabled=False):  # targets are half of a loss
        y_mixed = weights.to(y.dtype) @ y
    return weights.to(z.dtype) @ z, y_mixed


def hull_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, coefficient: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of hull points from the logits of the clean examples (5.8), (5.14).

        sum_k c_k ( m_k logsumexp(λ_k L) - λ_k G λ_k^T ),   G = L Y^T,   m_k = sum of λ_k Y

    For a linear classifier the logits of a mixed embedding are the mixed logits, Λ L. The product
    <λ_k Y, λ_k L> is a quadratic form of the B x B matrix G, so mixed targets are never made, and
    mixed logits are made a few at a time: the loss and its gradient, a (B, K) matrix, are found in
    one sweep. Memory beyond the arguments is bounded by a constant and (..., B, K).

    Args:
        logits: L, (..., B, K), of the clean examples.
        target: Y, (B, K), shared by the leading dimensions, no gradient.
        weights: Λ, (..., M, B), no gradient.
        coefficient: c, (..., M), what each term weighs in the sum; None is their mean.

    Returns:
        Scalar in float32, or float64 if given; differentiable once, in ``logits``.

    Raises:
        ValueError: shapes do not fit.
    """
    batch, classes = logits.shape[-2:]
    if target.shape != (batch, classes) or weights.shape[-1] != batch:
        raise ValueError(
            f"hull_cross_entropy needs logits (..., B, K), target (B, K), weights (..., M, B), got "
            f"{tuple(logits.shape)}, {tuple(target.shape)}, {tuple(weights.shape)}."
        )
    if weights.shape[:-2] != logits.shape[:-2]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and weights {tuple(weights.shape)} need the same "
            f"leading dimensions."
        )
    dtype = exact_dtype(logits)
    if coefficient is None:
        coefficient = weights.new_full(weights.shape[:-1], 1 / weights[..., 0].numel())
    elif coefficient.shape != weights.shape[:-1]:
        raise ValueError(
            f"coefficient needs the shape {tuple(weights.shape[:-1])}, got "
            f"{tuple(coefficient.shape)}."
        )
    with torch.autocast(logits.device.type, enabled=False):
        loss: Tensor = _HullCrossEntropy.apply(
            logits.to(dtype).reshape(-1, batch, classes),
            target.to(dtype),
            weights.detach().to(dtype).reshape(-1, *weights.shape[-2:]),
            coefficient.detach().to(dtype).reshape(-1, weights.shape[-2]),
        )
    return loss


def once(ctx: Any, grad: Tensor, who: str, advice: str) -> Tensor:
    """The gradient that a forward pass has saved, times that of its loss.

    Raises:
        RuntimeError: second derivatives are asked for; it says what to do in place of ``who``.
    """
    if torch.is_grad_enabled():  # create_graph=True: what follows would come out as zero
        raise RuntimeError(
            f"{who} is differentiable once. For second derivatives {advice}, and use "
            f"soft_cross_entropy."
        )
    (gradient,) = ctx.saved_tensors
    return gradient * grad


class _HullCrossEntropy(torch.autograd.Function):
    """Loss and gradient of one sweep; the gradient is a (P, B, K) tensor, P leading items."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weights: Tensor, c: Tensor) -> Tensor:
        c_mass = c * (weights @ target.sum(-1))  # (P, M): coefficient of logsumexp
        # sum_k c_k λ_k G λ_k^T = <S, G> with S = Λ^T diag(c) Λ, so G itself is not needed either
        pull = (weights.mT @ (c[..., None] * weights)) @ target  # S Y, (P, B, K)
        loss = -(pull * logits).sum()
        gradient = pull.neg_()
        chunk = _CHUNK if logits.device.type == "cpu" else _CHUNK_DEVICE
        rows = max(1, min(weights.shape[1], chunk // logits.shape[-1]))
        items = max(1, chunk // (rows * logits.shape[-1]))
        for some in range(0, len(logits), items):
            own, out = logits[some : some + items], gradient[some : some + items]
            for start in range(0, weights.shape[1], rows):
                lam = weights[some : some + items, start : start + rows]
                mass = c_mass[some : some + items, start : start + rows]
                mixed = lam @ own  # (items, rows, K)
                top = mixed.amax(-1, keepdim=True)
                total = mixed.sub_(top).exp_().sum(-1)
                loss += (mass * (total.log() + top[..., 0])).sum()
                # softmax is mixed / total; dividing the narrower of the two factors is cheaper
                out.baddbmm_((lam * (mass / total)[..., None]).mT, mixed)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        advice = "mix logits and targets with multimix"
        return once(ctx, grad, "hull_cross_entropy", advice), None, None, None
