"""Out-of-distribution images in the size of the test images: folders, and noise."""

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

_NO_LABEL = -1
_NAMED = 3  # classes of a warning


class Unnamed(Dataset[tuple[Tensor, int]]):
    """Images without labels, as a stream has them.

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


def outside(settings: Settings, test: Stream) -> list[Stream]:
    """The sets and the noise of settings, in the size of the test images; none if not asked for.

    Raises:
        ValueError: a folder that is not there or has no images; test images that are not square.
    """
    if "ood" not in settings.parts:
        return []
    shape = tuple(test.dataset[0][0].shape)
    made = list(_folders(settings, shape))
    for kind in settings.noise:
        images = Noise(kind, len(test), shape, settings.seed)
        print_of = f"{kind} {len(test)} {shape} {settings.seed}"
        made.append(Stream(f"{kind} noise", Unnamed(images), print_of))
    return made


def _folders(settings: Settings, shape: Sequence[int]) -> Iterator[Stream]:
    if settings.ood and (shape[1] != shape[2] or shape[0] != 3):
        raise ValueError(
            f"Out-of-distribution sets are brought to squares in color, but the test images are "
            f"{' x '.join(map(str, shape))}."
        )
    for one in settings.ood:
        name, how = one.get("name", str(one["root"])), one.get("fit", FIT)
        images = Unlabeled(one["root"], shape[1], how)
        yield Stream(name, Unnamed(images), of_files(images.paths, f"{how} {shape[1]}"))


def of_files(paths: Sequence[str | Path], made: str) -> str:
    """What tells files apart: names, sizes and when they were written, and what is made of them."""
    digest = hashlib.sha256(made.encode())
    for path in paths:
        found = Path(path).stat()
        digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def overlaps(settings: Settings, classes: Sequence[str]) -> list[str]:
    """Warnings about sets that have classes of the training set, by the names of their folders."""
    said = []
    for one in settings.ood if "ood" in settings.parts else ():
        own = {plain(Path(one["root"]).name), plain(one.get("name", ""))}
        shared = [name for name in classes if plain(name) in own]
        shared += shared_classes(classes, one["root"])
        if shared:
            more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
            said.append(
                f"{one.get('name', one['root'])} has classes that the network was trained on, "
                f"which are not out of distribution: {', '.join(shared[:_NAMED])}{more}."
            )
    return said
