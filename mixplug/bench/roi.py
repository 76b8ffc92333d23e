"""A training step of Faster R-CNN with the key ``mixup``, compared with one without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.bench.measure import in_turns
from mixplug.catalog import build

ROUNDS, SIDE, ROIS = 7, 320, 512
_CONFIG = "configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"


def measure_roi(
    rounds: int = ROUNDS,
    device: torch.device | str = "cpu",
    tick: Callable[[], None] | None = None,
    config: Any = None,
    side: int = SIDE,
) -> float:
    """Time of a detector's step with ``mixup=dict(type='MultiMix', prob=1)``, relative to without.

    The model is the stock Faster R-CNN, ResNet-50 FPN with 80 classes and random weights, on an
    image of noise with three boxes. A step is forward, backward and optimizer. The two steps
    alternate on copies of one model with the same random draws, so they sample the same RoIs.

    Args:
        rounds: number of pairs of steps that count, after one that does not.
        device: device to run on.
        tick: function that is called after each step, ``2 * (rounds + 1)`` times.
        config: config of another model instead of the stock one.
        side: side of the image in pixels.

    Returns:
        The median over rounds of the ratio of the two times.

    Raises:
        ModuleNotFoundError: mmdet is not installed.
    """
    seconds = in_turns(_steps(torch.device(device), config, side), rounds, tick)
    return median(a / b for a, b in zip(seconds["mixed"], seconds["plain"], strict=True))


def _steps(device: torch.device, config: Any, side: int) -> dict[str, Callable[[], None]]:
    from mixplug.hosts.mm.mixing.key import train_with

    plain = _detector(config or _stock_config()).to(device).train()
    mixed = copy.deepcopy(plain)
    train_with(mixed, build({"type": "MultiMix", "prob": 1.0}, kind="mixer"))
    return {"plain": _step(plain, device, side), "mixed": _step(mixed, device, side)}


def _stock_config() -> Any:
    """The stock config without pretrained weights to download; its sampler draws 512 RoIs."""
    import mmdet
    from mmengine.config import Config

    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / _CONFIG).model
    config.backbone.init_cfg = None
    config.train_cfg.rcnn.sampler.num = ROIS
    return config


def _detector(config: Any) -> nn.Module:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.registry import DefaultScope

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model: nn.Module = MODELS.build(copy.deepcopy(config))
    return model


def _step(model: nn.Module, device: torch.device, side: int) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    sample = _sample(side, device)

    def step() -> None:
        torch.manual_seed(0)
        losses = model(image, [copy.deepcopy(sample)], mode="loss")
        optimizer.zero_grad()
        _total(losses).backward()
        optimizer.step()

    return step


def _sample(side: int, device: torch.device) -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.3, 0.5, 0.9, 0.9], [0.6, 0.1, 0.8, 0.3]]) * side
    truth = InstanceData(bboxes=boxes.to(device), labels=torch.arange(3, device=device))
    shape = (side, side)
    meta = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "batch_input_shape": shape}
    sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0)})
    sample.gt_instances = truth
    return sample


def _total(losses: dict[str, Any]) -> Tensor:
    terms = [value for name, value in losses.items() if "loss" in name]
    return sum(sum(term) if isinstance(term, list) else term for term in terms)  # type: ignore[return-value]
