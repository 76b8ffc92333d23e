"""What a mixer returns: mixed logits, their targets and weights, ready for any criterion."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixplug.criterion import Criterion, as_criterion
from mixplug.functional.hull import hull_cross_entropy
from mixplug.functional.hull_labels import hull_label_cross_entropy
from mixplug.functional.precision import exact_dtype
from mixplug.functional.targets import smooth, soft_targets

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Mixed:
    """Mixed logits and targets, from which any criterion makes a loss.

    Attributes:
        logits: (M, K), or (M, N, K) for a dense loss; M = 0 if there are only extra terms.
        target: rows over classes, same shape.
        weight: weight of each term in the sum, (M,) or (M, N); None takes the mean over terms.
        extra: named scalars that are added to the loss, such as a reconstruction loss.
        output: (B, K) logits for the host's training metrics; None means ``logits``.
        share: how much of each term has a label, (M,) or (M, N), in [0, 1]: a term of ignored
            examples has 0. Terms are averaged by it; None means 1 for each.
        from_indices: whether targets were made of class indices.
    """

    logits: Tensor
    target: Tensor
    weight: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    share: Tensor | None = None
    from_indices: bool = False

    def loss(self, criterion: object = None) -> Tensor:
        """Scalar loss, float32 (float64 if given): ``sum_t weight_t criterion_t + sum of extra``.

        Args:
            criterion: the host's loss, see :func:`mixplug.criterion.as_criterion`; None means
                cross-entropy.

        Raises:
            ValueError: the criterion returns neither one value per term nor a scalar, or it
                returns a scalar although the terms are weighted.
        """
        if self.logits.shape != self.target.shape:
            raise ValueError(
                f"Logits {tuple(self.logits.shape)} and targets {tuple(self.target.shape)} differ."
            )
        if not len(self.logits):  # only extra terms, but DDP needs a gradient of the classifier
            return self.logits.sum() + sum(self.extra.values())
        fn = as_criterion(criterion)
        dtype = exact_dtype(self.logits)
        classes = self.logits.shape[-1]
        with torch.autocast(self.logits.device.type, enabled=False):
            logits = self.logits.to(dtype).reshape(-1, classes)
            target = self.target.to(dtype).reshape(-1, classes)
            target, share = self._known(target, fn)
            terms = fn.terms(logits, smooth(target, fn.smoothing)) * fn.scale
            mass = fn.mass(target) if fn.mass is not None and self.from_indices else None
            return self._reduce(terms, len(logits), share, mass) + sum(self.extra.values())

    def _known(self, target: Tensor, fn: Criterion) -> tuple[Tensor, Tensor | None]:
        """Targets without the class that the criterion ignores, and the share that is left."""
        share = None if self.share is None else self.share.to(target).flatten()
        if not self.from_indices or not 0 <= fn.ignore_index < target.shape[-1]:
            return target, share
        own = target[:, fn.ignore_index]
        share = 1 - own if share is None else share * (1 - own)
        kept = torch.arange(target.shape[-1], device=target.device) != fn.ignore_index
        return target * kept, share

    def _reduce(
        self, terms: Tensor, count: int, share: Tensor | None, mass: Tensor | None
    ) -> Tensor:
        if terms.dim() == 0 and self.weight is None and mass is None:
            if share is not None and bool((share < 1).any()):
                raise ValueError(
                    "Some examples of this batch have no label, so the criterion must return one "
                    "value per term, and not only their mean. Give it reduction='none'."
                )
            return terms
        if terms.shape != (count,):
            why = " These terms are weighted, so a scalar is not enough." if not terms.dim() else ""
            raise ValueError(
                f"The criterion must return one value per term, ({count},), got shape "
                f"{tuple(terms.shape)}.{why}"
            )
        if share is None and mass is None:
            return terms.mean() if self.weight is None else (terms * self.weight.flatten()).sum()
        own = torch.full_like(terms, 1 / count) if self.weight is None else self.weight.flatten()
        known = own if share is None else own * share
        divisor = known if mass is None else known * mass
        # A term of ignored examples may be any number: its factor is 0
        return (terms * known).sum() * own.sum() / divisor.sum().clamp(min=_TINY)


@dataclass(frozen=True)
class HullMixed:
    """Mixed logits and targets in factored form: clean logits, and the weights that mix them.

    For a linear classifier, ``Λ L`` are the logits of the mixed embeddings. If the criterion is a
    cross-entropy, the loss is computed without any tensor of size M x K.

    Attributes:
        clean_logits: L, (B, K), or (N, B, K) at N positions.
        clean_target: Y, (B, K); or class indices (N, B), if every position has its own label.
        weights: Λ or M̂, (M, B) or (N, M, B).
        weight: weight of each term in the sum, (M,) or (N, M); None takes the mean.
        extra: as in :class:`Mixed`.
        output: as in :class:`Mixed`.
        share: as in :class:`Mixed`, (M,) or (N, M).
        from_indices: as in :class:`Mixed`.
    """

    clean_logits: Tensor
    clean_target: Tensor
    weights: Tensor
    weight: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    share: Tensor | None = None
    from_indices: bool = False

    @property
    def logits(self) -> Tensor:
        """Mixed logits, (M, K) or (N, M, K), computed at each access."""
        return _product(self.weights, self.clean_logits)

    @property
    def target(self) -> Tensor:
        """Mixed targets, same shape as ``logits``, computed at each access."""
        return _product(self.weights, soft_targets(self.clean_target, self.clean_logits.shape[-1]))

    @property
    def _indexed(self) -> bool:
        return not self.clean_target.is_floating_point()

    def loss(self, criterion: object = None) -> Tensor:
        """Scalar loss as in :meth:`Mixed.loss`; a cross-entropy is computed in factored form."""
        fn = as_criterion(criterion)
        ignores = self.from_indices and 0 <= fn.ignore_index < self.clean_logits.shape[-1]
        if not fn.is_cross_entropy or (self._indexed and fn.smoothing) or ignores:
            return Mixed(
                self.logits,
                self.target,
                self.weight,
                self.extra,
                share=self.share,
                from_indices=self.from_indices,
            ).loss(fn)
        loss = self._indexed_loss() if self._indexed else self._fused_loss(fn.smoothing)
        return loss * fn.scale + sum(self.extra.values())

    def _fused_loss(self, smoothing: float) -> Tensor:
        target = smooth(self.clean_target, smoothing)
        return hull_cross_entropy(self.clean_logits, target, self.weights, self._coefficient())

    def _coefficient(self) -> Tensor | None:
        """Weight of each term in the sum; None takes the mean."""
        if self.share is None:
            return self.weight
        own = torch.full_like(self.share, 1 / self.share.numel())
        own = own if self.weight is None else self.weight
        known = own * self.share
        return known * own.sum() / known.sum().clamp(min=_TINY)

    def _indexed_loss(self) -> Tensor:
        weight = self._coefficient()
        weight = None if weight is None else weight.T
        return hull_label_cross_entropy(
            self.clean_logits.permute(1, 2, 0),
            self.clean_target.T,
            self.weights.permute(1, 2, 0),
            weight,
        )


def clean(logits: Tensor, y: Tensor) -> Mixed:
    """An unmixed batch: logits (B, K) and targets of any kind."""
    return Mixed(logits, soft_targets(y, logits.shape[-1]), output=logits)


def _product(weights: Tensor, rows: Tensor) -> Tensor:
    """Λ times rows, (..., M, K), in float32 (float64 if given) whatever autocast says."""
    dtype = exact_dtype(rows)
    with torch.autocast(rows.device.type, enabled=False):
        return weights.to(dtype) @ rows.to(dtype)


def hull_targets(weights: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Mixed targets ``Λ Y``, (..., M, K), of targets y of any kind, in full precision (eq. 5.7)."""
    return _product(weights, soft_targets(y, num_classes))
