"""Objects of a first frame found in all that follow, by frozen features alone (6.5.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.functional.propagation import label_map, propagate


@dataclass(frozen=True)
class Protocol:
    """How labels are propagated. The defaults are those that DINO reports its results with [0].

    Attributes:
        size: of the shorter side in pixels, for the network.
        multiple: of which the longer side is the largest that the frame's shape allows; the patch
            takes its place where it is no multiple of that.
        last_frames: how many frames before the present one are looked at, beside the first.
        topk: how many positions give their labels, see
            :func:`mixplug.functional.propagation.propagate`.
        radius: how far these may be, in patches; None restricts nothing.
        temperature: of their weights.

    Raises:
        ValueError: a number out of its range.

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021, section 4.2.2,
      https://arxiv.org/abs/2104.14294
    """

    size: int = 480
    multiple: int = 64
    last_frames: int = 7
    topk: int = 5
    radius: int | None = 12
    temperature: float = 0.1

    def __post_init__(self) -> None:
        at_least = {"size": 1, "multiple": 1, "last_frames": 0, "topk": 1, "radius": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Label propagation needs {name} >= {least}, got {value}.")
        if not self.temperature > 0:
            raise ValueError(f"Label propagation needs a temperature > 0, got {self.temperature}.")

    def network_size(self, height: int, width: int, patch: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in which the network sees a frame; no side is less than a patch."""
        sides = []
        for side, part in zip((height, width), patch, strict=True):
            longer = side > min(height, width)
            step = self.multiple if longer and self.multiple % part == 0 else part
            wanted = side * self.size // min(height, width) if longer else self.size
            sides.append(max(1, wanted // step) * step)
        return sides[0], sides[1]


@torch.no_grad()
def segment(
    frozen: Frozen,
    frames: Iterable[Tensor],
    annotation: Tensor,
    objects: int,
    protocol: Protocol | None = None,
    block: int = 256,
) -> Iterator[Tensor]:
    """Label maps of the frames after the first, one by one; one pass of the network per frame.

    Features are the last block's after the last norm, of length 1. The first annotation is brought
    to patches by its nearest pixel. Soft labels are propagated from the first frame and from the
    last ones, as they were propagated to these. What is held does not grow with the video.

    Args:
        frozen: the network.
        frames: (3, H, W) uint8, RGB, read as they are needed.
        annotation: of the first of them, (H, W) in [0, objects]; 0 is the background.
        objects: how many.
        protocol: None is DINO's.
        block: see :func:`mixplug.functional.propagation.propagate`.

    Yields:
        (H, W) uint8 on the CPU, of each frame after the first.

    Raises:
        ValueError: a label > objects, or a frame of another size than the annotation.
    """
    protocol = protocol or Protocol()
    if int(annotation.max()) > objects:
        raise ValueError(
            f"The annotation needs labels in [0, {objects}], got {int(annotation.max())}."
        )
    height, width = annotation.shape
    size = protocol.network_size(height, width, frozen.encoder.patch)
    grid = frozen.encoder.grid(size)
    known: deque[tuple[Tensor, Tensor]] = deque(maxlen=protocol.last_frames)
    first: tuple[Tensor, Tensor] | None = None
    for number, frame in enumerate(frames):
        if frame.shape[1:] != annotation.shape:
            raise ValueError(
                f"Frame {number} is of {tuple(frame.shape[1:])} pixels, the annotation of the "
                f"first of {tuple(annotation.shape)}."
            )
        query = features(frozen, frame, size)
        if first is None:
            first = query, patch_labels(annotation, grid, objects + 1).to(query)
            continue
        context, labels = (torch.stack(of) for of in zip(first, *known, strict=True))
        found = propagate(
            query, context, labels, protocol.topk, protocol.temperature, protocol.radius,
            grid=grid, block=block,
        )  # fmt: skip
        known.append((query, found))
        yield _resized(label_map(found, grid, size), (height, width)).to("cpu", torch.uint8)


def features(frozen: Frozen, frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Of the patches of a frame (3, H, W) uint8 that is resized linearly: (N, D), of length 1."""
    image = frozen.normalized(frame[None])
    image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return F.normalize(frozen.encoder.tokens(image).patches[0].float(), dim=1)


def patch_labels(annotation: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """One-hot labels of patches, (N, K), each of the pixel nearest to its middle."""
    return F.one_hot(_resized(annotation, grid).flatten().long(), classes)


def _resized(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """A label map at another size, each pixel that of the nearest."""
    return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0]
