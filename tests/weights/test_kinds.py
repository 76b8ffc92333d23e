"""Files of other trainings: averaged models, old ResNets, MAE, and CLIP's activation."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from weights import made

from mixplug.models.vit import vit_of
from mixplug.models.vit.timm_vit import TimmViT
from mixplug.weights import convert, load_file, part, parts

CLIP = "vit_base_patch32_clip_quickgelu_224"
SMALL: dict[str, Any] = {"img_size": 64, "embed_dim": 128, "depth": 2, "num_heads": 2}


def test_averaged_models_of_torch(tmp_path: Path) -> None:
    """Weights of stochastic weight averaging, and of torchvision's --model-ema."""
    net = made.timm_vit()
    average = AveragedModel(net)
    average.update_parameters(made.shaken(net))
    average.update_parameters(made.shaken(net))
    alone, both = average.state_dict(), {"model": net.state_dict(), "epoch": 3}
    assert alone["n_averaged"] == 2
    assert list(parts(alone)) == ["model"] and part(alone).prefix == "module."
    both["model_ema"] = alone
    assert list(parts(both)) == ["ema", "model"]
    in_lightning = {"state_dict": made.under("model.", net) | made.under("ema_model.", average)}
    wanted = {"ema": average.module, "model": net}
    for saved in (both, in_lightning):
        torch.save(saved, tmp_path / "a.pth")
        for name, source in wanted.items():
            found, report = vit_of(tmp_path / "a.pth", name)
            assert torch.equal(made.output(found), made.output(source)) and report.complete
    torch.save(alone, tmp_path / "a.pth")
    assert torch.equal(made.output(vit_of(tmp_path / "a.pth")[0]), made.output(average.module))
    target = made.timm_vit()
    load_file(target, tmp_path / "a.pth")
    assert torch.equal(made.output(target), made.output(average.module))


def test_averages_under_other_names(tmp_path: Path) -> None:
    """Of Lightning's callbacks and of training scripts; a layer called ema is none of them."""
    net, average = made.timm_vit(), made.timm_vit()
    for saved in (
        {"state_dict": made.under("model.", net) | made.under("ema.module.", average)},
        {"model": net.state_dict(), "ema": average.state_dict()},
        {"model": net.state_dict(), "ema": {"module": average.state_dict(), "decay": 0.9}},
        {"model": net.state_dict(), "swa_model": AveragedModel(average).state_dict()},
    ):
        torch.save(saved, tmp_path / "a.pth")
        for part_name, wanted in (("ema", average), ("model", net), (None, average)):
            found, _ = vit_of(tmp_path / "a.pth", part_name)
            assert torch.equal(made.output(found), made.output(wanted))
    inner = {f"blocks.0.ema.{name}": torch.ones(1) for name in ("weight", "bias")}
    assert list(parts({"model": net.state_dict() | inner})) == ["model"]


def test_wrappers_between_names(tmp_path: Path) -> None:
    """Of torch.compile, FSDP and activation checkpointing, around the network or a block of it."""
    net = made.timm_vit()
    state = {
        "_fsdp_wrapped_module."
        + name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."): tensor
        for name, tensor in net.state_dict().items()
    }
    torch.save({"model": state}, tmp_path / "a.pth")
    assert torch.equal(made.output(vit_of(tmp_path / "a.pth")[0]), made.output(net))


def test_files_without_counters(tmp_path: Path) -> None:
    """Before PyTorch 0.4.1; torch loads them strictly."""
    source = made.shaken(timm.create_model("test_resnet", num_classes=10))
    old = {k: v for k, v in source.state_dict().items() if "num_batches_tracked" not in k}
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    target = timm.create_model("test_resnet", num_classes=10).eval()
    report = load_file(target, tmp_path / "old.pth", min_loaded=1.0)
    assert report.share == 1 and report.percent == "100.00 %"
    assert set(report.missing) == {k for k in source.state_dict() if "num_batches_tracked" in k}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(target(x), source(x))
    del old["layer1.0.bn1.weight"]
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"layer1.0.bn1.weight"):
        load_file(target, tmp_path / "old.pth", min_loaded=1.0)


def test_pretraining_of_mae(tmp_path: Path) -> None:
    source = made.timm_vit()
    decoder = {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 17, 64),
        "decoder_embed.weight": torch.zeros(64, 128),
        "decoder_blocks.0.norm1.weight": torch.ones(64),
        "decoder_norm.weight": torch.ones(64),
        "decoder_pred.weight": torch.zeros(192, 64),
    }
    torch.save({"model": source.state_dict() | decoder, "epoch": 799}, tmp_path / "a.pth")
    found, report = vit_of(tmp_path / "a.pth")
    assert torch.equal(made.output(found), made.output(source)) and report.complete
    for to in ("timm", "mmpretrain", "mmseg", "dino"):
        done = convert(tmp_path / "a.pth", tmp_path / f"{to}.pth", to=to)
        assert set(done.left_out) == set(decoder)
        found, _ = vit_of(tmp_path / f"{to}.pth")
        assert torch.equal(made.output(found), made.output(source))


def clip(**keys: Any) -> nn.Module:
    """A small network of OpenAI's CLIP, whose inputs to the activation are not small."""
    model = timm.create_model(CLIP, num_classes=0, **SMALL, **keys)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.2)
    return model.eval()


def test_clip_is_refused_unless_its_activation_is_known(tmp_path: Path) -> None:
    source, path, size = clip(), tmp_path / "a.pth", (2, 3, 64, 64)
    torch.save(source.state_dict(), path)
    with pytest.raises(ValueError, match=r"with GELU and some with QuickGELU.*--model on the comm"):
        vit_of(path)
    keys = {"embed_dim": 128, "depth": 2}
    found, report = vit_of(path, model=CLIP, heads=2, **keys)
    assert report.complete and torch.equal(made.output(found, size), made.output(source, size))
    other, _ = vit_of(path, model="vit_base_patch32_clip_224", heads=2, **keys)
    difference = made.output(other, size) - made.output(source, size)
    assert difference.norm() > 0.002 * made.output(source, size).norm()


def test_clip_whose_file_says_its_model(tmp_path: Path) -> None:
    """A checkpoint of timm's train.py."""
    source, path = timm.create_model(CLIP, num_classes=0, depth=1).eval(), tmp_path / "a.pth"
    args = argparse.Namespace(model=CLIP)
    saved = {"state_dict": source.state_dict(), "arch": CLIP, "args": args}
    torch.save(saved, path)
    size = (1, 3, 224, 224)
    for keys in ({}, {"depth": 1}):  # without keys, timm's 12 blocks do not fit
        found, _ = vit_of(path, **keys)
        assert torch.equal(made.output(found, size), made.output(source, size))
    plain = TimmViT("vit_base_patch32_clip_224", depth=1, out_indices=(0,), final_norm=True)
    with pytest.raises(ValueError, match=r"activation quick_gelu, but VisionTransformer has gelu"):
        load_file(plain, path)
    same = TimmViT(CLIP, depth=1, out_indices=(0,), final_norm=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_file(same, path).complete
    torch.save(source.state_dict(), path)
    with pytest.warns(UserWarning, match="does not say whether it was trained with GELU or Quick"):
        load_file(same, path)


def test_clip_of_mmpretrain_says_its_activation(tmp_path: Path) -> None:
    source, path, size = clip(), tmp_path / "a.pth", (2, 3, 64, 64)
    torch.save(source.state_dict(), path)
    convert(path, path := tmp_path / "b.pth", to="mmpretrain")
    text = """
model = dict(
    backbone=dict(
        type='VisionTransformer',
        pre_norm=True,
        norm_cfg=dict(type='LN', eps=1e-5),
        layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))))
"""
    torch.save({**torch.load(path), "meta": {"cfg": text}}, path)
    found, _ = vit_of(path)
    assert found.norm.eps == 1e-5
    assert torch.equal(made.output(found, size), made.output(source, size))
