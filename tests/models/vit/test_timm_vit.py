"""TimmViT against timm's own maps, its sizes, what is frozen, and the pyramid after it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import ParallelThingsBlock
from torch import nn
from torch.testing import assert_close

import mixplug
from mixplug.models.vit.encoder import build_vit
from mixplug.models.vit.pyramid import ViTPyramid
from mixplug.models.vit.timm_vit import TimmViT

TINY = {"embed_dim": 24, "depth": 4, "num_heads": 3}
NAME = "vit_tiny_patch16_224"


def made(**keys: Any) -> TimmViT:
    torch.manual_seed(0)
    return TimmViT(NAME, **{"out_indices": (0, 1, 2, 3), **TINY, **keys})


def spread(model: nn.Module) -> nn.Module:
    """Every parameter at random: at the start, some are zero and hide what uses them."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def same_of_timm(vit: TimmViT, **keys: Any) -> Any:
    plain = timm.create_model(NAME, num_classes=0, **{**TINY, **keys}).eval()
    missing = plain.load_state_dict(vit.model.state_dict(), strict=False).missing_keys
    assert set(missing) <= {"norm.weight", "norm.bias"}
    return plain


@pytest.mark.parametrize("final_norm", [True, False])
def test_maps_are_those_of_timm(final_norm: bool) -> None:
    vit = spread(made(final_norm=final_norm, out_indices=(1, 3)))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        wanted = same_of_timm(vit).forward_intermediates(
            x, [1, 3], norm=final_norm, intermediates_only=True
        )
        assert_close(list(vit(x)), wanted, rtol=0, atol=0)


def test_a_block_may_be_given_twice() -> None:
    vit = spread(made(img_size=32, out_indices=(0, 2, 2)))
    first, second, third = vit(torch.randn(1, 3, 32, 32))
    assert torch.equal(second, third) and not torch.allclose(first, second)


@pytest.mark.parametrize("size", [(96, 160), (32, 32)])
def test_at_other_sizes_positions_are_interpolated(size: tuple[int, int]) -> None:
    vit = spread(made(img_size=64))
    fixed = timm.create_model(NAME, num_classes=0, img_size=size, **TINY).eval()
    state = dict(vit.model.state_dict())
    grid = [side // 16 for side in size]
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, [4, 4])
    fixed.load_state_dict(state, strict=False)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        wanted = fixed.forward_intermediates(x, [0, 1, 2, 3], intermediates_only=True)
        found = vit(x)
    assert_close(list(found), wanted)
    assert [tuple(level.shape[2:]) for level in found] == [tuple(grid)] * 4


def test_a_window_as_large_as_the_image_is_no_window() -> None:
    x = torch.randn(2, 3, 64, 48)
    plain, windowed = spread(made(img_size=64)), spread(made(img_size=64, window=4))
    windowed.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert_close(windowed(x), plain(x))


def test_which_blocks_attend_to_all() -> None:
    """A change in a corner is seen in the other one only from a global block on."""
    vit = spread(made(img_size=64, window=2, global_blocks=(2,), class_token=False,
                      global_pool="avg"))  # fmt: skip
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[..., :16, :16] += 1
    with torch.no_grad():
        moved = [
            bool((a[..., -1, -1] != b[..., -1, -1]).any())
            for a, b in zip(vit(x), vit(other), strict=True)
        ]
    assert moved == [False, False, True, True]
    assert [bool(b.attn._forward_pre_hooks) for b in made(window=2, depth=8).model.blocks] == [
        True, False, True, False,
    ]  # fmt: skip


def masked(vit: TimmViT, x: torch.Tensor, window: int, blocks: tuple[int, ...]) -> list[Any]:
    """Maps of a network without prefix tokens: full attention with a mask in these blocks."""
    model, grid = vit.model, [side // 16 for side in x.shape[2:]]
    tokens = model._pos_embed(model.patch_embed(x))
    number = torch.arange(grid[0])[:, None] // window * 100 + torch.arange(grid[1]) // window
    same = number.flatten()[:, None] == number.flatten()
    found = []
    for place, block in enumerate(model.blocks):
        e = block.norm1(tokens)
        q, k, v = block.attn.qkv(e).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        if place in blocks:
            scores = scores.masked_fill(~same, float("-inf"))
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
        attended = tokens + block.attn.proj(mixed)
        tokens = attended + block.mlp(block.norm2(attended))
        found.append(tokens.mT.unflatten(2, grid))
    return found


NO_CLASS = {"class_token": False, "global_pool": "avg"}


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=str)
def test_windows_are_full_attention_with_a_mask(size: tuple[int, int]) -> None:
    """Also where windows were filled up at the border."""
    vit = spread(made(img_size=64, window=2, global_blocks=(1, -1), **NO_CLASS)).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_close(list(vit(x)), masked(vit, x, 2, (0, 2)))


def test_norms_and_mlp_see_an_image_once() -> None:
    """Neither copies of the class token in every window, nor what windows were filled up with."""
    vit, shapes = spread(made(img_size=64, window=2)), []
    for block in vit.model.blocks:
        for part in (block.norm1, block.norm2, block.mlp):
            part.register_forward_hook(lambda _m, args, _out: shapes.append(tuple(args[0].shape)))
    with torch.no_grad():
        vit(torch.randn(2, 3, 48, 48))
    assert shapes == [(2, 1 + 9, 24)] * 12


def test_drop_path_drops_an_image_as_a_whole() -> None:
    """Of a windowed block: attention and MLP of each image are there entirely, or not at all."""
    vit = spread(made(img_size=64, window=2, global_blocks=(0,), depth=2, out_indices=(0, 1),
                      drop_path_rate=0.5, **NO_CLASS)).train()  # fmt: skip
    block = vit.model.blocks[1]
    with torch.no_grad():
        before, after = vit(torch.randn(12, 3, 64, 64))
        tokens = before.flatten(2).mT
        block.drop_path1.eval(), block.drop_path2.eval()
        vit._grid = (4, 4)
        attended = block.attn(block.norm1(tokens))
        ways = {}
        for first in (0, 2):  # what is kept weighs 1 / (1 - 0.5)
            middle = tokens + first * attended
            for second in (0, 2):
                ways[first, second] = middle + second * block.mlp(block.norm2(middle))
    seen = set()
    for image in range(12):
        fits = [
            way for way, out in ways.items()
            if torch.allclose(out[image], after.flatten(2).mT[image], atol=1e-3, rtol=1e-3)
        ]  # fmt: skip
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) > 2


def test_blocks_may_be_counted_from_the_end() -> None:
    first, second = made(out_indices=(1, -1)), made(out_indices=(1, 3))
    assert first.out_indices == second.out_indices == (1, 3)
    assert made(out_indices=[-1]).out_indices == (3,)
    assert len(made(out_indices=[-2]).model.blocks) == 3


def test_what_is_whole_enough_for_pretraining() -> None:
    vit = made(out_indices=(-1,), final_norm=True)
    assert vit.whole() is vit.model is build_vit(vit)
    for keys, said in (
        ({}, "TimmViT with final_norm=False, so that the last norm is missing. Build it with ou"),
        ({"out_indices": (2,), "final_norm": True}, "with out_indices without the last block, so"),
        ({"final_norm": True, "window": 2}, "with window=2. Build it with"),
        ({"frozen_stages": 1}, "is missing; frozen_stages=1. Build it with out_indices=(-1,), fin"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            build_vit(made(**keys))


def test_models_that_are_not_cut_into_patches() -> None:
    said = r"needs patches of the image \(timm\.layers\.PatchEmbed\), vit_tiny_r_s16_p8_224 has Hyb"
    with pytest.raises(ValueError, match=said):
        TimmViT("vit_tiny_r_s16_p8_224")
    with pytest.raises(ValueError, match="is a module 'attn', got ParallelThingsBlock: set w"):
        made(window=2, global_blocks=(), block_fn=ParallelThingsBlock)


@pytest.mark.parametrize("window", [0, 2])
def test_blocks_that_run_again_give_the_same_gradients(window: int) -> None:
    x = torch.randn(2, 3, 64, 80)
    gradients = []
    for with_cp in (False, True):
        vit = spread(made(img_size=64, window=window, with_cp=with_cp)).train()
        sum(level.square().mean() for level in vit(x)).backward()
        gradients.append([p.grad for p in vit.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1,)])
@pytest.mark.parametrize("final_norm", [True, False])
def test_every_parameter_has_a_gradient(out_indices: tuple[int, ...], final_norm: bool) -> None:
    vit = made(img_size=32, out_indices=out_indices, final_norm=final_norm, window=1)
    sum(level.square().sum() for level in vit(torch.randn(1, 3, 32, 32))).backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []
    assert len(vit.model.blocks) == out_indices[-1] + 1


@pytest.mark.parametrize(
    ("stages", "trained"),
    [
        (-1, {"cls_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1", "blocks.2",
              "blocks.3", "norm"}),
        (0, {"blocks.0", "blocks.1", "blocks.2", "blocks.3", "norm"}),
        (2, {"blocks.2", "blocks.3", "norm"}),
        (4, set()),
    ],
)  # fmt: skip
def test_what_is_frozen(stages: int, trained: set[str]) -> None:
    vit = made(frozen_stages=stages, final_norm=True, drop_path_rate=0.5).train()
    names = [name.removeprefix("model.") for name, p in vit.named_parameters() if p.requires_grad]
    assert {".".join(n.split(".")[: 1 + n.startswith("blocks")]) for n in names} == trained
    assert [b.training for b in vit.model.blocks] == [i >= stages for i in range(4)]


def test_depths_of_parameters() -> None:
    vit = made(final_norm=True)
    depths = {
        n: vit.get_layer_depth(f"backbone.{n}", "backbone.") for n, _ in vit.named_parameters()
    }
    assert {total for _, total in depths.values()} == {6}
    assert depths["model.pos_embed"][0] == depths["model.patch_embed.proj.weight"][0] == 0
    assert [depths[f"model.blocks.{i}.mlp.fc1.bias"][0] for i in range(4)] == [1, 2, 3, 4]
    assert depths["model.norm.weight"][0] == 5
    assert vit.get_layer_depth("roi_head.fc.weight", "backbone.") == (5, 6)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"out_indices": (0, 4)}, r"out_indices needs blocks in \[-4, 4\), got \(0, 4\): .* has 4"),
        ({"out_indices": (-5,)}, r"out_indices needs blocks in \[-4, 4\), got \(-5,\)"),
        ({"out_indices": (-1, 2)}, r"out_indices needs blocks in ascending order, got \(-1, 2\)"),
        ({"out_indices": (2, 1)}, r"out_indices needs blocks in ascending order, got \(2, 1\)"),
        ({"window": 2, "global_blocks": (7,)}, r"global_blocks needs blocks in \[-4, 4\)"),
        ({"frozen_stages": 5}, r"frozen_stages in \[-1, 4\], got 0 and 5"),
        ({"window": -1}, r"window >= 0 .*, got -1 and -1"),
    ],
)
def test_settings_that_are_not_allowed(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(**keys)


def test_models_of_another_kind() -> None:
    with pytest.raises(ValueError, match=r"resnet18 is a ResNet\. Use mixplug.TimmBackbone, which"):
        TimmViT("resnet18")
    with pytest.raises(
        ValueError, match=r"timm has no model 'vit_smal_patch16_224'\. Nearest: vit_"
    ):
        TimmViT("vit_smal_patch16_224")
    with pytest.raises(KeyError, match=r"TimmViT has no key 'windo'\. Did you mean 'window'"):
        made(windo=2)


def test_a_size_that_is_no_multiple_of_the_patch() -> None:
    with pytest.raises(ValueError, match=r"30 x 64 pixels are not divisible.*pad_size_divisor=32"):
        made()(torch.zeros(1, 3, 30, 64))


def test_it_is_in_the_table() -> None:
    vit = mixplug.build({"type": "TimmViT", "model_name": NAME, "out_indices": (3,), **TINY})
    assert isinstance(vit, TimmViT) and vit.num_features == 24


def test_strides_of_the_pyramid() -> None:
    """By impulses: where one pixel of a map goes."""
    neck = mixplug.build("ViTPyramid", embed_dim=6).eval()
    maps = [torch.randn(1, 6, 4, 6) for _ in range(4)]
    with torch.no_grad():
        levels = neck(maps)
    assert [tuple(level.shape) for level in levels] == [
        (1, 6, 16, 24), (1, 6, 8, 12), (1, 6, 4, 6), (1, 6, 2, 3),
    ]  # fmt: skip
    assert torch.equal(levels[2], maps[2])
    for row in range(2):
        for column in range(3):
            tile = maps[3][..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(levels[3][..., row, column], tile.amax((-2, -1)))
    once = neck.levels[1]
    for row in range(4):
        for column in range(6):
            wanted = torch.einsum("c,cokl->okl", maps[1][0, :, row, column], once.weight)
            tile = levels[1][0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert_close(tile, wanted + once.bias[:, None, None])


def test_the_pyramid_needs_four_maps() -> None:
    with pytest.raises(ValueError, match="needs 4 maps, got 3: set as many out_indices in the ba"):
        ViTPyramid(6)([torch.zeros(1, 6, 2, 2)] * 3)
