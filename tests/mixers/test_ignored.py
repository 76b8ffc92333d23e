"""Examples without a label have no part in a mix: their image, their target, their term."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import batch, toy
from reference.aligned import mix
from reference.compare import assert_near
from reference.targets import cross_entropy
from torch import Tensor, nn
from toys import CLASSES, by_hand

import mixplug
from mixplug import Mixer, Plan, sampling
from mixplug.functional.targets import IGNORED
from mixplug.mixers.known import labeled

UNKNOWN = [1, 4]  # of seven examples


def build(name: str, **settings: Any) -> Mixer:
    return mixplug.build(name, kind="mixer", **settings)


def labels(index: int = IGNORED, size: int = 7) -> tuple[Tensor, Tensor]:
    """Targets of which two are ignored, and which are not."""
    y = torch.arange(size) % CLASSES
    y[UNKNOWN] = index
    return y, y != index


def plan_and_loss(
    mixer: Mixer, stages: object, x: Tensor, y: Tensor, step: int, criterion: object = None
) -> tuple[Plan, Tensor]:
    plan = mixer.sample(x, sampling.generators(0, step))
    return plan, mixer(stages, x, y, sampling.generators(0, step)).loss(criterion)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pairs_by_a_loop(smoothing: float, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, _ = batch(dtype, 7)
    y, known = labels()
    rows = torch.eye(CLASSES, dtype=torch.float64)[y.clamp(min=0)]
    rows = rows * (1 - smoothing) + smoothing / CLASSES
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    mixer = build("InputMixup", per_example=True)
    plan, found = plan_and_loss(mixer, stages, x, y, 0, criterion)
    terms = []
    for i, j in enumerate(plan.permutation.tolist()):
        if not known[i]:
            continue
        lam = float(plan.lam[i]) if known[j] else 1.0
        image, target = mix(x[i], x[j], lam), mix(rows[i], rows[j], lam)
        terms.append(cross_entropy(by_hand(model, image[None])[0], target))
    assert any(not known[j] for i, j in enumerate(plan.permutation.tolist()) if known[i])
    assert_near(found, sum(terms) / len(terms))


@pytest.mark.parametrize("name", ["InputMixup", "CutMix", "ManifoldMixup", "AlignMixup", "OneOf"])
def test_what_an_ignored_image_shows_changes_nothing(name: str) -> None:
    """The network has no batch norm; in every branch, aligned and primed modes too."""
    _, stages = toy(torch.float64)
    settings = {"mixers": ["AlignMixup", "CutMix"]} if name == "OneOf" else {}
    mixer, (x, _), (y, known) = build(name, **settings), batch(torch.float64, 7), labels()
    other = torch.where(known[:, None, None, None], x, torch.randn_like(x))
    branches = set()
    for step in range(24):
        plan, first = plan_and_loss(mixer, stages, x, y, step)
        _, second = plan_and_loss(mixer, stages, other, y, step)
        branches.add(plan.branch)
        assert_near(first, second)
    assert branches >= set(getattr(mixer, "branches", dict)())


@pytest.mark.parametrize("branch", ["A", "A'"])
def test_the_partner_of_an_ignored_image_is_clean(branch: str) -> None:
    _, stages = toy(torch.float64)
    mixer, (x, _), (y, known) = (
        build("AlignMixup", modes=[branch]),
        batch(torch.float64, 7),
        labels(),
    )
    plan = mixer.sample(x, sampling.generators(0, 0))
    mixed = mixer(stages, x, y, sampling.generators(0, 0))
    alone = [i for i, j in enumerate(plan.permutation.tolist()) if known[i] and not known[j]]
    assert alone
    assert_near(mixed.logits[alone], stages(x).logits[alone])
    assert torch.equal(mixed.target[alone], F.one_hot(y[alone], CLASSES).float())


class Bent(nn.Linear):
    """A classifier that is not linear."""

    def forward(self, e: Tensor) -> Tensor:
        return super().forward(e).tanh()


@pytest.mark.parametrize("head", [nn.Linear, Bent])
@pytest.mark.parametrize("m", [None, 2])
def test_multimix_by_a_loop(m: int | None, head: type[nn.Linear], dtype: torch.dtype) -> None:
    """Λ is restricted to the columns of known examples, and its rows sum to 1 again."""
    _, stages = toy(dtype, head=head)
    x, _ = batch(dtype, 7)
    y, known = labels()
    mixer = build("MultiMix", n=9, m=m, prob=1.0)
    plan = mixer.sample(x, sampling.generators(0, 3))
    lam = sampling.hull_weights(9, 7, (0.5, 2.0), m, sampling.generator(plan.key, x.device))
    e = stages(x).embedding
    rows, terms = torch.eye(CLASSES, dtype=torch.float64), []
    for k in range(9):
        total = sum(float(lam[k, i]) for i in range(7) if known[i])
        if not total:
            continue  # made of ignored examples alone
        weights = {i: float(lam[k, i]) / total for i in range(7) if known[i]}
        embedding = sum(w * e[i] for i, w in weights.items())
        target = sum(w * rows[y[i]] for i, w in weights.items())
        terms.append(cross_entropy(stages.classifier(embedding), target))
    found = mixer(stages, x, y, sampling.generators(0, 3)).loss()
    assert_near(found, sum(terms) / len(terms))


@pytest.mark.parametrize("reduction", ["position_mean", "global"])
def test_dense_multimix_is_that_of_the_known_examples(reduction: str, dtype: torch.dtype) -> None:
    """With Λ of seven examples, of which two have no attention."""
    _, stages = toy(dtype)
    x, _ = batch(dtype, 7)
    y, known = labels()
    mixer = build("DenseMultiMix", n=9, prob=1.0, reduction=reduction)
    found = mixer(stages, x, y, sampling.generators(0, 3))
    changed = torch.where(known[:, None, None, None], x, torch.randn_like(x))
    assert_near(found.loss(), mixer(stages, changed, y, sampling.generators(0, 3)).loss())
    assert float(found.target.sum(-1).min()) > 0.999
    assert torch.equal(found.weights[..., ~known], torch.zeros_like(found.weights[..., ~known]))


@pytest.mark.parametrize("index", [-100, 0, 255])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_clean_batch_has_the_loss_of_torch(index: int, smoothing: float) -> None:
    model, stages = toy(torch.float64)
    x, _ = batch(torch.float64, 7)
    y, _ = labels(index)
    criterion = nn.CrossEntropyLoss(ignore_index=index, label_smoothing=smoothing)
    draws = sampling.generators(0, 0)
    for name in ("InputMixup", "AlignMixup"):
        mixed = build(name, prob=0.0)(stages, x, y, draws, ignore_index=index)
        assert_near(mixed.loss(criterion), criterion(model(x), y))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("index", [-100, 2])
def test_class_weights_are_averaged_as_torch_does(index: int, smoothing: float) -> None:
    """For class indices by the weights of the classes, for rows by their number."""
    model, stages = toy(torch.float64)
    x, _ = batch(torch.float64, 7)
    y = torch.arange(7) % CLASSES
    weight = torch.tensor([5.0, 0.1, 1, 2][:CLASSES], dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight, ignore_index=index, label_smoothing=smoothing)
    mixer, draws = build("InputMixup", prob=0.0), sampling.generators(0, 0)
    assert_near(mixer(stages, x, y, draws).loss(criterion), criterion(model(x), y))
    if index >= 0:
        return  # torch refuses rows with such an index
    rows = F.one_hot(y, CLASSES).double()
    assert_near(mixer(stages, x, rows, draws).loss(criterion), criterion(model(x), rows))


def test_class_weights_of_a_mixed_batch_by_a_loop() -> None:
    _, stages = toy(torch.float64)
    x, y = batch(torch.float64, 5)
    weight = torch.tensor([5.0, 0.1, 1, 2][:CLASSES], dtype=torch.float64)
    for name, settings in (("InputMixup", {}), ("MultiMix", {"n": 9, "prob": 1.0})):
        mixed = build(name, **settings)(stages, x, y, sampling.generators(0, 0))
        log_p = mixed.logits.log_softmax(-1)
        above = below = 0.0
        for t in range(len(log_p)):
            for k in range(CLASSES):
                above += mixed.target[t, k] * weight[k] * -log_p[t, k]
                below += mixed.target[t, k] * weight[k]
        assert_near(mixed.loss(nn.CrossEntropyLoss(weight)), above / below)


def test_where_no_example_has_a_label_the_loss_is_zero() -> None:
    model, stages = toy(torch.float32)
    x, _ = batch(torch.float32, 4)
    y = torch.full((4,), IGNORED)
    for name, settings in (
        ("InputMixup", {}),
        ("AlignMixup", {}),
        ("MultiMix", {"n": 5, "prob": 1.0}),
        ("DenseMultiMix", {"n": 5, "prob": 1.0}),
    ):
        loss = build(name, **settings)(stages, x, y, sampling.generators(0, 0)).loss()
        model.zero_grad()
        loss.backward()
        assert float(loss.detach()) == 0, name
        assert all(not bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def test_a_criterion_that_gives_a_mean_cannot_leave_examples_out() -> None:
    _, stages = toy(torch.float32)
    x, _ = batch(torch.float32, 7)
    y, _ = labels()
    mixed = build("InputMixup")(stages, x, y, sampling.generators(0, 0))
    with pytest.raises(ValueError, match="Some examples of this batch have no label"):
        mixed.loss(lambda logits, target: (logits * target).mean())


def test_a_label_that_is_out_of_range_says_how_to_ignore_it() -> None:
    _, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    y = y.clone()
    y[1] = 255
    with pytest.raises(ValueError, match=r"got 255.*ignore_index=255, or -100 as their label"):
        build("InputMixup")(stages, x, y, sampling.generators(0, 0))
    y[1] = -1
    with pytest.raises(ValueError, match="got -1"):
        build("InputMixup")(stages, x, y, sampling.generators(0, 0))


def test_metric_losses_leave_them_out() -> None:
    """Two examples without a label are no pair of one class."""
    model, stages = toy(torch.float64)
    mixer = mixplug.mixers.build_mixer("Contrastive")
    mixer.attach(stages)
    x, _ = batch(torch.float64, 7)
    y, known = labels()
    mixed = mixer(stages, x, y, sampling.generators(0, 0))
    e = stages(x).embedding
    assert_near(mixed.extra["metric"], mixplug.build("Contrastive")(e[known], y[known]))
    assert_near(mixed.loss(), mixed.extra["metric"] + F.cross_entropy(model(x), y))


def test_on_an_accelerator_nothing_is_asked() -> None:
    """On meta tensors, where a look at a value raises."""
    y = torch.empty(5, dtype=torch.int64, device="meta")
    targets, known = labeled(y)
    assert targets.device.type == known.device.type == "meta" and known.shape == (5,)
    plan = Plan("x", torch.arange(5), torch.ones(5))
    assert build("InputMixup").leave_out(plan, known).lam.device.type == "meta"
