"""``mixplug bench transfer``: cost of mixplug's parts in a detector, and label propagation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from mixplug.bench.davis import measure_davis
from mixplug.bench.measure import NO_BOUND, Row, in_turns, ratio
from mixplug.models.vit import timm_model
from mixplug.models.vit.timm_vit import TimmViT

Tick = Callable[[], None]
_NAME, _SIDES, _BLOCKS = "vit_small_patch16_224", (320, 480), (3, 5, 7, 11)


def vit_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """TimmViT compared with timm's own model on the same input, forward and backward."""
    x = torch.randn(2, 3, *_SIDES, device=device)
    ours = TimmViT(_NAME, _BLOCKS).to(device).train()
    timms = timm_model(_NAME).to(device).train()

    def plain() -> None:
        maps = timms.forward_intermediates(x, list(_BLOCKS), intermediates_only=True)
        sum(level.mean() for level in maps).backward()

    def backbone() -> None:
        sum(level.mean() for level in ours(x)).backward()

    seconds = in_turns({"timm": plain, "TimmViT": backbone}, rounds, tick)
    note = f"{min(seconds['TimmViT']):.2f} s, ViT-S/16, two images of {_SIDES[0]} x {_SIDES[1]}"
    times = ratio(seconds["TimmViT"], seconds["timm"])
    yield Row("TimmViT / timm, forward and backward", times, 1.03, False, "x", note)


def roi_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """A step of Faster R-CNN with the key mixup, compared with one without it."""
    from mixplug.bench.roi import measure_roi

    times = measure_roi(rounds, str(device), tick)
    yield Row("MultiMix at the RoI head / step without", times, 1.03, False, "x")


def davis_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Label propagation at 480p, ViT-S/16, with a context of eight frames."""
    fps, peak = measure_davis(str(device), tick=tick)
    yield Row("DAVIS at 480p, frames per second", fps, NO_BOUND, True)
    yield Row("  peak memory beyond the weights", peak / 1e6, NO_BOUND, False, "MB")


GROUPS = {"vit": vit_rows, "roi": roi_rows, "davis": davis_rows}
