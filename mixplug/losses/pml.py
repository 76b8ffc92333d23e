"""Losses of PyTorch Metric Learning (PML), unchanged: baselines such as those of Table 4.3."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.catalog import REQUIRED, register, suggest
from mixplug.losses.base import MetricLoss
from mixplug.losses.pml_wrappers import PACKAGE, Memory, is_pml, of_views
from mixplug.optional import optional

# Settings of losses and miners that are PML objects themselves, and the modules that define them.
_PARTS = {
    "loss": "losses",
    "miner": "miners",
    "distance": "distances",
    "reducer": "reducers",
    "embedding_regularizer": "regularizers",
    "weight_regularizer": "regularizers",
}


@register("PML", kind="loss", reference="Musgrave 2020", hosts=("timm", "mm", "torch"))
class PML(MetricLoss):
    """Any loss of PyTorch Metric Learning (PML), with or without a miner (baseline of Table 4.3).

    ::

        dict(type="PML", loss="TripletMarginLoss", margin=0.1, miner="TripletMarginMiner")
        dict(type="PML", loss="MarginLoss", beta=1.2, miner=dict(type="DistanceWeightedMiner"))
        dict(type="PML", loss="ContrastiveLoss", pos_margin=1, neg_margin=0,
             distance="CosineSimilarity")

    Losses around a loss take a dict with ``type`` and settings::

        dict(type="PML", loss=dict(type="CrossBatchMemory", loss="ContrastiveLoss",
                                   embedding_size=128, memory_size=1024))
        dict(type="PML", loss=dict(type="SelfSupervisedLoss", loss="NTXentLoss"))

    The memory of CrossBatchMemory is saved and resumed. SelfSupervisedLoss takes examples with one
    label as views of one image; with ``symmetric=False`` the first of them is the anchor.

    The definition, the reduction and the defaults are those of PML. The loss is computed in float32
    (float64 for float64 embeddings).

    Args:
        loss: name of a class of ``pytorch_metric_learning.losses``, a dict with ``type`` and
            settings, or a loss object.
        miner: name of a class of ``pytorch_metric_learning.miners``, a dict with ``type`` and
            settings, or a miner object; None uses all pairs or triplets.
        **options: settings of the loss, if ``loss`` is a name. ``loss``, ``miner``, ``distance``,
            ``reducer`` and regularizers in any of these can be a name, a dict with ``type``, or an
            object.

    Raises:
        ImportError: PML is not installed.
        KeyError: unknown loss, miner or setting; the message suggests the nearest known name.
        ValueError: a required setting is missing.
    """

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        miner: str | Mapping[str, Any] | nn.Module | None = None,
        **options: object,
    ) -> None:
        super().__init__(normalize=False)
        if isinstance(loss, Mapping):
            own = {key: value for key, value in loss.items() if key != "type"}
            if set(own) & set(options):
                raise KeyError(f"PML got {sorted(set(own) & set(options))} twice.")
            loss, options = loss.get("type", ""), {**own, **options}
        self.loss = _build("losses", loss, options, ("loss", "miner"))
        self.memory = Memory(self.loss) if is_pml(self.loss, "CrossBatchMemory") else None
        config = miner if isinstance(miner, Mapping) else {"type": miner}
        settings = {key: value for key, value in config.items() if key != "type"}
        self.miner = None if miner is None else _build("miners", config.get("type", ""), settings)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch. Most PML losses return 0 for a batch without pairs or triplets."""
        embeddings, labels = self.prepare(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            indices = None if self.miner is None else self.miner(embeddings, labels)
            if is_pml(self.loss, "SelfSupervisedLoss"):
                return of_views(self.loss, embeddings, labels, indices)
            if self.memory is not None:
                self.memory.require_room(self.loss, len(embeddings))
            loss: Tensor = self.loss(embeddings, labels, indices)
            if self.memory is not None:
                self.memory.note(self.loss)
        return loss


def _build(
    module: str, target: Any, options: Mapping[str, object], others: tuple[str, ...] = ()
) -> nn.Module:
    """Build a PML object from its name and settings. An object is returned unchanged.

    Args:
        module: module of PML, such as 'losses'.
        target: name of a class of this module, or an object.
        options: settings of the object.
        others: further known keys to suggest for an unknown key.
    """
    if isinstance(target, nn.Module):
        if options:
            raise KeyError(
                f"PML got the object {type(target).__name__} together with the keys "
                f"{sorted(options)}. Pass these settings to the object itself, or pass its class "
                f"name instead of the object."
            )
        return target
    home: ModuleType = optional(f"{PACKAGE}.{module}", "pml", "The loss PML")
    classes: dict[str, Any] = {k: c for k, c in vars(home).items() if inspect.isclass(c)}
    if target not in classes:
        near = suggest(str(target), sorted(classes))
        raise KeyError(f"PML's module {module} has no class {target!r}.{near}")
    known = _settings(classes[target])
    for key in options:
        if key not in known:
            raise KeyError(f"PML has no key {key!r}.{suggest(key, [*others, *known])}")
    missing = [k for k, default in known.items() if default is REQUIRED and k not in options]
    if "loss" in missing:
        raise ValueError(
            f"PML's {target} wraps a loss, but none is given: write "
            f"loss=dict(type={target!r}, loss='ContrastiveLoss', ...)."
        )
    if missing:
        raise ValueError(f"PML's {target} needs the key {missing[0]!r}, but it is missing.")
    built: nn.Module = classes[target](**{k: _part(k, v) for k, v in options.items()})
    return built


def _part(key: str, value: Any) -> Any:
    """The value of a setting; the name or config of a PML object is built."""
    if key not in _PARTS or not isinstance(value, (str, Mapping)):
        return value
    config = {"type": value} if isinstance(value, str) else dict(value)
    return _build(_PARTS[key], config.pop("type", ""), config)


def _settings(cls: type) -> dict[str, object]:
    """Names and defaults of the settings of a class, including those it passes to its bases."""
    settings: dict[str, object] = {}
    positions = True  # whether callers can pass the required arguments of a base
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
