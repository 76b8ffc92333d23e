"""mm evaluators of reliability: ``val_evaluator=[dict(type='mixplug.CalibrationError'), ...]``.

:mod:`mixplug.numbers` defines which scores the evaluators return; they are those of a reliability
card.

mixplug.OODFolder and mixplug.OODNoise give data samples the meta key ``role='ood'``: they have no
class. OODDetection needs such data samples; all other evaluators here skip them. Wrap evaluators of
other packages, which would count them as errors:
``dict(type='mixplug.InDistribution', metric=dict(type='Accuracy'))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS
from torch import Tensor

from mixplug.hosts.mm.evaluation.watch import OUTSIDE, WatchingMetric, labels_of
from mixplug.metrics import calibration, embeddings, ood
from mixplug.metrics.calibration import CalibrationMetrics, cross_scaled, values_of_probabilities
from mixplug.metrics.ood import SCORES, ood_scores
from mixplug.numbers import ScoreNames, scaled
from mixplug.registry import METRICS

_LOGIT_SCORES = tuple(name for name, score in SCORES.items() if score.function is not None)

Rows = tuple[np.ndarray, int]  # of an example, and its class or -1


@METRICS.register_module()
class CalibrationError(WatchingMetric):
    """Calibration errors of a classifier: 'ece' and 'oe' in percent (Tables 3.6, 5.6), and others.

    :mod:`mixplug.functional.calibration` defines them. With temperature scaling the evaluator also
    returns all of them after scaling, such as 'ece_scaled', and 'temperature'. Scaling is that of a
    reliability card: each half of the examples is divided by the temperature that fits the other
    half best, so no example is evaluated with a temperature that was fitted on it; 'temperature' is
    the mean of both. The evaluator then takes logits from the model and holds all of them until the
    end of the evaluation. Otherwise it holds a few values per example, and scores that need logits,
    such as 'nll', are missing.

    Args:
        bins: number of bins of equal width.
        temperature_scaling: whether to evaluate after temperature scaling, too.
        seed: decides which half of the examples an example belongs to, for temperature scaling.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/ece'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: bins < 1.
    """

    higher_is_better = ScoreNames(calibration.PART, True)
    lower_is_better = ScoreNames(calibration.PART, False)

    def __init__(
        self,
        bins: int = 15,
        temperature_scaling: bool = False,
        seed: int = 0,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if bins < 1:
            raise ValueError(f"CalibrationError needs bins >= 1, got {bins}.")
        self.bins, self.scaling, self.seed = bins, temperature_scaling, seed
        self.names: tuple[str, ...] = ()  # of the values of a row

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the logits of every example, or the values that the scores are made of.

        Raises:
            ValueError: data samples without scores that sum to 1, or without one label each.
        """
        labels = labels_of(type(self).__name__, data_samples)
        if self.scaling:
            self.results += rows(self.rows_of("logits", data_samples), labels)
            return
        if any("pred_score" not in sample for sample in data_samples):
            raise ValueError("CalibrationError needs data samples with pred_score of a classifier.")
        scores = torch.stack([sample["pred_score"] for sample in data_samples]).float()
        if not bool(((scores.sum(1) - 1).abs() < 1e-2).all()):
            raise ValueError(
                f"CalibrationError needs probabilities of classes that exclude each other, got "
                f"scores with sums from {scores.sum(1).min():.3g} to {scores.sum(1).max():.3g}."
            )
        classes = torch.tensor(labels).clamp(min=0)  # rows without a class are skipped later
        values = values_of_probabilities(scores.cpu(), classes)
        self.names = tuple(values)
        self.results += rows(torch.stack(list(values.values()), 1), labels)

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """See the class."""
        found, labels = inside(type(self).__name__, results)
        metric = CalibrationMetrics(self.bins)
        if not self.scaling:
            metric.add(dict(zip(self.names, found.T.contiguous(), strict=True)))
            return scaled(calibration.PART, metric.compute())
        logits = found.double()
        divided, temperatures = cross_scaled(logits, labels, self.seed)
        after = CalibrationMetrics(self.bins)
        metric.update_logits(logits, labels)
        after.update_logits(divided, labels)
        of_scaled = scaled(calibration.PART, after.compute())
        return {
            **scaled(calibration.PART, metric.compute()),
            **{f"{name}_scaled": value for name, value in of_scaled.items()},
            "temperature": sum(temperatures) / len(temperatures),
        }


@METRICS.register_module()
class OODDetection(WatchingMetric):
    """How well a score separates in- and out-of-distribution images (Tables 3.4, 5.7), in percent.

    The scores are 'auroc', 'aupr_in', 'aupr_out', 'fpr95', 'det_acc_best', and for 'max_softmax'
    also 'det_acc' at threshold 0.5. :func:`mixplug.metrics.ood.ood_scores` defines them. The data
    set must have images of both kinds::

        val_dataloader = dict(dataset=dict(
            type='ConcatDataset', ignore_keys='classes',
            datasets=[dict(type='CIFAR100', split='test', ...),
                      dict(type='mixplug.OODFolder', data_root='LSUN/test', ...)]))

    Args:
        score: score of an image, 'max_softmax', 'energy' or 'max_logit'. Logits are taken from the
            model, since the latter two cannot be computed from probabilities.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/auroc'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.

    Raises:
        ValueError: another score.
    """

    higher_is_better = ScoreNames(ood.PART, True)
    lower_is_better = ScoreNames(ood.PART, False)

    def __init__(
        self,
        score: str = "max_softmax",
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if score not in _LOGIT_SCORES:
            raise ValueError(f"OODDetection needs a score in {_LOGIT_SCORES}, got {score!r}.")
        self.score = score

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the score of every example, and whether it is out of distribution."""
        function: Any = SCORES[self.score].function
        scores = function(self.rows_of("logits", data_samples)).tolist()
        out = [sample.get("role") == OUTSIDE for sample in data_samples]
        self.results += list(zip(scores, out, strict=True))

    def compute_metrics(self, results: list[tuple[float, bool]]) -> dict[str, float]:
        """See the class.

        Raises:
            ValueError: examples of one kind only.
        """
        known, unknown = (
            torch.tensor([score for score, out in results if out == kind], dtype=torch.float64)
            for kind in (False, True)
        )
        if not len(known) or not len(unknown):
            raise ValueError(
                f"OODDetection needs data samples with and without the role {OUTSIDE!r}, got "
                f"{len(unknown)} with and {len(known)} without: test with a ConcatDataset of both."
            )
        return scaled(ood.PART, ood_scores(known, unknown, SCORES[self.score].threshold))


@METRICS.register_module()
class EmbeddingQuality(WatchingMetric):
    """Quality of embeddings: 'alignment', 'uniformity' (thesis 4.4.4) and 'intrusion_distance'.

    Alignment and uniformity are better when they are lower, the intrusion distance (5.4.7) when it
    is higher. The embedding is the input of the classification layer, scaled to length 1.
    :func:`mixplug.metrics.embeddings.embedding_numbers` computes the scores. 'intrusion_distance'
    is missing if there are fewer than three classes.

    Args:
        seed: decides which pairs of embeddings are mixed, for the intrusion distance.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/alignment'; None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.
    """

    higher_is_better = ScoreNames(embeddings.PART, True)
    lower_is_better = ScoreNames(embeddings.PART, False)

    def __init__(
        self,
        seed: int = 0,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        self.seed = seed

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the embedding and the class of every example."""
        labels = labels_of(type(self).__name__, data_samples)
        self.results += rows(self.rows_of("embeddings", data_samples), labels)

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """See the class."""
        found = embeddings.embedding_numbers(*inside(type(self).__name__, results), self.seed)
        return scaled(embeddings.PART, found)


@METRICS.register_module()
class InDistribution(BaseMetric):
    """Evaluate in-distribution images only, with another evaluator such as mmpretrain's Accuracy.

    Args:
        metric: config of an evaluator that processes data samples one by one, such as Accuracy.
        **options: of mmengine's BaseMetric, where results are collected (``collect_device``,
            ``collect_dir``) and what is put before the names of the scores (``prefix``).

    Raises:
        ValueError: an evaluator of this module, which skips out-of-distribution samples itself.
    """

    default_prefix = ""

    def __init__(self, metric: dict, **options: Any) -> None:
        super().__init__(**options)
        self.metric = ROOT_METRICS.build(metric)
        if hasattr(self.metric, "attach"):
            raise ValueError(f"{type(self.metric).__name__} needs no InDistribution around it.")
        self.prefix = self.prefix or self.metric.prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Pass on in-distribution samples; each sample leaves one entry, which may be empty."""
        for sample in data_samples:
            if sample.get("role") != OUTSIDE:
                self.metric.process(data_batch, [sample])
            self.results.append(list(self.metric.results))  # mmengine collects one entry per sample
            self.metric.results.clear()

    def compute_metrics(self, results: list[list]) -> dict[str, float]:
        """Scores of the evaluator."""
        self.metric.dataset_meta = self.dataset_meta
        return self.metric.compute_metrics([row for entry in results for row in entry])


def rows(values: Tensor, labels: Sequence[int]) -> list[Rows]:
    """Rows of a batch as copies, since sending a view to a rank would send the whole batch."""
    return [(row.copy(), y) for row, y in zip(values.cpu().numpy(), labels, strict=True)]


def inside(who: str, results: list[Rows]) -> tuple[Tensor, Tensor]:
    """Rows (N, ...) and classes (N,) of the examples that have a class.

    Raises:
        ValueError: no example has a class.
    """
    kept = [(row, label) for row, label in results if label >= 0]
    if not kept:
        raise ValueError(f"{who} got no image of a known class.")
    return torch.from_numpy(np.stack([row for row, _ in kept])), torch.tensor([y for _, y in kept])
