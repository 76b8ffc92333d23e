"""(6.8) and (6.9), the teacher's softmax and monitors, by loops over views, frames and outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def probabilities(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Probabilities (K,) of one row."""
    shifted = [(x - c) / temperature for x, c in zip(logits, center, strict=True)]
    powers = [(x - max(shifted)).exp() for x in shifted]
    return torch.stack([p / sum(powers) for p in powers])


def cross_entropy(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of one row, with the minus sign that is missing in the thesis."""
    p = probabilities(logits, torch.zeros_like(logits), temperature)
    return -sum(t * value.log() for t, value in zip(target, p, strict=True))


def object_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Object loss (eq. 6.8), mean over frames: teacher (2, B, K), student (2, B, S, K)."""
    frames = teacher.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(frames):
        for u in range(2):
            for v in range(2):
                for i in range(student.shape[2] if u != v else 0):
                    logits = student[v, t, i].double()
                    total = total + cross_entropy(teacher[u, t].double(), logits, temperature)
    return total / frames


def local_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Local loss (eq. 6.9), mean over frames: teacher (V, B, K), student (m, B, K)."""
    frames = teacher.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(frames):
        for v in range(len(teacher)):
            for i in range(len(student)):
                logits = student[i, t].double()
                total = total + cross_entropy(teacher[v, t].double(), logits, temperature)
    return total / frames


def entropy(p: Tensor) -> float:
    """Entropy of one row."""
    return -sum(x * math.log(x) for x in p.double().tolist() if x > 0)
