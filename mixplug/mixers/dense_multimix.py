"""Dense MultiMix: MultiMix at every position of the feature map, weighted by attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.dense import (
    NORMALIZE,
    QUERIES,
    attention_map,
    dense_multimix,
    dense_weights,
)
from mixplug.functional.targets import soft_targets
from mixplug.layouts import pool
from mixplug.mixed import HullMixed, Mixed, hull_targets
from mixplug.mixers.base import Mixer, Plan
from mixplug.mixers.known import labeled
from mixplug.mixers.multimix import MultiMix
from mixplug.stages import DENSE, WHOLE, Edit, Need, Stages

_REDUCTIONS = ("position_mean", "global")


@register(
    "DenseMultiMix",
    alias="dense_multimix",
    reference="thesis 5.3.3",
    hosts=("timm", "mmpretrain", "mmseg", "torch"),
)
@dataclass(frozen=True, kw_only=True)
class DenseMultiMix(MultiMix):
    r"""Dense MultiMix [0]: MultiMix at every position of the last map, and a dense loss.

        M^j = diag(a^j) Λ^j,  M̂^j = M^j / column sums s^j,  Z^j M̂^j,  Y M̂^j          (5.10)-(5.13)

    At each position the loss is the cross-entropy weighted by s (eq. 5.14), and the loss of the
    batch is the mean over positions. A position has the target of its example. Attention a says how
    much to trust that target (eq. 5.9), and carries no gradient. Λ is drawn per position.

    The classifier acts at each position as a 1x1 convolution. If it is linear, the dense clean
    logits are mixed instead of the dense embeddings, as in MultiMix.

    In a segmentor the positions are pixels with their own labels; see :meth:`mix_positions`.

    Attributes:
        attention: the query u of attention (eq. 5.9): 'gap', 'cam' (needs a linear classifier) or
            'none' (uniform attention).
        normalize: the non-linearity h of attention (eq. 5.9): 'l1' (ReLU, then division by the
            sum) or 'softmax'.
        resolution: average-pool the last map to r x r; None leaves it, and 1 is global pooling.
        reduction: 'position_mean' as above, or 'global', one weighted mean over all terms.

    - [0]: Embedding Space Interpolation Beyond Mini-Batch, Beyond Pairs and Beyond Examples, 2023,
      https://arxiv.org/abs/2311.05538
    """

    attention: str = "gap"
    normalize: str = "l1"
    resolution: int | None = None
    reduction: str = "position_mean"
    unsupported: ClassVar = {
        "mix_rows": "An RoI has one label, and no positions are left at its classifier."
    }
    mix_rows = Mixer.mix_rows

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.require(self.layer is None, "layer", "None, since it mixes the last map")
        self.require(self.attention in (*QUERIES, "none"), "attention", f"in {(*QUERIES, 'none')}")
        self.require(self.normalize in NORMALIZE[:2], "normalize", f"in {NORMALIZE[:2]}")
        self.require(self.resolution is None or self.resolution >= 1, "resolution", ">= 1 or None")
        self.require(self.reduction in _REDUCTIONS, "reduction", f"in {_REDUCTIONS}")

    def attach(self, stages: Stages) -> None:
        """Check that the model has what attention needs."""
        super().attach(stages)
        self._require_linear(stages)

    def needs(self) -> list[Need]:
        """As in MultiMix, and each position of the last map stands for itself."""
        return [*super().needs(), Need("last", (WHOLE, DENSE))] if self.prob else []

    def hull(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Mixed embeddings at every position (eq. 5.10-5.13)."""
        self._require_linear(stages)
        dense = partial(pool, resolution=self.resolution)
        if not stages.commutes:
            return self._plain(stages, x, y, plan, dense)
        forward = stages(x, dense=dense)
        self.require_commuting(stages)
        target = soft_targets(y, forward.logits.shape[-1])
        weights = self.weights(x, plan, positions=forward.logits.shape[1])
        attention = _of_known(self._attention(stages, forward.embedding.mT, target), y)
        m_hat, s = dense_weights(weights, attention)
        return HullMixed(
            forward.logits.transpose(0, 1),
            target,
            m_hat.permute(2, 0, 1),
            self._coefficient(s).T,
            output=forward.logits.mean(1),
        )

    def require_way(self, way: str, host: str) -> None:
        """As in the base; settings for labels without positions must be left out."""
        super().require_way(way, host)
        labels = f"in {host}, whose positions have their own labels"
        self.require(self.attention != "cam", "attention", f"'gap' or 'none' {labels}")
        self.require(self.resolution is None, "resolution", f"None {labels}")

    def mix_positions(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        """Mix a batch at every position, where positions have their own labels (eq. 5.10-5.14).

        In a classifier, positions inherit the label of their image, and attention says how much to
        trust it (eq. 5.9). Here every position has its own label, so the given weight takes the
        place of attention, and ``attention`` and ``normalize`` are not used.

        Each position has min(n, B) mixed examples. A few hundred thousand pixels then still give
        more terms than n = 1000 examples at the 49 positions of a classifier.
        """
        source = plan.generator(logits.device)
        size, _, positions = logits.shape
        m, n = self._at_most(size), min(self.n, size)
        drawn = sampling.hull_weights(n, size, self.alpha, m, source, positions)
        m_hat, s = dense_weights(drawn.to(logits.device), weight)
        return HullMixed(
            logits.permute(2, 0, 1), y.T, m_hat.permute(2, 0, 1), self._coefficient(s).T
        )

    def _plain(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan, dense: Edit) -> Mixed:
        """For a classifier that is not linear: mix embeddings, then classify them."""
        drawn: list[tuple[Tensor, Tensor]] = []

        def combine(e: Tensor) -> Tensor:  # (B, N, D) to (M * N, D)
            weights = self.weights(x, plan, positions=e.shape[1])
            attention = _of_known(self._attention(stages, e.mT, None), y)
            rows = torch.eye(len(x), device=e.device)  # targets are mixed later, when K is known
            mixed, m_hat, s = dense_multimix(e.mT, rows, weights, attention)
            drawn.append((m_hat, self._coefficient(s)))
            return mixed.mT.flatten(0, 1)

        logits = stages(x, dense=dense, embedding=combine).logits
        m_hat, coefficient = drawn[0]
        target = hull_targets(m_hat.mT, y, logits.shape[-1])  # (M, N, K)
        return Mixed(logits.view_as(target), target, coefficient)

    def _attention(self, stages: Stages, z: Tensor, target: Tensor | None) -> Tensor:
        if self.attention == "none":
            return attention_map(z, normalize="uniform")
        weight = getattr(stages.linear, "weight", None) if self.attention == "cam" else None
        return attention_map(z, self.attention, self.normalize, weight, target)

    def _coefficient(self, s: Tensor) -> Tensor:
        """Weight of each term in the sum, (M, N) (eq. 5.14); 0 where s is 0."""
        tiny = torch.finfo(s.dtype).tiny
        if self.reduction == "global":
            return s / s.sum().clamp(min=tiny)
        return s / s.sum(0).clamp(min=tiny) / s.shape[1]

    def _require_linear(self, stages: Stages) -> None:
        if self.attention == "cam" and stages.linear is None:
            raise ValueError(
                f"{self.name} with attention='cam' needs a linear classifier (nn.Linear or a 1x1 "
                f"nn.Conv2d), got {type(stages.classifier).__name__}. Use attention='gap'."
            )


def _of_known(attention: Tensor, y: Tensor) -> Tensor:
    """Attention (B, N), 0 for examples without a label."""
    known = labeled(y)[1]
    return attention if known is None else attention * known.to(attention)[:, None]
