"""Class-to-patch attention against the matrix that unfused attention makes."""

from __future__ import annotations

from typing import Any

import mmpretrain
import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.models.utils.attention import MultiheadAttention
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug import Layout, Stages
from mixplug.hosts.mm.mixing.classifier import mm_stages
from mixplug.hosts.timm.stages import timm_stages

mmpretrain.utils.register_all_modules(init_default_scope=False)

_VIT = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 5}
VITS = {
    "square": {"img_size": 32},
    "wide": {"img_size": (16, 48)},
    "registers": {"img_size": (24, 16), "reg_tokens": 3},
    "norms": {"img_size": 32, "qk_norm": True},
    "pooled": {"img_size": 32, "global_pool": "avg", "class_token": True},
}
PREFIX = {"registers": 4}


def vit(kind: str = "square", **keys: Any) -> nn.Module:
    return sharp(timm.create_model("vit_small_patch16_224", **{**_VIT, **VITS[kind], **keys}))


def sharp(model: nn.Module) -> nn.Module:
    """With attention that differs from token to token and from head to head."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
        else:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def images(model: nn.Module, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *model.patch_embed.img_size)


def matrices(model: nn.Module) -> list[list[Tensor]]:
    """From now on every block notes the attention (B, h, P + N, P + N) that it multiplies by."""
    notes: list[list[Tensor]] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        notes.append([])
        block.attn.attn_drop.register_forward_pre_hook(
            lambda module, args, note=notes[-1]: note.append(args[0].detach())
        )
    return notes


def class_row(matrix: Tensor, prefix: int) -> Tensor:
    """The mean over heads of what the class token attends to among the patches."""
    total = torch.zeros(len(matrix), matrix.shape[-1] - prefix)
    for head in range(matrix.shape[1]):
        total += matrix[:, head, 0, prefix:].float()
    return total / matrix.shape[1]


@pytest.mark.parametrize("block", [None, -1, 2, 0])
@pytest.mark.parametrize("kind", VITS)
def test_of_timm(kind: str, block: int | None) -> None:
    model = vit(kind)
    notes, stages, prefix = matrices(model), timm_stages(model), PREFIX.get(kind, 1)
    stages.keep_attention(block)
    x = images(model)
    logits = stages(x).logits
    found = stages.attention(block)
    expected = class_row(notes[-1 if block is None else block][-1], prefix)
    assert found.shape == (2, model.patch_embed.num_patches) and found.dtype == torch.float32
    assert_close(found, expected)
    assert found.std() > 0.01  # not a uniform map, of which any order would do
    assert not found.requires_grad and logits.requires_grad
    assert_close(stages.probe(x, want={"attention"}, block=block).attention, expected)


def test_attention_stays_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    calls, fused = [], F.scaled_dot_product_attention

    def counted(*args: Any, **keys: Any) -> Tensor:
        calls.append(args[0].shape)
        return fused(*args, **keys)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    stages, x = timm_stages(model), images(model)
    stages.keep_attention()
    expected = model(x)
    del calls[:]
    assert torch.equal(stages(x).logits, expected)
    assert len(calls) == 3
    twin = vit()
    twin.load_state_dict(model.state_dict())
    notes = matrices(twin)
    twin(x)
    assert_close(stages.attention(), class_row(notes[-1][0], 1))


def test_it_is_that_of_the_latest_pass() -> None:
    """Whether that mixed, was dense, or a further one."""
    model = vit()
    notes, stages = matrices(model), timm_stages(model)
    stages.keep_attention()
    x = images(model, 3)
    for run in (
        lambda: stages(x, features=lambda a: (a + a.flip(0)) / 2, prefix=lambda t: 2 * t),
        lambda: stages(x, dense=lambda a: a),
        lambda: stages.again(x.flip(-1)),
    ):
        run()
        assert_close(stages.attention(), class_row(notes[-1][-1], 1))
    seen = stages.attention()
    stages.probe(x, want={"attention"})
    assert torch.equal(stages.attention(), seen)  # a probe is beside the step
    clean = seen.clone()
    stages.again(x[:2])  # replaces it, also with another size
    assert stages.attention().shape[0] == 2
    assert_close(stages.attention(), class_row(notes[-1][-1], 1))
    assert torch.equal(seen, clean)  # what was read before stays


def test_an_edit_of_the_grid_has_as_many_patches() -> None:
    model = vit()
    stages = timm_stages(model)
    stages.keep_attention()
    stages(images(model), features=lambda a: a[..., :2, :3])
    assert stages.attention().shape == (2, 6)


def test_under_autocast_and_in_training() -> None:
    model = vit(attn_drop_rate=0.5).train()
    notes, stages = matrices(model), timm_stages(model)
    stages.keep_attention()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stages(images(model))
    assert stages.attention().dtype == torch.float32
    assert_close(stages.attention(), class_row(notes[-1][-1], 1), atol=0.02, rtol=0.05)


def test_distillation_tokens_are_no_patches() -> None:
    """Two tokens come first; the class token is the first of them."""
    keys = {k: v for k, v in _VIT.items() if k != "num_classes"}
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=5, **keys)
    model.forward_head = lambda tokens, **keys: model.head(tokens[:, 0])  # else the mean of heads
    notes = matrices(sharp(model))
    stages = Stages(model, "blocks.1", "head", layout=Layout(prefix=2))
    stages.keep_attention()
    stages(images(model))
    assert_close(stages.attention(), class_row(notes[-1][-1], 2))


def mm_vit(**backbone: Any) -> nn.Module:
    config = {
        "type": "ImageClassifier",
        "backbone": {
            "type": "VisionTransformer",
            "arch": {
                "embed_dims": 32,
                "num_layers": 2,
                "num_heads": 4,
                "feedforward_channels": 64,
            },
            "img_size": (16, 48),
            "patch_size": 8,
            **backbone,
        },
        "head": {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 32},
        "_scope_": "mmpretrain",
    }
    return sharp(MODELS.build(config))


def test_of_mmpretrain() -> None:
    model, x = mm_vit(), torch.randn(2, 3, 16, 48)
    stages = mm_stages(model)
    stages.keep_attention()
    inputs = []
    attention = model.backbone.layers[-1].attn
    attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    stages(x)
    q, k, _ = (inputs[0] @ attention.qkv.weight.T + attention.qkv.bias).split(32, -1)
    expected = torch.zeros(2, 12)
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        scores = q[:, :1, part] @ k[..., part].mT / 8**0.5
        expected += scores.softmax(-1)[:, 0, 1:] / 4
    assert_close(stages.attention(), expected)
    assert stages.layout.grid_of(12, (16, 48)) == (2, 6)
    assert_close(stages.probe(x, want={"attention"}).attention, expected)


def test_the_grid_follows_the_size_of_the_image() -> None:
    model = vit(dynamic_img_size=True)
    stages = timm_stages(model)
    stages.keep_attention()
    x = torch.randn(1, 3, 16, 48)
    stages(x)
    count = stages.attention().shape[1]
    assert count == 12 and stages.layout.grid_of(count, x.shape[-2:]) == (2, 6)


def resnet() -> Stages:
    return timm_stages(timm.create_model("test_resnet", num_classes=5))


def beit() -> Stages:
    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    return timm_stages(timm.create_model("beit_base_patch16_224", num_classes=5, **keys))


@pytest.mark.parametrize("make", [resnet, beit])
def test_other_attention_is_refused(make: Any) -> None:
    message = (
        r"has no class attention: none of its modules is a timm\.layers\.attention\.Attention or "
        r"mmpretrain\.models\.utils\.attention\.MultiheadAttention with a qkv projection\."
    )
    stages = make()
    with pytest.raises(ValueError, match=message):
        stages.keep_attention()
    with pytest.raises(ValueError, match=message):
        stages.probe(torch.randn(1, 3, 32, 32), want={"attention"})


def test_another_scale_of_mmpretrain_is_refused() -> None:
    model = mm_vit()
    for layer in model.backbone.layers:
        layer.attn = MultiheadAttention(32, 4, qk_scale=0.1)
    with pytest.raises(ValueError, match="has no class attention"):
        mm_stages(model).keep_attention()


@pytest.mark.parametrize(
    "keys",
    [
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "global_pool": "avg", "reg_tokens": 2},
    ],
)
def test_without_a_class_token_there_is_none(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"VisionTransformer has no class token, so it has no cl"):
        timm_stages(vit(**keys)).keep_attention()


def test_a_block_that_is_not_there() -> None:
    message = (
        r"block needs to be in \[-3, 2\], since VisionTransformer has 3 blocks with class "
        r"attention, got 3\."
    )
    with pytest.raises(ValueError, match=message):
        timm_stages(vit()).keep_attention(3)


def test_what_was_not_kept_is_refused() -> None:
    model = vit()
    stages = timm_stages(model)
    stages(images(model))
    with pytest.raises(ValueError, match=r"call stages\.keep_attention\(\) in the mixer's attach"):
        stages.attention()
    stages.keep_attention(1)
    with pytest.raises(ValueError, match=r"There is no attention yet: run the model first\."):
        stages.attention(1)
    stages(images(model))
    with pytest.raises(ValueError, match=r"attention of block 0: call stages\.keep_attention\(0\)"):
        stages.attention(0)
