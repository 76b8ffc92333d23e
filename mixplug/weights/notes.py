"""What a checkpoint says about its network and its images, beside the tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixplug.weights.config_text import settings_in

TIMMS = "pretrained_cfg"  # key under which timm writes settings of a model
WRITTEN = "mixplug"  # key under which mixplug weights convert writes settings
# Files that hubs of models store beside a config.json, which is then about this file.
_HUB = re.compile(
    r"^(model|pytorch_model|open_clip_\w+|timm_model)(-\d+-of-\d+)?\.(safetensors|bin)$"
)
_NAME = re.compile(r"^[A-Za-z][\w.]*$")  # of a model in timm, without the name of a hub


@dataclass(frozen=True)
class Notes:
    """Notes of a checkpoint; those that it does not have are empty.

    Attributes:
        args: arguments of the training script, such as timm's train.py.
        name: name of a model, which may be one of timm.
        pretrained: timm's ``pretrained_cfg``.
        written: what ``mixplug weights convert`` has written.
        mm: variables of the mm config that mmengine saves.
        transformers: config.json of a model of transformers.
        preprocessor: preprocessor_config.json of a model of transformers.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    pretrained: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    mm: Mapping[str, Any] = field(default_factory=dict)
    transformers: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)


def notes_of(path: str | Path, checkpoint: Mapping[str, Any]) -> Notes:
    """The notes in a checkpoint and in the files that a hub of models stores beside it.

    Args:
        path: of the checkpoint.
        checkpoint: its content, from :func:`mixplug.weights.read`.

    Raises:
        ValueError: a config.json beside it is damaged.
    """
    path = Path(path)
    args = _mapping(checkpoint.get("args"))
    meta = _mapping(checkpoint.get("meta"))
    is_hub = _HUB.match(path.name) is not None
    config = _json(path.with_name("config.json")) if is_hub else {}
    transformers = config if isinstance(config.get("model_type"), str) else {}
    metadata = _metadata(path)
    names = (checkpoint.get("arch"), args.get("model"), config.get("architecture"))
    return Notes(
        args,
        next((n for n in names if isinstance(n, str) and _NAME.match(n)), ""),
        _mapping(checkpoint.get(TIMMS) or metadata.get(TIMMS) or config.get(TIMMS)),
        _mapping(checkpoint.get(WRITTEN) or metadata.get(WRITTEN)),
        settings_in(meta.get("cfg") or meta.get("config")),
        transformers,
        _json(path.with_name("preprocessor_config.json")) if is_hub else {},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return vars(value) if hasattr(value, "__dict__") and not isinstance(value, type) else {}


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path}, which describes the model beside it, cannot be read: {error}. Repair it, or "
            f"remove it."
        ) from error


def _metadata(path: Path) -> dict[str, Any]:
    """Metadata of a .safetensors file whose values are JSON."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    found = {}
    for key in (TIMMS, WRITTEN):
        try:
            found[key] = json.loads(metadata[key])
        except (KeyError, ValueError, RecursionError):
            continue
    return found
