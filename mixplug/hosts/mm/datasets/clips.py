"""mm data of self-distillation: clips of videos, views of images, and their way to the device.

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
    """Keys: :class:`mixplug.data.clips.VideoClips`.

    Training goes by the Runner's seed in place of ``seed``, as that of all its data does.
    """


@DATA_SAMPLERS.register_module()
class ClipSampler(clip_samplers.ClipSampler):
    """The keys of clips, on this rank.

    Args:
        dataset: :class:`VideoClips`.
        seed: equal on all ranks; None is one that they agree on.
        shuffle: whether they come in a random order.
    """

    def __init__(self, dataset: Any, seed: int | None = None, shuffle: bool = True) -> None:
        rank, world = get_dist_info()
        seed = sync_random_seed() if seed is None else seed
        super().__init__(dataset, seed, rank, world, shuffle)


@TRANSFORMS.register_module()
class ViewsTransform(BaseTransform):
    """Multi-crop views of an image, the last transform of a pipeline: for DINO and DoRA* (6.5.4).

    Their key is a draw of torch's global generator, which the Runner of such a model seeds for
    every item by its seed, epoch and index.

    Args:
        bgr: whether ``img`` (H, W, 3) has its channels in that order, as mmcv loads it.
        **views: keys of :class:`mixplug.data.multicrop.MultiCrop`.
    """

    def __init__(self, bgr: bool = True, **views: Any) -> None:
        self.bgr, self.views = bgr, multicrop_of(views)

    def transform(self, results: dict[str, Any]) -> dict[str, Tensor]:
        """``large`` (2, 1, 3, H, W) and ``small`` (m, 1, 3, h, w), uint8, RGB, in place of all."""
        image = as_tensor(results["img"])
        image = image.flip(0) if self.bgr else image
        return self.views(image[None], sampling.key(torch.default_generator))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(bgr={self.bgr}, views={self.views})"
