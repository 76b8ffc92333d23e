"""Read mm configs, build their models, and load checkpoints into them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mixplug.mm  # noqa: F401  registers
from mixplug.renamed import renamed_names
from mixplug.weights.preprocessing import preprocessing_of
from mixplug.weights.read import read

_TRAINING = ("loss.", "mixup.")  # prefixes of weights that only training needs
_IN_ORDER = {"type": "DefaultSampler", "shuffle": False}


def read_config(path: str | Path) -> Config:
    """Read an mm config.

    Raises:
        ValueError: the file does not exist or is not a config.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no config {path}.")
    try:
        return Config.fromfile(path)
    except (OSError, SyntaxError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not an mm config: {type(error).__name__}: {error}") from error


def build_model(config: Config, keep_init: bool = False) -> nn.Module:
    """Build the model of a config as mmengine's Runner does, without loading weights.

    Args:
        config: an mm config.
        keep_init: whether to keep ``init_cfg``, which ``init_weights`` follows. It is removed if
            weights will come from a checkpoint.

    Raises:
        ValueError: the model cannot be built.
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
    """Config of the data preprocessor: that of the model, else that of the config, as in Runner."""
    return dict(config.model.get("data_preprocessor") or config.get("data_preprocessor") or {})


def load_weights(model: nn.Module, checkpoint: str | Path) -> Mapping[str, Any]:
    """Load a checkpoint, without the weights of the loss and of the mixer.

    Returns:
        The whole content of the checkpoint.

    Raises:
        ValueError: the file does not exist, contains objects other than weights and logs, or has
            the weights of another model.
    """
    found = read(checkpoint)
    given = {k: v for k, v in _state(found, checkpoint).items() if not k.startswith(_TRAINING)}
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(_TRAINING)}
    complaints = [
        (wanted.keys() - given.keys(), "of the model are missing"),
        (given.keys() - wanted.keys(), "are not in the model"),
        (
            {k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape},
            "have another shape",
        ),
    ]
    faults = [f"{len(keys)} keys {what} ({min(keys)}, ...)" for keys, what in complaints if keys]
    if faults:
        raise ValueError(f"{checkpoint} does not fit the config: {'; '.join(faults)}.")
    model.load_state_dict(given, strict=False)
    _compare_images(model, checkpoint, found)
    return found


def _compare_images(model: nn.Module, checkpoint: str | Path, found: Mapping[str, Any]) -> None:
    """Warn if the config normalizes images in another way than the one in the checkpoint."""
    processor = getattr(model, "data_preprocessor", None)
    mean, std = (getattr(processor, key, None) for key in ("mean", "std"))
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        return
    told = preprocessing_of(checkpoint, found=found)
    different = told.contradicted(mean.flatten().tolist(), std.flatten().tolist())
    if different:
        warnings.warn(
            f"{checkpoint}: {different}. The config decides: change its data_preprocessor, or use "
            f"the config of the training.",
            UserWarning,
            stacklevel=3,
        )


def state_dict_of(checkpoint: str | Path) -> Mapping[str, Tensor]:
    """The state dict of a checkpoint; no code in the file is executed.

    Raises:
        ValueError: the file does not exist or contains objects other than weights and logs.
    """
    return _state(read(checkpoint), checkpoint)


def _state(found: Mapping[str, Any], checkpoint: str | Path) -> Mapping[str, Tensor]:
    state = found.get("state_dict", found)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{checkpoint} has no state dict of tensors.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def ordered_loader(loader: Mapping[str, Any]) -> dict[str, Any]:
    """A data loader config changed so that every example is loaded once, in order."""
    spec = copy.deepcopy(dict(loader)) | {"sampler": dict(_IN_ORDER), "drop_last": False}
    spec.pop("batch_sampler", None)
    return spec


def backbone_of(config: str | Path) -> nn.Module:
    """Build the backbone of a config's model without loading weights.

    If the model has several backbones, the one of the teacher is returned.

    Raises:
        ValueError: there is no config, its model cannot be built, or the model has no backbone.
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


__getattr__ = renamed_names(
    __name__,
    {
        "built": build_model,
        "load": load_weights,
        "ordered": ordered_loader,
        "weights": state_dict_of,
    },
)
