"""Losses of PyTorch Metric Learning (PML), unchanged and converted to pair losses (eq. 4.3)."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

import mixplug
from mixplug import sampling
from mixplug.losses.base import PairLoss
from mixplug.losses.building import as_pair_loss, build_loss
from mixplug.losses.metrix import Metrix
from mixplug.losses.mochi import MoCHi
from mixplug.losses.pml import PML
from mixplug.losses.pml_forms import ROWS, WHY_NOT
from mixplug.losses.proxies import ProxyAnchor, param_groups
from mixplug.losses.proxy_synthesis import ProxySynthesis

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2, 1])
COSINE = distances.CosineSimilarity()
SQUARED = distances.LpDistance(power=2)
RAW = distances.DotProductSimilarity(normalize_embeddings=False)
MEAN = reducers.MeanReducer()
FITTING: list[tuple[type, dict[str, Any]]] = [
    (losses.CircleLoss, {"gamma": 5}),
    (losses.CircleLoss, {"m": 0.2, "gamma": 3, "reducer": MEAN}),
    (losses.MultiSimilarityLoss, {}),
    (losses.MultiSimilarityLoss, {"alpha": 3, "beta": 7, "base": 0.2, "distance": SQUARED}),
    (losses.MultiSimilarityLoss, {"alpha": 3, "beta": 7, "base": 0.2, "distance": RAW}),
    (
        losses.ContrastiveLoss,
        {"pos_margin": 0.6, "neg_margin": 0.1, "distance": COSINE, "reducer": MEAN},
    ),
    (
        losses.ContrastiveLoss,
        {"pos_margin": 0.7, "neg_margin": 1.9, "distance": SQUARED, "reducer": MEAN},
    ),
    (
        losses.GeneralizedLiftedStructureLoss,
        {"pos_margin": 0.3, "neg_margin": 2.5, "distance": COSINE},
    ),
    (
        losses.GeneralizedLiftedStructureLoss,
        {"pos_margin": 0.3, "neg_margin": 5, "distance": SQUARED},
    ),
    (losses.NCALoss, {}),
    (losses.NCALoss, {"softmax_scale": 3, "distance": COSINE}),
    (losses.ProxyAnchorLoss, {"num_classes": 4, "embedding_size": 5}),
    (
        losses.ProxyAnchorLoss,
        {"num_classes": 4, "embedding_size": 5, "margin": 0.3, "alpha": 4, "distance": SQUARED},
    ),
    (losses.ProxyNCALoss, {"num_classes": 4, "embedding_size": 5}),
    (
        losses.ProxyNCALoss,
        {"num_classes": 4, "embedding_size": 5, "softmax_scale": 3, "distance": RAW},
    ),
]


def batch(dtype: torch.dtype = torch.float32, width: int = 5) -> Tensor:
    return torch.randn(9, width, dtype=dtype).requires_grad_()


def shown(case: object) -> str:
    return case.__name__ if isinstance(case, type) else ""


@pytest.mark.parametrize(("cls", "keys"), FITTING, ids=shown)
def test_a_converted_loss_has_the_same_value(
    cls: type, keys: dict[str, Any], dtype: torch.dtype
) -> None:
    theirs = cls(**keys).to(dtype)
    ours = as_pair_loss(theirs, "Metrix")
    assert isinstance(ours, PairLoss) and ours.name == f"PML's {cls.__name__}"
    e = batch(dtype)
    # Some PML losses return one dimension more than a scalar.
    value = theirs(e, LABELS).sum()
    assert abs(float(value.detach())) > 1e-2
    parameters = [("embeddings", e), *theirs.named_parameters()]
    assert_same_gradients(ours(e, LABELS), value, parameters)
    assert [*ours.parameters()] == [*theirs.parameters()]


def test_every_row_is_among_these_cases() -> None:
    assert {cls.__name__ for cls, _ in FITTING} == set(ROWS)


def test_every_loss_has_a_row_or_a_reason() -> None:
    known = {name for name, cls in vars(losses).items() if inspect.isclass(cls)}
    assert set(ROWS) | set(WHY_NOT) == known
    assert not set(ROWS) & set(WHY_NOT)


def nca_loop(world: naive.World, lam: float) -> Tensor:
    """Eq. 4.9 of NCALoss for 'pos-neg': -log(P / (P + N)) of sums with weights λ and 1 − λ."""
    make = naive.embedding_mixup(world, lambda *_: lam)
    total = torch.zeros((), dtype=torch.float64)
    for a in range(len(world.anchors)):
        p = n = torch.zeros((), dtype=torch.float64)
        for (i, _), (j, _) in naive.mixing_pairs(world, a, "pos-neg"):
            similarity = torch.exp(3 * (world.anchors[a] @ make(a, i, j)[0]))
            p, n = p + lam * similarity, n + (1 - lam) * similarity
        total = total - torch.log(p / (p + n))
    return total / len(world.anchors)


def test_nca_is_converted_with_a_soft_tau(dtype: torch.dtype) -> None:
    e = batch(dtype)
    world = naive.examples(e, LABELS)
    total = torch.zeros((), dtype=torch.float64)
    for a in range(9):
        s = {i: torch.exp(3 * (world.anchors[a] @ world.points[i])) for i, _ in world.others(a)}
        p = sum(s[i] for i, y in world.others(a) if y)
        total = total - torch.log(p / sum(s.values()))
    theirs = losses.NCALoss(softmax_scale=3, distance=COSINE)
    metrix = Metrix(theirs, level="embed", w=0)
    assert_same_gradients(metrix(e, LABELS), total / 9, [("embeddings", e)])
    assert_near(metrix.mixed(e, LABELS, 0.3, "pos-neg"), nca_loop(world, 0.3))


def test_converted_losses_are_mixed_like_our_own(dtype: torch.dtype) -> None:
    """The α, β and base of PML are β, γ and m here."""
    e = batch(dtype)
    ours = Metrix({"type": "MultiSimilarity", "beta": 2, "gamma": 50, "margin": 0.5})
    theirs = Metrix(dict(type="PML", loss="MultiSimilarityLoss", alpha=2, beta=50, base=0.5))
    for kind in ("pos-neg", "anc-neg", "neg-neg"):
        expected = ours.mixed(e, LABELS, 0.3, kind)
        assert_same_gradients(theirs.mixed(e, LABELS, 0.3, kind), expected, [("embeddings", e)])
    mochi = [MoCHi(m.loss).mixed(e, LABELS, 0.3, "anc-neg") for m in (ours, theirs)]
    assert_near(*mochi)


def test_proxies_are_shared() -> None:
    theirs = losses.ProxyAnchorLoss(4, 5)
    ours = ProxyAnchor(4, 5)
    ours.proxies.data.copy_(theirs.proxies.data)
    e = batch()
    metrix = Metrix(theirs, level="embed")
    assert metrix.loss.proxies is theirs.proxies
    assert_near(
        metrix.mixed(e, LABELS, 0.3, "anc-neg"), Metrix(ours).mixed(e, LABELS, 0.3, "anc-neg")
    )
    rest, fast = param_groups([torch.nn.Linear(5, 5), metrix], lr=1e-3)
    assert [id(p) for p in fast["params"]] == [id(theirs.proxies)] and len(rest["params"]) == 2
    assert set(metrix.state_dict()) == {"loss.proxies"}
    before = theirs.proxies.detach().clone()
    metrix(e, LABELS).backward()
    torch.optim.SGD(metrix.parameters(), lr=1.0).step()
    assert float((theirs.proxies - before).detach().abs().max()) > 1e-3
    lam, first, second = 0.3, torch.tensor([0, 3]), torch.tensor([1, 8])
    ours.proxies.data.copy_(theirs.proxies.data)
    synthetic = [
        ProxySynthesis(loss).synthesized(e, LABELS, first, second, lam) for loss in (theirs, ours)
    ]
    assert_near(*synthetic)


def test_proxies_as_points_mix_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """ProxyNCALoss is ProxyNCA with a soft τ: the anchor mixes maps of two classes."""
    monkeypatch.setattr(sampling, "beta", lambda alpha, size, source: torch.full((size,), 0.3))
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 5)).double()
    maps = torch.randn(9, 1, 2, 3, dtype=torch.float64)
    theirs = losses.ProxyNCALoss(4, 5, softmax_scale=4.5).double()
    metrix = Metrix(theirs, level="feature", w=1)
    value = metrix(head(maps), LABELS, features=(maps, head)) - theirs(head(maps), LABELS)
    proxies, values = naive.unit(theirs.proxies), []
    for i in range(9):
        for j in range(i + 1, 9):
            if LABELS[i] != LABELS[j]:
                v = naive.unit(head((0.3 * maps[i] + 0.7 * maps[j])[None]))[0]
                e = torch.exp(9 * (proxies @ v))  # squared distance is 2 - 2s
                y = torch.zeros(4, dtype=torch.float64)
                y[LABELS[i]], y[LABELS[j]] = 0.3, 0.7
                values.append(-torch.log((y * e).sum() / e.sum()))
    assert_same_gradients(value, sum(values) / len(values), [*theirs.named_parameters()])


def test_contrastive_with_unequal_classes_is_averaged_over_anchors() -> None:
    """PML averages over pairs, eq. 4.10 over anchors, as documented."""
    e, y = batch(torch.float64), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    theirs = losses.ContrastiveLoss(pos_margin=0.6, neg_margin=0.1, distance=COSINE, reducer=MEAN)
    world = naive.examples(e, y)
    total = torch.zeros((), dtype=torch.float64)
    for a in range(9):
        s = [(world.anchors[a] @ world.points[i], label) for i, label in world.others(a)]
        pulled = [(0.6 - x).clamp_min(0) for x, label in s if label]
        pushed = [(x - 0.1).clamp_min(0) for x, label in s if not label]
        total = total + sum(pulled) / len(pulled) + sum(pushed) / len(pushed)
    value = as_pair_loss(theirs, "Metrix")(e, y)
    assert_near(value, total / 9)
    assert abs(float((value - theirs(e, y)).detach())) > 1e-4


def test_contrastive_by_default_warns_of_its_mean() -> None:
    theirs = losses.ContrastiveLoss(pos_margin=1, neg_margin=0, distance=COSINE)
    with pytest.warns(UserWarning, match=r"PML's ContrastiveLoss .* averages over nonzero pairs"):
        Metrix(theirs)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (losses.TripletMarginLoss(), r"TripletMarginLoss cannot be converted .* it uses triplets"),
        (
            losses.MarginLoss(),
            r"MarginLoss cannot be converted to a pair loss \(eq\. 4\.3\): it uses",
        ),
        (losses.NTXentLoss(), r"NTXentLoss .* compares each positive with all negatives"),
        (losses.SupConLoss(), r"SupConLoss .* negative term includes positives"),
        (losses.NormalizedSoftmaxLoss(3, 5), r"NormalizedSoftmaxLoss .* one weight vector per"),
        (losses.FastAPLoss(), r"FastAPLoss .* of ranks or histograms"),
        (losses.CrossBatchMemory(losses.NTXentLoss(), 5), r"CrossBatchMemory .* wraps another"),
        (losses.VICRegLoss(), r"VICRegLoss cannot .* it has no negatives\. Allowed are Circle"),
        (
            losses.MultiSimilarityLoss(distance=distances.SNRDistance()),
            r"MultiSimilarityLoss uses the distance SNRDistance",
        ),
        (
            losses.MultiSimilarityLoss(
                distance=distances.LpDistance(power=2, normalize_embeddings=False)
            ),
            r"uses the distance LpDistance\(p=2, power=2, normalize_embeddings=False\)",
        ),
        (
            losses.MultiSimilarityLoss(distance=distances.CosineSimilarity(p=1)),
            r"uses the distance CosineSimilarity\(p=1",
        ),
        (
            losses.MultiSimilarityLoss(distance=distances.CosineSimilarity(power=2)),
            r"uses the distance CosineSimilarity\(p=2, power=2",
        ),
        (
            losses.MultiSimilarityLoss(reducer=reducers.AvgNonZeroReducer()),
            r"MultiSimilarityLoss has the reducer AvgNonZeroReducer, .* Allowed: MeanReducer\.",
        ),
        (
            losses.ProxyAnchorLoss(4, 5, reducer=reducers.MeanReducer()),
            r"ProxyAnchorLoss has the reducer MeanReducer, .* Allowed: DivisorReducer\.",
        ),
        (
            losses.MultiSimilarityLoss(embedding_regularizer=regularizers.LpRegularizer()),
            r"has embedding_regularizer=LpRegularizer, but .* Set embedding_regularizer=None\.",
        ),
        (
            losses.ProxyNCALoss(4, 5, weight_regularizer=regularizers.LpRegularizer()),
            r"has weight_regularizer=LpRegularizer, but .* Set weight_regularizer=None\.",
        ),
        (
            type("Mine", (losses.MultiSimilarityLoss,), {})(),
            r"Mine cannot be converted .* a subclass of PML's MultiSimilarityLoss",
        ),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, torch.nn.Module) else "",
)
def test_losses_that_cannot_be_converted_say_why(loss: torch.nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metrix(loss)
    with pytest.raises(ValueError, match=message):
        Metrix({"type": "PML", "loss": loss})


def test_a_miner_and_mixing_exclude_each_other() -> None:
    message = r"MultiSimilarityLoss cannot be mixed with the miner MultiSimilarityMiner: miners"
    with pytest.raises(ValueError, match=message):
        Metrix({"type": "PML", "loss": "MultiSimilarityLoss", "miner": "MultiSimilarityMiner"})


def test_an_unknown_module_raises() -> None:
    with pytest.raises(ValueError, match=r"Metrix needs a pair loss, .* got ReLU"):
        Metrix(torch.nn.ReLU())


def test_no_positive_pair_names_the_loss() -> None:
    loss = as_pair_loss(losses.MultiSimilarityLoss(), "Metrix")
    with pytest.warns(UserWarning, match="PML's MultiSimilarityLoss needs a positive pair"):
        assert float(loss(batch(), torch.arange(9))) == 0


class TestBaselines:
    def test_triplets_by_loops(self, dtype: torch.dtype) -> None:
        e = batch(dtype)
        v = naive.unit(e)
        values = []
        for a in range(9):
            for p in range(9):
                for n in range(9):
                    if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[n]:
                        value = (v[a] - v[p]).norm() - (v[a] - v[n]).norm() + 0.1
                        values.append(value.clamp_min(0))
        expected = sum(values) / sum(float(x.detach()) > 0 for x in values)
        loss = mixplug.build(dict(type="PML", loss="TripletMarginLoss", margin=0.1))
        assert_same_gradients(loss(e, LABELS), expected, [("embeddings", e)])

    def test_a_miner_selects_pairs(self, dtype: torch.dtype) -> None:
        e = batch(dtype)
        miner = miners.TripletMarginMiner(margin=0.4, type_of_triplets="semihard")
        theirs = losses.TripletMarginLoss(margin=0.1)
        expected = theirs(e, LABELS, miner(e, LABELS))
        config = dict(type="TripletMarginMiner", margin=0.4, type_of_triplets="semihard")
        for given in (config, miner):
            loss = mixplug.build(
                dict(type="PML", loss="TripletMarginLoss", margin=0.1, miner=given)
            )
            assert_same_gradients(loss(e, LABELS), expected, [("embeddings", e)])
        assert abs(float((expected - theirs(e, LABELS)).detach())) > 1e-4
        named = mixplug.build(dict(type="PML", loss=theirs, miner="TripletMarginMiner"))
        assert named(e, LABELS) == theirs(e, LABELS, miners.TripletMarginMiner()(e, LABELS))

    def test_margin_learns_its_boundary(self) -> None:
        loss = mixplug.build(
            dict(type="PML", loss="MarginLoss", learn_beta=True, num_classes=3, beta=0.9)
        )
        e = batch()
        theirs = losses.MarginLoss(learn_beta=True, num_classes=3, beta=0.9)
        parameters = [("embeddings", e)]
        assert_same_gradients(loss(e, LABELS), theirs(e, LABELS), parameters)
        loss(e, LABELS).backward()
        torch.optim.SGD(loss.parameters(), lr=1.0).step()
        assert float((loss.loss.beta - 0.9).detach().abs().max()) > 1e-3

    def test_learnable_weights_are_its_parameters(self) -> None:
        config = dict(type="PML", loss="CosFaceLoss", num_classes=3, embedding_size=5, scale=8)
        loss = mixplug.build(config)
        assert [tuple(p.shape) for p in loss.parameters()] == [(5, 3)]
        loss(batch(), LABELS).backward()
        assert float(loss.loss.W.grad.abs().sum()) > 1e-3

    def test_parts_by_name(self) -> None:
        config = dict(
            type="PML",
            loss="ContrastiveLoss",
            pos_margin=1,
            neg_margin=0,
            distance="CosineSimilarity",
            reducer=dict(type="ThresholdReducer", low=0.2),
        )
        loss = mixplug.build(config)
        expected = losses.ContrastiveLoss(
            pos_margin=1,
            neg_margin=0,
            distance=COSINE,
            reducer=reducers.ThresholdReducer(low=0.2),
        )
        e = batch()
        assert_same_gradients(loss(e, LABELS), expected(e, LABELS), [("embeddings", e)])

    def test_half_precision_is_raised(self) -> None:
        e = batch().detach().half()
        loss = mixplug.build(dict(type="PML", loss="TripletMarginLoss"))
        assert loss(e, LABELS).dtype == torch.float32
        assert loss(e, LABELS) == losses.TripletMarginLoss()(e.float(), LABELS)

    def test_hosts_build_it(self) -> None:
        loss = build_loss(dict(type="PML", loss="TripletMarginLoss"), num_classes=3, dim=5)
        assert isinstance(loss, PML) and loss.unmixed is loss
        e = batch()
        assert loss.forward_in_host(e, LABELS, generators=None) == loss(e, LABELS)
        metrix = build_loss(
            dict(type="Metrix", loss=dict(type="PML", loss="MultiSimilarityLoss")), dim=5
        )
        assert metrix.unmixed(e, LABELS) == losses.MultiSimilarityLoss()(e, LABELS)

    @pytest.mark.parametrize(
        ("keys", "error", "message"),
        [
            (
                {"loss": "TripletMarginLos"},
                KeyError,
                r"losses has no class 'TripletMarginLos'\. Did you mean 'TripletMarginLoss'\?",
            ),
            (
                {"loss": "TripletMarginLoss", "margni": 0.1},
                KeyError,
                r"PML has no key 'margni'\. Did you mean 'margin'\? Known: loss, miner, margin",
            ),
            (
                {"loss": "TripletMarginLoss", "miners": "TripletMarginMiner"},
                KeyError,
                r"PML has no key 'miners'\. Did you mean 'miner'\?",
            ),
            (
                {"loss": "CosFaceLoss", "num_classes": 3},
                ValueError,
                r"PML's CosFaceLoss needs the key 'embedding_size', but it is missing\.",
            ),
            (
                {"loss": "TripletMarginLoss", "miner": "TripletMarginMine"},
                KeyError,
                r"miners has no class 'TripletMarginMine'\. Did you mean 'TripletMarginMiner'\?",
            ),
            (
                {"loss": "TripletMarginLoss", "miner": {"type": "BatchHardMiner", "margin": 1}},
                KeyError,
                r"PML has no key 'margin'\.",
            ),
            (
                {"loss": "TripletMarginLoss", "distance": "CosineSim"},
                KeyError,
                r"module distances has no class 'CosineSim'\. Did you mean 'CosineSimilarity'\?",
            ),
            (
                {"loss": losses.TripletMarginLoss(), "margin": 1},
                KeyError,
                r"got the object TripletMarginLoss together with the keys \['margin'\]",
            ),
            ({}, ValueError, r"PML needs the key 'loss', which is not given\."),
        ],
        ids=str,
    )
    def test_wrong_settings_raise(
        self, keys: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            mixplug.build({"type": "PML", **keys})

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(sys.modules):
            if name.startswith("pytorch_metric_learning"):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
        with pytest.raises(ImportError, match=r"The loss PML needs pytorch_metric_learning.*pml"):
            mixplug.build(dict(type="PML", loss="TripletMarginLoss"))
        assert Metrix("Contrastive").loss.name == "Contrastive"


XBM = {
    "type": "PML",
    "loss": {
        "type": "CrossBatchMemory",
        "loss": {"type": "ContrastiveLoss", "neg_margin": 0.8},
        "embedding_size": 4,
        "memory_size": 20,
    },
}


def steps(loss: torch.nn.Module, count: int) -> list[float]:
    made = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(2)
    return [float(loss(torch.randn(6, 4, generator=made), labels)) for _ in range(count)]


class TestWrappers:
    def test_cross_batch_memory_is_that_of_pml(self) -> None:
        theirs = losses.CrossBatchMemory(losses.ContrastiveLoss(neg_margin=0.8), 4, 20)
        assert steps(mixplug.build(XBM, kind="loss"), 6) == steps(theirs, 6)

    def test_a_miner_within(self) -> None:
        spec = {**XBM, "loss": {**XBM["loss"], "miner": "MultiSimilarityMiner"}}
        theirs = losses.CrossBatchMemory(
            losses.ContrastiveLoss(neg_margin=0.8), 4, 20, miners.MultiSimilarityMiner()
        )
        assert steps(mixplug.build(spec, kind="loss"), 5) == steps(theirs, 5)

    @pytest.mark.parametrize("stop", [2, 5])  # before and after the memory is full
    def test_the_memory_is_resumed(self, stop: int) -> None:
        whole = mixplug.build(XBM, kind="loss")
        made = torch.Generator().manual_seed(3)
        batches = [torch.randn(6, 4, generator=made) for _ in range(8)]
        labels = torch.arange(3).repeat_interleave(2)
        for e in batches[:stop]:
            whole(e, labels)
        resumed = mixplug.build(XBM, kind="loss")
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        for e in batches[stop:]:
            assert torch.equal(resumed(e, labels), whole(e, labels))

    def test_a_batch_larger_than_the_memory(self) -> None:
        with pytest.raises(ValueError, match="memory_size=20, but the batch has 21 examples"):
            mixplug.build(XBM, kind="loss")(torch.randn(21, 4), torch.arange(21))

    def test_a_wrapper_without_its_loss_says_how(self) -> None:
        with pytest.raises(ValueError, match=r"write loss=dict\(type='CrossBatchMemory', loss="):
            mixplug.build({"type": "PML", "loss": "CrossBatchMemory", "embedding_size": 8})

    def test_settings_that_are_given_twice(self) -> None:
        with pytest.raises(KeyError, match=r"'memory_size'\] twice"):
            mixplug.build({**XBM, "memory_size": 4})

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_views_of_one_image_have_one_label(self, symmetric: bool) -> None:
        first, second = torch.randn(2, 5, 4)
        theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(0.2), symmetric=symmetric)
        spec = {"type": "NTXentLoss", "temperature": 0.2}
        ours = mixplug.build(
            {
                "type": "PML",
                "loss": {"type": "SelfSupervisedLoss", "loss": spec, "symmetric": symmetric},
            }
        )
        order = torch.randperm(5)
        e = torch.cat([first, second[order]])
        labels = torch.cat([torch.arange(5), order]) + 30
        assert_close(ours(e, labels), theirs(first, second))

    def test_a_miner_of_asymmetric_views_is_refused(self) -> None:
        loss = losses.SelfSupervisedLoss(losses.NTXentLoss(), symmetric=False)
        ours = mixplug.build({"type": "PML", "loss": loss, "miner": "MultiSimilarityMiner"})
        with pytest.raises(ValueError, match="takes no miner"):
            ours(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ProxyAnchorLoss", {}),
        ("ProxyNCALoss", {}),
        ("ArcFaceLoss", {}),
        ("CosFaceLoss", {}),
        ("NormalizedSoftmaxLoss", {}),
        ("SoftTripleLoss", {}),
        ("SubCenterArcFaceLoss", {}),
    ],
)
def test_class_weights_of_plain_losses_are_proxies(name: str, settings: dict) -> None:
    net = torch.nn.Linear(3, 8)
    spec = {"type": "PML", "loss": name, "num_classes": 4, "embedding_size": 8, **settings}
    wrapped = mixplug.build(spec, kind="loss")
    for loss in (wrapped, wrapped.loss):
        rest, proxies = param_groups([net, loss], lr=1e-4)
        assert rest["params"] == list(net.parameters()) and rest["lr"] == 1e-4
        assert proxies["params"] == list(loss.parameters())
        assert proxies["lr"] == pytest.approx(1e-2)


def test_a_learned_margin_is_no_proxy() -> None:
    spec = {"type": "PML", "loss": "MarginLoss", "learn_beta": True, "num_classes": 4}
    (group,) = param_groups([mixplug.build(spec, kind="loss")], lr=1e-4)
    assert len(group["params"]) == 1
