"""Loading is all or nothing, and the report is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from weights import made

import mixplug.mm  # noqa: F401  registers
from mixplug.weights import Report, load, load_file, resize_positions


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("part", ["teacher", "student"])
@pytest.mark.parametrize("host", [made.dino, made.mm], ids=["dino", "mm"])
@pytest.mark.parametrize("model", [made.timm_vit, made.mm_vit], ids=["timm", "mmpretrain"])
def test_outputs_equal_those_of_the_part(host, model, part: str, tmp_path: Path) -> None:
    networks = {"teacher": made.timm_vit(), "student": made.timm_vit()}
    path = host(tmp_path / "a.pth", **networks)
    target = model()
    report = load_file(target, path, part)
    assert report.share == 1 and report.complete and not report.unexpected
    expected = made.output(networks[part])
    torch.testing.assert_close(made.output(target), expected, atol=1e-5, rtol=1e-5)
    assert report.source.startswith(f"{part} ('") and "backbone.*') of a.pth" in report.source
    assert len(report.loaded) == len(networks[part].state_dict())


def test_weights_of_mmpretrain_in_timm_and_in_a_wrapper(tmp_path: Path) -> None:
    teacher = made.mm_vit(layer_scale_init_value=0.1)
    path = made.mm(tmp_path / "a.pth", teacher, made.mm_vit())
    spec = {"type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224"}
    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    wrapper = MODELS.build({**spec, **keys, "mlp_ratio": 1.5, "init_values": 1.0}).eval()
    plain = made.timm_vit(init_values=1.0)
    for target in (wrapper, plain):
        assert load_file(target, path).line().startswith("34 of 34 tensors (100.00 % of ")
    torch.testing.assert_close(made.output(plain), made.output(teacher), atol=1e-5, rtol=1e-5)
    assert torch.equal(
        made.output(wrapper.model)[:, 0], made.output(plain)
    )  # the wrapper returns all tokens


def test_another_network_than_a_vit(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    source, target = made.shaken(Net()), Net().backbone
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pth")
    report = load_file(target, tmp_path / "a.pth")
    assert report.share == 1 and unchanged(target, state_of(source.backbone))


def test_positions_for_another_grid(tmp_path: Path) -> None:
    source = made.timm_vit()
    path = made.dino(tmp_path / "a.pth", source, made.timm_vit())
    target = made.timm_vit(img_size=(48, 24))
    report = load_file(target, path)
    assert report.resized == {"pos_embed": ((1, 17, 128), (1, 19, 128))}
    assert "resized pos_embed from 17 to 19 positions" in report.line() and report.share == 1
    expected = resize_positions(source.pos_embed, (4, 4), (6, 3))
    assert torch.equal(target.pos_embed, expected)
    dynamic = made.timm_vit(dynamic_img_size=True)  # resizes in every forward pass
    load(dynamic, source.state_dict())
    size = (2, 3, 48, 24)
    torch.testing.assert_close(made.output(target, size), made.output(dynamic, size))
    mm = made.mm_vit(img_size=(48, 24))
    load_file(mm, path)
    torch.testing.assert_close(
        made.output(mm, size), made.output(target, size), atol=1e-5, rtol=1e-5
    )


def test_a_non_square_grid() -> None:
    source, target = made.timm_vit(img_size=(16, 64)), made.timm_vit()  # 2 x 8, 4 x 4
    wide = made.timm_vit(img_size=(16, 32))  # 2 x 4
    load(target, source.state_dict(), grid=(2, 8))
    expected = resize_positions(source.pos_embed, (2, 8), (4, 4))
    assert torch.equal(target.pos_embed, expected)
    load(target, source.state_dict())  # the same number of positions: not resized
    assert torch.equal(target.pos_embed, source.pos_embed)
    with pytest.raises(ValueError, match="8 position embeddings do not form a square grid"):
        load(target, wide.state_dict())


def test_nothing_is_loaded_below_the_share(tmp_path: Path) -> None:
    target, deeper = made.timm_vit(), made.timm_vit(depth=3, embed_dim=64, num_heads=1)
    before = state_of(target)
    path = made.dino(tmp_path / "a.pth", deeper, deeper)
    with pytest.raises(ValueError) as caught:
        load_file(target, path, min_loaded=0.01)
    text = str(caught.value)
    assert text.startswith(
        "At least 1 % of VisionTransformer must be loaded, but only this fits: 0 of 30 tensors "
        "(0.00 % of "
    )
    assert "teacher ('teacher.backbone.*') of a.pth" in text
    lines = [line.split("  ") for line in text.splitlines()[1:]]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows[0] == ["(name, shape in the checkpoint, shape in the model)"]
    assert ["mismatched", "blocks.*.attn.qkv.weight x2", "(192, 64)", "(384, 128)"] in rows
    assert ["unexpected", "blocks.*.attn.qkv.weight", "(192, 64)", "-"] in rows
    assert unchanged(target, before)


def test_the_share_by_hand_and_its_bound() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))  # 20 + 5 + 5 + 1 numbers
    given = {"0.weight": torch.ones(5, 4), "0.bias": torch.ones(5), "1.weight": torch.ones(1, 5)}
    before = state_of(model)
    with pytest.raises(ValueError, match=r"missing +1.bias +- +\(1,\)"):
        load(model, given, min_loaded=30.01 / 31)
    assert unchanged(model, before)
    report = load(model, given, min_loaded=30 / 31, source="here")
    assert report.share == 30 / 31 and not report.complete
    assert report.line() == "3 of 4 tensors (96.77 % of 31 numbers) from here; missing: 1.bias"
    assert bool((model[0].weight == 1).all()) and torch.equal(model[1].bias, before["1.bias"])
    wrong = {**given, "1.weight": torch.ones(5, 1), "2.x": torch.tensor(1.0)}
    report = load(model, wrong, min_loaded=0)
    assert report.share == 25 / 31
    assert report.mismatched == {"1.weight": ((5, 1), (1, 5))} and report.unexpected == {"2.x": ()}
    assert report.rows() == [
        ("loaded", "0.weight", "(5, 4)", "(5, 4)"),
        ("loaded", "0.bias", "(5,)", "(5,)"),
        ("mismatched", "1.weight", "(5, 1)", "(1, 5)"),
        ("missing", "1.bias", "-", "(1,)"),
        ("unexpected", "2.x", "()", "-"),
    ]
    assert load(nn.Identity(), {}, min_loaded=0).share == 0
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"min_loaded must be in \[0, 1\]"):
            load(model, given, share)


def test_resized_positions_count_with_the_models_shape() -> None:
    report = Report({"a": (3,)}, {"p": ((1, 4, 1), (1, 9, 1))}, {"b": (2, 2)})
    assert report.share == 12 / 16 and report.line().startswith("2 of 3 tensors (75.00 % of 16 ")


def test_a_share_below_one_is_not_printed_as_100_percent() -> None:
    assert "(99.99 % of" in Report({"a": (10**6,)}, missing={"b": (1,)}).line()
    assert "(100.00 % of" in Report({"a": (10**6,)}).line()
    many = Report(missing={f"blocks.{i}.w": (1,) for i in range(9)} | {c: (1,) for c in "abcdef"})
    assert many.line().endswith("missing: blocks.*.w, a, b, c and 3 more")


def test_weights_are_cast_to_the_models_dtype() -> None:
    source, target = made.timm_vit(), made.timm_vit().double()
    load(target, {name: value.half() for name, value in source.state_dict().items()})
    assert target.norm.weight.dtype == torch.float64
    assert torch.equal(target.norm.weight, source.norm.weight.half().double())


def test_a_classifier_is_reported() -> None:
    report = load(made.mm_vit(), made.mm_vit().state_dict() | {"head.weight": torch.ones(3, 2)})
    assert report.line().endswith("; unexpected: head.weight")


def test_a_translated_classifier_is_reported(tmp_path: Path) -> None:
    torch.save(made.timm_vit(num_classes=5).state_dict(), tmp_path / "a.pth")
    report = load_file(made.mm_vit(), tmp_path / "a.pth")
    assert report.unexpected == {"head.weight": (5, 128), "head.bias": (5,)}
    assert report.source == "model (no prefix) of a.pth, with the names of timm"
