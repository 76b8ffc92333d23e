"""Pair losses as printed (Table 4.1, eqs. 4.7, 4.9, 4.10), by loops over anchors, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Scalar = Callable[[Tensor], Tensor]
Pair = tuple[int, int]
Make = Callable[[int, int, int], tuple[Tensor, float]]  # (anchor, first, second) to (v, λ)


@dataclass(frozen=True)
class Row:
    """A row of Table 4.1, and whether its two terms are averaged separately over anchors."""

    tau: Scalar
    sigma_pos: Scalar
    sigma_neg: Scalar
    rho_pos: Scalar
    rho_neg: Scalar
    separate_means: bool = False


def _identity(x: Tensor) -> Tensor:
    return x


def _hinge(x: Tensor) -> Tensor:
    return x if x > 0 else x * 0


def row(
    name: str, beta: float = 1, gamma: float = 1, margin: float = 0, temperature: float = 1
) -> Row:
    """A row of Table 4.1 by name; 'published' is Proxy Anchor as published by Kim et al."""
    one, log, exp, m = _identity, torch.log, torch.exp, margin
    if name == "Contrastive":
        return Row(one, one, one, lambda x: -x, lambda x: _hinge(x - m))
    if name == "LiftedStructure":
        return Row(_hinge, log, log, lambda x: exp(-x), lambda x: exp(x - m))
    if name == "published":
        plus = (lambda x: exp(-beta * (x - m)), lambda x: exp(gamma * (x + m)))
        return Row(one, lambda x: log(1 + x), lambda x: log(1 + x), *plus, separate_means=True)
    if name in ("BinomialDeviance", "MultiSimilarity", "ProxyAnchor"):
        b, g = (1, 1) if name == "BinomialDeviance" else (beta, gamma)
        return Row(
            one,
            lambda x: log(1 + x) / b,
            lambda x: log(1 + x) / g,
            lambda x: exp(-beta * (x - m)),
            lambda x: exp(gamma * (x - m)),
        )
    t = {"NCA": 1, "ProxyNCA": 1, "ProxyNCAPlusPlus": temperature}[name]
    return Row(one, lambda x: -log(x), log, lambda x: exp(x / t), lambda x: exp(x / t))


@dataclass(frozen=True)
class World:
    """Anchors (A, D), points (P, D) and their labels. With ``itself``, anchor i is point i."""

    anchors: Tensor
    anchor_labels: list[int]
    points: Tensor
    point_labels: list[int]
    itself: bool

    def others(self, a: int) -> list[tuple[int, int]]:
        """U(a): all points except the anchor; y = 1 for the same class (eqs. 4.5 and 4.6)."""
        kept = [i for i in range(len(self.points)) if not (self.itself and i == a)]
        return [(i, int(self.point_labels[i] == self.anchor_labels[a])) for i in kept]

    def vector(self, i: int) -> Tensor:
        """Point i, or anchor a for i = P + a, if the anchors are not points."""
        return self.points[i] if i < len(self.points) else self.anchors[i - len(self.points)]


def unit(rows: Tensor) -> Tensor:
    """Rows of norm 1, in float64."""
    return torch.stack([r / r.pow(2).sum().sqrt() for r in rows.double()])


def examples(embeddings: Tensor, labels: Tensor) -> World:
    """Anchors, positives and negatives are the examples."""
    v, y = unit(embeddings), labels.tolist()
    return World(v, y, v, y, itself=True)


def proxy_anchors(embeddings: Tensor, labels: Tensor, proxies: Tensor) -> World:
    """Anchors are the proxies."""
    classes = list(range(len(proxies)))
    return World(unit(proxies), classes, unit(embeddings), labels.tolist(), itself=False)


def proxy_points(embeddings: Tensor, labels: Tensor, proxies: Tensor) -> World:
    """Positives and negatives are the proxies."""
    classes = list(range(len(proxies)))
    return World(unit(embeddings), labels.tolist(), unit(proxies), classes, itself=False)


Terms = tuple["Tensor | None", "Tensor | None"]


def terms(row: Row, elements: list[tuple[Tensor, float]], mean: bool = False) -> Terms:
    """σ⁺ and σ⁻ of an anchor with elements (s, y); None for a term without any weight."""
    out: list[Tensor | None] = []
    for rho, sigma, weights in (
        (row.rho_pos, row.sigma_pos, [y for _, y in elements]),
        (row.rho_neg, row.sigma_neg, [1 - y for _, y in elements]),
    ):
        if not any(w > 0 for w in weights):
            out.append(None)
            continue
        total = torch.zeros((), dtype=torch.float64)
        for (s, _), w in zip(elements, weights, strict=True):
            total = total + w * rho(s)
        out.append(sigma(total / sum(weights) if mean else total))
    return out[0], out[1]


def average(row: Row, anchors: list[Terms]) -> Tensor:
    """Mean over anchors (eq. 4.10); or separate means, of positive terms over anchors with one."""
    zero = torch.zeros((), dtype=torch.float64)
    if row.separate_means:
        pulled = [p for p, _ in anchors if p is not None]
        pushed = [n for _, n in anchors if n is not None]
        return sum(pulled, zero) / max(1, len(pulled)) + sum(pushed, zero) / len(anchors)
    total = zero
    for p, n in anchors:
        total = total + row.tau((zero if p is None else p) + (zero if n is None else n))
    return total / len(anchors)


def clean(row: Row, world: World, mean: bool = False) -> Tensor:
    """The clean loss (eq. 4.7), averaged over anchors."""
    anchors = []
    for a in range(len(world.anchors)):
        elements = [(world.anchors[a] @ world.points[i], y) for i, y in world.others(a)]
        anchors.append(terms(row, elements, mean))
    return average(row, anchors)


def mixing_pairs(
    world: World, a: int, kind: str, hardest: int | None = None
) -> list[tuple[Pair, Pair]]:
    """M(a): pairs ((i, y), (j, y')) (§4.4.2), with the k negatives most similar to the anchor."""
    index = a if world.itself else len(world.points) + a
    positives = [(i, y) for i, y in world.others(a) if y == 1]
    negatives = [(i, y) for i, y in world.others(a) if y == 0]
    if hardest is not None:
        s = {i: float((world.anchors[a] @ world.points[i]).detach()) for i, _ in negatives}
        negatives = sorted(negatives, key=lambda n: -s[n[0]])[:hardest]
    of = {"anc": [(index, 1)], "pos": positives, "neg": negatives}
    first, second = kind.split("-")
    return [(p, n) for p in of[first] for n in of[second]]


def mixed(
    row: Row,
    world: World,
    kind: str,
    make: Make,
    hardest: int | None = None,
    mean: bool = False,
) -> Tensor:
    """The mixed loss (eq. 4.9) over V(a) (eq. 4.8), averaged over anchors."""
    anchors = []
    for a in range(len(world.anchors)):
        elements = []
        for (i, y), (j, other) in mixing_pairs(world, a, kind, hardest):
            v, lam = make(a, i, j)
            elements.append((world.anchors[a] @ v, lam * y + (1 - lam) * other))
        anchors.append(terms(row, elements, mean))
    return average(row, anchors)


def embedding_mixup(
    world: World, lam: Callable[[int, int, int], float], renormalize: bool = True
) -> Make:
    """Embedding mixup, the last case of eq. 4.4."""

    def make(a: int, i: int, j: int) -> tuple[Tensor, float]:
        weight = lam(a, i, j)
        v = weight * world.vector(i) + (1 - weight) * world.vector(j)
        return (v / v.pow(2).sum().sqrt() if renormalize else v), weight

    return make


def example_mixup(
    values: Tensor, function: Callable[[Tensor], Tensor], lam: dict[Pair, float]
) -> Make:
    """Input and feature mixup, the first cases of eq. 4.4: each mixed example is embedded alone."""
    done: dict[Pair, Tensor] = {}

    def make(_: int, i: int, j: int) -> tuple[Tensor, float]:
        if (i, j) not in done:
            example = lam[i, j] * values[i] + (1 - lam[i, j]) * values[j]
            done[i, j] = unit(function(example[None].to(values.dtype)))[0]
        return done[i, j], lam[i, j]

    return make


def mixed_anchors(
    row: Row, labels: Tensor, proxies: Tensor, make: Make, pairs: set[Pair], mean: bool = False
) -> Tensor:
    """Mixed loss (eq. 4.9) of mixed anchors and proxy points; y is interpolated as in eq. 4.8."""
    anchors, points, classes = [], unit(proxies), labels.tolist()
    for i, j in sorted(pairs):
        v, lam = make(-1, i, j)
        y = [lam * (c == classes[i]) + (1 - lam) * (c == classes[j]) for c in range(len(points))]
        anchors.append(terms(row, [(v @ p, y[c]) for c, p in enumerate(points)], mean))
    return average(row, anchors)
