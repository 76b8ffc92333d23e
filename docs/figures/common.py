"""What the figures share: real data, small networks, and how a figure is saved."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

import mixplug
from mixplug.data import digits, shipped_clip
from mixplug.demo import classification, dora, metric
from mixplug.losses import param_groups
from mixplug.models import EmbeddingHead
from mixplug.video import VideoIndex, open_reader, scan

WIDTH = 4.2  # inches: at 360 pixels, the width of a phone, 9 pt are 11 pixels
DPI = 200
FIRST, SECOND, MIXED, GRAY = "#0072B2", "#D55E00", "#009E73", "0.45"
plt.rcParams.update({"font.size": 8.5, "axes.titlesize": 8.5, "axes.labelsize": 8.5})


def photographs(height: int, width: int) -> Tensor:
    """Two photographs that scikit-learn ships, china.jpg and flower.jpg, (2, 3, H, W) in [0, 1]."""
    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    return F.interpolate(
        images.permute(0, 3, 1, 2) / 255, (height, width), mode="bilinear", antialias=True
    ).clamp(0, 1)


def show(axes: Any, image: Tensor, title: str = "", **options: Any) -> None:
    """Draw an image (C, H, W), or one channel (H, W), without axes."""
    picture = image.permute(1, 2, 0) if image.dim() == 3 else image
    axes.imshow(picture.squeeze(-1).numpy(), **options)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, pad=3)
    for edge in axes.spines.values():
        edge.set_visible(False)


def save(fig: Any, path: Path, colors: int = 224, dpi: int = DPI) -> None:
    """Write a PNG with a palette: the documentation is cloned with the code, so files are small."""
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=dpi)
    plt.close(fig)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)


@cache
def classifier(method: str, epochs: int) -> mixplug.Stages:
    """The network of ``mixplug demo classification``, trained on digits of 8 x 8 pixels."""
    x, y = digits("train", size=8)
    run = classification.start(method, 0, epochs * -(-len(x) // classification.BATCH))
    for epoch in range(epochs):
        classification.train_epoch(run, x, y, epoch)
    model = run.model.eval()
    return mixplug.Stages(model, features=classification.FEATURES, classifier="fc", last="act")


@cache
def circle(loss: str, epochs: int) -> tuple[Tensor, Tensor, Any]:
    """Embeddings on a circle: the network of ``mixplug demo metric``, but of width 2.

    Returns:
        Embeddings (B, 2) of length 1 of the training digits 0 to 4, their classes, and the loss.
    """
    x, y = metric.tensors(metric.data("train"))
    run = metric.start(("Contrastive", None), 0, epochs * len(metric.batches(y, 0, 0)))
    run.model.head = EmbeddingHead(64, 2, "avg+max")
    proxies = {"num_classes": 5, "dim": 2} if loss.startswith("Proxy") else {}
    run.loss = mixplug.build(loss, kind="loss", **proxies)
    run.optimizer = torch.optim.AdamW(param_groups([run.model, run.loss], metric.RATE, 10))
    run.schedule = torch.optim.lr_scheduler.ConstantLR(run.optimizer, 1.0)
    for epoch in range(epochs):
        metric.train_epoch(run, x, y, epoch)
    return metric.embed(run.model, x), y, run.loss


def draw_circle(axes: Any, title: str = "") -> None:
    """The circle on which embeddings of length 1 and width 2 lie."""
    axes.add_patch(plt.Circle((0, 0), 1, fill=False, edgecolor="0.8", zorder=0))
    axes.set(xlim=(-1.18, 1.18), ylim=(-1.18, 1.18), aspect="equal")
    axes.axis("off")
    axes.set_title(title, pad=2)


def frames(video: Path, times: Sequence[float], height: int, patch: int) -> Tensor:
    """Frames (T, 3, H, W) uint8 of a video, as wide as the patch divides."""
    with open_reader(video) as reader:
        clip = reader.read(times)
    width = round(clip.shape[-1] * height / clip.shape[-2] / patch) * patch
    return F.interpolate(clip.float(), (height, width), mode="bilinear", antialias=True).byte()


@cache
def street(steps: int) -> tuple[Path, Any, Any]:
    """The tiny ViT of ``mixplug demo dora``, trained from a clip of a street.

    Returns:
        The video, its index, and the trained method in evaluation mode.
    """
    video = Path(tempfile.mkdtemp()) / "bikes.mp4"
    shutil.copy(shipped_clip("bikes"), video)
    scan(video)
    _, method = dora.train(video, steps, 0, lambda loss: None)
    return video, VideoIndex.of(video), method
