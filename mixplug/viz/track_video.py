"""Tracked objects for any video and any vision transformer (Figures 6.4 to 6.6).

The command is ``mixplug viz tracks``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.functional.track import cls_attention, patch_masks
from mixplug.models.self_distillation import Tracker, object_tracks
from mixplug.models.self_distillation.views import normalized
from mixplug.models.vit import content_of, images_of, vit_of
from mixplug.models.vit.encoder import as_encoder
from mixplug.video import open_reader
from mixplug.video.index import VideoIndex
from mixplug.viz.tracks import film, overlay, strip
from mixplug.weights.position import Grid
from mixplug.weights.preprocessing import NORMALIZATION

# Ways of tracking, one per row of the picture. The joint plan, which follows (6.4) literally, does
# not depend on the number of patches, which differs between a picture and training.
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
    model: str | None = None,
    **images: Any,
) -> tuple[list[Path], str]:
    """Discover objects in a frame of a video, track them over the next frames, and draw them.

    Args:
        video: a file, or a folder of frames.
        checkpoint: see :func:`mixplug.models.vit.vit_of`.
        out: folder for ``tracks.png`` and ``tracks.mp4``.
        start: time of the first frame in seconds.
        frames: T.
        interval: Δ, seconds between frames.
        heads: attention heads that discover the objects; None selects three, see
            :func:`distinct_heads`.
        side: height in pixels to which frames are resized; None keeps their size.
        part: part of the checkpoint.
        head_count: h, if the checkpoint's shapes do not determine it.
        fps: frames per second of a folder of frames.
        grid: (rows, columns) of the patches on which the checkpoint was trained, if not square.
        tick: function that is called with the name of the current step.
        model: name of timm's model whose weights these are, if the file does not say it.
        **images: mean and std in place of those of the checkpoint, see
            :meth:`mixplug.weights.Preprocessing.changed`.

    Returns:
        The files, and a line that describes them.

    Raises:
        ValueError: the clip is not within the video, a head does not exist, or the errors of
            :func:`mixplug.models.vit.vit_of` and :func:`mixplug.video.open_reader`.
    """
    tick("loading")
    found = content_of(checkpoint)
    vit, report = vit_of(checkpoint, part, head_count, grid, model, found)
    prepared = images_of(vit, checkpoint, part, model, found=found, **images)
    tick("decoding")
    times = [start + interval * number for number in range(frames)]
    with open_reader(video, fps=fps) as reader:
        clip = reader.read(times)
    heads = heads or distinct_heads(vit, clip[0], side, normalize=prepared.normalized)
    cuts = cuts_before(video, times)
    files = draw_clip(
        vit, clip, times, interval, out, heads, side, Path(video).name, tick, cuts,
        prepared.normalized,
    )  # fmt: skip
    summary = (
        f"{len(heads)} objects of heads {list(heads)} over {frames} frames of {Path(video).name}"
    )
    summary = f"{summary}; {prepared.line(NORMALIZATION)}"
    return files, f"{summary}; {report.line()}" if report else summary


def cuts_before(video: str | Path, times: Sequence[float]) -> list[int]:
    """Numbers of the frames with a cut before them, if the video has an index.

    Args:
        video: a file, or a folder of frames.
        times: times of the frames in seconds, ascending.
    """
    try:
        cuts = VideoIndex.of(video).cuts
    except ValueError:  # no index, an incomplete one, or an outdated one
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
    normalize: Callable[[Tensor], Tensor] = normalized,
) -> list[Path]:
    """Draw both ways of tracking over the frames of a clip.

    Args:
        vit: a vision transformer in evaluation mode.
        clip: (T, 3, H, W) uint8.
        times: times of the frames in seconds.
        interval: seconds between frames.
        out: folder for ``tracks.png`` and ``tracks.mp4``.
        heads: attention heads that discover the objects.
        side: height in pixels to which frames are resized; None keeps their size.
        title: title of the picture.
        tick: function that is called with the name of the current step.
        cuts: numbers of the frames with a cut before them.
        normalize: from uint8 images to the input of the network.
    """
    tick("tracking")
    view = as_encoder(vit)
    clip = fit_to_patches(clip, view.patch, side)
    images = normalize(clip)
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
    vit: nn.Module,
    frame: Tensor,
    side: int | None = None,
    objects: int = 3,
    normalize: Callable[[Tensor], Tensor] = normalized,
) -> tuple[int, ...]:
    """The heads whose class token attends (6.1) to regions of a frame that overlap least.

    Training draws heads at random. A picture shows only one draw, which is not informative if all
    heads attend to the same region.

    Args:
        vit: a vision transformer in evaluation mode.
        frame: (3, H, W) uint8, the frame in which objects are discovered.
        side: height in pixels to which the frame is resized; None keeps its size.
        objects: k; all heads are returned if there are no more than k.
        normalize: from uint8 images to the input of the network.
    """
    view = as_encoder(vit)
    tokens = view.tokens(normalize(fit_to_patches(frame[None], view.patch, side)))
    shares = overlaps(cls_attention(tokens.queries, tokens.keys, tokens.prefix))[0]
    choices = combinations(range(view.heads), min(objects, view.heads))
    return min(
        choices, key=lambda heads: float(sum(shares[a, b] for a, b in combinations(heads, 2)))
    )


def overlaps(attention: Tensor) -> Tensor:
    """Intersection over union of the masks (6.7) of each pair of objects.

    Args:
        attention: (T, k, N).

    Returns:
        (T, k, k).
    """
    masks = patch_masks(attention)
    both = masks @ masks.mT
    own = both.diagonal(dim1=-2, dim2=-1)
    return both / (own[:, :, None] + own[:, None] - both)


def fit_to_patches(clip: Tensor, patch: tuple[int, int], side: int | None) -> Tensor:
    """Resize frames (T, 3, H, W) to a height, then crop right and bottom to whole patches."""
    if side is not None:
        wide = round(clip.shape[-1] * side / clip.shape[-2])
        resized = F.interpolate(clip.float(), (side, wide), mode="bicubic", antialias=True)
        clip = resized.round().clamp(0, 255).to(torch.uint8)
    rows, columns = (size // part for size, part in zip(clip.shape[-2:], patch, strict=True))
    if not rows * columns:
        raise ValueError(
            f"Frames must be at least as large as a patch of {patch[0]} x {patch[1]} pixels, got "
            f"{clip.shape[-2]} x {clip.shape[-1]}."
        )
    return clip[..., : rows * patch[0], : columns * patch[1]]
