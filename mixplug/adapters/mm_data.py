"""mm data sets: ``dataset=dict(type='mixplug.Digits', split='train')``."""

from __future__ import annotations

from typing import ClassVar

from mmengine.dataset import BaseDataset

from mixplug.data.digits import NUM_CLASSES, digits
from mixplug.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """scikit-learn's digits for mmpretrain, as RGB arrays: nothing is read from disk.

    Args:
        split: 'train' or 'test'.
        size: side of the images.
        pipeline: transforms; ``img`` (H, W, 3) uint8 and ``gt_label`` are there from the start.
        **options: of mmengine's BaseDataset.
    """

    METAINFO: ClassVar[dict] = {"classes": tuple(str(k) for k in range(NUM_CLASSES))}

    def __init__(self, split: str, size: int = 16, pipeline: list = (), **options: object) -> None:
        self.split, self.size = split, size
        super().__init__(pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image."""
        images, labels = digits(self.split, self.size)
        arrays = (images * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
        shape = (self.size, self.size)
        return [
            {"img": img.copy(), "gt_label": label, "img_shape": shape, "ori_shape": shape}
            for img, label in zip(arrays, labels.tolist(), strict=True)
        ]
