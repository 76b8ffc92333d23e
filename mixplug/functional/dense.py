"""Dense MultiMix (§5.3.3): attention, and convex combinations of the batch at every position."""

from __future__ import annotations

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype

QUERIES = ("gap", "cam")
NORMALIZE = ("l1", "softmax", "uniform")


def attention_map(
    z: Tensor,
    query: str = "gap",
    normalize: str = "l1",
    weight: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    r"""Attention map (eq. 5.9): ``a = h(z^T u)``, the confidence that a position shows the target.

    Args:
        z: features at N positions, (B, D, N).
        query: u. 'gap' is the mean of z over positions. 'cam' is W^T y, the classifier weights of
            the target.
        normalize: h. 'l1' is ReLU followed by ℓ1 normalization; a row without positive scores is
            all 0. 'softmax' is the softmax over positions. 'uniform' is 1/N, that is, no attention.
        weight: weight W of the linear classifier, (K, D); required for 'cam'.
        target: target rows y, (B, K); required for 'cam'.

    Returns:
        (B, N), detached, float32 (float64 for float64 input). Each row sums to 1 or to 0.

    Raises:
        ValueError: ``query`` or ``normalize`` is unknown, z is not 3-D, or 'cam' has no ``weight``
            or ``target``.
    """
    if query not in QUERIES or normalize not in NORMALIZE:
        raise ValueError(
            f"attention_map needs query in {QUERIES} and normalize in {NORMALIZE}, got "
            f"{query!r} and {normalize!r}."
        )
    if z.dim() != 3:
        raise ValueError(f"attention_map needs z (B, D, N), got {tuple(z.shape)}.")
    dtype = exact_dtype(z)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        z = z.to(dtype)
        if normalize == "uniform":
            return z.new_full((z.shape[0], z.shape[2]), 1 / z.shape[2])
        if query == "gap":
            u = z.mean(-1)
        elif weight is None or target is None:
            raise ValueError("attention_map needs weight (K, D) and target (B, K) for query 'cam'.")
        else:
            u = target.to(dtype) @ weight.flatten(1).to(dtype)  # (B, D)
        scores = torch.einsum("bdn,bd->bn", z, u)
        if normalize == "softmax":
            return scores.softmax(-1)
        scores = scores.relu()
        total = scores.sum(-1, keepdim=True)
        return torch.where(total > 0, scores / total.clamp(min=torch.finfo(dtype).tiny), 0)


def dense_weights(weights: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    r"""Hull weights scaled by attention and normalized to the simplex again (eqs. 5.10 and 5.11).

        M^j = diag(a^j) Λ^j,   s^j = 1^T M^j,   M̂^j = M^j diag(s^j)^-1

    Args:
        weights: Λ, (M, B, N), on the simplex over B at each position.
        attention: a, (B, N), >= 0.

    Returns:
        M̂ (M, B, N) and s (M, N). At positions where no example has attention, M̂ = Λ and s = 0.
    """
    scaled = weights * attention.to(weights.dtype)
    s = scaled.sum(1)
    tiny = torch.finfo(weights.dtype).tiny
    return torch.where(s[:, None] > tiny, scaled / s[:, None].clamp(min=tiny), weights), s


def dense_multimix(
    z: Tensor, y: Tensor, weights: Tensor, attention: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Dense MultiMix: convex combinations of the batch at every position j (eqs. 5.10 to 5.13).

        Z~^j = Z^j M̂^j,   Y~^j = Y M̂^j

    Args:
        z: features at N positions, (B, D, N).
        y: target rows, (B, K). All positions of an example have the same target.
        weights: Λ, (M, B, N), on the simplex over B at each position.
        attention: a, (B, N), >= 0.

    Returns:
        Mixed features ``z_mixed`` (M, D, N), mixed targets ``y_mixed`` (M, K, N), and ``s``
        (M, N), the weight of each loss term (eq. 5.14).

    Raises:
        ValueError: shapes do not match.
    """
    b, _, n = z.shape
    if y.shape[0] != b or weights.shape[1:] != (b, n) or attention.shape != (b, n):
        raise ValueError(
            f"dense_multimix needs z (B, D, N), y (B, K), weights (M, B, N), attention (B, N), got "
            f"{tuple(z.shape)}, {tuple(y.shape)}, {tuple(weights.shape)}, {tuple(attention.shape)}."
        )
    m_hat, s = dense_weights(weights, attention)
    z_mixed = torch.einsum("bdn,mbn->mdn", z, m_hat.to(z.dtype))
    with torch.autocast(y.device.type, enabled=False):  # targets, as losses, in full precision
        y_mixed = torch.einsum("bk,mbn->mkn", y, m_hat.to(y.dtype))
    return z_mixed, y_mixed, s
