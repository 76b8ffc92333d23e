"""Targets of a method: heads, centers and temperatures of their own, and their names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from distilling import HEAD, PATCH_HEAD, Patches, total, views, vit
from torch import Tensor
from torch.testing import assert_close

from mixplug.models.self_distillation import (
    DINO,
    SelfDistillation,
    StepOutput,
    Target,
    TeacherOutput,
)


def patches(**keys: Any) -> Patches:
    return Patches(vit(), head=HEAD, **keys)


def step(method: SelfDistillation, clips: Any = None) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    method.attach(optimizer)
    losses = method(clips or views())
    total(losses).backward()
    optimizer.step()
    return losses


def test_every_target_has_heads_and_a_center_of_its_own() -> None:
    method = patches()
    assert list(method.targets) == ["cls", "patch"] == list(method.centers)
    assert [len(center) for center in method.centers.values()] == [6, 5]
    assert method.student.head is not method.student.heads["patch"]
    for network in (method.student, method.teacher):
        assert network.heads["patch"].out_dim == 5
    assert_close(
        method.teacher.heads["patch"].state_dict(), method.student.heads["patch"].state_dict()
    )
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert not any(m.training for m in method.teacher.modules())


def test_dino_has_one_target_and_the_names_of_its_checkpoints() -> None:
    method = DINO(vit(), HEAD)
    assert list(method.targets) == ["cls"]
    assert {name.split(".")[0] for name in method.state_dict()} == {
        "student", "teacher", "center", "steps"
    }  # fmt: skip
    parts = {name.split(".")[1] for name in method.state_dict() if name.startswith("student.")}
    assert parts == {"backbone", "head"}


@pytest.mark.parametrize("key", ["student_temperature", "teacher_temperature", "center_decay"])
def test_numbers_of_the_class_token_are_attributes_of_the_method(key: str) -> None:
    method = DINO(vit(), HEAD, **{key: 0.3})
    assert getattr(method, key) == getattr(method.targets["cls"], key) == 0.3
    setattr(method, key, 0.2)
    assert method.targets["cls"] == Target(name="cls", head=HEAD, **{key: 0.2})


def test_temperatures_are_those_of_the_target() -> None:
    clips = views()
    method = patches()
    plain = method(clips)
    method.targets["patch"].teacher_temperature = 9.0
    other = method(clips)
    assert torch.equal(other["teacher_entropy"], plain["teacher_entropy"])
    assert float(other["teacher_entropy_patch"]) > float(plain["teacher_entropy_patch"])
    assert torch.equal(other["loss_global"], plain["loss_global"])
    assert not torch.equal(other["loss_patch"], plain["loss_patch"])


def test_a_target_given_twice_is_copied() -> None:
    target = Target(name="patch", tokens="patch", head=PATCH_HEAD)
    first, second = (DINO(vit(), HEAD) for _ in range(2))
    for method in (first, second):
        method.add_target(target)
    first.targets["patch"].teacher_temperature = 1.0
    assert second.targets["patch"].teacher_temperature == target.teacher_temperature == 0.04


def test_centers_move_by_the_decay_of_their_target() -> None:
    method, clips = patches(center_decay=0.7), views()
    frames = clips.large.flatten(0, 2)
    tokens = method.teacher_encoder.tokens(frames)
    rows = {
        "cls": method.teacher.head(tokens.cls),
        "patch": method.teacher.heads["patch"](tokens.patches).flatten(0, 1),
    }
    for center in method.centers.values():
        center.normal_()
    before = {name: center.clone() for name, center in method.centers.items()}
    step(method, clips)
    for name, decay in {"cls": 0.7, "patch": 0.4}.items():
        expected = decay * before[name] + (1 - decay) * rows[name].mean(0)
        assert_close(method.centers[name], expected.detach())


def test_shared_heads() -> None:
    """One head for both targets, and a center for each."""
    method = patches(patch={"head": "cls"})
    assert not method.student.heads and not method.teacher.heads
    assert [len(center) for center in method.centers.values()] == [6, 6]
    assert "center_patch" in method.state_dict()
    alone = copy.deepcopy(method)
    step(method)
    assert not torch.equal(method.center_patch, method.center)
    clips = views()
    losses = alone(clips)
    weight = alone.student.head.last_layer.weight_v
    grads = [
        torch.autograd.grad(losses[name], weight, retain_graph=True)[0]
        for name in ("loss_global", "loss_patch")
    ]
    assert all(float(g.abs().sum()) > 0 for g in grads)
    third = Target(name="third", tokens="patch", head="patch")
    method.add_target(third)
    assert method.head_of(method.student, third) is method.student.head


def test_two_targets_of_class_tokens() -> None:
    """Small views are predicted for both."""
    seen: list[StepOutput] = []

    class Two(DINO):
        def losses(self, outputs: StepOutput) -> dict[str, Tensor]:
            seen.append(outputs)
            return super().losses(outputs)

    method = Two(vit(), HEAD)
    method.add_target(Target(name="wide", head={**HEAD, "out_dim": 9}))
    method(views(b=2, t=3, m=4))
    shapes = {name: tuple(x.shape) for name, x in seen[0].small.items()}
    assert shapes == {"cls": (4, 6, 6), "wide": (4, 6, 9)}
    assert tuple(seen[0].student["wide"].shape) == (2, 6, 1, 9)
    assert tuple(seen[0].targets["wide"].shape) == (2, 6, 9)


def test_last_layers_of_all_heads_are_frozen() -> None:
    """Also from weight decay, which moves what has a gradient of zero."""
    method = patches()
    layers = [method.student.head.last_layer, method.student.heads["patch"].last_layer]
    optimizer = torch.optim.AdamW(method.student.parameters(), lr=0.1, weight_decay=0.5)
    method.attach(optimizer)
    for frozen in (True, False):
        method.freeze_last_layer = frozen
        before = [layer.weight_v.clone() for layer in layers]
        total(method(views())).backward()
        optimizer.step()
        optimizer.zero_grad()
        same = [torch.equal(a, b.weight_v) for a, b in zip(before, layers, strict=True)]
        assert same == [frozen, frozen]


def test_the_mask_token_is_trained_and_belongs_to_the_student() -> None:
    method = patches()
    token = method.student.mask_token
    before = token.detach().clone()
    assert method.student_encoder.mask_token is token and method.teacher_encoder.mask_token is None
    assert any(token is p for p in method.parameters())
    step(method)
    assert not torch.equal(token, before)
    assert "teacher.mask_token" not in method.state_dict()


def test_class_and_patch_tokens_come_from_one_pass() -> None:
    method, passes = patches(), {"student": 0, "teacher": 0}
    for name in passes:
        block = getattr(method, name).backbone.blocks[-1]
        block.register_forward_hook(lambda *_, name=name: passes.update({name: passes[name] + 1}))
    total(method(views())).backward()
    assert passes == {"student": 2, "teacher": 1}  # large and small views


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "name": (
        {"name": "a b"},
        r"DINO with the target 'a b' needs name to be a Python identifier other than cls, got 'a",
    ),
    "keyword": ({"name": "class"}, "got 'class'"),
    "taken": (
        {"name": "cls"},
        "DINO needs name to be a Python identifier other than cls, got 'cls'",
    ),
    "tokens": (
        {"name": "x", "tokens": "register"},
        r"DINO with the target 'x' needs tokens in \('cls', 'patch'\), got 'register'",
    ),
    "head": ({"name": "x", "head": "y"}, r"needs head in \['cls'\], got 'y'"),
    "student_temperature": (
        {"name": "x", "student_temperature": 0},
        "needs student_tempera.*got 0",
    ),
    "teacher_temperature": (
        {"name": "x", "teacher_temperature": -1},
        "teacher_temperature > 0, got",
    ),
    "center_decay": ({"name": "x", "center_decay": 2}, r"center_decay in \[0, 1\], got 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_targets_that_are_not_allowed(case: str) -> None:
    keys, message = WRONG[case]
    method = DINO(vit(), HEAD)
    with pytest.raises(ValueError, match=message):
        method.add_target(Target(**keys))


def test_an_unknown_key_of_a_head() -> None:
    with pytest.raises(KeyError, match=r"DINOHead has no key 'out_dims'. Did you mean 'out_dim'"):
        DINO(vit(), {"out_dims": 3})


def test_a_target_of_patches_without_their_tokens() -> None:
    method = DINO(vit(), HEAD)
    method.add_target(Target(name="patch", tokens="patch", head=PATCH_HEAD))
    message = "DINO has the target 'patch' of patches, so its method teach needs to return patch_t"
    with pytest.raises(ValueError, match=message):
        method(views())


@pytest.mark.parametrize(
    ("loss", "monitor", "message"),
    [
        ("patch_loss", "share", "losses of Named need to start with 'loss', got 'patch_loss'"),
        ("loss_patch", "no_loss", "monitors of Named must not contain 'loss', got 'no_loss'"),
    ],
)
def test_names_that_loops_would_sum_wrongly(loss: str, monitor: str, message: str) -> None:
    class Named(DINO):
        def losses(self, outputs: StepOutput) -> dict[str, Tensor]:
            return {loss: super().losses(outputs)["loss_global"]}

        def monitors(self, outputs: StepOutput, losses: Any) -> dict[str, Tensor]:
            return {**super().monitors(outputs, losses), monitor: torch.zeros(())}

    with pytest.raises(ValueError, match=message):
        Named(vit(), HEAD)(views())


def test_a_checkpoint_without_the_further_target_is_refused() -> None:
    method = patches()
    with pytest.raises(ValueError, match=r"another architecture than this Patches.*none there"):
        method.load_state_dict(DINO(vit(), HEAD).state_dict())


def test_the_teacher_sees_all_patches() -> None:
    method, x = patches(), torch.randn(2, 3, 16, 12)
    with pytest.raises(
        ValueError, match=r"needs a mask token, .* by add_mask_token\(\); the teach"
    ):
        method.teacher_encoder.cls(x, mask=torch.zeros(2, 12, dtype=torch.bool))


def test_old_names_of_the_teachers_output() -> None:
    from mixplug.models import self_distillation

    with pytest.warns(DeprecationWarning, match="Taught is now .*TeacherOutput"):
        old = self_distillation.Taught
    assert old is TeacherOutput
    x = torch.zeros(2, 3)
    with pytest.warns(DeprecationWarning, match="'tokens' of TeacherOutput is now 'class_tokens'"):
        assert TeacherOutput(tokens=x, images=x).class_tokens is x
