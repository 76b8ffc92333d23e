"""MultiMix (§5.3.2): convex combinations of a whole batch, and their cross-entropy in one sweep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

_CHUNK = 1 << 19  # mixed logits held at a time: 2 MiB of float32, which fit into the CPU cache
_CHUNK_DEVICE = 1 << 26  # 256 MiB on an accelerator, where launches cost more than memory


def multimix(z: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """MultiMix (eqs. 5.6 and 5.7): embeddings ``Λ Z`` and targets ``Λ Y`` of M mixed examples.

    Args:
        z: embeddings Z, (B, D).
        y: target rows Y, (B, K).
        weights: Λ, (M, B). Row k is λ_k, on the simplex. (The thesis writes examples as columns,
            so its Λ is transposed.)

    Returns:
        ``z_mixed`` (M, D) and ``y_mixed`` (M, K).

    Raises:
        ValueError: an argument is not a matrix, or the values of B differ.
    """
    if z.dim() != 2 or y.dim() != 2 or weights.dim() != 2:
        raise ValueError(
            f"multimix needs z (B, D), y (B, K), weights (M, B), got {tuple(z.shape)}, "
            f"{tuple(y.shape)}, {tuple(weights.shape)}."
        )
    if not z.shape[0] == y.shape[0] == weights.shape[1]:
        raise ValueError(
            f"multimix needs the same B in all arguments, got {z.shape[0]} in z, {y.shape[0]} in "
            f"y and {weights.shape[1]} in weights."
        )
    with torch.autocast(y.device.type, enabled=False):  # targets, as losses, in full precision
        y_mixed = weights.to(y.dtype) @ y
    return weights.to(z.dtype) @ z, y_mixed


def hull_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, coefficient: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of mixed examples, from the logits of the clean examples (eqs. 5.8 and 5.14).

        sum_k c_k ( m_k logsumexp(λ_k L) - λ_k G λ_k^T ),   G = L Y^T,   m_k = sum of λ_k Y

    With a linear classifier, the logits of the mixed embeddings Λ Z are the mixed logits Λ L. The
    term <λ_k Y, λ_k L> is a quadratic form of the B x B matrix G, so the mixed targets are never
    built. The mixed logits are built in blocks, and one sweep over the blocks gives both the loss
    and its gradient. Apart from the arguments, this takes a constant amount of memory and one
    tensor (..., B, K).

    Args:
        logits: logits L of the clean examples, (..., B, K).
        target: target rows Y, (B, K), the same for all leading dimensions. Receives no gradient.
        weights: Λ, (..., M, B), rows on the simplex. Receives no gradient.
        coefficient: weight c of each term in the sum, (..., M). None gives the mean of the terms.

    Returns:
        Scalar, float32 (float64 for float64 logits). It is differentiable in ``logits``, once.

    Raises:
        ValueError: shapes do not match.
        RuntimeError: second derivatives are requested in the backward pass.
    """
    batch, classes = logits.shape[-2:]
    if target.shape != (batch, classes) or weights.shape[-1] != batch:
        raise ValueError(
            f"hull_cross_entropy needs logits (..., B, K), target (B, K), weights (..., M, B), got "
            f"{tuple(logits.shape)}, {tuple(target.shape)}, {tuple(weights.shape)}."
        )
    if weights.shape[:-2] != logits.shape[:-2]:
        raise ValueError(
            f"hull_cross_entropy needs the same leading dimensions in logits and weights, got "
            f"{tuple(logits.shape)} and {tuple(weights.shape)}."
        )
    dtype = exact_dtype(logits)
    if coefficient is None:
        coefficient = weights.new_full(weights.shape[:-1], 1 / weights[..., 0].numel())
    elif coefficient.shape != weights.shape[:-1]:
        raise ValueError(
            f"hull_cross_entropy needs coefficient of shape {tuple(weights.shape[:-1])}, got "
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


def first_derivative(ctx: Any, grad: Tensor, caller: str, advice: str) -> Tensor:
    """Backward pass: the gradient that the forward pass saved, times the gradient of the loss.

    Raises:
        RuntimeError: second derivatives are requested. The message gives the ``advice``.
    """
    if torch.is_grad_enabled():  # create_graph=True: second derivatives would silently be zero
        raise RuntimeError(
            f"{caller} can be differentiated only once. For second derivatives {advice} and use "
            f"soft_cross_entropy."
        )
    (gradient,) = ctx.saved_tensors
    return gradient * grad


class _HullCrossEntropy(torch.autograd.Function):
    """Loss and gradient in one sweep; the gradient is (P, B, K) for P leading items."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weights: Tensor, c: Tensor) -> Tensor:
        c_mass = c * (weights @ target.sum(-1))  # (P, M): coefficient of logsumexp
        # sum_k c_k λ_k G λ_k^T = <S, G> with S = Λ^T diag(c) Λ, so G is not built either
        pull = (weights.mT @ (c[..., None] * weights)) @ target  # S Y, (P, B, K)
        loss = -(pull * logits).sum()
        gradient = pull.neg_()
        chunk = _CHUNK if logits.device.type == "cpu" else _CHUNK_DEVICE
        rows = max(1, min(weights.shape[1], chunk // logits.shape[-1]))
        items = max(1, chunk // (rows * logits.shape[-1]))
        for first in range(0, len(logits), items):
            block = slice(first, first + items)
            clean, out = logits[block], gradient[block]
            for start in range(0, weights.shape[1], rows):
                lam = weights[block, start : start + rows]
                mass = c_mass[block, start : start + rows]
                mixed = lam @ clean  # (items, rows, K)
                top = mixed.amax(-1, keepdim=True)
                total = mixed.sub_(top).exp_().sum(-1)
                loss += (mass * (total.log() + top[..., 0])).sum()
                # softmax is mixed / total; it is cheaper to divide lam, which is narrower
                out.baddbmm_((lam * (mass / total)[..., None]).mT, mixed)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        advice = "mix logits and targets with multimix"
        return first_derivative(ctx, grad, "hull_cross_entropy", advice), None, None, None
