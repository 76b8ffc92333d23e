"""Scores of a tracker on GOT-10k, and result files for the server of GOT-10k."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from mixplug.data import got10k
from mixplug.functional.tracking_metrics import (
    average_overlap,
    class_balanced,
    sequence_overlaps,
    success_rate,
)
from mixplug.registry import METRICS


@dataclass(frozen=True)
class Tracked:
    """The boxes that a tracker found in a sequence.

    Attributes:
        sequence: with T frames.
        boxes: (T, 4) float64, left, top, width and height in pixels.
        seconds: how long each of the T frames took.
    """

    sequence: got10k.TrackingSequence
    boxes: Tensor
    seconds: list[float]


@METRICS.register_module()
class GOT10kMetric(BaseMetric):
    """Overlap and success rates of a tracker on GOT-10k in percent (Table 6.4b).

    - 'mAO': class-balanced average overlap: the mean over classes of the mean over their sequences.
      'mSR@0.5' and 'mSR@0.75' are the success rates, class-balanced in the same way;
    - 'AO', 'SR@0.5', 'SR@0.75': over the frames of all sequences, as the official toolkit and the
      server compute them.

    The first frame of a sequence does not count, nor do frames without the object. The test split
    has no boxes and therefore no scores: submit its result files to the server.

    Args:
        out_dir: folder for result files, ``NAME/NAME_001.txt`` with boxes and
            ``NAME/NAME_time.txt`` with seconds. They are also packed into ``OUT_DIR.zip``, which
            the server accepts. None writes nothing.
        thresholds: overlaps above which a frame is a success, in [0, 1].
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/mAO'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: a threshold outside [0, 1].
    """

    higher_is_better = ("mAO", "AO", "mSR@", "SR@")

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
            if sequence.labeled:
                visible = sequence.cover > 0
                overlaps = sequence_overlaps(tracked.boxes, sequence.boxes, visible, sequence.size)
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
