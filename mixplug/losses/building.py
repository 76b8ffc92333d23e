"""Losses from configs, and losses of form (4.3) from those of another package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mixplug.catalog import REQUIRED, build, entries, keys_of, resolve
from mixplug.losses.base import MetricLoss, PairLoss

Converter = Callable[[nn.Module], PairLoss | None]
_converters: list[Converter] = []


def converts(convert: Converter) -> Converter:
    """Say how losses of another package are taken for losses of form (4.3).

    ``convert`` returns None for a loss that it does not know, and raises ValueError with the reason
    for one that it knows and that is of another form.
    """
    _converters.append(convert)
    return convert


def as_pair_loss(loss: nn.Module | Mapping[str, Any] | str, name: str) -> PairLoss:
    """A loss of form (4.3): itself, what a config builds, or what another package's loss is.

    Args:
        loss: a loss, its config or its name.
        name: of what needs it, for messages.

    Raises:
        ValueError: a loss of another form.
    """
    built = loss if isinstance(loss, nn.Module) else build(loss, kind="loss")
    if isinstance(built, PairLoss):
        return built
    entries("loss")  # imports the modules that know other packages' losses
    for convert in _converters:
        found = convert(built)
        if found is not None:
            return found
    raise ValueError(
        f"{name} needs a loss of form (4.3), a sum over positives and a sum over negatives "
        f"of an anchor, got {type(built).__name__}: neither triplets nor a loss that mixes already "
        f"are such sums."
    )


def build_loss(spec: Mapping[str, Any] | str, **known: object) -> MetricLoss:
    """Build a loss, with what its host knows filled in where a config leaves it out.

    ::

        build_loss({"type": "Metrix", "loss": "ProxyAnchor"}, num_classes=100, dim=512)

    Args:
        spec: config or name, with a loss inside (``loss=``) or without.
        **known: values of keys that have no default.

    Raises:
        KeyError: an unknown name or key.
        ValueError: a key that neither gives, or that the loss refuses; or another kind of thing.
    """
    loss: MetricLoss = build(_filled(spec, known), kind="loss")
    if not isinstance(loss, MetricLoss):
        raise ValueError(f"A metric loss is needed here, got {type(loss).__name__}.")
    return loss


def _filled(spec: Any, known: Mapping[str, object]) -> Any:
    if not isinstance(spec, (Mapping, str)):
        return spec
    full = {"type": spec} if isinstance(spec, str) else dict(spec)
    try:
        target = resolve(full.get("type", ""), "loss")
    except KeyError:
        return spec  # a name that only the loss around it knows; else build says that it is unknown
    for key, default in keys_of(target).items():
        if default is REQUIRED and key in known:
            full.setdefault(key, known[key])
    if "loss" in full:
        full["loss"] = _filled(full["loss"], known)
    return full
