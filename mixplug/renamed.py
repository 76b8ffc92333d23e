"""Bridges for renamed keys and functions: old names work with a DeprecationWarning until 0.3."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

# Names that had another name or place in mixplug 0.1, both without the leading "mixplug.".
OLD_NAMES = {
    "adapters.mm_criterion.unfit_loss": "hosts.mm.mixing.criterion.unsupported_loss",
    "adapters.mm_pretrained.instead_of_stock": "hosts.mm.models.pretrained.with_own_pretrained",
    "data.image_folders.Labelled": "data.image_folders.Labeled",
    "data.image_folders.labelled": "data.image_folders.labeled",
    "data.unlabelled.Unlabelled": "data.unlabeled.Unlabeled",
    "data.walking_tours.LICENCE": "data.walking_tours.LICENSE",
    "evaluation.frozen.Tick": "evaluation.results.Tick",
    "evaluation.frozen.best_device": "evaluation.results.best_device",
    "evaluation.frozen.fingerprint": "evaluation.results.fingerprint",
    "evaluation.frozen.put": "evaluation.results.to_device",
    "evaluation.frozen.unseen": "evaluation.results.no_progress",
    "evaluation.frozen.write_results": "evaluation.results.write_results",
    "evaluation.wsol.Shown": "metrics.localization.LocalizedImage",
    "evaluation.wsol.localise": "evaluation.wsol.localize",
    "functional.box_tokens.centre_window": "functional.box_tokens.center_window",
    "functional.box_tokens.dequantise": "functional.box_tokens.dequantize",
    "functional.box_tokens.quantise": "functional.box_tokens.quantize",
    "functional.box_tokens.to_centre": "functional.box_tokens.to_center",
    "functional.distill.updated_centre": "functional.distill.updated_center",
    "functional.nearest.settle": "functional.exact_search.sort_by_distance",
    "functional.nearest.untie": "functional.exact_search.resolve_ties",
    "losses.recompute.each": "losses.closed_form.map_checkpointed",
    "mixers.metric.build_mixer": "mixers.building.build_mixer",
    "models.average.follow": "models.self_distillation.average.update_teacher",
    "models.dino_head.Network": "models.self_distillation.network.Network",
    "models.encoder.encoder": "models.vit.encoder.as_encoder",
    "models.views.normalised": "models.self_distillation.views.normalized",
    "video.reader.open_reader": "video.open.open_reader",
    "weights.vit.described": "weights.vit.describe",
    "weights.vit.timm_model": "models.vit.from_checkpoint.timm_model",
    "weights.vit.vit_of": "models.vit.from_checkpoint.vit_of",
}

T = TypeVar("T", bound=Callable[..., Any])


def renamed_keys(**new_names: str) -> Callable[[T], T]:
    """Decorate a class or function so that it also accepts keyword arguments by their old names.

    ::

        @renamed_keys(centre_decay="center_decay")
        def update(center_decay: float) -> None: ...

    The decorated class or function raises ValueError for both names of the same argument.

    Args:
        **new_names: new name of each old name.
    """

    def decorate(target: T) -> T:
        if not isinstance(target, type):
            return _accept_old_names(target, target.__qualname__, new_names)
        plain = target.__init__  # type: ignore[misc]
        init = _accept_old_names(plain, target.__name__, new_names)
        target.__init__ = init  # type: ignore[misc]
        names = {**getattr(target, "renamed_keys", {}), **new_names}
        target.renamed_keys = names  # type: ignore[attr-defined]
        return target

    return decorate


C = TypeVar("C", bound=type)


def renamed_attributes(**new_names: str) -> Callable[[C], C]:
    """Decorate a class of which methods or other attributes have new names.

    The old names work on instances, and in subclasses that override them: what a subclass defines
    by an old name gets the new one.

    Args:
        **new_names: new name of each old name.
    """

    def decorate(cls: Any) -> Any:
        inherited = cls.__dict__.get("__init_subclass__")

        def init_subclass(sub: Any, /, **kwargs: Any) -> None:
            for old, new in new_names.items():
                if old in sub.__dict__:
                    warn(f"The attribute {sub.__name__}.{old}", new)
                    setattr(sub, new, sub.__dict__[old])
                    delattr(sub, old)
            if inherited is None:
                super(cls, sub).__init_subclass__(**kwargs)
            else:
                inherited.__get__(None, sub)(**kwargs)

        cls.__init_subclass__ = classmethod(init_subclass)
        for old, new in new_names.items():
            setattr(cls, old, _old_attribute(cls.__name__, old, new))
        return cls

    return decorate


def _old_attribute(owner: str, old: str, new: str) -> property:
    def get(self: object) -> Any:
        warn(f"The attribute {owner}.{old}", new)
        return getattr(self, new)

    return property(get, doc=f"The old name of ``{new}``.")


def current_keys(target: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a class that :func:`renamed_keys` decorates, with old names replaced.

    Raises:
        ValueError: both names of the same argument.
    """
    return _current(getattr(target, "__name__", ""), getattr(target, "renamed_keys", {}), arguments)


def renamed_names(module: str, new_names: Mapping[str, Any]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module, which returns renamed objects for their old names.

    Args:
        module: ``__name__`` of the module.
        new_names: renamed object of each old name.
    """

    def get(name: str) -> Any:
        if name not in new_names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        target = new_names[name]
        warn(f"{module}.{name}", f"{target.__module__}.{target.__qualname__}")
        return target

    return get


def old_name(module: str, name: str) -> Any:
    """The object that had this name in this module, with a warning.

    Args:
        module: path in mixplug 0.1.
        name: in it.

    Raises:
        AttributeError: no such old name.
    """
    path = OLD_NAMES.get(f"{module.removeprefix('mixplug.')}.{name}")
    if path is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, new = f"mixplug.{path}".rpartition(".")
    warn(f"{module}.{name}", f"{home}.{new}")
    return getattr(import_module(home), new)


def old_names(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names are in :data:`OLD_NAMES`."""
    return functools.partial(old_name, module)


def warn(old: str, new: str) -> None:
    """Warn that a name is deprecated."""
    warnings.warn(
        f"{old} is now {new}. The old name works until mixplug 0.3.",
        DeprecationWarning,
        stacklevel=4,
    )


def _accept_old_names(function: T, owner: str, new_names: Mapping[str, str]) -> T:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **_current(owner, new_names, kwargs))

    return call  # type: ignore[return-value]


def _current(
    owner: str, new_names: Mapping[str, str], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    current: dict[str, Any] = {}
    for key, value in arguments.items():
        new = new_names.get(key, key)
        if new in current or (new != key and new in arguments):
            raise ValueError(f"{owner} got both {key!r} and {new!r}, two names of the same key.")
        if new != key:
            warn(f"The key {key!r} of {owner}", repr(new))
        current[new] = value
    return current
