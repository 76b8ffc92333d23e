"""Templates and search crops of GOT-10k to train a tracker on (6.5.3), drawn as SeqTrack does [0].

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

_GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL has it


@renamed_keys(grey="gray", centre="center")
@dataclass(frozen=True)
class Jitter:
    """How crops and colors vary.

    Attributes:
        center: of a search crop: its center is within half of ``center`` times the geometric mean
            of the jittered sides, on either axis, uniformly.
        scale: of a search crop: the sides are multiplied by e to the power of ``scale`` times a
            standard normal number each.
        brightness: every crop is multiplied by a uniform number in 1 plus or minus this.
        gray: chance that all crops of an example are gray.
        flip: chance that a crop is mirrored, each for itself.
    """

    center: float = 3.5
    scale: float = 0.5
    brightness: float = 0.2
    gray: float = 0.05
    flip: float = 0.5


class TrackingPairs(Dataset[dict[str, Tensor]]):
    """Examples of a tracker: V templates, a search crop and the box in it.

    A sequence is drawn uniformly, one of its frames, and V + 1 with the object visible within
    ``max_gap`` frames of that one, with replacement. In the order of time or against it, the last
    is the search frame. All of it depends on (seed, epoch, index) alone; the item of key ``epoch *
    len(dataset) + index`` belongs to that epoch, see
    :class:`mixplug.data.clip_samplers.ClipSampler`.

    Args:
        root: see :class:`mixplug.data.got10k.GOT10k`.
        split: 'train' or 'val'.
        pairs_per_epoch: examples of an epoch.
        max_gap: frames.
        templates: V.
        size: S.
        template_factor: of a crop's side, over the geometric mean of the box's sides.
        search_factor: likewise.
        jitter: see :class:`Jitter`, or keys of it.
        seed: of all draws.
        retries: sequences in place of one whose object is never visible, before an item is given
            up.

    Raises:
        TypeError: an unknown key of ``jitter``.
        ValueError: see :class:`mixplug.data.got10k.GOT10k`; a split without boxes; a setting that
            is not allowed.
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
                f"TrackingPairs needs pairs_per_epoch, templates, size >= 1, max_gap and retries "
                f">= 0, got {pairs_per_epoch}, {templates}, {size}, {max_gap} and {retries}."
            )
        if not min(template_factor, search_factor) > 0:
            raise ValueError(
                f"TrackingPairs needs factors > 0, got {template_factor} and {search_factor}."
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

        The box is left, top, width and height in shares of the search crop's side, and what of it
        is in the crop.

        Raises:
            IndexError: a negative key.
            ValueError: the object of ``1 + retries`` sequences is never visible, or a sequence is
                not as published.
        """
        if key < 0:
            raise IndexError(f"Keys are epoch * {len(self)} + index >= 0, got {key}.")
        source = generators(self.seed, *divmod(int(key), len(self))).local
        sequence, frames = self.draw(source)
        gray = bool(sampling.uniform((), source) < self.jitter.gray)
        shown = []
        for frame in frames[:-1]:
            square = square_around(sequence.boxes[frame].tolist(), self.template_factor)
            crop = cut(sequence.read(frame), square, self.size)
            shown.append(self._colored(crop, gray, source)[0])
        search, box = self._search(sequence, frames[-1], gray, source)
        return {"template": torch.stack(shown), "search": search, "box": box}

    def draw(self, source: torch.Generator) -> tuple[TrackingSequence, list[int]]:
        """A sequence, V frames of templates and the search frame."""
        for _ in range(1 + self.retries):
            sequence = self.sequences[_below(len(self.sequences), source)]
            visible = sequence.visible.nonzero()[:, 0]
            if len(visible):
                break
        else:
            raise ValueError(
                f"None of {1 + self.retries} sequences drawn of {self.sequences.folder} has a "
                f"frame in which its object is visible, the last was {sequence.name}."
            )
        middle = visible[_below(len(visible), source)]
        near = visible[(visible - middle).abs() <= self.max_gap]
        chosen = near[[_below(len(near), source) for _ in range(self.templates + 1)]]
        backwards = bool(sampling.uniform((), source) < 0.5)
        return sequence, chosen.sort(descending=backwards).values.tolist()

    def _search(
        self, sequence: TrackingSequence, frame: int, gray: bool, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A crop around a jittered box, and the box in it."""
        left, top, width, height = sequence.boxes[frame].tolist()
        stretch = (self.jitter.scale * sampling.normal((2,), source)).exp().tolist()
        wide, high = width * stretch[0], height * stretch[1]
        reach = self.jitter.center * math.sqrt(wide * high)
        move = [reach * (share - 0.5) for share in sampling.uniform((2,), source).tolist()]
        x, y = left + width / 2 + move[0], top + height / 2 + move[1]
        square = square_around([x - wide / 2, y - high / 2, wide, high], self.search_factor)
        crop, flipped = self._colored(cut(sequence.read(frame), square, self.size), gray, source)
        box = into_square(sequence.boxes[frame], square)
        if flipped:
            box = torch.stack([1 - box[0] - box[2], *box[1:]])
        return crop, clip_boxes(box).float()

    def _colored(self, crop: Tensor, gray: bool, source: torch.Generator) -> tuple[Tensor, bool]:
        """A crop in other light, and whether it is mirrored."""
        light, mirror = sampling.uniform((2,), source).tolist()
        values = crop.float() * (1 + self.jitter.brightness * (2 * light - 1))
        if gray:
            values = torch.einsum("chw,c->hw", values, torch.tensor(_GRAY)).expand_as(values)
        flipped = mirror < self.jitter.flip
        values = values.flip(-1) if flipped else values
        return values.round().clamp(0, 255).byte(), flipped


def _below(count: int, source: torch.Generator) -> int:
    """A uniform integer in [0, count)."""
    return min(int(sampling.uniform((), source) * count), count - 1)
