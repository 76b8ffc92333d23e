"""What the shapes of a vision transformer do not tell: activation, epsilon and heads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from mixplug.names import listed
from mixplug.weights.config_text import walk
from mixplug.weights.dialects import TRANSFORMERS, dialect_of
from mixplug.weights.notes import Notes

_BEFORE = re.compile(r"^(norm_pre|pre_norm|ln_pre)\.")  # a norm before the blocks
# Activations in configs of transformers, to timm's names.
_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


@dataclass(frozen=True)
class Architecture:
    """Settings that no shape tells; None where they are unknown.

    Attributes:
        activation: timm's name of the activation in MLPs.
        eps: epsilon of the norms.
        heads: number of attention heads.
    """

    activation: str | None = None
    eps: float | None = None
    heads: int | None = None

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Architecture:
        """The settings that :meth:`facts` gave; others are ignored."""
        kinds = {"activation": str, "eps": float, "heads": int}
        return cls(**{k: written[k] for k, kind in kinds.items() if type(written.get(k)) is kind})

    def facts(self) -> dict[str, Any]:
        """The known settings, to be written into a file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def keys(self) -> dict[str, Any]:
        """Arguments of timm's VisionTransformer, without the number of heads."""
        found: dict[str, Any] = {}
        if self.activation is not None:
            found["act_layer"] = self.activation
        if self.eps is not None:
            found["norm_layer"] = partial(nn.LayerNorm, eps=self.eps)
        return found


def architecture_of(notes: Notes, backbone: Mapping[str, Tensor]) -> Architecture:
    """What a checkpoint says about its network.

    Models ViT and DeiT of transformers have an epsilon of 1e-12 unless their config.json says
    otherwise, and DINOv2 1e-6.

    Args:
        notes: of the checkpoint.
        backbone: tensors with the names in the file.

    Raises:
        ValueError: an activation that timm does not have.
    """
    written = Architecture.of(notes.written)
    if written.facts():
        return written
    if dialect_of(backbone) == TRANSFORMERS:
        return _of_transformers(notes.transformers, backbone)
    if "quickgelu" in notes.name:
        return Architecture("quick_gelu")
    return _of_mm(notes.mm)


def check_activation(
    model: nn.Module, state: Mapping[str, Tensor], told: Architecture, source: str
) -> None:
    """Compare the activation of a model with that of the weights, which no shape tells.

    Weights with a norm before the blocks, as CLIP's, that do not say their activation give a
    warning.

    Args:
        model: a vision transformer.
        state: tensors of the checkpoint's backbone.
        told: what the checkpoint says.
        source: description of the checkpoint for the message.

    Raises:
        ValueError: one has GELU and the other QuickGELU.
    """
    own = activation_of(model)
    if own is None:
        return
    if told.activation not in (None, own) and "quick_gelu" in (told.activation, own):
        raise ValueError(
            f"{source} was trained with the activation {told.activation}, but "
            f"{type(model).__name__} has {own}. Build the model with act_layer="
            f"{told.activation!r}, or choose the model of timm with or without 'quickgelu' in its "
            f"name (in mmpretrain, act_cfg)."
        )
    if told.activation is None and any(_BEFORE.match(name) for name in state):
        warnings.warn(
            f"{source} does not say whether it was trained with GELU or QuickGELU, as OpenAI's "
            f"CLIP was; {type(model).__name__} has {own}.",
            UserWarning,
            stacklevel=4,
        )


def activation_of(model: nn.Module) -> str | None:
    """Name in timm of the activation: gelu, gelu_tanh or quick_gelu; None for others."""
    kinds = {"QuickGELU": "quick_gelu", "GELU": "gelu", "GELUTanh": "gelu_tanh"}
    found = (kinds.get(type(module).__name__) for module in model.modules())
    return next(filter(None, found), None)


def _of_transformers(config: Mapping[str, Any], backbone: Mapping[str, Tensor]) -> Architecture:
    plain = any(".layernorm_before." in name for name in backbone)
    activation = config.get("hidden_act")
    if activation is not None and activation not in _ACTIVATIONS:
        raise ValueError(
            f"config.json says hidden_act={activation!r}; only {listed(_ACTIVATIONS, 'and')} can "
            f"be read."
        )
    gated = any(".mlp.weights_in." in name or ".mlp.gate_proj." in name for name in backbone)
    eps, heads = config.get("layer_norm_eps"), config.get("num_attention_heads")
    return Architecture(
        None if gated or activation is None else _ACTIVATIONS[activation],
        float(eps) if isinstance(eps, int | float) else (1e-12 if plain else 1e-6),
        heads if isinstance(heads, int) else None,
    )


def _of_mm(config: Mapping[str, Any]) -> Architecture:
    for found in walk(config.get("model")):
        backbone = found.get("backbone")
        kind = str(backbone.get("type", "")) if isinstance(backbone, Mapping) else ""
        if kind.rpartition(".")[2] in ("VisionTransformer", "DistilledVisionTransformer"):
            quick = any("QuickGELU" in str(part.get("type")) for part in walk(backbone))
            norm = backbone.get("norm_cfg") if isinstance(backbone, Mapping) else None
            eps = norm.get("eps", 1e-5) if isinstance(norm, Mapping) else None
            return Architecture("quick_gelu" if quick else "gelu", eps)
    return Architecture()
