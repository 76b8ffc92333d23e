"""Encoders of the vision transformers of timm and mmpretrain, and how to build a backbone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixplug.models.vit.encoder_base import Encoder, Tokens, outputs_of
from mixplug.models.vit.recompute import Link
from mixplug.renamed import renamed_names
from mixplug.weights.timm_names import timm_with

__all__ = [
    "Encoder",
    "MMEncoder",
    "TimmEncoder",
    "Tokens",
    "build_timm_vit",
    "as_encoder",
    "set_heads",
    "build_vit",
]


class TimmEncoder(Encoder):
    """Encoder of timm's VisionTransformer.

    Raises:
        ValueError: it has no class token, or its last block has another attention.
    """

    def __init__(self, backbone: Any, mask_token: Tensor | None = None) -> None:
        super().__init__(backbone, mask_token)
        _require_class_token(backbone.has_class_token)
        _require_attention(self._attention, "timm.layers.attention", "Attention")
        self.width, self.depth = backbone.embed_dim, len(backbone.blocks)
        self.prefix = backbone.num_prefix_tokens
        self.patch = tuple(backbone.patch_embed.patch_size)

    @property
    def _attention(self) -> Any:
        return getattr(self.backbone.blocks[-1], "attn", None)

    def _tokens(self, x: Tensor) -> Tensor:
        tokens = self.backbone.forward_features(x)
        # With average pooling timm applies its last norm to the mean; here it is applied to all.
        after = isinstance(self.backbone.norm, nn.Identity)
        return self.backbone.fc_norm(tokens) if after else tokens

    def _after_attention(self) -> list[nn.Module]:
        block = self.backbone.blocks[-1]
        if not isinstance(block, _timm().Block):
            return []
        return [block.attn.proj, block.norm2, self.backbone.norm]

    def _links(self, kind: str) -> list[Link]:
        blocks = [block for block in self.backbone.blocks if isinstance(block, _timm().Block)]
        if kind == "norm":
            return [(b.norm1, b.attn.qkv) for b in blocks if hasattr(b.attn, "qkv")] + [
                (b.norm2, b.mlp.fc1) for b in blocks if hasattr(b.mlp, "fc1")
            ]
        return [(b.mlp.act, b.mlp.fc2) for b in blocks if isinstance(b.mlp, _timm().Mlp)]

    def _require_size(self, size: tuple[int, int]) -> None:
        own = self.backbone.patch_embed.img_size
        if own is not None and not self.backbone.dynamic_img_size and tuple(size) != tuple(own):
            raise ValueError(
                f"This VisionTransformer has positions for {own[0]} x {own[1]} pixels, got images "
                f"of {size[0]} x {size[1]}: build it with dynamic_img_size=True."
            )

    def set_heads(self, heads: int) -> None:
        """See :func:`set_heads`."""
        attention = self._attention
        if not isinstance(attention.q_norm, nn.Identity):
            raise ValueError(
                f"The last block normalizes queries and keys of {attention.head_dim} channels per "
                f"head, so it cannot be split into {heads} heads."
            )
        attention.num_heads, attention.head_dim = heads, self.width // heads
        attention.scale = attention.head_dim**-0.5


class MMEncoder(Encoder):
    """Encoder of mmpretrain's VisionTransformer, which resizes its position embeddings itself.

    Raises:
        ValueError: it has no class token, its last block has another attention, or it has
            ``out_type='avg_featmap'``, whose extra norm would get no gradient.
    """

    def __init__(self, backbone: Any, mask_token: Tensor | None = None) -> None:
        super().__init__(backbone, mask_token)
        _require_class_token(backbone.cls_token is not None)
        _require_attention(
            self._attention, "mmpretrain.models.utils.attention", "MultiheadAttention"
        )
        if backbone.out_type == "avg_featmap":
            raise ValueError(
                "A VisionTransformer of mmpretrain needs out_type in ('cls_token', 'featmap', "
                "'raw'), got 'avg_featmap'."
            )
        self.width, self.depth = backbone.embed_dims, len(backbone.layers)
        self.prefix = backbone.num_extra_tokens
        self.patch = tuple(backbone.patch_embed.projection.kernel_size)

    @property
    def _attention(self) -> Any:
        return getattr(self.backbone.layers[-1], "attn", None)

    def _tokens(self, x: Tensor) -> Tensor:
        last = self.backbone.ln1 if self.backbone.final_norm else self.backbone.layers[-1]
        with outputs_of(last) as tokens:
            self.backbone(x)
        return tokens[0]

    def _after_attention(self) -> list[nn.Module]:
        block = self.backbone.layers[-1]
        return [block.attn.proj, block.ln2]  # not the last norm: code after it reads all tokens

    def _links(self, kind: str) -> list[Link]:
        plain = [block for block in self.backbone.layers if hasattr(block.ffn, "layers")]
        mlps = [block.ffn.layers for block in plain]
        if kind == "norm":
            first = [(block.ln1, block.attn.qkv) for block in self.backbone.layers]
            return first + [(b.ln2, mlp[0][0]) for b, mlp in zip(plain, mlps, strict=True)]
        return [(mlp[0][1], mlp[1]) for mlp in mlps]

    def _require_size(self, size: tuple[int, int]) -> None:
        """Accept any size: position embeddings are resized."""

    def set_heads(self, heads: int) -> None:
        """See :func:`set_heads`."""
        self._attention.num_heads, self._attention.head_dims = heads, self.width // heads


def _timm() -> Any:
    return sys.modules["timm.models.vision_transformer"]


_KNOWN = (
    ("timm.models.vision_transformer", TimmEncoder),
    ("mmpretrain.models.backbones.vision_transformer", MMEncoder),
)


def as_encoder(backbone: nn.Module, mask_token: Tensor | None = None) -> Encoder:
    """The encoder of a backbone.

    Args:
        backbone: a VisionTransformer of timm or mmpretrain.
        mask_token: (D,), with which :meth:`Encoder.tokens` and the like take a mask.

    Raises:
        ValueError: another network; or see :class:`TimmEncoder` and :class:`MMEncoder`.
    """
    for module, encoder in _KNOWN:
        home = sys.modules.get(module)  # not imported: the backbone cannot be one of its classes
        if home is not None and isinstance(backbone, home.VisionTransformer):
            return encoder(backbone, mask_token)
    known = " or ".join(f"{module}.VisionTransformer" for module, _ in _KNOWN)
    raise ValueError(f"The backbone needs to be a {known}, got {type(backbone).__name__}.")


def set_heads(backbone: nn.Module, heads: int) -> None:
    """Change the number of heads of the last block, in place and without changing its weights.

    The thesis does so to track 16 or 32 objects (Table 6.7b).

    Raises:
        ValueError: the width is not a multiple of ``heads``, or the block normalizes the channels
            of each head.
    """
    encoder = as_encoder(backbone)
    if heads < 1 or encoder.width % heads:
        raise ValueError(f"A width of {encoder.width} cannot be split into {heads} heads.")
    if heads != encoder.heads:
        encoder.set_heads(heads)


def build_timm_vit(name: str, **keys: Any) -> nn.Module:
    """A vision transformer of timm without classifier, for images of any size.

    Args:
        name: of a model of timm, such as 'vit_small_patch16_224'.
        **keys: of ``timm.create_model``; nothing is downloaded unless ``pretrained=True`` is given.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or the model is not a VisionTransformer with a class
            token.
    """
    timm = timm_with(name)
    try:
        model: nn.Module = timm.create_model(
            name, **{"num_classes": 0, "dynamic_img_size": True, **keys}
        )
    except TypeError as error:  # another kind of model, or an unknown key
        raise ValueError(f"{name} cannot be built as a VisionTransformer: {error}.") from error
    as_encoder(model)
    return model


def build_vit(backbone: nn.Module | Mapping[str, Any] | str, heads: int | None = None) -> nn.Module:
    """A backbone from a module, a name or keys.

    Args:
        backbone: a module, which is returned itself (of a TimmViT timm's model inside it); or the
            name of a model of timm; or keys of :func:`build_timm_vit`.
        heads: number of heads of the last block, see :func:`set_heads`; None keeps it.

    Raises:
        ValueError: a TimmViT that lacks parts of timm's model, or attends in windows.
    """
    whole = getattr(backbone, "whole", None)  # a TimmViT; its module imports this one
    if callable(whole):
        backbone = whole()
    if not isinstance(backbone, nn.Module):
        backbone = build_timm_vit(**({"name": backbone} if isinstance(backbone, str) else backbone))
    if heads is not None:
        set_heads(backbone, heads)
    return backbone


def _require_class_token(has_it: bool) -> None:
    if not has_it:
        raise ValueError("The VisionTransformer needs a class token, got one without.")


def _require_attention(attention: Any, module: str, name: str) -> None:
    if not isinstance(attention, getattr(sys.modules[module], name)):
        raise ValueError(
            f"The last block of the VisionTransformer needs {module}.{name}, got "
            f"{type(attention).__name__}."
        )


__getattr__ = renamed_names(__name__, {"made_vit": build_vit})
