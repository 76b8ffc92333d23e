"""Vision transformers of timm and of mmpretrain as self-distillation sees them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixplug.models.vit.encoder_base import Encoder, Tokens, caught
from mixplug.models.vit.recompute import Link
from mixplug.weights.timm_names import timm_with

__all__ = [
    "Encoder",
    "MMEncoder",
    "TimmEncoder",
    "Tokens",
    "build_timm_vit",
    "as_encoder",
    "set_heads",
    "made_vit",
]


class TimmEncoder(Encoder):
    """Of timm's VisionTransformer.

    Raises:
        ValueError: one without class token, or whose last block attends in another way.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
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
        # With average pooling timm's last norm comes after it; here it comes before, for all.
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
                f"of {size[0]} x {size[1]}: make it with dynamic_img_size=True."
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
    """Of mmpretrain's VisionTransformer, which resizes its positions by itself.

    Raises:
        ValueError: one without class token, whose last block attends in another way, or with
            ``out_type='avg_featmap'``, a norm of which nothing here has use for.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
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
        with caught(last) as tokens:
            self.backbone(x)
        return tokens[0]

    def _after_attention(self) -> list[nn.Module]:
        block = self.backbone.layers[-1]
        return [block.attn.proj, block.ln2]  # the last norm is followed by what wants all tokens

    def _links(self, kind: str) -> list[Link]:
        plain = [block for block in self.backbone.layers if hasattr(block.ffn, "layers")]
        mlps = [block.ffn.layers for block in plain]
        if kind == "norm":
            first = [(block.ln1, block.attn.qkv) for block in self.backbone.layers]
            return first + [(b.ln2, mlp[0][0]) for b, mlp in zip(plain, mlps, strict=True)]
        return [(mlp[0][1], mlp[1]) for mlp in mlps]

    def _require_size(self, size: tuple[int, int]) -> None:
        """Any: positions are resized."""

    def set_heads(self, heads: int) -> None:
        """See :func:`set_heads`."""
        self._attention.num_heads, self._attention.head_dims = heads, self.width // heads


def _timm() -> Any:
    return sys.modules["timm.models.vision_transformer"]


_KNOWN = (
    ("timm.models.vision_transformer", TimmEncoder),
    ("mmpretrain.models.backbones.vision_transformer", MMEncoder),
)


def as_encoder(backbone: nn.Module) -> Encoder:
    """The view onto a backbone.

    Raises:
        ValueError: neither timm's nor mmpretrain's VisionTransformer; or see :class:`TimmEncoder`
            and :class:`MMEncoder`.
    """
    for module, view in _KNOWN:
        home = sys.modules.get(module)  # else nothing can be one of it
        if home is not None and isinstance(backbone, home.VisionTransformer):
            return view(backbone)
    known = " or ".join(f"{module}.VisionTransformer" for module, _ in _KNOWN)
    raise ValueError(f"The backbone needs to be a {known}, got {type(backbone).__name__}.")


def set_heads(backbone: nn.Module, heads: int) -> None:
    """Split queries, keys and values of the last block anew, in place (Table 6.7b: 16, 32).

    Raises:
        ValueError: the width is no multiple of ``heads``, or the block has what depends on it.
    """
    view = as_encoder(backbone)
    if heads < 1 or view.width % heads:
        raise ValueError(f"A width of {view.width} cannot be split into {heads} heads.")
    if heads != view.heads:
        view.set_heads(heads)


def build_timm_vit(name: str, **keys: Any) -> nn.Module:
    """``timm.create_model`` for images of any size and without classes.

    Args:
        name: such as 'vit_small_patch16_224'.
        **keys: of the model; nothing is downloaded unless ``pretrained=True`` is one of them.

    Raises:
        ImportError: timm is not installed.
        ValueError: a name that timm has not, or a model that is no VisionTransformer with a class
            token.
    """
    timm = timm_with(name)
    try:
        model: nn.Module = timm.create_model(
            name, **{"num_classes": 0, "dynamic_img_size": True, **keys}
        )
    except TypeError as error:  # of a constructor of another kind, or a key of none
        raise ValueError(f"{name} is not made as a VisionTransformer is: {error}.") from error
    as_encoder(model)
    return model


def made_vit(backbone: nn.Module | Mapping[str, Any] | str, heads: int | None = None) -> nn.Module:
    """A backbone from itself, from the name of one of timm's, or from keys of the function above.

    Args:
        backbone: the same object comes back if it is a module; of a TimmViT, timm's model in it.
        heads: of the last block, see :func:`set_heads`; None leaves it.

    Raises:
        ValueError: a TimmViT of which parts are not there, or that attends in windows.
    """
    whole = getattr(backbone, "whole", None)  # of a TimmViT, whose module imports this one
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
