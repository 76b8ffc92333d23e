"""CutMix against a loop over pixels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import batch, by_stages, parameters, partners, plan_of, rows, toy
from reference.algorithm import Terms
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from toys import columns

from mixplug import Plan, sampling
from mixplug.mixers.cutmix import CutMix
from mixplug.mixers.input_mixup import InputMixup
from mixplug.mixers.pairwise import PairMixer


def pasted(x: Tensor, plan: Plan) -> tuple[Tensor, float]:
    """Images pixel by pixel, and the share of pixels that stayed."""
    top, bottom, left, right = plan.box
    out, stayed = x.clone(), 0
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            inside = top <= row < bottom and left <= column < right
            stayed += not inside
            for i, j in enumerate(partners(plan)):
                out[i, :, row, column] = x[j if inside else i, :, row, column]
    return out, stayed / (x.shape[2] * x.shape[3])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_equals_the_loop(size: int, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    before, mixer = x.clone(), CutMix()
    for step in range(8):
        plan = mixer.sample(x, sampling.generators(1, step))
        images, share = pasted(x, plan)
        assert mixer.mix_input(x, plan)[1].tolist() == pytest.approx([share] * size, abs=1e-7)
        net = by_stages(model)
        logits = torch.stack([net.logits(net.encode(image)) for image in images])
        target = share * rows(y) + (1 - share) * rows(y[plan.permutation])
        mixed = mixer.apply(stages, x, y, plan)
        assert_near(mixed.target, target)
        assert_same_gradients(mixed.loss(), Terms(logits, target).loss, parameters(model))
    assert torch.equal(x, before)


def test_dense_loss_equals_the_loop(dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = CutMix(dense=True)
    plan = plan_of(mixer, x)
    images, share = pasted(x, plan)
    net, logits, target = by_stages(model), [], []
    for i, image in enumerate(images):
        for column in columns(net.encode(image)):
            logits.append(net.logits(column))
            target.append(share * rows(y)[i] + (1 - share) * rows(y)[partners(plan)[i]])
    loss = mixer.apply(stages, x, y, plan).loss()
    assert_same_gradients(
        loss, Terms(torch.stack(logits), torch.stack(target)).loss, parameters(model)
    )


def test_an_empty_and_a_full_rectangle(dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    plan = plan_of(CutMix(), x)
    none, everything = (replace(plan, box=box) for box in ((4, 4, 2, 2), (0, 6, 0, 8)))
    assert_near(CutMix().apply(stages, x, y, none).logits, model(x))
    assert_near(CutMix().apply(stages, x, y, everything).logits, model(x[plan.permutation]))


def test_the_area_is_that_of_a_beta_draw_clipped() -> None:
    """Mean share of x over 1500 plans with α = 1, whose area is uniform before clipping.

    A side of length floor(s sqrt(a)) has, centered at each pixel alike, a mean clipped length; the
    expectation over a is a Riemann sum. Shares are in [0, 1], so the standard error is below
    0.5 / sqrt(n).
    """
    height, width, n = 9, 16, 1500

    def mean_length(side: int, length: int) -> float:
        clipped = [
            min(center - length // 2 + length, side) - max(center - length // 2, 0)
            for center in range(side)
        ]
        return sum(clipped) / side

    grid = [(k + 0.5) / 2000 for k in range(2000)]
    areas = [
        mean_length(height, math.floor(height * math.sqrt(a)))
        * mean_length(width, math.floor(width * math.sqrt(a)))
        for a in grid
    ]
    expected = 1 - sum(areas) / len(grid) / (height * width)
    x, mixer = torch.zeros(2, 1, height, width), CutMix()
    plans = [mixer.sample(x, sampling.generators(0, step)) for step in range(n)]
    shares = [float(mixer.mix_input(x, plan)[1][0]) for plan in plans]
    assert abs(sum(shares) / n - expected) < 5 * 0.5 / math.sqrt(n)


def test_lam_of_the_plan_is_what_was_drawn() -> None:
    """As that of the base, which draws it at the same place; the box alone is clipped."""
    x = torch.zeros(3, 1, 9, 16)
    for step in range(20):
        drawn = PairMixer.sample(InputMixup(), x, sampling.generators(3, step))
        assert torch.equal(CutMix().sample(x, sampling.generators(3, step)).lam, drawn.lam)


def test_a_batch_that_is_not_mixed_has_no_rectangle() -> None:
    plan = plan_of(CutMix(prob=0), torch.zeros(3, 1, 4, 4), "clean")
    assert plan.box == (0, 0, 0, 0)


def test_one_rectangle_per_batch() -> None:
    message = r"CutMix needs per_example False, since there is one rectangle per batch, got True\."
    with pytest.raises(ValueError, match=message):
        CutMix(per_example=True)
