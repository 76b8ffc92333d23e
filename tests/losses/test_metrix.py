"""Metrix against loops over anchors and pairs: all losses, all kinds of pairs, all levels."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn

import mixplug
from mixplug import sampling
from mixplug.bench.measure import peak_bytes
from mixplug.losses.base import PairLoss
from mixplug.losses.metrix import Metrix
from mixplug.losses.mixing_pairs import PAIRS, draw_firsts, mixing_pairs
from mixplug.losses.pair import (
    NCA,
    BinomialDeviance,
    Contrastive,
    LiftedStructure,
    MultiSimilarity,
)
from mixplug.losses.proxies import ProxyAnchor, ProxyNCA, ProxyNCAPlusPlus
from mixplug.losses.relation import Relation
from mixplug.models.heads.embedding import EmbeddingHead
from mixplug.sampling import Generators, generators

WIDTH, CLASSES = 4, 4
LABELS = torch.tensor([3, 0, 3, 1, 0, 3])  # class 1 has no positives, class 2 is absent
BALANCED = torch.tensor([0, 1, 2, 0, 1, 2])
Mixture = dict[tuple[int, int], float]
SCALES = {"beta": 2.0, "gamma": 7.0, "margin": 0.3}


def proxies(cls: Callable[..., PairLoss], **setting: object) -> Callable[..., PairLoss]:
    return lambda **more: cls(num_classes=CLASSES, dim=WIDTH, **setting, **more)


LOSSES: dict[str, tuple[Callable[..., PairLoss], naive.Row, Callable[..., naive.World]]] = {
    "Contrastive": (
        lambda **more: Contrastive(margin=0.1, **more),
        naive.row("Contrastive", margin=0.1),
        naive.examples,
    ),
    "LiftedStructure": (
        lambda **more: LiftedStructure(margin=0.7, **more),
        naive.row("LiftedStructure", margin=0.7),
        naive.examples,
    ),
    "BinomialDeviance": (
        lambda **more: BinomialDeviance(**SCALES, **more),
        naive.row("BinomialDeviance", **SCALES),
        naive.examples,
    ),
    "MultiSimilarity": (
        lambda **more: MultiSimilarity(**SCALES, **more),
        naive.row("MultiSimilarity", **SCALES),
        naive.examples,
    ),
    "NCA": (NCA, naive.row("NCA"), naive.examples),
    "published": (
        proxies(ProxyAnchor, **SCALES),
        naive.row("published", **SCALES),
        naive.proxy_anchors,
    ),
    "thesis": (
        proxies(ProxyAnchor, **SCALES, variant="thesis"),
        naive.row("ProxyAnchor", **SCALES),
        naive.proxy_anchors,
    ),
    "ProxyNCA": (proxies(ProxyNCA), naive.row("ProxyNCA"), naive.proxy_points),
    "ProxyNCAPlusPlus": (
        proxies(ProxyNCAPlusPlus, temperature=0.25),
        naive.row("ProxyNCAPlusPlus", temperature=0.25),
        naive.proxy_points,
    ),
}
PROXY_LOSSES = [name for name, (_, _, world) in LOSSES.items() if world is not naive.examples]
PAIR_LOSSES = [name for name in LOSSES if name not in PROXY_LOSSES]
RATIOS = ["NCA", "ProxyNCA", "ProxyNCAPlusPlus"]


def batch(dtype: torch.dtype = torch.float32, size: int = 6, width: int = WIDTH) -> Tensor:
    return torch.randn(size, width, dtype=dtype).mul_(2).requires_grad_()


def build(name: str, dtype: torch.dtype, reduction: str = "sum", **setting: object) -> Metrix:
    return Metrix(LOSSES[name][0](reduction=reduction), **setting).to(dtype)


def world_of(name: str, metrix: Metrix, e: Tensor, labels: Tensor) -> naive.World:
    learned = [metrix.loss.proxies] if name in PROXY_LOSSES else []
    return LOSSES[name][2](e, labels, *learned)


def leaves(metrix: Metrix, *more: tuple[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [*more, *metrix.named_parameters()]


def lambdas(world: naive.World, dtype: torch.dtype) -> Tensor:
    """One λ per anchor and pair, some of them 0 and 1."""
    count = len(world.points) + (0 if world.itself else len(world.anchors))
    lam = torch.rand(len(world.anchors), count, count, dtype=dtype)
    lam[torch.rand_like(lam) < 0.1] = 0
    lam[torch.rand_like(lam) < 0.1] = 1
    return lam


# level 'embed', for given λ


def check_mixed(
    name: str, kind: str, dtype: torch.dtype, reduction: str = "sum", **setting: object
) -> None:
    metrix, e = build(name, dtype, reduction, **setting), batch(dtype)
    world = world_of(name, metrix, e, LABELS)
    lam = lambdas(world, dtype)
    make = naive.embedding_mixup(
        world, lambda a, i, j: float(lam[a, i, j]), bool(setting.get("renormalize", True))
    )
    expected = naive.mixed(
        LOSSES[name][1], world, kind, make, setting.get("hardest"), reduction == "mean"
    )
    loss = metrix.mixed(e, LABELS, lam, kind)
    assert loss.dtype == dtype and loss.dim() == 0
    assert_same_gradients(loss, expected, leaves(metrix, ("embeddings", e)))


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", LOSSES)
def test_mixed_loss_equals_the_loop(name: str, kind: str, dtype: torch.dtype) -> None:
    check_mixed(name, kind, dtype)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", LOSSES)
def test_all_options_at_once_equal_the_loop(name: str, kind: str) -> None:
    check_mixed(name, kind, torch.float64, reduction="mean", renormalize=False, hardest=2, chunk=2)


@pytest.mark.parametrize("kind", ["pos-neg", "anc-neg"])
@pytest.mark.parametrize("name", ["MultiSimilarity", "published", "ProxyNCA"])
def test_each_option_equals_the_loop(name: str, kind: str) -> None:
    check_mixed(name, kind, torch.float64, reduction="mean")
    check_mixed(name, kind, torch.float64, renormalize=False)
    check_mixed(name, kind, torch.float64, hardest=1)


@pytest.mark.parametrize("name", LOSSES)
def test_one_lambda_for_all_is_a_number_or_a_tensor(name: str, dtype: torch.dtype) -> None:
    metrix, e = build(name, dtype), batch(dtype)
    world = world_of(name, metrix, e, LABELS)
    expected = naive.mixed(
        LOSSES[name][1], world, "pos-neg", naive.embedding_mixup(world, lambda a, i, j: 0.3)
    )
    count = len(world.points)
    for lam in (0.3, torch.tensor(0.3), torch.full((len(world.anchors), count, count), 0.3)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_near(metrix.mixed(e, LABELS, lam, "pos-neg"), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_at_lambda_0_and_1_a_mixed_pair_is_one_of_its_operands(name: str) -> None:
    """Each positive occurs once per negative and vice versa; 'mean' ignores repetitions."""
    metrix, e = build(name, torch.float64, "mean"), batch(torch.float64)
    row, world = LOSSES[name][1], world_of(name, metrix, e, LABELS)
    only: dict[int, list[naive.Terms]] = {0: [], 1: []}
    clean_negative = []
    for a in range(len(world.anchors)):
        s = [(world.anchors[a] @ world.points[i], y) for i, y in world.others(a)]
        pulled, pushed = naive.terms(row, s, mean=True)
        both = pulled is not None and pushed is not None
        only[1].append((pulled if both else None, None))
        only[0].append((None, pushed if both else None))
        clean_negative.append((None, pushed))
    at = leaves(metrix, ("embeddings", e))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for lam in (0, 1):
            loss = metrix.mixed(e, LABELS, float(lam), "pos-neg")
            assert_same_gradients(loss, naive.average(row, only[lam]), at)
        loss = metrix.mixed(e, LABELS, 0.0, "anc-neg")  # the clean negative term
        assert_same_gradients(loss, naive.average(row, clean_negative), at)


@pytest.mark.parametrize("name", LOSSES)
def test_an_anchor_with_lambda_1_is_itself(name: str) -> None:
    """With 'anc-neg' and λ = 1, all similarities are 1 for any embeddings: the gradient is 0."""
    metrix, e = build(name, torch.float64), batch(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = metrix.mixed(e, LABELS, 1.0, "anc-neg")
    for gradient in torch.autograd.grad(loss, [t for _, t in leaves(metrix, ("e", e))]):
        assert float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["pos-neg", "anc-neg"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_mixed_negative_term_has_a_gradient(name: str, kind: str) -> None:
    """The gradient is that of the positive term plus that of the negative term."""
    metrix, e = build(name, torch.float64), batch(torch.float64)
    row, world = LOSSES[name][1], world_of(name, metrix, e, LABELS)
    lam = lambdas(world, torch.float64).clamp(0.1, 0.9)
    make = naive.embedding_mixup(world, lambda a, i, j: float(lam[a, i, j]))
    alone = naive.Row(
        lambda x: x, row.sigma_pos, lambda x: x * 0, row.rho_pos, row.rho_neg, row.separate_means
    )
    (whole,) = torch.autograd.grad(metrix.mixed(e, LABELS, lam, kind), e)
    (positive,) = torch.autograd.grad(naive.mixed(alone, world, kind, make), e)
    assert float((whole - positive).norm()) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_pos_pos_has_no_negative_term_and_neg_neg_no_positive_term(name: str) -> None:
    """'pos-pos' ignores the negative term, 'neg-neg' the positive term (after eq. 4.11)."""
    metrix, e = build(name, torch.float64), batch(torch.float64)
    world = world_of(name, metrix, e, LABELS)
    lam, form = lambdas(world, torch.float64), metrix.loss.form
    for kind, kept in (("pos-pos", "positive"), ("neg-neg", "negative")):

        def nothing(s: Tensor, weight: Tensor) -> Tensor:
            assert not weight.any()
            return s.sum(-1) * 0

        terms = {"positive": nothing, "negative": nothing, kept: getattr(form, kept)}
        value = metrix.mixed(e, LABELS, lam, kind)
        metrix.loss.form = type(form)(**terms, hinge=form.hinge, separate_means=form.separate_means)
        assert_near(metrix.mixed(e, LABELS, lam, kind), value)
        metrix.loss.form = form


@pytest.mark.parametrize("kind", ["pos-neg", "anc-neg"])
@pytest.mark.parametrize("name", RATIOS)
def test_a_shared_lambda_gives_ratios_no_gradient_and_warns(name: str, kind: str) -> None:
    metrix, e = build(name, torch.float64), batch(torch.float64)
    for lam in (0.3, torch.tensor(0.3)):
        with pytest.warns(UserWarning, match="opposite gradients.*λ per pair"):
            loss = metrix.mixed(e, LABELS, lam, kind)
        assert float(torch.autograd.grad(loss, e)[0].abs().max()) < 1e-9


@pytest.mark.parametrize("name", LOSSES)
def test_no_warning_where_the_gradient_is_not_zero(name: str) -> None:
    metrix, e = build(name, torch.float64), batch(torch.float64)
    lam = lambdas(world_of(name, metrix, e, LABELS), torch.float64)
    given: list[tuple[object, str]] = [(lam, kind) for kind in PAIRS]
    given += [(0.3, kind) for kind in PAIRS if name not in RATIOS]
    # with equal labels, or λ of 0 or 1, only one of the two terms remains: nothing cancels
    given += [(0.3, "pos-pos"), (0.3, "neg-neg"), (0.0, "pos-neg"), (1.0, "pos-neg")]
    for value, kind in given:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = metrix.mixed(e, LABELS, value, kind)
        if name in RATIOS:
            assert float(torch.autograd.grad(loss, e)[0].norm()) > 1e-6, (kind, value)


def test_a_single_mixed_pair_equals_eq_4_16() -> None:
    """Two examples of one class and one of another: two anchors have one pair, the third none."""
    e, lam, (beta, gamma, m) = batch(torch.float64, 3), 0.4, (18, 75, 0.77)
    a, p, n = naive.unit(e)
    total = torch.zeros((), dtype=torch.float64)
    for anchor, positive in ((a, p), (p, a)):
        v = lam * positive + (1 - lam) * n
        t = anchor @ (v / v.norm()) - m
        total = total + torch.log(1 + lam * torch.exp(-beta * t)) / beta
        total = total + torch.log(1 + (1 - lam) * torch.exp(gamma * t)) / gamma
    loss = Metrix("MultiSimilarity").mixed(e, torch.tensor([7, 7, 1]), lam, "pos-neg")
    assert_same_gradients(loss, total / 3, [("e", e)])


@pytest.mark.parametrize("name", ["MultiSimilarity", "BinomialDeviance"])
@pytest.mark.parametrize("kind", PAIRS)
def test_float32_agrees_with_float64_at_scale_75(name: str, kind: str) -> None:
    cls = {"MultiSimilarity": MultiSimilarity, "BinomialDeviance": BinomialDeviance}[name]
    metrix = Metrix(cls(beta=75.0, gamma=75.0, margin=0.77))
    e = batch().detach()
    e[2], e[4], e[3] = e[0], -e[1], -e[0]  # similarities of 1 and -1
    lam = torch.rand(6, 6, 6) * 0.4
    results = []
    for dtype in (torch.float32, torch.float64):
        values = e.to(dtype).requires_grad_()
        loss = metrix.mixed(values, LABELS, lam, kind)
        results.append((loss, torch.autograd.grad(loss, values)[0]))
    (value, gradient), (exact, exact_gradient) = results
    assert_near(value, exact)
    assert bool(gradient.isfinite().all())
    assert_near(gradient, exact_gradient)


# selection of pairs


def relation(labels: Tensor) -> Relation:
    e = torch.nn.functional.normalize(torch.randn(len(labels), 3))
    return Relation(e, labels, e, labels, itself=True)


def test_draw_firsts_draws_one_positive_uniformly_for_every_negative() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    pairs = mixing_pairs(relation(labels), "pos-neg", hardest=2)
    counts = torch.zeros(7, 2, 7)
    source = torch.Generator().manual_seed(5)
    for _ in range(600):
        drawn = draw_firsts(pairs, source)
        assert torch.equal(drawn.second, pairs.second)
        assert drawn.mask.shape == drawn.first.shape == (7, 1, 2)
        counts.scatter_add_(2, drawn.first[:, 0, :, None], torch.ones(7, 2, 1))
    assert drawn.mask[:, 0].all(1).tolist() == [True] * 6 + [False]
    for a in range(6):
        positives = [i for i in range(7) if i != a and labels[i] == labels[a]]
        share = counts[a][:, positives] / 600
        assert float(share.sum(1).min()) == pytest.approx(1)
        assert float((share - 1 / len(positives)).abs().max()) < 0.1
    assert not torch.equal(draw_firsts(pairs, source).first, draw_firsts(pairs, source).first)


# random draws


class Draws:
    """Record what mixplug.sampling draws, or set λ."""

    def __init__(self, patch: pytest.MonkeyPatch, lam: Callable[[int], Tensor] | None = None):
        self.lam: list[Tensor] = []
        self.alpha: list[float] = []
        self.branches: list[str] = []
        beta, branch = sampling.beta, sampling.branch

        def drawn(alpha: float, size: int, source: torch.Generator) -> Tensor:
            self.alpha.append(alpha)
            self.lam.append(beta(alpha, size, source) if lam is None else lam(size))
            return self.lam[-1]

        def taken(*arguments: object) -> str:
            self.branches.append(branch(*arguments))
            return self.branches[-1]

        patch.setattr(sampling, "beta", drawn)
        patch.setattr(sampling, "branch", taken)


def padded(world: naive.World, kind: str, drawn: Tensor) -> Callable[[int, int, int], float]:
    """λ of a pair, where λ was drawn for lists (A, F, S) padded to the longest."""
    count = len(world.anchors)
    lists = []
    for a in range(count):
        pairs = naive.mixing_pairs(world, a, kind)
        firsts, seconds = ([p[side][0] for p in pairs] for side in (0, 1))
        lists.append((list(dict.fromkeys(firsts)), list(dict.fromkeys(seconds))))
    # Proxy anchors without pairs draw nothing; anchors that are examples always draw.
    with_pairs = [a for a in range(count) if world.itself or (lists[a][0] and lists[a][1])]
    table = drawn.view(len(with_pairs), max(len(f) for f, _ in lists), -1)
    row = {a: table[k] for k, a in enumerate(with_pairs)}
    return lambda a, i, j: float(row[a][lists[a][0].index(i), lists[a][1].index(j)])


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", LOSSES)
def test_level_embed_is_4_10_with_a_lambda_per_anchor_and_pair(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No class has a single example, so no list is short just because its other list is empty."""
    draws, labels = Draws(monkeypatch), torch.tensor([3, 0, 3, 2, 0, 2])
    metrix, e = (
        build(name, torch.float64, level="embed", pairs=kind, w=0.7, alpha=1.5),
        batch(torch.float64),
    )
    loss = metrix(e, labels, generators=generators(1, 2))
    world, row = world_of(name, metrix, e, labels), LOSSES[name][1]
    make = naive.embedding_mixup(world, padded(world, kind, draws.lam[0]))
    expected = naive.clean(row, world) + 0.7 * naive.mixed(row, world, kind, make)
    assert_same_gradients(loss, expected, leaves(metrix, ("embeddings", e)))
    assert draws.alpha == [1.5] and len(draws.lam[0].unique()) == draws.lam[0].numel()


def test_the_same_generators_give_the_same_loss_and_others_another() -> None:
    e, head = batch(torch.float64), EmbeddingHead(3, WIDTH).double()
    maps = torch.randn(6, 3, 2, 2, dtype=torch.float64)
    values: dict[tuple[int, int, int], float] = {}
    metrix = Metrix("MultiSimilarity", level=("embed", "feature", "input"), hardest={"input": 1})
    for seed, step, rank in itertools.product((0, 1), (3, 4), (0, 1)):
        twice = []
        for _ in range(2):
            torch.manual_seed(len(values) + len(twice))  # the global generator has no effect
            draws = generators(seed, step, rank)
            loss = metrix(e, LABELS, features=(maps, head), inputs=(maps, head), generators=draws)
            twice.append(float(loss.detach()))
        assert twice[0] == twice[1]
        values[seed, step, rank] = twice[0]
    assert len(set(values.values())) == len(values)
    torch.manual_seed(3)
    first = Metrix("NCA", level="embed")(e, LABELS)
    torch.manual_seed(3)
    assert torch.equal(Metrix("NCA", level="embed")(e, LABELS), first)


def test_ranks_take_the_same_branch_with_different_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, seen = Draws(monkeypatch), []
    head, maps = EmbeddingHead(3, WIDTH), torch.randn(6, 3, 2, 2)
    metrix = Metrix("Contrastive", ("embed", "feature"), ("pos-neg", "anc-neg", "pos-pos"))
    for step in range(80):
        for rank, labels in ((0, BALANCED), (1, LABELS)):  # ranks have other batches
            metrix(batch(), labels, features=(maps, head), generators=generators(7, step, rank))
            draws.lam.append(draws.lam.pop()[:4])
        one, other = draws.branches[-4:-2], draws.branches[-2:]
        assert one == other
        assert not torch.equal(draws.lam[-1], draws.lam[-2])
        seen.append(tuple(one))
    frequency = {choice: seen.count(choice) / 80 for choice in set(seen)}
    assert len(frequency) == 6  # every level with every kind
    assert all(0.05 < f < 0.35 for f in frequency.values())


def test_defaults_of_the_thesis(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, e = Draws(monkeypatch), batch(torch.float64)
    metrix = mixplug.build({"type": "Metrix", "loss": {"type": "MultiSimilarity"}})
    maps, head = torch.randn(6, 3, 2, 2).double(), EmbeddingHead(3, WIDTH).double()
    clean = MultiSimilarity(18, 75, 0.77)(e, LABELS)
    kinds = set()
    for step in range(12):
        loss = metrix(e, LABELS, features=(maps, head), generators=generators(0, step))
        kinds.add(draws.branches[-1])
        assert draws.branches[-2] == "feature"
    assert kinds == {"pos-neg", "anc-neg"} and set(draws.alpha) == {2.0}
    half = Metrix("MultiSimilarity", w=0.2)
    other = half(e, LABELS, features=(maps, head), generators=generators(0, 11))
    assert_near(loss - clean, 2 * (other - clean))
    assert metrix.hardest == {"input": 3}


def test_hardest_negatives_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dict sets it for some levels, a number for all; 'input' keeps 3 otherwise."""
    draws, labels = Draws(monkeypatch), torch.arange(12) // 3
    values, function = example_values(torch.float32, 12), network("input", torch.float32, 12)
    sources = {"features": (values, function), "inputs": (values, function)}
    e = torch.randn(12, WIDTH)

    def count(level: str, hardest: object) -> int:
        metrix = Metrix("Contrastive", level, "anc-neg", hardest=hardest)
        metrix(e, labels, **sources)
        return len(draws.lam[-1])

    assert count("embed", None) == 12 * 9 and count("feature", None) == 12 * 9 / 2
    assert count("embed", {"embed": 2}) == count("embed", 2) == 12 * 2
    assert count("embed", {"feature": 2}) == 12 * 9
    assert count("input", {"embed": 2}) == count("input", None) == count("input", 3)
    assert count("input", 1) < count("input", 2) < count("input", 3) <= 36


def test_no_weight_no_mixing() -> None:
    e = batch()
    loss = Metrix("NCA", w=0)(e, LABELS, features=(e, lambda _: 1 / 0))
    assert torch.equal(loss, NCA()(e, LABELS))


def test_lambda_of_a_beta_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(monkeypatch)
    labels = torch.arange(40) // 2
    Metrix("NCA", "embed", "pos-neg", alpha=2)(batch(size=40), labels)
    lam = draws.lam[0]
    assert len(lam) == 40 * 38
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(lam.var()) == pytest.approx(1 / 20, rel=0.15)  # 1 / (4 (2α + 1))


# levels 'feature' and 'input': the first channels of an example encode its index


class Spy:
    """A function to embeddings that records which mixtures of examples it receives."""

    def __init__(self, function: nn.Module, count: int) -> None:
        self.function, self.count = function, count
        self.seen: list[Tensor] = []
        self.autocast: list[bool] = []

    def __call__(self, values: Tensor) -> Tensor:
        self.seen.append(values.detach().flatten(2)[:, : self.count, 0].double())
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return self.function(values)

    def mixtures(self) -> Mixture:
        """λ of i by (i, j), and 1 - λ by (j, i); every mixture must occur once."""
        table: Mixture = {}
        for weights in torch.cat(self.seen):
            assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
            there = weights.nonzero()[:, 0].tolist()
            i, j = (there * 2)[:2]
            assert len(there) <= 2 and (i, j) not in table
            table[i, j] = float(weights[i])
            table[j, i] = 1 - table[i, j]
        return table


def example_values(dtype: torch.dtype, count: int = 6) -> Tensor:
    values = torch.randn(count, count + 2, 2, 2, dtype=dtype)
    values[:, :count, 0, 0] = torch.eye(count, dtype=dtype)
    return values.requires_grad_()


def network(level: str, dtype: torch.dtype, count: int = 6) -> nn.Module:
    if level == "feature":
        return EmbeddingHead(count + 2, WIDTH).to(dtype)
    layers = nn.Flatten(), nn.Linear(4 * (count + 2), 5), nn.Tanh(), nn.Linear(5, WIDTH)
    return nn.Sequential(*layers).to(dtype)


def unordered(world: naive.World, kind: str, hardest: int | None) -> set[tuple[int, int]]:
    every = [naive.mixing_pairs(world, a, kind, hardest) for a in range(len(world.anchors))]
    return {(min(i, j), max(i, j)) for pairs in every for (i, _), (j, _) in pairs}


def check_level(
    name: str,
    level: str,
    kind: str,
    dtype: torch.dtype,
    labels: Tensor = LABELS,
    reduction: str = "sum",
    **setting: object,
) -> Spy:
    """Eq. 4.10 with mixed maps or inputs, where all ``unordered`` pairs of points are mixed."""
    if level == "feature":
        setting = {"hardest": None, **setting}
    metrix = build(name, dtype, reduction, level=level, pairs=kind, **setting)
    values, function = example_values(dtype), network(level, dtype)
    spy, e = Spy(function, len(values)), function(values)
    loss = metrix(e, labels, **{f"{level}s": (values, spy)}, generators=generators(3, 4))
    table = spy.mixtures()
    row, world = LOSSES[name][1], world_of(name, metrix, e, labels)
    make = naive.example_mixup(values, function, table)
    mean, hardest = reduction == "mean", setting.get("hardest")
    if LOSSES[name][2] is naive.proxy_points:
        pairs = unordered(naive.examples(e, labels), "anc-neg", hardest)
        mixed = naive.mixed_anchors(row, labels, metrix.loss.proxies, make, pairs, mean)
    else:
        pairs = unordered(world, kind, hardest)
        mixed = naive.mixed(row, world, kind, make, hardest, mean)
    assert {(i, j) for i, j in table if i <= j} == pairs
    assert len(torch.cat(spy.seen)) == len(pairs)
    expected = naive.clean(row, world, mean) + metrix.w * mixed
    at = leaves(metrix, ("values", values), *function.named_parameters())
    assert_same_gradients(loss, expected, at)
    assert torch.equal(spy.seen[0].sum(1).round(), torch.ones(len(spy.seen[0])).double())
    return spy


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_level_feature_equals_the_loop(name: str, kind: str, dtype: torch.dtype) -> None:
    """A pair of examples has one λ for all anchors and both orders: λ_ij = 1 - λ_ji."""
    check_level(name, "feature", kind, dtype)


@pytest.mark.parametrize("kind", ["anc-neg", "pos-pos", "neg-neg"])
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_level_input_equals_the_loop(name: str, kind: str, dtype: torch.dtype) -> None:
    check_level(name, "input", kind, dtype, hardest=2)


@pytest.mark.parametrize("level", ["feature", "input"])
@pytest.mark.parametrize("name", PROXY_LOSSES)
def test_proxies_with_mixed_examples_equal_the_loop(
    name: str, level: str, dtype: torch.dtype
) -> None:
    check_level(name, level, "pos-neg", dtype, hardest=2)
    check_level(name, level, "pos-neg", dtype, hardest=1, labels=BALANCED, reduction="mean")


@pytest.mark.parametrize("name", ["NCA", "MultiSimilarity", "published"])
def test_options_of_level_feature_equal_the_loop(name: str) -> None:
    for setting in ({"hardest": 2}, {"reduction": "mean"}, {"w": 2.0}, {"renormalize": False}):
        check_level(
            name, "feature", "pos-neg", torch.float64, **setting
        )  # the head normalizes anyway


def test_neither_head_nor_loss_normalizes(dtype: torch.dtype) -> None:
    values = example_values(dtype)
    head = EmbeddingHead(8, WIDTH, normalize=False).to(dtype)
    spy, e = Spy(head, 6), head(values)
    metrix = Metrix(Contrastive(margin=0.1), "feature", "pos-neg", renormalize=False)
    loss = metrix(e, LABELS, features=(values, spy))
    world, row, table = naive.examples(e, LABELS), naive.row("Contrastive", margin=0.1), {}
    table = spy.mixtures()

    def make(_: int, i: int, j: int) -> tuple[Tensor, float]:
        mixed = table[i, j] * values[i] + (1 - table[i, j]) * values[j]
        return head(mixed[None])[0].double(), table[i, j]

    expected = naive.clean(row, world) + 0.4 * naive.mixed(row, world, "pos-neg", make)
    assert_same_gradients(loss, expected, [("values", values), *head.named_parameters()])


@pytest.mark.parametrize("chunk", [None, 2])
def test_level_input_with_one_of_several_positives(chunk: int | None) -> None:
    """One choice of positives for each anchor and its nearest negative must give the loss."""
    labels, values = torch.tensor([0, 1, 0, 1, 0, 1]), example_values(torch.float64)
    function, row = network("input", torch.float64), naive.row("MultiSimilarity", **SCALES)
    spy, e = Spy(function, 6), function(values)
    metrix = Metrix(MultiSimilarity(**SCALES), "input", "pos-neg", hardest=1, chunk=chunk)
    loss = metrix(e, labels, inputs=(values, spy), generators=generators(3, 4))
    table, world = spy.mixtures(), naive.examples(e, labels)
    make, choices = naive.example_mixup(values, function, table), []
    for a in range(6):
        here = []
        for (i, _), (j, _) in naive.mixing_pairs(world, a, "pos-neg", 1):
            if (i, j) in table:
                v, lam = make(a, i, j)
                here.append((naive.terms(row, [(world.anchors[a] @ v, lam)]), (i, j)))
        assert here
        choices.append(here)
    mixed, used = [], []
    for choice in itertools.product(*choices):
        mixed.append(naive.average(row, [terms for terms, _ in choice]))
        used.append({(min(pair), max(pair)) for _, pair in choice})
    expected = naive.clean(row, world) + 0.4 * torch.stack(mixed)
    best = int((expected - loss).abs().argmin())
    assert used[best] == {(i, j) for i, j in table if i < j}  # no unused embedding
    at = [("values", values), *function.named_parameters()]
    assert_same_gradients(loss, expected[best], at)


@pytest.mark.parametrize("name", ["Contrastive", "published", "ProxyNCA"])
@pytest.mark.parametrize("kind", ["pos-neg", "anc-neg"])
def test_level_input_embeds_at_most_k_more_examples_per_example(name: str, kind: str) -> None:
    """Two anchors with the same mixture share it; otherwise there are k·B mixtures."""
    labels = torch.arange(12) // 3
    values, function, spy = (
        example_values(torch.float32, 12),
        network("input", torch.float32, 12),
        None,
    )
    made = []
    for step in range(5):
        spy = Spy(function, 12)
        pairs = "pos-neg" if name in PROXY_LOSSES else kind
        metrix = build(name, torch.float32, level="input", pairs=pairs)
        e = torch.randn(12, WIDTH)
        metrix(e, labels, inputs=(values, spy), generators=generators(0, step))
        made.append(len(torch.cat(spy.seen)))
        for i, j in spy.mixtures():
            assert labels[i] != labels[j]
    assert min(made) >= 18 and max(made) <= 36  # a pair and its reverse count once


def test_level_input_makes_k_per_example_where_no_two_are_the_same() -> None:
    """The nearest negative of each class is the next class, in a circle, so none is mutual."""
    angle = torch.tensor([0.0, 0.1, 1.0, 1.3])  # 1 -> 2 is mutual with 2 -> 1 only
    e = torch.stack([angle.cos(), angle.sin()], 1)
    values, labels = example_values(torch.float32, 4), torch.tensor([0, 0, 1, 1])
    function = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
    spy = Spy(function, 4)
    Metrix("Contrastive", "input", "pos-neg", hardest=1)(e, labels, inputs=(values, spy))
    # anchors 0 and 1 mix their positive with 2, anchors 2 and 3 mix theirs with 1
    assert {(i, j) for i, j in spy.mixtures() if i < j} == {(0, 2), (1, 2), (1, 3)}


# closed form for average pooling


class Plain(nn.Module):
    """A head that does not declare that it commutes with mixing."""

    def __init__(self, head: EmbeddingHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(maps)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", ["MultiSimilarity", "NCA", "published", "ProxyNCA"])
def test_average_pooling_in_closed_form_equals_mixed_maps(
    name: str, normalize: bool, renormalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """λ = 1/2 is the same for both orders of a pair."""
    Draws(monkeypatch, lambda size: torch.full((size,), 0.5))
    kinds = ["pos-neg"] if name in PROXY_LOSSES else list(PAIRS)
    head = EmbeddingHead(5, WIDTH, pool="avg", normalize=normalize).double()
    nn.init.normal_(head.fc.bias)
    maps = torch.randn(6, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    for kind in kinds:
        metrix = build(name, torch.float64, pairs=kind, renormalize=renormalize)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = [metrix(head(maps), LABELS, features=(maps, f)) for f in (head, Plain(head))]
        at = leaves(metrix, ("maps", maps), *head.named_parameters())
        assert_same_gradients(*losses, at)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_closed_form_of_average_pooling_equals_the_loop(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws, row = Draws(monkeypatch), naive.row("MultiSimilarity", **SCALES)
    head = EmbeddingHead(5, WIDTH, pool="avg").to(dtype)
    maps = torch.randn(6, 5, 3, 2, dtype=dtype, requires_grad=True)
    metrix = Metrix(MultiSimilarity(**SCALES), "feature", kind)
    loss = metrix(head(maps), BALANCED, features=(maps, head), generators=generators(0, 0))
    world = naive.examples(head(maps), BALANCED)
    lam = padded(world, kind, draws.lam[0])

    def make(a: int, i: int, j: int) -> tuple[Tensor, float]:
        mixed = lam(a, i, j) * maps[i] + (1 - lam(a, i, j)) * maps[j]
        return naive.unit(head(mixed[None]))[0], lam(a, i, j)

    expected = naive.clean(row, world) + 0.4 * naive.mixed(row, world, kind, make)
    assert_same_gradients(loss, expected, [("maps", maps), *head.named_parameters()])


@pytest.mark.parametrize(("pool", "rows"), [("avg", 6), ("avg+max", 11)])
def test_average_pooling_builds_no_mixed_maps(pool: str, rows: int) -> None:
    head, maps = EmbeddingHead(5, WIDTH, pool), torch.randn(6, 5, 3, 2)
    seen: list[int] = []
    e = head(maps)
    head.fc.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    Metrix("Contrastive", pairs="anc-neg")(e, LABELS, features=(maps, head))
    different = (LABELS[:, None] != LABELS).triu().sum()
    assert seen == [6 if pool == "avg" else int(different)] == [rows]


# chunks


@pytest.mark.parametrize("name", ["NCA", "published", "ProxyNCA", "LiftedStructure"])
@pytest.mark.parametrize("level", ["embed", "feature", "input"])
def test_chunks_do_not_change_anything(name: str, level: str) -> None:
    values, function = example_values(torch.float64), network(level, torch.float64)
    results = []
    for chunk in (None, 1, 4, 1000):
        torch.manual_seed(1)
        metrix = build(name, torch.float64, level=level, pairs="pos-neg", hardest=2, chunk=chunk)
        sources = {"features": (values, function), "inputs": (values, function)}
        loss = metrix(function(values), LABELS, **sources, generators=generators(1, 1))
        at = leaves(metrix, ("values", values), *function.named_parameters())
        results.append((loss, torch.autograd.grad(loss, [t for _, t in at])))
    for loss, gradients in results[1:]:
        assert_near(loss, results[0][0])
        for mine, other in zip(gradients, results[0][1], strict=True):
            assert_near(mine, other)


@pytest.mark.parametrize(("drawn", "bound"), [(False, 52), (True, 80)])
def test_no_tensor_of_size_pairs_times_width_at_level_embed(
    drawn: bool, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward for a batch of the thesis (20 classes of 5, width 512).

    Memory is in floats per B². The clean loss takes 26, including 5 for a copy of the embeddings;
    drawing λ takes 20 more. Pairs times width would take 1900.
    """
    lam = torch.rand(100 * 4 * 95)
    if not drawn:
        Draws(monkeypatch, lambda size: lam)
    labels, e = torch.arange(20).repeat_interleave(5), batch(size=100, width=512)
    metrix = Metrix("MultiSimilarity", level="embed", pairs="pos-neg")
    metrix(e, labels).backward()  # memory that is allocated only once
    e.grad = None
    peak = peak_bytes(lambda: metrix(e, labels, generators=generators(0, 0)).backward())
    assert peak / (4 * 100**2) < bound


# precision


@pytest.mark.parametrize("name", LOSSES)
def test_mixed_losses_run_in_float32_under_autocast(name: str) -> None:
    metrix, e = build(name, torch.float32, level="embed", chunk=2), batch()
    with torch.autocast("cpu", torch.bfloat16):
        inside = metrix(e, LABELS, generators=generators(0, 1))
        half = metrix(e.bfloat16(), LABELS, generators=generators(0, 1))
    outside = metrix(e, LABELS, generators=generators(0, 1))
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(half, metrix(e.bfloat16().float(), LABELS, generators=generators(0, 1)))
    for mine, other in zip(
        torch.autograd.grad(inside, e), torch.autograd.grad(outside, e), strict=True
    ):
        assert_near(mine, other)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("name", ["MultiSimilarity", "published", "ProxyNCA"])
@pytest.mark.parametrize("pool", ["avg", "avg+max"])
def test_the_head_runs_under_autocast_and_the_loss_does_not(
    pool: str, name: str, chunk: int | None
) -> None:
    metrix = build(name, torch.float32, pairs="pos-neg", chunk=chunk)
    maps, head = torch.randn(6, 5, 3, 2, requires_grad=True), EmbeddingHead(5, WIDTH, pool)
    kinds: list[torch.dtype] = []
    head.fc.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        e = head(maps)
        loss = metrix(e, LABELS, features=(maps, head), generators=generators(0, 1))
    gradients = torch.autograd.grad(loss, [maps, head.fc.weight])
    assert set(kinds) == {torch.bfloat16} and len(kinds) > 1
    assert loss.dtype == torch.float32 and all(bool(g.isfinite().all()) for g in gradients)
    exact = metrix(head(maps), LABELS, features=(maps, head), generators=generators(0, 1))
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05, abs=0.05)


@pytest.mark.parametrize("level", ["feature", "input"])
def test_half_precision_maps(level: str) -> None:
    values, function = example_values(torch.float32), network(level, torch.float32)
    spy = Spy(function, 6)
    metrix = Metrix("Contrastive", level, "anc-neg", hardest=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = metrix(batch(), LABELS, **{f"{level}s": (values.bfloat16(), spy)})
    assert loss.dtype == torch.float32 and bool(loss.isfinite()) and all(spy.autocast)


# batches with few classes or examples


@pytest.mark.parametrize("level", ["embed", "feature", "input"])
@pytest.mark.parametrize("name", LOSSES)
def test_one_class_has_a_clean_loss_only(name: str, level: str) -> None:
    """At 'embed' a proxy loss mixes the proxies of other classes."""
    labels, pairs = torch.full((6,), 2), "pos-neg"
    metrix = build(name, torch.float64, level=level, pairs=pairs)
    e, maps = batch(torch.float64), example_values(torch.float64)
    source, function = f"{level}s", network("feature", torch.float64)
    sources = {} if level == "embed" else {source: (maps, function)}
    loss = metrix(e, labels, **sources)
    if level == "embed" and LOSSES[name][2] is naive.proxy_points:
        assert float(loss.detach()) != float(metrix.loss(e, labels).detach())
    else:
        assert_near(loss, metrix.loss(e, labels))
    gradients = torch.autograd.grad(loss, [t for _, t in leaves(metrix, ("e", e))])
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("name", PROXY_LOSSES)
def test_one_example_with_proxies(name: str) -> None:
    e, label = batch(torch.float64, 1), LABELS[:1]
    for kind in PAIRS:
        metrix = build(name, torch.float64, level="embed", pairs=kind)
        world = world_of(name, metrix, e, label)
        lam = lambdas(world, torch.float64)
        make = naive.embedding_mixup(world, lambda a, i, j, lam=lam: float(lam[a, i, j]))
        expected = naive.mixed(LOSSES[name][1], world, kind, make)
        assert_near(metrix.mixed(e, label, lam, kind), expected)
        assert bool(metrix(e, label).isfinite())
    maps = torch.randn(1, 5, 2, 2).double()
    head = EmbeddingHead(5, WIDTH).double()
    alone = build(name, torch.float64)
    assert_near(alone(e, label, features=(maps, head)), alone.loss(e, label))


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("level", ["embed", "feature", "input"])
def test_without_a_positive_pair_nothing_is_mixed(name: str, level: str) -> None:
    for size in (1, 4):
        metrix = build(name, torch.float32, level=level)
        e = torch.randn(size, 3, requires_grad=True)
        images, net = torch.randn(size, 3, 2, 2), EmbeddingHead(3, 3)
        sources = {} if level == "embed" else {f"{level}s": (images, net)}
        with pytest.warns(UserWarning, match=rf"{name}.*needs a positive pair.*MPerClassSampler"):
            loss = metrix(e, torch.arange(size), **sources)
        loss.backward()
        assert float(loss) == 0 and torch.equal(e.grad, torch.zeros_like(e))
        assert metrix.loss.batches_without_positives == 1


# use in training frameworks


@pytest.mark.parametrize(("level", "given"), [("feature", "inputs"), ("input", "features")])
def test_a_level_without_its_source_mixes_embeddings_and_warns(level: str, given: str) -> None:
    e = batch()
    with pytest.warns(UserWarning, match=rf"level '{level}' got no {level}s.*level='embed'"):
        loss = Metrix("NCA", level)(
            e, LABELS, **{given: (e, lambda x: x)}, generators=generators(0, 0)
        )
    assert torch.equal(loss, Metrix("NCA", "embed")(e, LABELS, generators=generators(0, 0)))


def test_proxies_are_in_the_checkpoint() -> None:
    e, one, other = batch(), Metrix(ProxyAnchor(4, WIDTH)), Metrix(ProxyAnchor(4, WIDTH))
    assert list(one.state_dict()) == ["loss.proxies"]
    assert not torch.equal(
        one.mixed(e, LABELS, 0.3, "pos-neg"), other.mixed(e, LABELS, 0.3, "pos-neg")
    )
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.mixed(e, LABELS, 0.3, "pos-neg"), other.mixed(e, LABELS, 0.3, "pos-neg"))
    assert not Metrix("NCA").state_dict()


@pytest.mark.parametrize("level", ["embed", "feature", "input"])
def test_inputs_are_not_edited(level: str) -> None:
    e, values = batch(), example_values(torch.float32)
    function, labels = network(level, torch.float32), LABELS.clone()
    lam = torch.rand(6, 6, 6)
    before = [t.detach().clone() for t in (e, values, lam)]
    metrix = Metrix("MultiSimilarity", level, hardest=2)
    sources = {"features": (values, function), "inputs": (values, function)}
    metrix(e, labels, **sources).backward()
    metrix.mixed(e, labels, lam, "pos-neg").backward()
    for t, copy in zip((e, values, lam), before, strict=True):
        assert torch.equal(t.detach(), copy)
    assert torch.equal(labels, LABELS)


def test_without_gradients() -> None:
    e, values = batch(), example_values(torch.float32)
    head = network("feature", torch.float32)
    for level in ("embed", "feature"):
        metrix = Metrix("NCA", level, chunk=1)
        loss = metrix(e, LABELS, features=(values, head), generators=generators(0, 0))
        with torch.no_grad():
            alone = metrix(e, LABELS, features=(values, head), generators=generators(0, 0))
        assert not alone.requires_grad and torch.equal(alone, loss)


# errors


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"level": "maps"}, "Metrix needs level in .*'input', 'feature', 'embed'.*got 'maps'"),
        ({"level": ("embed", "maps")}, "level in"),
        ({"level": ()}, "level in"),
        ({"pairs": "neg-pos"}, "Metrix needs pairs in .*'pos-neg', 'anc-neg'.*got 'neg-pos'"),
        ({"pairs": []}, "pairs in"),
        ({"alpha": 0}, "Metrix needs alpha > 0, got 0"),
        ({"alpha": float("nan")}, "alpha > 0, got nan"),
        ({"w": -0.1}, "Metrix needs w >= 0, got -0.1"),
        ({"chunk": 0}, "Metrix needs chunk >= 1 or None, got 0"),
        ({"hardest": 0}, "Metrix needs hardest to be an integer >= 1.*by level in .*got 0"),
        ({"hardest": {"input": -1}}, "hardest to be an integer >= 1, .*by level"),
        ({"hardest": {"maps": 3}}, "hardest to be an integer >= 1, .*by level"),
        ({"loss": nn.TripletMarginLoss()}, r"Metrix needs a pair loss.*got TripletMarginLoss"),
    ],
)
def test_settings_that_are_not_allowed(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metrix(**{"loss": "NCA", **setting})


@pytest.mark.parametrize("level", ["feature", "input"])
@pytest.mark.parametrize("loss", ["ProxyAnchor", "ProxyNCA"])
def test_proxies_have_no_maps_and_no_input(loss: str, level: str) -> None:
    spec = {"type": loss, "num_classes": CLASSES, "dim": WIDTH}
    message = rf"Metrix with {loss} at level '{level}' can mix only 'pos-neg'.*level='embed'"
    points_are_examples = loss == "ProxyAnchor"
    for pairs in ("anc-neg", ("pos-neg", "anc-neg"), *([] if points_are_examples else ["pos-pos"])):
        with pytest.raises(ValueError, match=message):
            Metrix(spec, level=("embed", level), pairs=pairs)
    Metrix(spec, level=level, pairs=["pos-neg"])
    Metrix(spec, level="embed", pairs="anc-neg")
    Metrix(spec, level=("embed", level))


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan"), torch.full((6, 6, 6), 1.5)])
def test_lambda_outside_0_and_1(lam: float | Tensor) -> None:
    with pytest.raises(ValueError, match=re.escape("Metrix needs lam in [0, 1], got")):
        Metrix("Contrastive").mixed(batch(), LABELS, lam, "pos-neg")


def test_unknown_pairs_of_mixed_raise() -> None:
    with pytest.raises(ValueError, match=r"Metrix needs pairs in .*got 'negneg'"):
        Metrix("Contrastive").mixed(batch(), LABELS, 0.5, "negneg")


@pytest.mark.parametrize("name", ["Contrastive", "published", "ProxyNCA"])
def test_more_hard_negatives_than_negatives_are_all(name: str) -> None:
    """A last batch may be short."""
    e, losses = batch(), []
    metrix = build(name, torch.float32, level="embed", pairs="neg-neg")
    for metrix.hardest in ({"embed": 50}, {}):
        losses.append(metrix.mixed(e, LABELS, 0.3, "neg-neg"))
    assert_near(*losses)


def test_wrong_batches_raise() -> None:
    metrix, e = Metrix("NCA", "embed"), batch().detach()
    with pytest.raises(ValueError, match="NCA needs integer labels"):
        metrix(e, LABELS.float())
    with pytest.raises(ValueError, match=r"\(6, 4\) and \(5,\)"):
        metrix.mixed(e, LABELS[:5], 0.5, "pos-neg")
    e[1] = float("nan")
    with pytest.raises(ValueError, match=r"NCA needs finite embeddings.*of examples \[1\]"):
        metrix(e, LABELS)


def test_each_step_has_its_own_generators() -> None:
    """A step draws a fixed number of keys, so later draws do not depend on the batch."""
    after = []
    for labels in (LABELS, BALANCED):
        draws: Generators = generators(0, 0)
        Metrix("NCA", "embed")(batch(), labels, generators=draws)
        after.append(torch.rand(2, generator=draws.local))
    assert torch.equal(*after)
