"""Targets and inputs of other kinds: one logit, regression, uint8 images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference.aligned import mix
from reference.compare import assert_near
from torch import Tensor, nn

import mixplug
from mixplug import Stages, sampling
from mixplug.functional import soft_targets


class OneLogit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 2)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


MIXERS = [
    ("InputMixup", {}),
    ("CutMix", {}),
    ("AlignMixup", {"modes": ["x", "e"]}),
    ("MultiMix", {"n": 6}),
    ("DenseMultiMix", {"n": 6}),
]


def stages_of() -> Stages:
    model = OneLogit().double()
    return Stages(model, features="body", classifier="head")


@pytest.mark.parametrize(("name", "settings"), MIXERS)
@pytest.mark.parametrize("integers", [True, False])
def test_binary_classes_with_one_logit(name: str, settings: dict, integers: bool) -> None:
    """As rows (B, 1): class 0 is the target 0, also in a batch of class 0 alone."""
    stages, x = stages_of(), torch.randn(6, 3, 5, 5).double()
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]).double())
    mixer = mixplug.build(name, **settings)
    for y in (torch.tensor([0, 1, 1, 0, 1, 0]), torch.zeros(6, dtype=torch.int64)):
        given = y if integers else y.double()
        for step in range(4):
            losses = [
                mixer(stages, x, each, sampling.generators(0, step)).loss(criterion)
                for each in (given, y[:, None].double())
            ]
            assert_near(*losses)


def test_a_clean_binary_batch_has_the_loss_of_torch() -> None:
    stages, x = stages_of(), torch.randn(6, 3, 5, 5).double()
    y, criterion = torch.tensor([0, 1, 1, 0, 1, 0]), nn.BCEWithLogitsLoss()
    mixed = mixplug.build("InputMixup", prob=0.0)(stages, x, y, sampling.generators(0, 0))
    assert_near(mixed.loss(criterion), criterion(stages.model(x)[:, 0], y.double()))


def test_one_output_has_two_classes() -> None:
    with pytest.raises(ValueError, match="one output has the classes 0 and 1, got a label 2"):
        soft_targets(torch.tensor([0, 2]), 1)


def test_the_cross_entropy_of_one_output_is_refused() -> None:
    stages, x, y = stages_of(), torch.randn(6, 3, 5, 5).double(), torch.zeros(6).long()
    mixed = mixplug.build("InputMixup")(stages, x, y, sampling.generators(0, 0))
    with pytest.raises(ValueError, match="one output is always 0"):
        mixed.loss()


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss])
@pytest.mark.parametrize(("name", "settings"), MIXERS)
def test_regression(name: str, settings: dict, loss: type[nn.Module]) -> None:
    stages, x, y = stages_of(), torch.randn(6, 3, 5, 5).double(), torch.randn(6).double()
    mixed = mixplug.build(name, **settings)(stages, x, y, sampling.generators(0, 1))
    terms = loss(reduction="none")(mixed.logits, mixed.target).mean(-1)
    expected = terms.mean() if mixed.weight is None else (terms * mixed.weight).sum()
    assert_near(mixed.loss(loss()), expected)


def test_a_weight_of_every_example_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight of shape \(4, 1\), one for each example"):
        mixplug.criterion.as_criterion(nn.BCEWithLogitsLoss(weight=torch.ones(4, 1)))


@pytest.mark.parametrize("loss", [nn.NLLLoss(), nn.MultiMarginLoss()])
def test_losses_for_class_indices_are_refused(loss: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"takes class indices.*per_class"):
        mixplug.criterion.as_criterion(loss)


def test_uint8_images_are_rounded_to_the_nearest() -> None:
    a, b = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    lam = torch.tensor([0.8012, 0.5, 0.25, 1.0])
    mixed = mixplug.functional.mix(a, b, lam)
    assert mixed.dtype == torch.uint8
    exact = torch.stack([mix(a[i].double(), b[i].double(), float(lam[i])) for i in range(4)])
    error = mixed.double() - exact
    assert float(error.abs().max()) <= 0.5 + 1e-4
    assert abs(float(error.mean())) < 0.02  # truncation would be darker by almost one half
    assert torch.equal(mixed[3], a[3])
    assert F.mse_loss(mixed.double(), exact) < 0.1
