"""Cross-entropy of hull points at many positions, where each example has a label at each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixplug.functional.hull import once
from mixplug.functional.precision import exact_dtype

_CHUNK = 1 << 17  # mixed logits in flight: 512 KiB of float32, which stay in a core's cache
_CHUNK_DEVICE = 1 << 24  # on an accelerator, where launches cost more than memory


def hull_label_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, coefficient: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of hull points with dense labels (5.14): y_ij is the class of i at position j.

        sum_kj c_kj ( m_kj logsumexp(λ_kj L_j) - λ_kj G_j λ_kj^T ),   G_j[h, i] = L_j[h, y_ij]

    As :func:`mixplug.functional.hull_cross_entropy`, with m_kj the sum of λ_kj. One-hot rows are
    never made; mixed logits are made for a block of positions at a time, and the loss and its
    gradient are found in one sweep. Memory beyond the arguments is bounded by a constant and the
    gradient, which is as large as the logits.

    Args:
        logits: L, (B, K, N), of the clean examples at N positions.
        labels: y, (B, N) class indices in [0, K); where a label is unknown give any class, and no
            weight to the example.
        weights: Λ or M̂, (M, B, N), no gradient.
        coefficient: c, (M, N), what each term weighs in the sum; None is their mean.

    Returns:
        Scalar in float32, or float64 if given; differentiable once, in ``logits``.

    Raises:
        ValueError: shapes do not fit, or labels that are no integers.
    """
    shape = (logits.shape[0], logits.shape[-1])
    if logits.dim() != 3 or labels.shape != shape or weights.shape[1:] != shape:
        raise ValueError(
            f"hull_label_cross_entropy needs logits (B, K, N), labels (B, N), weights (M, B, N), "
            f"got {tuple(logits.shape)}, {tuple(labels.shape)}, {tuple(weights.shape)}."
        )
    if labels.is_floating_point():
        raise ValueError(f"Labels must be class indices, got {labels.dtype}.")
    if coefficient is None:
        coefficient = weights.new_full((len(weights), shape[1]), 1 / weights[:, 0].numel())
    elif coefficient.shape != (len(weights), shape[1]):
        raise ValueError(
            f"coefficient needs the shape {(len(weights), shape[1])}, got "
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
    """Loss and gradient of one sweep over blocks of positions."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, c: Tensor) -> Tensor:
        gradient = torch.zeros_like(logits)
        loss = logits.new_zeros(())
        chunk = _CHUNK if logits.device.type == "cpu" else _CHUNK_DEVICE
        size = max(1, chunk // logits.shape[1])
        for start in range(0, logits.shape[-1], size):
            own = slice(start, start + size)
            loss += _sweep(
                logits[..., own],
                labels[:, own],
                weights[..., own].contiguous(),
                c[:, own],
                gradient[..., own],
            )
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        advice = "mix logits and one-hot targets"
        return once(ctx, grad, "hull_label_cross_entropy", advice), None, None, None


def _sweep(logits: Tensor, labels: Tensor, weights: Tensor, c: Tensor, out: Tensor) -> Tensor:
    """Loss of a block of positions; its gradient is added to ``out`` (B, K, N).

    Positions come last and are many, examples few: so examples are looped over, and every step
    works on whole rows of positions.
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
