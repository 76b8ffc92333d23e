"""Base classes of metric losses: checks of a batch, and the generic pair loss (eq. 4.3)."""

from __future__ import annotations

import warnings
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
_SAMPLERS = (
    "Use mixplug.data.samplers.MPerClassSampler (in a config: "
    "sampler=dict(type='mixplug.MPerClassSampler', batch_size=..., m=...); with timm_hooks.train: "
    "--samples-per-class M), or a larger batch."
)


class MetricLoss(nn.Module):
    """Base of metric losses: ``loss(embeddings, labels)``, a scalar.

    A loss is a sum over the pairs of an anchor, averaged over anchors (eq. 4.10). The similarity of
    two embeddings is the inner product of the ℓ2-normalized embeddings.

    Args:
        normalize: whether to ℓ2-normalize embeddings (and proxies) first.

    Attributes:
        skipped: whether the last batch had no positive pair, so that its loss was 0.
        batches_without_positives: how many such batches there were.
    """

    skipped = False
    batches_without_positives = 0

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    @property
    def name(self) -> str:
        """Name of the loss in messages: the class name."""
        return type(self).__name__

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.

        Returns:
            Scalar, float32 (float64 for float64 embeddings). It is 0, with gradients of 0, for a
            batch in which no anchor has a positive, see :meth:`without_positives`.

        Raises:
            ValueError: see :meth:`prepare`.
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
        """The loss as a training framework calls it, with everything that a mixing loss may need.

        Losses that mix use the additional arguments, all others ignore them.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            features: feature maps (B, C, H, W), and the function from maps to embeddings.
            inputs: examples (B, ...), and the function from examples to embeddings.
            generators: random generators of this step, see :func:`mixplug.sampling.generators`.
        """
        loss: Tensor = self(embeddings, labels)
        return loss

    @property
    def unmixed(self) -> MetricLoss:
        """The baseline: the same loss without mixing."""
        return self

    def require(self, ok: bool, key: str, value: object, allowed: str) -> None:
        """Raise ValueError with the loss, the key, its value and the allowed values, unless ok."""
        if not ok:
            raise ValueError(f"{self.name} needs {key} {allowed}, got {value!r}.")

    def prepare(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch, and convert and normalize its embeddings.

        Returns:
            Embeddings in float32 (float64 for float64 input), ℓ2-normalized if ``normalize`` is
            set; and labels on the device of the embeddings.

        Raises:
            ValueError: wrong shapes; labels are not integers; an embedding is not finite; or, with
                ``normalize``, an embedding is zero.
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
                    f"{self.name} needs finite embeddings, and nonzero ones to normalize them, but "
                    f"the embeddings of examples {bad.nonzero()[:5, 0].tolist()} have the norms "
                    f"{norms[bad][:5].tolist()}."
                )
            if self.normalize:
                embeddings = F.normalize(embeddings, dim=1)
        return embeddings, labels.to(embeddings.device)

    def without_positives(self, *embeddings: Tensor) -> Tensor:
        """The loss of a batch in which no anchor has a positive: 0, with gradients of 0.

        Random batches of few examples and many classes are like that now and then. They are counted
        in ``batches_without_positives``, and the first one warns.

        Args:
            embeddings: whatever the loss would depend on.
        """
        self.skipped = True
        self.batches_without_positives += 1
        if self.batches_without_positives == 1:
            warnings.warn(
                f"{self.name} needs a positive pair, but no two examples of a batch have the same "
                f"class. The loss of such batches is 0, and they are counted in the attribute "
                f"batches_without_positives. {_SAMPLERS}",
                stacklevel=2,
            )
        zero: Tensor = sum(0 * e.sum() for e in embeddings)  # type: ignore[assignment]
        return zero

    def require_positives(self, any_positive: Tensor | bool) -> None:
        """Raise ValueError if no anchor has a positive.

        Args:
            any_positive: whether an anchor has a positive, or the number of such anchors.
        """
        if not bool(any_positive):
            raise ValueError(
                f"{self.name} needs a positive pair, but no two examples of this batch have the "
                f"same class. {_SAMPLERS}"
            )


class PairLoss(MetricLoss):
    """A pair loss of the generic form (eq. 4.3).

    Args:
        form: functions τ, σ and ρ of the loss.
        reduction: 'sum' takes the sum over the pairs of an anchor, as in the equation; 'mean' the
            weighted mean.
        normalize: whether to ℓ2-normalize embeddings (and proxies) first.
    """

    mixes_points = True  # whether points are examples, so that a mixed example can be a point

    def __init__(self, form: Form, reduction: str = "sum", normalize: bool = True) -> None:
        super().__init__(normalize)
        self.require(reduction in REDUCTIONS, "reduction", reduction, f"in {REDUCTIONS}")
        self.form = form
        self.reduction = reduction

    def relation(self, embeddings: Tensor, labels: Tensor) -> Relation:
        """The anchors and points of a prepared batch."""
        return Relation.among(embeddings, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch (eq. 4.3), see :class:`MetricLoss`."""
        return self.clean(self.relation(*self.prepare(embeddings, labels)))

    def clean(self, relation: Relation) -> Tensor:
        """The loss (eq. 4.3) of the anchors of a relation, without mixing."""
        s = inner(relation.anchors, relation.points)
        share = self.share(s, relation.positive(), relation.negative())
        self.skipped = not bool(share.with_positives)
        if self.skipped:
            return self.without_positives(relation.anchors, relation.points)
        return share.mean()

    def share(
        self, s: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None
    ) -> Share:
        """Clean or mixed loss (eqs. 4.7, 4.9), see :func:`mixplug.functional.pair_share`."""
        return pair_share(s, positive, negative, self.form, self.reduction, weight)


KINDS["loss"] = nn.Module
