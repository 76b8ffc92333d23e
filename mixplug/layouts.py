"""How a module's output holds a feature map: channels first, channels last, or tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.renamed import renamed_attributes


@renamed_attributes(put="restore")
@dataclass(frozen=True)
class Layout:
    """Reads a (B, C, H, W) map out of a module's output, and puts one back.

    An output may be (B, C, H, W); or (B, H, W, C) if ``channels_last``; or tokens (B, P + N, C), of
    which the first P = ``prefix`` (class, distillation, register) have no place in the grid; or a
    tuple of such levels, of which the last is used.

    Attributes:
        channels_last: whether 4-D outputs are (B, H, W, C).
        prefix: P.
        grid: (H, W) of the tokens; if their number is another, a square is assumed.
        patch: (height, width) in pixels of a token's patch, if known.
    """

    channels_last: bool = False
    prefix: int = 0
    grid: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None

    def map(self, output: object, size: tuple[int, int] | None = None) -> Tensor:
        """The map A, (B, C, H, W); tokens that fill neither grid nor square become one row.

        Args:
            output: of the module.
            size: (height, width) of the images of this pass, which may differ from pass to pass.
        """
        x = level_of(output)
        if x.dim() == 4:
            return x.permute(0, 3, 1, 2) if self.channels_last else x
        if x.dim() != 3 or x.shape[1] <= self.prefix:
            raise ValueError(
                f"A feature map needs 4 dimensions, or 3 with more tokens than the {self.prefix} "
                f"prefix tokens, got shape {tuple(x.shape)}. Name a module before pooling."
            )
        tokens = x[:, self.prefix :].mT  # (B, C, N)
        return tokens.unflatten(-1, self.grid_of(tokens.shape[-1], size))

    def grid_of(self, count: int, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Rows and columns of ``count`` tokens.

        Args:
            count: N, without prefix tokens.
            size: (height, width) of the image.

        Returns:
            The first of these that has N tokens: the grid of the image, if size and patch are
            known; a grid in the aspect ratio of the image, if its size is known; ``grid``; a
            square; one row.

        Raises:
            ValueError: one token more than a square and no prefix, so one may be a class token.
        """
        for rows, columns in self._grids(count, size):
            if rows * columns == count:
                return rows, columns
        if not self.prefix and count > 2 and math.isqrt(count - 1) ** 2 == count - 1:
            raise ValueError(
                f"{count} tokens are one more than a square. If the first is a class token, pass "
                f"Stages(..., layout=Layout(prefix=1)); if not, pass the grid."
            )
        return 1, count

    def _grids(self, count: int, size: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
        if self.patch is not None and size is not None:
            yield size[0] // self.patch[0], size[1] // self.patch[1]
        if size is not None and size[0] != size[1]:
            rows = round(math.sqrt(count * size[0] / size[1]))
            yield rows, count // max(rows, 1)
        if self.grid is not None:
            yield self.grid
        yield math.isqrt(count), math.isqrt(count)

    def prefix_tokens(self, output: object) -> Tensor | None:
        """The P prefix tokens, (B, P, C), or None if there are none."""
        x = level_of(output)
        return x[:, : self.prefix] if x.dim() == 3 and self.prefix else None

    def restore(self, output: object, a: Tensor, prefix: Tensor | None) -> object:
        """``output`` with another map (B', C, H', W') and other prefix tokens (B', P, C)."""
        if level_of(output).dim() == 4:
            return _replace(output, a.permute(0, 2, 3, 1) if self.channels_last else a)
        tokens = a.flatten(2).mT
        return _replace(output, tokens if prefix is None else torch.cat([prefix, tokens], 1))

    def positions(self, output: object, a: Tensor | None = None) -> object:
        """Make every position an example of its own, a batch of B*N in the order (B, N).

        All layers that follow then see each position alone. Pooling over one position is the
        identity, so the head acts as a 1x1 convolution (section 5.3.3). A token is also copied to
        the places of the prefix, so class-token, average and attention pooling all return it.

        Args:
            output: of the module.
            a: the map (B, C, H, W) in its place; None is that of ``output``.
        """
        a = self.map(output) if a is None else a
        columns = a.flatten(2).mT.flatten(0, 1)  # (B*N, C)
        if level_of(output).dim() == 3:
            return _replace(output, columns[:, None].expand(-1, self.prefix + 1, -1))
        one = columns[:, None, None, :] if self.channels_last else columns[:, :, None, None]
        return _replace(output, one)


def pool(a: Tensor, resolution: int | None) -> Tensor:
    """Average-pool a map (B, C, H, W) to (B, C, r, r); None leaves it as it is.

    Raises:
        ValueError: the map is smaller than r x r: the images are too small, or the model
            downsamples too often.
    """
    if resolution is None or a.shape[-2:] == (resolution, resolution):
        return a
    if min(a.shape[-2:]) < resolution:
        raise ValueError(
            f"resolution={resolution} needs a feature map of at least {resolution}x{resolution}, "
            f"got {a.shape[-2]}x{a.shape[-1]}: use larger images, a layer before the last "
            f"downsampling, or a model with a smaller stride (last_stride=1)."
        )
    return F.adaptive_avg_pool2d(a, resolution)


def level_of(output: Any) -> Tensor:
    """The output, or the last of its levels."""
    last: Tensor = output[-1] if isinstance(output, (tuple, list)) else output
    return last


def _replace(output: Any, new: Tensor) -> Any:
    if isinstance(output, (tuple, list)):
        return type(output)([*output[:-1], new])
    return new
