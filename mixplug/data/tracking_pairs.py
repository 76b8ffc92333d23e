"""Templates and search crops from GOT-10k for training a tracker (6.5.3), drawn as in SeqTrack [0].

Letters: V templates, S side of a crop.

- [0]: SeqTrack: TrackingSequence to TrackingSequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixplug import sampling
from mixplug.data.clip_samplers import generators
from mixplug.data.got10k import GOT10k, TrackingSequence
from mixplug.functional.box_tokens import clip_boxes
from mixplug.functional.crops import cut, into_square, square_around
from mixplug.renamed import renamed_keys

_GRAY = (0.299, 0.587, 0.114)  # weights of ITU-R 601, as in PIL


@renamed_keys(grey="gray", centre="center")
@dataclass(frozen=True)
class Jitter:
    """Random variation of crops and colors.

    Attributes:
        center: shift of the search crop: on each axis its center moves uniformly by at most half of
            ``center`` times the geometric mean of the jittered sides.
        scale: size of the search crop: each side is multiplied by exp(``scale`` · n), n a standard
            normal number.
        brightness: every crop is multiplied by a uniform number in [1 - brightness, 1 +
            brightness].
        gray: probability that all crops of an example are gray.
        flip: probability that a crop is mirrored, drawn for each crop.
    """

    center: float = 3.5
    scale: float = 0.5
    brightness: float = 0.2
    gray: float = 0.05
    flip: float = 0.5


class TrackingPairs(Dataset[dict[str, Tensor]]):
    """Examples for a tracker: V templates, a search crop, and the box in the search crop.

    A sequence is drawn uniformly, then one of its frames with a visible object, then V + 1 such
    frames within ``max_gap`` frames of it, with replacement. The V + 1 frames are sorted by time,
    forwards or backwards; the last one is the search frame. All draws depend on (seed, epoch,
    index) alone. The key ``epoch * len(dataset) + index`` names an item of that epoch, see
    :class:`mixplug.data.clip_samplers.ClipSampler`.

    Args:
        root: the folder of GOT-10k with train, val and test.
        split: 'train' or 'val'.
        pairs_per_epoch: number of examples of an epoch.
        max_gap: largest distance to the first drawn frame, in frames.
        templates: number V of template crops.
        size: side S of the crops in pixels.
        template_factor: ratio of a template's side to the geometric mean of the box's sides.
        search_factor: the same ratio for the search crop.
        jitter: a :class:`Jitter`, or a dict of its keys.
        seed: seed of all random draws.
        retries: number of other sequences that are tried if the object of a sequence is never
            visible.

    Raises:
        TypeError: an unknown key of ``jitter``.
        ValueError: the errors of :class:`mixplug.data.got10k.GOT10k`, a split without boxes, or an
            invalid setting.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        pairs_per_epoch: int = 30_000,
        max_gap: int = 400,
        templates: int = 2,
        size: int = 256,
        template_factor: float = 4.0,
        search_factor: float = 4.0,
        jitter: Jitter | dict[str, float] | None = None,
        seed: int = 0,
        retries: int = 10,
    ) -> None:
        if split == "test":
            raise ValueError("TrackingPairs needs split 'train' or 'val': 'test' has no boxes.")
        if min(pairs_per_epoch, templates, size) < 1 or min(max_gap, retries) < 0:
            raise ValueError(
                f"TrackingPairs needs pairs_per_epoch, templates and size >= 1, max_gap and "
                f"retries >= 0, got {pairs_per_epoch}, {templates}, {size}, {max_gap} and "
                f"{retries}."
            )
        if not min(template_factor, search_factor) > 0:
            raise ValueError(
                f"TrackingPairs needs template_factor and search_factor > 0, got {template_factor} "
                f"and {search_factor}."
            )
        self.sequences = GOT10k(root, split)
        self.pairs, self.max_gap, self.templates = pairs_per_epoch, max_gap, templates
        self.size, self.seed, self.retries = size, seed, retries
        self.template_factor, self.search_factor = template_factor, search_factor
        self.jitter = jitter if isinstance(jitter, Jitter) else Jitter(**(jitter or {}))

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        """``template`` (V, 3, S, S) and ``search`` (3, S, S), uint8, and ``box`` (4,) float32.

        The box is (left, top, width, height) as shares of the search crop's side, clipped to the
        crop.

        Raises:
            IndexError: a negative key.
            ValueError: the object is visible in none of ``1 + retries`` sequences, or a sequence
                does not have the published layout.
        """
        if key < 0:
            raise IndexError(f"Keys are epoch * {len(self)} + index >= 0, got {key}.")
        source = generators(self.seed, *divmod(int(key), len(self))).local
        sequence, frames = self.draw(source)
        gray = bool(sampling.uniform((), source) < self.jitter.gray)
        templates = []
        for frame in frames[:-1]:
            square = square_around(sequence.boxes[frame].tolist(), self.template_factor)
            crop = cut(sequence.read(frame), square, self.size)
            templates.append(self._augment(crop, gray, source)[0])
        search, box = self._search(sequence, frames[-1], gray, source)
        return {"template": torch.stack(templates), "search": search, "box": box}

    def draw(self, source: torch.Generator) -> tuple[TrackingSequence, list[int]]:
        """Draw a sequence, the frames of V templates, and the search frame."""
        for _ in range(1 + self.retries):
            sequence = self.sequences[_draw_index(len(self.sequences), source)]
            visible = sequence.visible.nonzero()[:, 0]
            if len(visible):
                break
        else:
            raise ValueError(
                f"None of the {1 + self.retries} sequences drawn from {self.sequences.folder} has "
                f"a frame with a visible object. The last one was {sequence.name}."
            )
        middle = visible[_draw_index(len(visible), source)]
        near = visible[(visible - middle).abs() <= self.max_gap]
        chosen = near[[_draw_index(len(near), source) for _ in range(self.templates + 1)]]
        backwards = bool(sampling.uniform((), source) < 0.5)
        return sequence, chosen.sort(descending=backwards).values.tolist()

    def _search(
        self, sequence: TrackingSequence, frame: int, gray: bool, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A crop around a jittered box, and the true box in it."""
        left, top, width, height = sequence.boxes[frame].tolist()
        stretch = (self.jitter.scale * sampling.normal((2,), source)).exp().tolist()
        wide, high = width * stretch[0], height * stretch[1]
        reach = self.jitter.center * math.sqrt(wide * high)
        move = [reach * (share - 0.5) for share in sampling.uniform((2,), source).tolist()]
        x, y = left + width / 2 + move[0], top + height / 2 + move[1]
        square = square_around([x - wide / 2, y - high / 2, wide, high], self.search_factor)
        crop, flipped = self._augment(cut(sequence.read(frame), square, self.size), gray, source)
        box = into_square(sequence.boxes[frame], square)
        if flipped:
            box = torch.stack([1 - box[0] - box[2], *box[1:]])
        return crop, clip_boxes(box).float()

    def _augment(self, crop: Tensor, gray: bool, source: torch.Generator) -> tuple[Tensor, bool]:
        """A crop with changed brightness and colors, and whether it is mirrored."""
        light, mirror = sampling.uniform((2,), source).tolist()
        values = crop.float() * (1 + self.jitter.brightness * (2 * light - 1))
        if gray:
            values = torch.einsum("chw,c->hw", values, torch.tensor(_GRAY)).expand_as(values)
        flipped = mirror < self.jitter.flip
        values = values.flip(-1) if flipped else values
        return values.round().clamp(0, 255).byte(), flipped


def _draw_index(count: int, source: torch.Generator) -> int:
    """A uniform integer in [0, count)."""
    return min(int(sampling.uniform((), source) * count), count - 1)
