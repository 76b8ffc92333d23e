"""Manifold mixup: mix pairs at a layer that is drawn per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixplug.catalog import register
from mixplug.mixers.pairwise import PairMixer

_LEVELS = ("x", "A", "e")


@register("ManifoldMixup", alias="manifold", reference="thesis (5.3)-(5.4)")
@dataclass(frozen=True, kw_only=True)
class ManifoldMixup(PairMixer):
    """Manifold mixup [0]: ``λ h + (1 - λ) h'`` of the features h at a layer.

    The layer is drawn per batch, uniformly from ``layers``. λ weighs the example itself. Features
    are not aligned; AlignMixup does that.

    Attributes:
        layers: 'x' (input), 'A' (feature map), 'e' (embedding), or names of any modules of the
            model whose output is a tensor with the batch first, such as 'layer2'.

    - [0]: Manifold Mixup, 2019, https://arxiv.org/abs/1806.05236
    """

    alpha: float = 2.0
    layers: tuple[str, ...] = ("x", "A")

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.require(
            bool(self.layers) and not isinstance(self.layers, str),
            "layers",
            "a non-empty tuple of 'x', 'A', 'e' and names of modules",
        )

    def branches(self) -> dict[str, float]:
        """All layers with the same probability."""
        return dict.fromkeys(self.layers, 1.0)

    def edited_modules(self) -> Sequence[str]:
        """The named layers."""
        return [name for name in self.layers if name not in _LEVELS]
