"""Office-Home with the label sets of open-domain generalization (Table 5.8).

Three domains are the training sources; each has some classes that no other source has. The fourth
domain is the test target. Its images are of classes that some sources have and of classes that no
source has. :data:`CLASSES` and :func:`label_sets` define the classes of each domain. This is the
official setting of [0], with the class order of its authors' lists. Nothing is downloaded.

- [0]: Open Domain Generalization with Domain-Augmented Meta-Learning, 2021,
  https://arxiv.org/abs/2104.03620, https://github.com/thuml/OpenDG-DAML
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixplug.data.unlabeled import plain
from mixplug.image_files import image_files, subfolders

DOMAINS = ("Art", "Clipart", "Product", "Real World")
# fmt: off
CLASSES = (  # all 65 classes, in the order of the authors of [0]
    "Drill", "Exit_Sign", "Bottle",  # in all three sources
    "Glasses", "Computer", "File_Cabinet", "Shelf", "Toys", "Sink",  # in sources 1 and 2
    "Laptop", "Kettle", "Folder", "Keyboard", "Flipflops", "Pencil",  # in sources 1 and 3
    "Bed", "Hammer", "ToothBrush", "Couch", "Bike", "Postit_Notes",  # in sources 2 and 3
    "Mug", "Webcam", "Desk_Lamp", "Telephone", "Helmet", "Mouse", "Pen", "Monitor", "Mop",
    "Sneakers", "Notebook",  # in source 1
    "Backpack", "Alarm_Clock", "Push_Pin", "Paper_Clip", "Batteries", "Radio", "Fan", "Ruler",
    "Pan", "Screwdriver", "Trash_Can",  # in source 2
    "Printer", "Speaker", "Eraser", "Bucket", "Chair", "Calendar", "Calculator", "Flowers",
    "Lamp_Shade", "Spoon", "Candles",  # in source 3
    "Clipboards", "Scissors", "TV", "Curtains", "Fork", "Soda", "Table", "Knives", "Oven",
    "Refrigerator", "Marker",  # in no source
)
# fmt: on
KNOWN = 54  # number of training classes, the first ones; all other images have this label
SPLITS = ("train", "val", "test")
_TRAIN = 0.9  # share of a class' images for training if there are no lists
_LAYOUT = (
    "It needs the folders Art, Clipart, Product and Real World (or Real_World) of "
    "OfficeHomeDataset, with a folder per class in each."
)


@dataclass(frozen=True)
class OpenDomain:
    """Images of one split.

    Attributes:
        paths: paths of the images, sorted by domain, class and name.
        labels: class number, or :data:`KNOWN` for a class without training images.
        domains: index of the domain in :data:`DOMAINS`.
        lists: whether the authors' lists divided the images into train and val.
    """

    paths: Sequence[str]
    labels: Sequence[int]
    domains: Sequence[int]
    lists: bool

    def __len__(self) -> int:
        return len(self.paths)


def sources(target: str) -> tuple[str, ...]:
    """The three source domains for a target: all other domains, in alphabetical order.

    Raises:
        ValueError: an unknown domain.
    """
    if plain(target) not in map(plain, DOMAINS):
        raise ValueError(f"Office-Home has the domains {', '.join(DOMAINS)}; got {target!r}.")
    return tuple(domain for domain in DOMAINS if plain(domain) != plain(target))


def label_sets() -> tuple[tuple[int, ...], ...]:
    """Class numbers of the first, second and third source, and of the target.

    Each source has 26 classes, 54 in all. The target has 16 of these 54 classes and the 11 classes
    that no source has.
    """
    everywhere, one_two, one_three, two_three = (
        range(0, 3), range(3, 9), range(9, 15), range(15, 21),
    )  # fmt: skip
    own = (range(21, 32), range(32, 43), range(43, 54))
    shared = (everywhere[:1], *(pair[:2] for pair in (one_two, one_three, two_three)))
    sets = (
        (everywhere, one_two, one_three, own[0]),
        (everywhere, one_two, two_three, own[1]),
        (everywhere, one_three, two_three, own[2]),
        (*shared, *(single[:3] for single in own), range(KNOWN, len(CLASSES))),
    )
    return tuple(tuple(number for part in parts for number in part) for parts in sets)


def open_domain(root: str | Path, target: str, split: str) -> OpenDomain:
    """The images of a split of the setting in which ``target`` is the unseen domain.

    'test' has all images of the target's classes in the target. 'train' and 'val' divide the images
    of the sources: of each class, 'train' has nine tenths and 'val' the rest. If ``root`` has the
    folder ``image_list``, the authors' lists (``image_list/Art_train.txt`` and so on) decide;
    otherwise the first nine tenths in sorted order are 'train'. So the two ways differ in the
    choice of the best epoch, but not in the test images.

    Args:
        root: folder with the four domains.
        target: one of :data:`DOMAINS`.
        split: one of :data:`SPLITS`.

    Raises:
        ValueError: an unknown target or split, a missing or empty folder, or a list with missing
            images.
    """
    names, home = sources(target), Path(root)
    if split not in SPLITS:
        raise ValueError(f"Office-Home has the splits {', '.join(SPLITS)}; got {split!r}.")
    *of_sources, of_target = label_sets()
    trained = list(zip(names, of_sources, strict=True))
    wanted = [(target, of_target)] if split == "test" else trained
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
        raise ValueError(f"{home}: its lists have no image of the classes of {split}. {_LAYOUT}")
    paths, labels, domains = zip(*rows, strict=True)
    return OpenDomain(paths, labels, domains, lists)


def _folder(parent: Path, name: str, root: Path) -> Path:
    """The folder of a domain or class; case, blanks and underscores in its name do not matter."""
    found = [f for f in _folders(parent) if plain(f.name) == plain(name)]
    if not found:
        raise ValueError(
            f"{root} is not an Office-Home folder: {parent} has no folder {name}. {_LAYOUT}"
        )
    return found[0]


def _folders(parent: Path) -> list[Path]:
    return subfolders(parent) if parent.is_dir() else []


def _images(domain: Path, name: str, root: Path) -> list[Path]:
    folder = _folder(domain, name, root)
    files = image_files(folder)
    if not files:
        raise ValueError(f"{root} is not an Office-Home folder: {folder} has no images. {_LAYOUT}")
    return files


def _listed(root: Path, domain: str, folder: Path, split: str) -> set[Path]:
    """Images in the authors' list of a domain, with lines such as 'Real_World/Mug/00001.jpg 21'."""
    path = root / "image_list" / f"{domain.replace(' ', '_')}_{split}.txt"
    if not path.is_file():
        raise ValueError(f"{root} has a folder image_list, but {path.name} is missing in it.")
    folders = {plain(f.name): f for f in _folders(folder)}
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            *_, kind, name = line.rsplit(maxsplit=1)[0].split("/")
            found.add(folders.get(plain(kind), folder / kind) / name)
    missing = sorted(file for file in found if not file.is_file())
    if missing:
        raise ValueError(f"{path} lists {len(missing):,} missing images, such as {missing[0]}.")
    return found
