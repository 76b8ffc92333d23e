"""mm evaluators of reliability: ``val_evaluator=[dict(type='mixplug.CalibrationError'), ...]``.

Data samples whose meta key ``role`` is 'ood', as mixplug.OODFolder sets it, are of no class: all
evaluators here pass over them but OODDetection, which wants them. Wrap others, which would take
them for errors: ``dict(type='mixplug.InDistribution', metric=dict(type='Accuracy'))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS
from torch import Tensor

from mixplug.functional.calibration import expected_calibration_error, overconfidence_error
from mixplug.functional.representation import alignment, uniformity
from mixplug.hosts.mm.evaluation.watch import OUTSIDE, WatchingMetric, labels_of
from mixplug.metrics.ood import SCORES, THRESHOLDS, ood_scores
from mixplug.registry import METRICS

Rows = tuple[np.ndarray, int]  # of an example, and its class or -1


@METRICS.register_module()
class CalibrationError(WatchingMetric):
    """ECE and OE in percent (Tables 3.6 and 5.6), of :mod:`mixplug.functional.calibration`.

    With temperature scaling also 'ece_scaled', 'oe_scaled' and 'temperature': as in a reliability
    card, each half of the examples is divided by the temperature that fits the other half best, so
    that none is judged by a temperature that it had a part in; 'temperature' is the mean of both.
    It takes logits from the model and keeps them till the end, else only confidences are kept.

    Args:
        bins: of equal width.
        temperature_scaling: whether to add the above.
        seed: by which halves are drawn.
        collect_device: mmengine's.
        prefix: mmengine's.
        collect_dir: mmengine's.

    Raises:
        ValueError: bins < 1.
    """

    lower_is_better = ("ece", "oe")

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

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep logits, or confidence and whether it is right, of every example.

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
        confidence, predicted = scores.max(1)
        # As if of one class, which a wrong example is not of: all that the errors depend on.
        wrong = [
            label if label < 0 else int(label != k)
            for label, k in zip(labels, predicted.tolist(), strict=True)
        ]
        self.results += rows(confidence[:, None], wrong)

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """See the class."""
        found, labels = inside(type(self).__name__, results)
        if not self.scaling:
            return self._errors(found, labels)
        from mixplug.evaluation.card.parts import cross_scaled  # a card is made with mixplug.mm

        logits = found.double()
        scaled, temperatures = cross_scaled(logits, labels, self.seed)
        return {
            **self._errors(logits.softmax(1), labels),
            **self._errors(scaled.softmax(1), labels, "_scaled"),
            "temperature": sum(temperatures) / len(temperatures),
        }

    def _errors(self, probabilities: Tensor, labels: Tensor, end: str = "") -> dict[str, float]:
        errors = {"ece": expected_calibration_error, "oe": overconfidence_error}
        return {
            name + end: 100 * float(error(probabilities, labels, self.bins))
            for name, error in errors.items()
        }


@METRICS.register_module()
class OODDetection(WatchingMetric):
    """How well in- and out-of-distribution images are told apart, in percent (Tables 3.4, 5.7).

    'auroc', 'aupr_in', 'aupr_out', 'fpr95', 'det_acc_best', and for 'max_softmax' 'det_acc' at a
    threshold of 0.5, as :func:`mixplug.metrics.ood.ood_scores` defines them. It needs both kinds::

        val_dataloader = dict(dataset=dict(
            type='ConcatDataset', ignore_keys='classes',
            datasets=[dict(type='CIFAR100', split='test', ...),
                      dict(type='mixplug.OODFolder', data_root='LSUN/test', ...)]))

    Args:
        score: 'max_softmax', 'energy' or 'max_logit', of the logits, which are taken from the
            model: probabilities do not hold what the latter two are.
        collect_device: mmengine's.
        prefix: mmengine's.
        collect_dir: mmengine's.

    Raises:
        ValueError: another score.
    """

    higher_is_better = ("auroc", "aupr_in", "aupr_out", "det_acc")
    lower_is_better = ("fpr95",)

    def __init__(
        self,
        score: str = "max_softmax",
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if score not in SCORES:
            raise ValueError(f"OODDetection needs a score in {(*SCORES,)}, got {score!r}.")
        self.score = score

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the score of every example, and whether it is out of distribution."""
        scores = SCORES[self.score](self.rows_of("logits", data_samples)).tolist()
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
        found = ood_scores(known, unknown, THRESHOLDS.get(self.score))
        found.pop("threshold_best")  # not in percent
        return {name: 100 * value for name, value in found.items()}


@METRICS.register_module()
class EmbeddingQuality(WatchingMetric):
    """'alignment' and 'uniformity' of ℓ2-normalized embeddings (4.4.4); lower is better.

    The embedding is what the layer for the classes is given. Definitions are those of
    :mod:`mixplug.functional.representation`, with α = t = 2.
    """

    lower_is_better = ("alignment", "uniformity")

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the embedding and the class of every example."""
        labels = labels_of(type(self).__name__, data_samples)
        self.results += rows(F.normalize(self.rows_of("embeddings", data_samples)), labels)

    def compute_metrics(self, results: list[Rows]) -> dict[str, float]:
        """See the class."""
        embeddings, labels = inside(type(self).__name__, results)
        return {
            "alignment": float(alignment(embeddings, labels)),
            "uniformity": float(uniformity(embeddings)),
        }


@METRICS.register_module()
class InDistribution(BaseMetric):
    """Any other evaluator, which does not see what is out of distribution.

    Args:
        metric: config of an evaluator of data samples one by one, such as Accuracy.
        **options: collect_device, prefix and collect_dir, mmengine's.

    Raises:
        ValueError: an evaluator that looks into the model: it passes over those anyway.
    """

    default_prefix = ""

    def __init__(self, metric: dict, **options: Any) -> None:
        super().__init__(**options)
        self.metric = ROOT_METRICS.build(metric)
        if hasattr(self.metric, "attach"):
            raise ValueError(f"{type(self.metric).__name__} needs no InDistribution around it.")
        self.prefix = self.prefix or self.metric.prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Hand on what is in distribution; every data sample leaves one entry, maybe empty."""
        for sample in data_samples:
            if sample.get("role") != OUTSIDE:
                self.metric.process(data_batch, [sample])
            self.results.append(list(self.metric.results))  # ranks need as many as samples
            self.metric.results.clear()

    def compute_metrics(self, results: list[list]) -> dict[str, float]:
        """Those of the evaluator."""
        self.metric.dataset_meta = self.dataset_meta
        return self.metric.compute_metrics([row for entry in results for row in entry])


def rows(values: Tensor, labels: Sequence[int]) -> list[Rows]:
    """Rows of a batch to be kept: copies, since a row of a tensor is sent with all of its batch."""
    return [(row.copy(), y) for row, y in zip(values.cpu().numpy(), labels, strict=True)]


def inside(who: str, results: list[Rows]) -> tuple[Tensor, Tensor]:
    """Rows (N, ...) and classes (N,) of the examples that have a class.

    Raises:
        ValueError: none has.
    """
    kept = [(row, label) for row, label in results if label >= 0]
    if not kept:
        raise ValueError(f"{who} got no image of a known class.")
    return torch.from_numpy(np.stack([row for row, _ in kept])), torch.tensor([y for _, y in kept])
