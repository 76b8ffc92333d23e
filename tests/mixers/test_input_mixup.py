"""Input mixup against Algorithm 1's input mode, and what all mixers of pairs share."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import batch, by_stages, factors, parameters, partners, plan_of, rows, toy
from reference import targets
from reference.algorithm import Terms, algorithm_1
from reference.aligned import mix
from reference.compare import assert_near, assert_same_gradients
from torch.testing import assert_close
from toys import ConvHeadNet, columns, pool

from mixplug import sampling
from mixplug.mixers.input_mixup import InputMixup


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("per_example", [False, True])
def test_equals_the_loop(per_example: bool, size: int, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = InputMixup(per_example=per_example)
    plan = plan_of(mixer, x)
    assert len(set(factors(plan))) == (size if per_example else 1)
    mixed = mixer.apply(stages, x, y, plan)
    expected = algorithm_1(by_stages(model), x, rows(y), "input", partners(plan), factors(plan))
    assert_near(mixed.logits, expected.logits)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_lam_weighs_the_example_and_not_its_pair() -> None:
    model, stages = toy(torch.float64)
    x, y = batch(torch.float64, 3)
    plan = replace(plan_of(InputMixup(), x), lam=torch.ones(3))
    mixed = InputMixup().apply(stages, x, y, plan)
    assert_close(mixed.logits, model(x))
    assert torch.equal(mixed.target.double(), rows(y))
    mixed = InputMixup().apply(stages, x, y, replace(plan, lam=torch.zeros(3)))
    assert_close(mixed.logits, model(x[plan.permutation]))
    assert torch.equal(mixed.target.double(), rows(y[plan.permutation]))


def test_soft_and_multi_label_targets_are_mixed_as_they_are(dtype: torch.dtype) -> None:
    _, stages = toy(dtype)
    x, _ = batch(dtype, 3)
    y = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    plan = plan_of(InputMixup(), x)
    mixed = InputMixup().apply(stages, x, y, plan)
    for i in range(3):
        assert_near(mixed.target[i], mix(y[i], y[partners(plan)[i]], factors(plan)[i]))


@pytest.mark.parametrize("resolution", [None, 2])
def test_dense_loss_equals_the_loop(resolution: int | None, dtype: torch.dtype) -> None:
    """Every position has the mixed target of its example (Table 5.9)."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = InputMixup(dense=True, resolution=resolution)
    plan = plan_of(mixer, x)
    net, logits, target = by_stages(model), [], []
    for i, (j, lam) in enumerate(zip(partners(plan), factors(plan), strict=True)):
        a = net.encode(mix(x[i], x[j], lam))
        for column in columns(a if resolution is None else pool(a, resolution)):
            logits.append(net.logits(column))
            target.append(mix(rows(y)[i], rows(y)[j], lam))
    mixed = mixer.apply(stages, x, y, plan)
    positions = 12 if resolution is None else 4
    assert mixed.logits.shape == (3, positions, 4)
    expected = Terms(torch.stack(logits), torch.stack(target))
    assert_near(mixed.logits.flatten(0, 1), expected.logits)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_no_mixing_and_a_dense_loss_is_the_baseline(dtype: torch.dtype) -> None:
    """Table 5.9, row 1: prob=0, dense=True."""
    model, stages = toy(dtype, ConvHeadNet)
    x, y = batch(dtype, 3)
    mixer = InputMixup(prob=0, dense=True)
    plan = plan_of(mixer, x, "clean")
    net = by_stages(model)
    terms = [
        targets.cross_entropy(net.logits(column), rows(y)[i])
        for i in range(3)
        for column in columns(net.encode(x[i]))
    ]
    loss = mixer.apply(stages, x, y, plan).loss()
    assert_same_gradients(loss, sum(terms) / 36, parameters(model))


def test_prob_is_the_share_of_mixed_batches() -> None:
    """Binomial: of 1000 steps 1000 p +- 5 sqrt(1000 p (1 - p))."""
    x, mixer = torch.zeros(3, 1, 2, 2), InputMixup(prob=0.3)
    plans = [mixer.sample(x, sampling.generators(0, step)) for step in range(1000)]
    mixed = sum(plan.branch == "x" for plan in plans)
    assert {plan.branch for plan in plans} == {"x", "clean"}
    assert abs(mixed - 300) < 5 * math.sqrt(1000 * 0.3 * 0.7)


def test_a_batch_that_is_not_mixed_is_the_clean_one(dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = InputMixup(prob=0.0)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x))
    assert_close(mixed.logits, model(x))
    assert torch.equal(mixed.target.double(), rows(y))


def test_alpha_shapes_lam() -> None:
    """Var Beta(α, α) = 1 / (4 (2 α + 1)), over the 2000 examples of a batch."""
    x = torch.zeros(2000, 1, 1, 1)
    for alpha in (0.3, 4.0):
        plan = InputMixup(alpha=alpha, per_example=True).sample(x, sampling.generators(0, 0))
        variance = 1 / (4 * (2 * alpha + 1))
        error = float((plan.lam.double() - 0.5).square().mean()) - variance
        assert abs(error) < 5 * math.sqrt(variance / 4 / 2000)  # (λ - 1/2)^2 is at most 1/4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"InputMixup needs alpha > 0, got 0\.0\."),
        ({"alpha": -1}, r"InputMixup needs alpha > 0, got -1\."),
        ({"prob": 1.5}, r"InputMixup needs prob in \[0, 1\], got 1\.5\."),
        ({"prob": -0.5}, r"InputMixup needs prob in \[0, 1\], got -0\.5\."),
        ({"resolution": 0}, r"InputMixup needs resolution >= 1 or None, got 0\."),
        ({"off_epoch": -1}, r"InputMixup needs off_epoch >= 0 or None, got -1\."),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputMixup(**options)
