"""i-Mix against loops over mixed anchors, its levels and its limits."""

from __future__ import annotations

import pytest
import torch
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn

import mixplug
from mixplug import sampling
from mixplug.functional.pairwise import Form, LogSum
from mixplug.losses.base import PairLoss
from mixplug.losses.imix import IMix
from mixplug.losses.pair import Contrastive
from mixplug.models.heads.embedding import EmbeddingHead

LABELS = torch.tensor([4, 0, 4, 1, 0, 4, 2])  # 1 and 2 have no positives
PROXY_LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2])
SETTINGS = {
    "Contrastive": {"margin": 0.1},
    "LiftedStructure": {"margin": 0.7},
    "MultiSimilarity": {"beta": 2.0, "gamma": 7.0, "margin": 0.3},
    "NCA": {},
}


def batch(dtype: torch.dtype = torch.float32, width: int = 5) -> Tensor:
    return torch.randn(7, width, dtype=dtype).mul_(2).requires_grad_()


def value(row: naive.Row, world: naive.World, v: Tensor, a: int, mean: bool = False) -> Tensor:
    """ℓ(v; P(a), N(a)): the labels are those of example a."""
    elements = [(v @ world.points[i], float(y)) for i, y in world.others(a)]
    return naive.average(row, [naive.terms(row, elements, mean)])


def loop(row: naive.Row, world: naive.World, mixtures: list[tuple], mean: bool = False) -> Tensor:
    """Mean of λ ℓ(v; first) + (1 − λ) ℓ(v; second) over (v, first, second, λ)."""
    total = torch.zeros((), dtype=torch.float64)
    for v, i, j, lam in mixtures:
        first, second = value(row, world, v, i, mean), value(row, world, v, j, mean)
        total = total + lam * first + (1 - lam) * second
    return total / len(mixtures)


def pairs_of(labels: Tensor) -> list[tuple[int, int]]:
    size = range(len(labels))
    return [(i, j) for i in size for j in size if i < j and labels[i] != labels[j]]


def mixtures(vectors: Tensor, labels: Tensor, lam: Tensor, renormalize: bool = True) -> list[tuple]:
    out = []
    for i, j in pairs_of(labels):
        v = lam[i, j] * vectors[i] + (1 - lam[i, j]) * vectors[j]
        out.append((v / v.norm() if renormalize else v, i, j, lam[i, j]))
    return out


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_loop(name: str, reduction: str, dtype: torch.dtype) -> None:
    e, lam = batch(dtype), torch.rand(7, 7, dtype=torch.float64)
    imix = IMix({"type": name, **SETTINGS[name], "reduction": reduction}, level="embed")
    world = naive.examples(e, LABELS)
    expected = loop(
        naive.row(name, **SETTINGS[name]),
        world,
        mixtures(world.points, LABELS, lam),
        reduction == "mean",
    )
    loss = imix.mixed(e, LABELS, lam)
    assert loss.dtype == dtype
    assert_same_gradients(loss, expected, [("embeddings", e)])


def test_without_normalization(dtype: torch.dtype) -> None:
    e, lam = batch(dtype), torch.rand(7, 7, dtype=torch.float64)
    world = naive.examples(e, LABELS)
    row = naive.row("Contrastive", margin=0.1)
    expected = loop(row, world, mixtures(world.points, LABELS, lam, renormalize=False))
    loss = IMix(Contrastive(0.1), renormalize=False).mixed(e, LABELS, lam)
    assert_same_gradients(loss, expected, [("embeddings", e)])


@pytest.mark.parametrize("name", ["ProxyNCA", "ProxyNCAPlusPlus"])
def test_proxies_as_points(name: str, dtype: torch.dtype) -> None:
    e, lam = batch(dtype), torch.rand(7, 7, dtype=torch.float64)
    imix = IMix({"type": name, "num_classes": 4, "dim": 5}).to(dtype)
    proxies = imix.loss.proxies
    world = naive.proxy_points(e, PROXY_LABELS, proxies)
    expected = loop(
        naive.row(name, temperature=1 / 9),
        world,
        mixtures(world.anchors, PROXY_LABELS, lam),
    )
    loss = imix.mixed(e, PROXY_LABELS, lam)
    assert_same_gradients(loss, expected, [("embeddings", e), ("proxies", proxies)])


def test_limits_in_lam() -> None:
    """For λ = 1, the clean anchor is the first of a pair: λ is the weight of the first."""
    e = batch(torch.float64)
    world, row = naive.examples(e, LABELS), naive.row("Contrastive", margin=0.1)
    imix = IMix(Contrastive(0.1))
    for lam, operand in ((1.0, 0), (0.0, 1)):
        anchors = [pair[operand] for pair in pairs_of(LABELS)]
        values = [value(row, world, world.points[a], a) for a in anchors]
        assert_near(imix.mixed(e, LABELS, lam), sum(values) / len(values))


@pytest.mark.parametrize("size", [1, 4])
def test_separate_means_are_weighted(size: int) -> None:
    """Positive terms are averaged separately, by λ and 1 − λ, over labels with positives."""
    e, y = batch(torch.float64)[: size + 1], torch.tensor([0, 1, 0, 1, 2])[: size + 1]
    e, y = torch.cat([e, e[:1] + 1]), torch.cat([y, y[:1]])
    lam = torch.rand(len(y), len(y), dtype=torch.float64)
    loss = PairLoss(Form(LogSum(-2.0, 0.1), LogSum(3.0, 0.1), separate_means=True))
    world = naive.examples(e, y)
    pulled, pushed, with_positives = 0.0, 0.0, 0.0
    found = mixtures(world.points, y, lam)
    for v, i, j, weight in found:
        for a, share in ((i, weight), (j, 1 - weight)):
            own = world.others(a)
            s = {k: v @ world.points[k] for k, _ in own}
            positives = [torch.exp(-2 * (s[k] - 0.1)) for k, label in own if label]
            negatives = [torch.exp(3 * (s[k] - 0.1)) for k, label in own if not label]
            pushed = pushed + share * torch.log(1 + sum(negatives))
            if positives:
                pulled = pulled + share * torch.log(1 + sum(positives))
                with_positives = with_positives + share
    expected = pulled / with_positives + pushed / len(found)
    assert_near(IMix(loss).mixed(e, y, lam), expected)


def half(alpha: float, size: int, source: torch.Generator) -> Tensor:
    return torch.full((size,), 0.3)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pool", ["avg", "avg+max"])
def test_level_feature(
    pool: str, normalize: bool, renormalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "beta", half)
    head = EmbeddingHead(3, 5, pool=pool, normalize=normalize).double()
    maps = torch.randn(7, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    embeddings = head(maps)
    imix = IMix(Contrastive(0.1), level="feature", w=1, clean=0, renormalize=renormalize)
    rows: list[int] = []
    handle = head.fc.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    loss = imix(embeddings, LABELS, features=(maps, head))
    handle.remove()
    found = []
    for i, j in pairs_of(LABELS):
        v = head((0.3 * maps[i] + 0.7 * maps[j])[None])[0]
        found.append((v / v.norm() if renormalize else v, i, j, 0.3))
    row, world = naive.row("Contrastive", margin=0.1), naive.examples(head(maps), LABELS)
    assert_same_gradients(loss, loop(row, world, found), [("maps", maps)])
    # a head that is linear before its normalization sees only the clean maps
    by_closed_form = pool == "avg" and (renormalize or not normalize)
    assert rows == [len(maps) if by_closed_form else len(pairs_of(LABELS))]


def test_the_head_runs_under_autocast_and_the_loss_does_not() -> None:
    head, maps = EmbeddingHead(3, 5, pool="avg"), torch.randn(7, 3, 2, 4)
    imix = IMix(Contrastive(0.1), level="feature")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = imix(head(maps), LABELS, (maps, head), generators=sampling.generators(0, 0))
    expected = imix(head(maps), LABELS, (maps, head), generators=sampling.generators(0, 0))
    assert loss.dtype == torch.float32
    assert 0 < abs(float((loss - expected).detach())) < 0.05 * abs(float(expected.detach()))


def test_level_input_mixes_the_three_hardest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "beta", half)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh()).double()
    images = torch.randn(7, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    loss = IMix(Contrastive(0.1), w=2, clean=0)(net(images), LABELS, inputs=(images, net))
    world = naive.examples(net(images), LABELS)
    chosen = set()
    for a in range(7):
        for _, (n, _) in naive.mixing_pairs(world, a, "anc-neg", 3):
            chosen.add((min(a, n), max(a, n)))
    found = []
    for i, j in sorted(chosen):
        v = net((0.3 * images[i] + 0.7 * images[j])[None])[0]
        found.append((v / v.norm(), i, j, 0.3))
    assert len(found) < len(pairs_of(LABELS))
    expected = 2 * loop(naive.row("Contrastive", margin=0.1), world, found)
    assert_same_gradients(loss, expected, [("images", images)])


def test_the_step_adds_clean_and_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "beta", half)
    e, inner = batch(torch.float64), Contrastive(0.1)
    imix = IMix(inner, level="embed", w=0.7, clean=0.2)
    expected = 0.2 * inner(e, LABELS) + 0.7 * imix.mixed(e, LABELS, 0.3)
    assert_near(imix(e, LABELS), expected)
    assert_near(IMix(inner, level="embed", w=0)(e, LABELS), inner(e, LABELS))
    defaults = IMix(inner, level="embed")
    assert_near(defaults(e, LABELS), inner(e, LABELS) + 0.4 * imix.mixed(e, LABELS, 0.3))


def test_steps_are_drawn_from_the_generators() -> None:
    e, imix = batch(), IMix("Contrastive", level="embed")
    first, again, other, rank = (
        imix(e, LABELS, generators=sampling.generators(0, step, rank))
        for step, rank in [(3, 0), (3, 0), (4, 0), (3, 1)]
    )
    assert first == again
    assert len({v.item() for v in (first, other, rank)}) == 3
    assert imix.forward_in_host(e, LABELS, generators=sampling.generators(0, 3)) == first
    assert imix.unmixed is imix.loss


def test_weights_are_uniform_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, int]] = []

    def beta(alpha: float, size: int, source: torch.Generator) -> Tensor:
        asked.append((alpha, size))
        return half(alpha, size, source)

    monkeypatch.setattr(sampling, "beta", beta)
    IMix("Contrastive", level="embed")(batch(), LABELS)
    assert asked == [(1.0, len(pairs_of(LABELS)))]


def test_one_class_has_nothing_to_mix() -> None:
    e, y = batch(), torch.zeros(7, dtype=torch.long)
    inner = Contrastive(0.1)
    assert_near(IMix(inner, level="embed")(e, y), inner(e, y))


def test_a_level_without_its_source_warns_and_mixes_embeddings() -> None:
    e, inner = batch(), Contrastive(0.1)
    message = r"IMix at level 'input' got no inputs, so it mixes embeddings instead\. Pass them"
    with pytest.warns(UserWarning, match=message):
        loss = IMix(inner)(e, LABELS, generators=sampling.generators(0, 0))
    same = IMix(inner, level="embed")(e, LABELS, generators=sampling.generators(0, 0))
    assert loss == same


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"level": "pixels"}, r"IMix needs level in \('input', 'feature', 'embed'\), got 'pixels'"),
        ({"alpha": 0}, r"IMix needs alpha > 0, got 0\."),
        ({"w": -1}, r"IMix needs w >= 0, got -1\."),
        ({"clean": -1}, r"IMix needs clean >= 0, got -1\."),
        ({"hardest": 0}, r"IMix needs hardest to be an integer >= 1.*by level in .*got 0\."),
        (
            {"hardest": {"pixels": 3}},
            r"IMix needs hardest to be an integer >= 1.*by level in .*got \{'pixels': 3\}\.",
        ),
        (
            {"loss": {"type": "ProxyAnchor", "num_classes": 4, "dim": 5}},
            r"IMix needs a loss whose anchors are examples, but the anchors of ProxyAnchor are",
        ),
        ({"loss": nn.ReLU()}, r"IMix needs a pair loss.*\(eq\. 4\.3\), got ReLU"),
    ],
    ids=str,
)
def test_wrong_settings_raise(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixplug.build({"type": "IMix", "loss": "Contrastive", **keys})


def test_wrong_batches_raise() -> None:
    with pytest.raises(ValueError, match=r"IMix needs lam in \[0, 1\], got 1\.5\."):
        IMix("Contrastive").mixed(batch(), LABELS, 1.5)


def test_more_hard_negatives_than_negatives_are_all() -> None:
    e = batch()
    few, every = (IMix("Contrastive", "embed", hardest=k) for k in (50, None))
    assert_near(few.mixed(e, LABELS, 0.3), every.mixed(e, LABELS, 0.3))
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    few = IMix("Contrastive", hardest=5)
    assert bool(few(e, labels, inputs=(torch.randn(7, 5), nn.Linear(5, 5))).isfinite())


def test_without_a_positive_pair_nothing_is_mixed() -> None:
    e, loss = batch(), IMix("Contrastive", "embed")
    with pytest.warns(UserWarning, match="Contrastive needs a positive pair"):
        value = loss(e, torch.arange(7))
    assert float(value.detach()) == 0
    assert torch.equal(torch.autograd.grad(value, e)[0], torch.zeros_like(e))
