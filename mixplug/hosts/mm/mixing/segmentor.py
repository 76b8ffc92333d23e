"""mmseg: train the pixel classifier of an EncoderDecoder on mixed pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss, accuracy
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mixplug.hosts.clock import Clock, plan_within
from mixplug.hosts.mm.mixing.criterion import softmax_criterion, total_weight, unsupported_loss
from mixplug.hosts.retype import retype
from mixplug.mixers.base import CLEAN, Mixer

_HOST = "an mmseg segmentor"
_TINY = torch.finfo(torch.float32).tiny


class MixedPixelLoss:
    """A decode head whose losses are computed on pixels that are mixed over the batch.

    The embedding of a pixel is the input of ``conv_seg``, after dropout, resized to the label map.
    ``conv_seg`` is a 1x1 convolution and bilinear weights sum to 1, so resizing and mixing logits
    gives the same as resizing and mixing embeddings. Labels keep their resolution: at the
    resolution of the features, thin objects would vanish from the loss.

    The mixer determines how terms are averaged. DenseMultiMix averages at each pixel, and then over
    all pixels that have a label in any image (eq. 5.14); with reduction='global' it averages over
    all labeled pixels of all images at once. The total weight of the terms is that of the plain
    loss, see :func:`mixplug.hosts.mm.mixing.criterion.total_weight`. So mixed and clean batches
    have losses of one scale, and with one-hot Λ and reduction='global' the same loss.
    """

    mixer: Mixer
    clock: Clock

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Losses of the mixed pixels and accuracy of the clean ones, with the names of the head.

        Ignored pixels have weight 0. Weights of a sampler are used as in the plain loss. Losses
        that cannot be mixed, such as Dice beside a cross-entropy, are those of the clean pixels.
        """
        plan = plan_within(self.mixer, self.clock)
        if plan.branch == CLEAN:
            return self.plain.loss_by_feat(self, seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples)
        logits = resize(
            seg_logits, labels.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        weight = (labels != self.ignore_index).squeeze(1).float()
        sampled = None if self.sampler is None else self.sampler.sample(logits, labels)
        weight = weight if sampled is None else weight * sampled
        labels = labels.squeeze(1)
        known = torch.where(labels == self.ignore_index, 0, labels)
        mixed = self.mixer.mix_positions(
            logits.flatten(2), known.flatten(1), plan, weight.flatten(1)
        )
        own = 1.0 if mixed.weight is None else mixed.weight.sum().clamp(min=_TINY)
        losses: dict[str, Tensor] = {}
        for loss in _losses(self):
            if unsupported_loss(loss, CrossEntropyLoss) is None:
                criterion = softmax_criterion(loss)
                total = total_weight(loss, labels, weight, self.ignore_index)
                value = mixed.loss(replace(criterion, scale=criterion.scale * total / own))
            else:  # clean, as in the plain head
                value = loss(logits, labels, weight=sampled, ignore_index=self.ignore_index)
            name = loss.loss_name
            losses[name] = losses[name] + value if name in losses else value
        losses["acc_seg"] = accuracy(logits, labels, ignore_index=self.ignore_index)
        return losses


def train_with(model: nn.Module, mixer: Mixer) -> str:
    """Make the decode head of a segmentor train with a mixer; in a cascade, the last one.

    Auxiliary heads and earlier stages of a cascade are not mixed.

    Returns:
        What is mixed, for the log.

    Raises:
        ValueError: the segmentor, head, classifier or loss is of another kind, or the mixer has no
            ``mix_positions``.
    """
    head, name = getattr(model, "decode_head", None), "decode_head"
    if isinstance(head, nn.ModuleList):
        head, name = head[-1], f"decode_head.{len(head) - 1}"
    _require(model, head)
    mixer.require_way("mix_positions", _HOST)
    model.mixer, model.clock = mixer, Clock()
    retype(head, MixedPixelLoss)
    head.mixer, head.clock = mixer, model.clock
    kept = [loss for loss in _losses(head) if unsupported_loss(loss, CrossEntropyLoss)]
    names = ", ".join(f"{type(loss).__name__} ({loss.loss_name})" for loss in kept)
    return f"the input of {name}.conv_seg" + (f", and leaves clean {names}" if kept else "")


def _require(model: nn.Module, head: nn.Module | None) -> None:
    if not isinstance(model, EncoderDecoder) or not isinstance(head, BaseDecodeHead):
        raise _unsupported(f"{type(model).__name__} with {type(head).__name__}")
    name, kind = type(head).__name__, type(head)
    own = kind.loss not in (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss)
    if own or kind.loss_by_feat is not BaseDecodeHead.loss_by_feat:
        raise _unsupported(f"{name}, whose loss is not BaseDecodeHead's")
    if kind.cls_seg is not BaseDecodeHead.cls_seg:
        raise _unsupported(f"{name}, whose cls_seg is not BaseDecodeHead's")
    conv = getattr(head, "conv_seg", None)
    if not _pixelwise(conv):
        size = getattr(conv, "kernel_size", None)
        raise _unsupported(
            f"{name} whose conv_seg is {type(conv).__name__} with kernel_size={size}"
        )
    if head.out_channels < 2:
        raise _unsupported(f"{name} with out_channels={head.out_channels}")
    reasons = [unsupported_loss(loss, CrossEntropyLoss) for loss in _losses(head)]
    if None not in reasons:
        raise _unsupported(f"{name} whose loss_decode is {', '.join(map(str, reasons))}")


def _pixelwise(conv: nn.Module | None) -> bool:
    linear = isinstance(conv, nn.Conv2d) and type(conv).forward is nn.Conv2d.forward
    return linear and conv.kernel_size == (1, 1) and conv.groups == 1


def _losses(head: nn.Module) -> Sequence[nn.Module]:
    losses = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def _unsupported(found: str) -> ValueError:
    return ValueError(
        "The mixup key needs mmseg's EncoderDecoder. Its decode_head (in a cascade, the last) must "
        "have BaseDecodeHead's loss, a conv_seg that is a 1x1 convolution to two or more classes, "
        f"and a loss_decode that is a CrossEntropyLoss with softmax and reduction='mean', or a "
        f"list with one. Found {found}."
    )
