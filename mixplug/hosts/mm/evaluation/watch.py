"""Base of evaluators that need logits or embeddings of a classifier, which data samples lack.

mmengine gives predictions to evaluators, and those of mmpretrain are probabilities, from which
logits cannot be recovered. Therefore forward hooks keep both during an evaluation step.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.evaluator import BaseMetric
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mixplug.hosts.mm.hooks.mixup import unwrapped
from mixplug.hosts.mm.mixing.classifier import last_layer_name

OUTSIDE = "ood"  # role of out-of-distribution data samples


class Watch:
    """Logits and embeddings of the latest evaluated batch. Training steps are not recorded.

    Attributes:
        logits: (B, K), as the head returned them.
        embeddings: (B, D), the input of its last layer.
    """

    def __init__(self, model: ImageClassifier) -> None:
        self.logits: Any = None
        self.embeddings: Any = None
        self._paused = False
        layer = model.get_submodule(last_layer_name(model.head))
        layer.register_forward_pre_hook(self._before)
        model.head.register_forward_hook(self._after)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not record within this context, where the model runs on other images."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not module.training and not self._paused:
            self.embeddings = args[0].detach().flatten(1)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not module.training and not self._paused:
            self.logits = output.detach() if isinstance(output, Tensor) else output


_watches: weakref.WeakKeyDictionary[nn.Module, Watch] = weakref.WeakKeyDictionary()


class WatchingMetric(BaseMetric):
    """Base of evaluators that look into the model, which mixplug.mm takes from the Runner."""

    default_prefix = ""
    model: ImageClassifier | None = None

    def attach(self, runner: Any) -> None:
        """Watch the model of a Runner.

        Raises:
            ValueError: the model is no ImageClassifier with a layer for its classes.
        """
        model = unwrapped(runner.model)
        if not isinstance(model, ImageClassifier) or not model.with_head:
            raise ValueError(
                f"{type(self).__name__} looks into mmpretrain's ImageClassifier with a head, got "
                f"{type(model).__name__}."
            )
        if model not in _watches:
            _watches[model] = Watch(model)
        self.model = model

    @property
    def watched(self) -> tuple[ImageClassifier, Watch]:
        """The model, and its logits and embeddings of the latest batch.

        Raises:
            ValueError: no Runner gave the evaluator its model.
        """
        if self.model is None:
            raise ValueError(
                f"{type(self).__name__} looks into the model of a Runner and got none. Use it as a "
                f"config, val_evaluator = dict(type='mixplug.{type(self).__name__}', ...), with "
                f"custom_imports = dict(imports=['mixplug.mm'])."
            )
        return self.model, _watches[self.model]

    def rows_of(self, which: str, data_samples: list[dict] | Any) -> Tensor:
        """'logits' (B, K) or 'embeddings' (B, D) of a batch, in float32.

        Raises:
            ValueError: the model did not give one row for each data sample.
        """
        rows = getattr(self.watched[1], which)
        if not isinstance(rows, Tensor) or rows.dim() != 2 or len(rows) != len(data_samples):
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(
                f"{type(self).__name__} needs {which} of {len(data_samples)} images in one pass of "
                f"the model, got {got}."
            )
        return rows.float()


def labels_of(who: str, data_samples: list[dict] | Any) -> list[int]:
    """The class of every data sample, -1 if it is out of distribution.

    Raises:
        ValueError: a data sample without a label, or with several.
    """
    labels = []
    for sample in data_samples:
        label = sample.get("gt_label")
        if sample.get("role") == OUTSIDE:
            labels.append(-1)
        elif label is None or len(label) != 1:
            got = "none" if label is None else f"{len(label)}"
            raise ValueError(f"{who} needs one gt_label per data sample, got {got}.")
        else:
            labels.append(int(label))
    return labels
