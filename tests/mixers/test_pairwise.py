"""A share that was measured weighs targets in place of λ."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from batches import batch, parameters, partners, plan_of, rows, toy
from reference.aligned import mix
from reference.compare import assert_near, assert_same_gradients
from reference.targets import cross_entropy
from torch import Tensor
from toys import by_hand

from mixplug import Plan, Stages, sampling
from mixplug.mixers import PairMixer
from mixplug.stages import Forward


@dataclass(frozen=True, kw_only=True)
class LeftPart(PairMixer):
    """The left ``columns`` are those of the example; ``after`` is measured after the forward."""

    columns: int = 3
    after: float | None = None

    def mix_input(self, x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        left, right = x[..., : self.columns], x[plan.permutation][..., self.columns :]
        return torch.cat([left, right], -1), torch.full((len(x),), self.columns / x.shape[-1])

    def share(
        self, stages: Stages, x: Tensor, plan: Plan, forward: Forward, measured: Tensor | None
    ) -> Tensor | None:
        if self.after is None:
            return super().share(stages, x, plan, forward, measured)
        own = forward.logits.detach().softmax(-1).amax(-1)
        return measured * (1 - self.after) + own * self.after


@pytest.mark.parametrize("after", [None, 0.5])
@pytest.mark.parametrize("size", [1, 5])
def test_equals_the_loop(size: int, after: float | None, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = LeftPart(after=after)
    plan = plan_of(mixer, x)
    lam = plan.lam.clone()
    mixed = mixer.apply(stages, x, y, plan)
    images = torch.stack(
        [torch.cat([x[i, ..., :3], x[j, ..., 3:]], -1) for i, j in enumerate(partners(plan))]
    )
    logits, losses, targets = by_hand(model, images), [], []
    for i, j in enumerate(partners(plan)):
        share = 3 / 8
        if after is not None:
            share = (share + logits[i].detach().softmax(-1).max().item()) / 2
        targets.append(mix(rows(y)[i], rows(y)[j], share))
        losses.append(cross_entropy(logits[i], targets[-1]))
    assert_near(mixed.target, torch.stack(targets))
    assert_same_gradients(mixed.loss(), sum(losses) / size, parameters(model))
    assert torch.equal(plan.lam, lam)  # what was drawn stays


def test_every_position_has_the_share_of_its_example(dtype: torch.dtype) -> None:
    _, stages = toy(dtype)
    x, y = batch(dtype, 5)
    mixer = LeftPart(dense=True)
    plan = plan_of(mixer, x)
    mixed = mixer.apply(stages, x, y, plan)
    assert mixed.logits.shape == mixed.target.shape == (5, 12, 4)
    for i, j in enumerate(partners(plan)):
        expected = mix(rows(y)[i], rows(y)[j], 3 / 8)
        assert_near(mixed.target[i], expected.expand(12, 4))


def test_two_shares_need_not_sum_to_one(dtype: torch.dtype) -> None:
    """As of methods that weigh each operand by what is left of it."""
    shares = torch.rand(5, 2)

    @dataclass(frozen=True, kw_only=True)
    class Two(LeftPart):
        def share(self, stages: Stages, x: Tensor, plan: Plan, *rest: object) -> Tensor:
            return shares

    _, stages = toy(dtype)
    x, y = batch(dtype, 5)
    plan = plan_of(Two(), x)
    mixed = Two().apply(stages, x, y, plan)
    for i, j in enumerate(partners(plan)):
        first, second = shares[i].double()
        assert_near(mixed.target[i], first * rows(y)[i] + second * rows(y)[j])


def test_other_levels_may_be_measured_too() -> None:
    """A share of features that were mixed, after the forward."""

    @dataclass(frozen=True, kw_only=True)
    class Half(PairMixer):
        def branches(self) -> dict[str, float]:
            return {"e": 1.0}

        def share(self, stages: Stages, x: Tensor, plan: Plan, *rest: object) -> Tensor:
            assert rest[1] is None  # nothing was measured before
            return torch.full((len(x),), 0.5)

    _, stages = toy(torch.float64)
    x, y = batch(torch.float64, 5)
    plan = plan_of(Half(), x)
    target = Half().apply(stages, x, y, plan).target
    for i, j in enumerate(partners(plan)):
        assert_near(target[i], (rows(y)[i] + rows(y)[j]).float() / 2)


def test_a_clean_batch_is_not_measured() -> None:
    _, stages = toy(torch.float64)
    x, y = batch(torch.float64, 5)
    mixer = LeftPart(prob=0.0, after=0.5)
    assert_near(mixer.apply(stages, x, y, plan_of(mixer, x)).target, rows(y).float())


def test_a_share_that_is_not_one_per_example() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(PairMixer):
        def mix_input(self, x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
            return x, torch.ones(len(x), 1)

    _, stages = toy(torch.float64)
    message = (
        r"Wrong needs to measure a share of shape \(5,\), or two of shape \(5, 2\), got \(5, 1\)\."
    )
    with pytest.raises(ValueError, match=message):
        Wrong()(stages, *batch(torch.float64, 5), sampling.generators(0, 0))


@pytest.mark.parametrize(
    ("shares", "got"),
    [
        ([0.5, 1.25], "0.5 to 1.25"),
        ([-0.5, 0.5], "-0.5 to 0.5"),
        ([float("nan"), 1.0], "nan to nan"),
        ([[0.5, 0.5], [float("inf"), 0.0]], "0 to inf"),
    ],
)
def test_a_share_out_of_range(shares: list[float], got: str) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(PairMixer):
        def share(self, *seen: object) -> Tensor:
            return torch.tensor(shares)

    _, stages = toy(torch.float64)
    message = rf"Wrong, branch 'x': measured shares must be finite and in \[0, 1\], got {got}\."
    with pytest.raises(ValueError, match=message):
        Wrong()(stages, *batch(torch.float64, 2), sampling.generators(0, 0))


def test_rounding_of_a_share_is_no_fault() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Rounded(PairMixer):
        def share(self, *seen: object) -> Tensor:
            return torch.tensor([1 + 2e-7, -2e-7])

    _, stages = toy(torch.float64)
    mixed = Rounded()(stages, *batch(torch.float64, 2), sampling.generators(0, 0))
    assert mixed.target.min() >= 0 and mixed.target.max() <= 1
