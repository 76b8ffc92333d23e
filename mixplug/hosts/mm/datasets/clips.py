"""Data of self-distillation for mmengine: clips of videos, and views of images.

::

    train_dataloader = dict(
        sampler=dict(type='mixplug.ClipSampler'),
        dataset=dict(type='mixplug.VideoClips', video='tour.mp4', frames=8, views=dict(smalls=6)))
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor

from mixplug import sampling
from mixplug.data import clip_samplers, clips
from mixplug.data.image_views import as_tensor
from mixplug.data.multicrop import multicrop_of
from mixplug.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS


@DATASETS.register_module()
class VideoClips(clips.VideoClips):
    """Views of random clips of videos, for DoRA and DINO in mm configs (6.5.2).

    It is :class:`mixplug.data.VideoClips`. In training the Runner's seed replaces ``seed``, as for
    all data of a Runner.
    """


@DATA_SAMPLERS.register_module()
class ClipSampler(clip_samplers.ClipSampler):
    """Draws the keys of random examples, such as clips, and divides them among the ranks.

    It is :class:`mixplug.data.ClipSampler`.

    Args:
        dataset: whose examples are drawn by key: VideoClips or TrackingPairs. The Runner gives it.
        seed: the same on all ranks; None lets them agree on one.
        shuffle: whether the keys come in a random order.
    """

    def __init__(self, dataset: Any, seed: int | None = None, shuffle: bool = True) -> None:
        rank, world = get_dist_info()
        seed = sync_random_seed() if seed is None else seed
        super().__init__(dataset, seed, rank, world, shuffle)


@TRANSFORMS.register_module()
class ViewsTransform(BaseTransform):
    """Multi-crop views of an image, for DINO and for DoRA without tracking (6.5.4).

    It is the last transform of a pipeline. The views are drawn by torch's global generator, which
    the Runner of such a model seeds for every item by seed, epoch and index.

    Args:
        bgr: whether the channels of ``img`` (H, W, 3) are in the order BGR, as mmcv loads them.
        **views: keys of :class:`mixplug.data.MultiCrop`.
    """

    def __init__(self, bgr: bool = True, **views: Any) -> None:
        self.bgr, self.views = bgr, multicrop_of(views)

    def transform(self, results: dict[str, Any]) -> dict[str, Tensor]:
        """``large`` (2, 1, 3, H, W) and ``small`` (m, 1, 3, h, w), uint8 RGB, and nothing else."""
        image = as_tensor(results["img"])
        image = image.flip(0) if self.bgr else image
        return self.views(image[None], sampling.key(torch.default_generator))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(bgr={self.bgr}, views={self.views})"
