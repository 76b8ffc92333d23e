"""Cross-entropy of mixed examples with dense labels: each example has a class at each position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixplug.functional.hull import first_derivative
from mixplug.functional.precision import exact_dtype

_CHUNK = 1 << 17  # mixed logits held at a time: 512 KiB of float32, which fit into the CPU cache
_CHUNK_DEVICE = 1 << 24  # on an accelerator, where launches cost more than memory


def hull_label_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, coefficient: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of mixed examples with dense labels (eq. 5.14).

        sum_kj c_kj ( m_kj logsumexp(λ_kj L_j) - λ_kj G_j λ_kj^T ),   G_j[h, i] = L_j[h, y_ij]

    Here y_ij is the class of example i at position j, and m_kj is the sum of λ_kj. The function
    extends :func:`mixplug.functional.hull_cross_entropy` to dense labels. One-hot targets are
    never built. The mixed logits are built for a block of positions at a time, and one sweep over
    the blocks gives both the loss and its gradient. Apart from the arguments, this takes a constant
    amount of memory and the gradient, which is as large as the logits.

    Args:
        logits: logits L of the clean examples at N positions, (B, K, N).
        labels: class indices y in [0, K), (B, N). For an unknown label, give any class, and weight
            0 to the example at this position.
        weights: Λ or M̂, (M, B, N), on the simplex over B. Receives no gradient.
        coefficient: weight c of each term in the sum, (M, N). None gives the mean of the terms.

    Returns:
        Scalar, float32 (float64 for float64 logits). It is differentiable in ``logits``, once.

    Raises:
        ValueError: shapes do not match, or labels are not integers.
        RuntimeError: second derivatives are requested in the backward pass.
    """
    shape = (logits.shape[0], logits.shape[-1])
    if logits.dim() != 3 or labels.shape != shape or weights.shape[1:] != shape:
        raise ValueError(
            f"hull_label_cross_entropy needs logits (B, K, N), labels (B, N), weights (M, B, N), "
            f"got {tuple(logits.shape)}, {tuple(labels.shape)}, {tuple(weights.shape)}."
        )
    if labels.is_floating_point():
        raise ValueError(
            f"hull_label_cross_entropy needs integer class indices as labels, got {labels.dtype}."
        )
    if coefficient is None:
        coefficient = weights.new_full((len(weights), shape[1]), 1 / weights[:, 0].numel())
    elif coefficient.shape != (len(weights), shape[1]):
        raise ValueError(
            f"hull_label_cross_entropy needs coefficient of shape {(len(weights), shape[1])}, got "
            f"{tuple(coefficient.shape)}."
        )
    dtype = exact_dtype(logits)
    with torch.autocast(logits.device.type, enabled=False):
        loss: Tensor = _HullLabels.apply(
            logits.to(dtype),
            labels.long(),
            weights.detach().to(dtype),
            coefficient.detach().to(dtype),
        )
    return loss


class _HullLabels(torch.autograd.Function):
    """Loss and gradient in one sweep over blocks of positions."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, c: Tensor) -> Tensor:
        gradient = torch.zeros_like(logits)
        loss = logits.new_zeros(())
        chunk = _CHUNK if logits.device.type == "cpu" else _CHUNK_DEVICE
        size = max(1, chunk // logits.shape[1])
        for start in range(0, logits.shape[-1], size):
            block = slice(start, start + size)
            loss += _sweep(
                logits[..., block],
                labels[:, block],
                weights[..., block].contiguous(),
                c[:, block],
                gradient[..., block],
            )
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        advice = "mix logits and one-hot targets"
        return first_derivative(ctx, grad, "hull_label_cross_entropy", advice), None, None, None


def _sweep(logits: Tensor, labels: Tensor, weights: Tensor, c: Tensor, out: Tensor) -> Tensor:
    """Loss of a block of positions; its gradient is added to ``out`` (B, K, N).

    There are many positions and few examples. So the loops run over examples, and every step works
    on whole rows of positions, which are the last dimension.
    """
    batch = range(len(logits))
    loss = logits.new_zeros(())
    for lam, coefficient in zip(weights, c, strict=True):  # (B, N), (N,)
        mixed = lam[0] * logits[0]  # (K, N)
        for i in batch[1:]:
            mixed.addcmul_(lam[i], logits[i])
        top = mixed.amax(0)
        total = mixed.sub_(top).exp_().sum(0)
        mass = coefficient * lam.sum(0)
        loss += (mass * (total.log() + top)).sum()
        softmax = mixed.mul_(mass / total)
        for i in batch:
            out[i].addcmul_(lam[i], softmax)
    # sum_k c_k λ_k G λ_k^T = <S, G> with S = Λ^T diag(c) Λ
    pull = torch.einsum("khn,kn,kin->hin", weights, c, weights)
    for h in batch:
        loss -= (pull[h] * logits[h].gather(0, labels)).sum()
        out[h].scatter_add_(0, labels, pull[h].neg())
    return loss
