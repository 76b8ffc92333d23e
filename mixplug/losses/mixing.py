"""Common parts of mixing losses: the wrapped loss, mixing levels (eq. 4.4), and random draws."""

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
from mixplug.losses.closed_form import map_checkpointed
from mixplug.sampling import Generators

LEVELS = ("input", "feature", "embed")

_ELEMENTS = 1 << 24  # elements of mixed maps or examples held at a time: 64 MiB of float32


class MixingLoss(MetricLoss):
    """Base of losses that wrap a pair loss and add mixing.

    Args:
        loss: a pair loss (eq. 4.3), its config or its name. Losses of other packages are converted
            if possible, see :func:`mixplug.losses.building.as_pair_loss`.
        renormalize: whether to ℓ2-normalize mixed embeddings again, if the loss normalizes.
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
        """The clean and the mixed loss of a batch.

        Args:
            embeddings: (B, D).
            labels: classes, (B,) integers.
            features: feature maps (B, C, H, W), and the function from maps to embeddings; needed
                at level 'feature'.
            inputs: examples (B, ...), and the function from examples to embeddings; needed at
                level 'input'.
            generators: random generators of this step. Without them, the global generator of
                PyTorch is used, and draws that should be equal on all ranks differ.

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
        """The baseline: the wrapped loss."""
        return self.loss


def source_at(
    level: str, inputs: Source | None, features: Source | None, count: int, name: str
) -> Source | None:
    """Maps or examples to mix at a level, with their function to embeddings.

    Args:
        level: one of :data:`LEVELS`.
        inputs: argument ``inputs`` of the loss.
        features: argument ``features`` of the loss.
        count: number B of embeddings.
        name: name of the loss for messages.

    Returns:
        None at level 'embed'. If the argument that the level needs is missing, it warns and also
        returns None, so that embeddings are mixed instead.

    Raises:
        ValueError: the number of maps or examples is not B.
    """
    source = {"input": inputs, "feature": features, "embed": None}[level]
    if source is not None and len(source[0]) != count:
        raise ValueError(
            f"{name} needs as many {level}s as embeddings, got {len(source[0])} {level}s and "
            f"{count} embeddings."
        )
    if source is None and level != "embed":
        warnings.warn(
            f"{name} at level {level!r} got no {level}s, so it mixes embeddings instead. Pass "
            f"them as loss(embeddings, labels, {level}s=(tensor, function)), or set "
            f"level='embed'.",
            stacklevel=3,
        )
    return source


def generators_or_global(generators: Generators | None) -> Generators:
    """The given generators, or the global generator of PyTorch for both."""
    return generators or Generators(torch.default_generator, torch.default_generator)


def local_generator(generators: Generators | None, device: torch.device) -> torch.Generator:
    """A generator on ``device`` for draws that differ between ranks."""
    return sampling.generator(sampling.key(generators_or_global(generators).local), device)


def linear_embeddings(source: Source, renormalize: bool) -> Tensor | None:
    """Unnormalized embeddings (B, D), if mixing them equals embedding the mixed maps; else None.

    Average pooling and a linear layer commute with mixing, most other functions from maps to
    embeddings do not. The final normalization does not matter if ``renormalize`` repeats it.
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
    """Embeddings f_λ (eq. 4.4) of mixed examples or maps, computed in chunks.

    If the function has a method ``mixed(values, first, second, lam)``, this method is called.
    :class:`mixplug.models.heads.EmbeddingHead` has one that stores no mixed map.

    Args:
        source: examples or maps (B, ...), and the function from them to embeddings.
        first: indices of first operands, (V,).
        second: indices of second operands, (V,).
        lam: λ, (V,), the weight of the first operand.
        renormalize: whether to ℓ2-normalize the embeddings.
        chunk: number of mixtures per chunk. With several chunks, they are recomputed in the
            backward pass. None chooses the number by their size.

    Returns:
        (V, D), float32 (float64 for float64 embeddings).
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
    embeddings = torch.cat(map_checkpointed(embed, list(chunks)))
    embeddings = embeddings.to(exact_dtype(embeddings))
    return F.normalize(embeddings, dim=1) if renormalize else embeddings


def hardest_by_level(hardest: int | Mapping[str, int] | None, name: str) -> dict[str, int]:
    """Number of hardest negatives for each level that limits it.

    Args:
        hardest: a number for all levels, or a dict of numbers by level. None, or a dict without
            'input', sets 3 for 'input' (§4.4.2). Other levels then use all negatives.
        name: name of the loss for messages.

    Raises:
        ValueError: an unknown level, or a number that is not an integer >= 1.
    """
    if isinstance(hardest, Mapping):
        by_level = {"input": 3, **hardest}
    else:
        by_level = {"input": 3} if hardest is None else dict.fromkeys(LEVELS, hardest)
    for level, k in by_level.items():
        if level not in LEVELS or not isinstance(k, int) or k < 1:
            raise ValueError(
                f"{name} needs hardest to be an integer >= 1, or a dict of such integers by level "
                f"in {LEVELS}, got {hardest!r}."
            )
    return by_level
