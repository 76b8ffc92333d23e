"""The key ``mixup`` in every way in which mmengine reads a config."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosts.hosting import mim_tools

import mixplug
from mixplug.autoload import needs_mixplug

BODY = """
from mmengine.config import read_base
from mmpretrain.models import ImageClassifier, LinearClsHead, ResNet, GlobalAveragePooling
from mmpretrain.models.losses import CrossEntropyLoss
from mmpretrain.models.utils import ClsDataPreprocessor
from mixplug.mixers import MultiMix

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(type=ClsDataPreprocessor),
    backbone=dict(type=ResNet, depth=18, base_channels=8, stem_channels=8, out_indices=(3,)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64, loss=dict(type=CrossEntropyLoss)),
)
default_scope = "mmpretrain"
log_level = "WARNING"
"""
TRAINING = """
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mixplug.Digits', split='train', size=32, indices=32,
                 pipeline=[dict(type='PackInputs')]),
)
"""
IGNORED = "custom_imports = dict(imports=['mixplug.mm'])\n"
OLD = """
default_scope = 'mmpretrain'
log_level = 'WARNING'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor'),
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64,
              loss=dict(type='CrossEntropyLoss')),
)
"""
# Every way is tried in a process of its own, which has not imported mixplug.mm.
WAYS = """
import os, sys, traceback
import mmpretrain.models
from mmengine.config import Config
from mmengine.runner import Runner

def mixer_of(make):
    if os.fork():
        return os.waitstatus_to_exitcode(os.wait()[1])
    try:
        assert "mixplug.mm" not in sys.modules
        model = Runner.from_cfg(make()).model
        mixer = getattr(model, "mixer", None)
        print(name, type(mixer).__name__, flush=True)
    except Exception:
        traceback.print_exc()
        print(name, "stopped", flush=True)
    os._exit(0)

def read(file, options=None, **keys):
    config = Config.fromfile(file, **keys)
    config.merge_from_dict(options or {})
    config.work_dir = "work"
    return config

for name, make in {
    "new": lambda: read("new.py"),
    "class": lambda: read("class.py"),
    "bare": lambda: read("bare.py"),
    "read_base": lambda: read("child.py"),
    "base": lambda: read("old_child.py"),
    "off": lambda: read("off.py"),
    "old": lambda: read("old.py"),
    "bare old": lambda: read("bare_old.py"),
    "no imports": lambda: read("old.py", import_custom_modules=False),
    "options": lambda: read("bare.py", {"mixup.type": "AlignMixup"}),
    "dict": lambda: read("new.py").to_dict(),
    "Config": lambda: Config(read("new.py").to_dict()),
    "string": lambda: Config.fromstring(open("bare_old.py").read() + "work_dir='w'", ".py"),
    "dumped": lambda: (read("new.py").dump("dumped.py"), read("dumped.py"))[1],
    "dumped class": lambda: (read("class.py").dump("dumped.py"), read("dumped.py"))[1],
    "list": lambda: read("list.py"),
    "wrong": lambda: read("wrong.py"),
    "none": lambda: read("none.py"),
    "of another": lambda: read("another.py"),
}.items():
    mixer_of(make)
"""
EXPECTED = {
    "new": "DenseMultiMix",
    "class": "MultiMix",
    "bare": "DenseMultiMix",
    "read_base": "DenseMultiMix",
    "base": "MultiMix",
    "off": "NoneType",
    "old": "MultiMix",
    "bare old": "MultiMix",
    "no imports": "MultiMix",
    "options": "AlignMixup",
    "dict": "DenseMultiMix",
    "Config": "DenseMultiMix",
    "string": "MultiMix",
    "dumped": "DenseMultiMix",
    "dumped class": "MultiMix",
    "list": "OneOf",
    "wrong": "stopped",
    "none": "NoneType",
    "of another": "NoneType",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mixup, old_mixup = "mixup = dict(type='DenseMultiMix')\n", "mixup = dict(type='MultiMix')\n"
    files = {
        "new": BODY + IGNORED + mixup,
        "bare": BODY + mixup,
        "class": BODY + "mixup = dict(type=MultiMix, n=8)\n",
        "child": "from mmengine.config import read_base\n"
        "with read_base():\n    from .bare import *\nmixup.update(n=8)\n",
        "list": BODY + "mixup = [dict(type='CutMix'), dict(type='AlignMixup')]\n",
        "wrong": BODY + IGNORED + "mixup = dict(type='AlinMixup')\n",
        "none": BODY,
        "another": BODY + "mixup = dict(type='Mixup', alpha=0.8)\n",
        "old": OLD + IGNORED + old_mixup,
        "bare_old": OLD + old_mixup,
        "old_child": "_base_ = 'bare_old.py'\nmixup = dict(n=8)\n",
        "off": "_base_ = 'bare_old.py'\nmixup = None\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Environment in which this version of the package is installed, whatever is installed here."""
    info = tmp_path / "site" / "mixplug_here-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mixplug-here\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[torch.backends]\nhere = mixplug.autoload:watch\n")
    root = str(Path(mixplug.__file__).parents[1])
    path = [str(info.parent), root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, cwd=folder, env=env, check=False
    )


def test_every_way_of_reading_a_config(folder: Path, installed: dict[str, str]) -> None:
    done = run([sys.executable, "-c", WAYS], folder, installed)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED, done.stderr[-3000:]
    assert "mixplug has no mixer ['Mixup']" in done.stderr
    assert "There is no mixer 'AlinMixup'" in done.stderr


def test_the_stock_tool_trains_a_new_style_config_with_the_mixer(
    folder: Path, installed: dict[str, str]
) -> None:
    (folder / "train.py").write_text((folder / "new.py").read_text() + TRAINING)
    command = [sys.executable, str(mim_tools() / "train.py"), "train.py", "--work-dir", "work"]
    done = run([*command, "--cfg-options", "log_level=INFO"], folder, installed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DenseMultiMix mixes training batches" in done.stderr + done.stdout
    assert (folder / "work" / "epoch_1.pth").is_file()


@pytest.mark.parametrize("imports", [IGNORED, ""])
def test_the_flexible_runner_refuses_the_key(
    folder: Path, installed: dict[str, str], imports: str
) -> None:
    text = OLD + imports + "mixup = dict(type='MultiMix')\nrunner_type = 'FlexibleRunner'\n"
    text += "env_cfg = dict(dist_cfg=dict(backend='gloo'))\nrandomness = dict(seed=1)\n"
    (folder / "train.py").write_text(text + TRAINING)
    command = [sys.executable, str(mim_tools() / "train.py"), "train.py", "--work-dir", "work"]
    done = run(command, folder, installed)
    assert done.returncode != 0
    assert "The mixup key does not work in mmengine's FlexibleRunner" in done.stderr


def test_pytorch_is_asked_to_prepare_the_runners() -> None:
    text = (Path(mixplug.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points."torch.backends"]\nmixplug = "mixplug.autoload:watch"\n' in text


def test_preparing_the_runners_imports_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); from mixplug.autoload import watch; watch();"
        "new = {n.split('.')[0] for n in set(sys.modules) - before};"
        "assert not new & {'torch', 'mmengine', 'timm', 'numpy'}, new"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_config_without_the_key_needs_nothing() -> None:
    assert not needs_mixplug({})
    assert not needs_mixplug({"mixup": None})
