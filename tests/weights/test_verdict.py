"""Loads that would ruin a network are refused, even if few values are missing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from weights import made

from mixplug.weights import Report, load, load_file, refusal

State = dict[str, Tensor]
SMALL = "vit_small_patch16_224"  # a size that is used in practice: 21,665,664 values


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return timm.create_model(SMALL, num_classes=0)


def without(state: State, missing: Callable[[str], bool]) -> State:
    return {name: value for name, value in state.items() if not missing(name)}


@pytest.mark.parametrize(
    ("missing", "percent", "message"),
    [
        (
            lambda n: n == "pos_embed",
            "99.65",
            "1 tensor of the model would stay randomly initialized: pos_emb",
        ),
        (
            lambda n: "norm" in n,
            "99.91",
            r"50 tensors of .*: blocks.\*.norm1.weight, blocks.\*.nor",
        ),
        (
            lambda n: n.endswith("bias") or n == "cls_token",
            "99.76",
            "75 tensors .*: cls_token, pat",
        ),
        (lambda n: n == "blocks.3.norm2.bias", "99.99", r"1 tensor .*: blocks.\*.norm2.bias"),
    ],
    ids=["positions", "norms", "biases", "one"],
)
def test_every_tensor_of_the_model_is_needed(
    missing: Callable[[str], bool], percent: str, message: str, small: nn.Module
) -> None:
    state = without(small.state_dict(), missing)
    share = sum(v.numel() for v in state.values()) / sum(p.numel() for p in small.parameters())
    assert f"{100 * share:.3f}".startswith(percent) and share > 0.99
    with pytest.raises(ValueError, match=rf"was not changed, because {message}") as caught:
        load(small, state)
    assert "; only a min_loaded below 0.99 allows that" in str(caught.value).splitlines()[-1]
    assert load(small, state, min_loaded=0.98).share == pytest.approx(share)


def test_a_wrong_shape_counts_as_missing() -> None:
    state = made.timm_vit().state_dict()
    state["norm.bias"] = torch.zeros(64)
    with pytest.raises(
        ValueError, match=r"because 1 tensor of the model would stay randomly initialized: norm\.b"
    ):
        load(made.timm_vit(), state)


def test_computed_tensors_may_be_missing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = without(net.state_dict(), lambda name: name.endswith("num_batches_tracked"))
    assert load(net, state).missing == {"1.num_batches_tracked": ()}
    beit = made.mmseg_beit()
    indices = without(beit.state_dict(), lambda name: name.endswith("relative_position_index"))
    assert load(beit, indices).complete


def test_a_mask_token_and_a_vits_classifier_may_be_missing() -> None:
    model = made.timm_vit(num_classes=3)
    model.mask_token = nn.Parameter(torch.zeros(1, 1, 128))
    report = load(model, made.timm_vit().state_dict())
    assert set(report.missing) == {"head.weight", "head.bias", "mask_token"}
    net = nn.ModuleDict(
        {"body": nn.Linear(900, 9), "head": nn.Linear(1, 1)}
    )  # not a ViT, so "head" may be anything
    with pytest.raises(
        ValueError, match=r"2 tensors of the model would stay randomly initialized: head\.weight"
    ):
        load(net, without(net.state_dict(), lambda name: name.startswith("head")))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"init_values": 0.1}, r"4 tensors .* dropped: blocks.\*.ls1.gamma, blocks.\*.ls2.gamma;"),
        (
            {"qk_norm": True},
            r"8 tensors .*: blocks.\*.attn.q_norm.weight, blocks.\*.attn.q_norm.bia",
        ),
        (
            {"pre_norm": True},
            "1 tensor of the model .* patch_embed.proj.bias; 2 tensors .* norm_pre",
        ),
        (
            {"reg_tokens": 4, "no_embed_class": True},
            r"pos_embed; 1 tensor .* dropped: reg_token; .*; the checkpoint has a class token "
            r"and 4 registers before the patches; the model has a class token before the patches",
        ),
    ],
    ids=["layer scale", "norms of queries", "norm before", "registers"],
)
@pytest.mark.parametrize("wrapped", ["", "backbone."])
def test_tensors_that_the_checkpoint_uses_are_not_dropped(
    keys: dict, message: str, wrapped: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": made.under(wrapped, made.timm_vit(**keys))}, tmp_path / "a.pth")
    target = made.timm_vit()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=message):
        load_file(target, tmp_path / "a.pth")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert load_file(target, tmp_path / "a.pth", min_loaded=0.98).unexpected


def test_registers_are_not_part_of_the_grid(tmp_path: Path) -> None:
    """Positions of registers and of the class token must not be mistaken for patches."""
    torch.save(made.timm_vit(reg_tokens=4).state_dict(), tmp_path / "a.pth")
    torch.save(made.timm_vit(class_token=False, global_pool="avg").state_dict(), tmp_path / "b.pth")
    for name, message in (
        (
            "a.pth",
            "a class token and 4 registers before the patches; the model has a class token b",
        ),
        ("b.pth", "no token before the patches; the model has a class token before the patches"),
    ):
        with pytest.raises(ValueError, match=f"the checkpoint has {message}"):
            load_file(made.timm_vit(), tmp_path / name)
    many = made.timm_vit(reg_tokens=4)
    with pytest.raises(
        ValueError, match=r"class token before .*; the model has a class token and 4"
    ):
        load(many, made.timm_vit().state_dict())
    wide = made.timm_vit(reg_tokens=4, img_size=64)
    assert load_file(wide, tmp_path / "a.pth").resized == {
        "pos_embed": ((1, 21, 128), (1, 69, 128))
    }


def test_further_blocks_and_heads_may_be_dropped() -> None:
    state = made.timm_vit(depth=4, num_classes=5).state_dict() | {
        "mask_token": torch.ones(1, 1, 128)
    }
    model = made.timm_vit()
    model.norm = nn.Identity()
    report = load(model, state)
    left = {name.rpartition(".")[0] for name in report.unexpected if "blocks" not in name}
    assert left == {"norm", "head", ""} and report.complete
    assert {n.split(".")[1] for n in report.unexpected if "blocks" in n} == {"2", "3"}


def test_numbered_modules_of_other_networks() -> None:
    """Squeeze-and-excitation changes a block of a ResNet; a fourth stage may be dropped."""
    own = {"layer1.0.conv1.weight": (9, 9), "conv1.weight": (3, 3)}
    more = {"layer4.0.conv1.weight": (9,), "fc.weight": (9,), "layer1.0.total_ops": (1,)}
    assert refusal(Report(own, unexpected=more)) == ""
    changed = Report(own, unexpected=more | {"layer1.0.se.fc1.weight": (1,)})
    assert refusal(changed).startswith(
        "1 tensor that the checkpoint's network uses would be dropped: layer1.0.se.fc1"
    )
    assert refusal(changed, 0.5) == "" and refusal(changed, 1.0) != ""


def test_the_share_comes_first() -> None:
    report = Report({"a": (3,)}, missing={"b": (1,)}, difference="the checkpoint has width 2")
    message = (
        "75.00 % of the model would be loaded, but 80 % are needed; the checkpoint has width 2"
    )
    assert refusal(report, 0.8) == message and refusal(report, 0.75) == ""


def test_the_last_line_has_the_verdict_and_the_difference(tmp_path: Path) -> None:
    other = made.timm_vit(embed_dim=64, num_heads=1, depth=3, patch_size=4)
    torch.save(made.under("teacher.", other), tmp_path / "a.pth")
    for target in (made.timm_vit(), made.mm_vit()):
        with pytest.raises(ValueError) as caught:
            load_file(target, tmp_path / "a.pth")
        assert str(caught.value).splitlines()[-1] == (
            "VisionTransformer was not changed, because 0.00 % of the model would be loaded, but "
            "99 % are needed; the checkpoint has width 64, depth 3, patches of 4 x 4 pixels; the "
            "model has width 128, depth 2, patches of 8 x 8 pixels."
        )
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"has no vision transformer, but conv1\.weight\."):
        load_file(made.timm_vit(), tmp_path / "b.pth")
