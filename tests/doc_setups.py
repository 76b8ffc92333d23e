"""What the code of some pages finds before it runs, and what must be true afterwards.

Most pages need nothing of this. ``smaller`` replaces words once, so that an example that stands on
the page at its real size runs in a moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

Names = dict[str, Any]


@contextmanager
def nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    yield {}


@contextmanager
def own_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What the page registers is forgotten afterwards."""
    import mixplug
    from mixplug import catalog

    mixplug.entries()
    monkeypatch.setattr(catalog, "_table", dict(catalog._table))
    yield {}


@contextmanager
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What the page registers for mm, and as a number of the card, is forgotten afterwards."""
    from mixplug import numbers, registry

    for child in (registry.METRICS, registry.DATASETS):
        monkeypatch.setattr(child, "_module_dict", dict(child.module_dict))
    monkeypatch.setattr(numbers, "_table", dict(numbers._table))
    yield {}


@contextmanager
def own_methods(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """A method that the page registers, and its mm model, are forgotten afterwards."""
    import mixplug.mm  # noqa: F401  registers
    from mixplug import catalog, registry

    monkeypatch.setattr(catalog, "_table", dict(catalog._table))
    for one in (registry.MODELS, registry.MODELS.parent):
        monkeypatch.setattr(one, "_module_dict", dict(one.module_dict))
    try:
        yield {}
    finally:
        sys.modules.pop("ibot", None)


@contextmanager
def a_video(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """``tour.mp4``, ten seconds of a street, with its index."""
    import shutil

    from mixplug.data.shipped import shipped_clip
    from mixplug.video.scan import scan

    shutil.copy(shipped_clip("bikes"), "tour.mp4")
    scan("tour.mp4")
    yield {}


@contextmanager
def a_folder_of_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """``images`` with eight pictures in two subfolders."""
    from PIL import Image

    for number in range(8):
        path = Path("images", f"class{number % 2}", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (40, 48, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    yield {}


def four_steps(names: Names) -> None:
    assert int(names["method"].steps) == 4
    assert len(names["images"]) == 8 and names["batch"]["small"].shape[:2] == (4, 6)


def trained(names: Names) -> None:
    assert int(names["method"].steps) == 2
    assert bool(names["method"].center.any())


def moved(names: Names) -> None:
    assert int(names["method"].steps) == 2
    assert all(bool(center.any()) for center in names["method"].centers.values())


def same_model(names: Names) -> None:
    """Taps leave no trace in the state dict, and the loss is one."""
    plain = names["torchvision"].models.resnet18(num_classes=10).state_dict()
    assert plain.keys() == names["resnet"].state_dict().keys()
    assert torch.isfinite(names["mixed"].loss()) and torch.isfinite(names["loss"])
    assert names["epoch"] == 0 and names["accuracy"] > 0.05


def has_gradient(names: Names) -> None:
    gradient = names["embeddings"].grad
    assert gradient.isfinite().all() and gradient.any()


@dataclass(frozen=True)
class Setup:
    """How a page is run."""

    smaller: Mapping[str, str] = field(default_factory=dict)
    context: Callable[[pytest.MonkeyPatch], AbstractContextManager[Names]] = nothing
    after: Callable[[Names], None] = lambda names: None


_VIT = "dict(name='vit_tiny_patch16_224', img_size=32, depth=1), head=dict(out_dim=8)"
_CLIPS = "frames=2, interval=0.2, crop=64, frames_per_epoch=8, views=dict(large=32, small=16)"

SETUPS = {
    "docs/extend/dataset.md": Setup(context=own_registries),
    "docs/extend/evaluator.md": Setup(context=own_registries),
    "docs/extend/loss.md": Setup(context=own_table),
    "docs/extend/mixer.md": Setup(context=own_table),
    "docs/methods/dino.md": Setup(context=a_folder_of_images, after=four_steps),
    "docs/extend/self_distillation.md": Setup(context=own_methods, after=moved),
    "docs/start/own_loop.md": Setup({"epochs = 10": "epochs = 1"}, after=same_model),
    "docs/guides/metric_learning.md": Setup(after=has_gradient),
    "docs/guides/video.md": Setup(
        {'"vit_small_patch16_224"': _VIT, "frames=8": _CLIPS, "batch_size=16": "batch_size=2"},
        a_video,
        trained,
    ),
}
