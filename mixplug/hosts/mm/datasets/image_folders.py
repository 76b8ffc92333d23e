"""Folders as those of ImageNet, for mixplug.KNNAccuracy: ``type='mixplug.ImageFolders'``."""

from __future__ import annotations

from mixplug.data.image_folders import image_folders
from mixplug.hosts.mm.datasets.retrieval import RetrievalDataset
from mixplug.registry import DATASETS

_ROLES = {"train": "train", "val": "query"}


@DATASETS.register_module()
class ImageFolders(RetrievalDataset):
    """Images of train/CLASS/ or val/CLASS/, with the roles that mixplug.KNNAccuracy needs.

    Args:
        data_root: the folder with train and val.
        split: 'train', whose images are neighbors, or 'val', whose images are queries.
        pipeline: transforms; the first one gets ``img_path`` and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: another split, or see :func:`mixplug.data.image_folders.image_folders`.
    """

    def __init__(
        self, data_root: str, split: str = "train", pipeline: list = (), **options: object
    ) -> None:
        if split not in _ROLES:
            raise ValueError(f"ImageFolders needs a split in {tuple(_ROLES)}, got {split!r}.")
        super().__init__("folder", data_root, split, pipeline, role=_ROLES[split], **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image; the names of the classes go to ``metainfo``."""
        found = dict(zip(_ROLES, image_folders(self.data_root), strict=True))[self.split]
        self._metainfo.setdefault("classes", tuple(found.classes))
        return [
            {"img_path": path, "gt_label": label, "role": self.role}
            for path, label in zip(found.paths, found.labels.tolist(), strict=True)
        ]
