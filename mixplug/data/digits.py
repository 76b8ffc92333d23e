"""The 1797 handwritten digits of scikit-learn, with a fixed split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug.optional import optional

SPLITS = ("train", "test")
NUM_CLASSES = 10


def digits(split: str, size: int = 16) -> tuple[Tensor, Tensor]:
    """Real scans of handwritten digits, 8x8 pixels, enlarged.

    The test set is a third of each class. The split is fixed and depends on no seed.

    Args:
        split: 'train' (1198 images) or 'test' (599).
        size: side of the images; the scans are enlarged bilinearly from 8 pixels.

    Returns:
        Images (B, 1, size, size) in [0, 1] and classes (B,) int64.

    Raises:
        ValueError: an unknown split, or size < 8.
        ImportError: scikit-learn is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"digits needs split in {SPLITS}, got {split!r}.")
    if size < 8:
        raise ValueError(f"digits needs size >= 8, the size of the scans, got {size}.")
    datasets = optional("sklearn.datasets", "demo", "The digits data set")
    selection = optional("sklearn.model_selection", "demo", "The digits data set")
    bunch = datasets.load_digits()
    train, test = selection.train_test_split(
        torch.arange(len(bunch.target)).numpy(),
        test_size=1 / 3,
        stratify=bunch.target,
        random_state=0,
    )
    index = torch.from_numpy(train if split == "train" else test)
    images = torch.from_numpy(bunch.images).float()[index, None] / 16
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return images, torch.from_numpy(bunch.target)[index].long()
