"""Build the mixer of a ``mixup`` key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixplug.catalog import Target, build, entries, resolve, suggest
from mixplug.losses.base import MetricLoss
from mixplug.mixers.base import Mixer
from mixplug.mixers.metric import MetricMixing

Spec = Mapping[str, Any] | str | Target


def build_mixer(spec: Spec | Sequence[Spec], **overrides: object) -> Mixer:
    """Build a mixer, also from a metric loss: ``mixup=dict(type='Metrix', loss='NCA')``.

    Args:
        spec: config of a mixer or of a metric loss, as in :func:`mixplug.build`; or a list of
            them, which is :class:`mixplug.mixers.OneOf` with equal probabilities.
        **overrides: keys that replace those of ``spec``.

    Raises:
        KeyError: an unknown name or key.
        ValueError: it is neither a mixer nor a metric loss, or a value is not allowed.
    """
    if isinstance(spec, (list, tuple)):
        spec = {"type": "OneOf", "mixers": list(spec)}
    if not isinstance(spec, Mapping) and not isinstance(spec, str) and not callable(spec):
        raise ValueError(
            f"A mixer needs a config such as dict(type='AlignMixup'), a name, or a list of these, "
            f"got {spec!r}."
        )
    config = {**(spec if isinstance(spec, Mapping) else {"type": spec}), **overrides}
    _require_known(config.get("type"))
    if _is_loss(config.get("type")):
        off_epoch = config.pop("off_epoch", None)
        return MetricMixing(loss=config, off_epoch=off_epoch)
    mixer: Mixer = build(config, kind="mixer")
    return mixer


def _require_known(target: Any) -> None:
    """Raise KeyError for the name of neither a mixer nor a loss, with the nearest names."""
    bare = target.removeprefix("mixplug.") if isinstance(target, str) else "."
    rows = [*entries("mixer"), *entries("loss")]
    if "." not in bare and bare not in {key for e in rows for key in (e.name, e.alias)}:
        raise KeyError(f"There is no mixer {target!r}.{suggest(bare, [e.name for e in rows])}")


def _is_loss(target: Any) -> bool:
    try:
        found = resolve(target, "loss")
    except KeyError:  # the name of a mixer, or an unknown one, for which build() raises
        return False
    return isinstance(found, type) and issubclass(found, MetricLoss)
