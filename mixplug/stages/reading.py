"""How a module's output holds its map, as far as the output's shape and its layers tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from mixplug.layouts import Layout

_MOST_PREFIX = 9  # a class token and eight registers
_WIDTHS = ("out_channels", "out_features", "num_features", "num_channels")


def layout_of(
    model: nn.Module, name: str, shape: tuple[int, ...], size: tuple[int, int], host: Layout
) -> Layout | None:
    """The layout of one module's output, or None if it holds no map that can be read.

    The positions of a map have the aspect ratio of the image, which tells (B, C, H, W) from
    (B, H, W, C). Where both would fit, the width of the module's last layer decides, and then what
    the host says. Tokens that fill the grid have none before them.

    Args:
        model: the network.
        name: of the module.
        shape: of its output, for a batch of images.
        size: (height, width) of these images.
        host: what the host says of its last map.
    """
    if len(shape) == 4:
        fits = [last for last in (False, True) if _is_grid(_positions(shape, last), size)]
        widths = set(_widths(model.get_submodule(name)))
        if widths & {shape[1], shape[3]}:
            fits = [last for last in fits if shape[3 if last else 1] in widths]
        if len(fits) == 2:
            fits = [host.channels_last]
        return replace(host, channels_last=fits[0]) if fits else None
    if len(shape) != 3 or shape[1] <= 1:
        return None
    widths = set(_widths(model.get_submodule(name)))
    if widths and shape[2] not in widths and shape[1] in widths:
        return None  # (B, C, N)
    if not widths and _is_token_grid(shape[2], size, Layout()):
        return None  # either
    for prefix in (host.prefix, 0):
        if _is_token_grid(shape[1] - prefix, size, host):
            return replace(host, prefix=prefix)
    return None


def prefix_that_fits(count: int, size: tuple[int, int]) -> int | None:
    """The smallest number of tokens without which the others fill a grid of the image's shape."""
    fits = (n for n in range(1, _MOST_PREFIX + 1) if _is_token_grid(count - n, size, Layout()))
    return next(fits, None)


def _positions(shape: tuple[int, ...], channels_last: bool) -> tuple[int, int]:
    return (shape[1], shape[2]) if channels_last else (shape[2], shape[3])


def _is_grid(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether an image of this size, at some stride, has this grid, up to one row and column."""
    if min(grid) < 1 or grid[0] > size[0] or grid[1] > size[1]:
        return False
    stride = max(size[0] / grid[0], size[1] / grid[1])
    return all(abs(side / stride - cells) <= 1 for side, cells in zip(size, grid, strict=True))


def _is_token_grid(count: int, size: tuple[int, int], host: Layout) -> bool:
    if count < 1:
        return False
    try:
        return _is_grid(host.grid_of(count, size), size)
    except ValueError:  # one token too many
        return False


def _widths(module: nn.Module) -> Iterator[int]:
    """Widths that the last layers of a module declare, from the last on."""
    for layer in reversed(list(module.modules())):
        for attribute in _WIDTHS:
            if isinstance(getattr(layer, attribute, None), int):
                yield getattr(layer, attribute)
        normalized = getattr(layer, "normalized_shape", None)
        if normalized:
            yield int(normalized[-1])
