"""Metric learning in OpenMMLab: ``model=dict(type='mixplug.MetricLearner', ...)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.hosts.mm.mixing.classifier import Clock
from mixplug.losses.base import MetricLoss
from mixplug.losses.building import build_loss
from mixplug.models.heads.embedding import EmbeddingHead
from mixplug.registry import MODELS

FIELD = "pred_embedding"  # of a data sample, where predictions are
_WIDTHS = ("feat_dim", "out_channels", "out_channel", "num_features", "embed_dims")


@MODELS.register_module()
class MetricLearner(BaseModel):
    """A backbone, an embedding of its last map, and a metric loss.

    ::

        model = dict(
            type='mixplug.MetricLearner',
            backbone=dict(type='mmpretrain.ResNet', depth=50),
            embedding=dict(dim=512),
            loss=dict(type='Metrix', loss=dict(type='ProxyAnchor', num_classes=100)))

    With ``loss=dict(type='ProxyAnchor', num_classes=100)`` it is the baseline. The loss sees the
    batch of its own GPU. What a loss learns is a part of the model, ``loss.proxies`` (below Metrix
    ``loss.loss.proxies``): it is saved, resumed, and may learn at a rate of its own::

        optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'loss.proxies': dict(lr_mult=100)}))

    Args:
        backbone: config of an mm backbone. Of several levels the last counts; vectors (B, C) are
            taken as maps of one position.
        embedding: keys of :class:`mixplug.models.heads.EmbeddingHead`: dim, pool, normalize,
            layer_norm, and in_channels where the backbone does not declare its width.
        loss: config of a metric loss of mixplug's catalog. The ``dim`` of proxies is that of the
            embedding; their ``num_classes`` must be given.
        data_preprocessor: as of mmpretrain's classifiers, 'ClsDataPreprocessor' without ``type``
            (and without anything: it then only stacks images).
        init_cfg: weight initialization by mmengine, such as dict(type='mixplug.Pretrained', ...).

    Attributes:
        clock: where the run stands, set by :class:`mixplug.hosts.mm.hooks.MixupHook`, which the
            Runner has for every model with a clock.

    Raises:
        ValueError: the width of the maps is not known, or see the loss and the embedding.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        loss: Mapping[str, Any] | str,
        embedding: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Any = None,
    ) -> None:
        if data_preprocessor is None or isinstance(data_preprocessor, Mapping):
            plain = {"type": "mmpretrain.ClsDataPreprocessor"}
            data_preprocessor = {**plain, **(data_preprocessor or {})}
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        settings = dict(embedding or {})
        self.in_channels = int(settings.pop("in_channels", 0) or _width(self.backbone))
        self.head = EmbeddingHead(self.in_channels, **settings)
        self.loss: MetricLoss = build_loss(loss, dim=self.head.dim)
        self.clock = Clock()

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = "tensor"
    ) -> Any:
        """Embeddings (B, D); or a dict with the loss; or data samples with their embedding.

        Args:
            inputs: images (B, 3, H, W).
            data_samples: with ``gt_label``, a class each, for the loss.
            mode: 'tensor', 'loss' or 'predict'.

        Raises:
            ValueError: another mode; a loss without labels; maps that the embedding does not fit.
        """
        if mode == "tensor":
            return self.embed(inputs)
        if mode == "loss":
            return {"loss": self._loss(inputs, _classes(data_samples).to(inputs.device))}
        if mode == "predict":
            return self._predict(inputs, data_samples)
        raise ValueError(f"MetricLearner needs mode 'tensor', 'loss' or 'predict', got {mode!r}.")

    def embed(self, inputs: Tensor) -> Tensor:
        """Images to embeddings (B, D)."""
        embeddings: Tensor = self.head(self.maps(inputs))
        return embeddings

    def maps(self, inputs: Tensor) -> Tensor:
        """Images to the last map (B, C, H, W) of the backbone."""
        outputs = self.backbone(inputs)
        last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
        maps = last[:, :, None, None] if isinstance(last, Tensor) and last.dim() == 2 else last
        if not isinstance(maps, Tensor) or maps.dim() != 4 or maps.shape[1] != self.in_channels:
            given = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(
                f"MetricLearner needs maps (B, {self.in_channels}, H, W) or vectors "
                f"(B, {self.in_channels}) from {type(self.backbone).__name__}, got {given}. "
                f"embedding=dict(in_channels=...) sets the width; transformers of mmpretrain give "
                f"maps with out_type='featmap'."
            )
        return maps

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        maps = self.maps(inputs)
        return self.loss.forward_in_host(
            self.head(maps),
            labels,
            features=(maps, self.head),
            inputs=(inputs, self.embed),
            generators=sampling.generators(self.clock.seed, self.clock.step, ranks.rank()),
        )

    def _predict(self, inputs: Tensor, data_samples: list[DataSample] | None) -> list[DataSample]:
        samples = data_samples or [DataSample() for _ in inputs]
        for sample, embedding in zip(samples, self.embed(inputs), strict=True):
            sample.set_field(embedding, FIELD)
        return samples


def _classes(data_samples: list[DataSample] | None) -> Tensor:
    """Class indices (B,)."""
    labels = [sample.get("gt_label") for sample in data_samples or ()]
    if not labels or any(label is None or label.numel() != 1 for label in labels):
        raise ValueError("MetricLearner needs data samples with one gt_label each for its loss.")
    return torch.cat([label.flatten() for label in labels])


def _width(backbone: nn.Module) -> int:
    """Channels of the last map, as a backbone declares them.

    Raises:
        ValueError: it does not.
    """
    for name in _WIDTHS:
        given = getattr(backbone, name, None)
        last = given[-1] if isinstance(given, (tuple, list)) and given else given
        if isinstance(last, int):
            return last
    raise ValueError(
        f"{type(backbone).__name__} does not declare the width of its last map ("
        f"{', '.join(_WIDTHS)}). Give it: embedding=dict(in_channels=...)."
    )
