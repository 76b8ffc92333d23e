"""Everything that has a name: the rows of the catalog, and the classes in the mm registries.

``mixplug list`` prints it, and reference pages are made from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from importlib import import_module
from typing import Any

from mixplug import catalog
from mixplug.docstrings import examples, meanings, parse, plain_text, source
from mixplug.optional import install_line

# Kind to the title of its group, in the order in which they are listed.
GROUPS = {
    "mixer": "Mixers",
    "loss": "Losses",
    "metric": "Metrics",
    "selfsup": "Self-supervised methods",
    "model": "Models",
    "backbone": "Backbones",
    "neck": "Necks",
    "module": "Modules",
    "data preprocessor": "Data preprocessors",
    "evaluator": "Evaluators",
    "dataset": "Data sets",
    "sampler": "Samplers",
    "transform": "Transforms",
    "hook": "Hooks",
    "initializer": "Initializers",
    "optimizer constructor": "Optimizer wrapper constructors",
}
_OF_REGISTRY = {
    "DATASETS": "dataset",
    "DATA_SAMPLERS": "sampler",
    "TRANSFORMS": "transform",
    "METRICS": "evaluator",
    "HOOKS": "hook",
    "OPTIM_WRAPPER_CONSTRUCTORS": "optimizer constructor",
    "WEIGHT_INITIALIZERS": "initializer",
    "MODELS": "model",
}
# Where an object of a kind stands in a config. {} is its own config.
_PLACES = {
    "mixer": "mixup = {}",
    "loss": "loss = {}",
    "selfsup": "model = {}",
    "model": "model = {}",
    "backbone": "backbone = {}",
    "neck": "neck = {}",
    "data preprocessor": "data_preprocessor = {}",
    "evaluator": "val_evaluator = {}",
    "dataset": "train_dataloader = dict(dataset={})",
    "sampler": "train_dataloader = dict(sampler={})",
    "transform": "pipeline = [{}]",
    "hook": "custom_hooks = [{}]",
    "initializer": "init_cfg = {}",
}
NEVER_OF_MM = ("mixer", "loss")  # kinds without an mm class of their own
_GIVEN_BY_RUNNER = {"sampler": {"dataset"}}  # keys that no config names


@dataclass(frozen=True)
class Key:
    """A key of a config.

    Attributes:
        name: with its stars where it stands for any number of keys.
        required: whether it has no default.
        default: as in Python, such as ``'auto'``; None where there is none.
        meaning: from the docstring, in one line; empty where it has none.
    """

    name: str
    required: bool
    default: str | None
    meaning: str


@dataclass(frozen=True)
class Named:
    """A class or function that a config can name.

    Attributes:
        name: as in a config's ``type``, there with the prefix ``mixplug.`` if ``prefix`` is set.
        kind: a key of :data:`GROUPS`, or what another package calls it.
        aliases: other names.
        hosts: where it can be used.
        reference: where it is defined; may be empty.
        summary: what it is, in one line.
        description: more about it: formula, shapes, units; with the markup of its docstring.
        keys: of its config.
        example: of a config, as Python.
        higher_is_better: beginnings of the names of scores, for evaluators.
        lower_is_better: likewise.
        target: the class or function.
    """

    name: str
    kind: str
    aliases: tuple[str, ...]
    hosts: tuple[str, ...]
    reference: str
    summary: str
    description: str
    keys: tuple[Key, ...]
    example: str
    higher_is_better: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    target: Callable[..., Any] = field(repr=False, compare=False, default=type)

    def as_dict(self) -> dict[str, Any]:
        """What tools read: everything but the target, and the description without markup."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "target"}
        text = plain_text(self.description)
        return {**found, "description": text, "keys": [asdict(key) for key in self.keys]}


def everything(with_mm: bool = True) -> list[Named]:
    """All names, group by group; without those for mm configs where OpenMMLab is not installed.

    A name may come twice: as a torch class from the catalog, and as its mm class.

    Args:
        with_mm: False leaves out the mm registries, which take seconds to import.

    Raises:
        ImportError: OpenMMLab is installed and does not work.
    """
    rows = {entry.name: entry for entry in catalog.entries()}
    in_mm = _mm_classes() if with_mm and without_openmmlab() is None else []
    twice = {name for name, _, _ in in_mm}
    found = [_of_entry(entry, entry.name in twice) for entry in rows.values()]
    found += [_of_mm(name, kind, target, rows.get(name)) for name, kind, target in in_mm]
    order = [*GROUPS, *sorted({one.kind for one in found} - {*GROUPS})]
    return sorted(found, key=lambda one: (order.index(one.kind), one.name, one.hosts != ("mm",)))


def without_openmmlab() -> str | None:
    """What is not listed without OpenMMLab, and how to install it; None if it is installed."""
    for module in ("mmengine", "mmcv", "mmpretrain"):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            return (
                f"Not listed, because {module} is not installed: models, evaluators, data sets, "
                f"samplers, transforms and hooks for OpenMMLab configs. Install OpenMMLab with: "
                f"{install_line('mm')}"
            )
    return None


def title(kind: str) -> str:
    """Heading of a group."""
    return GROUPS.get(kind, f"{kind.capitalize()}s")


def find(words: str) -> list[Named]:
    """The entries of a group, or those of a name or alias.

    Args:
        words: a kind or the title of a group, in the singular or plural, in any spelling that has
            its letters, such as 'evaluator', 'data-sets'; or a name, with or without 'mixplug.'.

    Raises:
        KeyError: neither; it suggests the nearest.
    """
    in_catalog_alone = [one for one in everything(with_mm=False) if one.kind in NEVER_OF_MM]
    found = _among(in_catalog_alone, words)
    if found:
        return found
    all_names = everything()
    found = _among(all_names, words)
    if found or _group(words, all_names):
        return found
    groups = [title(kind).lower() for kind in _kinds(all_names)]
    known = list(dict.fromkeys([*groups, *(one.name for one in all_names)]))
    raise KeyError(f"There is no name and no group {words!r}.{catalog.suggest(words, known)}")


def is_name(words: str) -> bool:
    """Whether words that :func:`find` accepts are a name, and not a group."""
    letters = _letters(words.removeprefix("mixplug."))
    found = find(words)
    return letters in {_letters(text) for one in found for text in (one.name, *one.aliases)}


def keys_of(target: Callable[..., Any]) -> tuple[Key, ...]:
    """The keys of a class, also those handed on to a base by ``**keys``. A function has none."""
    if not isinstance(target, type):
        return ()
    texts = meanings(target)
    found: dict[str, Key] = {}
    for parameter in _parameters(target, texts):
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            name = f"**{name}"
            if name not in texts:  # handed on to a base, whose keys follow
                continue
        required = parameter.default is parameter.empty and not name.startswith("**")
        found.setdefault(
            name, Key(name, required, _default(parameter, target), texts.get(name, ""))
        )
    return tuple(sorted(found.values(), key=lambda key: key.name.startswith("**")))


def _among(names: Sequence[Named], words: str) -> list[Named]:
    """Those of a name, an alias, or a group."""
    wanted = words.removeprefix("mixplug.")
    kind = _group(words, names)
    return (
        [one for one in names if wanted in (one.name, *one.aliases)]
        or [one for one in names if one.kind == kind]
        or [one for one in names if _letters(wanted) == _letters(one.name)]
    )


def _group(words: str, names: Sequence[Named]) -> str | None:
    """The kind that is meant."""
    spellings = {_letters(text): kind for kind in _kinds(names) for text in (kind, title(kind))}
    letters = _letters(words)
    return spellings.get(letters) or spellings.get(letters.removesuffix("s"))


def _kinds(names: Sequence[Named]) -> list[str]:
    return list(dict.fromkeys([*GROUPS, *(one.kind for one in names)]))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _mm_classes() -> list[tuple[str, str, type]]:
    """Name, kind and class of everything in the mm registries."""
    import_module("mixplug.mm")
    registry = import_module("mixplug.registry")
    return [
        (name, _kind_of_model(target) if kind == "model" else kind, target)
        for attribute, kind in _OF_REGISTRY.items()
        for name, target in getattr(registry, attribute).module_dict.items()
    ]


def _kind_of_model(target: type) -> str:
    """What mmengine calls a model may be a part of one; a class may say so by ``listed_as``."""
    from mmengine.model import BaseDataPreprocessor, BaseModel

    if issubclass(target, BaseDataPreprocessor):
        return "data preprocessor"
    kind: str = getattr(target, "listed_as", "model" if issubclass(target, BaseModel) else "module")
    return kind


def _of_entry(entry: catalog.Entry, in_mm_too: bool) -> Named:
    hosts = tuple(host for host in entry.hosts if not (in_mm_too and host == "mm"))
    return _named(entry.name, entry.kind, (entry.alias,), hosts, entry.reference, entry.target)


def _of_mm(name: str, kind: str, target: type, row: catalog.Entry | None) -> Named:
    if row is None:
        return _named(
            name, kind, (), ("mm",), source(parse(inspect.getdoc(target)).summary), target
        )
    kind = kind if row.kind == "metric" else row.kind
    return _named(name, kind, (), ("mm",), row.reference, target)


def _named(
    name: str,
    kind: str,
    aliases: tuple[str, ...],
    hosts: tuple[str, ...],
    reference: str,
    target: Callable[..., Any],
) -> Named:
    text = parse(inspect.getdoc(target))
    keys = keys_of(target)
    return Named(
        name=name,
        kind=kind,
        aliases=tuple(alias for alias in aliases if alias),
        hosts=hosts,
        reference=reference,
        summary=text.summary,
        description=text.description,
        keys=keys,
        example=_example(name, kind, hosts, keys, text.description),
        higher_is_better=tuple(getattr(target, "higher_is_better", ())),
        lower_is_better=tuple(getattr(target, "lower_is_better", ())),
        target=target,
    )


def _example(
    name: str, kind: str, hosts: tuple[str, ...], keys: tuple[Key, ...], description: str
) -> str:
    """The first example of the docstring that has the name and is valid Python, or a made one."""
    for block in examples(description):
        if f"{name}'" in block or f'{name}"' in block or f"mixplug.{name}(" in block:
            try:
                compile(block, name, "exec")
            except SyntaxError:  # with '...' after a keyword
                continue
            return block
    if kind == "optimizer constructor":
        return f"optim_wrapper = dict(constructor='mixplug.{name}')"
    left_out = _GIVEN_BY_RUNNER.get(kind, set())
    given = [f"{key.name}=..." for key in keys if key.required and key.name not in left_out]
    if hosts == ("torch",):
        return f"{kind} = mixplug.build({', '.join([repr(name), *given])})"
    prefix = "mixplug." if hosts == ("mm",) else ""
    config = f"dict({', '.join([f'type={prefix + name!r}', *given])})"
    return _PLACES.get(kind, f"{kind.replace(' ', '_')} = {{}}").format(config)


def _parameters(target: Callable[..., Any], texts: Mapping[str, str]) -> list[inspect.Parameter]:
    """Those of a class, and of its bases as far as it hands keys on to them.

    A class that documents its ``**keys`` says itself what they are. Bases of frameworks are not
    followed: their keys are documented there.
    """
    found = list(inspect.signature(target).parameters.values())
    if not isinstance(target, type) or not _hands_on(found, texts):
        return found
    own = {"mixplug", target.__module__.partition(".")[0]}
    makers = [c for c in target.__mro__ if "__init__" in vars(c)]
    for base in makers[1:]:
        if base.__module__.partition(".")[0] not in own:
            break
        more = list(inspect.signature(base).parameters.values())
        found += more
        if not _hands_on(more, texts):
            break
    return found


def _hands_on(parameters: list[inspect.Parameter], texts: Mapping[str, str]) -> bool:
    return any(p.kind is p.VAR_KEYWORD and f"**{p.name}" not in texts for p in parameters)


def _default(parameter: inspect.Parameter, target: Callable[..., Any]) -> str | None:
    if parameter.default is parameter.empty:
        return None
    made: Mapping[str, Any] = (
        {f.name: f.default_factory for f in fields(target)} if is_dataclass(target) else {}
    )
    factory = made.get(parameter.name, MISSING)
    value = parameter.default if factory is MISSING else factory()
    return f"{value:.4}" if isinstance(value, float) else repr(value)
