"""What losses that mix have in common: the loss inside, levels (4.4), and the draws of a step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug import sampling
from mixplug.functional.aligned import mix
from mixplug.functional.precision import exact_dtype
from mixplug.losses.base import MetricLoss, PairLoss, Source
from mixplug.losses.building import as_pair_loss
from mixplug.losses.closed_form import each
from mixplug.sampling import Generators

LEVELS = ("input", "feature", "embed")

_ELEMENTS = 1 << 24  # of what is mixed at a time: 64 MiB of float32


class MixingLoss(MetricLoss):
    """Base of losses around a loss, which mix: ``forward`` takes all that :meth:`hosted` does.

    Args:
        loss: a loss of form (4.3), its config or its name; also one of another package that is of
            this form, see :func:`as_pair_loss`.
        renormalize: whether what is mixed is ℓ2-normalized again, where the loss normalizes.
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

    def forward_in_host(
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


def source_at(
    level: str, inputs: Source | None, features: Source | None, count: int, name: str
) -> Source | None:
    """What is mixed at a level; None is embeddings, with a warning where they only stand in.

    Args:
        level: one of :data:`LEVELS`.
        inputs: what the caller of the loss gave for 'input'.
        features: and for 'feature'.
        count: B, how many embeddings there are.
        name: of the loss, for the warning.

    Raises:
        ValueError: more or fewer maps or examples than embeddings.
    """
    source = {"input": inputs, "feature": features, "embed": None}[level]
    if source is not None and len(source[0]) != count:
        raise ValueError(
            f"{name} needs one of {level}s for every embedding, got {len(source[0])} for {count}."
        )
    if source is None and level != "embed":
        warnings.warn(
            f"{name} at level {level!r} was given no {level}s, so it mixes embeddings. Hand "
            f"them over as loss(embeddings, labels, {level}s=(tensor, function)), or set "
            f"level='embed'.",
            stacklevel=3,
        )
    return source


def draws(generators: Generators | None) -> Generators:
    """The generators of a step, or torch's global one."""
    return generators or Generators(torch.default_generator, torch.default_generator)


def local_draws(generators: Generators | None, device: torch.device) -> torch.Generator:
    """A generator on ``device`` for this rank's own draws."""
    return sampling.generator(sampling.key(draws(generators).local), device)


def linear(source: Source, renormalize: bool) -> Tensor | None:
    """Embeddings (B, D) before normalization, whose mixtures are those of the mixed maps.

    None where there are no such: average pooling and a linear layer commute with mixing, what else
    a function from maps to embeddings may hold does not, such as a normalization that
    ``renormalize`` does not repeat.
    """
    function: Any = source[1]
    if not getattr(function, "commutes", False) or (function.normalize and not renormalize):
        return None
    raw: Tensor = function.raw(source[0])
    return raw.to(exact_dtype(raw))


def embed_mixed(
    source: Source,
    first: Tensor,
    second: Tensor,
    lam: Tensor,
    renormalize: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """f_λ (4.4): embeddings (V, D) of mixed examples or maps, some at a time.

    Args:
        source: examples or maps (B, ...), and the function to embeddings.
        first: indices (V,) of what is mixed.
        second: and with what.
        lam: λ (V,), the weight of the first.
        renormalize: whether embeddings are ℓ2-normalized.
        chunk: how many are mixed at a time, the others being recomputed in the backward pass; None
            goes by their size.

    A function with a method ``mixed(values, first, second, lam)`` does it itself, as
    :class:`mixplug.models.heads.EmbeddingHead` does without holding a mixed map.
    """
    values, function = source
    mixed = getattr(function, "mixed", None)
    size = values[0].numel() if mixed is None else values.shape[1]
    count = chunk or max(1, _ELEMENTS // size)

    def embed(i: Tensor, j: Tensor, weight: Tensor) -> Tensor:
        if mixed is not None:
            return mixed(values, i, j, weight)
        return function(mix(values.index_select(0, i), values.index_select(0, j), weight))

    chunks = zip(first.split(count), second.split(count), lam.split(count), strict=True)
    embeddings = torch.cat(each(embed, list(chunks)))
    embeddings = embeddings.to(exact_dtype(embeddings))
    return F.normalize(embeddings, dim=1) if renormalize else embeddings


def hardest_by_level(hardest: int | Mapping[str, int] | None, name: str) -> dict[str, int]:
    """How many hardest negatives, by level, from one number, a dict, or None: 3 for 'input'.

    Args:
        hardest: a number for all levels, or a dict by level, beside which 'input' stays 3.
        name: of the loss, for messages.

    Raises:
        ValueError: an unknown level, or no integer >= 1.
    """
    if isinstance(hardest, Mapping):
        by_level = {"input": 3, **hardest}
    else:
        by_level = {"input": 3} if hardest is None else dict.fromkeys(LEVELS, hardest)
    for level, k in by_level.items():
        if level not in LEVELS or not isinstance(k, int) or k < 1:
            raise ValueError(
                f"{name} needs hardest an integer >= 1, or a dict of them by level in {LEVELS}, "
                f"got {hardest!r}."
            )
    return by_level
