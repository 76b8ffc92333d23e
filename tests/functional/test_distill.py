"""Losses and monitors of self-distillation against loops, and their limits."""

from __future__ import annotations

import math

import pytest
import torch
from reference import distill as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import (
    cross_entropy,
    cross_view_loss,
    entropy,
    local_loss,
    teacher_probabilities,
    updated_center,
)

B, S, M, K = 3, 2, 4, 5


def targets(dtype: torch.dtype, *lead: int) -> Tensor:
    return (2 * torch.randn(*lead, K, dtype=dtype)).softmax(-1)


def test_probabilities_of_the_teacher(dtype: torch.dtype) -> None:
    logits, center = torch.randn(2, B, K, dtype=dtype), torch.randn(K, dtype=dtype)
    found = teacher_probabilities(logits, center, 0.04)
    assert found.dtype == dtype
    for v in range(2):
        for b in range(B):
            expected = naive.probabilities(logits[v, b].double(), center.double(), 0.04)
            assert_near(found[v, b], expected)


def test_limits_of_temperature_and_center() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert_close(teacher_probabilities(logits, torch.zeros(3), 1e-3), torch.eye(3)[1])
    assert_close(teacher_probabilities(logits, torch.zeros(3), 1e6), torch.full((3,), 1 / 3))
    assert_close(teacher_probabilities(logits, logits, 0.04), torch.full((3,), 1 / 3))


def test_cross_entropy_of_rows(dtype: torch.dtype) -> None:
    target, logits = targets(dtype, B), torch.randn(B, K, dtype=dtype, requires_grad=True)
    rows = [
        naive.cross_entropy(t, x, 0.3)
        for t, x in zip(target.double(), logits.double(), strict=True)
    ]
    found = cross_entropy(target, logits, 0.3)
    assert found.shape == (B,) and found.dtype == dtype
    w = torch.randn(B, dtype=torch.float64)
    assert_near(found, torch.stack(rows))
    assert_same_gradients(
        (found * w.to(dtype)).sum(), (torch.stack(rows) * w).sum(), [("logits", logits)]
    )


def test_cross_entropy_is_linear_in_the_target(dtype: torch.dtype) -> None:
    (p, q), logits = targets(dtype, 2, B), torch.randn(B, K, dtype=dtype)
    assert_close(cross_entropy(p + q, logits), cross_entropy(p, logits) + cross_entropy(q, logits))


def test_large_logits_are_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    assert_close(cross_entropy(torch.tensor([[0.0, 0.0, 1.0]]), logits, 0.1), torch.tensor([1e5]))


def test_large_views_cross(dtype: torch.dtype) -> None:
    teacher = targets(dtype, 2, B)
    student = torch.randn(2, B, S, K, dtype=dtype, requires_grad=True)
    found = cross_view_loss(teacher, student, 0.2)
    assert found.dtype == dtype
    expected = naive.object_loss(teacher, student, 0.2)
    assert_same_gradients(found, expected, [("student", student)])


def test_small_views_go_with_both(dtype: torch.dtype) -> None:
    teacher = targets(dtype, 2, B)
    student = torch.randn(M, B, K, dtype=dtype, requires_grad=True)
    found = local_loss(teacher, student, 0.2)
    assert found.dtype == dtype
    assert_same_gradients(found, naive.local_loss(teacher, student, 0.2), [("student", student)])


def test_default_temperature_is_that_of_dino(dtype: torch.dtype) -> None:
    teacher, student = targets(dtype, 2, B), torch.randn(2, B, S, K, dtype=dtype)
    assert_near(cross_view_loss(teacher, student), naive.object_loss(teacher, student, 0.1))
    crops = student[0].transpose(0, 1)
    assert_near(local_loss(teacher, crops), naive.local_loss(teacher, crops, 0.1))


def test_every_local_crop_counts_the_first_too() -> None:
    teacher, student = targets(torch.float32, 2, B), torch.randn(M, B, K, requires_grad=True)
    local_loss(teacher, student).backward()
    assert bool((student.grad.abs().sum(-1) > 1e-4).all())
    alone = student.detach()[:1].requires_grad_()
    local_loss(teacher, alone).backward()
    assert_close(student.grad[:1], alone.grad)


def test_a_view_is_not_compared_with_itself() -> None:
    teacher, student = targets(torch.float32, 2, B), torch.randn(2, B, S, K)
    first = student.clone().requires_grad_()
    cross_view_loss(teacher, first).backward()
    changed = teacher.clone()
    changed[0] = targets(torch.float32, B)  # of view 0, which only view 1 of the student sees
    second = student.clone().requires_grad_()
    cross_view_loss(changed, second).backward()
    assert torch.equal(first.grad[0], second.grad[0])
    assert not torch.allclose(first.grad[1], second.grad[1])


def test_an_object_does_not_depend_on_the_others() -> None:
    teacher, student = targets(torch.float32, 2, B), torch.randn(2, B, 3, K)
    base, gradients = student.clone().requires_grad_(), []
    cross_view_loss(teacher, base).backward()
    for others in (torch.randn(2, B, K), torch.zeros(2, B, K)):
        x = student.clone()
        x[:, :, 0] = others
        x.requires_grad_()
        cross_view_loss(teacher, x).backward()
        gradients.append(x.grad[:, :, 1:])
    assert all(torch.equal(g, base.grad[:, :, 1:]) for g in gradients)
    alone = [cross_view_loss(teacher, student[:, :, [i]]) for i in range(3)]
    assert_close(cross_view_loss(teacher, student), sum(alone))


def test_it_is_a_mean_over_frames(dtype: torch.dtype) -> None:
    teacher, student = targets(dtype, 2, B), torch.randn(2, B, S, K, dtype=dtype)
    per_frame = [cross_view_loss(teacher[:, [b]], student[:, [b]]) for b in range(B)]
    assert_close(cross_view_loss(teacher, student), sum(per_frame) / B)
    crops = torch.randn(M, B, K, dtype=dtype)
    per_frame = [local_loss(teacher[:, [b]], crops[:, [b]]) for b in range(B)]
    assert_close(local_loss(teacher, crops), sum(per_frame) / B)


def test_entropy_and_its_limits(dtype: torch.dtype) -> None:
    p = targets(dtype, B)
    assert_near(entropy(p), torch.tensor([naive.entropy(row) for row in p], dtype=torch.float64))
    assert float(entropy(torch.eye(K, dtype=dtype)).abs().max()) == 0
    assert_close(entropy(torch.full((K,), 1 / K, dtype=dtype)).item(), math.log(K))


def test_the_center_moves(dtype: torch.dtype) -> None:
    center, mean = torch.randn(2, K, dtype=dtype).unbind(0)
    before = center.clone()
    assert_close(updated_center(center, mean, 0.9), 0.9 * center + 0.1 * mean)
    assert_close(updated_center(center, mean), 0.9 * center + 0.1 * mean)
    assert torch.equal(updated_center(center, mean, 1.0), center)
    assert torch.equal(updated_center(center, mean, 0.0), mean)
    assert torch.equal(center, before)


def test_autocast_changes_nothing_and_half_comes_out_in_float32() -> None:
    teacher, student = targets(torch.float32, 2, B), torch.randn(2, B, S, K)
    center, crops = torch.randn(K), torch.randn(M, B, K)

    def everything(dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [
            teacher_probabilities(student.to(dtype), center, 0.04),
            cross_entropy(teacher, crops[:2].to(dtype)),
            cross_view_loss(teacher, student.to(dtype)),
            local_loss(teacher, crops.to(dtype)),
            entropy(teacher),
        ]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(everything(), plain, strict=True))
    student, crops = student.bfloat16().float(), crops.bfloat16().float()
    for half, exact in zip(everything(torch.bfloat16), everything(), strict=True):
        assert half.dtype == torch.float32 and torch.equal(half, exact)


Z = torch.zeros
RAISES = {
    "teacher's temperature": (
        lambda: teacher_probabilities(Z(3), Z(3), 0),
        "teacher_probabilities needs temperature > 0, got 0",
    ),
    "student's temperature": (
        lambda: local_loss(Z(2, 1, 3), Z(1, 1, 3), -1),
        "cross_entropy needs temperature > 0, got -1",
    ),
    "outputs": (
        lambda: cross_entropy(Z(2, 3), Z(2, 4)),
        r"with the same K, got \(2, 3\) and \(2, 4\)",
    ),
    "three views": (
        lambda: cross_view_loss(Z(3, 1, 4), Z(3, 1, 2, 4)),
        r"cross_view_loss needs teacher \(2, B, K\) .* got \(3, 1, 4\) and \(3, 1, 2, 4\)",
    ),
    "no versions": (lambda: cross_view_loss(Z(2, 1, 4), Z(2, 1, 4)), "cross_view_loss needs"),
    "frames": (
        lambda: local_loss(Z(2, 2, 4), Z(3, 1, 4)),
        r"local_loss needs .* got \(2, 2, 4\) and \(3, 1, 4\)",
    ),
    "decay": (
        lambda: updated_center(Z(3), Z(3), 1.5),
        r"updated_center needs decay in \[0, 1\], got 1.5",
    ),
}


@pytest.mark.parametrize("case", RAISES)
def test_errors_say_what_was_given(case: str) -> None:
    call, message = RAISES[case]
    with pytest.raises(ValueError, match=message):
        call()
