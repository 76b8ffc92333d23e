"""All pairs of frameworks with the same model: equal features, and exact conversion back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn
from weights import made

from mixplug.models.vit import vit_of
from mixplug.weights import (
    convert,
    layout_of,
    load_file,
    part,
    read,
    resize_biases,
    translate,
)
from mixplug.weights.names import is_derived

SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class Pair:
    """A model of timm, and the same model in another framework."""

    host: str
    timm: Callable[..., nn.Module]
    other: Callable[..., nn.Module]
    timm_keys: dict[str, Any] = field(default_factory=dict)
    other_keys: dict[str, Any] = field(default_factory=dict)


FULL = {"mlp_ratio": 2}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True}
PAIRS = {
    "ViT of mmpretrain": Pair(
        "mmpretrain", made.timm_vit, made.mm_vit, {}, {"out_type": "featmap"}
    ),
    "ViT of mmseg": Pair("mmseg", made.timm_vit, made.mmseg_vit, FULL),
    "ViT of mmseg with a norm before": Pair(
        "mmseg",
        made.timm_vit,
        made.mmseg_vit,
        {"pre_norm": True, **FULL},
        {"pre_norm": True, "patch_bias": False},  # timm has none there either
    ),
    "BEiT of mmseg": Pair("mmseg", made.timm_beit, made.mmseg_beit),
    "BEiT of mmpretrain": Pair("mmpretrain", made.timm_beit, made.mm_beit),
    "BEiT of mmpretrain with one table": Pair(
        "mmpretrain", made.timm_beit, made.mm_beit, SHARED, SHARED
    ),
    "BEiT of mmpretrain with no bias of queries": Pair(
        "mmpretrain", made.timm_beit, made.mm_beit, {"qkv_bias": False}, {"bias": False}
    ),
}


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not is_derived(name)}


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", PAIRS)
def test_converting_back_is_exact(name: str, suffix: str, tmp_path: Path) -> None:
    """From timm to the framework and back, and from the framework to timm and back."""
    pair = PAIRS[name]
    models = {"timm": pair.timm(**pair.timm_keys), pair.host: pair.other(**pair.other_keys)}
    for source, target in (("timm", pair.host), (pair.host, "timm")):
        made.shaken(models[source])
        torch.save({"state_dict": models[source].state_dict()}, tmp_path / "a.pth")
        there, back = tmp_path / f"b{suffix}", tmp_path / f"c{suffix}"
        done = convert(tmp_path / "a.pth", there, to=target)
        assert done.left_out == []
        found = dict(part(read(there)).backbone)
        missing, unexpected = models[target].load_state_dict(found, strict=False)
        assert all(map(is_derived, missing)) and not unexpected
        torch.testing.assert_close(
            made.map_of(models[target]), made.map_of(models[source]), atol=1e-5, rtol=1e-5
        )
        convert(there, back, to=source)
        assert equal(dict(part(read(back)).backbone), weights_of(models[source]))


@pytest.mark.parametrize("name", PAIRS)
def test_loading_translates_names(name: str, tmp_path: Path) -> None:
    pair = PAIRS[name]
    source, target = pair.timm(**pair.timm_keys), pair.other(**pair.other_keys)
    for a, b in ((source, target), (target, source)):
        made.shaken(a)
        torch.save({"model": made.under("backbone.", a)}, tmp_path / "a.pth")
        report = load_file(b, tmp_path / "a.pth")
        assert report.share == 1 and report.complete and not report.unexpected, report.line()
        torch.testing.assert_close(made.map_of(b), made.map_of(a), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["ViT of mmseg", "BEiT of mmseg"])
def test_mmseg_can_read_the_file(name: str, tmp_path: Path) -> None:
    """With mmseg's own ``init_cfg``, from the teacher of a checkpoint."""
    pair = PAIRS[name]
    teacher, student = (pair.timm(**pair.timm_keys) for _ in range(2))
    path = made.dino(tmp_path / "a.pth", teacher, student)
    convert(path, tmp_path / "b.pth", "teacher", "mmseg")
    spec = {
        "type": pair.other().__class__.__name__,
        **made._MMSEG,
        "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "b.pth")},
    }
    if "ViT" in name:
        spec["patch_bias"] = True
    with DefaultScope.overwrite_default_scope(
        "mmseg"
    ):  # other scopes have classes with these names
        model = MODELS.build(spec)
        model.init_weights()
    model.eval()
    torch.testing.assert_close(made.map_of(model), made.map_of(teacher), atol=1e-5, rtol=1e-5)


def test_through_all_vits_and_back(tmp_path: Path) -> None:
    """timm, mmseg, mmpretrain, DINO, and timm again."""
    source = made.timm_vit()
    path = tmp_path / "0.pth"
    torch.save(source.state_dict(), path)
    for step, to in enumerate(("mmseg", "mmpretrain", "mmseg", "dino", "timm"), 1):
        done = convert(path, tmp_path / f"{step}.pth", to=to)
        path = tmp_path / f"{step}.pth"
        assert done.left_out == []
    assert equal(dict(part(read(path)).backbone), source.state_dict())
    found, report = vit_of(tmp_path / "3.pth")  # with mmseg's names
    assert torch.equal(made.output(found), made.output(source))
    assert report is not None and report.complete


def test_beits_of_mmseg_and_mmpretrain_have_the_same_names() -> None:
    mmseg, mm = made.mmseg_beit().state_dict(), made.mm_beit().state_dict()
    assert mmseg.keys() == mm.keys() and layout_of(mm) == "mmseg"
    averaged = made.mm_beit(final_norm=False, out_type="avg_featmap").state_dict()
    assert (
        layout_of(averaged) == "mmpretrain" and layout_of(made.mmseg_vit().state_dict()) == "mmseg"
    )


def test_a_norm_after_averaging_is_dropped_only_for_mmseg(tmp_path: Path) -> None:
    source = made.timm_beit(global_pool="avg", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="mmseg")
    assert done.left_out == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]
    done = convert(tmp_path / "a.pth", tmp_path / "c.pth", to="mmpretrain")
    assert done.left_out == ["head.weight", "head.bias"]
    target = made.mm_beit(final_norm=False, out_type="avg_featmap")
    assert load_file(target, tmp_path / "c.pth").complete
    source.reset_classifier(0)
    torch.testing.assert_close(made.output(target), made.output(source), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("host", ["mmseg_beit", "mm_beit"])
def test_a_beit_with_another_grid(host: str, tmp_path: Path) -> None:
    """Equal to timm's own resizing, both when loading and when converting."""
    source = made.timm_beit()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    target = getattr(made, host)(img_size=64)
    report = load_file(target, tmp_path / "a.pth")
    assert report.complete and report.resized == {
        f"layers.{i}.attn.relative_position_bias_table": ((52, 2), (228, 2)) for i in range(2)
    }
    convert(tmp_path / "a.pth", tmp_path / "b.pth", to="mmseg", grid=(8, 8))
    source.set_input_size((64, 64))
    size = (2, 3, 64, 64)
    expected = made.map_of(source, size)
    torch.testing.assert_close(made.map_of(target, size), expected, atol=1e-5, rtol=1e-5)
    made.shaken(target)
    assert not load_file(target, tmp_path / "b.pth").resized
    torch.testing.assert_close(made.map_of(target, size), expected, atol=1e-5, rtol=1e-5)


def test_a_vit_of_mmseg_with_another_grid(tmp_path: Path) -> None:
    source = made.timm_vit(mlp_ratio=2, dynamic_img_size=True)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    target = made.mmseg_vit(img_size=(64, 48))
    report = load_file(target, tmp_path / "a.pth")
    assert report.complete and report.resized == {"pos_embed": ((1, 17, 128), (1, 49, 128))}
    size = (2, 3, 64, 48)
    torch.testing.assert_close(
        made.map_of(target, size), made.map_of(source, size), atol=1e-5, rtol=1e-5
    )


def test_tables_of_a_non_square_grid_need_the_grid() -> None:
    table = torch.randn(3 * 7 + 3, 2)
    assert resize_biases(table, (2, 4), (2, 4)) is table
    with pytest.raises(
        ValueError, match="A table of 24 biases does not fit a grid of 2 x 2 patches"
    ):
        resize_biases(table, None, (4, 4))
    resized = resize_biases(table, (2, 4), (4, 4))
    assert resized.shape == (52, 2) and torch.equal(resized[-3:], table[-3:])


@pytest.mark.parametrize(
    ("model", "to", "message"),
    [
        (lambda: made.timm_vit(reg_tokens=2), "mmseg", "of timm to that of mmseg, .*: reg_token."),
        (
            lambda: made.timm_vit(init_values=0.1),
            "mmseg",
            r"VisionTransformer of timm to .* mmseg, .*: blocks.\*.ls1.gamma, blocks.\*.ls2.gamma.",
        ),
        (
            lambda: made.timm_vit(class_token=False, global_pool="avg"),
            "mmseg",
            "lack tensors that every VisionTransformer of mmseg has .*: cls_token.",
        ),
        (
            lambda: made.timm_vit(qkv_bias=False),
            "mmseg",
            r"every VisionTransformer of mmseg has .*: blocks.\*.attn.qkv.bias.",
        ),
        (
            lambda: made.timm_beit(init_values=None),
            "mmseg",
            r"every BEiT of mmseg has .*: blocks.\*.gamma_1, blocks.\*.gamma_2.",
        ),
        (
            lambda: made.timm_beit(use_abs_pos_emb=True),
            "mmseg",
            "1 tensors cannot be converted from the BEiT of timm to that of mmseg, .*: pos_embed.",
        ),
        (
            lambda: made.timm_beit(**SHARED),
            "mmseg",
            "BEiT of timm to .* mmseg, .*: pos_embed, rel_pos_bias.relative_position_bias_table.",
        ),
        (
            lambda: made.mm_beit(bias=True),
            "timm",
            r"BEiT of mmpretrain to that of timm, .*: layers.\*.attn.qkv.bias.",
        ),
        (
            made.timm_beit,
            "dino",
            "dino has no BEiT. A BEiT can be converted between timm, mmpretrain and mmseg.",
        ),
    ],
)
def test_conversions_that_lose_tensors_are_errors(
    model, to: str, message: str, tmp_path: Path
) -> None:
    torch.save(model().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to=to)
    assert not (tmp_path / "b.pth").exists()


@pytest.mark.parametrize("beit", [made.timm_beit, made.mmseg_beit, made.mm_beit])
@pytest.mark.parametrize("vit", [made.timm_vit, made.mmseg_vit, made.mm_vit])
def test_a_beit_is_not_a_vit(beit, vit, tmp_path: Path) -> None:
    """More than 98 % of the values have the same names and shapes."""
    for source, target in ((beit(), vit()), (vit(), beit())):
        torch.save(source.state_dict(), tmp_path / "a.pth")
        before = {name: value.clone() for name, value in target.state_dict().items()}
        with pytest.raises(ValueError) as caught:
            load_file(target, tmp_path / "a.pth", min_loaded=0)
        assert re.search(
            r"a.pth is a (BEiT, but VisionTransformer is a VisionTransformer|"
            r"VisionTransformer, but B[Ee]i[Tt](ViT)? is a BEiT)\. .* only a BEiT has "
            r"\w+.\*.attn.q_bias, \w+.\*.attn.relative_position_bias_table, ",
            str(caught.value),
        )
        assert equal(dict(target.state_dict()), before)


def test_a_vit_is_not_built_from_a_beit(tmp_path: Path) -> None:
    torch.save(made.timm_beit().state_dict(), tmp_path / "a.pth")
    message = r"a.pth is a BEiT, which is not a VisionTransformer: it has blocks.\*.attn.q_bias, "
    with pytest.raises(ValueError, match=message):
        vit_of(tmp_path / "a.pth")


def test_indices_are_not_weights() -> None:
    """timm does not save them, and OpenMMLab's models compute them from the grid."""
    state = made.mmseg_beit().state_dict()
    assert any(map(is_derived, state))
    found, dropped = translate(state, "mmseg", "timm")
    assert len(found) == len(state) - 2 and dropped == [] and not any(map(is_derived, found))
    assert found.keys() == made.timm_beit().state_dict().keys()
