"""``mixplug bench metric``: Metrix' loss, whole steps and retrieval, compared with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug import sampling
from mixplug.bench.measure import NO_BOUND, Row, in_turns, peak_bytes, ratio
from mixplug.bench.retrieval import retrieval_rows
from mixplug.losses.base import MetricLoss
from mixplug.losses.metrix import Metrix
from mixplug.losses.pair import MultiSimilarity
from mixplug.losses.proxies import ProxyAnchor
from mixplug.models.heads.embedding import EmbeddingHead

Tick = Callable[[], None]
BATCH, CLASSES, WIDTH = 100, 20, 512


def loss_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """The mixed multi-similarity loss alone, 20 classes of 5, relative to explicit mixing."""
    embeddings = torch.randn(BATCH, WIDTH, device=device, requires_grad=True)
    labels = _labels(device)
    metrix = Metrix(MultiSimilarity(), level="embed", pairs="pos-neg")
    lam = torch.rand(BATCH, BATCH, BATCH, device=device)

    def closed() -> None:
        metrix.mixed(embeddings, labels, lam, "pos-neg").backward()

    def materialized() -> None:
        mixed_embeddings_first(embeddings, labels, lam).backward()

    closed(), materialized()
    seconds = in_turns({"plain": materialized, "closed": closed}, rounds, tick)
    times = ratio(seconds["plain"], seconds["closed"])
    note = f"{1e3 * min(seconds['closed']):.1f} ms against {1e3 * min(seconds['plain']):.1f} ms"
    yield Row("mixed MultiSimilarity, level embed", times, 10.0, True, "x", note)
    if device.type == "cpu":
        floats = (peak_bytes(closed) / 4 - BATCH * WIDTH) / BATCH**2
        yield Row("  its peak memory beyond a copy of e", floats, 32.0, False, "B² floats")


def head_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Head and loss for given maps of 7x7x2048, relative to no mixing; only reported."""
    maps = torch.randn(BATCH, 2048, 7, 7, device=device, requires_grad=True)
    head = EmbeddingHead(2048, WIDTH).to(device)
    for loss in (MultiSimilarity(), ProxyAnchor(CLASSES, WIDTH).to(device)):
        seconds = in_turns(_steps(lambda: maps, head, loss, _labels(device)), rounds, tick)
        note = f"{1e3 * min(seconds['baseline']):.0f} ms of head and loss without mixing"
        for level in ("embed", "feature"):
            times = ratio(seconds[level], seconds["baseline"])
            yield Row(f"{loss.name} on maps 7x7x2048, {level}", times, NO_BOUND, False, "x", note)


def step_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """A whole step of ResNet-18 on 64x64, b=100, with multi-similarity, relative to no mixing."""
    from torchvision.models import resnet18

    network = resnet18().to(device).train()
    trunk = nn.Sequential(*list(network.children())[:-2])
    images = torch.randn(BATCH, 3, 64, 64, device=device)
    head = EmbeddingHead(512, WIDTH).to(device)
    calls = _steps(lambda: trunk(images), head, MultiSimilarity(), _labels(device))
    calls["again"] = calls["baseline"]
    seconds = in_turns(calls, rounds, tick)
    noise = ratio(seconds["again"], seconds["baseline"])
    note = f"{1e3 * min(seconds['baseline']):.0f} ms without mixing, {noise:.3f} x to itself"
    for level, bound in (("embed", 1.05), ("feature", 1.25)):
        times = ratio(seconds[level], seconds["baseline"])
        yield Row(f"whole step, level {level}", times, bound, False, "x", note)


def mixed_embeddings_first(embeddings: Tensor, labels: Tensor, lam: Tensor) -> Tensor:
    """Loss (4.13) with explicit mixed embeddings: the plain form of Metrix at level 'embed'."""
    e = F.normalize(embeddings, dim=1)
    same = labels[:, None] == labels
    identical = torch.eye(len(e), dtype=torch.bool, device=e.device)
    pairs = (same & ~identical)[:, :, None] & ~same[:, None, :]
    anchor, first, second = pairs.nonzero(as_tuple=True)
    weight = lam[anchor, first, second]
    mixed = F.normalize(weight[:, None] * e[first] + (1 - weight)[:, None] * e[second], dim=1)
    s = (e[anchor] * mixed).sum(1)
    form = MultiSimilarity().form
    width = int(pairs.flatten(1).sum(1).max())
    rows = [s.new_zeros(len(e), width) for _ in range(3)]
    place = torch.arange(len(s), device=s.device) - (anchor * width)
    for row, values in zip(rows, (s, weight, 1 - weight), strict=True):
        row[anchor, place] = values
    return (form.positive(rows[0], rows[1]) + form.negative(rows[0], rows[2])).mean()


def _steps(
    maps: Callable[[], Tensor], head: EmbeddingHead, plain: MetricLoss, labels: Tensor
) -> dict[str, Callable[[], None]]:
    """Forward and backward from maps, without mixing and at two levels."""

    def baseline() -> None:
        plain(head(maps()), labels).backward()

    def mixed(level: str) -> Callable[[], None]:
        metrix, steps = Metrix(plain, level=level), iter(range(1 << 30))

        def step() -> None:
            a = maps()
            draws = sampling.generators(0, next(steps))
            metrix(head(a), labels, features=(a, head), generators=draws).backward()

        return step

    return {"baseline": baseline, "embed": mixed("embed"), "feature": mixed("feature")}


def _labels(device: torch.device) -> Tensor:
    return torch.arange(CLASSES, device=device).repeat_interleave(BATCH // CLASSES)


GROUPS = {"loss": loss_rows, "head": head_rows, "step": step_rows, "retrieval": retrieval_rows}
