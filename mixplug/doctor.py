"""``mixplug doctor``: what is installed, what is missing, and whether it works."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from mixplug.optional import install_line, version_of

# extra -> import names; the distribution's name differs where it is given
EXTRAS = {
    "demo": {"sklearn": "scikit-learn", "matplotlib": "matplotlib"},
    "metric": {"faiss": "faiss-cpu", "scipy": "scipy"},
    "pml": {"pytorch_metric_learning": "pytorch-metric-learning"},
    "card": {"jinja2": "jinja2"},
    "attacks": {"torchattacks": "torchattacks"},
    "umap": {"umap": "umap-learn"},
    "timm": {"timm": "timm", "torchvision": "torchvision"},
    "mm": {
        "mmengine": "onedl-mmengine",
        "mmcv": "onedl-mmcv",
        "mmpretrain": "onedl-mmpretrain",
    },
    "mmdet": {"mmdet": "onedl-mmdetection"},
    "mmseg": {"mmseg": "onedl-mmsegmentation"},
}
# Those that the distributions named onedl-* are forks of, by import names.
_ORIGINALS = {
    "mmengine": "mmengine",
    "mmcv": "mmcv",
    "mmpretrain": "mmpretrain",
    "mmdet": "mmdet",
    "mmseg": "mmsegmentation",
}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was seen, and 'ok', 'missing' or 'broken'."""

    subject: str
    seen: str
    state: str = "ok"


def examine() -> Iterator[Finding]:
    """Look at everything that mixplug promises to work with."""
    yield Finding("python", platform.python_version())
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield Finding("devices", ", ".join(_devices()))
    for extra, modules in EXTRAS.items():
        findings = [_installed(name, dist) for name, dist in modules.items()]
        yield from findings
        if any(f.state == "missing" for f in findings):
            yield Finding(f"extra {extra}", install_line(extra), "missing")
        else:
            yield from (_check(name, look) for name, look in _LOOKS.get(extra, {}).items())
    forks = {name: dist for extra in EXTRAS.values() for name, dist in extra.items()}
    both = [o for name, o in _ORIGINALS.items() if version_of(o) and version_of(forks[name])]
    if both:
        seen = f"{', '.join(both)} are installed next to their forks onedl-*: remove one of each"
        yield Finding("OpenMMLab", seen, "broken")


def _devices() -> list[str]:
    names = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def _installed(name: str, distribution: str) -> Finding:
    found = version_of(distribution) or version_of(_ORIGINALS.get(name, distribution))
    if found is None:
        return Finding(name, "not installed", "missing")
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken install fails in ways of its own
        return Finding(name, f"{found}, import fails: {_short(error)}", "broken")
    return Finding(name, found)


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
