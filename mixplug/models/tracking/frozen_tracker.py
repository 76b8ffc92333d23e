"""Tracking one object by frozen features: a vision transformer and a small decoder (6.5.3) [0].

Template crops, which show the object, and a search crop, where it is sought, go through the encoder
side by side; the decoder reads the box out of the patch tokens of the search crop. Only the decoder
learns. As templates act through the encoder's attention alone, their features cannot be kept from
one frame to the next; encoding every crop by itself could, but then a frozen network would not
relate them at all, which the decoder of two blocks would have to learn.

Letters: B examples, V templates, S side of a crop, N patches of a crop, T frames.

- [0]: SeqTrack: Sequence to Sequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.functional.box_tokens import (
    box_tokens,
    center_window,
    teacher_forcing,
    token_boxes,
)
from mixplug.functional.crops import cut, keep_inside, out_of_square, square_around
from mixplug.models.tracking.box_decoder import BoxDecoder
from mixplug.models.vit.encoder import as_encoder
from mixplug.models.vit.side_by_side import joint_patches

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of R, G and B


class FrozenTracker(nn.Module):
    """A tracker of which only the decoder learns.

    Args:
        backbone: a vision transformer of timm or mmpretrain with a class token. It is frozen: no
            gradients, and in eval mode always.
        size: S, of templates and search crops.
        templates: V. The first is cut where the box is given, the others where it was found later.
        template_factor: of the crop's side, over the geometric mean of the box's sides.
        search_factor: likewise.
        window: whether a center far from the last one is less likely, by a Hann window.
        update_interval: frames from one new template to the next; 0 has none.
        update_confidence: sum of the four tokens' likelihoods above which one is taken. SeqTrack's
            is 0.6 of ten times that sum.
        mean: of R, G and B in [0, 255].
        std: likewise.
        **decoder: keys of :class:`mixplug.models.tracking.BoxDecoder`.

    Raises:
        ValueError: a size that patches do not divide, fewer than one template, factors that are not
            above 0; and see :func:`mixplug.models.vit.as_encoder` and ``BoxDecoder``.
    """

    mean: Tensor
    std: Tensor
    center_window: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        size: int = 256,
        templates: int = 2,
        template_factor: float = 4.0,
        search_factor: float = 4.0,
        window: bool = True,
        update_interval: int = 1,
        update_confidence: float = 0.06,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        **decoder: Any,
    ) -> None:
        super().__init__()
        if templates < 1 or update_interval < 0 or not min(template_factor, search_factor) > 0:
            raise ValueError(
                f"FrozenTracker needs templates >= 1, update_interval >= 0 and factors > 0, got "
                f"{templates}, {update_interval}, {template_factor} and {search_factor}."
            )
        self.view = as_encoder(backbone)
        rows, columns = self.view.grid((size, size))
        self.backbone = backbone.requires_grad_(False)
        backbone.eval()  # not chained: that of mmpretrain gives nothing back
        self.decoder = BoxDecoder(self.view.width, rows * columns, **decoder)
        self.size, self.templates = size, templates
        self.template_factor, self.search_factor = template_factor, search_factor
        self.update_interval, self.update_confidence = update_interval, update_confidence
        self.window = window
        plain = {"mean": torch.tensor(mean), "std": torch.tensor(std)}
        for name, value in plain.items():
            self.register_buffer(name, value[:, None, None], persistent=False)
        self.register_buffer("center_window", center_window(self.decoder.bins), persistent=False)

    def train(self, mode: bool = True) -> FrozenTracker:
        """Set the mode of the decoder: the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def loss(self, template: Tensor, search: Tensor, boxes: Tensor) -> Tensor:
        """Cross-entropy of the five words of a box, each given those before it.

        Args:
            template: (B, V, 3, S, S) in [0, 255], RGB.
            search: (B, 3, S, S), likewise.
            boxes: (B, 4) in the search crop: left, top, width and height in shares of its side;
                parts outside do not count.

        Returns:
            Mean over words and examples.

        Raises:
            ValueError: shapes are not these.
        """
        tokens = box_tokens(boxes, self.decoder.bins)
        given, wanted = teacher_forcing(tokens, self.decoder.bins)
        logits = self.decoder(self.encode(template, search), given)
        return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())

    @torch.no_grad()
    def encode(self, template: Tensor, search: Tensor) -> Tensor:
        """Patch tokens of search crops that attend to templates, (B, N, D).

        Args:
            template: (B, V, 3, S, S) in [0, 255], RGB.
            search: (B, 3, S, S), likewise.

        Raises:
            ValueError: shapes are not these.
        """
        crop = (3, self.size, self.size)
        if search.shape[1:] != crop or template.shape != (len(search), self.templates, *crop):
            raise ValueError(
                f"FrozenTracker needs templates (B, {self.templates}, {', '.join(map(str, crop))}) "
                f"and search crops (B, {', '.join(map(str, crop))}), got {tuple(template.shape)} "
                f"and {tuple(search.shape)}."
            )
        crops = torch.cat([search[:, None], template], 1)
        return joint_patches(self.view, (crops.float() - self.mean) / self.std)[:, 0]

    @torch.no_grad()
    def track(
        self,
        frames: Iterable[Tensor],
        box: Sequence[float] | Tensor,
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """The object's box in every frame.

        It is sought around where it was in the last one.

        Args:
            frames: (3, H, W) uint8, RGB, on the CPU; they are asked for one by one.
            box: of the first frame: left, top, width and height in pixels.
            tick: called after every frame.

        Returns:
            (T, 4) float64 on the CPU; the first row is ``box``.

        Raises:
            ValueError: no frames, or a box without area.
        """
        was_training = self.training
        self.eval()
        try:
            found = list(self._boxes(frames, [float(number) for number in box], tick))
        finally:
            self.train(was_training)
        if not found:
            raise ValueError("FrozenTracker.track needs one frame at least, got none.")
        return torch.tensor(found, dtype=torch.float64)

    def _boxes(
        self, frames: Iterable[Tensor], state: list[float], tick: Callable[[], None] | None
    ) -> Iterator[list[float]]:
        """The box of every frame, the given one first."""
        shown: list[Tensor] = []
        for number, frame in enumerate(frames):
            if number == 0:
                shown = [self._crop(frame, state, self.template_factor)] * self.templates
            else:
                state, confidence = self._step(frame, state, shown)
                if self._renew(number, confidence):
                    # the first stays, the oldest of the others goes
                    newest = self._crop(frame, state, self.template_factor)
                    shown = [shown[0], *shown[2:], newest]
            yield state
            if tick is not None:
                tick()

    def _step(
        self, frame: Tensor, state: list[float], shown: list[Tensor]
    ) -> tuple[list[float], float]:
        """The box in a frame, and how sure it is."""
        square = square_around(state, self.search_factor)
        search = cut(frame, square, self.size).to(self.mean.device)
        patches = self.encode(torch.stack(shown)[None], search[None])
        tokens, likely = self.decoder.read(patches, self.center_window if self.window else None)
        # one transfer per frame: where the next crop is depends on it
        *words, confidence = torch.cat(
            [tokens[0].double(), likely[0].double().sum()[None]]
        ).tolist()
        inside = token_boxes(torch.tensor([words]), self.decoder.bins).double()
        box = out_of_square(inside, square)[0].tolist()
        return keep_inside(box, frame.shape[-2], frame.shape[-1]), confidence

    def _renew(self, number: int, confidence: float) -> bool:
        due = self.update_interval > 0 and number % self.update_interval == 0
        return due and self.templates > 1 and confidence > self.update_confidence

    def _crop(self, frame: Tensor, box: list[float], factor: float) -> Tensor:
        return cut(frame, square_around(box, factor), self.size).to(self.mean.device)
