"""Converted files can be read by their frameworks, and converting back is exact."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from weights import made

from mixplug.models.vit import vit_of
from mixplug.weights import convert, part, read, resize_positions

SUFFIXES = (".safetensors", ".pth")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("to", ["timm", "mmpretrain", "dino"])
@pytest.mark.parametrize("name", ["teacher", "student"])
def test_converting_back_is_exact(to: str, suffix: str, name: str, tmp_path: Path) -> None:
    networks = {"teacher": made.timm_vit(), "student": made.timm_vit()}
    path = made.dino(tmp_path / "a.pth", **networks)
    there, back = tmp_path / "new" / f"b{suffix}", tmp_path / f"c{suffix}"
    done = convert(path, there, name, to)
    prefix = "module.backbone." if name == "student" else "backbone."
    assert (done.source, done.layout) == (f"{name} ('{name}.{prefix}*')", "timm")
    heads = [key for key in made.head().state_dict()]
    assert done.left_out == ([] if to == "dino" else [f"head.{key}" for key in heads])
    assert part(read(there)).name == (name if to == "dino" else "model")
    convert(there, back, to="timm")
    found, plain = part(read(back)).backbone, networks[name].state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    vit, _ = vit_of(there)
    assert torch.equal(made.output(vit), made.output(networks[name]))


def test_dino_can_read_the_file(tmp_path: Path) -> None:
    teacher = made.mm_vit()
    path = made.mm(tmp_path / "a.pth", teacher, made.mm_vit())
    convert(path, tmp_path / "b.pth", to="dino")
    saved = torch.load(tmp_path / "b.pth", weights_only=True)
    assert list(saved) == ["teacher"]
    vit, head = made.timm_vit(), made.head()
    for name, model in (("backbone.", vit), ("head.", head)):
        state = {key[len(name) :]: v for key, v in saved["teacher"].items() if key.startswith(name)}
        model.load_state_dict(state)  # strict
    torch.testing.assert_close(made.output(vit), made.output(teacher), atol=1e-5, rtol=1e-5)
    wanted = part(read(path), "teacher").head
    assert all(torch.equal(value, wanted[key]) for key, value in head.state_dict().items())


def test_a_classifier_is_not_a_dino_head(tmp_path: Path) -> None:
    state = made.under("backbone.", made.timm_vit()) | {"head.fc.weight": torch.ones(2, 128)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="dino")
    assert done.left_out == ["head.fc.weight"]
    found = part(read(tmp_path / "b.pth"))
    assert str(found) == "teacher ('teacher.backbone.*')" and not found.head


def test_heads_with_new_torch_names_get_dinos_names(tmp_path: Path) -> None:
    state = made.head().state_dict()
    named = {f"head.{name}": value for name, value in made.with_names_of_torch(state).items()}
    assert any("parametrizations" in name for name in named)
    torch.save({"teacher": named | made.under("backbone.", made.timm_vit())}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.pth", to="dino")
    head = part(read(tmp_path / "b.pth")).head
    assert head.keys() == state.keys() and all(torch.equal(head[n], state[n]) for n in state)


def test_mmpretrain_and_timm_can_read_their_files(tmp_path: Path) -> None:
    teacher = made.timm_vit()
    path = made.dino(tmp_path / "a.pth", teacher, made.timm_vit())
    convert(path, tmp_path / "mm.pth", to="mmpretrain")
    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 192}
    model = MODELS.build(
        {"type": "VisionTransformer", "arch": arch, "img_size": 32, "patch_size": 8,
         "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "mm.pth")}}
    )  # fmt: skip
    model.init_weights()
    model.eval()
    torch.testing.assert_close(made.output(model), made.output(teacher), atol=1e-5, rtol=1e-5)
    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    for suffix in SUFFIXES:
        convert(path, tmp_path / f"timm{suffix}", to="timm")
        own = timm.create_model(
            "vit_tiny_patch16_224", checkpoint_path=str(tmp_path / f"timm{suffix}"),
            mlp_ratio=1.5, num_classes=0, **keys,
        )  # fmt: skip
        assert torch.equal(made.output(own.eval()), made.output(teacher))


def test_positions_are_resized(tmp_path: Path) -> None:
    source = made.timm_vit(reg_tokens=2)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="timm", grid=(6, 3))
    expected = resize_positions(source.pos_embed, (4, 4), (6, 3))
    assert torch.equal(done.state["pos_embed"], expected) and expected.shape == (1, 21, 128)
    found, _ = vit_of(tmp_path / "b.pth", grid=(6, 3))
    assert found.patch_embed.img_size == (48, 24)


def test_views_and_shared_tensors_are_copied(tmp_path: Path) -> None:
    state = made.timm_vit().state_dict()
    large = torch.randn(1000, 128)
    state["norm.weight"], state["norm.bias"] = large[0], large[0]
    torch.save(state, tmp_path / "a.pth")
    for suffix in SUFFIXES:
        out = tmp_path / f"b{suffix}"
        convert(tmp_path / "a.pth", out)
        assert torch.equal(part(read(out)).backbone["norm.bias"], large[0])
        assert out.stat().st_size < sum(v.nbytes for v in state.values()) + 20_000


def test_invalid_conversions(tmp_path: Path) -> None:
    path = made.dino(tmp_path / "a.pth", made.timm_vit(reg_tokens=1), made.timm_vit())
    for out, keys, message in (
        ("b.bin", {}, r"out must end with \.safetensors, \.pth or \.pt; got b\.bin\."),
        (
            "b.pth",
            {"to": "jax"},
            "to must be timm, mmpretrain, dino or mmseg; got 'jax'",
        ),
        ("a.pth", {}, "is the checkpoint itself"),
        ("b.pth", {"to": "mmpretrain"}, "from the VisionTransformer of timm to that of mmpretrain"),
        (
            "b.pth",
            {"part": "ema"},
            "a.pth has no part ema. It has: teacher, student. Choose one of these, or omit",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            convert(path, tmp_path / out, **keys)
        assert not (tmp_path / "b.pth").exists()
    torch.save({"conv1.weight": torch.ones(2), "args": argparse.Namespace()}, path)
    with pytest.raises(ValueError, match=r"no vision transformer in its part model \(no prefix\)"):
        convert(path, tmp_path / "b.pth")
