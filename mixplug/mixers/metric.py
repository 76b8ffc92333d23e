"""Train with a metric loss in a host that trains classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.functional.targets import soft_targets
from mixplug.losses.base import MetricLoss, Source
from mixplug.losses.building import build_loss
from mixplug.mixed import Mixed
from mixplug.mixers.base import Mixer, Plan
from mixplug.mixers.known import labeled
from mixplug.models.heads.embedding import EmbeddingHead
from mixplug.renamed import old_names
from mixplug.stages import Forward, Stages

_ROUNDING = 0.01  # of the largest value, which bfloat16 keeps


@dataclass(frozen=True, kw_only=True)
class MetricMixing(Mixer):
    """Train embeddings with a metric loss, and the classifier as a linear probe.

    The embedding is the classifier's input. The classifier learns with the host's own criterion
    from detached embeddings, so its gradient does not reach the network. The accuracy that the host
    reports is that of a linear probe on the training classes.

    Attributes:
        loss: config of a loss; ``num_classes`` and ``dim`` come from the model if they are missing.
        off_epoch: from this epoch on, counted from 0, the loss does not mix; None always mixes.
    """

    loss: Mapping[str, Any]

    def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw keys for the draws of the loss, which depend on the embeddings."""
        return Plan(
            "metric", key=sampling.key(generators.local), synced=sampling.key(generators.synced)
        )

    def attach(self, stages: Stages) -> None:
        """Build the loss for the model's classes and width, and register it on the model."""
        loss = build_loss(self.loss, num_classes=stages.num_classes, dim=stages.embed_dim)
        if stages.tail is not None:
            stages.tail.prepare()
        stages.learn(loss.to(next(stages.model.parameters()).device))

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """The loss of clean and mixed embeddings, and the terms of the linear probe."""
        out = self._detached(stages, x)
        cpu = torch.device("cpu")
        draws = sampling.Generators(sampling.generator(plan.synced, cpu), plan.generator(cpu))
        known = _known(y)
        source = _features(stages, x, out.embedding)
        loss = self._loss(stages).forward_in_host(
            out.embedding[known],
            _classes(y)[known],
            features=source and (source[0][known], source[1]),
            inputs=(x[known], lambda images: stages.again(images).embedding),
            generators=draws,
        )
        _taken(stages)  # of the pass over mixed inputs
        return self._mixed(out, y, loss)

    def unmixed(self, stages: Stages, x: Tensor, y: Tensor) -> Mixed:
        """The loss of clean embeddings, and the terms of the linear probe."""
        out = self._detached(stages, x)
        _taken(stages)
        known = _known(y)
        loss = self._loss(stages).unmixed(out.embedding[known], _classes(y)[known])
        return self._mixed(out, y, loss)

    def _detached(self, stages: Stages, x: Tensor) -> Forward:
        return stages(x, embedding=Tensor.detach)

    def _mixed(self, out: Forward, y: Tensor, loss: Tensor) -> Mixed:
        target = soft_targets(y, out.logits.shape[-1])
        return Mixed(out.logits, target, extra={"metric": loss}, output=out.logits)

    def _loss(self, stages: Stages) -> MetricLoss:
        if not isinstance(stages.learned, MetricLoss):
            raise ValueError(f"{self.name} has a loss, so call attach(stages) before training.")
        return stages.learned


def _taken(stages: Stages) -> Source | None:
    """Take the map that the last pass kept; it would hold memory until the next pass."""
    return None if stages.tail is None else stages.tail.take()


def _features(stages: Stages, x: Tensor, embedding: Tensor) -> Source | None:
    """The map, and the function from maps to embeddings; if possible, plain average pooling.

    Average pooling commutes with mixing, so the loss then mixes embeddings instead of maps. Whether
    the host's pooling, norms and dropout amount to average pooling is found by comparing results.
    """
    taken = _taken(stages)
    if taken is None:
        return None
    maps = stages.read(taken[0], x)
    head = EmbeddingHead(maps.shape[1], dim=None, pool="avg", normalize=False)
    with torch.no_grad():
        pooled = head(maps).float()
        same = pooled.shape == embedding.shape
        same = same and bool((pooled - embedding).abs().max() <= _ROUNDING * pooled.abs().max())
    return (maps, head) if same else taken


def _known(y: Tensor) -> Tensor | slice:
    """Which examples have a label."""
    known = labeled(y)[1]
    return slice(None) if known is None or bool(known.all()) else known


def _classes(y: Tensor) -> Tensor:
    if y.dim() != 1 or y.is_floating_point():
        raise ValueError(
            f"A metric loss needs one class index per example, got {y.dtype} of shape "
            f"{tuple(y.shape)}. Positives have equal classes and negatives unequal ones."
        )
    return y


__getattr__ = old_names(__name__)
