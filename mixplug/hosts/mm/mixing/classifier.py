"""mmpretrain: train an ImageClassifier with a mixer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from mmengine.hooks import Hook
from mmpretrain.models import CrossEntropyLoss, ImageClassifier, LabelSmoothLoss
from mmpretrain.models.heads import (
    ClsHead,
    CSRAClsHead,
    EfficientFormerClsHead,
    MultiLabelClsHead,
)
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.blocks import before_last_block
from mixplug.criterion import Criterion, as_criterion, cross_entropy, require_rows
from mixplug.hosts.clock import Clock, known_epoch
from mixplug.hosts.mm.mixing.criterion import Terms
from mixplug.hosts.retype import retype
from mixplug.layouts import Layout
from mixplug.mixers.base import Mixer
from mixplug.stages import Stages
from mixplug.stages.pixels import Pixels

_CLASSES = 3  # to try a loss with, where the head does not say how many there are


class MixedLoss:
    """The loss of an ImageClassifier that mixes its batches."""

    mixer: Mixer
    stages: Stages
    clock: Clock

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Losses of the mixed batch, with the names of the plain classifier.

        Raises:
            ValueError: something has turned batch augments on, which have mixed this batch already.
        """
        _require_unmixed(getattr(self.data_preprocessor, "batch_augments", None), "")
        clock = self.clock
        draws = sampling.generators(clock.seed, clock.step, ranks.rank())
        y = self.targets(data_samples).to(inputs.device)
        epoch = known_epoch(self.mixer, clock)
        mixed = self.mixer(self.stages, inputs, y, draws, epoch, clock.step)
        return {"loss": mixed.loss(criterion_of(self.head.loss_module))}

    def check_hooks(self, hooks: Sequence[Hook]) -> None:
        """Look ahead at what hooks, such as mmpretrain's SwitchRecipeHook, will change.

        Raises:
            ValueError: a recipe turns batch augments on, or changes to a loss that cannot be mixed.
        """
        for hook in hooks:
            schedule = getattr(hook, "schedule", None)
            recipes = schedule.items() if isinstance(schedule, Mapping) else ()
            for epoch, recipe in recipes:
                if isinstance(recipe, Mapping):
                    when = f" {type(hook).__name__} turns them on at epoch {epoch}."
                    _require_unmixed(recipe.get("batch_augments"), when)
                    if isinstance(recipe.get("loss"), nn.Module):
                        require_mixable(recipe["loss"], self.head.num_classes)

    def targets(self, data_samples: list[DataSample]) -> Tensor:
        """Class indices (B,); or rows (B, K), if there are scores or several labels."""
        if "gt_score" in data_samples[0]:
            return torch.stack([sample.gt_score for sample in data_samples]).float()
        if isinstance(self.head, MultiLabelClsHead):
            rows = torch.zeros(len(data_samples), self.head.num_classes)
            for row, sample in zip(rows, data_samples, strict=True):
                row[sample.gt_label.cpu()] = 1
            return rows
        return torch.cat([sample.gt_label for sample in data_samples])


def train_with(model: nn.Module, mixer: Mixer) -> str:
    """Make an ImageClassifier train with a mixer. Its parameters and its testing do not change.

    Returns:
        What is mixed, for the log.

    Raises:
        ValueError: the model or its head is of another kind, or its batches are mixed already.
    """
    require_trainable(model)
    names = classifier_names(model)
    stages = mm_stages(model)
    mixer.attach(stages)
    retype(model, MixedLoss)
    model.mixer, model.clock, model.stages = mixer, Clock(), stages
    return f"training batches, classifier {' and '.join(names) or 'not known'}"


def require_trainable(model: nn.Module) -> None:
    """Raise ValueError if the key does not work for a model, whatever the mixer."""
    head = getattr(model, "head", None)
    if getattr(head, "dist", False) or getattr(head, "distillation", False):
        raise ValueError(
            f"mmpretrain does not train {type(head).__name__} with distillation. Set "
            f"head=dict(distillation=False)."
        )
    if not isinstance(model, ImageClassifier) or not _plain_loss(head):
        raise ValueError(
            f"The mixup key needs mmpretrain's ImageClassifier with a ClsHead or MultiLabelClsHead "
            f"whose loss depends on logits and targets only, got {type(model).__name__} with "
            f"{type(head).__name__}."
        )
    _require_unmixed(getattr(model.data_preprocessor, "batch_augments", None), "")
    require_mixable(head.loss_module, getattr(head, "num_classes", _CLASSES))


def _require_unmixed(batch_augments: object, when: str) -> None:
    if batch_augments is not None:
        raise ValueError(
            f"The mixup key and batch augments (model.train_cfg.augments) would both mix the "
            f"batch.{when} Remove one, for instance with model=dict(train_cfg=None)."
        )


def _plain_loss(head: nn.Module | None) -> bool:
    """Whether the loss is the loss module applied to the output of a layer."""
    return any(
        isinstance(head, plain)
        and type(head).loss in (plain.loss, EfficientFormerClsHead.loss)  # plain but for `dist`
        and type(head)._get_loss is plain._get_loss
        and not isinstance(head, CSRAClsHead)
        for plain in (ClsHead, MultiLabelClsHead)
    )


def mm_stages(model: ImageClassifier) -> Stages:
    """An mmpretrain classifier in stages.

    A dense loss is applied to the last level of the backbone's output. If the backbone pools, it is
    applied to the map before pooling, and if a transformer returns no map, to the tokens after its
    last block. The map A that AlignMixup aligns is the one before the last block. In a transformer
    this block carries mixed patches to the class token. In other networks alignment directly before
    average pooling would have no effect.
    """
    classifier, last, backbone = classifier_names(model), "backbone", model.backbone
    if getattr(backbone, "gap_before_final_norm", False):  # ConvNeXt and others pool themselves
        last = f"backbone.stages.{len(backbone.stages) - 1}"
    elif getattr(backbone, "out_type", None) in ("cls_token", "avg_featmap"):
        blocks = "layers" if hasattr(backbone, "layers") else "encoder"  # the latter in T2T-ViT
        last = f"backbone.{blocks}.{len(getattr(backbone, blocks)) - 1}"
    block = before_last_block(backbone)
    features = f"backbone.{block}" if block else last
    call, pixels = partial(_logits, model), partial(_pixels, model)
    layout = _layout(backbone)
    return Stages(model, features, classifier, last, layout, call, pixels=pixels, search=True)


def _layout(backbone: nn.Module) -> Layout:
    """What a backbone says of its tokens; a wrapper of timm's models lets them say it."""
    if not hasattr(backbone, "num_extra_tokens"):
        for module in backbone.modules():
            if hasattr(module, "num_prefix_tokens"):
                from mixplug.hosts.timm.stages import map_layout

                return map_layout(module)
    grid = getattr(backbone, "patch_resolution", None)
    projection = getattr(getattr(backbone, "patch_embed", None), "projection", None)
    return Layout(
        prefix=getattr(backbone, "num_extra_tokens", int(hasattr(backbone, "cls_token"))),
        grid=grid and tuple(grid),
        patch=getattr(projection, "stride", None),
    )


def _pixels(model: ImageClassifier) -> Pixels:
    """Mean and standard deviation of the data preprocessor, for images in [0, 1]."""
    preprocessor = model.data_preprocessor
    if getattr(preprocessor, "mean", None) is None:
        raise ValueError(
            f"It is not known how the images were normalized: {type(preprocessor).__name__} has no "
            f"mean. Normalize in the model instead of the pipeline: "
            f"data_preprocessor=dict(mean=[...], std=[...]), for pixels from 0 to 255."
        )
    return preprocessor.mean / 255, preprocessor.std / 255


def _logits(model: ImageClassifier, inputs: Tensor) -> Tensor:
    """Logits (B, K) of the plain model."""
    return model.head(model.extract_feat(inputs))


def classifier_names(model: nn.Module) -> list[str]:
    """Names of the layers with one output per class; several if the head returns their mean.

    Some backbones classify themselves, as VGG. One with further outputs, as Inception v3, does not
    say which of them is the classifier; then there is none, and only inputs can be mixed.
    """
    if getattr(model.head, "num_classes", None) is not None:
        return [f"head.{name}" for name in _with_classes(model.head)]
    own = [f"backbone.{name}" for name in _with_classes(model.backbone)]
    return own if len(own) == 1 else []


def _with_classes(part: nn.Module) -> list[str]:
    """Names of the layers in a head or a backbone with ``num_classes`` outputs.

    Of layers in a row (an ``nn.Sequential``) only the last counts: a hidden one may be as wide.
    """
    classes = getattr(part, "num_classes", None)
    found: dict[str, str] = {}  # by the row that a layer is in, if it is in one
    for name, module in part.named_modules():
        widths = (getattr(module, "out_features", None), getattr(module, "out_channels", None))
        if classes is not None and classes in widths and not any(module.children()):
            row = name.rpartition(".")[0]
            in_row = isinstance(part.get_submodule(row), nn.Sequential)
            found[row if in_row else name] = name
    return list(found.values())


def last_layer_name(head: nn.Module) -> str:
    """Name of a head's last layer with one output per class.

    Raises:
        ValueError: there is none.
    """
    names = [f"head.{name}" for name in _with_classes(head)]
    if not names:
        raise ValueError(
            f"{type(head).__name__} has no layer with num_classes="
            f"{getattr(head, 'num_classes', None)} outputs, so its embeddings are not known."
        )
    return names[-1]


def criterion_of(loss: nn.Module) -> Criterion:
    """A head's loss as a criterion.

    mm losses average over examples and sum over classes. With ``reduction_override='none'`` they
    return one value per term.
    """
    if "reduction_override" not in inspect.signature(loss.forward).parameters:
        return as_criterion(loss)
    return _fused(loss) or Criterion(Terms(loss))


def require_mixable(loss: nn.Module, classes: int) -> None:
    """Try a head's loss on mixed targets.

    Raises:
        ValueError: it does not take them, or it keeps a state, such as SeesawLoss, which counts
            class indices.
    """
    name, trial = type(loss).__name__, copy.deepcopy(loss)
    device = next(iter([*trial.parameters(), *trial.buffers()]), torch.empty(0)).device
    require_rows(criterion_of(trial), classes, device, name)
    before, after = loss.state_dict(), trial.state_dict()
    if any(not torch.equal(before[key], after[key]) for key in before):
        raise ValueError(
            f"{name} cannot be mixed: it keeps a state ({', '.join(before)}) that it updates with "
            f"every batch, and what mixed targets would do to it is not defined."
        )


def _fused(loss: nn.Module) -> Criterion | None:
    """The criterion of a plain cross-entropy, which can be computed in factored form, else None."""
    ce = loss.ce if isinstance(loss, LabelSmoothLoss) else loss
    if (
        type(ce).forward is not CrossEntropyLoss.forward
        or ce.use_sigmoid
        or ce.class_weight is not None
    ):
        return None
    if isinstance(loss, LabelSmoothLoss):
        return None if loss.mode == "multi_label" else cross_entropy(loss._eps, loss.loss_weight)
    return cross_entropy(scale=loss.loss_weight)
