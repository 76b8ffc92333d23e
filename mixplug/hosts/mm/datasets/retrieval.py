"""Data sets of metric learning: ``dataset=dict(type='mixplug.Digits', split='train')``."""

from __future__ import annotations

from typing import Any, ClassVar

from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement
from torch import Tensor

from mixplug.data.digits import NUM_CLASSES, digits
from mixplug.data.retrieval import retrieval_set
from mixplug.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """The digits of scikit-learn as RGB images, for mmpretrain. Nothing is read from disk.

    Args:
        split: 'train' or 'test'.
        size: side of the images in pixels.
        pipeline: transforms; the first one gets ``img`` (H, W, 3) uint8 and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.
    """

    METAINFO: ClassVar[dict] = {"classes": tuple(str(k) for k in range(NUM_CLASSES))}

    def __init__(self, split: str, size: int = 16, pipeline: list = (), **options: object) -> None:
        self.split, self.size = split, size
        super().__init__(pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image."""
        images, labels = digits(self.split, self.size)
        return [
            {**image, "gt_label": label}
            for image, label in zip(_arrays(images), labels.tolist(), strict=True)
        ]


@DATASETS.register_module()
class RetrievalDataset(BaseDataset):
    """A data set of metric learning: its test classes are other classes than those in training.

    Args:
        name: 'cub200', 'cars196', 'sop', 'inshop', 'folder' or 'digits'.
        data_root: its folder, see :func:`mixplug.data.retrieval_set`; not for 'digits'.
        split: 'train' or 'test'; for 'inshop' 'train', 'query' or 'gallery'.
        pipeline: transforms; the first one gets ``img_path`` and ``gt_label``, for 'digits' ``img``
            (H, W, 3) uint8 instead of the path.
        check: whether an incomplete data set is an error; False accepts subsets.
        size: side of the images in pixels, for 'digits' only.
        role: what its images are for an evaluator, 'query', 'gallery' or 'train'; None takes the
            name of the split, and 'query' for 'test'.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.
    """

    def __init__(
        self,
        name: str,
        data_root: str = "",
        split: str = "train",
        pipeline: list = (),
        check: bool = True,
        size: int = 16,
        role: str | None = None,
        **options: object,
    ) -> None:
        self.name, self.split, self.check, self.size = name, split, check, size
        self.role = role or ("query" if split == "test" else split)
        super().__init__(data_root=data_root, pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image; the names of the classes go to ``metainfo``."""
        found = retrieval_set(
            self.name, self.data_root or None, self.split, check=self.check, size=self.size
        )
        self._metainfo.setdefault("classes", found.class_names)
        paths = [{"img_path": path} for path in found.paths]
        images = paths if found.images is None else _arrays(found.images)
        return [
            {**image, "gt_label": label, "role": self.role}
            for image, label in zip(images, found.labels, strict=True)
        ]

    def prepare_data(self, idx: int) -> Any:
        """An example after the pipeline; its data sample has the role in its metainfo.

        It is set here because packing transforms drop keys that are not named in their config, and
        an evaluation without roles would be wrong silently.
        """
        item = super().prepare_data(idx)
        sample = item.get("data_samples") if isinstance(item, dict) else None
        if isinstance(sample, BaseDataElement):
            sample.set_metainfo({"role": self.role})
        return item

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an example, in a list."""
        return [self.get_data_info(idx)["gt_label"]]


def _arrays(images: Tensor) -> list[dict]:
    """Records, as a pipeline needs them, of images (B, 1, H, W) in [0, 1] that are in memory."""
    shape = tuple(images.shape[-2:])
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    return [{"img": array.copy(), "img_shape": shape, "ori_shape": shape} for array in arrays]
