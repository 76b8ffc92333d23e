"""Class token, patches, queries and keys of timm's and mmpretrain's transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer as MMVisionTransformer
from timm.layers import DiffAttention
from timm.layers.attention import Attention
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.functional import cls_attention
from mixplug.models.vit.encoder import as_encoder, build_timm_vit, build_vit, set_heads
from mixplug.models.vit.encoder_base import RECOMPUTABLE

D, HEADS, DEPTH, PATCH = 12, 3, 2, 4
SIZES = [(16, 16), (8, 12)]
TIMM: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "normalized queries": {"qk_norm": True, "reg_tokens": 1},
    "positions without class": {"no_embed_class": True, "reg_tokens": 2},
    "average pooling": {"global_pool": "avg"},
    "layer scale and dropped paths": {"init_values": 0.1, "drop_path_rate": 0.3},
}
MM: dict[str, dict[str, Any]] = {
    "class token": {},
    "map": {"out_type": "featmap"},
    "raw": {"out_type": "raw", "layer_scale_init_value": 0.1},
    "first block too": {"out_indices": [0, 1], "out_type": "raw"},
    "without last norm": {"final_norm": False},
}


def timm_vit(**keys: Any) -> VisionTransformer:
    settings = {
        "img_size": 16, "patch_size": PATCH, "embed_dim": D, "depth": DEPTH, "num_heads": HEADS,
        "num_classes": 0, "dynamic_img_size": True, **keys,
    }  # fmt: skip
    return randomized(VisionTransformer(**settings))


def mm_vit(**keys: Any) -> MMVisionTransformer:
    arch = {
        "embed_dims": D, "num_layers": DEPTH, "num_heads": HEADS, "feedforward_channels": 2 * D
    }  # fmt: skip
    return randomized(MMVisionTransformer(arch, img_size=16, patch_size=PATCH, **keys))


def randomized(model: nn.Module) -> Any:
    """As if trained: no parameter is zero, and queries are long enough to prefer some keys."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    model.eval()  # of mmpretrain's it gives None
    return model


def models() -> dict[str, Any]:
    return {
        **{f"timm {name}": lambda keys=keys: timm_vit(**keys) for name, keys in TIMM.items()},
        **{f"mm {name}": lambda keys=keys: mm_vit(**keys) for name, keys in MM.items()},
    }


def put_in(patches: Tensor, mask: Tensor | None, token: Tensor | None) -> Tensor:
    """Embeddings of patches with the token at masked ones, one after the other."""
    if mask is None:
        return patches
    rows = []
    for image, hidden in zip(patches, mask, strict=True):
        flat = image.reshape(-1, image.shape[-1])
        rows.append(torch.stack([token if h else p for h, p in zip(hidden, flat, strict=True)]))
    return torch.stack(rows).view_as(patches)


def eager(
    model: Any, x: Tensor, mask: Tensor | None = None, token: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All tokens after the last norm, and the last attention matrix, block by block by hand."""
    if isinstance(model, VisionTransformer):
        tokens = model._pos_embed(put_in(model.patch_embed(x), mask, token))
        blocks, norm = model.blocks, lambda t: model.fc_norm(model.norm(t))
        parts = [(b.norm1, b.ls1, b.ls2, b.norm2, b.mlp) for b in blocks]
    else:
        from mmpretrain.models.utils import resize_pos_embed

        patches, grid = model.patch_embed(x)
        patches = put_in(patches, mask, token)
        tokens = torch.cat([model.cls_token.expand(len(x), -1, -1), patches], 1)
        tokens = tokens + resize_pos_embed(
            model.pos_embed, model.patch_resolution, grid, "bicubic", 1
        )
        blocks = model.layers
        norm = model.ln1 if model.final_norm else lambda t: t
        parts = [
            (b.ln1, b.attn.gamma1, lambda t, b=b: b.ffn.gamma2(t), b.ln2, b.ffn.layers)
            for b in blocks
        ]
    for block, (first, scale, scale_two, second, mlp) in zip(blocks, parts, strict=True):
        mixed, matrix = attend(block.attn, first(tokens))
        tokens = tokens + scale(mixed)
        tokens = tokens + scale_two(mlp(second(tokens)))
    return norm(tokens), matrix


def attend(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention with the matrix built, (B, h, P + N, P + N)."""
    b, n, d = x.shape
    q, k, v = attention.qkv(x).chunk(3, -1)
    q, k, v = (t.view(b, n, attention.num_heads, -1).transpose(1, 2) for t in (q, k, v))
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    matrix = (q @ k.mT / math.sqrt(d / attention.num_heads)).softmax(-1)
    return attention.proj((matrix @ v).transpose(1, 2).reshape(b, n, d)), matrix


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", models())
def test_tokens_are_those_of_eager_attention(name: str, size: tuple[int, int]) -> None:
    model = models()[name]().double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    view = as_encoder(model)
    expected, matrix = eager(model, x)
    tokens = view.tokens(x)
    n = size[0] * size[1] // PATCH**2
    prefix = expected.shape[1] - n
    assert (view.width, view.depth, view.heads, view.patch) == (D, DEPTH, HEADS, (PATCH, PATCH))
    assert tokens.prefix == view.prefix == prefix
    assert tokens.grid == view.grid(size) == (size[0] // PATCH, size[1] // PATCH)
    assert tokens.queries.shape == tokens.keys.shape == (2, HEADS, prefix + n, D // HEADS)
    assert_close(tokens.cls, expected[:, 0])
    assert_close(tokens.patches, expected[:, prefix:])
    assert_close(view.cls(x), expected[:, 0])
    found = cls_attention(tokens.queries, tokens.keys, prefix)
    assert_close(found, matrix[:, :, 0, prefix:])
    most = float(matrix[:, :, 0].detach().max())
    assert most > 1.1 / (prefix + n)  # or it would tell nothing apart


@pytest.mark.parametrize("name", models())
def test_it_is_what_the_network_itself_gives(name: str) -> None:
    """The class token of the host's own forward, where it gives one."""
    model, x = models()[name](), torch.randn(2, 3, 16, 16)
    if name in ("timm average pooling", "mm map"):
        return assert_close(as_encoder(model).tokens(x).cls, as_encoder(model).cls(x))
    out = model(x)
    out = out[-1] if isinstance(out, tuple) else out
    return assert_close(as_encoder(model).cls(x), out if out.dim() == 2 else out[:, 0])


@pytest.mark.parametrize("recompute", [(), RECOMPUTABLE], ids=["kept", "recomputed"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", models())
def test_masked_patches_are_the_token_before_positions(
    name: str, size: tuple[int, int], recompute: tuple[str, ...]
) -> None:
    """Values, and gradients of the token and of all parameters."""
    model = models()[name]().double()
    x = torch.randn(4, 3, *size, dtype=torch.float64)
    token = torch.randn(D, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(4, size[0] * size[1] // PATCH**2) < 0.5
    mask[0], mask[1] = False, True
    view = as_encoder(model, token)
    expected, _ = eager(model, x, mask, token)
    tokens = view.tokens(x, mask)
    cls, patches = view.cls_and_patches(x, recompute, mask)
    for found, wanted in (
        (tokens.cls, expected[:, 0]),
        (tokens.patches, expected[:, view.prefix :]),
        (cls, expected[:, 0]),
        (patches, expected[:, view.prefix :]),
        (view.cls(x, recompute, mask), expected[:, 0]),
        (view.tokens(x).cls[0], expected[0, 0]),
    ):
        assert_close(found, wanted)
    assert not torch.allclose(view.cls(x)[1:], expected[1:, 0])
    learned = [token, *model.parameters()]
    for found, wanted in (
        (
            cls.sin().sum() + patches.cos().sum(),
            expected[:, 0].sin().sum() + expected[:, view.prefix :].cos().sum(),
        ),
        (view.cls(x, recompute, mask).sin().sum(), expected[:, 0].sin().sum()),
    ):
        ours, theirs = (
            torch.autograd.grad(loss, learned, retain_graph=True, allow_unused=True)
            for loss in (found, wanted)
        )
        assert float(ours[0].abs().sum()) > 1e-3
        for one, other in zip(ours, theirs, strict=True):
            one = torch.zeros(()) if one is None else one
            assert_close(one, torch.zeros_like(one) if other is None else other)


@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_a_mask_of_a_fixed_size_that_is_no_square(make: Any) -> None:
    keys = {"dynamic_img_size": False, "img_size": (8, 12)} if make is timm_vit else {}
    model, x, token = make(**keys), torch.randn(2, 3, 8, 12), torch.randn(D)
    mask = torch.tensor([[True, False, False, True, False, True]] * 2)
    cls, patches = as_encoder(model, token).cls_and_patches(x, mask=mask)
    expected, _ = eager(model, x, mask, token)
    assert_close(torch.cat([cls[:, None], patches], 1), expected)


def test_a_masked_patch_is_not_seen() -> None:
    """Its pixels change nothing, those of other patches do."""
    view = as_encoder(timm_vit(reg_tokens=2), torch.randn(D))
    x, mask = torch.randn(1, 3, 8, 12), torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 4] = True  # row 1, column 1 of 2 x 3
    before = view.tokens(x, mask).patches
    x[..., 4:8, 4:8] += 1
    assert torch.equal(view.tokens(x, mask).patches, before)
    x[..., 4:8, 8:12] += 1
    assert not torch.allclose(view.tokens(x, mask).patches, before)


def test_a_mask_under_autocast_and_with_blocks_that_run_again() -> None:
    model, token, x = timm_vit(), torch.randn(D), torch.randn(2, 3, 8, 8)
    view, mask = as_encoder(model, token), torch.tensor([[True, False, True, False]] * 2)
    plain = view.cls_and_patches(x, RECOMPUTABLE, mask)
    with torch.autocast("cpu", torch.bfloat16):
        half = view.cls_and_patches(x, RECOMPUTABLE, mask)
    assert_close(half[1].float(), plain[1], rtol=0.1, atol=0.1)
    model.set_grad_checkpointing(True)
    for one, other in zip(view.cls_and_patches(x, RECOMPUTABLE, mask), plain, strict=True):
        assert_close(one, other)
    assert_close(view.cls(x, RECOMPUTABLE, mask), plain[0])


MASKS = {
    "patches": (torch.zeros(2, 3, dtype=torch.bool), r"\(B, N\) = \(2, 4\), got .* shape \(2, 3\)"),
    "images": (torch.zeros(1, 4, dtype=torch.bool), r"got torch.bool of shape \(1, 4\)"),
    "dtype": (torch.zeros(2, 4), r"needs to be bool and .* got torch.float32 of shape \(2, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_masks_that_do_not_fit(make: Any, case: str) -> None:
    mask, message = MASKS[case]
    model = make()
    before = hooks(model)
    view, x = as_encoder(model, torch.zeros(D)), torch.zeros(2, 3, 8, 8)
    for call in (view.cls, view.cls_and_patches, view.tokens):
        with pytest.raises(ValueError, match=message):
            call(x, mask=mask)
        with pytest.raises(ValueError, match="A mask needs a mask token, and this encoder has non"):
            getattr(as_encoder(model), call.__name__)(x, mask=torch.zeros(2, 4, dtype=torch.bool))
    assert hooks(model) == before


def test_dropped_patches_have_no_place() -> None:
    model = timm_vit(patch_drop_rate=0.5)
    view, x = as_encoder(model), torch.zeros(1, 3, 16, 16)
    view.tokens(x)
    model.train()
    view.cls(x)
    for call in (view.tokens, view.cls_and_patches):
        with pytest.raises(
            ValueError, match=r"all 16 patches of an image, the backbone gives 8: b"
        ):
            call(x)


def test_patches_are_in_the_order_of_the_grid() -> None:
    """With nothing but the patch embedding left, a bright patch is its own token."""
    model = timm_vit(reg_tokens=2, depth=1)
    for name, parameter in model.named_parameters():
        if not name.startswith(("patch_embed", "norm")):
            nn.init.zeros_(parameter)
    x = torch.zeros(1, 3, 8, 12)
    x[..., 4:8, 8:12] = 1  # row 1, column 2 of 2 x 3
    patches = as_encoder(model).tokens(x).patches[0]
    different = (patches != patches[0]).any(-1)
    assert different.tolist() == [False] * 5 + [True]


def hooks(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_one_pass_and_nothing_left_behind(make: Any) -> None:
    model = make()
    calls: list[int] = []
    model.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    before = hooks(model)
    view = as_encoder(model)
    tokens = view.tokens(torch.randn(1, 3, 16, 16))
    assert len(calls) == 1
    view.cls(torch.randn(1, 3, 16, 16))
    assert len(calls) == 2
    masked, mask = as_encoder(model, torch.zeros(D)), torch.ones(1, 16, dtype=torch.bool)
    for call in (
        view.tokens,
        lambda x: view.cls(x, RECOMPUTABLE),
        lambda x: masked.cls_and_patches(x, RECOMPUTABLE, mask),
    ):
        with pytest.raises(RuntimeError):
            call(torch.randn(1, 5, 16, 16))
    assert hooks(model) == before
    projection = tokens.keys.untyped_storage().data_ptr()
    assert tokens.queries.untyped_storage().data_ptr() == projection  # views, nothing is copied


@pytest.mark.parametrize("recompute", [(), RECOMPUTABLE], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", models())
def test_only_the_class_token_goes_on_and_its_gradients_are_the_same(
    name: str, recompute: tuple[str, ...]
) -> None:
    """Against all tokens through all of the last block; paths are dropped alike."""
    model, x = models()[name]().double(), torch.randn(3, 3, 8, 12, dtype=torch.float64)
    model.train()
    found = {}
    wide: list[int] = []
    for name_, module in model.named_modules():
        if name_ in ("blocks.1.mlp", "layers.1.ffn"):
            module.register_forward_pre_hook(lambda _, inputs: wide.append(inputs[0].shape[1]))
    for way, call in (
        ("few", lambda: as_encoder(model).cls(x, recompute)),
        ("all", lambda: all_of(model, x)),
    ):
        model.zero_grad()
        torch.manual_seed(5)
        tokens = call()
        tokens.sin().sum().backward()
        found[way] = [tokens, *(p.grad for p in model.parameters() if p.grad is not None)]
    assert len(found["few"]) == len(found["all"]) > 20
    for few, every in zip(found["few"], found["all"], strict=True):
        assert_close(few, every)
    assert wide == [1, as_encoder(model).prefix + 6]


def all_of(model: Any, x: Tensor) -> Tensor:
    return as_encoder(model)._tokens(x)[:, 0]


class Rolled(nn.Module):
    """A block after whose attention tokens meet again."""

    def __init__(self, dim: int, num_heads: int, **_: Any) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, num_heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x)).roll(1, 1)


def test_blocks_of_another_kind_take_all_tokens() -> None:
    model = timm_vit(block_fn=Rolled).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert_close(as_encoder(model).cls(x, RECOMPUTABLE), all_of(model, x))


def test_with_blocks_that_run_again() -> None:
    """timm's own checkpointing needs the blocks as they are when it runs them again."""
    x, gradients = torch.randn(2, 3, 16, 16), []
    model = timm_vit()
    for again in (False, True):
        model.set_grad_checkpointing(again)
        model.zero_grad()
        as_encoder(model).cls(x, RECOMPUTABLE).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_gradients_reach_all_parameters(make: Any) -> None:
    model = make()
    model.train()
    as_encoder(model).cls(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_sizes_that_the_patch_does_not_divide(make: Any) -> None:
    view = as_encoder(make())
    message = r"Images of 18 x 16 pixels are not divisible by the patch of 4 x 4: .* is 16 x 16\."
    with pytest.raises(ValueError, match=message):
        view.tokens(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match=r"nearest size is 4 x 16\."):
        view.cls(torch.zeros(1, 3, 3, 16))


def test_a_size_without_positions() -> None:
    view = as_encoder(timm_vit(dynamic_img_size=False))
    view.cls(torch.zeros(1, 3, 16, 16))
    message = (
        "positions for 16 x 16 pixels, got images of 8 x 16: build it with dynamic_img_size=True"
    )
    with pytest.raises(ValueError, match=message):
        view.cls(torch.zeros(1, 3, 8, 16))


REFUSED = {
    "another network": (
        lambda: nn.Linear(2, 2),
        "timm.models.vision_transformer.VisionTransformer or mmpretrain.models.backbones.vision_"
        "transformer.VisionTransformer, got Linear",
    ),
    "timm without class token": (
        lambda: timm_vit(class_token=False, global_pool="avg"),
        "needs a class token, got one without",
    ),
    "mm without class token": (
        lambda: mm_vit(with_cls_token=False, out_type="raw"),
        "needs a class token, got one without",
    ),
    "parallel blocks": (
        lambda: timm_vit(block_fn=ParallelScalingBlock),
        "last block of the VisionTransformer needs timm.layers.attention.Attention, got NoneType",
    ),
    "another attention": (
        lambda: timm_vit(attn_layer=DiffAttention, num_heads=3),
        "timm.layers.attention.Attention, got DiffAttention",
    ),
    "averaged maps of mm": (
        lambda: mm_vit(out_type="avg_featmap"),
        r"out_type in \('cls_token', 'featmap', 'raw'\), got 'avg_featmap'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        as_encoder(make())


@pytest.mark.parametrize("heads", [1, 4, 6])
@pytest.mark.parametrize("make", [timm_vit, mm_vit])
def test_the_last_block_is_split_anew(make: Any, heads: int) -> None:
    """The same weights, seen as more heads; blocks before are as they were."""
    model = make().double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    before, weights = (
        as_encoder(model).tokens(x),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    set_heads(model, heads)
    view = as_encoder(model)
    assert view.heads == heads
    tokens = view.tokens(x)
    expected, matrix = eager(model, x)
    assert tokens.queries.shape == (2, heads, 17, D // heads)
    assert_close(tokens.cls, expected[:, 0])
    assert_close(cls_attention(tokens.queries, tokens.keys), matrix[:, :, 0, 1:])
    assert_close(tokens.keys.transpose(1, 2).flatten(2), before.keys.transpose(1, 2).flatten(2))
    assert not torch.allclose(tokens.cls, before.cls)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    assert_close(view.cls(x), expected[:, 0])  # timm's own eager attention
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_heads_that_do_not_fit() -> None:
    for heads in (5, 0, -3):
        with pytest.raises(ValueError, match=f"width of 12 cannot be split into {heads} heads"):
            set_heads(timm_vit(), heads)
    model = timm_vit(qk_norm=True)
    with pytest.raises(ValueError, match="4 channels per head, so it cannot be split into 6 heads"):
        set_heads(model, 6)
    set_heads(model, 3)
    assert as_encoder(model).heads == 3


TINY = {"name": "vit_tiny_patch16_224", "depth": 1, "embed_dim": 48}


def test_timm_by_name() -> None:
    model = build_timm_vit(**TINY)
    assert as_encoder(model).cls(torch.zeros(1, 3, 32, 64)).shape == (1, 48)
    assert not any(name.startswith("head") for name, _ in model.named_parameters())
    assert not build_timm_vit(**TINY, dynamic_img_size=False).dynamic_img_size
    with pytest.raises(ValueError, match=r"no model 'vit_tinny_patch16_224'\. Nearest: vit"):
        build_timm_vit("vit_tinny_patch16_224")
    with pytest.raises(ValueError, match="resnet18 cannot be built as a VisionTransformer"):
        build_timm_vit("resnet18")
    with pytest.raises(ValueError, match="needs a class token"):
        build_timm_vit("vit_medium_patch16_gap_240", depth=1, embed_dim=64, num_heads=1)


def test_ways_to_give_a_backbone() -> None:
    model = timm_vit()
    assert build_vit(model) is model
    assert as_encoder(build_vit(TINY, heads=6)).heads == 6
    assert as_encoder(build_vit(TINY)).heads == 3
    assert as_encoder(build_vit("vit_tiny_patch16_224")).width == 192
