"""MultiMix against loops over mixed examples, on the fused and on the plain path."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from batches import batch, by_stages, factors, parameters, partners, plan_of, rows, toy
from reference import hull as naive
from reference.algorithm import Terms, algorithm_1
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.testing import assert_close
from toys import ConvHeadNet, ConvNet, Forced, classify, embed

from mixplug import HullMixed, Mixed, Plan, sampling
from mixplug.mixers.multimix import MultiMix


def weights_of(mixer: MultiMix, plan: Plan, size: int) -> Tensor:
    source = torch.Generator().manual_seed(plan.key)
    return sampling.hull_weights(mixer.n, size, mixer.alpha, mixer.m, source)


def expected_of(model: nn.Module, x: Tensor, y: Tensor, weights: Tensor) -> Terms:
    """(5.6)-(5.8) with embeddings really mixed."""
    net = by_stages(model)
    e = naive.combine(torch.stack([net.embed(net.encode(one)) for one in x]), weights)
    logits = torch.stack([net.classify(one) for one in e])
    return Terms(logits, naive.combine(y.double(), weights))


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
@pytest.mark.parametrize("options", [{}, {"m": 2}, {"alpha": 1.0}, {"m": 1}], ids=str)
@pytest.mark.parametrize("size", [3, 5])
def test_equals_the_loop(
    size: int, options: dict[str, object], head: type[nn.Linear], dtype: torch.dtype
) -> None:
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, size)
    mixer = MultiMix(n=11, **options)
    plan = plan_of(mixer, x, "hull")
    mixed = mixer.apply(stages, x, y, plan)
    assert isinstance(mixed, HullMixed if head is nn.Linear else Mixed)
    expected = expected_of(model, x, rows(y), weights_of(mixer, plan, size))
    assert_near(mixed.logits, expected.logits)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
def test_a_batch_of_one_is_the_clean_example(head: type[nn.Linear], dtype: torch.dtype) -> None:
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, 1)
    mixer = MultiMix(n=3)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "hull"))
    assert_near(mixed.logits, model(x).expand(3, 4))
    assert_same_gradients(mixed.loss(), F.cross_entropy(model(x), y), parameters(model))


def test_a_convolutional_head_is_fused(dtype: torch.dtype) -> None:
    model, stages = toy(dtype, ConvHeadNet)
    x, y = batch(dtype, 3)
    mixer = MultiMix(n=7)
    plan = plan_of(mixer, x, "hull")
    mixed = mixer.apply(stages, x, y, plan)
    assert isinstance(mixed, HullMixed)
    expected = expected_of(model, x, rows(y), weights_of(mixer, plan, 3))
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


CRITERIA = {
    "cross-entropy": None,
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "class weights": nn.CrossEntropyLoss(torch.tensor([1.0, 0.5, 2.0, 0.0])),
    "binary": nn.BCEWithLogitsLoss(),
    "own": lambda logits, target: (logits - target).square().sum(-1),
}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("targets", ["indices", "soft", "multi-hot"])
def test_both_paths_agree_for_any_criterion_and_target(
    targets: str, criterion: str, dtype: torch.dtype
) -> None:
    """Only the head's type differs; targets may be soft or sum to something else than one."""
    model, stages = toy(dtype)
    other, other_stages = toy(dtype, head=Forced)
    other.load_state_dict(model.state_dict())
    x, y = batch(dtype, 3)
    y = {
        "indices": y,
        "soft": torch.rand(3, 4).softmax(-1),
        "multi-hot": torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 0], [0, 0.5, 0, 0]]),
    }[targets]
    mixer = MultiMix(n=7)
    plan = plan_of(mixer, x, "hull")
    loss_fn = CRITERIA[criterion]
    if isinstance(loss_fn, nn.Module):
        loss_fn = loss_fn.to(dtype)
    fused = mixer.apply(stages, x, y, plan).loss(loss_fn)
    plain = mixer.apply(other_stages, x, y, plan).loss(loss_fn)
    assert_near(fused, plain)
    for (name, p), (_, q) in zip(parameters(model), parameters(other), strict=True):
        mine = torch.autograd.grad(fused, p, retain_graph=True)[0]
        assert_near(mine, torch.autograd.grad(plain, q, retain_graph=True)[0], name)


@pytest.mark.parametrize("layer", ["body.0", "body", "hidden"])
def test_another_layer_equals_the_loop(layer: str, dtype: torch.dtype) -> None:
    """Figure 5.4a: a module's output is mixed, and the rest of the network runs on n of them."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = MultiMix(n=7, layer=layer)
    mixer.attach(stages)
    plan = plan_of(mixer, x, "hull")
    weights = weights_of(mixer, plan, 3)
    mixed = mixer.apply(stages, x, y, plan)
    logits = torch.stack(rest_of(model, x, layer, weights))
    expected = Terms(logits, naive.combine(rows(y), weights))
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def rest_of(model: ConvNet, x: Tensor, layer: str, weights: Tensor) -> list[Tensor]:
    first, second, net = model.body[0], model.body[2], by_stages(model)
    if layer == "body.0":
        maps = naive.combine(F.conv2d(x, first.weight, first.bias, stride=2, padding=1), weights)
        maps = F.conv2d(torch.tanh(maps), second.weight, second.bias, padding=1)
        return [net.logits(a) for a in maps]
    maps = torch.stack([net.encode(one) for one in x])
    if layer == "body":
        return [net.logits(a) for a in naive.combine(maps, weights)]
    inner = torch.stack([torch.atanh(embed(model, a)) for a in maps])  # before the tanh
    return [classify(model, torch.tanh(e)) for e in naive.combine(inner, weights)]


@pytest.mark.parametrize("size", [1, 5])
def test_the_other_branch_is_input_mixup(size: int, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = MultiMix(n=7)
    plan = plan_of(mixer, x, "x")
    assert len(set(factors(plan))) == 1
    expected = algorithm_1(by_stages(model), x, rows(y), "input", partners(plan), factors(plan))
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_half_of_the_batches_are_mixed_in_the_hull() -> None:
    """Binomial, n = 1200; and λ ~ Beta(1, 1) in the others, Beta(α, α) if so asked."""
    x = torch.zeros(2, 1, 2, 2)
    for prob in (0.5, 0.2):
        plans = [MultiMix(prob=prob).sample(x, sampling.generators(0, k)) for k in range(1200)]
        hull = sum(plan.branch == "hull" for plan in plans)
        assert abs(hull - 1200 * prob) < 5 * math.sqrt(1200 * prob * (1 - prob))
    assert MultiMix().prob == 0.5
    for alpha, mixer in ((1.0, MultiMix(prob=0)), (6.0, MultiMix(prob=0, input_alpha=6.0))):
        plans = [mixer.sample(x, sampling.generators(0, k)) for k in range(1200)]
        square = sum((float(plan.lam[0]) - 0.5) ** 2 for plan in plans) / 1200
        variance = 1 / (4 * (2 * alpha + 1))
        assert abs(square - variance) < 5 * math.sqrt(variance / 4 / 1200)


def test_weights_differ_from_plan_to_plan_and_not_within_one() -> None:
    x, mixer = torch.zeros(3, 1, 2, 2), MultiMix(n=5)
    one, two = (mixer.sample(x, sampling.generators(0, step)) for step in (0, 1))
    one, two = replace(one, branch="hull"), replace(two, branch="hull")
    assert torch.equal(mixer.weights(x, one), mixer.weights(x, one))
    assert not torch.equal(mixer.weights(x, one), mixer.weights(x, two))
    assert torch.equal(mixer.weights(x, one), weights_of(mixer, one, 3))


def test_the_host_sees_the_clean_logits() -> None:
    model, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    mixer = MultiMix(n=5)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "hull"))
    assert_close(mixed.output, model(x))


def test_the_default_is_the_thesis() -> None:
    mixer = MultiMix()
    assert (mixer.n, mixer.m, mixer.alpha, mixer.layer) == (1000, None, (0.5, 2.0), None)
    assert (mixer.prob, mixer.input_alpha) == (0.5, 1.0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_of_fewer_than_m_examples_mixes_all(size: int, dtype: torch.dtype) -> None:
    """The last batch of an epoch, in timm's and mmengine's loaders."""
    _, stages = toy(dtype)
    x, y = batch(dtype, size)
    losses = []
    for m in (12, size, None):
        mixer = MultiMix(m=m, n=9, prob=1)
        losses.append(mixer.apply(stages, x, y, plan_of(mixer, x)).loss())
    assert_near(losses[0], losses[1])
    assert_near(losses[0], losses[2])


def test_an_unknown_layer_is_found_before_training() -> None:
    _, stages = toy(torch.float32)
    with pytest.raises(ValueError, match=r"ConvNet has no module 'hiden'\. Nearest: 'hidden'"):
        MultiMix(layer="hiden").attach(stages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"MultiMix needs n >= 1, got 0\."),
        ({"m": 0}, r"MultiMix needs m >= 1 or None, got 0\."),
        ({"prob": 1.01}, r"MultiMix needs prob in \[0, 1\], got 1\.01\."),
        ({"input_alpha": 0}, r"MultiMix needs input_alpha > 0, got 0\."),
        ({"alpha": 0.0}, r"MultiMix: alpha must be a number > 0 or a pair .*, got 0\.0\."),
        ({"alpha": [2, 1]}, r"MultiMix: alpha must be .* 0 < low <= high, got \(2, 1\)\."),
        ({"alpha": (1,)}, r"MultiMix: alpha must be .* 0 < low <= high, got \(1,\)\."),
        ({"off_epoch": -2}, r"MultiMix needs off_epoch >= 0 or None, got -2\."),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiMix(**options)
