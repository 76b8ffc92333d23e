"""Out-of-distribution images in the size of the test images: folders of images, and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from mixplug.data.noise import Noise
from mixplug.data.unlabeled import Unlabeled, plain, shared_classes
from mixplug.evaluation.card.settings import FIT, Settings
from mixplug.evaluation.card.subject import Stream
from mixplug.renamed import renamed_names

_NO_LABEL = -1
_NAMED = 3  # classes that a warning names


class WithoutLabels(Dataset[tuple[Tensor, int]]):
    """Images with the label -1, for a :class:`~mixplug.evaluation.card.Stream`.

    Args:
        images: data set of images.
    """

    def __init__(self, images: Dataset[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image, and -1."""
        return self.images[index], _NO_LABEL


def ood_streams(settings: Settings, test: Stream) -> list[Stream]:
    """The out-of-distribution sets and the noise of the settings; none if the part is not wanted.

    Images have the size of the test images.

    Raises:
        ValueError: a folder does not exist or has no images, or the test images are not square.
    """
    if "ood" not in settings.parts:
        return []
    shape = tuple(test.dataset[0][0].shape)
    made = list(_folders(settings, shape))
    for kind in settings.noise:
        images = Noise(kind, len(test), shape, settings.seed)
        fingerprint = f"{kind} {len(test)} {shape} {settings.seed}"
        made.append(Stream(f"{kind} noise", WithoutLabels(images), fingerprint))
    return made


def _folders(settings: Settings, shape: Sequence[int]) -> Iterator[Stream]:
    if settings.ood and (shape[1] != shape[2] or shape[0] != 3):
        raise ValueError(
            f"Out-of-distribution sets are resized to squares in color, but the test images are "
            f"{' x '.join(map(str, shape))}."
        )
    for one in settings.ood:
        name, how = one.get("name", str(one["root"])), one.get("fit", FIT)
        images = Unlabeled(one["root"], shape[1], how)
        fingerprint = fingerprint_of_files(images.paths, f"{how} {shape[1]}")
        yield Stream(name, WithoutLabels(images), fingerprint)


def fingerprint_of_files(paths: Sequence[str | Path], processing: str) -> str:
    """Hash of the names, sizes and modification times of files, and of how they are processed."""
    digest = hashlib.sha256(processing.encode())
    for path in paths:
        found = Path(path).stat()
        digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def overlaps(settings: Settings, classes: Sequence[str]) -> list[str]:
    """Warnings about out-of-distribution folders with the names of classes of the training set."""
    warnings = []
    for one in settings.ood if "ood" in settings.parts else ():
        own = {plain(Path(one["root"]).name), plain(one.get("name", ""))}
        shared = [name for name in classes if plain(name) in own]
        shared += shared_classes(classes, one["root"])
        if shared:
            more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
            warnings.append(
                f"{one.get('name', one['root'])} contains classes of the training set, which are "
                f"not out of distribution: {', '.join(shared[:_NAMED])}{more}."
            )
    return warnings


__getattr__ = renamed_names(
    __name__,
    {"Unnamed": WithoutLabels, "outside": ood_streams, "of_files": fingerprint_of_files},
)
