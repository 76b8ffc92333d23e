"""PyTorch Metric Learning's losses as they are: baselines such as those of Table 4.3."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.catalog import REQUIRED, register, suggest
from mixplug.losses.base import MetricLoss
from mixplug.optional import optional

PACKAGE = "pytorch_metric_learning"
# Settings of a loss or a miner that are objects of PML themselves, and where it keeps them.
_PARTS = {
    "distance": "distances",
    "reducer": "reducers",
    "embedding_regularizer": "regularizers",
    "weight_regularizer": "regularizers",
}


@register("PML", kind="loss", reference="Musgrave 2020, PML", hosts=("timm", "mm", "torch"))
class PML(MetricLoss):
    """Any loss of PyTorch Metric Learning, with or without a miner: a baseline of Table 4.3.

    ::

        dict(type="PML", loss="TripletMarginLoss", margin=0.1, miner="TripletMarginMiner")
        dict(type="PML", loss="MarginLoss", beta=1.2, miner=dict(type="DistanceWeightedMiner"))
        dict(type="PML", loss="ContrastiveLoss", pos_margin=1, neg_margin=0,
             distance="CosineSimilarity")

    PML's own definition, reduction and defaults hold. It computes in float32 (float64 if given).

    Args:
        loss: name of a class of ``pytorch_metric_learning.losses``, or a loss.
        miner: name of a class of ``pytorch_metric_learning.miners``, a dict with ``type`` and its
            settings, or a miner; None takes all pairs or triplets.
        **options: settings of the loss. ``distance``, ``reducer`` and regularizers are given by
            name, by a dict with ``type``, or as objects.

    Raises:
        ImportError: PML is not installed.
        KeyError: no such loss, miner or setting, with the nearest known one.
        ValueError: a setting without default is not given.
    """

    def __init__(
        self,
        loss: str | nn.Module,
        miner: str | Mapping[str, Any] | nn.Module | None = None,
        **options: object,
    ) -> None:
        super().__init__(normalize=False)
        self.loss = _made("losses", loss, options, ("loss", "miner"))
        given = miner if isinstance(miner, Mapping) else {"type": miner}
        settings = {key: value for key, value in given.items() if key != "type"}
        self.miner = None if miner is None else _made("miners", given.get("type", ""), settings)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """See :class:`MetricLoss`; a batch without pairs or triplets gives 0 in most losses."""
        embeddings, labels = self.prepare(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            chosen = None if self.miner is None else self.miner(embeddings, labels)
            loss: Tensor = self.loss(embeddings, labels, chosen)
        return loss


def _made(
    module: str, target: Any, options: Mapping[str, object], others: tuple[str, ...] = ()
) -> nn.Module:
    """An object of PML from its name and settings; itself if it is one already.

    Args:
        module: of PML, 'losses' or another.
        target: name or object.
        options: its settings.
        others: names of settings that are known but not its own, for suggestions.
    """
    if isinstance(target, nn.Module):
        if options:
            raise KeyError(
                f"PML was given the object {type(target).__name__} and the keys {sorted(options)}: "
                f"settings go into the object, or its name is given."
            )
        return target
    home: ModuleType = optional(f"{PACKAGE}.{module}", "pml", "The loss PML")
    classes: dict[str, Any] = {k: c for k, c in vars(home).items() if inspect.isclass(c)}
    if target not in classes:
        near = suggest(str(target), sorted(classes))
        raise KeyError(f"PML has none of {module} named {target!r}.{near}")
    known = _settings(classes[target])
    for key in options:
        if key not in known:
            raise KeyError(f"PML has no key {key!r}.{suggest(key, [*others, *known])}")
    missing = [k for k, default in known.items() if default is REQUIRED and k not in options]
    if missing:
        raise ValueError(f"PML's {target} needs the key {missing[0]!r}, which is not given.")
    made: nn.Module = classes[target](**{k: _part(k, v) for k, v in options.items()})
    return made


def _part(key: str, value: Any) -> Any:
    """A setting, built where it is the name or the config of another object of PML."""
    if key not in _PARTS or not isinstance(value, (str, Mapping)):
        return value
    config = {"type": value} if isinstance(value, str) else dict(value)
    return _made(_PARTS[key], config.pop("type", ""), config)


def _settings(cls: type) -> dict[str, object]:
    """Names and defaults of a class's settings, and of those that it hands on to its bases."""
    settings: dict[str, object] = {}
    positions = True  # whether what a base needs may come from outside
    for base in cls.__mro__:
        if base is nn.Module or "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                if p.default is not p.empty:
                    settings.setdefault(p.name, p.default)
                elif positions:
                    settings.setdefault(p.name, REQUIRED)
        kinds = {p.kind for p in parameters}
        positions = positions and inspect.Parameter.VAR_POSITIONAL in kinds
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return settings
