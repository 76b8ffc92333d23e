"""MoCHi against loops over anchors, clean and mixed negatives, and its limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

import mixplug
from mixplug import sampling
from mixplug.losses.mixing_pairs import draw_pairs, mixing_pairs
from mixplug.losses.mochi import MoCHi
from mixplug.losses.relation import Relation

LABELS = torch.tensor([4, 0, 4, 1, 0, 4, 2])  # 1 and 2 have no positives
PROXY_LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2])
KINDS = ["neg-neg", "anc-neg"]
SETTINGS = {
    "Contrastive": {"margin": 0.1},
    "LiftedStructure": {"margin": 0.7},
    "MultiSimilarity": {"beta": 2.0, "gamma": 7.0, "margin": 0.3},
}


def batch(dtype: torch.dtype = torch.float32, width: int = 5) -> Tensor:
    return torch.randn(7, width, dtype=dtype).mul_(2).requires_grad_()


def loop(
    row: naive.Row,
    world: naive.World,
    kinds: list[str],
    lam: Callable[[int, int, int], float],
    hardest: int | None = None,
    renormalize: bool = True,
    mean: bool = False,
) -> Tensor:
    """Eq. 4.7 over U(a) and V(a), where all of V(a) has label 0."""
    make = naive.embedding_mixup(world, lam, renormalize)
    anchors = []
    for a in range(len(world.anchors)):
        elements = [(world.anchors[a] @ world.points[i], float(y)) for i, y in world.others(a)]
        for kind in kinds:
            for (i, _), (j, _) in naive.mixing_pairs(world, a, kind, hardest):
                elements.append((world.anchors[a] @ make(a, i, j)[0], 0.0))
        anchors.append(naive.terms(row, elements, mean))
    return naive.average(row, anchors)


@pytest.mark.parametrize("hardest", [2, 5, 100])  # anchors have 4, 5 or 6 negatives
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_loop(name: str, kind: str, hardest: int, dtype: torch.dtype) -> None:
    e, lam = batch(dtype), torch.rand(7, 7, 7).double() / 2
    loss = MoCHi({"type": name, **SETTINGS[name]}, hardest=hardest).mixed(e, LABELS, lam, kind)
    expected = loop(
        naive.row(name, **SETTINGS[name]),
        naive.examples(e, LABELS),
        [kind],
        lambda a, i, j: float(lam[a, i, j]),
        hardest,
    )
    assert loss.dtype == dtype
    assert_same_gradients(loss, expected, [("embeddings", e)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", [{"renormalize": False}, {"reduction": "mean"}], ids=str)
def test_options(kind: str, setting: dict[str, object]) -> None:
    e = batch(torch.float64)
    inner = {"type": "MultiSimilarity", **SETTINGS["MultiSimilarity"]}
    reduction = {k: v for k, v in setting.items() if k == "reduction"}
    outer = {k: v for k, v in setting.items() if k != "reduction"}
    loss = MoCHi({**inner, **reduction}, **outer).mixed(e, LABELS, 0.3, kind)
    expected = loop(
        naive.row("MultiSimilarity", **SETTINGS["MultiSimilarity"]),
        naive.examples(e, LABELS),
        [kind],
        lambda a, i, j: 0.3,
        None,
        "renormalize" not in setting,
        "reduction" in setting,
    )
    assert_same_gradients(loss, expected, [("embeddings", e)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ProxyAnchor", "ProxyNCA"])
def test_proxies(name: str, kind: str, dtype: torch.dtype) -> None:
    e, lam = batch(dtype), torch.rand(8, 12, 12).double() / 2
    mochi = MoCHi({"type": name, "num_classes": 4, "dim": 5}, hardest=3).to(dtype)
    world, row = naive.proxy_anchors, naive.row("published", 32, 32, 0.1)
    if name == "ProxyNCA":
        world, row = naive.proxy_points, naive.row("ProxyNCA")
    proxies = mochi.loss.proxies
    loss = mochi.mixed(e, PROXY_LABELS, lam, kind)
    expected = loop(
        row, world(e, PROXY_LABELS, proxies), [kind], lambda a, i, j: float(lam[a, i, j]), 3
    )
    assert_same_gradients(loss, expected, [("embeddings", e), ("proxies", proxies)])


def test_the_step_is_over_both_kinds_and_halves_the_weight_of_the_anchor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "beta", lambda alpha, size, source: torch.full((size,), 0.6))
    e = batch(torch.float64)
    row, world = naive.row("Contrastive", margin=0.1), naive.examples(e, LABELS)
    both = loop(row, world, KINDS, lambda a, i, j: 0.3 if i == a else 0.6)
    hardest = loop(row, world, KINDS, lambda a, i, j: 0.3 if i == a else 0.6, 2)
    inner = {"type": "Contrastive", "margin": 0.1}
    assert_near(MoCHi(inner)(e, LABELS), both)
    assert_near(MoCHi(inner, hardest=2)(e, LABELS), hardest)
    assert_near(
        MoCHi(inner, pairs="neg-neg")(e, LABELS), loop(row, world, KINDS[:1], lambda *_: 0.6)
    )
    assert_near(
        MoCHi(inner, pairs="anc-neg")(e, LABELS), loop(row, world, KINDS[1:], lambda *_: 0.3)
    )


def test_weights_are_uniform_and_drawn_for_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, Tensor]] = []

    def beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
        drawn = draw(alpha, size, source)
        seen.append((alpha, drawn))
        return drawn

    draw = sampling.beta
    monkeypatch.setattr(sampling, "beta", beta)
    MoCHi("Contrastive")(batch(), LABELS, generators=sampling.generators(0, 0))
    (alpha, lam), (_, other) = seen
    assert alpha == 1 and len(lam) == 7 * 6 * 6 and len(other) == 7 * 6
    assert len(lam.unique()) > 200 and 0.45 < lam.mean() < 0.55


@pytest.mark.parametrize("name", SETTINGS)
def test_a_negative_mixed_with_itself_counts_again(name: str) -> None:
    """With λ = 0 in 'anc-neg', every negative appears twice, so its sum doubles."""
    e = batch(torch.float64)
    loss = mixplug.build({"type": name, **SETTINGS[name]})
    relation = loss.relation(*loss.prepare(e, LABELS))
    s = relation.anchors @ relation.points.mT
    twice = loss.share(s, relation.positive(), 2.0 * relation.negative()).mean()
    assert_near(MoCHi(loss).mixed(e, LABELS, 0.0, "anc-neg"), twice)
    assert abs(float((twice - loss(e, LABELS)).detach())) > 1e-3


def test_drawn_pairs_are_of_the_anchors_own_negatives() -> None:
    e = torch.nn.functional.normalize(batch().detach(), dim=1)
    relation = Relation(e, LABELS, e, LABELS, itself=True)
    all_of_them = mixing_pairs(relation, "neg-neg", 5, fewer=True)
    some = draw_pairs(all_of_them, 400, torch.Generator().manual_seed(0))
    assert some.mask.shape == (7, 1, 400) and bool(some.mask.all())
    for a in range(7):
        pairs = naive.mixing_pairs(naive.examples(e, LABELS), a, "neg-neg", 5)
        allowed = {(i, j) for (i, _), (j, _) in pairs}
        got = list(zip(some.first[a, 0].tolist(), some.second[a, 0].tolist(), strict=True))
        assert set(got) == allowed  # at most 25 pairs, so that 400 draws include all of them
        counts = torch.tensor([got.count(pair) for pair in allowed])
        assert int(counts.max()) < 4 * 400 // len(allowed)


def test_numbers_of_drawn_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
        sizes.append(size)
        return torch.full((size,), 0.5)

    monkeypatch.setattr(sampling, "beta", beta)
    MoCHi("Contrastive", synthetic=3)(batch(), LABELS)
    MoCHi("Contrastive", synthetic={"anc-neg": 2})(batch(), LABELS)
    assert sizes == [21, 21, 7 * 36, 14]


def test_an_anchor_without_negatives_has_no_mixed_ones(dtype: torch.dtype) -> None:
    e, y = batch(dtype), torch.zeros(7, dtype=torch.long)
    loss = mixplug.build("MultiSimilarity")
    for mochi in (MoCHi(loss), MoCHi(loss, synthetic=4)):
        assert_same_gradients(mochi(e, y), loss(e.double(), y), [("embeddings", e)])


def test_steps_are_drawn_from_the_generators() -> None:
    e, mochi = batch(), MoCHi("Contrastive", synthetic=5)
    first, again, other, rank = (
        mochi(e, LABELS, generators=sampling.generators(0, step, rank))
        for step, rank in [(3, 0), (3, 0), (4, 0), (3, 1)]
    )
    assert first == again
    assert len({v.item() for v in (first, other, rank)}) == 3
    assert mochi.unmixed is mochi.loss
    assert mochi.forward_in_host(e, LABELS, generators=sampling.generators(0, 3)) == first


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pairs": "pos-neg"}, r"MoCHi needs pairs in \('neg-neg', 'anc-neg'\), got 'pos-neg'\."),
        ({"pairs": ()}, r"MoCHi needs pairs in \('neg-neg', 'anc-neg'\), got \(\)\."),
        ({"hardest": 0}, r"MoCHi needs hardest >= 1, got 0\."),
        ({"alpha": 0}, r"MoCHi needs alpha > 0, got 0\."),
        (
            {"synthetic": 0},
            r"MoCHi needs synthetic None, an integer >= 1, or a dict of such .*'neg-neg': 0",
        ),
        ({"synthetic": {"pos-pos": 2}}, r"MoCHi needs synthetic None, .*'pos-pos': 2"),
        ({"loss": torch.nn.ReLU()}, r"MoCHi needs a pair loss.*got ReLU"),
    ],
    ids=str,
)
def test_wrong_settings_raise(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixplug.build({"type": "MoCHi", "loss": "Contrastive", **keys})


def test_wrong_arguments_of_mixed_raise() -> None:
    mochi = MoCHi("Contrastive")
    with pytest.raises(ValueError, match=r"MoCHi needs lam in \[0, 0\.5\] for 'anc-neg', got 0\.6"):
        mochi.mixed(batch(), LABELS, 0.6, "anc-neg")
    with pytest.raises(ValueError, match=r"MoCHi needs lam in \[0, 1\] for 'neg-neg', got -0\.1"):
        mochi.mixed(batch(), LABELS, -0.1, "neg-neg")
    with pytest.raises(ValueError, match=r"MoCHi needs pairs in .*, got 'pos-neg'\."):
        mochi.mixed(batch(), LABELS, 0.5, "pos-neg")


def test_without_a_positive_pair_the_loss_is_zero() -> None:
    e, mochi = batch(), MoCHi("Contrastive")
    with pytest.warns(UserWarning, match="Contrastive needs a positive pair, but no two examples"):
        value = mochi(e, torch.arange(7))
    assert float(value) == 0 and mochi.loss.batches_without_positives == 1
    assert torch.equal(torch.autograd.grad(value, e)[0], torch.zeros_like(e))
