"""Maps of four scales from maps of one scale, for detectors and segmentors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from mixplug.catalog import register


@register("ViTPyramid", kind="neck", reference="thesis 6.5.3", hosts=("mm", "torch"))
class ViTPyramid(nn.Module):
    """Maps of strides p / 4, p / 2, p and 2 p from a ViT with patches of p pixels (6.5.3).

    The first map goes through two deconvolutions, the second through one, the third stays as it
    is, the fourth is max-pooled. With p = 16 the strides are 4, 8, 16 and 32. Between the two
    deconvolutions are a norm and a GELU, as in BEiT and iBOT, whose settings the thesis uses.

    Args:
        embed_dim: D, channels of every input and output map.
        norm: builds a norm for D channels.
    """

    def __init__(
        self, embed_dim: int = 384, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            [
                nn.Sequential(_twice(embed_dim), norm(embed_dim), nn.GELU(), _twice(embed_dim)),
                _twice(embed_dim),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps 4 x (B, D, H, W) to (B, D, s H, s W) with s = 4, 2, 1 and 1 / 2.

        Raises:
            ValueError: the number of maps is not 4.
        """
        if len(maps) != len(self.levels):
            raise ValueError(
                f"ViTPyramid needs {len(self.levels)} maps, got {len(maps)}: set as many "
                f"out_indices in the backbone."
            )
        return tuple(level(x) for level, x in zip(self.levels, maps, strict=True))


def _twice(channels: int) -> nn.Module:
    """A deconvolution that doubles height and width."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2)
