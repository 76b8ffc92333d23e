"""What every metric loss is: a form of Table 4.1, and who its anchors and its points are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.catalog import KINDS, REQUIRED, build, entries, keys_of, resolve
from mixplug.functional.pairwise import Form, Share, pair_share
from mixplug.functional.precision import exact_dtype
from mixplug.sampling import Generators

Source = tuple[Tensor, Callable[[Tensor], Tensor]]
REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True)
class Relation:
    """Anchors and the points that are positive or negative to them.

    Attributes:
        anchors: (A, D).
        anchor_labels: (A,).
        points: (P, D).
        point_labels: (P,).
        itself: whether anchor i is point i, which then is neither positive nor negative to it.
    """

    anchors: Tensor
    anchor_labels: Tensor
    points: Tensor
    point_labels: Tensor
    itself: bool

    @classmethod
    def among(cls, examples: Tensor, labels: Tensor) -> Relation:
        """Examples (B, D) that are anchors and points at once."""
        return cls(examples, labels, examples, labels, itself=True)

    def positive(self) -> Tensor:
        """P(a): (A, P) bool."""
        same = self.anchor_labels[:, None] == self.point_labels
        return same.fill_diagonal_(False) if self.itself else same

    def negative(self) -> Tensor:
        """N(a): (A, P) bool."""
        return self.anchor_labels[:, None] != self.point_labels


class MetricLoss(nn.Module):
    """Base of metric losses: ``loss(embeddings, labels)``, a scalar.

    The sum over an anchor's pairs, the mean over anchors (4.10); similarity is the inner product of
    ℓ2-normalised embeddings.

    Args:
        normalize: whether embeddings (and proxies) are ℓ2-normalised first.
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

    def hosted(
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
        """The batch, checked; embeddings in float32 (float64 if given), ℓ2-normalised.

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
                f"sampler=dict(type='mixplug.MPerClassSampler', m=...)), or a larger batch."
            )


class MixingLoss(MetricLoss):
    """Base of losses around a loss, which mix: ``forward`` takes all that :meth:`hosted` does.

    Args:
        loss: a loss of form (4.3), its config or its name; also one of another package that is of
            this form, see :func:`as_pair_loss`.
        renormalize: whether what is mixed is ℓ2-normalised again, where the loss normalises.
    """

    loss: PairLoss

    def __init__(self, loss: nn.Module | Mapping[str, Any] | str, renormalize: bool) -> None:
        built = as_pair_loss(loss, self.name)
        super().__init__(built.normalize)
        self.loss = built
        self.renormalize = renormalize and self.normalize

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """The loss of a batch, clean and mixed.

        Args:
            embeddings: (B, D).
            labels: (B,) integers.
            features: maps (B, C, H, W) and the function from maps to embeddings, for 'feature'.
            inputs: examples (B, ...) and the function from examples to embeddings, for 'input'.
            generators: of this step; without them draws come from torch's global generator, and
                every rank draws for itself what should be equal on all of them.

        Raises:
            ValueError: see :class:`MetricLoss`; or an anchor has fewer than k negatives.
        """
        raise NotImplementedError

    def hosted(
        self,
        embeddings: Tensor,
        labels: Tensor,
        features: Source | None = None,
        inputs: Source | None = None,
        generators: Generators | None = None,
    ) -> Tensor:
        """See :class:`MetricLoss`."""
        loss: Tensor = self(embeddings, labels, features, inputs, generators)
        return loss

    @property
    def unmixed(self) -> MetricLoss:
        """The loss that is wrapped."""
        return self.loss


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


Converter = Callable[[nn.Module], "PairLoss | None"]
_converters: list[Converter] = []


def converts(convert: Converter) -> Converter:
    """Say how losses of another package are taken for losses of form (4.3).

    ``convert`` returns None for a loss that it does not know, and raises ValueError with the reason
    for one that it knows and that is of another form.
    """
    _converters.append(convert)
    return convert


def as_pair_loss(loss: nn.Module | Mapping[str, Any] | str, name: str) -> PairLoss:
    """A loss of form (4.3): itself, what a config builds, or what another package's loss is.

    Args:
        loss: a loss, its config or its name.
        name: of what needs it, for messages.

    Raises:
        ValueError: a loss of another form.
    """
    built = loss if isinstance(loss, nn.Module) else build(loss, kind="loss")
    if isinstance(built, PairLoss):
        return built
    entries("loss")  # imports the modules that know other packages' losses
    for convert in _converters:
        found = convert(built)
        if found is not None:
            return found
    raise ValueError(
        f"{name} needs a loss of form (4.3), a sum over positives and a sum over negatives "
        f"of an anchor, got {type(built).__name__}. Triplets are no such sums."
    )


def build_loss(spec: Mapping[str, Any] | str, **known: object) -> MetricLoss:
    """Build a loss, with what its host knows filled in where a config leaves it out.

    ::

        build_loss({"type": "Metrix", "loss": "ProxyAnchor"}, num_classes=100, dim=512)

    Args:
        spec: config or name, with a loss inside (``loss=``) or without.
        **known: values of keys that have no default.

    Raises:
        KeyError: an unknown name or key.
        ValueError: a key that neither gives, or that the loss refuses; or another kind of thing.
    """
    loss: MetricLoss = build(_filled(spec, known), kind="loss")
    if not isinstance(loss, MetricLoss):
        raise ValueError(f"A metric loss is needed here, got {type(loss).__name__}.")
    return loss


def _filled(spec: Any, known: Mapping[str, object]) -> Any:
    if not isinstance(spec, (Mapping, str)):
        return spec
    full = {"type": spec} if isinstance(spec, str) else dict(spec)
    try:
        target = resolve(full.get("type", ""), "loss")
    except KeyError:
        return spec  # a name that only the loss around it knows; else build says that it is unknown
    for key, default in keys_of(target).items():
        if default is REQUIRED and key in known:
            full.setdefault(key, known[key])
    if "loss" in full:
        full["loss"] = _filled(full["loss"], known)
    return full


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (A, P) of rows (A, D) and (P, D), not in half precision under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


KINDS["loss"] = nn.Module
