"""ViTs of timm as backbones in mmdet, mmseg and mmpretrain, and learning rates of their layers.

::

    backbone = dict(
        type='mixplug.TimmViT', model_name='vit_small_patch16_224', out_indices=(3, 5, 7, 11),
        init_cfg=dict(type='mixplug.Pretrained', checkpoint='dora.pth', part='teacher'))
    neck = dict(type='mixplug.ViTPyramid', embed_dim=384)
"""

from __future__ import annotations

import copy
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mixplug.hosts.mm.models import strides  # noqa: F401  watches detectors
from mixplug.hosts.mm.models.pretrained import with_own_pretrained
from mixplug.models.vit import pyramid, timm_vit
from mixplug.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS


@MODELS.register_module()
class TimmViT(timm_vit.TimmViT, BaseModule):
    """A ViT of timm as the backbone of a detector or segmentor: maps of several of its blocks.

    It is :class:`mixplug.models.vit.TimmViT`, with all keys of that class.

    Args:
        init_cfg: mmengine's weight initialization, where 'Pretrained' is mixplug's own, see
            :func:`mixplug.hosts.mm.models.pretrained.with_own_pretrained`; None keeps timm's.
        pretrained: whether timm downloads its own weights.
    """

    def __init__(
        self, *args: Any, init_cfg: Any = None, pretrained: bool = False, **keys: Any
    ) -> None:
        if isinstance(
            pretrained, str
        ):  # an old key of mmseg; a true value would download timm's weights
            raise ValueError(
                f"The key pretrained of TimmViT is a bool, whether timm downloads its weights, got "
                f"{pretrained!r}. Load a checkpoint by init_cfg=dict(type='mixplug.Pretrained', "
                f"checkpoint=...)."
            )
        super().__init__(*args, pretrained=bool(pretrained), **keys)
        self.init_cfg = with_own_pretrained(init_cfg, "TimmViT")


@MODELS.register_module()
class ViTPyramid(pyramid.ViTPyramid, BaseModule):
    """Maps of four strides from the single stride of a ViT, with the norms of mmcv.

    It is :class:`mixplug.models.vit.ViTPyramid`.

    Args:
        embed_dim: D, channels of every input and output map.
        norm_cfg: config of the norm between the two deconvolutions.
        init_cfg: weight initialization by mmengine, such as dict(type='mixplug.Pretrained', ...).
    """

    def __init__(
        self, embed_dim: int = 384, norm_cfg: dict[str, Any] | None = None, init_cfg: Any = None
    ) -> None:
        settings = norm_cfg or {"type": "BN"}
        super().__init__(embed_dim, lambda channels: build_norm_layer(settings, channels)[1])
        self.init_cfg = copy.deepcopy(init_cfg)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Lower learning rates for earlier layers of the backbone (6.5.3).

        lr_l = lr rate^(L - l),   l = 0 for embeddings, i + 1 for block i, L for what follows

    ::

        optim_wrapper = dict(constructor='mixplug.LayerDecay',
                             paramwise_cfg=dict(layer_decay_rate=0.75))

    The depth l of a parameter comes from ``get_layer_depth`` of the backbone, which mixplug.TimmViT
    and the transformers of mmpretrain have. Other keys of ``paramwise_cfg`` are mmengine's.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper. The Runner gives it.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], and keys of mmengine's constructor.

    Raises:
        ValueError: a rate outside (0, 1], or a backbone without ``get_layer_depth``.
    """

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        settings = dict(paramwise_cfg or {})
        self.rate = settings.pop("layer_decay_rate", None)
        if self.rate is None or not 0 < self.rate <= 1:
            raise ValueError(
                f"mixplug.LayerDecay needs paramwise_cfg=dict(layer_decay_rate=...) in (0, 1], got "
                f"{self.rate}."
            )
        # with an empty one mmengine would put all parameters into one group
        super().__init__(optim_wrapper_cfg, settings or {"bias_lr_mult": 1.0})

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **keys: Any
    ) -> None:
        """Append one parameter group for every combination of learning rate and weight decay."""
        if prefix:  # mmengine visits child modules
            super().add_params(params, module, prefix=prefix, **keys)
            return
        one_each: list[dict[str, Any]] = []
        super().add_params(one_each, module, prefix=prefix, **keys)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for group in one_each:
            (parameter,) = (
                group["params"] if isinstance(group["params"], list) else [group["params"]]
            )
            if not parameter.requires_grad:
                continue
            depth, depths = _depth(module, names[id(parameter)])
            scale = self.rate ** (depths - 1 - depth)
            settings = {
                **{k: v for k, v in group.items() if k != "params"},
                "lr": group.get("lr", self.base_lr) * scale,
            }
            key = tuple(sorted(settings.items()))
            groups.setdefault(key, {"params": [], **settings})["params"].append(parameter)
        params += groups.values()


def _depth(model: nn.Module, name: str) -> tuple[int, int]:
    backbone = getattr(model, "backbone", None)
    if not hasattr(backbone, "get_layer_depth"):
        raise ValueError(
            f"mixplug.LayerDecay needs a model whose backbone has get_layer_depth, such as "
            f"mixplug.TimmViT, got {type(model).__name__} with {type(backbone).__name__}."
        )
    return backbone.get_layer_depth(name, "backbone.")
