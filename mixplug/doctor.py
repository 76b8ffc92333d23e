"""``mixplug doctor``: what is installed, what is missing, and whether it works together."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata

import torch

from mixplug.optional import checkout, install_line, version_of

# A fork is named onedl-ORIGINAL. This is the exception.
_ORIGINALS = {"onedl-mmdetection": "mmdet"}


@dataclass(frozen=True)
class Finding:
    """One line: what was examined, what was found, and 'ok', 'missing' or 'broken'."""

    subject: str
    seen: str
    state: str = "ok"


def extras() -> dict[str, list[str]]:
    """The distributions that each extra of mixplug installs.

    In a checkout pyproject.toml says it, because the metadata of an editable install may be older;
    else the metadata of the installed package do. So a new extra needs no line here.
    """
    named = _of_project() or _of_metadata()
    return {extra: _flat(extra, named) for extra in named}


def examine() -> Iterator[Finding]:
    """Look at everything that mixplug promises to work with."""
    yield Finding("python", platform.python_version())
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield Finding("devices", ", ".join(_devices()))
    seen: dict[str, Finding] = {}
    rows = extras()
    for extra, distributions in rows.items():
        for distribution in distributions:
            if distribution not in seen:
                seen[distribution] = _installed(distribution)
                yield seen[distribution]
        if any(seen[distribution].state == "missing" for distribution in distributions):
            yield Finding(f"extra {extra}", install_line(extra), "missing")
        else:
            yield Finding(f"extra {extra}", "complete")
            yield from (_check(name, look) for name, look in _LOOKS.get(extra, {}).items())
    forks = [d for ds in rows.values() for d in ds if d.startswith("onedl-")]
    both = [
        _original(d) for d in dict.fromkeys(forks) if version_of(d) and version_of(_original(d))
    ]
    if both:
        cause = f"{', '.join(both)} are installed next to their forks onedl-*: remove one of each"
        yield Finding("OpenMMLab", cause, "broken")


def _devices() -> list[str]:
    names = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def _installed(distribution: str) -> Finding:
    """Whether a distribution, or the original that it is a fork of, is installed and imports."""
    for candidate in (distribution, _original(distribution)):
        found = version_of(candidate)
        if found is not None:
            name = _import_name(candidate)
            try:
                importlib.import_module(name)
            except Exception as error:  # a broken install fails in ways of its own
                return Finding(name, f"{found}, import fails: {_short(error)}", "broken")
            return Finding(name, found)
    return Finding(distribution, "not installed", "missing")


def _original(distribution: str) -> str:
    return _ORIGINALS.get(distribution, distribution.removeprefix("onedl-"))


def _import_name(distribution: str) -> str:
    """The package with most modules of an installed distribution: sklearn of scikit-learn."""
    files = metadata.files(distribution) or []
    tops = Counter(
        path.parts[0].partition(".")[0]
        for path in files
        if path.suffix in (".py", ".so", ".pyd") and path.parts[0].partition(".")[0].isidentifier()
    )
    listed = metadata.distribution(distribution).read_text("top_level.txt")
    names = [*([tops.most_common(1)[0][0]] if tops else []), *(listed or "").split()]
    return names[0] if names else distribution.replace("-", "_")


def _of_project() -> dict[str, list[str]]:
    """Requirements of each extra by a checkout's pyproject.toml, which Python 3.10 cannot read."""
    root = checkout()
    if root is None or sys.version_info < (3, 11):
        return {}
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(project.get("optional-dependencies", {}))


def _of_metadata() -> dict[str, list[str]]:
    """Requirements of each extra by the metadata of the installed package."""
    try:
        required = metadata.requires("mixplug") or []
    except metadata.PackageNotFoundError:
        return {}
    named: dict[str, list[str]] = {}
    for requirement in required:
        extra = re.search(r"""extra\s*==\s*["']([\w.-]+)["']""", requirement)
        if extra:
            named.setdefault(extra.group(1), []).append(requirement)
    return named


def _flat(extra: str, named: Mapping[str, Sequence[str]]) -> list[str]:
    """An extra's distributions, with those of the extras that it includes."""
    found: list[str] = []
    for requirement in named[extra]:
        included = re.match(r"mixplug\[([\w.,\s-]+)\]", requirement)
        if included:
            for other in included.group(1).split(","):
                found += _flat(other.strip(), named)
        else:
            found.append(_name_of(requirement))
    return list(dict.fromkeys(found))


def _name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found.group().lower() if found else requirement


def _check(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, look())
    except Exception as error:
        return Finding(subject, _short(error), "broken")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]


def _timm_task() -> str:
    import timm.task

    from mixplug.hosts.timm import task as adapter

    return f"{adapter.MixupTask.__name__} derives from {timm.task.ClassificationTask.__name__}"


def _mmcv_ops() -> str:
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
    _, keep = nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    return f"compiled, nms keeps {len(keep)} of 2 equal boxes"


def _mixup_key() -> str:
    import mixplug.registry  # mmengine hides an error of this import

    importlib.import_module("mixplug.mm")
    models = mixplug.registry.MODELS.build({"type": "mixplug.PreActResNet"})
    return f"enabled, mixplug.{type(models).__name__} builds"


def _backbone_in(host: str) -> str:
    import mixplug.registry  # noqa: F401  mmengine hides an error of this import

    importlib.import_module("mixplug.mm")
    models = importlib.import_module(f"{host}.registry").MODELS
    keys = {"model_name": "vit_tiny_patch16_224", "depth": 1, "out_indices": (0,)}
    backbone = models.build({"type": "mixplug.TimmViT", **keys})
    return f"mixplug.{type(backbone).__name__} builds"


_LOOKS: dict[str, dict[str, Callable[[], str]]] = {
    "timm": {"timm.task": _timm_task},
    "mm": {"mmcv ops": _mmcv_ops, "mixup key": _mixup_key},
    "mmdet": {"mmdet backbone": partial(_backbone_in, "mmdet")},
    "mmseg": {"mmseg backbone": partial(_backbone_in, "mmseg")},
}
