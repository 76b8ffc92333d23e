"""Read mm configs, and build their models and load checkpoints into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mixplug.mm  # noqa: F401  registers
from mixplug.weights.read import read

_TRAINING = ("loss.", "mixup.")


_IN_ORDER = {"type": "DefaultSampler", "shuffle": False}


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


def backbone_of(config: str | Path) -> nn.Module:
    """The backbone of a config's model, without weights; the teacher's, if there are several.

    Raises:
        ValueError: no config, or one without a model that can be built and has a backbone.
    """
    found = read_config(config)
    if not found.get("model"):
        raise ValueError(f"{config} has no model.")
    with DefaultScope.overwrite_default_scope(found.get("default_scope", "mmpretrain")):
        try:
            model = MODELS.build(copy.deepcopy(found.model))
        except (KeyError, TypeError) as error:
            raise ValueError(f"The model of {config} cannot be built: {error}") from error
    backbones = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "backbone"
    }
    if not backbones:
        raise ValueError(f"The model of {config}, {type(model).__name__}, has no backbone.")
    return backbones[min(backbones, key=lambda n: ("teacher" not in n.split("."), n.count(".")))]
