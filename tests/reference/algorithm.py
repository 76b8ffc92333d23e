"""Algorithm 1 of the thesis, and related pair mixing methods, one example at a time.

``encode`` is F: x to A; ``embed`` is f: A to e; ``classify`` is g: e to logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference.aligned import align, mix
from reference.targets import cross_entropy
from torch import Tensor


@dataclass(frozen=True)
class Network:
    """Two encoders and a classifier, each for one example."""

    encode: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]
    classify: Callable[[Tensor], Tensor]

    def logits(self, a: Tensor) -> Tensor:
        """g(f(A))."""
        return self.classify(self.embed(a))


@dataclass(frozen=True)
class Terms:
    """Logits, targets and their mean cross-entropy."""

    logits: Tensor
    target: Tensor

    @property
    def loss(self) -> Tensor:
        """Mean cross-entropy (eq. 5.1)."""
        terms = [cross_entropy(z, y) for z, y in zip(self.logits, self.target, strict=True)]
        return sum(terms) / len(terms)


def algorithm_1(
    net: Network,
    x: Tensor,
    y: Tensor,
    mode: str,
    partner: list[int],
    lam: list[float],
    eps: float = 0.1,
    iters: int = 100,
    aligned: bool = True,
    normalize_cost: bool = False,
    prepare: Callable[[Tensor], Tensor] = lambda a: a,
    swap_before: bool = False,
) -> Terms:
    """Lines 3 to 27, without a decoder. lam[i] is the λ of line 9, which weighs the first operand.

    Mode "feat'" uses eqs. 3.11 and 3.13 with the plan of x and x'. Line 17 instead swaps x and x'
    beforehand, so that Sinkhorn starts with the former columns. After convergence, the plan is the
    same.

    Args:
        net: the network.
        x: (B, ...) images.
        y: (B, K) targets.
        mode: 'input', 'embed', 'feat' or "feat'".
        partner: π.
        lam: λ of each example.
        eps: entropy weight.
        iters: Sinkhorn iterations.
        aligned: whether to align maps; False mixes them without alignment.
        normalize_cost: whether to divide costs by their maximum.
        prepare: function applied to A before line 19.
        swap_before: whether to swap as in line 17.
    """
    logits, targets = [], []
    for i in range(len(x)):
        one, two, factor = (x[i], y[i]), (x[partner[i]], y[partner[i]]), lam[i]
        if mode == "feat'":
            one, two = two, one  # line 17
        if mode == "input":
            e = net.embed(net.encode(mix(one[0], two[0], factor)))
        elif mode == "embed":
            e = mix(net.embed(net.encode(one[0])), net.embed(net.encode(two[0])), factor)
        else:
            a, other = prepare(net.encode(one[0])), prepare(net.encode(two[0]))
            if aligned and mode == "feat'" and not swap_before:
                _, other = align(other, a, eps, iters, normalize_cost)  # A~' (eq. 3.11)
            elif aligned:
                other, _ = align(a, other, eps, iters, normalize_cost)  # A~ (eq. 3.10), line 24
            e = net.embed(mix(a, other, factor))
        logits.append(net.classify(e))
        targets.append(mix(one[1], two[1], factor))
    return Terms(torch.stack(logits), torch.stack(targets))
