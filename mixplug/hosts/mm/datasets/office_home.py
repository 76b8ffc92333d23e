"""Office-Home with an unseen domain and unknown classes: ``type='mixplug.OfficeHome'``."""

from __future__ import annotations

from mmengine.dataset import BaseDataset

from mixplug.data.office_home import CLASSES, KNOWN, open_domain
from mixplug.registry import DATASETS


@DATASETS.register_module()
class OfficeHome(BaseDataset):
    """Office-Home with an unseen domain and unknown classes (Table 5.8).

    See :func:`mixplug.data.open_domain`. An image has ``gt_label`` in [0, 54), or 54 if its class
    is not trained on. Its ``domain`` is for
    ``sampler=dict(type='mixplug.ClassBalancedSampler', key='domain')``.

    Args:
        target: the unseen domain, 'Art', 'Clipart', 'Product' or 'Real World'.
        split: 'train' or 'val' of the other three domains, or 'test' of the target.
        data_root: the folder with the four domains.
        pipeline: transforms; the first one gets ``img_path`` and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: see :func:`mixplug.data.office_home.open_domain`.
    """

    def __init__(
        self,
        target: str,
        split: str = "train",
        data_root: str = "",
        pipeline: list = (),
        **options: object,
    ) -> None:
        self.target, self.split = target, split
        super().__init__(data_root=data_root, pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image; the names of the known classes go to ``metainfo``."""
        found = open_domain(self.data_root, self.target, self.split)
        self._metainfo.update(classes=CLASSES[:KNOWN], lists=found.lists)
        return [
            {"img_path": path, "gt_label": label, "domain": domain}
            for path, label, domain in zip(found.paths, found.labels, found.domains, strict=True)
        ]
