"""The k objects that are tracked over a clip, as a strip and as a video (Figures 6.4 to 6.6).

Letters: T frames of H x W, k objects, N patches in a grid.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.optional import optional
from mixplug.viz.axes import hide_axes

# Colors of up to three objects; the hues of more objects are spread evenly.
_PURE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_STRONG = 0.95  # quantile of a map from which on the color is full
_STRENGTH = 0.6  # opacity of the color where attention is strongest
_LABEL = 22  # height in pixels of the label above a film
_ACROSS = 8  # frames per row
_CUT = "#E69F00"  # differs from the pure colors
_QUALITY = {"libx264": {"crf": "18", "preset": "fast"}, "mpeg4": {"q": "3"}}


def colors(objects: int) -> Tensor:
    """Colors (k, 3) in [0, 1]: red, green and blue, or k hues."""
    if objects <= len(_PURE):
        return torch.tensor(_PURE[:objects]).view(-1, 3)
    return torch.tensor([colorsys.hsv_to_rgb(i / objects, 1.0, 1.0) for i in range(objects)])


def overlay(frames: Tensor, attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Color frames by the attention to each object.

    The color shows by how much attention exceeds its mean over the frame, which is the threshold of
    a binary mask (6.7), relative to the strongest twentieth of the patches. So weak objects are
    visible too. Where objects overlap, their colors add up to other colors or white.

    Args:
        frames: (T, 3, H, W) uint8, RGB.
        attention: T' (T, k, N) of (6.6), or T of (6.3).
        grid: (rows, columns) of the N patches.

    Returns:
        (T, 3, H, W) uint8.

    Raises:
        ValueError: attention that does not fit the frames or the grid.
    """
    rows, columns = grid
    if attention.shape[0] != len(frames) or attention.shape[-1] != rows * columns:
        raise ValueError(
            f"overlay needs attention (T, k, N) for {len(frames)} frames and a grid of "
            f"{rows} x {columns}, got {tuple(attention.shape)}."
        )
    above = (attention - attention.mean(-1, keepdim=True)).relu()
    strongest = above.quantile(_STRONG, -1, keepdim=True, interpolation="higher")
    maps = (above / strongest.clamp_min(torch.finfo(above.dtype).tiny)).clamp(max=1)
    maps = maps.unflatten(-1, grid).float()
    maps = F.interpolate(maps, frames.shape[-2:], mode="bilinear").cpu()
    paint = torch.einsum("tkhw,kc->tchw", maps, colors(maps.shape[1])).clamp(0, 1)
    cover = _STRENGTH * maps.amax(1, keepdim=True)
    mixed = (1 - cover) * (frames.cpu() / 255) + cover * paint
    return (255 * mixed).round().byte()


def strip(
    rows: Mapping[str, Tensor],
    times: Sequence[float],
    path: Path,
    title: str = "",
    heads: Sequence[int] = (),
    cuts: Sequence[int] = (),
) -> None:
    """Draw and save a row of frames for each way of tracking, in blocks of eight frames.

    Args:
        rows: frames (T, 3, H, W) uint8 for each way.
        times: times of the frames in seconds.
        path: path of the PNG.
        title: title of the figure.
        heads: heads of the objects, for a legend of the colors.
        cuts: numbers of the frames with a cut before them, which a line marks.
    """
    plt = optional("matplotlib.pyplot", "video", "The figure")
    _, _, height, width = next(iter(rows.values())).shape
    across = min(_ACROSS, len(times))
    blocks = -(-len(times) // across)
    wide = 1.7
    aside = 0.075 * max(map(len, rows)) + 0.2
    size = (wide * across + aside, (wide * height / width * len(rows) + 0.3) * blocks + 0.75)
    fig = plt.figure(figsize=size, layout="constrained")
    for block, part in enumerate(fig.subfigures(blocks, 1, squeeze=False)[:, 0]):
        axes = part.subplots(len(rows), across, squeeze=False)
        for cells, (name, frames) in zip(axes, rows.items(), strict=True):
            cells[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", labelpad=9)
            for place, cell in enumerate(cells):
                number = block * across + place
                _frame(cell, frames[number] if number < len(frames) else None)
                if number in cuts:
                    (line,) = cell.plot(
                        [-0.035] * 2, [0, 1], color=_CUT, linewidth=3, clip_on=False,
                        transform=cell.transAxes,
                    )  # fmt: skip
                    line.set_in_layout(False)  # otherwise this picture would be smaller than others
        for cell, time in zip(axes[0], times[block * across :], strict=False):
            cell.set_title(f"{time:.1f} s", fontsize=9)
    _legend(fig, heads, bool(cuts))
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def _frame(cell: Any, frame: Tensor | None) -> None:
    """Draw a picture without axes, or leave the place empty."""
    hide_axes(cell)
    if frame is None:
        cell.set_visible(False)
    else:
        cell.imshow(frame.permute(1, 2, 0).numpy())


def _legend(fig: Any, heads: Sequence[int], cuts: bool) -> None:
    """Legend for the colors of the heads and the line of a cut."""
    patches = optional("matplotlib.patches", "video", "The figure")
    handles = [
        patches.Patch(color=color, label=f"head {head}")
        for head, color in zip(heads, colors(len(heads)).tolist(), strict=True)
    ]
    if cuts:
        handles.append(patches.Patch(color=_CUT, label="cut"))
    if handles:
        fig.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=9,
            frameon=False, handlelength=1,
        )  # fmt: skip


def film(rows: Mapping[str, Tensor], rate: float, path: Path) -> None:
    """Write the ways of tracking side by side as MP4, each with its name above it.

    Args:
        rows: frames (T, 3, H, W) uint8 for each way.
        rate: frames per second.
        path: path of the MP4.
    """
    av = optional("av", "video", "The video")
    joined = torch.cat([_with_label(name, frames) for name, frames in rows.items()], -1)
    even = joined[..., : joined.shape[-2] // 2 * 2, : joined.shape[-1] // 2 * 2]
    codec = next(name for name in _QUALITY if name in av.codecs_available)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = even.shape[-2:]
        stream.pix_fmt, stream.options = "yuv420p", _QUALITY[codec]
        for frame in even.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _with_label(name: str, frames: Tensor) -> Tensor:
    """Frames with a line of text above them."""
    image = optional("PIL.Image", "video", "The video")
    draw = optional("PIL.ImageDraw", "video", "The video")
    label = image.new("RGB", (frames.shape[-1], _LABEL), "white")
    draw.Draw(label).text((4, 4), name, fill="black")
    pixels = torch.frombuffer(bytearray(label.tobytes()), dtype=torch.uint8)
    above = pixels.view(_LABEL, frames.shape[-1], 3).permute(2, 0, 1)
    return torch.cat([above.expand(len(frames), -1, -1, -1), frames], -2)
