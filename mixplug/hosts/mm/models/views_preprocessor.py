"""The data preprocessor of self-distillation: it normalizes views on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor

from mixplug.models.self_distillation import Views
from mixplug.registry import MODELS

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of R, G and B


@MODELS.register_module()
class ViewsPreprocessor(ClsDataPreprocessor):
    """Moves views to the device of the model and normalizes them there.

    Images, for evaluation, are treated as by mmpretrain's ClsDataPreprocessor.

    Args:
        mean: mean of the channels R, G and B, for pixels in [0, 255].
        std: standard deviation of the channels R, G and B.
        to_rgb: whether images are BGR; views are always RGB.
        **options: further keys of mmpretrain's ClsDataPreprocessor, for images.
    """

    def __init__(
        self,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        to_rgb: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, **options)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """A dictionary with ``views`` if the data has ``large`` ones, or what mmpretrain returns.

        Args:
            data: a batch of B items, stacked or in lists: views ``large`` and optionally ``small``,
                or images.
            training: as mmengine gives it; not used for views.

        Returns:
            ``views`` is a :class:`mixplug.models.self_distillation.Views`.
        """
        if "large" not in data:
            return super().forward(data, training)
        small = data.get("small")
        return {
            "views": Views(
                self._normalized(data["large"]),
                None if small is None else self._normalized(small),
            )
        }

    def _normalized(self, items: Tensor | Sequence[Tensor]) -> Tensor:
        """B times (V, T, 3, H, W) uint8 to (V, B, T, 3, H, W) float32."""
        # bytes are moved to the device, and become floats there
        items = self.cast_data(items)
        views = items.transpose(0, 1) if isinstance(items, Tensor) else torch.stack(items, 1)
        return (views.float() - self.mean).div_(self.std)
