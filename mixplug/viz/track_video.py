"""Figures 6.4 to 6.6 for any video and any vision transformer: ``mixplug viz tracks``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.functional.track import cls_attention, patch_masks
from mixplug.models.self_distillation import Tracker, object_tracks
from mixplug.models.self_distillation.views import normalized
from mixplug.models.vit import vit_of
from mixplug.models.vit.encoder import as_encoder
from mixplug.video import open_reader
from mixplug.video.index import VideoIndex
from mixplug.viz.tracks import film, overlay, strip
from mixplug.weights.position import Grid

# How objects are tracked in a row of the picture. The joint plan, the letter of (6.4), does not
# depend on the number of patches, which in a picture is another one than in training.
WAYS = {
    "without Sinkhorn-Knopp (6.3)": Tracker(refine=False),
    "with Sinkhorn-Knopp (6.6)": Tracker(plan="joint"),
}
INPUT = "input"


def draw_tracks(
    video: Path,
    checkpoint: str,
    out: Path,
    start: float = 0.0,
    frames: int = 8,
    interval: float = 1.0,
    heads: Sequence[int] | None = None,
    side: int | None = None,
    part: str | None = None,
    head_count: int | None = None,
    fps: float | None = None,
    grid: Grid | None = None,
    tick: Callable[[str], None] = lambda _: None,
) -> tuple[list[Path], str]:
    """Discover objects in a frame of a video, track them over the following, and draw them.

    Args:
        video: a file, or a folder of frames.
        checkpoint: see :func:`mixplug.models.vit.vit_of`.
        out: folder for ``tracks.png`` and ``tracks.mp4``.
        start: of the first frame, in seconds.
        frames: T.
        interval: Δ, seconds from one to the next.
        heads: which heads the objects are discovered with; None is three, see
            :func:`distinct_heads`.
        side: height in pixels to which frames are resized; None leaves them.
        part: of the checkpoint.
        head_count: h, where the checkpoint's shapes do not tell.
        fps: of a folder of frames.
        grid: (rows, columns) of patches that the checkpoint was trained on, if no square.
        tick: called with what is being done.

    Returns:
        The files, and a line that says what is on them.

    Raises:
        ValueError: the clip does not fit into the video, a head that there is not, or see
            :func:`mixplug.models.vit.vit_of` and :func:`mixplug.video.open_reader`.
    """
    tick("loading")
    vit, report = vit_of(checkpoint, part, head_count, grid)
    tick("decoding")
    times = [start + interval * number for number in range(frames)]
    with open_reader(video, fps=fps) as reader:
        clip = reader.read(times)
    heads = heads or distinct_heads(vit, clip[0], side)
    cuts = cuts_before(video, times)
    files = draw_clip(vit, clip, times, interval, out, heads, side, Path(video).name, tick, cuts)
    said = (
        f"{len(heads)} objects, of heads {list(heads)}, over {frames} frames of {Path(video).name}"
    )
    return files, f"{said}; {report.line()}" if report else said


def cuts_before(video: str | Path, times: Sequence[float]) -> list[int]:
    """Numbers of the frames of another scene than the frame before, if the video has an index.

    Args:
        video: a file, or a folder of frames.
        times: of the frames, in seconds, ascending.
    """
    try:
        cuts = VideoIndex.of(video).cuts
    except ValueError:  # never scanned, not to the end, or changed since
        return []
    pairs = enumerate(pairwise(times), 1)
    return [number for number, (a, b) in pairs if any(a < cut <= b for cut in cuts)]


def draw_clip(
    vit: nn.Module,
    clip: Tensor,
    times: Sequence[float],
    interval: float,
    out: Path,
    heads: Sequence[int],
    side: int | None = None,
    title: str = "",
    tick: Callable[[str], None] = lambda _: None,
    cuts: Sequence[int] = (),
) -> list[Path]:
    """Both ways of tracking, over the frames of a clip.

    Args:
        vit: a vision transformer in evaluation mode.
        clip: (T, 3, H, W) uint8.
        times: of the frames, in seconds.
        interval: between them.
        out: folder for ``tracks.png`` and ``tracks.mp4``.
        heads: which heads the objects are discovered with.
        side: height in pixels, None leaves it.
        title: of the picture.
        tick: called with what is being done.
        cuts: numbers of the frames before which there is a cut.
    """
    tick("tracking")
    view = as_encoder(vit)
    clip = fitted(clip, view.patch, side)
    images = normalized(clip)
    grid = view.grid((clip.shape[-2], clip.shape[-1]))
    rows = {
        name: overlay(clip, object_tracks(view, images, heads=heads, tracker=tracker), grid)
        for name, tracker in WAYS.items()
    }
    tick("drawing")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "tracks.png", out / "tracks.mp4"]
    strip({INPUT: clip, **rows}, times, files[0], title, heads, cuts)
    film({INPUT: clip, **rows}, 1 / interval, files[1])
    return files


@torch.no_grad()
def distinct_heads(
    vit: nn.Module, frame: Tensor, side: int | None = None, objects: int = 3
) -> tuple[int, ...]:
    """The heads whose class token attends (6.1) to places that overlap least in a frame.

    Training draws heads at random; a picture is of one draw, and of heads that look at the same
    place there is little to see.

    Args:
        vit: a vision transformer in evaluation mode.
        frame: (3, H, W) uint8, in which objects are discovered.
        side: height in pixels, None leaves it.
        objects: k; all heads where there are no more.
    """
    view = as_encoder(vit)
    tokens = view.tokens(normalized(fitted(frame[None], view.patch, side)))
    shares = overlaps(cls_attention(tokens.queries, tokens.keys, tokens.prefix))[0]
    choices = combinations(range(view.heads), min(objects, view.heads))
    return min(
        choices, key=lambda heads: float(sum(shares[a, b] for a, b in combinations(heads, 2)))
    )


def overlaps(attention: Tensor) -> Tensor:
    """Intersection over union of the masks (6.7) of every two objects.

    Args:
        attention: (T, k, N).

    Returns:
        (T, k, k).
    """
    masks = patch_masks(attention)
    both = masks @ masks.mT
    own = both.diagonal(dim1=-2, dim2=-1)
    return both / (own[:, :, None] + own[:, None] - both)


def fitted(clip: Tensor, patch: tuple[int, int], side: int | None) -> Tensor:
    """Frames (T, 3, H, W) of a height, cut at the right and below to whole patches."""
    if side is not None:
        wide = round(clip.shape[-1] * side / clip.shape[-2])
        resized = F.interpolate(clip.float(), (side, wide), mode="bicubic", antialias=True)
        clip = resized.round().clamp(0, 255).to(torch.uint8)
    rows, columns = (size // part for size, part in zip(clip.shape[-2:], patch, strict=True))
    if not rows * columns:
        raise ValueError(
            f"Frames of {clip.shape[-2]} x {clip.shape[-1]} pixels are smaller than a patch of "
            f"{patch[0]} x {patch[1]}."
        )
    return clip[..., : rows * patch[0], : columns * patch[1]]
