"""Made videos in the layout of DAVIS-2017, and a vision transformer that tells patches apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mixplug.data.davis import write_labels
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.models.vit.encoder import as_encoder

PATCH, HEIGHT, WIDTH, SIDE = 8, 64, 128, 24  # sides that the protocol leaves as they are
GRID = (HEIGHT // PATCH, WIDTH // PATCH)


def network() -> Frozen:
    """What it knows of a patch is a random projection of its own pixels: blocks add nothing."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=HEIGHT, patch_size=PATCH, embed_dim=64, depth=2, num_heads=1, mlp_ratio=1,
        num_classes=0, dynamic_img_size=True,
    ).eval()  # fmt: skip
    with torch.no_grad():
        vit.pos_embed.zero_()
        for block in vit.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_(), layer.bias.zero_()
    return Frozen(as_encoder(vit), "a made network")


def squares(frames: int, speed: int = PATCH) -> tuple[list[Tensor], list[Tensor]]:
    """Two textured squares that move along in opposite directions before a smooth background.

    Returns:
        Frames (3, H, W) uint8, and their annotations (H, W) uint8.
    """
    source = torch.Generator().manual_seed(1)
    textures = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=source)
    video, annotations = [], []
    for number in range(frames):
        frame = torch.full((3, HEIGHT, WIDTH), 128, dtype=torch.uint8)
        labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
        places = ((8, PATCH + speed * number), (32, WIDTH - SIDE - PATCH - speed * number))
        for label, (top, left) in enumerate(places, 1):
            frame[:, top : top + SIDE, left : left + SIDE] = textures[label - 1]
            labels[top : top + SIDE, left : left + SIDE] = label
        video.append(frame)
        annotations.append(labels)
    return video, annotations


def stripes(frames: int) -> tuple[list[Tensor], list[Tensor]]:
    """Noise that stands still; stripes from top to bottom at the left and the right are objects."""
    source = torch.Generator().manual_seed(2)
    frame = torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=source)
    labels = torch.tensor([1, 0, 0, 2], dtype=torch.uint8).repeat_interleave(WIDTH // 4)
    return [frame] * frames, [labels.expand(HEIGHT, -1).contiguous()] * frames


def write(
    root: Path, videos: dict[str, tuple[Sequence[Tensor], Sequence[Tensor]]], split: str = "val"
) -> Path:
    """Lay out videos as the official archive does. JPEGs are as good as they get."""
    listing = root / "ImageSets/2017" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in videos))
    for name, (frames, truths) in videos.items():
        images, labels = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, (frame, label) in enumerate(zip(frames, truths, strict=True)):
            picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
            picture.save(images / f"{number:05d}.jpg", quality=100, subsampling=0)
            write_labels(labels / f"{number:05d}.png", label)
    return root
