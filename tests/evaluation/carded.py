"""A tiny classifier, images that it knows and images that it does not, and a stream that stops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import mixplug
from mixplug.evaluation.card import Data, Stream, Subject

CLASSES = 3
COUNT = 48


class Small(nn.Module):
    """Convolution, average, classifier: its embedding is not negative."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.act(self.conv(x))).flatten(1))


class Images(Dataset[tuple[Tensor, int]]):
    """Images in memory that count how often each is read, and may stop at one.

    Args:
        images: (N, 3, H, W).
        labels: (N,).
        stop: the read, counted from 1, at which a user presses Ctrl-C; 0 is never.
    """

    def __init__(self, images: Tensor, labels: Tensor, stop: int = 0) -> None:
        self.images, self.labels, self.stop = images, labels, stop
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read.append(index)
        if len(self.read) == self.stop:
            raise KeyboardInterrupt
        return self.images[index], int(self.labels[index])


def normalize(pixels: Tensor) -> Tensor:
    """As a host's preprocessing does."""
    return (pixels - 0.4) / 0.2


def subject(name: str = "small", seed: int = 0) -> Subject:
    """A network that is trained a little, on other images of the kind."""
    network = Small(seed)
    images, labels = known(seed=4)
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(normalize(images.float() / 255)), labels)
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    stages = mixplug.Stages(network, "conv", "fc", "act")
    return Subject(name, stages, normalize, f"{name} {seed}")


def known(seed: int = 5) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 8, 8) uint8 of three colors with much noise, and their classes."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(COUNT) % CLASSES
    colors = torch.eye(3)[labels][:, :, None, None]
    noise = torch.randn(COUNT, 3, 8, 8, generator=source)
    return (255 * (0.4 + 0.05 * colors + 0.25 * noise)).clamp(0, 255).byte(), labels


def data(stop: int = 0, sets: Sequence[str] = ("gray",), bank: bool = True) -> Data:
    """Test images, which may stop; sets outside; and a bank for k-NN."""
    images, labels = known()
    test = Stream("test", Images(images, labels, stop), "known")
    source = torch.Generator().manual_seed(6)
    outside = [
        Stream(name, Images(torch.rand(20, 3, 8, 8, generator=source), -torch.ones(20)), name)
        for name in sets
    ]
    train = Stream("train", Images(images.flip(3), labels), "flipped")
    return Data(test, ["red", "green", "blue"], train if bank else None, outside)
