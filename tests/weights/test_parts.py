"""Which network of a checkpoint is used, in all layouts of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from weights import made

from mixplug.weights import part, parts, read

ONE, TWO, THREE = (torch.full((2,), float(i)) for i in (1, 2, 3))


@pytest.mark.parametrize("host", [made.dino, made.mm], ids=["dino", "mm"])
def test_teacher_and_student(host: Any, tmp_path: Path) -> None:
    teacher, student = made.timm_vit(), made.timm_vit()
    found = parts(read(host(tmp_path / "a.pth", teacher, student)))
    assert list(found) == ["teacher", "student"]
    wanted = {"teacher": teacher, "student": student}
    before = {made.dino: ("", "module."), made.mm: ("", "")}[host]
    holder = "state_dict.method." if host is made.mm else ""
    for (name, one), wrapper in zip(found.items(), before, strict=True):
        assert one.name == name and one.prefix == f"{holder}{name}.{wrapper}backbone."
        state = wanted[name].state_dict()
        assert one.backbone.keys() == state.keys()
        assert all(torch.equal(one.backbone[key], state[key]) for key in state)
        assert one.head.keys() == made.head().state_dict().keys()
    assert str(found["teacher"]) == f"teacher ('{holder}teacher.backbone.*')"


@pytest.mark.parametrize(
    ("saved", "name", "prefix"),
    [
        ({"blocks.0.w": ONE}, "model", ""),
        ({"state_dict": {"blocks.0.w": ONE}, "epoch": 3, "arch": "vit"}, "model", "state_dict."),
        ({"model": {"module.blocks.0.w": ONE}, "optimizer": {}}, "model", "model.module."),
        ({"_orig_mod.module.blocks.0.w": ONE}, "model", "_orig_mod.module."),
        ({"state_dict": {"blocks.0.w": TWO}, "state_dict_ema": {"blocks.0.w": ONE}}, "ema", None),
        ({"model": {"blocks.0.w": TWO}, "model_ema": {"module.blocks.0.w": ONE}}, "ema", None),
        ({"state_dict": {"backbone.blocks.0.w": ONE, "neck.w": TWO}}, "model", None),
        ({"state_dict": {"backbone.timm_model.blocks.0.w": ONE}}, "model", None),
        ({"state_dict": {"module.backbone.model.blocks.0.w": ONE}}, "model", None),
        ({"ema_state_dict": {"backbone.blocks.0.w": TWO},
          "state_dict": {"backbone.blocks.0.w": ONE}}, "model", "state_dict.backbone."),
        ({"teacher.backbone.blocks.0.w": ONE, "teacher.head.w": TWO}, "teacher", None),
        ({"teacher": {"blocks.0.w": ONE}, "student": {"blocks.0.w": TWO}}, "teacher", "teacher."),
        ({"state_dict": {"a.b.teacher._orig_mod.backbone.module.blocks.0.w": ONE,
                         "a.b.student.backbone.blocks.0.w": TWO, "a.center": THREE}},
         "teacher", None),
        ({"student": {"backbone.blocks.0.w": ONE}}, "student", None),
        ({"model_ema": {"teacher.blocks.0.w": ONE}}, "teacher", "model_ema.teacher."),
        ({"state_dict": {"teacher.backbone.blocks.0.w": ONE, "backbone.blocks.0.w": TWO}},
         "teacher", None),
    ],
)  # fmt: skip
def test_the_first_part_is_the_default(saved: dict, name: str, prefix: str | None) -> None:
    found = part(saved)
    assert (found.name, list(found.backbone)) == (name, ["blocks.0.w"])
    assert found.backbone["blocks.0.w"] is ONE
    assert prefix is None or found.prefix == prefix
    assert part(saved, name).prefix == found.prefix


def test_parts_by_name() -> None:
    saved = {"state_dict": {"teacher.backbone.w": ONE, "backbone.w": TWO, "student.w": THREE}}
    assert [part(saved, name).backbone["w"] for name in ("teacher", "model", "student")] == [
        ONE, TWO, THREE,
    ]  # fmt: skip
    classifier = {"state_dict": {"backbone.w": ONE, "head.fc.weight": TWO, "loss.proxies": THREE}}
    found = part(classifier, "model")
    assert dict(found.head) == {"fc.weight": TWO} and dict(found.backbone) == {"w": ONE}
    timm = part({"w": ONE, "head.weight": TWO})  # timm's classifier is part of the network
    assert dict(timm.backbone) == {"w": ONE, "head.weight": TWO} and not timm.head
    assert str(timm) == "model (no prefix)"


def test_invalid_parts() -> None:
    saved = {"teacher": {"backbone.w": ONE}, "student": {"backbone.w": ONE}}
    with pytest.raises(ValueError, match=r"no part ema\. It has: teacher, student\."):
        part(saved, "ema")
    with pytest.raises(
        ValueError, match="part must be teacher, ema, model or student; got 'tutor'"
    ):
        part(saved, "tutor")
    with pytest.raises(
        ValueError, match=r"The checkpoint has no tensors of a network, only the keys \['epoch'\]"
    ):
        part({"epoch": 3})
    two = {"first.backbone.w": ONE, "second.backbone.w": TWO}
    with pytest.raises(ValueError, match=r"part 'model' .* one backbone, got 2: \['first.backb"):
        part(two)
