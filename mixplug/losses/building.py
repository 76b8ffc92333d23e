"""Build metric losses from configs, and convert losses of other packages to pair losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mixplug.catalog import REQUIRED, build, entries, keys_of, resolve
from mixplug.losses.base import MetricLoss, PairLoss

Converter = Callable[[nn.Module], PairLoss | None]
_converters: list[Converter] = []


def converts(convert: Converter) -> Converter:
    """Register a function that converts losses of another package to pair losses (eq. 4.3).

    ``convert`` returns None for a loss that it does not know. For a loss that it knows, but that
    does not have the form of a pair loss, it raises ValueError with the reason.
    """
    _converters.append(convert)
    return convert


def as_pair_loss(loss: nn.Module | Mapping[str, Any] | str, name: str) -> PairLoss:
    """Turn a loss, a config or a name into a pair loss (eq. 4.3).

    Args:
        loss: a loss, its config or its name. Losses of other packages are converted if possible.
        name: name of the caller for the error message.

    Raises:
        ValueError: the loss is not a pair loss.
    """
    built = loss if isinstance(loss, nn.Module) else build(loss, kind="loss")
    if isinstance(built, PairLoss):
        return built
    entries("loss")  # imports the modules that convert losses of other packages
    for convert in _converters:
        converted = convert(built)
        if converted is not None:
            return converted
    raise ValueError(
        f"{name} needs a pair loss, with one sum over the positives and one over the negatives of "
        f"each anchor (eq. 4.3), got {type(built).__name__}. Triplet losses and mixing losses do "
        f"not have this form."
    )


def build_loss(spec: Mapping[str, Any] | str, **known: object) -> MetricLoss:
    """Build a metric loss and fill in required keys that its config omits.

    ::

        build_loss({"type": "Metrix", "loss": "ProxyAnchor"}, num_classes=100, dim=512)

    Args:
        spec: config or name; the config may contain another loss (``loss=``).
        **known: values for required keys, used where the config does not set them.

    Raises:
        KeyError: an unknown name or key.
        ValueError: a required key is missing, a value is not allowed, or the result is not a
            metric loss.
    """
    loss: MetricLoss = build(_filled(spec, known), kind="loss")
    if not isinstance(loss, MetricLoss):
        raise ValueError(
            f"build_loss needs the config of a metric loss, got {type(loss).__name__}."
        )
    return loss


def _filled(spec: Any, known: Mapping[str, object]) -> Any:
    if not isinstance(spec, (Mapping, str)):
        return spec
    full = {"type": spec} if isinstance(spec, str) else dict(spec)
    try:
        target = resolve(full.get("type", ""), "loss")
    except KeyError:
        return spec  # only the enclosing loss may know this name; build raises for unknown names
    for key, default in keys_of(target).items():
        if default is REQUIRED and key in known:
            full.setdefault(key, known[key])
    if "loss" in full:
        full["loss"] = _filled(full["loss"], known)
    return full
