"""``mixplug demo card``: a reliability card of two networks from the classification demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import mixplug
from mixplug.data.digits import NUM_CLASSES, digits
from mixplug.demo.classification import FEATURES, checkpoint_of, network
from mixplug.evaluation.card import Card, Data, Settings, Stream, Subject, make_card
from mixplug.evaluation.card.checkpoints import facts_of
from mixplug.evaluation.card.outside import WithoutLabels, ood_streams
from mixplug.evaluation.results import Tick, fingerprint
from mixplug.optional import optional
from mixplug.weights import load, read

METHODS = ("no mixup", "AlignMixup")
_SIZE = 8


class Patches(Dataset[Tensor]):
    """Patches (1, 8, 8) in [0, 1] of the two photographs in scikit-learn.

    Args:
        count: number of patches, spread over the photographs.
    """

    def __init__(self, count: int) -> None:
        datasets = optional("sklearn.datasets", "demo", "The photographs")
        photographs = [torch.tensor(one) for one in datasets.load_sample_images().images]
        gray = torch.stack(photographs).float().mean(-1) / 255  # (2, H, W)
        cells = gray.unfold(1, _SIZE, _SIZE).unfold(2, _SIZE, _SIZE).flatten(0, 2)
        self.patches = cells[:: len(cells) // count][:count, None]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Tensor:
        """A patch."""
        return self.patches[index]


def run(folder: Path, out: Path, seed: int, tick: Tick) -> tuple[Card, Data]:
    """Make a card of two checkpoints of ``mixplug demo classification``.

    Args:
        folder: folder with the checkpoints.
        out: folder for the cache.
        seed: seed of all random draws.
        tick: see :func:`mixplug.evaluation.card.make_card`.

    Raises:
        ValueError: a checkpoint is missing.
    """
    settings = Settings(seed=seed, neighbors=10)
    test = _stream("test")
    patches = Patches(len(test))
    photographs = Stream("photographs", WithoutLabels(patches), f"patches {len(patches)}")
    data = Data(
        test,
        [str(digit) for digit in range(NUM_CLASSES)],
        _stream("train"),
        [photographs, *ood_streams(settings, test)],
    )
    return make_card(subjects(folder, METHODS), data, settings, out, tick), data


def subjects(folder: Path, methods: Sequence[str]) -> list[Subject]:
    """Networks of the classification demo.

    Raises:
        ValueError: a checkpoint is missing or does not fit.
    """
    found = []
    for method in methods:
        path = checkpoint_of(folder, method)
        if not path.is_file():
            raise ValueError(
                f"There is no checkpoint {path}. To create it, run: mixplug demo classification"
            )
        model, state = network(), read(path)
        load(model, state, 1.0, source=path.name)
        stages = mixplug.Stages(
            model.eval().requires_grad_(False), FEATURES, classifier="fc", last="act"
        )
        digest = fingerprint(model)
        found.append(Subject(method, stages, _identity, digest, facts_of(path, state)))
    return found


def _stream(split: str) -> Stream:
    images, labels = digits(split, size=_SIZE)
    return Stream(split, TensorDataset(images, labels), f"digits {split} {len(images)} {_SIZE}")


def _identity(pixels: Tensor) -> Tensor:
    return pixels
