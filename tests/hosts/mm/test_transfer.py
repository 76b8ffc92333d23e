"""The hosts' stock tools on the digit scenes: train, keep, resume and test with our parts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mixplug.data.toy_scenes import write_scenes

ROOT = Path(__file__).parents[3] / "mm_configs"
CONFIG = """
_base_ = {base!r}
{root}train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
mixup = dict(type={mixup!r}, n=16)
default_hooks = dict(checkpoint=dict(by_epoch={by_epoch}, interval=1, max_keep_ckpts=5))
randomness = dict(seed=0)
work_dir = 'work'
{more}
"""
HOSTS = {
    "mmdet": {
        "base": "detection/cascade-mask-rcnn_vit-tiny_fpn_1xb8-6e_digits.py",
        "mixup": "MultiMix",
        "more": "train_cfg = dict(max_epochs={until}, val_interval=1)",
        "last": "epoch_{}.pth",
        "score": "coco/bbox_mAP",
    },
    "mmseg": {
        "base": "segmentation/vit-tiny_upernet_1xb8-300_digits-128x128.py",
        "mixup": "DenseMultiMix",
        "more": "train_cfg = dict(max_iters={until}, val_interval=2)",
        "last": "iter_{}.pth",
        "score": "mIoU",
    },
}


def tool(host: str, name: str) -> Path:
    spec = find_spec(host)
    return Path(spec.submodule_search_locations[0]) / ".mim" / "tools" / name


def run(folder: Path, host: str, name: str, *arguments: str) -> str:
    command = [sys.executable, str(tool(host, name)), "config.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("host", HOSTS)
def test_stock_tools_train_resume_and_test(host: str, tmp_path: Path) -> None:
    settings = HOSTS[host]
    data = write_scenes(tmp_path / "scenes", 4, 2, size=(64, 64), digits=3, per_image=(1, 2))
    file = str(data / "annotations" / "instances_val.json")
    evaluators = f"val_evaluator = dict(ann_file={file!r})\ntest_evaluator = val_evaluator\n"

    def write(until: int) -> None:
        text = CONFIG.format(
            base=str(ROOT / settings["base"]),
            data=f"{data}/",
            mixup=settings["mixup"],
            by_epoch=host == "mmdet",
            root=evaluators if host == "mmdet" else "",
            more=settings["more"].format(until=until),
        )
        (tmp_path / "config.py").write_text(text)

    one, two = (1, 2) if host == "mmdet" else (2, 4)  # of two steps each
    write(one)
    run(tmp_path, host, "train.py")
    first = tmp_path / "work" / settings["last"].format(one)
    assert first.is_file()
    write(two)
    assert "resumed" in run(tmp_path, host, "train.py", "--resume").lower()
    last = tmp_path / "work" / settings["last"].format(two)
    saved = [torch.load(path, weights_only=False) for path in (first, last)]
    assert [checkpoint["meta"]["iter"] for checkpoint in saved] == [2, 4]
    states = [checkpoint["state_dict"] for checkpoint in saved]
    assert states[0].keys() == states[1].keys()
    assert not any("mix" in name for name in states[0])  # the plain model's
    name = "backbone.model.blocks.0.mlp.fc1.weight"
    assert not torch.equal(states[0][name], states[1][name])
    run(tmp_path, host, "test.py", str(last), "--work-dir", "tested")
    (scores,) = (tmp_path / "tested").glob("*/*.json")
    assert 0 <= json.loads(scores.read_text())[settings["score"]] <= 100
