"""The tracker (eqs. 6.1 to 6.7) by loops over heads, objects and patches, in Python floats."""

from __future__ import annotations

import math

import torch
from reference.transport import sinkhorn
from torch import Tensor


def softmax(values: list[Tensor]) -> list[Tensor]:
    top = max(float(v.detach()) for v in values)
    powers = [(v - top).exp() for v in values]
    total = sum(powers)
    return [p / total for p in powers]


def cls_attention(q: Tensor, k: Tensor, prefix: int, divisor: float) -> Tensor:
    """Attention (B, h, N) (eq. 6.1) of q and k (B, h, P + N, D / h)."""
    frames = []
    for queries, keys in zip(q.double(), k.double(), strict=True):
        rows = []
        for i in range(len(queries)):
            dots = [sum(queries[i, 0] * key) / divisor for key in keys[i]]
            rows.append(torch.stack(softmax(dots)[prefix:]))
        frames.append(torch.stack(rows))
    return torch.stack(frames)


def pooled(weights: Tensor, vectors: Tensor) -> Tensor:
    """Weighted means (B, k, D) (eqs. 6.2 and 6.5) of vectors (B, N, D), weights (B, k, N)."""
    return torch.stack(
        [
            torch.stack([sum(w * v for w, v in zip(row, points, strict=True)) for row in rows])
            for rows, points in zip(weights.double(), vectors.double(), strict=True)
        ]
    )


def plan(
    prototypes: Tensor, patches: Tensor, eps: float, iters: int, normalize: bool, kind: str
) -> Tensor:
    """Transport plan (B, k, N) (eq. 6.4)."""
    frames = []
    for objects, points in zip(prototypes.double(), patches.double(), strict=True):
        points = [z / math.sqrt(float(z @ z)) if normalize else z for z in points]
        rows = [[-float(p @ z) for z in points] for p in objects]
        cost = torch.tensor(rows, dtype=torch.float64)
        joint = sinkhorn(cost, eps, iters)
        frames.append(joint * (len(points) if kind == "columns" else 1))
    return torch.stack(frames)


def track(prototypes: Tensor, keys: Tensor, divisor: float) -> Tensor:
    """Attention (B, k, N) of objects (eqs. 6.3 and 6.6)."""
    return torch.stack(
        [
            torch.stack([torch.stack(softmax([sum(p * k) / divisor for k in frame])) for p in rows])
            for rows, frame in zip(prototypes.double(), keys.double(), strict=True)
        ]
    )


def binary(attention: Tensor) -> Tensor:
    """Binary mask (B, k, N): attention above the mean of one frame and one object."""
    masks = torch.zeros(attention.shape, dtype=torch.float64)
    for b, frame in enumerate(attention.tolist()):
        for i, row in enumerate(frame):
            for n, value in enumerate(row):
                masks[b, i, n] = float(value > sum(row) / len(row))
    return masks


def masked(frame: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masked frame (C, H, W) (eq. 6.7) from one mask (N,), pixel by pixel."""
    _, height, width = frame.shape
    out = frame.clone()
    for y in range(height):
        for x in range(width):
            row, column = y * grid[0] // height, x * grid[1] // width
            out[:, y, x] = frame[:, y, x] * mask[row * grid[1] + column]
    return out
