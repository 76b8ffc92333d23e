"""DINO, and all that DoRA has from the same base: losses, teacher, center, state."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from distilling import HEAD, NoHostSync, spread_out, total, views, vit
from reference import distill as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

import mixplug
from mixplug.models.self_distillation import DINO, SelfDistillation, Views


def dino(dtype: torch.dtype = torch.float32, **keys: Any) -> DINO:
    return spread_out(DINO(vit(**keys.pop("vit", {})), HEAD, **keys).to(dtype))


def logits_of(network: Any, image: Tensor) -> Tensor:
    """(K,) of one image, by itself."""
    return network.head(network.backbone(image[None]))[0]


def by_hand(method: DINO, clips: Views) -> tuple[Tensor, Tensor]:
    """Both terms, frame by frame and one image at a time; sums as printed."""
    _, b, t = clips.large.shape[:3]
    cross, local = torch.zeros(2, dtype=torch.float64).unbind(0)
    for clip in range(b):
        for frame in range(t):
            large = clips.large[:, clip, frame]
            targets = []
            for view in large:
                raw = logits_of(method.teacher, view).detach().double()
                targets.append(naive.probabilities(raw, method.center.double(), 0.07))
            student = [logits_of(method.student, view).double() for view in large]
            crops = [logits_of(method.student, c[clip, frame]).double() for c in clips.small]
            cross = cross + naive.cross_entropy(targets[0], student[1], 0.2)
            cross = cross + naive.cross_entropy(targets[1], student[0], 0.2)
            for target in targets:
                local = local + sum(naive.cross_entropy(target, crop, 0.2) for crop in crops)
    return cross / (b * t), local / (b * t)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_by_hand(reduction: str, dtype: torch.dtype) -> None:
    method = dino(dtype, reduction=reduction, student_temperature=0.2, teacher_temperature=0.07)
    clips = views(dtype)
    losses = method(clips)
    assert set(losses) == {
        "loss_global", "loss_local", "teacher_entropy", "teacher_kl", "center_norm"
    }  # fmt: skip
    scale = 1 / (2 + 2 * 2) if reduction == "mean" else 1
    cross, local = by_hand(method, clips)
    assert losses["loss_global"].dtype == dtype
    assert_near(losses["loss_global"], scale * cross)
    named = [(n, p) for n, p in method.student.named_parameters() if p.requires_grad]
    assert_same_gradients(total(losses), scale * (cross + local), named)
    assert_near(losses["loss_local"], scale * local)


def test_defaults_are_those_of_dino() -> None:
    method = dino()
    assert (method.student_temperature, method.teacher_temperature) == (0.1, 0.04)
    assert (method.center_decay, method.ema_decay, method.reduction) == (0.9, 0.996, "mean")
    assert not method.freeze_last_layer
    assert DINO(vit()).center.shape == (65536,)


def test_monitors(dtype: torch.dtype) -> None:
    method, clips = dino(dtype), views(dtype)
    losses = method(clips)
    entropies, divergences = [], []
    for clip in range(2):
        for frame in range(3):
            targets = [
                naive.probabilities(
                    logits_of(method.teacher, view).double(), method.center.double(), 0.04
                )
                for view in clips.large[:, clip, frame]
            ]
            entropies += [naive.entropy(target) for target in targets]
            crops = [crop[clip, frame] for crop in clips.small]
            for u in range(2):
                for image in (clips.large[1 - u, clip, frame], *crops):
                    logits = logits_of(method.student, image).detach().double()
                    cross = naive.cross_entropy(targets[u], logits, 0.1)
                    divergences.append(float(cross) - entropies[-2 + u])
    assert_near(losses["teacher_entropy"], torch.tensor(entropies).double().mean())
    assert_near(losses["teacher_kl"], torch.tensor(divergences).double().mean())
    assert_near(losses["center_norm"], method.center.double().square().sum().sqrt())
    assert not any(v.requires_grad for k, v in losses.items() if not k.startswith("loss"))
    summed = dino(dtype, reduction="sum")
    summed.load_state_dict(method.state_dict())
    assert_close(summed(clips)["teacher_kl"], losses["teacher_kl"])


def test_a_collapse_is_seen() -> None:
    method = dino()
    method.center.zero_()
    for network in (method.teacher, method.student):
        for parameter in network.head.last_layer.parameters():
            torch.nn.init.ones_(parameter)  # all outputs are one
    losses = method(views())
    assert losses["teacher_entropy"].item() == pytest.approx(math.log(6), rel=1e-5)
    assert losses["teacher_kl"].item() == pytest.approx(0, abs=1e-5)
    method.center[0] = -1e3  # one output has all
    assert method(views())["teacher_entropy"].item() == pytest.approx(0, abs=1e-5)


def test_without_small_views() -> None:
    method, clips = dino(), views()
    alone = method(Views(clips.large))
    assert "loss_local" not in alone
    assert_close(alone["loss_global"], 3 * method(clips)["loss_global"])  # of 2 terms, not of 6


def test_every_local_crop_has_a_gradient_number_0_too() -> None:
    clips = views(m=3)
    clips.small.requires_grad_()
    total(dino()(clips)).backward()
    assert bool((clips.small.grad.flatten(3).abs().amax(-1) > 1e-6).all())


def test_the_teacher_has_no_gradient_and_one_pass() -> None:
    method, passes = dino(), {"teacher": 0, "student": 0}

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            passes[name] += 1

        return hook

    for name in passes:
        getattr(method, name).backbone.blocks[-1].register_forward_hook(count(name))
    total(method(views())).backward()
    assert passes == {"teacher": 1, "student": 2}
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    trained = [p for p in method.student.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained) and trained


def test_dropped_paths_are_the_students_alone() -> None:
    method = dino(vit={"drop_path_rate": 0.9, "depth": 4})
    assert method.training and method.student.backbone.training
    image = views().large[0, 0]
    for switch in (lambda: None, method.train, method.eval, method.train):
        switch()
        assert not any(m.training for m in method.teacher.modules())
        first, second = (method.teacher_encoder.cls(image) for _ in range(2))
        assert torch.equal(first, second)
    first, second = (method.student_encoder.cls(image) for _ in range(2))
    assert not torch.allclose(first, second)


def stepped(method: SelfDistillation, *batches: Views, optimizer: Any = None) -> Any:
    """One step on the mean over batches, gradients accumulated."""
    optimizer = optimizer or torch.optim.SGD(method.student.parameters(), lr=0.5)
    method.attach(optimizer)
    for batch in batches:
        (total(method(batch)) / len(batches)).backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.996, 1.0])
def test_a_step_moves_the_teacher_by_exactly_the_formula(decay: float, dtype: torch.dtype) -> None:
    method = dino(dtype, ema_decay=decay)
    before = [p.clone() for p in method.teacher.parameters()]
    student = [p.clone() for p in method.student.parameters()]
    stepped(method, views(dtype))
    moved = 0
    for old, was, new, mine in zip(
        before, student, method.student.parameters(), method.teacher.parameters(), strict=True
    ):
        moved += int(not torch.equal(was, new))
        assert_close(mine.detach(), decay * old + (1 - decay) * new.detach())
        assert decay not in (0, 1) or torch.equal(mine, old if decay else new)
    assert moved > 10  # the student of after the step, not of before


def test_without_a_step_nothing_moves() -> None:
    method, clips = dino(), views()
    before = {k: v.clone() for k, v in method.state_dict().items() if k != "steps"}
    total(method(clips)).backward()
    method.attach(torch.optim.SGD(method.student.parameters(), lr=0.5))
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items() if k != "steps")


def test_buffers_of_the_student_are_copied() -> None:
    backbone = vit()
    backbone.register_buffer("statistic", torch.zeros(3))
    method = DINO(backbone, HEAD)
    method.student.backbone.statistic += 5
    stepped(method, views())
    assert method.teacher.backbone.statistic.tolist() == [5, 5, 5]


def teacher_logits(method: SelfDistillation, clips: Views) -> Tensor:
    return torch.stack([logits_of(method.teacher, x) for x in clips.large.flatten(0, 2)]).detach()


def test_the_center_is_that_of_all_batches_since_the_last_step(dtype: torch.dtype) -> None:
    """Batches of different sizes: a mean over rows, not over batches."""
    method, batches = dino(dtype, center_decay=0.7), [views(dtype, b=1), views(dtype, b=3)]
    rows = torch.cat([teacher_logits(method, batch) for batch in batches]).double()
    before, ema = method.center.clone().double(), method.ema_decay
    optimizer = stepped(method, *batches)
    assert ema == method.ema_decay
    expected = 0.7 * before + 0.3 * rows.mean(0)
    assert_near(method.center, expected)
    rows = teacher_logits(method, batches[0]).double()
    stepped(method, batches[0], optimizer=optimizer)  # and none of those before
    assert_near(method.center, 0.7 * expected + 0.3 * rows.mean(0))
    optimizer.step()  # with nothing seen
    assert_near(method.center, 0.7 * expected + 0.3 * rows.mean(0))


def test_accumulated_gradients_are_those_of_the_whole_batch(dtype: torch.dtype) -> None:
    method, clips = dino(dtype), views(dtype, b=4)
    other = copy.deepcopy(method)
    halves = [Views(clips.large[:, i : i + 2], clips.small[:, i : i + 2]) for i in (0, 2)]
    stepped(method, clips)
    stepped(other, *halves)
    for name, value in method.state_dict().items():
        assert name == "steps" or torch.allclose(value, other.state_dict()[name], atol=1e-5)
    assert (int(method.steps), int(other.steps)) == (1, 2)


def test_attached_twice_is_attached_once() -> None:
    method, clips = dino(ema_decay=0.5), views()
    other = copy.deepcopy(method)
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.5)
    method.attach(optimizer)
    stepped(method, clips, optimizer=optimizer)
    stepped(other, clips)
    assert_close(method.state_dict(), other.state_dict())


def test_the_last_layer_is_frozen_while_it_is_said() -> None:
    method = dino()
    weight = method.student.head.last_layer.weight_v
    before = weight.detach().clone()
    adam = torch.optim.AdamW(method.student.parameters(), lr=0.1, weight_decay=0.5)
    method.freeze_last_layer = True
    stepped(method, views(), optimizer=adam)
    assert torch.equal(weight, before)
    assert bool(method.student.head.mlp[0].weight.isfinite().all())
    method.freeze_last_layer = False
    stepped(method, views(), optimizer=adam)
    assert not torch.allclose(weight, before)


def test_a_norm_that_is_clipped_has_nothing_of_the_frozen_layer() -> None:
    method, clips = dino(), views()
    layer = method.student.head.last_layer.weight_v
    rest = [p for p in method.student.parameters() if p.requires_grad and p is not layer]
    total(method(clips)).backward()
    without = torch.stack([p.grad.norm() for p in rest]).norm()
    assert float(layer.grad.norm()) > 0
    method.zero_grad()
    method.freeze_last_layer = True
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.0)
    method.attach(optimizer)
    total(method(clips)).backward()
    assert_close(torch.nn.utils.clip_grad_norm_(method.student.parameters(), 3.0), without)
    optimizer.step()
    assert layer.grad is None  # which a zero is not: it would be decayed


def test_temperature_and_decay_may_change_at_any_time() -> None:
    method, clips = dino(), views()
    sharp = method(clips)["teacher_entropy"]
    method.teacher_temperature = 10.0
    flat = method(clips)["teacher_entropy"]
    assert float(sharp) < float(flat)
    assert float(flat) == pytest.approx(math.log(6), abs=0.02)


def test_a_scaler_that_skips_a_step_moves_nothing() -> None:
    method = dino()
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.5)
    method.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(total(method(views()))).backward()
    method.student.head.mlp[0].weight.grad[0, 0] = float("inf")
    before = {k: v.clone() for k, v in method.state_dict().items()}
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def trained(method: SelfDistillation, optimizer: Any, steps: range) -> list[float]:
    out = []
    for step in steps:
        torch.manual_seed(step)  # dropped paths, and the views
        clips = views()
        loss = total(method(clips))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        out.append(float(loss.detach()))
    return out


@pytest.mark.parametrize("name", ["DINO", "DoRA"])
def test_its_state_is_a_complete_checkpoint(name: str) -> None:
    """Saved, loaded into another and gone on with: bit for bit as if it had not stopped."""

    def fresh() -> tuple[SelfDistillation, Any]:
        more = {"objects": 2} if name == "DoRA" else {}
        method = mixplug.build(name, "selfsup", backbone=vit(drop_path_rate=0.2), head=HEAD, **more)
        optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
        method.attach(optimizer)
        return method, optimizer

    method, optimizer = fresh()
    trained(method, optimizer, range(3))
    saved = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
    expected = trained(method, optimizer, range(3, 6))
    method, optimizer = fresh()
    method.load_state_dict(saved[0]), optimizer.load_state_dict(saved[1])
    assert trained(method, optimizer, range(3, 6)) == expected
    heads = {key.split(".")[0] for key in saved[0]}
    assert heads == {"student", "teacher", "center", "steps"}
    assert {k.split(".")[1] for k in saved[0] if k.startswith("teacher")} == {"backbone", "head"}


def test_steps_are_those_of_training() -> None:
    method, clips = dino(), views()
    method(clips), method(clips)
    assert int(method.steps) == 2 and method.steps.dtype == torch.int64
    method.eval()
    before = method.center.clone()
    method(clips)
    assert int(method.steps) == 2
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.0)
    method.train(), method.attach(optimizer), optimizer.step()
    with_two = method.center.clone()
    assert not torch.equal(with_two, before)  # by what was seen in training
    method.eval()
    method(clips), optimizer.step()
    assert torch.equal(method.center, with_two)  # and in evaluation nothing is


@pytest.mark.parametrize("name", ["DINO", "DoRA"])
def test_the_host_does_not_wait_for_the_device(name: str) -> None:
    method, clips = mixplug.build(name, backbone=vit(), head=HEAD), views()
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1)
    method.attach(optimizer)
    with NoHostSync():
        for _ in range(2):
            total(method(clips)).backward()
        optimizer.step()
    with pytest.raises(AssertionError, match="_local_scalar_dense waits"), NoHostSync():
        float(method.center.sum())


@pytest.mark.parametrize("name", ["DINO", "DoRA"])
def test_losses_and_center_are_exact_under_autocast(name: str) -> None:
    method, clips = mixplug.build(name, backbone=vit(), head=HEAD), views()
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1)
    plain = method(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method(clips)
    assert all(v.dtype == torch.float32 and bool(v.isfinite()) for v in losses.values())
    assert float(total(losses).detach()) == pytest.approx(float(total(plain).detach()), rel=0.2)
    stepped(method, clips, optimizer=optimizer)
    assert method.center.dtype == torch.float32


def test_a_backbone_by_name_or_keys() -> None:
    keys = {"name": "vit_tiny_patch16_224", "depth": 1, "embed_dim": 48}
    method = mixplug.build({"type": "DINO", "backbone": keys, "head": HEAD, "heads": 6})
    assert method.student_encoder.heads == method.teacher_encoder.heads == 6
    assert method.student_encoder.width == 48
    backbone = vit()
    assert DINO(backbone, HEAD).student.backbone is backbone


REFUSED = {
    "student_temperature": (0, "DINO needs student_temperature > 0, got 0"),
    "teacher_temperature": (-1, "DINO needs teacher_temperature > 0, got -1"),
    "center_decay": (1.1, r"DINO needs center_decay in \[0, 1\], got 1.1"),
    "ema_decay": (-0.1, r"DINO needs ema_decay in \[0, 1\], got -0.1"),
    "reduction": ("none", r"DINO needs reduction in \('mean', 'sum'\), got 'none'"),
    "recompute": ("norm", r"needs recompute some of \('norm', 'activation'\), got 'norm'"),
    "heads": (5, "width of 12 cannot be split into 5 heads"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_settings_that_are_not_allowed(key: str) -> None:
    value, message = REFUSED[key]
    with pytest.raises(ValueError, match=message):
        DINO(vit(), HEAD, **{key: value})


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_another_architecture(strict: bool) -> None:
    """Hosts load what fits and go on; here nothing is loaded."""
    method, more = dino(), {"head.last_layer.weight_v": torch.ones(2, 2)}
    before = copy.deepcopy(method.state_dict())
    deeper, wider = DINO(vit(depth=3), HEAD), DINO(vit(), {**HEAD, "hidden": 9})
    for state, message in (
        (wider.state_dict(), r"student.head.mlp.0.weight: \(9, 12\) there, \(\d+, 12\) here"),
        (deeper.state_dict(), r"blocks.2.norm1.weight: \(12,\) there, none here.*and \d+ more"),
        ({k: v for k, v in before.items() if k != "center"}, r"center: none there, \(\d+,\) here"),
        ({**before, **more}, "`mixplug weights` compares"),
    ):
        with pytest.raises(ValueError, match="of another architecture than this DINO.*" + message):
            method.load_state_dict(state, strict=strict)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    names = {"weight_g": "parametrizations.weight.original0",
             "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    theirs = {k: v + 1 for k, v in before.items()}
    for ours, other in names.items():
        theirs = {k.replace(ours, other): v for k, v in theirs.items()}
    method.load_state_dict(theirs)
    assert all(torch.equal(v, before[k] + 1) for k, v in method.state_dict().items())


def test_views_that_do_not_fit() -> None:
    clips, method = views(), dino()
    message = (
        r"DINO needs large views \(2, B, T, 3, H, W\) and small ones \(m, B, T, 3, h, w\) or None, "
        r"got \(1, 2, 3, 3, 16, 12\) and \(2, 2, 3, 3, 8, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        method(Views(clips.large[:1], clips.small))
    with pytest.raises(ValueError, match="and None"):
        method(Views(clips.large[0]))
    with pytest.raises(ValueError, match=r"and \(2, 2, 1, 3, 8, 8\)"):
        method(Views(clips.large, clips.small[:, :, :1]))
    with pytest.raises(ValueError, match="not divisible by the patch of 4 x 4"):
        method(Views(clips.large[..., :-1], clips.small))
