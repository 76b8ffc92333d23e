"""A ViT that is built from the shapes of a checkpoint gives the checkpoint's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from weights import made

from mixplug.models.self_distillation import DoRA
from mixplug.models.vit import vit_of
from mixplug.models.vit.encoder import as_encoder
from mixplug.weights import keys_of

KINDS = {
    "plain": {},
    "registers": {"reg_tokens": 3},
    "registers without positions": {"reg_tokens": 3, "no_embed_class": True},
    "norms of queries": {"qk_norm": True},
    "norms of queries, four heads": {"qk_norm": True, "num_heads": 4},
    "layer scale": {"init_values": 0.1},
    "norm before": {"pre_norm": True},
    "no biases": {"qkv_bias": False},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "average": {"global_pool": "avg"},
    "other sizes": {"embed_dim": 192, "num_heads": 3, "depth": 3, "mlp_ratio": 4, "patch_size": 16},
    "odd hidden width": {"embed_dim": 192, "num_heads": 3, "mlp_ratio": 500.3 / 192},
    "oblong patches": {"patch_size": (8, 4), "img_size": (32, 16)},
    "a classifier": {"num_classes": 5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_timm(kind: str, tmp_path: Path) -> None:
    source = made.timm_vit(**KINDS[kind])
    torch.save(source.state_dict(), tmp_path / "a.pth")
    known = {"act_layer": "gelu"} if kind == "norm before" else {}  # its shapes do not tell
    found, report = vit_of(tmp_path / "a.pth", **known)
    size = (2, 3, *source.patch_embed.img_size)
    source.reset_classifier(0)
    assert torch.equal(made.output(found, size), made.output(source, size))
    assert report.complete and not report.unexpected and not report.resized
    assert not found.training and found.dynamic_img_size
    assert made.output(found, (1, 3, 64, 48)).shape == (1, source.embed_dim)


@pytest.mark.parametrize("host", [made.dino, made.mm], ids=["dino", "mm"])
@pytest.mark.parametrize("model", [made.timm_vit, made.mm_vit], ids=["timm", "mmpretrain"])
def test_checkpoints_of_self_distillation(host, model, tmp_path: Path) -> None:
    teacher, student = model(), model()
    path = host(tmp_path / "a.pth", teacher, student)
    for part, source in ((None, teacher), ("teacher", teacher), ("student", student)):
        found, report = vit_of(path, part)
        torch.testing.assert_close(made.output(found), made.output(source), atol=1e-5, rtol=1e-5)
        assert report.source.startswith(part or "teacher")
    tokens = as_encoder(found).tokens(torch.randn(1, 3, 32, 32))
    assert tokens.grid == (4, 4) and tokens.queries.shape == (1, 2, 17, 64)


def test_checkpoints_of_mixplug(tmp_path: Path) -> None:
    head = {"out_dim": 20, "hidden": 16, "bottleneck": 8}
    method = made.shaken(DoRA(made.timm_vit(dynamic_img_size=True), objects=2, head=head))
    torch.save({"state_dict": made.under("method.", method)}, tmp_path / "a.pth")
    for name in ("teacher", "student"):
        found, report = vit_of(tmp_path / "a.pth", name)
        source = method.get_submodule(f"{name}.backbone")
        assert torch.equal(made.output(found), made.output(source))
        assert report.source == f"{name} ('state_dict.method.{name}.backbone.*') of a.pth"


def test_heads_and_grid_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    source = made.timm_vit(num_heads=4, img_size=(16, 64))
    torch.save(source.state_dict(), path)
    found, _ = vit_of(path, heads=4, grid=(2, 8))
    size = (2, 3, 16, 64)
    assert torch.equal(made.output(found, size), made.output(source, size))
    assert not torch.allclose(
        made.output(vit_of(path, grid=(2, 8))[0], size), made.output(source, size)
    )
    assert vit_of(path, heads=4, grid=(2, 8), drop_path_rate=0.5)[0].blocks[1].drop_path1.drop_prob
    no_embed = made.timm_vit(img_size=(16, 48), no_embed_class=True).state_dict()
    assert keys_of(no_embed, grid=(2, 6))["no_embed_class"]
    assert not keys_of(source.state_dict(), grid=(2, 8))["no_embed_class"]


def test_keys_of_vit_small(tmp_path: Path) -> None:
    source = timm.create_model("vit_small_patch16_224", num_classes=0)
    keys = keys_of(source.state_dict())
    assert (keys["embed_dim"], keys["depth"], keys["num_heads"]) == (384, 12, 6)
    assert (keys["patch_size"], keys["img_size"]) == ((16, 16), (224, 224))


def test_timms_own_weights(tmp_path: Path) -> None:
    source = made.shaken(timm.create_model("vit_tiny_patch16_224", depth=1))
    torch.save(source.state_dict(), tmp_path / "a.pth")
    own = {"file": str(tmp_path / "a.pth"), "url": "", "hf_hub_id": None}
    found, report = vit_of("timm:vit_tiny_patch16_224", depth=1, pretrained_cfg_overlay=own)
    assert report is None and not found.training
    size = (1, 3, 224, 224)
    source.reset_classifier(0)
    assert torch.equal(made.output(found, size), made.output(source, size))
    assert made.output(found, (1, 3, 32, 64)).shape == (1, 192)


def test_invalid_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"

    def saved(state: dict) -> Path:
        torch.save(state, path)
        return path

    with pytest.raises(
        ValueError, match=r"no vision transformer of .* model \(no prefix\), but conv"
    ):
        vit_of(saved({"conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)}))
    narrow = made.timm_vit(embed_dim=96, num_heads=3).state_dict()
    with pytest.raises(ValueError, match=r"96 cannot be split into heads of 64 channels\. Pass"):
        vit_of(saved(narrow))
    with pytest.raises(ValueError, match="96 cannot be split into 5 heads"):
        vit_of(path, heads=5)
    plain = made.timm_vit().state_dict()
    with pytest.raises(
        ValueError, match=r"is not a ViT that timm has: .*unexpected: blocks.\*.other"
    ):
        vit_of(saved(plain | {"blocks.0.other": torch.ones(1, 4, 128)}))
    with pytest.raises(
        ValueError, match=r"same width beside them; got register_tokens of \(1, 4, 8"
    ):
        vit_of(saved(plain | {"register_tokens": torch.ones(1, 4, 8)}))
    less = {name: value for name, value in plain.items() if name != "blocks.1.norm2.bias"}
    with pytest.raises(ValueError, match=r"is not a ViT that timm has: .*missing: blocks.\*.norm2"):
        vit_of(saved(less))
    with pytest.raises(ValueError, match=r"another number of axes: \['pos_embed'\]"):
        vit_of(saved({name: value for name, value in plain.items() if name != "pos_embed"}))
    with pytest.raises(
        ValueError, match=r"no model 'vit_smal_patch16_224'. Nearest: vit_small_patc"
    ):
        vit_of("timm:vit_smal_patch16_224")
    with pytest.raises(
        ValueError, match=r"timm cannot build vit_tiny_patch16_224.none with its wei"
    ):
        vit_of("timm:vit_tiny_patch16_224.none")
