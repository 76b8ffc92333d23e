"""Four scales from four maps of one scale, as detectors and segmentors want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from mixplug.catalog import register


@register("ViTPyramid", kind="neck", reference="thesis 6.5.3", hosts=("mm", "torch"))
class ViTPyramid(nn.Module):
    """Levels of strides p / 4, p / 2, p and 2 p from a ViT with patches of p pixels (6.5.3).

    Two deconvolutions for the first map, one for the second, the third as it is, max-pooling for
    the fourth: with p = 16 strides of 4, 8, 16 and 32. Between the two deconvolutions are a norm
    and a GELU, as in BEiT and iBOT, on whose settings 6.5.3 builds.

    Args:
        embed_dim: D, channels of every map, before and after.
        norm: makes a norm of D channels.
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
            ValueError: another number of maps.
        """
        if len(maps) != len(self.levels):
            raise ValueError(
                f"ViTPyramid needs {len(self.levels)} maps, got {len(maps)}: give the backbone as "
                f"many out_indices."
            )
        return tuple(level(x) for level, x in zip(self.levels, maps, strict=True))


def _twice(channels: int) -> nn.Module:
    """A deconvolution to twice the side."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2)
