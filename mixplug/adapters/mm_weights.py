"""The backbone that an mm config describes, to see whether a checkpoint fits it."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mixplug.mm  # noqa: F401  registers
from mixplug.adapters.mm_embed import read_config


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
