"""What every metric loss is: checks of a batch, and a form of Table 4.1 over its pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.catalog import KINDS
from mixplug.functional.pairwise import Form, Share, pair_share
from mixplug.functional.precision import exact_dtype
from mixplug.losses.relation import Relation, inner
from mixplug.sampling import Generators

Source = tuple[Tensor, Callable[[Tensor], Tensor]]
REDUCTIONS = ("sum", "mean")


class MetricLoss(nn.Module):
    """Base of metric losses: ``loss(embeddings, labels)``, a scalar.

    The sum over an anchor's pairs, the mean over anchors (4.10); similarity is the inner product of
    ℓ2-normalized embeddings.

    Args:
        normalize: whether embeddings (and proxies) are ℓ2-normalized first.
    """

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    @property
    def name(self) -> str:
        """Class name, for messages."""
        return type(self).__name__

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.

        Raises:
            ValueError: see :meth:`prepare`; or no anchor has a positive.
        """
        raise NotImplementedError

    def forward_in_host(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """What a host calls, which has more to offer than embeddings; losses that mix take it.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            features: maps (B, C, H, W) and the function from maps to embeddings.
            inputs: examples (B, ...) and the function from examples to embeddings.
            generators: of this step, see :func:`mixplug.sampling.generators`.
        """
        loss: Tensor = self(embeddings, labels)
        return loss

    @property
    def unmixed(self) -> MetricLoss:
        """The loss without mixing, the baseline."""
        return self

    def require(self, ok: bool, key: str, value: object, allowed: str) -> None:
        """Raise ValueError, naming the loss, its key, the value and what is allowed."""
        if not ok:
            raise ValueError(f"{self.name} needs {key} {allowed}, got {value!r}.")

    def prepare(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch, checked; embeddings in float32 (float64 if given), ℓ2-normalized.

        Raises:
            ValueError: shapes, labels that are not integers, a non-finite or a zero embedding.
        """
        if embeddings.dim() != 2 or labels.dim() != 1 or len(labels) != len(embeddings):
            raise ValueError(
                f"{self.name} needs embeddings (B, D) and labels (B,), got "
                f"{tuple(embeddings.shape)} and {tuple(labels.shape)}."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"{self.name} needs integer labels, got {labels.dtype}.")
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.to(exact_dtype(embeddings))
            norms = embeddings.detach().norm(dim=1)
            bad = ~norms.isfinite() | ((norms == 0) & self.normalize)
            if bool(bad.any()):
                raise ValueError(
                    f"{self.name}: the embeddings of examples {bad.nonzero()[:5, 0].tolist()} have "
                    f"the norms {norms[bad][:5].tolist()}; a zero vector has no direction, and "
                    f"NaN or infinity no similarity."
                )
            if self.normalize:
                embeddings = F.normalize(embeddings, dim=1)
        return embeddings, labels.to(embeddings.device)

    def require_positives(self, some: Tensor | bool) -> None:
        """Raise ValueError if no anchor has a positive."""
        if not bool(some):
            raise ValueError(
                f"{self.name}: no example of this batch has another one of its class, so there is "
                f"no positive pair. Use mixplug.data.samplers.MPerClassSampler (in a config: "
                f"sampler=dict(type='mixplug.MPerClassSampler', batch_size=..., m=...)), or a "
                f"larger batch."
            )


class PairLoss(MetricLoss):
    """A loss of form (4.3).

    Args:
        form: τ, σ and ρ.
        reduction: 'sum' over an anchor's pairs as printed, or their weighted 'mean'.
        normalize: as in :class:`MetricLoss`.
    """

    mixes_points = True  # whether points are examples, so that a mixed example can be a point

    def __init__(self, form: Form, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(normalize)
        self.require(reduction in REDUCTIONS, "reduction", reduction, f"in {REDUCTIONS}")
        self.form = form
        self.reduction = reduction

    def relation(self, embeddings: Tensor, labels: Tensor) -> Relation:
        """Who is anchor and who is point, of a prepared batch."""
        return Relation.among(embeddings, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(4.3) over the batch, see :class:`MetricLoss`."""
        return self.clean(self.relation(*self.prepare(embeddings, labels)))

    def clean(self, relation: Relation) -> Tensor:
        """(4.3) over a relation."""
        s = inner(relation.anchors, relation.points)
        share = self.share(s, relation.positive(), relation.negative())
        self.require_positives(share.with_positives)
        return share.mean()

    def share(
        self, s: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None
    ) -> Share:
        """(4.7) or (4.9) of anchors, see :func:`mixplug.functional.pair_share`."""
        return pair_share(s, positive, negative, self.form, self.reduction, weight)


KINDS["loss"] = nn.Module
