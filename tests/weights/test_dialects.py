"""DINOv2's release and Hugging Face's transformers: the same outputs as timm's model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from weights import made

from mixplug.models.vit import vit_of
from mixplug.models.vit.timm_vit import TimmViT
from mixplug.weights import convert, load_file, part, read
from mixplug.weights.dialects import DINOV2, TRANSFORMERS, dialect_of, in_timms_names
from mixplug.weights.vit import describe

State = dict[str, Tensor]
SWIGLU = {"mlp_ratio": 2, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 0.1}


def distilled(**more: Any) -> nn.Module:
    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
    return made.shaken(VisionTransformerDistilled(**keys, mlp_ratio=1.5, num_classes=0, **more))


def of_dinov2(model: nn.Module) -> State:
    """The tensors of timm's model as DINOv2 releases them; the model's class token changes."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if "reg_token" in state:
        extra = torch.randn(1, 1, 128)  # the release adds it to the class token
        state["register_tokens"] = state.pop("reg_token")
        model.cls_token.data += extra
        state["pos_embed"] = torch.cat([extra, state["pos_embed"]], 1)
    state["mask_token"] = torch.randn(1, 128)
    if isinstance(model.blocks[0].mlp, nn.Module) and hasattr(model.blocks[0].mlp, "gate_last"):
        state = {k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v
                 for k, v in state.items()}  # fmt: skip
    return state


def chunked(state: State) -> State:
    """Blocks in chunks of one, as in checkpoints of a training of DINOv2."""
    return {re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.\1.", name): t for name, t in state.items()}


def of_transformers(model: nn.Module, dino: bool = False, new: bool = False) -> State:
    """The tensors of timm's model as transformers stores them, or names them in memory."""
    names = {
        "cls_token": "embeddings.cls_token",
        "dist_token": "embeddings.distillation_token",
        "register_tokens": "embeddings.register_tokens",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm.": "layernorm.",
    }
    inner = {
        "norm1": "norm1" if dino else "layernorm_before",
        "norm2": "norm2" if dino else "layernorm_after",
        "attn.proj": "attention.o_proj" if new else "attention.output.dense",
        "mlp.fc1": "mlp.fc1" if dino or new else "intermediate.dense",
        "mlp.fc2": "mlp.fc2" if dino or new else "output.dense",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.down_proj" if new else "mlp.weights_out",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    projections = (
        ("q_proj", "k_proj", "v_proj")
        if new
        else ("attention.query", "attention.key", "attention.value")
    )
    found: State = {}
    for name, tensor in of_dinov2(model).items():
        if (name == "mask_token" and not dino) or name.startswith("head."):
            continue
        block = re.match(r"blocks\.(\d+)\.(.+)", name)
        if block is None:
            first = next(known for known in names if name.startswith(known))
            found[name.replace(first, names[first], 1)] = tensor
            continue
        start = (
            f"{'' if new and not dino else 'encoder.'}{'layers' if new and not dino else 'layer'}"
        )
        start, rest = f"{start}.{block[1]}.", block[2]
        if rest.startswith("attn.qkv"):
            for projection, piece in zip(projections, tensor.chunk(3), strict=True):
                found[f"{start}attention.{projection}.{rest.rpartition('.')[2]}"] = piece
        elif new and rest.startswith("mlp.w12"):
            for gate, piece in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                found[f"{start}mlp.{gate}.{rest.rpartition('.')[2]}"] = piece
        else:
            first = next(known for known in inner if rest.startswith(known))
            found[start + rest.replace(first, inner[first], 1)] = tensor
    return found


PLAIN = partial(made.timm_vit)
SMALL_EPS = partial(nn.LayerNorm, eps=1e-12)  # of ViT and DeiT in transformers
FINE = partial(made.timm_vit, norm_layer=SMALL_EPS)
REGISTERS = partial(made.timm_vit, reg_tokens=4, no_embed_class=True, init_values=0.1)
GATED = partial(made.timm_vit, **SWIGLU)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], State], str]] = {
    "registers of the release": (REGISTERS, of_dinov2, DINOV2),
    "SwiGLU of the release": (GATED, of_dinov2, DINOV2),
    "blocks in chunks": (REGISTERS, lambda m: chunked(of_dinov2(m)), DINOV2),
    "ViT": (FINE, of_transformers, TRANSFORMERS),
    "ViT, new names": (FINE, partial(of_transformers, new=True), TRANSFORMERS),
    "DeiT": (partial(distilled, norm_layer=SMALL_EPS), of_transformers, TRANSFORMERS),
    "DINOv2": (
        partial(made.timm_vit, init_values=0.1),
        partial(of_transformers, dino=True),
        TRANSFORMERS,
    ),
    "DINOv2 with registers": (REGISTERS, partial(of_transformers, dino=True), TRANSFORMERS),
    "DINOv2, new names": (REGISTERS, partial(of_transformers, dino=True, new=True), TRANSFORMERS),
    "DINOv2, SwiGLU": (GATED, partial(of_transformers, dino=True), TRANSFORMERS),
    "DINOv2, SwiGLU, new names": (
        GATED,
        partial(of_transformers, dino=True, new=True),
        TRANSFORMERS,
    ),
}


def close(found: nn.Module, source: nn.Module) -> None:
    assert torch.equal(made.output(found), made.output(source))


@pytest.mark.parametrize("wrapper", ["", "vit.", "module.model.dinov2."])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_timm(case: str, wrapper: str, tmp_path: Path) -> None:
    build, rename, dialect = CASES[case]
    source = build()
    state = rename(source)
    if dialect == TRANSFORMERS:
        state = {f"{wrapper}{name}": tensor for name, tensor in state.items()}
        if wrapper:
            outer = wrapper.removesuffix("vit.").removesuffix("dinov2.")
            state |= {
                f"{outer}classifier.{leaf}": torch.ones(5, 256) for leaf in ("weight", "bias")
            }
        else:
            state |= {
                "pooler.dense.weight": torch.ones(128, 128),
                "pooler.dense.bias": torch.ones(1),
            }
    elif wrapper:
        state = {f"teacher.backbone.{name}": tensor for name, tensor in state.items()}
    own = part(state).backbone
    assert dialect_of(own) == dialect
    torch.save(state, tmp_path / "a.pth")
    found, report = vit_of(tmp_path / "a.pth")
    assert report is not None and report.complete and not report.unexpected
    close(found, source)
    other = made.shaken(build())
    report = load_file(other, tmp_path / "a.pth")
    assert report.complete and f"names of {dialect}" in report.source
    close(other, source)
    done = convert(tmp_path / "a.pth", tmp_path / "b.safetensors", to="timm")
    assert done.layout == dialect and "classifier.weight" not in done.state
    found, _ = vit_of(tmp_path / "b.safetensors")
    close(found, source)
    assert describe(own).startswith(f"a vision transformer with the names of {dialect}, width 128")


def test_registers_as_timm_reads_them(tmp_path: Path) -> None:
    source, target = REGISTERS(), REGISTERS()
    state = of_dinov2(source)
    target.load_state_dict(checkpoint_filter_fn(dict(state), target))
    ours, left_out = in_timms_names(state)
    assert left_out == ["mask_token"] and ours.keys() == target.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in target.state_dict().items())


def test_a_backbone_of_a_detector_reads_the_release(tmp_path: Path) -> None:
    source = REGISTERS()
    torch.save(of_dinov2(source), tmp_path / "a.pth")
    keys: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2}
    keys |= {"num_heads": 2, "mlp_ratio": 1.5, "out_indices": (1,), "final_norm": True}
    target = TimmViT("vit_small_patch14_reg4_dinov2", **keys)
    assert load_file(target, tmp_path / "a.pth").complete
    assert torch.equal(made.map_of(target.model), made.map_of(source))


def test_mmpretrain_reads_the_names_of_transformers(tmp_path: Path) -> None:
    source, target = PLAIN(), made.mm_vit(out_type="featmap")
    torch.save(of_transformers(source), tmp_path / "a.pth")
    assert load_file(target, tmp_path / "a.pth").complete
    torch.testing.assert_close(made.map_of(target), made.map_of(source), atol=1e-5, rtol=1e-5)


def test_a_distilled_deit(tmp_path: Path) -> None:
    """Its own names, and those of mmpretrain's DistilledVisionTransformer."""
    from mmpretrain.models.backbones import DistilledVisionTransformer

    source = distilled()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    found, report = vit_of(tmp_path / "a.pth")
    assert isinstance(found, VisionTransformerDistilled) and report is not None and report.complete
    assert torch.equal(made.output(found), made.output(source))
    assert made.output(found, (1, 3, 48, 64)).shape == (1, 128)
    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 192}
    mm = made.shaken(
        DistilledVisionTransformer(arch=arch, img_size=32, patch_size=8, out_type="featmap")
    )
    convert(tmp_path / "a.pth", tmp_path / "b.pth", to="mmpretrain")
    for path in (tmp_path / "a.pth", tmp_path / "b.pth"):
        made.shaken(mm)
        assert load_file(mm, path).complete
        torch.testing.assert_close(made.map_of(mm), made.map_of(source), atol=1e-5, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"from the VisionTransformer of timm to that of mmseg.*dist"
    ):
        convert(tmp_path / "a.pth", tmp_path / "c.pth", to="mmseg")


def test_a_swiglu_of_timm(tmp_path: Path) -> None:
    source = GATED()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    found, _ = vit_of(tmp_path / "a.pth")
    assert torch.equal(made.output(found), made.output(source))


def test_a_swiglu_in_two_parts(tmp_path: Path) -> None:
    source = made.timm_vit(mlp_ratio=2, mlp_layer=SwiGLU, act_layer=nn.SiLU)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    found, report = vit_of(tmp_path / "a.pth")
    assert report.complete and torch.equal(made.output(found), made.output(source))


def test_a_swiglu_of_mmpretrain(tmp_path: Path) -> None:
    source = made.timm_vit(**SWIGLU | {"mlp_ratio": 2 * 176 / 128})
    torch.save(of_dinov2(source), tmp_path / "a.pth")
    arch = {"embed_dims": 128, "num_layers": 2, "num_heads": 2, "feedforward_channels": 256}
    layer = {"ffn_type": "swiglu_fused", "layer_scale_init_value": 0.1}
    target = made.mm_vit(arch=arch, layer_cfgs=layer, out_type="featmap")
    convert(tmp_path / "a.pth", tmp_path / "b.pth", to="mmpretrain")
    for path in (tmp_path / "a.pth", tmp_path / "b.pth"):
        assert load_file(made.shaken(target), path).complete
        torch.testing.assert_close(made.map_of(target), made.map_of(source), atol=1e-5, rtol=1e-5)
    assert torch.equal(made.output(vit_of(tmp_path / "b.pth")[0]), made.output(source))
    for to in ("mmseg", "dino"):
        with pytest.raises(ValueError, match=r"would compute something else without them.*mlp.w12"):
            convert(tmp_path / "a.pth", tmp_path / "c.pth", to=to)


def test_a_classifier_of_transformers_in_a_card(tmp_path: Path) -> None:
    """The logits are those of timm's classifier."""
    import timm

    from mixplug.hosts.timm.card import subject_of

    source = made.shaken(timm.create_model("test_vit", num_classes=5, norm_layer=SMALL_EPS))
    state = {f"vit.{k}": v for k, v in of_transformers(source).items() if "head" not in k}
    state |= {f"classifier.{leaf}": getattr(source.head, leaf) for leaf in ("weight", "bias")}
    torch.save(state, tmp_path / "a.pth")
    subject = subject_of("test_vit", tmp_path / "a.pth", "a", "cpu", mean=[0.0], std=[1.0])
    pixels = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(subject(pixels), source(pixels), atol=1e-4, rtol=1e-4)


def test_config_json_beside_a_file(tmp_path: Path) -> None:
    """It tells the heads, the epsilon and the activation, and only of files of a hub."""
    from safetensors.torch import save_file

    norm = partial(nn.LayerNorm, eps=0.1)
    source = made.timm_vit(num_heads=4, act_layer="quick_gelu", norm_layer=norm)
    state = {name: tensor.contiguous() for name, tensor in of_transformers(source).items()}
    config = {"model_type": "vit", "hidden_act": "quick_gelu", "layer_norm_eps": 0.1}
    text = json.dumps(config | {"num_attention_heads": 4})
    (tmp_path / "config.json").write_text(text)
    save_file(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "mine.safetensors")
    found, _ = vit_of(tmp_path / "model.safetensors")
    assert torch.equal(made.output(found), made.output(source))
    assert not torch.allclose(
        made.output(vit_of(tmp_path / "mine.safetensors")[0]), made.output(source)
    )
    (tmp_path / "config.json").write_text(text.replace("quick_gelu", "mish"))
    with pytest.raises(ValueError, match=r"hidden_act='mish'; only gelu, .* can be read"):
        vit_of(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"config.json, which describes the model .*cannot be read"
    ):
        vit_of(tmp_path / "model.safetensors")


def test_vits_of_transformers_have_a_small_epsilon(tmp_path: Path) -> None:
    torch.save(of_transformers(PLAIN()), tmp_path / "a.pth")
    assert vit_of(tmp_path / "a.pth")[0].norm.eps == 1e-12
    torch.save(of_transformers(PLAIN(), dino=True), tmp_path / "a.pth")
    assert vit_of(tmp_path / "a.pth")[0].norm.eps == 1e-6


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"embeddings.detection_tokens": (1, 5, 128)}, "no embeddings.detection_tokens"),
        ({"encoder.layer.0.attention.attention.relative_position_bias": (4,)}, "relative_position"),
        ({"encoder.layer.1.attention.attention.key.bias": None}, "attn.qkv.bias from .*3 equal"),
        ({"encoder.layer.1.attention.attention.key.bias": (3,)}, "attn.qkv.bias from .*3 equal"),
    ],
)
def test_other_networks_with_such_names(change: dict, text: str, tmp_path: Path) -> None:
    state = of_transformers(PLAIN())
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.ones(shape)
    torch.save(state, tmp_path / "a.pth")
    for read_it in (vit_of, lambda p: convert(p, tmp_path / "b.pth"), partial(load_file, PLAIN())):
        with pytest.raises(ValueError, match=f"another network than ViT, DeiT or DINOv2.*{text}"):
            read_it(tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").keys() == state.keys()
