"""The table of all names: mixers, losses and others, of mixplug and of plugin packages."""

from __future__ import annotations

import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from mixplug.renamed import current_keys
from mixplug.scanning import import_modules

Target = Callable[..., Any]
T = TypeVar("T", bound=Target)

REQUIRED = inspect.Parameter.empty  # stands for the default of a key that has none
ENTRY_POINTS = "mixplug.plugins"
_SCANNED = ("functional", "mixers", "losses", "metrics", "models.self_distillation", "models.vit")


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        kind: what it is, such as 'mixer'.
        name: as in a config's ``type``.
        target: the class or function that makes the object.
        reference: where the method is defined, such as 'thesis 5.3.2'.
        alias: a second name in lower case; ``mixplug.<alias>`` is the target.
        hosts: frameworks in which it can be used, 'torch' for your own loop.
    """

    kind: str
    name: str
    target: Target
    reference: str
    alias: str
    hosts: tuple[str, ...]

    @property
    def defaults(self) -> dict[str, object]:
        """The keys of its config and their defaults; :data:`REQUIRED` for keys without one."""
        return keys_of(self.target)


KINDS: dict[str, type] = {}  # what an object of a kind must be an instance of
_HOSTS = {"selfsup": ("mm", "torch")}  # of kinds that cannot be used everywhere
_table: dict[str, Entry] = {}
_followers: list[tuple[str | None, Callable[[Entry], None]]] = []
_loaded: list[bool] = []


def register(
    name: str,
    kind: str = "mixer",
    reference: str = "",
    alias: str = "",
    hosts: Iterable[str] | None = None,
) -> Callable[[T], T]:
    """Enter a class in the table; with it, its name becomes a config key in every host.

    ::

        @mixplug.register("MyMix", reference="our paper")
        @dataclass(frozen=True, kw_only=True)
        class MyMix(mixplug.Mixer): ...

    Raises:
        KeyError: another object has the name or the alias; the message names both owners.
    """

    def decorate(target: T) -> T:
        where = _HOSTS.get(kind, ("timm", "mmpretrain", "torch")) if hosts is None else hosts
        entry = Entry(kind, name, target, reference, alias or name.lower(), tuple(where))
        for key in (entry.name, entry.alias):
            owner = _table.get(key)
            if owner is not None and _path(owner.target) != _path(target):
                raise KeyError(
                    f"{key!r} is already registered by {_path(owner.target)}, so "
                    f"{_path(target)} needs another name."
                )
        _table.update({entry.name: entry, entry.alias: entry})
        for wanted, call in _followers:
            if wanted in (None, kind):
                call(entry)
        return target

    return decorate


def entries(kind: str | None = None) -> list[Entry]:
    """All rows, or those of one kind, sorted by kind and name."""
    load()
    rows = {id(e): e for e in _table.values() if kind in (None, e.kind)}
    return sorted(rows.values(), key=lambda e: (e.kind, e.name))


def follow(call: Callable[[Entry], None], kind: str | None = None) -> None:
    """Call a function for every row of a kind: now, and whenever one is registered later."""
    rows = entries(kind)
    _followers.append((kind, call))
    for entry in rows:
        call(entry)


def find(name: str, kind: str | None = None) -> Entry:
    """The row of a name or alias.

    Raises:
        KeyError: there is no such name of that kind; the message suggests the nearest.
    """
    load()
    bare = name.removeprefix("mixplug.")
    entry = _table.get(bare)
    if entry is not None and kind in (None, entry.kind):
        return entry
    known = [e.name for e in entries(kind)]
    raise KeyError(f"There is no {_in_words(kind)} {name!r}.{suggest(bare, known)}")


def build(
    spec: Mapping[str, Any] | str | Target, kind: str | None = None, **overrides: object
) -> Any:
    """Make an object from a config.

    Args:
        spec: a dict with ``type``; a name or alias; a dotted path into any importable package;
            or the class itself, also as ``type``.
        kind: what it must be.
        **overrides: keys that win over those of ``spec``.

    Raises:
        KeyError: an unknown name or an unknown key, with the nearest known one.
        ValueError: a value that the object refuses, or a spec without ``type``.
    """
    spec = {"type": spec} if not isinstance(spec, Mapping) else dict(spec)
    if "type" not in spec:
        raise ValueError(f"A config needs the key 'type', got {sorted(spec)}.")
    target = resolve(spec.pop("type"), kind)
    if not callable(target):
        hint = " For a list of mixers use dict(type='OneOf', mixers=[...])."
        raise ValueError(
            f"A config needs a type that is a name, a dotted path or a class, got {target!r}."
            f"{hint if isinstance(target, (list, tuple)) else ''}"
        )
    arguments = current_keys(target, {**spec, **overrides})
    require_known(target, arguments)
    known = keys_of(target)
    missing = [key for key in known if known[key] is REQUIRED and key not in arguments]
    if missing:
        raise ValueError(f"{target.__name__} needs the key {missing[0]!r}, which is not given.")
    built = target(**arguments)
    base = KINDS.get(kind or "")
    if base is not None and not isinstance(built, base):
        raise ValueError(
            f"{target!r} is not a {_in_words(kind)}: it gives a {type(built).__name__}."
        )
    return built


def _in_words(kind: str | None) -> str:
    return "self-distillation method" if kind == "selfsup" else kind or "entry"


def resolve(target: str | Target, kind: str | None = None) -> Target:
    """The class or function behind a name, an alias, a dotted path, or itself.

    Raises:
        KeyError: nothing is found under the name or path.
    """
    if not isinstance(target, str):
        return target
    module, _, attribute = target.rpartition(".")
    if not module or module == "mixplug":
        return find(target, kind).target
    try:
        found: Target = getattr(importlib.import_module(module), attribute)
        return found
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or " "):
            raise  # the module exists, but something that it imports does not
        raise KeyError(f"Nothing is importable as {target!r}: {error}.") from error


def load() -> None:
    """Import every module of the package that may register, then the plugins of other packages."""
    if _loaded:
        return
    _loaded.append(True)
    try:
        for folder in _SCANNED:
            import_modules(f"mixplug.{folder}")
    except BaseException:
        _loaded.clear()  # else every later look-up would find an incomplete table
        raise
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # a fault of another package must not break the catalog
            warnings.warn(
                f"The plugin {point.name!r} ({point.value}) could not be loaded: {error!r}",
                stacklevel=2,
            )


def registered_in(package: str) -> dict[str, Target]:
    """Import all modules of a package, and give what they registered, by class name.

    ``mixplug.mixers`` and others export it, so that a new file needs no line in their
    ``__init__.py``.
    """
    import_modules(package)
    targets = (entry.target for entry in _table.values())
    return {t.__name__: t for t in targets if t.__module__.startswith(f"{package}.")}


def keys_of(target: Target) -> dict[str, object]:
    """The named settings of a class and their defaults; :data:`REQUIRED` where there is none."""
    if not isinstance(target, type):
        return {}
    return {
        p.name: REQUIRED if p.default is p.empty else p.default
        for p in inspect.signature(target).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def require_known(target: Target, arguments: Iterable[str]) -> None:
    """Refuse keys that a class does not have.

    Raises:
        KeyError: with the nearest known key.
    """
    known = keys_of(target)
    for key in arguments if known and not takes_more(target) else ():
        if key not in known:
            raise KeyError(f"{target.__name__} has no key {key!r}.{suggest(key, list(known))}")


def takes_more(target: Target) -> bool:
    """Whether a class takes further settings by ``**keys``, which it then checks itself."""
    parameters = inspect.signature(target).parameters.values()
    return any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def suggest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, and all of them."""
    lower = {k.lower(): k for k in known}
    nearest = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f" Did you mean {lower[nearest[0]]!r}?" if nearest else ""
    return f"{guess} Known: {', '.join(known)}."


def _path(target: Target) -> str:
    return f"{target.__module__}.{target.__qualname__}"
