"""Size and speed of the networks of a card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from mixplug.evaluation.card.subject import Stream, Subject
from mixplug.metrics.speed import Timing
from mixplug.numbers import compute

_SECONDS, _ROUNDS = 3.0, 50  # per network, and at most


@torch.no_grad()
def speeds(
    subjects: Sequence[Subject], stream: Stream, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Size of each network and speed of its fastest forward pass, by network.

    The networks take turns for three seconds each, so that other work on the machine slows all of
    them alike. Results are not cached, since they are only comparable within one run.

    Args:
        subjects: the networks.
        stream: its first images are used.
        batch_size: number of images.
    """
    images, _ = next(iter(stream.batches(batch_size)))
    ready = {subject.name: subject.pixels(images) for subject in subjects}
    seconds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    limit = _SECONDS * len(subjects)
    done = 0
    while done < 2 or (done < _ROUNDS and sum(map(sum, seconds.values())) < limit):
        for subject in subjects:
            start = time.perf_counter()
            subject(ready[subject.name]).sum().item()  # item() waits for an accelerator
            if done:  # the first round warms up
                seconds[subject.name].append(time.perf_counter() - start)
        done += 1
    found = {}
    for subject in subjects:
        timing = Timing(subject.parameters, len(images), min(seconds[subject.name]))
        found[subject.name] = {
            **compute("speed", "timing", timing),
            "batch_size": len(images),
            "device": device_name(subject.device),
        }
    return found


def device_name(device: torch.device) -> str:
    """Name of a device; results of different GPU models are cached separately."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
