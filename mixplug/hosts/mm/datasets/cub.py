"""CUB200-2011 with boxes for mmengine: ``dataset=dict(type='mixplug.CUBBoxes', ...)``."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from mixplug.data.cub import birds
from mixplug.image_files import check_orientation
from mixplug.registry import DATASETS


@DATASETS.register_module()
class CUBBoxes(BaseDataset):
    """CUB200-2011 with the box of each bird, for weakly supervised localization.

    Labels are those of mmpretrain's CUB, which has no boxes. Training does not use the boxes: they
    are metainfo of data samples, ``true_boxes`` (1, 4) float64, left, top, right and bottom in
    pixels of the image on disk.

    Args:
        data_root: the folder CUB_200_2011, or its parent.
        split: 'train' or 'test'.
        pipeline: transforms; the first one gets ``img_path`` and ``gt_label``.
        check: whether an incomplete data set is an error; False accepts subsets.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: see :func:`mixplug.data.cub.birds`.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        pipeline: list = (),
        check: bool = True,
        **options: object,
    ) -> None:
        self.split, self.check = split, check
        super().__init__(data_root=data_root, pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image; the names of the classes go to ``metainfo``."""
        found = birds(self.data_root, self.split, self.check)
        self._metainfo.setdefault("classes", found.class_names)
        return [
            {"img_path": path, "gt_label": label, "true_boxes": box[None]}
            for path, label, box in zip(
                found.paths, found.labels.tolist(), found.boxes, strict=True
            )
        ]

    def prepare_data(self, idx: int) -> Any:
        """An example after the pipeline; its data sample has the box in its metainfo.

        Raises:
            ValueError: the image has an EXIF orientation, which its box does not follow.
        """
        check_orientation(self.get_data_info(idx)["img_path"])  # mmcv would turn the image
        item = super().prepare_data(idx)
        sample = item.get("data_samples") if isinstance(item, dict) else None
        if isinstance(sample, BaseDataElement):
            sample.set_metainfo({"true_boxes": self.get_data_info(idx)["true_boxes"]})
        return item

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an example, in a list."""
        return [self.get_data_info(idx)["gt_label"]]
