"""Clips and views of images under mmengine's Registry, Runner and ranks."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmpretrain
import pytest
import torch
from filming import film
from hosts.two_clip_samplers import work
from mmengine.config import Config
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, TRANSFORMS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader
from two_processes import in_both

import mixplug.mm  # noqa: F401  registers
from mixplug import sampling
from mixplug.data.clips import VideoClips
from mixplug.data.digits import digits
from mixplug.data.multicrop import MultiCrop
from mixplug.hosts.mm.hooks.mixup import MixupHook

mmpretrain.utils.register_all_modules(init_default_scope=False)

VIEWS = {"large": 8, "small": 6, "smalls": 3}
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("videos") / "film.mp4", 60)


def clips_of(video: Path, **changes: Any) -> dict[str, Any]:
    return {
        "type": "mixplug.VideoClips", "video": str(video), "frames": 2, "interval": 0.5, "crop": 32,
        "frames_per_epoch": 12, "index": "ignore", "views": dict(VIEWS), **changes,
    }  # fmt: skip


def loader(dataset: dict[str, Any], workers: int = 0, **options: Any) -> DataLoader:
    """As a Runner builds ``train_dataloader``."""
    config = {
        "batch_size": 2, "num_workers": workers, "persistent_workers": workers > 0,
        "dataset": copy.deepcopy(dataset), "sampler": {"type": "mixplug.ClipSampler"}, **options,
    }  # fmt: skip
    return Runner.build_dataloader(config, seed=3)


def runner_of(data: DataLoader, epoch: int = 0, seed: int = 3) -> Any:
    """What hooks want of a Runner."""
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader = data
    return SimpleNamespace(train_loop=loop, epoch=epoch, iter=0, seed=seed, model=nn.Identity())


def enter(hooks: list[Any], runner: Any, epoch: int) -> None:
    runner.epoch = epoch
    for hook in hooks:
        hook.before_train_epoch(runner)


# ---------------------------------------------------------------- clips


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_gets_the_clips_of_its_seed_and_epochs(video: Path, workers: int) -> None:
    """Persistent workers too, of which the first epoch's outlive it."""
    data = loader(clips_of(video, seed=77), workers)
    runner, hooks = runner_of(data), [DistSamplerSeedHook(), MixupHook()]
    hooks[1].before_run(runner)
    hooks[1].before_train(runner)
    plain = VideoClips(**{k: v for k, v in clips_of(video).items() if k != "type"}, seed=3)
    seen = []
    for epoch in range(2):
        enter(hooks, runner, epoch)
        batches = list(data)
        keys = list(data.sampler)
        assert sorted(keys) == list(range(6 * epoch, 6 * epoch + 6)) != keys
        large = [view for batch in batches for view in batch["large"]]
        small = [view for batch in batches for view in batch["small"]]
        for key, mine, other in zip(keys, large, small, strict=True):
            assert torch.equal(mine, plain[key]["large"])
            assert torch.equal(other, plain[key]["small"])
        seen.append(large)
    assert not any(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_names_are_in_the_root_registries(video: Path) -> None:
    for registry, name, home in (
        (DATASETS, "VideoClips", "datasets.clips"),
        (DATA_SAMPLERS, "ClipSampler", "datasets.clips"),
        (MODELS, "ViewsPreprocessor", "models.views_preprocessor"),
        (TRANSFORMS, "ViewsTransform", "datasets.clips"),
    ):
        module = f"mixplug.hosts.mm.{home}"
        assert registry.get(name).__module__ == registry.get(f"mixplug.{name}").__module__ == module


def test_two_ranks(tmp_path: Path) -> None:
    """Nine items for two: five each, one of them twice; without a seed they agree on one."""
    ranks = in_both(work, tmp_path)
    for (seed, one), (same, two) in zip(*ranks, strict=True):
        assert seed == same and len(one) == len(two) == 5
        assert sorted(one[:5] + two[:4]) == list(range(9)) and two[4] == one[0]


# ---------------------------------------------------------------- views of images


@pytest.mark.parametrize("bgr", [True, False])
def test_the_transform_gives_views_in_rgb(bgr: bool) -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    array = (image.flip(0) if bgr else image).permute(1, 2, 0).contiguous().numpy()
    transform = TRANSFORMS.build({"type": "mixplug.ViewsTransform", "bgr": bgr, **VIEWS})
    before = array.copy()
    torch.manual_seed(4)
    found = transform({"img": array, "gt_label": 3})
    torch.manual_seed(4)
    expected = MultiCrop(**VIEWS)(image[None], sampling.key(torch.default_generator))
    assert found.keys() == {"large", "small"} and (array == before).all()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(transform({"img": array})["large"], found["large"])
    with pytest.raises(KeyError, match=r"MultiCrop has no key 'larg'.*large"):
        TRANSFORMS.build({"type": "mixplug.ViewsTransform", "larg": 3})


def images_of(epochs: int, work: Path, workers: int = 0) -> Config:
    """DINO on the digits, in two batches an epoch."""
    vit = {
        "type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224", "img_size": 32,
        "depth": 1, "embed_dim": 12, "num_heads": 2, "dynamic_img_size": True,
    }  # fmt: skip
    pipeline = [{"type": "ViewsTransform", "large": 32, "small": 16, "smalls": 1}]
    settings = {
        "default_scope": "mmpretrain",
        "work_dir": str(work),
        "experiment_name": work.name,
        "model": {
            "type": "mixplug.DINO",
            "backbone": vit,
            "head": {"out_dim": 8, "hidden": 8, "bottleneck": 4},
        },
        "train_dataloader": {
            "batch_size": 4,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "dataset": {"type": "mixplug.Digits", "split": "train", "indices": 8,
                        "pipeline": pipeline},
        },
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.01}},
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        "randomness": {"seed": 5},
        "log_level": "WARNING",
    }  # fmt: skip
    return Config(settings)


def test_images_train_and_resume_bit_for_bit(tmp_path: Path) -> None:
    """The Runner keys the transform's draws, in workers and without."""
    whole = Runner.from_cfg(images_of(2, tmp_path / "whole", workers=2))
    whole.train()
    config = images_of(2, tmp_path / "resumed")
    config.resume, config.load_from = True, str(tmp_path / "whole" / "epoch_1.pth")
    resumed = Runner.from_cfg(config)
    resumed.train()
    expected = whole.model.state_dict()
    first = torch.load(tmp_path / "whole" / "epoch_1.pth", weights_only=False)["state_dict"]
    assert any(not torch.equal(value, first[key]) for key, value in expected.items())
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[key]), key


# ---------------------------------------------------------------- to the device


def normalized(view: Tensor) -> Tensor:
    """(T, 3, h, w), channel by channel."""
    channels = [(view[:, c].float() - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, 1)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_preprocessor_gives_views(stacked: bool) -> None:
    """Of B items (V, T, 3, H, W), in lists as pseudo_collate has them, or stacked."""
    items = {
        name: [torch.randint(0, 256, (v, 4, 3, s, s), dtype=torch.uint8) for _ in range(5)]
        for name, v, s in (("large", 2, 8), ("small", 3, 6))
    }
    data: Any = {k: torch.stack(v) for k, v in items.items()} if stacked else items
    before = copy.deepcopy(data)
    preprocessor = MODELS.build({"type": "mixplug.ViewsPreprocessor"})
    views = preprocessor(data, training=True)["views"]
    assert views.large.shape == (2, 5, 4, 3, 8, 8) and views.small.shape == (3, 5, 4, 3, 6, 6)
    assert views.large.dtype == torch.float32
    for found, given in ((views.large, items["large"]), (views.small, items["small"])):
        for v in range(len(found)):
            for b in range(5):
                assert_close(found[v, b], normalized(given[b][v]))
    for name in items:
        assert all(torch.equal(a, b) for a, b in zip(data[name], before[name], strict=True))


def test_floats_are_not_edited_in_place() -> None:
    large = torch.rand(2, 2, 1, 3, 4, 4)
    before = large.clone()
    MODELS.build({"type": "mixplug.ViewsPreprocessor"})({"large": large})
    assert torch.equal(large, before)


def test_without_small_views_there_are_none() -> None:
    preprocessor = MODELS.build({"type": "ViewsPreprocessor", "mean": [0] * 3, "std": [2] * 3})
    views = preprocessor({"large": [torch.full((2, 1, 3, 4, 4), 6).byte()]})["views"]
    assert views.small is None
    assert torch.equal(views.large, torch.full((2, 1, 1, 3, 4, 4), 3.0))


def test_images_are_those_of_a_classifier() -> None:
    """For evaluation: BGR as mmcv loads them."""
    images = [torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8) for _ in range(2)]
    found = MODELS.build({"type": "mixplug.ViewsPreprocessor"})({"inputs": images})["inputs"]
    for mine, image in zip(found, images, strict=True):
        assert_close(mine, normalized(image.flip(0)[None])[0])
    gray = digits("test", 8)[0][:1].mul(255).round().byte().expand(-1, 3, -1, -1)
    rgb = MODELS.build({"type": "mixplug.ViewsPreprocessor", "to_rgb": False})
    assert_close(rgb({"inputs": list(gray)})["inputs"][0], normalized(gray)[0])
