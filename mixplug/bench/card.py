"""``mixplug bench eval``: time of a reliability card relative to the passes that it needs.

The bare passes are a plain loop over the same images in memory. It makes a forward pass for the
outputs, and for an attack of i steps it makes i forward and backward passes and one more forward
pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import mixplug
from mixplug.bench.measure import NO_BOUND, Row, seconds_of
from mixplug.evaluation.card import Data, Settings, Stream, Subject, make_card
from mixplug.evaluation.card.outside import ood_streams
from mixplug.evaluation.card.report import write_card
from mixplug.models import WideResNet

_SIDE, _CLASSES, _FIRST = 32, 10, 32
_PARTS = (
    "clean",
    "robustness",
    "calibration",
    "ood",
    "representation",
)  # without speed, which measures time itself
Tick = Callable[[], None]


def card_rows(images: int, device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Compare the card with its bare passes, half of which are timed before it and half after."""
    torch.manual_seed(0)
    network = WideResNet(10, 1, num_classes=_CLASSES).to(device).eval().requires_grad_(False)
    pixels = torch.randint(256, (images, 3, _SIDE, _SIDE), dtype=torch.uint8)
    labels = torch.arange(images) % _CLASSES
    test = Stream("test", TensorDataset(pixels, labels), f"random {images}")
    first = Stream("first", TensorDataset(pixels[:_FIRST], labels[:_FIRST]), "first")
    settings = Settings(parts=_PARTS)
    data, small = (
        Data(
            one,
            [str(k) for k in range(_CLASSES)],
            Stream("train", one.dataset, f"train {one.name}"),  # the same number, for k-NN
            ood_streams(settings, one),
        )
        for one in (test, first)
    )
    stages = mixplug.Stages(network, "stages.2.0", "fc", "act")
    subject = Subject("WRN-10-1", stages, lambda x: 2 * x - 1, "bench")

    bare = 0.0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_card([subject], small, settings, out)  # warm-up: imports all packages
        bare += seconds_of(lambda: _bare(network, pixels[::2], labels[::2], settings, tick))
        cards = []

        def measure() -> None:
            cards.append(make_card([subject], data, settings, out, lambda *progress: tick()))

        card = seconds_of(measure)
        bare += seconds_of(lambda: _bare(network, pixels[1::2], labels[1::2], settings, tick))
        written = seconds_of(lambda: write_card(cards[0], out, list(data.classes)))
    note = f"{card:.0f} s for {images:,} images of {_SIDE} x {_SIDE}, WRN-10-1"
    yield Row("card / its bare passes", card / bare, 1.2, False, "x", note)
    yield Row("  its page and figures", written, NO_BOUND, False, "s")


def _bare(
    network: nn.Module, pixels: Tensor, labels: Tensor, settings: Settings, tick: Tick
) -> None:
    """The passes for the outputs of all sets and for the attacks, on half of the images."""
    device = next(network.parameters()).device
    for x, y in zip(
        pixels.split(settings.batch_size), labels.split(settings.batch_size), strict=True
    ):
        x, y = 2 * (x.to(device).float() / 255) - 1, y.to(device)
        with torch.no_grad():
            for _ in range(2 + len(settings.noise)):  # test images, training images, and noise
                network(x)
        for attack in settings.suite.values():
            for _ in range(attack.steps):
                x.requires_grad_(True)
                torch.autograd.grad(F.cross_entropy(network(x), y), x)
            with torch.no_grad():
                network(x)
        tick()
