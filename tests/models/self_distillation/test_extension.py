"""A method as a third party writes it, against loops over clips, views, images and patches."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from distilling import HEAD, spread_out, total, views, vit
from extending import blocks, ibot
from reference import distill as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

import mixplug
from mixplug import sampling
from mixplug.models import SelfDistillation, Views

PATCH_HEAD = {"out_dim": 5, "hidden": 4, "bottleneck": 3, "layers": 2}
RATIO = (0.2, 0.6)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[SelfDistillation]]:
    """The class."""
    with ibot(tmp_path_factory.mktemp("ibot")) as found:
        yield found


def build(dtype: torch.dtype, **keys: Any) -> SelfDistillation:
    settings = {
        "backbone": vit(reg_tokens=1), "head": HEAD, "patch_head": PATCH_HEAD, "mask_ratio": RATIO,
        "ema_decay": 0.8, "seed": 3, **keys,
    }  # fmt: skip
    method = spread_out(mixplug.build("IBOT", "selfsup", **settings).to(dtype))
    method.centers["patch"].normal_()
    torch.nn.init.normal_(method.student.mask_token)
    return method


def test_it_is_short_and_uses_public_names_alone() -> None:
    code = blocks()[0]
    assert len(code.splitlines()) <= 60
    names = {n.attr for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Attribute)}
    assert {"add_target", "add_mask_token"} <= names
    assert not [name for name in names if re.match(r"_(?!_)", name)]
    imported = re.findall(r"^(?:from|import) (\S+)", code, flags=re.MULTILINE)
    assert all(module.count(".") < 2 for module in imported)


def naive_tokens(network: Any, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Class token (D,) and patch tokens (N, D) of one image, the mask token put in one by one."""
    backbone = network.backbone
    patches = backbone.patch_embed(image[None])  # (1, rows, columns, D)
    if mask is not None:
        flat = patches.flatten(0, 2)
        flat = torch.stack(
            [network.mask_token if m else x for m, x in zip(mask, flat, strict=True)]
        )
        patches = flat.view_as(patches)
    tokens = backbone.norm(backbone.blocks(backbone._pos_embed(patches)))[0]
    return tokens[0], tokens[2:]


def naive_losses(method: Any, clips: Views, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """L by loops, and the means of the teacher's logits for both targets."""
    clips_, frames = clips.large.shape[1:3]
    images = clips.large.flatten(0, 2)
    source = sampling.generators(3, step).local
    masks = sampling.block_masks(len(images), (4, 3), RATIO, source)
    logits: dict[str, list[Tensor]] = {"cls": [], "patch": []}
    patch_loss, cls_loss, student_cls, teacher_cls = 0.0, 0.0, [], []
    for image, mask in zip(images, masks, strict=True):
        cls, patches = (t.detach() for t in naive_tokens(method.teacher, image))
        logits["cls"].append(method.teacher.head(cls).detach().double())
        logits["patch"] += [x for x in method.teacher.heads.patch(patches).detach().double()]
        teacher_cls.append(naive.probabilities(logits["cls"][-1], method.center.double(), 0.04))
        seen, own = naive_tokens(method.student, image, mask)
        student_cls.append(method.student.head(seen).double())
        terms = []
        for n in [n for n in range(len(mask)) if mask[n]]:
            raw = logits["patch"][n - len(mask)]
            target = naive.probabilities(raw, method.center_patch.double(), 0.07)
            student = method.student.heads.patch(own[n]).double()
            terms.append(naive.cross_entropy(target, student, 0.1))
        patch_loss = patch_loss + sum(terms) / len(terms) / len(images)
    for b in range(clips_):
        for t in range(frames):
            first, second = (v * clips_ * frames + b * frames + t for v in (0, 1))
            pairs = [
                (teacher_cls[first], student_cls[second]),
                (teacher_cls[second], student_cls[first]),
            ]
            for crop in clips.small[:, b, t]:
                local = method.student.head(naive_tokens(method.student, crop)[0]).double()
                pairs += [(teacher_cls[first], local), (teacher_cls[second], local)]
            cls_loss = cls_loss + sum(naive.cross_entropy(p, x, 0.1) for p, x in pairs) / len(pairs)
    means = {name: torch.stack(rows).mean(0) for name, rows in logits.items()}
    return cls_loss / (clips_ * frames) + patch_loss, means


def test_two_steps_by_hand(kind: type, dtype: torch.dtype) -> None:
    """Losses and gradients, and what a step makes of the teacher and of both centers."""
    method = build(dtype, patch_temperature=0.07)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    method.attach(optimizer)
    for step in range(2):
        clips = views(dtype, b=2, t=1)
        before = {name: value.clone().double() for name, value in method.state_dict().items()}
        expected, means = naive_losses(method, clips, step)
        losses = method(clips)
        assert {"loss_global", "loss_local", "loss_patch"} <= losses.keys()
        named = [(n, p) for n, p in method.student.named_parameters() if p.requires_grad]
        assert "mask_token" in dict(named) and "heads.patch.last_layer.weight_v" in dict(named)
        assert_same_gradients(total(losses), expected, named)
        total(losses).backward()
        optimizer.step()
        optimizer.zero_grad()
        after = method.state_dict()
        for name in ("cls", "patch"):
            center = method.targets[name].center
            assert_near(after[center], 0.9 * before[center] + 0.1 * means[name])
        for name in [name for name in after if name.startswith("teacher.")]:
            student = after[name.replace("teacher.", "student.", 1)].double()
            assert_near(after[name], 0.8 * before[name] + 0.2 * student)


def test_what_only_the_student_has(kind: type) -> None:
    state = build(torch.float32).state_dict()
    assert state["student.mask_token"].shape == (12,)
    assert {name for name in state if "mask_token" in name} == {"student.mask_token"}
    assert state["center_patch"].shape == (5,) and state["center"].shape == (6,)
    heads = {name.split(".")[1] for name in state if name.startswith("teacher.")}
    assert heads == {"backbone", "head", "heads"}


def test_monitors(kind: type) -> None:
    method, clips = build(torch.float64), views(torch.float64)
    found = method(clips)
    assert {name for name in found if not name.startswith("loss")} == {
        "teacher_entropy", "teacher_kl", "center_norm", "teacher_entropy_patch",
        "center_norm_patch", "mask_share",
    }  # fmt: skip
    tokens = method.teacher_encoder.tokens(clips.large.flatten(0, 2)).patches.flatten(0, 1)
    rows = method.teacher.heads["patch"](tokens).detach()
    spread = [naive.entropy(naive.probabilities(row, method.center_patch, 0.07)) for row in rows]
    assert_near(found["teacher_entropy_patch"], torch.tensor(spread, dtype=torch.float64).mean())
    assert_near(found["center_norm_patch"], method.center_patch.norm())
    assert RATIO[0] - 0.1 <= float(found["mask_share"]) <= RATIO[1] + 0.1


def test_saved_and_loaded_it_goes_on(kind: type) -> None:
    """Bit for bit, with both centers, both heads and the mask token."""

    def run(method: Any, optimizer: Any, steps: range) -> list[float]:
        found = []
        for step in steps:
            torch.manual_seed(step)
            loss = total(method(views()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(float(loss.detach()))
        return found

    def fresh() -> tuple[Any, Any]:
        method = build(torch.float32, backbone=vit(drop_path_rate=0.2))
        optimizer = torch.optim.AdamW(method.student.parameters(), lr=1e-2)
        method.attach(optimizer)
        return method, optimizer

    method, optimizer = fresh()
    run(method, optimizer, range(2))
    saved = {name: value.clone() for name, value in method.state_dict().items()}
    moments = optimizer.state_dict()
    moments = torch.load(_bytes(moments), weights_only=True)
    expected = run(method, optimizer, range(2, 4))
    method, optimizer = fresh()
    method.load_state_dict(saved)
    optimizer.load_state_dict(moments)
    assert run(method, optimizer, range(2, 4)) == expected


def _bytes(state: Any) -> Any:
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_its_keys(kind: type) -> None:
    """Those of the base class stand among its own, and a wrong one is an error."""
    defaults = mixplug.catalog.find("IBOT").defaults
    assert list(defaults)[:4] == ["backbone", "patch_head", "patch_temperature", "mask_ratio"]
    assert defaults["ema_decay"] == 0.996 and defaults["head"] is None
    with pytest.raises(KeyError, match=r"IBOT has no key 'mask_ratios'. Did you mean 'mask_ratio'"):
        build(torch.float32, mask_ratios=0.3)
    with pytest.raises(
        KeyError, match=r"IBOT has no key 'center_deca'. Did you mean 'center_decay"
    ):
        build(torch.float32, center_deca=0.3)


def test_the_loop_of_the_page(kind: type) -> None:
    names: dict[str, Any] = {}
    exec(blocks()[1], names)
    assert int(names["method"].steps) == 2
    assert bool(names["method"].centers["patch"].any())
