"""The demo of DoRA: train a tiny ViT from a real street clip, and draw the objects it tracks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mixplug.data.clip_samplers import ClipSampler
from mixplug.data.clips import VideoClips
from mixplug.data.multicrop import MultiCrop
from mixplug.models.self_distillation import DoRA, Views, object_tracks
from mixplug.models.self_distillation.schedules import cosine
from mixplug.models.self_distillation.views import normalized
from mixplug.models.vit.encoder import as_encoder, build_timm_vit
from mixplug.optional import optional
from mixplug.video import VideoIndex, open_reader
from mixplug.viz.track_video import WAYS, distinct_heads, draw_clip, fit_to_patches, overlaps

SIZE = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 96,
    "depth": 3,
    "num_heads": 6,
    "weight_init": "moco",
}
MIMETIC = 0.5  # factor of the identity in values and in the projection after them
OUTPUTS, OBJECTS = 256, 3
CLIPS, FRAMES, INTERVAL, CROP = 4, 4, 0.2, 224
# A few hundred steps on five scenes are too few for strong color changes. The teacher's outputs
# differ little, so they are sharpened twice as much as in DINO.
VIEWS = MultiCrop(large=64, small=32, smalls=4, jitter_p=0.0, gray=0.0, solarize=(0.0, 0.0, 0.0))
TEMPERATURE = 0.02
RATE, DECAY = (5e-4, 1e-5), (0.996, 1.0)
SHOWN, SIDE = 8, 128  # number of frames in the picture, and their height
AVERAGED = 10  # the table gives means over so many first and last steps


@dataclass
class Result:
    """Logged values, one per step.

    Attributes:
        loss: L of (6.10).
        teacher_entropy: entropy of the teacher's outputs in nats.
        teacher_kl: KL divergence from the teacher to the student.
        center_norm: norm of the center.
    """

    loss: list[float] = field(default_factory=list)
    teacher_entropy: list[float] = field(default_factory=list)
    teacher_kl: list[float] = field(default_factory=list)
    center_norm: list[float] = field(default_factory=list)

    def ends(self) -> Iterator[tuple[str, float, float]]:
        """Names, and means over the first and the last steps."""
        for name, values in asdict(self).items():
            first, last = values[:AVERAGED], values[-AVERAGED:]
            yield name, sum(first) / len(first), sum(last) / len(last)


@torch.no_grad()
def mimetic(vit: Any) -> Any:
    """Initialize attention in place as it looks in trained networks [0].

    Queries and keys are the tokens themselves, so similar tokens attend to each other, and the
    attended values are subtracted. With the usual initialization, all heads attend everywhere, and
    a demo is too short for them to discover different objects.

    - [0]: Mimetic Initialization of Self-Attention Layers, 2023, https://arxiv.org/abs/2305.09828
    """
    same = torch.eye(vit.embed_dim)
    for block in vit.blocks:
        block.attn.qkv.weight.copy_(torch.cat([same, same, MIMETIC * same]))
        block.attn.proj.weight.copy_(-MIMETIC * same)
    return vit


def train(video: Path, steps: int, seed: int, tick: Callable[[float], None]) -> tuple[Result, DoRA]:
    """Train for some steps; the result depends on the seed alone.

    Args:
        video: video with an index.
        steps: number of steps.
        seed: seed of weights, clips and heads.
        tick: function that is called with the loss of every step.
    """
    torch.manual_seed(seed)
    method = DoRA(
        mimetic(build_timm_vit("vit_tiny_patch16_224", **SIZE)),
        objects=OBJECTS,
        head={"out_dim": OUTPUTS, "hidden": 256, "bottleneck": 64},
        teacher_temperature=TEMPERATURE,
        seed=seed,
    )
    clips = VideoClips(
        video,
        FRAMES,
        INTERVAL,
        CROP,
        frames_per_epoch=steps * CLIPS * FRAMES,
        views=VIEWS,
        seed=seed,
    )
    loader = DataLoader(clips, CLIPS, sampler=ClipSampler(clips, seed))
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, RATE[0], weight_decay=0.04)
    method.attach(optimizer)
    rate, decay = cosine(*RATE, steps, steps // 10), cosine(*DECAY, steps)
    result = Result()
    for step, batch in enumerate(loader):
        optimizer.param_groups[0]["lr"], method.ema_decay = rate(step), decay(step)
        terms = method(Views.of(batch))
        loss = sum(term for name, term in terms.items() if name.startswith("loss"))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
        result.loss.append(float(loss.detach()))
        for name in ("teacher_entropy", "teacher_kl", "center_norm"):
            getattr(result, name).append(float(terms[name]))
        tick(result.loss[-1])
    return result, method.eval()


def collapsed(result: Result) -> str:
    """Describe the teacher's outputs by their entropy: uniform, on one output, or neither."""
    _, _, entropy = next(row for row in result.ends() if row[0] == "teacher_entropy")
    share = entropy / math.log(OUTPUTS)
    if share > 0.98:
        return "uniform, so it has collapsed"
    if share < 0.02:
        return "concentrated on one output, so it has collapsed"
    return "neither uniform nor concentrated on one output, so there is no collapse"


def save(result: Result, method: DoRA, out: Path) -> Path:
    """Write ``dora.json`` and the checkpoint ``dora.pth``, and return the checkpoint's path."""
    settings = {"vit": SIZE, "outputs": OUTPUTS, "clips": CLIPS, "frames": FRAMES}
    (out / "dora.json").write_text(json.dumps({**settings, **asdict(result)}, indent=2) + "\n")
    path = out / "dora.pth"
    torch.save({"state_dict": method.state_dict()}, path)
    return path


def tracks(
    method: DoRA, video: Path, index: VideoIndex, out: Path
) -> tuple[list[Path], dict[str, float]]:
    """Draw the teacher's objects over the longest scene of the video.

    Returns:
        PNG and MP4, and for each way of tracking the intersection over union of the masks of two
        objects, averaged over pairs and frames.
    """
    start, end = max(index.spans(), key=lambda span: span[1] - span[0])
    times = [
        start + INTERVAL * number for number in range(SHOWN) if start + INTERVAL * number < end
    ]
    with open_reader(video) as reader:
        clip = reader.read(times)
    vit = method.teacher.backbone
    heads = distinct_heads(vit, clip[0], SIDE)
    title = f"{video.name}, {start:.1f} s to {times[-1]:.1f} s"
    files = draw_clip(vit, clip, times, INTERVAL, out, heads, SIDE, title)
    view = as_encoder(vit)
    images = normalized(fit_to_patches(clip, view.patch, SIDE))
    pairs = torch.ones(len(heads), len(heads)).triu(1).bool()
    shares = {
        name: overlaps(object_tracks(view, images, heads=heads, tracker=tracker))[:, pairs]
        for name, tracker in WAYS.items()
    }
    return files, {name: float(share.mean()) for name, share in shares.items()}


def figure(result: Result, path: Path) -> None:
    """Draw and save the loss and the monitored values over the steps."""
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    fig, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
    curves: list[tuple[str, dict[str, list[float]]]] = [
        ("loss (6.10)", {"loss": result.loss}),
        ("nats", {"teacher entropy": result.teacher_entropy, "KL": result.teacher_kl}),
        ("norm of the center", {"center": result.center_norm}),
    ]
    for axis, (label, lines) in zip(axes, curves, strict=True):
        for name, values in lines.items():
            axis.plot(range(1, len(values) + 1), values, label=name, linewidth=1.2)
        axis.set(xlabel="step", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].axhline(math.log(OUTPUTS), color="0.5", linestyle=":", label="ln K, collapse")
    axes[1].legend(fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    fig.savefig(path, dpi=150)
    plt.close(fig)
