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
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from torch import Tensor, nn

from mixplug.adapters.clock import Clock
from mixplug.data import got10k, tracking_pairs
from mixplug.functional.tracking_metrics import (
    average_overlap,
    class_balanced,
    sequence_overlaps,
    success_rate,
)
from mixplug.models import frozen_tracker
from mixplug.registry import DATASETS, METRICS, MODELS


@dataclass(frozen=True)
class Tracked:
    """What a tracker has found in a sequence.

    Attributes:
        sequence: where.
        boxes: (T, 4) float64, left, top, width and height in pixels.
        seconds: what each of the T frames took.
    """

    sequence: got10k.TrackingSequence
    boxes: Tensor
    seconds: list[float]


@DATASETS.register_module()
class TrackingPairs(tracking_pairs.TrackingPairs):
    """Keys: :class:`mixplug.data.tracking_pairs.TrackingPairs`.

    Training goes by the Runner's seed in place of ``seed``, as that of all its data does.
    """


@DATASETS.register_module()
class GOT10k(got10k.GOT10k):
    """Keys: :class:`mixplug.data.got10k.GOT10k`; an item has its sequence as ``sequence``."""

    def __getitem__(self, index: int) -> dict[str, got10k.TrackingSequence]:
        """A sequence to track in."""
        return {"sequence": super().__getitem__(index)}


@MODELS.register_module()
class FrozenTracker(BaseModel):
    """A frozen vision transformer and a decoder that learns to read boxes out of it (6.5.3).

    Checkpoints hold both, so that one of a training run can be tested without the file that the
    backbone came from.

    Args:
        backbone: config of a ViT, 'mixplug.TimmBackbone' or 'mmpretrain.VisionTransformer'; its
            ``init_cfg`` says where its weights come from.
        data_preprocessor: mmengine's; as it is, it moves crops to the model's device, where the
            tracker normalises them.
        init_cfg: mmengine's.
        **settings: keys of :class:`mixplug.models.frozen_tracker.FrozenTracker`.

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


@METRICS.register_module()
class GOT10kMetric(BaseMetric):
    """Scores of GOT-10k in percent (Table 6.4b), and result files as its server wants them.

    - 'mAO': class-balanced, the mean over classes of the mean over their sequences of the average
      overlap in each; 'mSR@0.5' and 'mSR@0.75' likewise of the success rate;
    - 'AO', 'SR@0.5', 'SR@0.75': over the frames of all sequences, as the official toolkit and the
      server have it.

    The first frame of a sequence and those where the object is not there do not count. The test
    split has no boxes and gets no scores: submit its result files.

    Args:
        out_dir: where result files go, ``NAME/NAME_001.txt`` of boxes and ``NAME/NAME_time.txt`` of
            seconds; all of them also in ``OUT_DIR.zip``, which is what the server takes. None
            writes nothing.
        thresholds: of success rates.
        collect_device: mmengine's.
        prefix: mmengine's.
        collect_dir: mmengine's.

    Raises:
        ValueError: a threshold outside [0, 1].
    """

    def __init__(
        self,
        out_dir: str | None = None,
        thresholds: Sequence[float] = (0.5, 0.75),
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f"GOT10kMetric needs thresholds in [0, 1], got {tuple(thresholds)}.")
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.thresholds = tuple(thresholds)

    def process(self, data_batch: Any, data_samples: Sequence[Tracked]) -> None:
        """Write the files of sequences, and keep their overlaps."""
        for tracked in data_samples:
            sequence = tracked.sequence
            if self.out_dir is not None:
                write_results(self.out_dir / sequence.name, tracked)
            overlaps = torch.zeros(0)
            if sequence.labelled:
                there = sequence.cover > 0
                overlaps = sequence_overlaps(tracked.boxes, sequence.boxes, there, sequence.size)
            self.results.append((sequence.object_class, overlaps))

    def compute_metrics(self, results: list[tuple[str, Tensor]]) -> dict[str, float]:
        """The scores; none if no sequence has boxes."""
        if self.out_dir is not None:
            archive = shutil.make_archive(str(self.out_dir), "zip", self.out_dir)
            MMLogger.get_current_instance().info("Result files of GOT-10k are in %s", archive)
        counted = [(name, overlaps) for name, overlaps in results if len(overlaps)]
        if not counted:
            return {}
        classes, overlaps = [name for name, _ in counted], [part for _, part in counted]
        scores = {"mAO": class_balanced([average_overlap([part]) for part in overlaps], classes)}
        scores["AO"] = average_overlap(overlaps)
        for t in self.thresholds:
            rates = [success_rate([part], t) for part in overlaps]
            scores[f"SR@{t:g}"] = success_rate(overlaps, t)
            scores[f"mSR@{t:g}"] = class_balanced(rates, classes)
        return {name: 100 * value for name, value in scores.items()}


def write_results(folder: Path, tracked: Tracked) -> None:
    """The two files of a sequence in the layout of the official toolkit."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (",".join(f"{number:.3f}" for number in row) for row in tracked.boxes.tolist())
    name = tracked.sequence.name
    (folder / f"{name}_001.txt").write_text("".join(f"{row}\n" for row in rows))
    times = "".join(f"{seconds:.8f}\n" for seconds in tracked.seconds)
    (folder / f"{name}_time.txt").write_text(times)


def _stacked(items: Any) -> Tensor:
    return items if isinstance(items, Tensor) else torch.stack(list(items))
