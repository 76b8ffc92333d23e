"""mmdet: train the RoI classifier of a two-stage detector on mixed RoI embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import Linear
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mixplug.hosts.clock import Clock, plan_within
from mixplug.hosts.mm.mixing.criterion import reason_to_refuse, softmax_criterion
from mixplug.hosts.retype import retype
from mixplug.mixers.base import CLEAN, Mixer

_HOST = "an mmdet detector"
_LINEAR = (nn.Linear.forward, Linear.forward)  # mmcv's knows what to do without RoIs


class MixedRoILoss:
    """Methods that a BBoxHead gets: its classification loss is computed on mixed RoIs.

    The embedding of an RoI is the input of ``fc_cls``. That layer is linear, so logits are mixed
    instead. Background is a class. RoIs with label weight 0 are left out. Box and mask losses,
    targets and ``acc`` use the clean RoIs.
    """

    mixer: Mixer
    clock: Clock
    place: int

    def loss(
        self,
        cls_score: Tensor | None,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """The losses of the plain head, but ``loss_cls`` is that of the mixed RoIs."""
        losses = self.plain.loss(
            self,
            cls_score,
            bbox_pred,
            rois,
            labels,
            label_weights,
            bbox_targets,
            bbox_weights,
            reduction_override,
        )
        if (
            reduction_override is not None
        ):  # a sampler of hard examples needs the losses of clean RoIs
            return losses
        plan = plan_within(self.mixer, self.clock, self.place)
        rows = label_weights.nonzero().flatten()
        if plan.branch != CLEAN and len(rows):
            mixed = self.mixer.mix_rows(cls_score[rows], labels[rows], plan, label_weights[rows])
            losses["loss_cls"] = mixed.loss(softmax_criterion(self.loss_cls))
        return losses


def train_with(model: nn.Module, mixer: Mixer) -> str:
    """Train a two-stage detector with a mixer, in a cascade at every stage.

    Returns:
        What is mixed, in words, for the log.

    Raises:
        ValueError: another kind of detector, head, classifier or loss; or a mixer without
            ``mix_rows``.
    """
    heads = _heads(model)
    for head in heads:
        _require(head)
    mixer.require_way("mix_rows", _HOST)
    model.mixer, model.clock = mixer, Clock()
    for place, head in enumerate(heads):
        retype(head, MixedRoILoss)
        head.mixer, head.clock, head.place = mixer, model.clock, place
    stages = isinstance(model.roi_head.bbox_head, nn.ModuleList)
    which = "{" + ", ".join(map(str, range(len(heads)))) + "}." if stages else ""
    return f"the input of roi_head.bbox_head.{which}fc_cls"


def _heads(model: nn.Module) -> Sequence[nn.Module]:
    if not isinstance(model, TwoStageDetector):
        raise _unsupported(f"{type(model).__name__}, which is no two-stage detector")
    head = getattr(getattr(model, "roi_head", None), "bbox_head", None)
    if head is None:
        raise _unsupported(f"{type(model).__name__} without roi_head.bbox_head")
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def _require(head: nn.Module) -> None:
    name = type(head).__name__
    if not isinstance(head, BBoxHead) or type(head).loss is not BBoxHead.loss:
        raise _unsupported(f"{name}, whose loss is not BBoxHead's")
    classifier = getattr(head, "fc_cls", None)
    if not isinstance(classifier, nn.Linear) or type(classifier).forward not in _LINEAR:
        raise _unsupported(f"{name} whose fc_cls is {type(classifier).__name__}")
    why = reason_to_refuse(head.loss_cls, CrossEntropyLoss)
    if why is not None:
        raise _unsupported(f"{name} whose loss_cls is {why}")


def _unsupported(found: str) -> ValueError:
    return ValueError(
        "The mixup key looks for the RoI classifier of a two-stage detector: roi_head.bbox_head "
        "(of a cascade, every one), a BBoxHead with its own loss, whose fc_cls is an nn.Linear and "
        "whose loss_cls is a CrossEntropyLoss with softmax and reduction='mean'. It found "
        f"{found}. One-stage and query detectors have no sampled RoIs to mix."
    )
