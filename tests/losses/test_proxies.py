"""The proxy losses of Table 4.1 against loops, and against pytorch-metric-learning."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import CosineSimilarity
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.nn.functional import softplus

from mixplug.losses.metrix import Metrix
from mixplug.losses.proxies import (
    ProxyAnchor,
    ProxyLoss,
    ProxyNCA,
    ProxyNCAPlusPlus,
    param_groups,
)

LOSSES: dict[str, tuple[Callable[..., ProxyLoss], dict[str, object], naive.Row]] = {
    "published": (
        ProxyAnchor,
        {"beta": 3.0, "gamma": 5.0, "margin": 0.2},
        naive.row("published", 3, 5, 0.2),
    ),
    "thesis": (
        ProxyAnchor,
        {"beta": 3.0, "gamma": 5.0, "margin": 0.2, "variant": "thesis"},
        naive.row("ProxyAnchor", 3, 5, 0.2),
    ),
    "ProxyNCA": (ProxyNCA, {}, naive.row("ProxyNCA")),
    "ProxyNCAPlusPlus": (
        ProxyNCAPlusPlus,
        {"temperature": 0.25},
        naive.row("ProxyNCAPlusPlus", temperature=0.25),
    ),
}
LABELS = torch.tensor([3, 0, 3, 1, 0, 3])  # classes 2 and 4 are not in the batch


def build(name: str, dtype: torch.dtype, **more: object) -> tuple[ProxyLoss, Tensor]:
    cls, setting, _ = LOSSES[name]
    loss = cls(num_classes=5, dim=4, **setting, **more).to(dtype)
    return loss, torch.randn(6, 4, dtype=dtype).mul_(2).requires_grad_()


def world(name: str, e: Tensor, labels: Tensor, proxies: Tensor) -> naive.World:
    anchors = name in ("published", "thesis")
    return (naive.proxy_anchors if anchors else naive.proxy_points)(e, labels, proxies)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_clean_loss_equals_the_loop(name: str, reduction: str, dtype: torch.dtype) -> None:
    loss, e = build(name, dtype, reduction=reduction)
    expected = naive.clean(
        LOSSES[name][2], world(name, e, LABELS, loss.proxies), reduction == "mean"
    )
    value = loss(e, LABELS)
    assert value.dtype == dtype
    assert_same_gradients(value, expected, [("embeddings", e), ("proxies", loss.proxies)])


@pytest.mark.parametrize("name", LOSSES)
def test_one_example_and_one_class(name: str, dtype: torch.dtype) -> None:
    loss, e = build(name, dtype)
    for labels in (LABELS[:1], LABELS * 0):
        some = e[: len(labels)]
        expected = naive.clean(LOSSES[name][2], world(name, some, labels, loss.proxies))
        leaves = [("embeddings", e), ("proxies", loss.proxies)]
        assert_same_gradients(loss(some, labels), expected, leaves)


@pytest.mark.parametrize("name", LOSSES)
def test_embeddings_and_proxies_as_given_when_not_normalized(name: str) -> None:
    loss, e = build(name, torch.float64, normalize=False)
    classes = list(range(5))
    sides = (loss.proxies, classes), (e, LABELS.tolist())
    first, second = sides if name in ("published", "thesis") else sides[::-1]
    expected = naive.clean(LOSSES[name][2], naive.World(*first, *second, itself=False))
    leaves = [("embeddings", e), ("proxies", loss.proxies)]
    assert_same_gradients(loss(e, LABELS), expected, leaves)


def test_defaults_of_the_authors() -> None:
    e = torch.randn(6, 4, dtype=torch.float64)
    anchor, plus = ProxyAnchor(5, 4), ProxyNCAPlusPlus(5, 4)
    for loss, row, of in (
        (anchor, naive.row("published", 32, 32, 0.1), naive.proxy_anchors),
        (plus, naive.row("ProxyNCAPlusPlus", temperature=1 / 9), naive.proxy_points),
    ):
        assert_near(loss(e, LABELS), naive.clean(row, of(e, LABELS, loss.proxies)))


def test_float32_agrees_with_float64_at_scale_75() -> None:
    loss = ProxyAnchor(5, 4, beta=75, gamma=75, margin=0.77, variant="thesis")
    exact = ProxyAnchor(5, 4, beta=75, gamma=75, margin=0.77, variant="thesis").double()
    with torch.no_grad():
        exact.proxies.copy_(loss.proxies)
    e = torch.cat([loss.proxies[:3].detach(), -loss.proxies[:3].detach()])  # s of ±1
    e.requires_grad_()
    value, reference = loss(e, LABELS), exact(e.double(), LABELS)
    assert_near(value, reference)
    assert_near(
        torch.autograd.grad(value, loss.proxies)[0],
        torch.autograd.grad(reference, exact.proxies)[0],
    )


def test_losses_run_in_float32_under_autocast() -> None:
    for name in LOSSES:
        loss, e = build(name, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            inside, half = loss(e, LABELS), loss(e.bfloat16(), LABELS)
        assert inside.dtype == half.dtype == torch.float32
        assert torch.equal(inside, loss(e, LABELS))
        assert torch.equal(half, loss(e.bfloat16().float(), LABELS))


@pytest.mark.parametrize("fan_out", [8, 200])
def test_proxies_have_the_initialization_of_he(fan_out: int) -> None:
    """The variance is 2 / fan_out; fan_out of (num_classes, dim) is num_classes."""
    proxies = ProxyNCA(fan_out, 4000).proxies.detach()
    assert float(proxies.std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
    assert float(proxies.mean()) == pytest.approx(0, abs=0.01)


# pytorch-metric-learning


def test_published_proxy_anchor_equals_pml(dtype: torch.dtype) -> None:
    loss = ProxyAnchor(5, 4).to(dtype)
    theirs = pml.ProxyAnchorLoss(5, 4, margin=0.1, alpha=32).to(dtype)
    theirs.proxies = loss.proxies
    e = torch.randn(6, 4, dtype=dtype, requires_grad=True)
    leaves = [("embeddings", e), ("proxies", loss.proxies)]
    assert_same_gradients(loss(e, LABELS), theirs(e, LABELS), leaves)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_proxy_nca_equals_pml_without_the_positive_in_the_denominator(
    temperature: float, dtype: torch.dtype
) -> None:
    """PML applies log(1 + eˣ) to the x of Table 4.1, per anchor; log(eˣ) would give x."""
    ours = ProxyNCAPlusPlus(5, 4, temperature=temperature).to(dtype)
    theirs = pml.ProxyNCALoss(5, 4, softmax_scale=1 / temperature, distance=CosineSimilarity())
    theirs.proxies = ours.proxies
    e = torch.randn(6, 4, dtype=dtype, requires_grad=True)
    per_anchor = torch.stack([ours(e[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    leaves = [("embeddings", e), ("proxies", ours.proxies)]
    assert_same_gradients(softplus(per_anchor).mean(), theirs.to(dtype)(e, LABELS), leaves)
    assert_near(ours(e, LABELS), per_anchor.mean())
    if temperature == 1:
        plain = ProxyNCA(5, 4).to(dtype)
        plain.load_state_dict(ours.state_dict())
        assert_near(plain(e, LABELS), per_anchor.mean())


# errors


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(2, 3), torch.tensor([0, 1]), "width dim=4, the width of its proxies, got 3"),
        (
            torch.ones(2, 4),
            torch.tensor([0, 5]),
            "num_classes=5 needs labels in 0 to 4, got labels from 0 to 5",
        ),
        (torch.ones(2, 4), torch.tensor([-1, 2]), "got labels from -1 to 2"),
        (torch.ones(2, 4), torch.tensor([0.0, 1.0]), "integer labels"),
        (torch.zeros(2, 4), torch.tensor([0, 1]), r"examples \[0, 1\]"),
    ],
)
@pytest.mark.parametrize("cls", [ProxyAnchor, ProxyNCA, ProxyNCAPlusPlus])
def test_batches_that_do_not_match_raise(
    cls: Callable[..., ProxyLoss], embeddings: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}.*{message}"):
        cls(5, 4)(embeddings, labels)


@pytest.mark.parametrize(
    ("cls", "setting", "message"),
    [
        (ProxyAnchor, {"variant": "paper"}, "variant in .*'published', 'thesis'.*got 'paper'"),
        (ProxyAnchor, {"beta": 0}, "beta > 0, got 0"),
        (ProxyAnchor, {"gamma": -1}, "gamma > 0, got -1"),
        (ProxyAnchor, {"num_classes": 1}, "ProxyAnchor needs num_classes >= 2, got 1"),
        (ProxyNCA, {"dim": 0}, "ProxyNCA needs dim >= 1, got 0"),
        (ProxyNCA, {"reduction": "none"}, "reduction in .*got 'none'"),
        (ProxyNCAPlusPlus, {"temperature": 0}, "temperature > 0, got 0"),
    ],
)
def test_settings_that_are_not_allowed(
    cls: Callable[..., ProxyLoss], setting: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**{"num_classes": 5, "dim": 4, **setting})


# optimizer groups


def ids(group: dict[str, object]) -> list[int]:
    return [id(p) for p in group["params"]]


def network() -> nn.Module:
    """A network with its own, shared and frozen parameters."""
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.BatchNorm1d(3), shared, nn.Linear(3, 4, bias=False))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    model[1].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("wrapped", [False, True])
def test_proxies_have_their_own_rate_and_each_parameter_is_listed_once(wrapped: bool) -> None:
    loss, model = ProxyAnchor(5, 4), network()
    outer = Metrix(loss) if wrapped else loss
    rest, proxies = param_groups([model, outer], lr=0.5, proxy_lr_mult=20)
    assert (rest["lr"], proxies["lr"]) == (0.5, 10)
    assert ids(proxies) == [id(loss.proxies)]
    assert sorted(ids(rest)) == sorted({id(p) for p in model.parameters()})


def test_a_module_that_holds_both_and_modules_given_twice() -> None:
    holder = nn.Module()
    holder.model, holder.loss, holder.other = network(), Metrix(ProxyNCA(5, 4)), ProxyAnchor(3, 4)
    for modules in ([holder], iter([holder, holder.model, holder.loss])):
        groups = param_groups(modules, lr=1.0)
        every = ids(groups[0]) + ids(groups[1])
        assert sorted(every) == sorted({id(p) for p in holder.parameters()})
        assert ids(groups[1]) == [id(holder.loss.loss.proxies), id(holder.other.proxies)]
        assert groups[1]["lr"] == 100


def test_without_proxies_there_is_one_group() -> None:
    model = network()
    (group,) = param_groups([model, Metrix("NCA")], lr=1.0)
    assert sorted(ids(group)) == sorted({id(p) for p in model.parameters()})
