"""DoRA: objects that are tracked over frames, and the masked frames that the student sees."""

from __future__ import annotations

from pathlib import Path

from common import WIDTH, frames, plt, save, show, street

from mixplug.functional import masked_frames, patch_masks
from mixplug.models import Tracker, as_encoder, object_tracks
from mixplug.models.self_distillation.views import normalized
from mixplug.viz import overlay
from mixplug.viz.track_video import distinct_heads

SIDE, FRAMES, INTERVAL = 128, 3, 0.5


def draw(path: Path, quick: bool) -> None:
    """Three frames of the longest scene; three objects in color, then alone."""
    video, index, method = street(2 if quick else 200)
    start, _ = max(index.spans(), key=lambda span: span[1] - span[0])
    view = as_encoder(method.teacher.backbone)
    times = [start + INTERVAL * number for number in range(FRAMES)]
    clip = frames(video, times, SIDE, view.patch[1])
    grid = view.grid((clip.shape[-2], clip.shape[-1]))
    heads = distinct_heads(method.teacher.backbone, clip[0])
    tracks = object_tracks(view, normalized(clip), heads=heads, tracker=Tracker(plan="joint"))
    seen = masked_frames(clip, patch_masks(tracks), grid)
    rows = {"frame": clip, "objects": overlay(clip, tracks, grid)}
    rows |= {f"student {k + 1}": seen[:, k] for k in range(len(heads))}
    fig, axes = plt.subplots(len(rows), FRAMES, figsize=(WIDTH, 3.1), layout="constrained")
    for cells, (name, pictures) in zip(axes, rows.items(), strict=True):
        for cell, frame in zip(cells, pictures, strict=True):
            show(cell, frame)
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for number, cell in enumerate(axes[0]):
        cell.set_title(f"{INTERVAL * number:g} s", pad=3)
    save(fig, path)
