"""Video object segmentation by label propagation with frozen features (6.5.3)."""

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
    """Settings of label propagation. The defaults are those of DINO [0].

    Attributes:
        size: shorter side of the network's input in pixels.
        multiple: the longer side is rounded down to a multiple of it, or of the patch size if it is
            not a multiple of the patch size.
        last_frames: number of preceding frames to propagate labels from, besides the first frame.
        topk: number of positions that pass on their labels, see
            :func:`mixplug.functional.propagation.propagate`.
        radius: maximum distance of these positions in patches; None allows any distance.
        temperature: of the weights of these positions.

    Raises:
        ValueError: a value out of range.

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
        """(height, width) of the network's input for a frame; no side is smaller than a patch."""
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
    """Label maps of all frames but the first, one by one, with one forward pass per frame.

    Features are the patch tokens after the last norm, normalized to length 1. The annotation of the
    first frame is reduced to patches by nearest-neighbor sampling. Soft labels are propagated from
    the first frame and from the preceding frames, which got theirs by propagation. Memory does not
    grow with the length of the video.

    Args:
        frozen: the network.
        frames: (3, H, W) uint8, RGB; read one by one.
        annotation: labels of the first frame, (H, W) in [0, objects]; 0 is the background.
        objects: number of objects.
        protocol: settings; None takes those of DINO.
        block: see :func:`mixplug.functional.propagation.propagate`.

    Yields:
        Label map (H, W) uint8 on the CPU of each frame after the first.

    Raises:
        ValueError: a label > objects, or a frame whose size differs from that of the annotation.
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
                f"Frame {number} has {tuple(frame.shape[1:])} pixels, but the annotation of the "
                f"first frame has {tuple(annotation.shape)}."
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
    """Patch features (N, D) of length 1 of a frame (3, H, W) uint8, which is resized bilinearly."""
    image = frozen.normalized(frame[None])
    image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return F.normalize(frozen.encoder.tokens(image).patches[0].float(), dim=1)


def patch_labels(annotation: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """One-hot labels of patches, (N, K); each patch takes the label of the pixel at its center."""
    return F.one_hot(_resized(annotation, grid).flatten().long(), classes)


def _resized(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a label map by nearest-neighbor sampling."""
    return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0]
