"""Linear probes and neighbors by mmengine's Runner, against the jobs of mixplug eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch.testing import assert_close

import mixplug.mm  # noqa: F401  registers
from mixplug.data.image_folders import image_folders
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.knn import knn
from mixplug.models.self_distillation import DoRA

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 6}
HEAD = {"out_dim": 16, "hidden": 8, "bottleneck": 4}
COLORS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "ResizeEdge", "scale": 37, "edge": "short", "backend": "pillow",
     "interpolation": "bicubic"},
    {"type": "CenterCrop", "crop_size": 32},
    {"type": "PackInputs"},
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors")
    for seed, (split, count) in enumerate((("train", 4), ("val", 3))):
        pictures = {
            name: folders.noisy(color, count, 10 * seed + place)
            for place, (name, color) in enumerate(COLORS.items())
        }
        folders.classes(root, split, pictures)
    return root


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as mmengine saves one of mixplug.DoRA, whose teacher is not its student."""
    torch.manual_seed(0)
    method = DoRA({"name": "vit_tiny_patch16_224", **VIT}, head=HEAD)
    for parameter in method.teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("dora") / "dora.pth"
    state = {f"method.{name}": value for name, value in method.state_dict().items()}
    torch.save({"state_dict": state}, path)
    return path


def loader(root: Path, **dataset: Any) -> dict[str, Any]:
    return {
        "batch_size": 4, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {"data_root": str(root), "pipeline": PIPELINE, **dataset},
    }  # fmt: skip


def config_of(work: Path, **more: Any) -> Config:
    return Config({
        "default_scope": "mmpretrain", "work_dir": str(work), "experiment_name": work.name,
        "log_level": "WARNING", "randomness": {"seed": 5}, **more,
    })  # fmt: skip


def test_a_probe_is_trained_and_saved(root: Path, dora: Path, tmp_path: Path) -> None:
    """By class tokens of the teacher, which stay what they are, and are told apart in the end."""
    backbone = {"type": "mixplug.ClassTokens", "model_name": "vit_tiny_patch16_224", "blocks": 2,
                "init_cfg": {"type": "mixplug.Pretrained", "checkpoint": str(dora),
                             "part": "teacher"}, **VIT}  # fmt: skip
    data = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
    config = config_of(
        tmp_path / "run",
        model={
            "type": "ImageClassifier", "backbone": backbone,
            "head": {"type": "LinearClsHead", "num_classes": 3, "in_channels": 192},
        },
        data_preprocessor={"num_classes": 3, **data},
        train_dataloader=loader(root, type="ImageNet", split="train", ann_file=""),
        val_dataloader=loader(root, type="ImageNet", split="val", ann_file=""),
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        train_cfg={"by_epoch": True, "max_epochs": 4},
        val_cfg={}, val_evaluator={"type": "Accuracy", "topk": (1,)},
    )  # fmt: skip
    for split in ("train", "val"):
        config[f"{split}_dataloader"].dataset.metainfo = {"classes": sorted(COLORS)}
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.message_hub.get_scalar("val/accuracy/top1").current() == 100
    frozen = Frozen.of(dora, "teacher", 6, device="cpu")
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        found = runner.model.train().backbone(frozen.normalized(images))[0]
    assert_close(found, frozen.class_tokens(images, 2))
    saved = torch.load(tmp_path / "run" / "epoch_4.pth", weights_only=False)["state_dict"]
    teacher = Frozen.of(dora, "teacher", 6, device="cpu").encoder.backbone.state_dict()
    assert all(torch.equal(saved[f"backbone.model.{name}"], teacher[name]) for name in teacher)


def test_neighbors_are_those_of_the_command(root: Path, dora: Path, tmp_path: Path) -> None:
    images = {"type": "mixplug.ImageFolders", "data_root": str(root), "pipeline": PIPELINE}
    data = loader(root)
    data["dataset"] = {
        "type": "ConcatDataset",
        "datasets": [{**images, "split": "train"}, {**images, "split": "val"}],
    }
    config = config_of(
        tmp_path / "run",
        model={
            "type": "mixplug.DoRA", "head": HEAD,
            "backbone": {"type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224",
                         "dynamic_img_size": True, **VIT},
        },
        test_dataloader=data, test_cfg={}, load_from=str(dora),
        test_evaluator={"type": "mixplug.KNNAccuracy", "k": 3},
    )  # fmt: skip
    theirs = Runner.from_cfg(config).test()
    frozen = Frozen.of(dora, "teacher", 6, device="cpu")
    ours = knn(frozen, *image_folders(root), [3], size=32, batch_size=4, workers=0)
    assert theirs == {"knn@3": pytest.approx(ours["knn@3"])} and ours["knn@3"] == 100


def test_roles_and_errors(root: Path) -> None:
    init_default_scope("mmpretrain")
    images = {"type": "mixplug.ImageFolders", "data_root": str(root), "pipeline": PIPELINE}
    for split, role, count in (("train", "train", 12), ("val", "query", 9)):
        found = DATASETS.build({**images, "split": split})
        assert len(found) == count and found.metainfo["classes"] == ("blue", "green", "red")
        assert found[count - 1]["data_samples"].role == role
        assert int(found[count - 1]["data_samples"].gt_label) == 2
    with pytest.raises(ValueError, match=r"a split in \('train', 'val'\), got 'test'"):
        DATASETS.build({**images, "split": "test"})
    with pytest.raises(ValueError, match=r"blocks in \[1, 3\], .* got 4"):
        MODELS.build({"type": "mixplug.ClassTokens", "model_name": "vit_tiny_patch16_224", **VIT})
