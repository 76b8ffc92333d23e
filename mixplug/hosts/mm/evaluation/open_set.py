"""Evaluator of classifiers that meet unknown classes: ``mixplug.OpenSetAccuracy``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mixplug.functional.open_set import h_score, open_set_accuracy, spread_thresholds
from mixplug.registry import METRICS

Row = tuple[float, bool, bool]  # confidence, whether its class is right, whether it is unknown


@METRICS.register_module()
class OpenSetAccuracy(BaseMetric):
    """Accuracy in percent where some test classes are unknown, not trained on (Table 5.8).

    An example is unknown if its label is not below the number of scores. An example is rejected,
    that is called unknown, if its largest probability is below a threshold.

    - 'known_accuracy': top-1 accuracy on known examples, with nothing rejected;
    - 'h_score': harmonic mean of the accuracy on known examples, where a rejected one is an error,
      and of the accuracy on unknown examples, at the best threshold;
    - 'open_accuracy': accuracy on all examples, where 'unknown' is one more class, at the best
      threshold.

    The last two need unknown examples. They are upper bounds, because the threshold is chosen on
    the test set, as the authors of the setting do.

    Args:
        thresholds: how many are tried, see :func:`mixplug.functional.spread_thresholds`.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/h_score'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: fewer than two thresholds.
    """

    default_prefix = ""
    higher_is_better = ("known_accuracy", "h_score", "open_accuracy")

    def __init__(
        self,
        thresholds: int = 10,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if thresholds < 2:
            raise ValueError(f"OpenSetAccuracy needs thresholds >= 2, got {thresholds}.")
        self.thresholds = thresholds

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep confidence, correctness and kind of every example of a batch.

        Raises:
            ValueError: data samples without scores or labels.
        """
        for sample in data_samples:
            if "pred_score" not in sample or "gt_label" not in sample:
                raise ValueError(
                    f"OpenSetAccuracy needs data samples with pred_score and gt_label, got "
                    f"{sorted(sample)}."
                )
        scores = torch.stack([sample["pred_score"] for sample in data_samples])
        confidence, called = (part.tolist() for part in scores.max(1))
        for sample, c, k in zip(data_samples, confidence, called, strict=True):
            label = int(sample["gt_label"])
            self.results.append((c, k == label, label >= scores.shape[1]))

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """See the class.

        Raises:
            ValueError: no example of a known class.
        """
        confidence, correct, unknown = (torch.tensor(row) for row in zip(*results, strict=True))
        if bool(unknown.all()):
            raise ValueError(
                f"OpenSetAccuracy needs examples of known classes, got {len(unknown)} of others."
            )
        scores = {"known_accuracy": correct[~unknown].double().mean()}
        if bool(unknown.any()):
            at = spread_thresholds(confidence, self.thresholds)
            known, other = open_set_accuracy(confidence, correct, unknown, at)
            share = unknown.double().mean()
            scores["h_score"] = h_score(known, other).max()
            scores["open_accuracy"] = ((1 - share) * known + share * other).max()
        return {name: 100 * float(value) for name, value in scores.items()}
