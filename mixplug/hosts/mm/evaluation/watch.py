"""What mm evaluators need of a classifier and do not find in data samples: logits, embeddings.

mmengine hands predictions to evaluators, and of mmpretrain's these are probabilities: what a logit
was is lost in them. So hooks keep what the forward pass of an evaluation step had on its way.
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
from mixplug.hosts.mm.mixing.classifier import classifier_name

OUTSIDE = "ood"  # role of data samples that are of no class


class Watch:
    """Logits and embeddings of the latest batch that a classifier evaluated, in training of none.

    Attributes:
        logits: what the head returned, (B, K).
        embeddings: what its last layer was given, (B, D).
    """

    def __init__(self, model: ImageClassifier) -> None:
        self.logits: Any = None
        self.embeddings: Any = None
        self._away = False
        layer = model.get_submodule(classifier_name(model.head))
        layer.register_forward_pre_hook(self._before)
        model.head.register_forward_hook(self._after)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The model may be run on other images: the batch stays the latest."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not module.training and not self._away:
            self.embeddings = args[0].detach().flatten(1)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not module.training and not self._away:
            self.logits = output.detach() if isinstance(output, Tensor) else output


_watches: weakref.WeakKeyDictionary[nn.Module, Watch] = weakref.WeakKeyDictionary()


class WatchingMetric(BaseMetric):
    """Base of evaluators that look into the model, which mixplug.mm has mmengine's Runner tell."""

    default_prefix = ""
    model: ImageClassifier | None = None

    def attach(self, runner: Any) -> None:
        """Watch the model of a Runner.

        Raises:
            ValueError: it is no ImageClassifier with a layer for its classes.
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
        """The model, and what it did last.

        Raises:
            ValueError: the evaluator was built without a Runner that knows of mixplug.
        """
        if self.model is None:
            raise ValueError(
                f"{type(self).__name__} looks into the model and was not told which: give it as a "
                f"config, val_evaluator = dict(type='mixplug.{type(self).__name__}', ...), with "
                f"custom_imports = dict(imports=['mixplug.mm'])."
            )
        return self.model, _watches[self.model]

    def rows_of(self, which: str, data_samples: list[dict] | Any) -> Tensor:
        """'logits' (B, K) or 'embeddings' (B, D) of a batch, in float32.

        Raises:
            ValueError: the model gave others than one for each data sample.
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
    """The class of every data sample, -1 where it is of none.

    Raises:
        ValueError: a data sample without label, or with several.
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
