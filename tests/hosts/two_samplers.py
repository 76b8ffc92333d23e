"""What one of two processes draws with mm's samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

LABELS = [k for k in range(4) for _ in range(3 + k)]


class Rows(BaseDataset):
    """As many of mmengine's data sets: it has ``gt_label`` and no ``get_cat_ids``."""

    def __init__(self, labels: list[Any], **options: Any) -> None:
        self.labels = labels
        super().__init__(**options)

    def load_data_list(self) -> list[dict]:
        return [{"gt_label": label} if label is not None else {} for label in self.labels]


def work(rank: int, out: Path) -> dict[str, Any]:
    """On rank ``rank`` of 2."""
    m_per_class = {"type": "mixplug.MPerClassSampler", "m": 3, "batch_size": 6, "length": 120}
    balanced = {"type": "mixplug.ClassBalancedSampler", "length": 60}
    drawn = {}
    for name, sampler, seed in (
        ("m per class", m_per_class, 3),
        ("unseeded", m_per_class, None),
        ("balanced", balanced, 3),
    ):
        config = {"batch_size": 6, "dataset": Rows(LABELS), "sampler": sampler, "num_workers": 0}
        built = Runner.build_dataloader(config, seed=seed).sampler
        drawn[name] = (built.seed, list(built))
    return drawn
