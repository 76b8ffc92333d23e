"""Images on disk, timm's training script, and what mixers are called with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts.hosting import TIMM_FLAGS, TimmRun, own_process, timm_scripts
from torchvision.transforms.functional import to_pil_image

import mixplug
from mixplug.data.digits import digits
from timm_hooks import train as timm_hooks_train

TRAIN_IMAGES, EVAL_IMAGES = 128, 100


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits as PNGs of 32x32 in train/CLASS and validation/CLASS."""
    root = tmp_path_factory.mktemp("digits")
    for split, folder, count in (
        ("train", "train", TRAIN_IMAGES),
        ("test", "validation", EVAL_IMAGES),
    ):
        images, labels = digits(split, size=32)
        for index, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
            path = root / folder / str(int(label)) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(image).convert("RGB").save(path)
    return root


@pytest.fixture(params=timm_scripts(), ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    """A train.py."""
    return request.param


@pytest.fixture
def timm_train(script: Path, image_folder: Path, tmp_path: Path) -> Callable[..., TimmRun]:
    """Run ``timm_hooks.train SCRIPT`` as ``python -m`` would, but in this process: imports cost."""
    names = (f"run{number}" for number in itertools.count())

    def run(impl: str, *flags: object, settings: dict[str, Any] | None = None) -> TimmRun:
        name = next(names)
        given = [f"{key}={value}" for key, value in (settings or {}).items()]
        argv = [str(script), "--data-dir", str(image_folder), *TIMM_FLAGS]
        argv += ["--output", str(tmp_path), "--experiment", name, *map(str, flags)]
        argv += ["--mixup-impl", impl, *(["--mixup-args", *given] if given else [])]
        with own_process():
            timm_hooks_train.main(argv)
        return TimmRun(tmp_path / name)

    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the mixer was called with in each step, and whether its targets were mixed."""
    calls: list[dict[str, Any]] = []
    plain = mixplug.Mixer.__call__

    def call(self, stages, x, y, generators, epoch=0, step=None):
        mixed = plain(self, stages, x, y, generators, epoch, step)
        soft = not bool(((mixed.target == 0) | (mixed.target == 1)).all())
        calls.append({"epoch": epoch, "step": step, "soft": soft, "batch": len(x)})
        return mixed

    monkeypatch.setattr(mixplug.Mixer, "__call__", call)
    return calls
