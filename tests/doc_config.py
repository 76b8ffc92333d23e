"""An mm config of a page is loaded, and what it names is built where no data set is needed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def try_config(path: Path, place: str) -> dict[str, Any]:
    """Load a config, and build its model, mixer, optimizer, evaluators and settings of a card.

    Of a base only the model is built. Data sets are looked up, and their keys compared.
    """
    import mmpretrain  # noqa: F401  its evaluators
    from mmengine.config import Config
    from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope

    import mixplug.mm

    config = Config.fromfile(path)
    own = set(re.findall(r"^(\w+) = ", path.read_text(), flags=re.M))
    built: dict[str, Any] = {"config": config}
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmpretrain")):
        if "mixup" in own:
            built["mixer"] = mixplug.build(config.mixup, kind="mixer")
        if config.get("model", {}).get("type"):
            preprocessor = config.get("data_preprocessor")
            extra = {"data_preprocessor": preprocessor} if preprocessor else {}
            built["model"] = MODELS.build({**extra, **config.model})
        if "mixer" in built and "model" in built:
            _train_with(**{key: built[key] for key in ("model", "mixer")})
        if "optim_wrapper" in own and "model" in built:
            from mmengine.optim import build_optim_wrapper

            built["optim_wrapper"] = build_optim_wrapper(built["model"], config.optim_wrapper)
        for key in own & {"val_evaluator", "test_evaluator"}:
            given = config[key] if isinstance(config[key], list) else [config[key]]
            built[key] = [METRICS.build(one) for one in given]
        for key in own & {"train_dataloader", "val_dataloader", "test_dataloader"}:
            _look_up(config[key].get("dataset"), DATASETS, place)
        if "card" in own:
            from mixplug.evaluation.card import Settings

            built["card"] = Settings.of(config.card)
    return built


def _train_with(model: Any, mixer: Any) -> None:
    """Attach the mixer; the model's state dict stays as it is."""
    from mixplug.hosts.mm.mixing.key import train_with

    names = set(model.state_dict())
    train_with(model, mixer)
    assert set(model.state_dict()) == names


def _look_up(spec: Mapping[str, Any] | None, registry: Any, place: str) -> None:
    """Fail if a data set's type, or one of its keys, is unknown."""
    if spec is None or "type" not in spec:
        return
    with registry.switch_scope_and_registry(None) as scoped:
        found = scoped.get(spec["type"])
    assert found is not None, f"{place}: no data set {spec['type']}"
    taken = inspect.signature(found).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        unknown = {*spec} - {"type", "_delete_", *taken}
        assert not unknown, f"{place}: {spec['type']} has no keys {unknown}"
    for inner in spec.get("datasets", ()):
        _look_up(inner, registry, place)
