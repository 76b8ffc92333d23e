"""Embeddings of the data of an mm config, computed by its model, for figures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

import mixplug.mm  # noqa: F401  registers
from mixplug.from_config.config import build_model, load_weights, ordered_loader, read_config
from mixplug.image_files import read_image

SPLITS = ("train", "val", "test")
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a data set, on the CPU.

    Attributes:
        embeddings: (B, D) float32.
        labels: (B,) int64.
        roles: 'query', 'gallery' or 'train' per example, see RecallAtK.
        sizes: batch sizes, in order.
        class_names: one per label; class indices if the data set has no names.
        model: the model that computed them.
        dataset: the data set. Example i is row i if the data were loaded in order.
    """

    embeddings: Tensor
    labels: Tensor
    roles: Sequence[str]
    sizes: Sequence[int]
    class_names: Sequence[str]
    model: nn.Module = field(repr=False)
    dataset: Any = field(repr=False)

    def of(self, *roles: str) -> Tensor:
        """Indices (B',) of the examples with one of these roles."""
        return torch.tensor([i for i, role in enumerate(self.roles) if role in roles]).long()

    def image(self, index: int) -> Tensor:
        """Image of an example before the pipeline, (H, W, 3) uint8 in RGB.

        Raises:
            ValueError: the data set gives neither the image nor its path.
        """
        info = self.dataset.get_data_info(index)
        if "img" in info:
            return torch.from_numpy(np.ascontiguousarray(info["img"][..., ::-1]))  # mm has BGR
        if "img_path" not in info:
            raise ValueError(
                f"{type(self.dataset).__name__} gives neither img_path nor img, only {list(info)}."
            )
        # upright, as mmcv loads it for the model
        return read_image(info["img_path"], orientation="apply").permute(1, 2, 0).contiguous()


def embeddings_of(
    config: Config | str | Path,
    checkpoint: str | Path | None = None,
    split: str = "test",
    *,
    in_order: bool = True,
    seed: int = 0,
    tick: Tick | None = None,
) -> Embedded:
    """Embed a split of the data of a config with its model in evaluation mode.

    Args:
        config: an mm config, or its path.
        checkpoint: weights of the backbone and the embedding. Weights of the loss are not needed,
            so the checkpoint may be of another loss. None takes the model before training.
        split: 'train', 'val' or 'test': which data loader of the config is used.
        in_order: whether to embed every example once, in order; else the sampler of the config
            forms the batches.
        seed: of initial weights, sampler and augmentation. It sets the global generators of torch
            and numpy.
        tick: called with (number of finished batches, number of batches).

    Raises:
        ValueError: a config without model or data, a checkpoint that does not fit or contains
            objects other than weights, or a model that does not return embeddings (B, D).
    """
    config = config if isinstance(config, Config) else read_config(config)
    name = f"{split}_dataloader"
    if split not in SPLITS or not config.get("model") or not config.get(name):
        raise ValueError(
            f"The config needs the keys model and {name}, got {config.filename} with "
            f"{', '.join(sorted(config)[:12])}."
        )
    set_random_seed(seed)
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmpretrain")):
        model = _model(config, checkpoint)
        loader = Runner.build_dataloader(
            ordered_loader(config[name]) if in_order else copy.deepcopy(dict(config[name])),
            seed=seed,
        )
        return _embed(model, loader, tick)


def _model(config: Config, checkpoint: str | Path | None) -> nn.Module:
    model = build_model(config, keep_init=checkpoint is None)
    if checkpoint is None:
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel(logging.WARNING)  # otherwise it lists every parameter
        model.init_weights()
        logger.setLevel(level)
    else:
        load_weights(model, checkpoint)
    return model.to(get_device()).eval()


@torch.no_grad()
def _embed(model: nn.Module, loader: Any, tick: Tick | None) -> Embedded:
    rows, labels, roles = [], [], []
    for number, batch in enumerate(loader, 1):
        ready = model.data_preprocessor(batch, False)
        embeddings = model(ready["inputs"], ready["data_samples"], mode="tensor")
        if not isinstance(embeddings, Tensor) or embeddings.dim() != 2:
            raise ValueError(
                f"{type(model).__name__} does not return embeddings (B, D). The model of the "
                f"config must be a mixplug.MetricLearner."
            )
        rows.append(embeddings.float().cpu())
        labels.append(torch.cat([s.gt_label.flatten() for s in ready["data_samples"]]).cpu())
        roles += [sample.get("role", "query") for sample in ready["data_samples"]]
        if tick is not None:
            tick(number, len(loader))
    classes = torch.cat(labels)
    names = getattr(loader.dataset, "metainfo", {}).get("classes")
    return Embedded(
        torch.cat(rows),
        classes,
        roles,
        [len(row) for row in rows],
        names or [str(label) for label in range(int(classes.max()) + 1)],
        model,
        loader.dataset,
    )
