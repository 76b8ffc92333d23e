"""Office-Home with the label sets of open-domain generalization (Table 5.8).

Three domains train, each with classes of its own, and the fourth tests, with classes that some of
them have and classes that none has. Which, is :data:`CLASSES` and :func:`label_sets`: the official
setting of [0], in the order of classes of its authors' lists. Nothing is downloaded.

- [0]: Open Domain Generalization with Domain-Augmented Meta-Learning, 2021,
  https://arxiv.org/abs/2104.03620, https://github.com/thuml/OpenDG-DAML
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixplug.data.unlabeled import plain
from mixplug.video.fingerprint import IMAGE_SUFFIXES

DOMAINS = ("Art", "Clipart", "Product", "Real World")
# fmt: off
CLASSES = (  # of all 65, as numbered by the authors of [0]
    "Drill", "Exit_Sign", "Bottle",  # in three domains
    "Glasses", "Computer", "File_Cabinet", "Shelf", "Toys", "Sink",  # in the first and second
    "Laptop", "Kettle", "Folder", "Keyboard", "Flipflops", "Pencil",  # in the first and third
    "Bed", "Hammer", "ToothBrush", "Couch", "Bike", "Postit_Notes",  # in the second and third
    "Mug", "Webcam", "Desk_Lamp", "Telephone", "Helmet", "Mouse", "Pen", "Monitor", "Mop",
    "Sneakers", "Notebook",  # in the first
    "Backpack", "Alarm_Clock", "Push_Pin", "Paper_Clip", "Batteries", "Radio", "Fan", "Ruler",
    "Pan", "Screwdriver", "Trash_Can",  # in the second
    "Printer", "Speaker", "Eraser", "Bucket", "Chair", "Calendar", "Calculator", "Flowers",
    "Lamp_Shade", "Spoon", "Candles",  # in the third
    "Clipboards", "Scissors", "TV", "Curtains", "Fork", "Soda", "Table", "Knives", "Oven",
    "Refrigerator", "Marker",  # in none
)
# fmt: on
KNOWN = 54  # so many first classes are trained on; an image of another has this label
SPLITS = ("train", "val", "test")
_TRAIN = 0.9  # of the images of a class, where there are no lists of which
_LAYOUT = (
    "It needs the folders Art, Clipart, Product and Real World (or Real_World) of "
    "OfficeHomeDataset, with a folder per class in each."
)


@dataclass(frozen=True)
class OpenDomain:
    """Images of one split.

    Attributes:
        paths: in the order of domains, classes and names.
        labels: number of the class, or :data:`KNOWN` for a class that is not trained on.
        domains: place of the domain in :data:`DOMAINS`.
        lists: whether train and val were told apart by the authors' lists.
    """

    paths: Sequence[str]
    labels: Sequence[int]
    domains: Sequence[int]
    lists: bool

    def __len__(self) -> int:
        return len(self.paths)


def sources(target: str) -> tuple[str, ...]:
    """The three domains that train, first to third: the others, in alphabetical order.

    Raises:
        ValueError: no domain of that name.
    """
    if plain(target) not in map(plain, DOMAINS):
        raise ValueError(f"Office-Home has the domains {', '.join(DOMAINS)}, got {target!r}.")
    return tuple(domain for domain in DOMAINS if plain(domain) != plain(target))


def label_sets() -> tuple[tuple[int, ...], ...]:
    """Numbers of the classes in the first, second and third source, and in the target.

    Sources have 26 each, 54 together; the target has 16 of these and the 11 of no source.
    """
    everywhere, one_two, one_three, two_three = (
        range(0, 3), range(3, 9), range(9, 15), range(15, 21),
    )  # fmt: skip
    own = (range(21, 32), range(32, 43), range(43, 54))
    met = (everywhere[:1], *(pair[:2] for pair in (one_two, one_three, two_three)))
    sets = (
        (everywhere, one_two, one_three, own[0]),
        (everywhere, one_two, two_three, own[1]),
        (everywhere, one_three, two_three, own[2]),
        (*met, *(alone[:3] for alone in own), range(KNOWN, len(CLASSES))),
    )
    return tuple(tuple(number for part in parts for number in part) for parts in sets)


def open_domain(root: str | Path, target: str, split: str) -> OpenDomain:
    """The images of a split of the setting in which ``target`` is the unseen domain.

    'test' has all images of the target's classes. Of each class of a source, 'train' has nine
    tenths and 'val' the rest: by the authors' lists ``image_list/Art_train.txt`` and so on where
    ``root`` has that folder, else the first in the order of names. Lists and names differ in which
    images that are, and so in which epoch is best, but not in the test.

    Args:
        root: folder with the four domains.
        target: of :data:`DOMAINS`.
        split: of :data:`SPLITS`.

    Raises:
        ValueError: an unknown target or split, a folder that is missing or empty, or a list that
            names images that are not there.
    """
    names, home = sources(target), Path(root)
    if split not in SPLITS:
        raise ValueError(f"Office-Home has the splits {', '.join(SPLITS)}, got {split!r}.")
    *own, met = label_sets()
    wanted = [(target, met)] if split == "test" else list(zip(names, own, strict=True))
    lists = split != "test" and (home / "image_list").is_dir()
    rows: list[tuple[str, int, int]] = []
    for name, numbers in wanted:
        number = [plain(domain) for domain in DOMAINS].index(plain(name))
        folder = _folder(home, DOMAINS[number], home)
        listed = _listed(home, DOMAINS[number], folder, split) if lists else None
        for k in numbers:
            files = _images(folder, CLASSES[k], home)
            if listed is not None:
                files = [file for file in files if file in listed]
            elif split != "test":
                cut = int(_TRAIN * len(files))
                files = files[:cut] if split == "train" else files[cut:]
            rows += [(str(file), min(k, KNOWN), number) for file in files]
    if not rows:
        raise ValueError(f"{home}: no image of the classes of {split} is in its lists. {_LAYOUT}")
    paths, labels, domains = zip(*rows, strict=True)
    return OpenDomain(paths, labels, domains, lists)


def _folder(parent: Path, name: str, root: Path) -> Path:
    """The folder of a domain or class, however blanks and capitals are written."""
    found = [f for f in _folders(parent) if plain(f.name) == plain(name)]
    if not found:
        raise ValueError(f"{root} is no Office-Home: {parent} has no folder {name}. {_LAYOUT}")
    return found[0]


def _folders(parent: Path) -> Iterator[Path]:
    return (f for f in sorted(parent.iterdir()) if f.is_dir()) if parent.is_dir() else iter(())


def _images(domain: Path, name: str, root: Path) -> list[Path]:
    folder = _folder(domain, name, root)
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{root} is no Office-Home: {folder} has no images. {_LAYOUT}")
    return files


def _listed(root: Path, domain: str, folder: Path, split: str) -> set[Path]:
    """Images in the authors' list of a domain: lines such as 'Real_World/Mug/00001.jpg 21'."""
    path = root / "image_list" / f"{domain.replace(' ', '_')}_{split}.txt"
    if not path.is_file():
        raise ValueError(f"{root} has a folder image_list, but no {path.name} in it.")
    theirs = {plain(f.name): f for f in _folders(folder)}
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            *_, kind, name = line.rsplit(maxsplit=1)[0].split("/")
            found.add(theirs.get(plain(kind), folder / kind) / name)
    gone = sorted(file for file in found if not file.is_file())
    if gone:
        raise ValueError(f"{path} names {len(gone):,} images that are not there, first {gone[0]}.")
    return found
