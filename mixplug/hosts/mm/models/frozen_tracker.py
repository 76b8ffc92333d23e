"""Object tracking in mm by frozen features: ``model=dict(type='mixplug.FrozenTracker', ...)``.

::

    model = dict(
        type='mixplug.FrozenTracker',
        backbone=dict(
            type='mixplug.TimmBackbone', model_name='vit_small_patch16_224', dynamic_img_size=True,
            init_cfg=dict(type='mixplug.Pretrained', checkpoint='dora.pth', part='teacher')))
    train_dataloader = dict(
        sampler=dict(type='mixplug.ClipSampler'),
        dataset=dict(type='mixplug.TrackingPairs', root='data/got10k'))
    val_dataloader = dict(dataset=dict(type='mixplug.GOT10k', root='data/got10k', split='val'))
    val_evaluator = dict(type='mixplug.GOT10kMetric')
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mixplug.data import got10k
from mixplug.hosts.clock import Clock
from mixplug.hosts.mm.evaluation.got10k import Tracked
from mixplug.hosts.mm.models.pretrained import compare_images
from mixplug.models.tracking import frozen_tracker
from mixplug.registry import MODELS


@MODELS.register_module()
class FrozenTracker(BaseModel):
    """A frozen vision transformer and a decoder that learns to read boxes out of it (6.5.3).

    Checkpoints hold both, so that one of a training run can be tested without the file that the
    backbone came from.

    Args:
        backbone: config of a ViT, 'mixplug.TimmBackbone' or 'mmpretrain.VisionTransformer'; its
            ``init_cfg`` says where its weights come from.
        data_preprocessor: mmengine's; as it is, it moves crops to the model's device, where the
            tracker normalizes them.
        init_cfg: weight initialization by mmengine, such as dict(type='mixplug.Pretrained', ...).
        **settings: keys of :class:`mixplug.models.tracking.FrozenTracker`.

    Raises:
        TypeError: a key that the tracker and its decoder have not.
        ValueError: see the tracker.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        built = MODELS.build(backbone)
        self._hosts = [built]  # no child of this module: the tracker has the network in it
        self.tracker = frozen_tracker.FrozenTracker(getattr(built, "model", built), **settings)
        self.clock = Clock()  # gets the model the hook that keys its dropout and its data

    def init_weights(self) -> None:
        """Load the backbone as its ``init_cfg`` says: for training, by the Runner."""
        super().init_weights()
        for host in self._hosts:
            host.init_weights()
        compare_images(self)

    def forward(
        self,
        template: Tensor | Sequence[Tensor] | None = None,
        search: Tensor | Sequence[Tensor] | None = None,
        box: Tensor | Sequence[Tensor] | None = None,
        sequence: Sequence[got10k.TrackingSequence] = (),
        mode: str = "tensor",
    ) -> Any:
        """The loss of crops, their patch tokens, or boxes in sequences.

        Args:
            template: B times (V, 3, S, S) uint8, stacked or not.
            search: B times (3, S, S), likewise.
            box: B times (4,), left, top, width and height in shares of the search crop.
            sequence: for 'predict'.
            mode: 'loss', 'tensor' or 'predict'.

        Raises:
            ValueError: another mode, or a mode without what it needs.
        """
        crops = template is not None and search is not None
        if mode == "loss" and crops and box is not None:
            return {"loss": self.tracker.loss(_stacked(template), _stacked(search), _stacked(box))}
        if mode == "tensor" and crops:
            return self.tracker.encode(_stacked(template), _stacked(search))
        if mode == "predict" and len(sequence):
            return [self._tracked(one) for one in sequence]
        raise ValueError(
            f"FrozenTracker needs mode 'loss' with template, search and box, as "
            f"mixplug.TrackingPairs gives them, 'tensor' with the first two, or 'predict' with "
            f"sequence, as mixplug.GOT10k gives it; got {mode!r} with crops {crops}, box "
            f"{box is not None} and {len(sequence)} sequences."
        )

    def _tracked(self, sequence: got10k.TrackingSequence) -> Tracked:
        times = [time.perf_counter()]
        boxes = self.tracker.track(
            sequence.images(), sequence.boxes[0], lambda: times.append(time.perf_counter())
        )
        return Tracked(sequence, boxes, [b - a for a, b in itertools.pairwise(times)])


def _stacked(items: Any) -> Tensor:
    return items if isinstance(items, Tensor) else torch.stack(list(items))
