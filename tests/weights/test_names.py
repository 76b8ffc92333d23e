"""Translation of names: outputs are equal, and translating back is exact."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm
from weights import made

from mixplug.models.self_distillation.dino_head import DINOHead
from mixplug.weights import LAYOUTS, layout_of, translate
from mixplug.weights.names import _TABLES, head_to_dino

PAIRS = {
    "plain": ({}, {}),
    "layer scale": ({"init_values": 0.1}, {"layer_scale_init_value": 0.1}),
    "norm before": ({"pre_norm": True}, {"pre_norm": True}),
    "no bias": ({"qkv_bias": False}, {"qkv_bias": False}),
    "average": (
        {"class_token": False, "global_pool": "avg"},
        {"with_cls_token": False, "out_type": "avg_featmap", "final_norm": False},
    ),
}


@pytest.mark.parametrize("ours", PAIRS)
def test_timm_and_mmpretrain_give_equal_outputs(ours: str) -> None:
    timm, mm = made.timm_vit(**PAIRS[ours][0]), made.mm_vit(**PAIRS[ours][1])
    assert not torch.allclose(made.output(timm), made.output(mm))
    for source, target, names in ((timm, mm, ("timm", "mmpretrain")), (mm, timm, LAYOUTS[1::-1])):
        made.shaken(source)
        state, dropped = translate(source.state_dict(), *names)
        assert dropped == []
        target.load_state_dict(state)  # strict
        torch.testing.assert_close(made.output(target), made.output(source), atol=1e-5, rtol=1e-5)
        back, _ = translate(state, *reversed(names))
        plain = source.state_dict()
        assert back.keys() == plain.keys()
        assert all(back[name].data_ptr() == plain[name].data_ptr() for name in plain)


def test_tables_are_one_to_one() -> None:
    for kind, tables in _TABLES.items():
        for layout, table in tables.items():
            assert len(set(table.values())) == len(table), (kind, layout)


def test_dino_has_timms_names() -> None:
    state = made.timm_vit().state_dict()
    for names in (("timm", "dino"), ("dino", "timm")):
        found, _ = translate(state, *names)
        assert list(found) == list(state)


def test_a_dropped_classifier_is_reported() -> None:
    state = made.timm_vit(num_classes=5).state_dict()
    found, dropped = translate(state, "timm", "mmpretrain")
    assert dropped == ["head.weight", "head.bias"] and len(found) == len(state) - 2
    assert translate(state, "timm", "timm") == (state, [])


def test_twelve_blocks_keep_their_order() -> None:
    state = {f"blocks.{i}.norm1.weight": torch.tensor(float(i)) for i in range(12)}
    found, _ = translate(state, "timm", "mmpretrain")
    assert {name: float(v) for name, v in found.items()} == {
        f"layers.{i}.ln1.weight": i for i in range(12)
    }


@pytest.mark.parametrize(
    ("keys", "target", "lost"),
    [
        ({"reg_tokens": 2}, "mmpretrain", "1 tensors .* that of mmpretrain, .*: reg_token."),
        ({"qk_norm": True}, "mmpretrain", r"8 tensors .*: blocks.\*.attn.k_norm.bias, blocks"),
        ({"init_values": 1.0}, "dino", r"4 tensors .*: blocks.\*.ls1.gamma, blocks.\*.ls2.gamma."),
    ],
)
def test_tensors_that_the_target_lacks_are_errors(keys: dict, target: str, lost: str) -> None:
    with pytest.raises(ValueError, match=lost):
        translate(made.timm_vit(**keys).state_dict(), "timm", target)


def test_layouts() -> None:
    assert layout_of(made.timm_vit().state_dict()) == "timm"
    assert layout_of(made.mm_vit().state_dict()) == "mmpretrain"
    assert layout_of(["conv1.weight", "layer1.0.conv1.weight"]) is None
    assert layout_of(["patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"]) is None  # Swin
    with pytest.raises(
        ValueError, match="A layout must be timm, mmpretrain, dino or mmseg; got 'jax'"
    ):
        translate({}, "timm", "jax")


def test_the_last_layer_of_a_head() -> None:
    head = made.head()
    x, state = torch.randn(3, 128), head.state_dict()
    theirs = torch.nn.Module()
    theirs.last_layer = weight_norm(torch.nn.Linear(8, 20, bias=False))
    named = made.with_names_of_torch(state)
    assert set(theirs.state_dict()) == {name for name in named if "last_layer" in name}
    theirs.load_state_dict({name: named[name] for name in theirs.state_dict()})
    torch.testing.assert_close(theirs.last_layer.weight, head.last_layer.weight)
    back = head_to_dino(named)
    assert back.keys() == state.keys() and all(torch.equal(back[n], state[n]) for n in state)
    other = DINOHead(128, out_dim=20, hidden=16, bottleneck=8, norm_last_layer=False)
    other.load_state_dict(back)
    assert torch.equal(other(x), head(x))
