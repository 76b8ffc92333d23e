"""mmdet: train the RoI classifier of a two-stage detector on mixed RoIs."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import Linear
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mixplug.hosts.clock import Clock, plan_within
from mixplug.hosts.mm.mixing.criterion import softmax_criterion, unsupported_loss
from mixplug.hosts.retype import retype
from mixplug.mixers.base import CLEAN, Mixer

_HOST = "an mmdet detector"
_LINEAR = (nn.Linear.forward, Linear.forward)  # mmcv's also handles a batch without RoIs


class MixedRoILoss:
    """A BBoxHead whose classification loss is computed on mixed RoIs.

    The embedding of an RoI is the input of ``fc_cls``. That layer is linear, so logits are mixed
    instead of embeddings. Background is one of the classes. RoIs with label weight 0 are not mixed.
    Box and mask losses, targets and ``acc`` are those of the clean RoIs.
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
        """Losses of the plain head, except ``loss_cls``, which is that of the mixed RoIs."""
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
        if reduction_override is not None:  # a sampler of hard RoIs needs clean losses
            return losses
        plan = plan_within(self.mixer, self.clock, self.place)
        rows = label_weights.nonzero().flatten()
        if plan.branch != CLEAN and len(rows):
            mixed = self.mixer.mix_rows(cls_score[rows], labels[rows], plan, label_weights[rows])
            losses["loss_cls"] = mixed.loss(softmax_criterion(self.loss_cls))
        return losses


def train_with(model: nn.Module, mixer: Mixer) -> str:
    """Make a two-stage detector train with a mixer; a cascade does so in every stage.

    Returns:
        What is mixed, for the log.

    Raises:
        ValueError: the detector, head, classifier or loss is of another kind, or the mixer has no
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
    why = unsupported_loss(head.loss_cls, CrossEntropyLoss)
    if why is not None:
        raise _unsupported(f"{name} whose loss_cls is {why}")


def _unsupported(found: str) -> ValueError:
    return ValueError(
        "The mixup key needs a two-stage detector. Its roi_head.bbox_head (in a cascade, every "
        "one) must be a BBoxHead with BBoxHead's loss, fc_cls an nn.Linear, and loss_cls a "
        f"CrossEntropyLoss with softmax and reduction='mean'. Found {found}. One-stage and query "
        f"detectors have no sampled RoIs to mix."
    )
