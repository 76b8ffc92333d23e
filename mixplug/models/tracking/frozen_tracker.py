"""Single-object tracking with a frozen vision transformer and a small decoder (§6.5.3) [0].

The encoder takes template crops, which show the object, together with a search crop, in which the
object is to be found. The decoder predicts the box from the patch tokens of the search crop. Only
the decoder is trained. The templates influence the search crop through the attention of the
encoder, so they are encoded again in every frame. Separate encoding would allow reusing their
features, but the frozen encoder would then not relate the crops, and the small decoder would have
to learn this.

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

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet, RGB


class FrozenTracker(nn.Module):
    """A tracker with a frozen encoder. Only its decoder is trained.

    Args:
        backbone: a vision transformer of timm or mmpretrain with a class token. It is frozen: it
            receives no gradients and is always in eval mode.
        size: side S of templates and search crops, in pixels.
        templates: number V of templates. The first one is cropped around the given box, the others
            around boxes predicted later.
        template_factor: side of a template crop divided by the geometric mean of width and height
            of the box.
        search_factor: the same for the search crop.
        window: whether a Hann window makes centers far from the previous one less likely.
        update_interval: number of frames between template updates; 0 disables updates.
        update_confidence: smallest sum of the likelihoods of the four tokens for a template update
            (exclusive). SeqTrack uses 0.6 for ten times this sum.
        mean: mean of R, G and B in [0, 255].
        std: standard deviation of R, G and B in [0, 255].
        **decoder: options of :class:`mixplug.models.tracking.BoxDecoder`.

    Raises:
        ValueError: ``size`` is not a multiple of the patch size, fewer than one template, a factor
            is not > 0; see also :func:`mixplug.models.vit.as_encoder` and ``BoxDecoder``.
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
        backbone.eval()  # not chained: eval() of mmpretrain's backbones returns None
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
        """Set the mode of the decoder. The backbone remains in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def loss(self, template: Tensor, search: Tensor, boxes: Tensor) -> Tensor:
        """Cross-entropy of the five predicted tokens of a box, with teacher forcing.

        Args:
            template: templates, (B, V, 3, S, S), RGB in [0, 255].
            search: search crops, (B, 3, S, S), RGB in [0, 255].
            boxes: left, top, width and height in fractions of the side of the search crop, (B, 4).
                They are clipped to the crop.

        Returns:
            Scalar, the mean over tokens and examples.

        Raises:
            ValueError: wrong shapes.
        """
        tokens = box_tokens(boxes, self.decoder.bins)
        inputs, targets = teacher_forcing(tokens, self.decoder.bins)
        logits = self.decoder(self.encode(template, search), inputs)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def encode(self, template: Tensor, search: Tensor) -> Tensor:
        """Patch tokens (B, N, D) of search crops, which attend to the templates.

        Args:
            template: templates, (B, V, 3, S, S), RGB in [0, 255].
            search: search crops, (B, 3, S, S), RGB in [0, 255].

        Raises:
            ValueError: wrong shapes.
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
        """Track an object through a video. Each search crop is around the previous box.

        Args:
            frames: frames, (3, H, W) uint8, RGB, on the CPU. They are consumed one by one.
            box: left, top, width and height in the first frame, in pixels.
            tick: function to call after every frame, such as the update of a progress bar.

        Returns:
            Left, top, width and height in every frame, (T, 4) float64 on the CPU. The first row is
            ``box``.

        Raises:
            ValueError: no frames, or a box without area.
        """
        was_training = self.training
        self.eval()
        try:
            boxes = list(self._boxes(frames, [float(number) for number in box], tick))
        finally:
            self.train(was_training)
        if not boxes:
            raise ValueError("FrozenTracker.track needs at least one frame, got none.")
        return torch.tensor(boxes, dtype=torch.float64)

    def _boxes(
        self, frames: Iterable[Tensor], state: list[float], tick: Callable[[], None] | None
    ) -> Iterator[list[float]]:
        """Yield the box of every frame, starting with the given box ``state``."""
        templates: list[Tensor] = []
        for number, frame in enumerate(frames):
            if number == 0:
                templates = [self._crop(frame, state, self.template_factor)] * self.templates
            else:
                state, confidence = self._step(frame, state, templates)
                if self._needs_update(number, confidence):
                    # keep the first template, and replace the oldest of the others
                    newest = self._crop(frame, state, self.template_factor)
                    templates = [templates[0], *templates[2:], newest]
            yield state
            if tick is not None:
                tick()

    def _step(
        self, frame: Tensor, state: list[float], templates: list[Tensor]
    ) -> tuple[list[float], float]:
        """The box in a frame, and its confidence."""
        square = square_around(state, self.search_factor)
        search = cut(frame, square, self.size).to(self.mean.device)
        patches = self.encode(torch.stack(templates)[None], search[None])
        window = self.center_window if self.window else None
        tokens, likelihoods = self.decoder.read(patches, window)
        # One transfer per frame, which the position of the next crop needs.
        *values, confidence = torch.cat(
            [tokens[0].double(), likelihoods[0].double().sum()[None]]
        ).tolist()
        in_crop = token_boxes(torch.tensor([values]), self.decoder.bins).double()
        box = out_of_square(in_crop, square)[0].tolist()
        return keep_inside(box, frame.shape[-2], frame.shape[-1]), confidence

    def _needs_update(self, number: int, confidence: float) -> bool:
        due = self.update_interval > 0 and number % self.update_interval == 0
        return due and self.templates > 1 and confidence > self.update_confidence

    def _crop(self, frame: Tensor, box: list[float], factor: float) -> Tensor:
        return cut(frame, square_around(box, factor), self.size).to(self.mean.device)
