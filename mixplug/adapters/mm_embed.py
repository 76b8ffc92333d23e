"""Embeddings of a data set by the model of an mm config, for figures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

import mixplug.mm  # noqa: F401  registers
from mixplug.optional import optional
from mixplug.weights.read import read

SPLITS = ("train", "val", "test")
Tick = Callable[[int, int], None]
_TRAINING = ("loss.", "mixup.")
_IN_ORDER = {"type": "DefaultSampler", "shuffle": False}


@dataclass(frozen=True)
class Embedded:
    """A data set in the embedding space, on the CPU.

    Attributes:
        embeddings: (B, D) float32.
        labels: (B,) int64.
        roles: 'query', 'gallery' or 'train' per example, see RecallAtK.
        sizes: of the batches, in order.
        class_names: one per label; their numbers where the data set has no names.
        model: whose embeddings they are.
        dataset: example i is row i, if the data were read in order.
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
        """An example before the pipeline, (H, W, 3) uint8 in RGB.

        Raises:
            ValueError: the data set does not say where it is.
        """
        info = self.dataset.get_data_info(index)
        if "img" in info:
            return torch.from_numpy(np.ascontiguousarray(info["img"][..., ::-1]))  # mm has BGR
        if "img_path" not in info:
            raise ValueError(
                f"{type(self.dataset).__name__} gives neither img_path nor img, only {list(info)}."
            )
        with optional("PIL.Image", "demo", "A picture").open(info["img_path"]) as picture:
            return torch.from_numpy(np.array(picture.convert("RGB")))


def embeddings_of(
    config: Config | str | Path,
    checkpoint: str | Path | None = None,
    split: str = "test",
    *,
    in_order: bool = True,
    seed: int = 0,
    tick: Tick | None = None,
) -> Embedded:
    """Embed a split of a config's data with its model, in evaluation mode.

    Args:
        config: an mm config, or its path.
        checkpoint: of the config's backbone and embedding; what the loss has learned is not needed,
            so it may come from another loss. None is the model before training.
        split: 'train', 'val' or 'test', whose data loader is taken.
        in_order: whether every example is embedded once, in order; else the sampler of the config
            says what is in a batch.
        seed: of initial weights, sampler and augmentation; torch's and numpy's global generators
            are set to it.
        tick: called with (batches done, batches in all).

    Raises:
        ValueError: a config without model or data, a checkpoint that does not fit or that holds
            more than weights, or a model that gives no embeddings (B, D).
    """
    config = config if isinstance(config, Config) else read_config(config)
    name = f"{split}_dataloader"
    if split not in SPLITS or not config.get("model") or not config.get(name):
        raise ValueError(
            f"A config with the keys model and {name} is needed, got {config.filename} with "
            f"{', '.join(sorted(config)[:12])}."
        )
    set_random_seed(seed)
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmpretrain")):
        model = _model(config, checkpoint)
        loader = Runner.build_dataloader(
            ordered(config[name]) if in_order else copy.deepcopy(dict(config[name])), seed=seed
        )
        return _embed(model, loader, tick)


def read_config(path: str | Path) -> Config:
    """An mm config.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no config {path}.")
    try:
        return Config.fromfile(path)
    except (OSError, SyntaxError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no mm config: {type(error).__name__}: {error}") from error


def built(config: Config, keep_init: bool = False) -> nn.Module:
    """The model of a config, as mmengine's Runner builds it; its weights are those of no file yet.

    Args:
        config: an mm config.
        keep_init: whether its ``init_weights`` shall do what the config says; else weights come
            from a checkpoint, and ``init_cfg`` is left out.

    Raises:
        ValueError: it cannot be built.
    """
    spec = copy.deepcopy(config.model)
    spec["data_preprocessor"] = preprocessor_of(config)
    if not keep_init:
        for part in (spec, spec.get("backbone", {})):
            part.pop("init_cfg", None)
    try:
        return MODELS.build(spec)
    except (KeyError, TypeError) as error:
        raise ValueError(f"The model of {config.filename} cannot be built: {error}") from error


def preprocessor_of(config: Config) -> dict[str, Any]:
    """The data preprocessor that mmengine's Runner builds: the model's own, else the config's."""
    return dict(config.model.get("data_preprocessor") or config.get("data_preprocessor") or {})


def _model(config: Config, checkpoint: str | Path | None) -> nn.Module:
    model = built(config, keep_init=checkpoint is None)
    if checkpoint is None:
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel(logging.WARNING)  # else every parameter is listed
        model.init_weights()
        logger.setLevel(level)
    else:
        load(model, checkpoint)
    return model.to(get_device()).eval()


def load(model: nn.Module, checkpoint: str | Path) -> Mapping[str, Any]:
    """Load all but what only training needs: the loss, and what a mixer has learned.

    Returns:
        All of the checkpoint.

    Raises:
        ValueError: no such file, more in it than weights, or weights of another model.
    """
    found = read(checkpoint)
    given = {k: v for k, v in _state(found, checkpoint).items() if not k.startswith(_TRAINING)}
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(_TRAINING)}
    complaints = [
        (wanted.keys() - given.keys(), "that the model has are missing"),
        (given.keys() - wanted.keys(), "are unknown to the model"),
        (
            {k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape},
            "have another shape",
        ),
    ]
    said = [f"{len(keys)} keys {what} ({min(keys)}, ...)" for keys, what in complaints if keys]
    if said:
        raise ValueError(f"{checkpoint} does not fit the config: {'; '.join(said)}.")
    model.load_state_dict(given, strict=False)
    return found


def weights(checkpoint: str | Path) -> Mapping[str, Tensor]:
    """The state dict of a checkpoint; nothing that is in it is executed.

    Raises:
        ValueError: no such file, or more in it than weights and logs.
    """
    return _state(read(checkpoint), checkpoint)


def _state(found: Mapping[str, Any], checkpoint: str | Path) -> Mapping[str, Tensor]:
    state = found.get("state_dict", found)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{checkpoint} has no state dict of tensors.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def ordered(loader: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a data loader that gives every example once, in order."""
    spec = copy.deepcopy(dict(loader)) | {"sampler": dict(_IN_ORDER), "drop_last": False}
    spec.pop("batch_sampler", None)
    return spec


@torch.no_grad()
def _embed(model: nn.Module, loader: Any, tick: Tick | None) -> Embedded:
    rows, labels, roles = [], [], []
    for number, batch in enumerate(loader, 1):
        ready = model.data_preprocessor(batch, False)
        embeddings = model(ready["inputs"], ready["data_samples"], mode="tensor")
        if not isinstance(embeddings, Tensor) or embeddings.dim() != 2:
            raise ValueError(
                f"{type(model).__name__} gives no embeddings (B, D). The model of the config is to "
                f"be a mixplug.MetricLearner."
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
