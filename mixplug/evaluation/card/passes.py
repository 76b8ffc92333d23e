"""Passes over a stream of images, which may stop anywhere and go on there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.evaluation.card.store import Store
from mixplug.evaluation.card.subject import Stream, Subject
from mixplug.metrics.robustness import Attack

State = dict[str, Tensor]
Ahead = Callable[[int, str], None]  # images that were done, and of what

_EVERY = 30.0  # seconds between two times that a pass is kept


@dataclass(frozen=True)
class Pass:
    """What is done with every batch of a stream.

    Attributes:
        name: of the pass.
        stream: its images.
        step: adds a batch to a state in place, given the network, pixels (B, C, H, W), labels (B,)
            and the number of its first image.
        cost: of an image, in forward passes; for the time that is left.
        settings: on which the result depends, besides images and weights.
    """

    name: str
    stream: Stream
    step: Callable[[Subject, Tensor, Tensor, int, State], None]
    cost: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


def outputs(stream: Stream) -> Pass:
    """Logits (N, K), embeddings (N, D) and labels (N,) of all images."""
    return Pass("outputs", stream, partial(_add_outputs, len(stream)))


@torch.no_grad()
def _add_outputs(
    total: int, subject: Subject, pixels: Tensor, labels: Tensor, first: int, state: State
) -> None:
    found = subject.outputs(pixels)
    _require_finite(subject, found.logits)
    batch = {"logits": found.logits, "embeddings": found.embedding, "labels": labels}
    for name, rows in batch.items():
        rows = rows.float().cpu() if rows.is_floating_point() else rows.cpu()
        if name not in state:
            state[name] = rows.new_zeros(total, *rows.shape[1:])
        state[name][first : first + len(rows)] = rows


def attacked(stream: Stream, attack: Attack, seed: int, batch_size: int) -> Pass:
    """Which images are classified right when each is changed so that it should not be, (N,) bool.

    Args:
        stream: the images.
        attack: how they are changed.
        seed: of its random start, if it has one.
        batch_size: on which random starts depend.
    """
    draws = {"seed": seed, "batch_size": batch_size} if attack.drawn else {}
    cost = 1 + 3 * attack.steps  # a backward pass is two forward ones
    step = partial(_add_attacked, attack, seed, len(stream))
    return Pass(attack.name, stream, step, cost, {**attack.keys, **draws})


def _add_attacked(
    attack: Attack,
    seed: int,
    total: int,
    subject: Subject,
    pixels: Tensor,
    labels: Tensor,
    first: int,
    state: State,
) -> None:
    labels = labels.to(pixels.device)
    changed = attack(subject, pixels, labels, sampling.key(sampling.generators(seed, first).local))
    with torch.no_grad():
        logits = subject(changed)
    _require_finite(subject, logits)
    state.setdefault("right", torch.zeros(total, dtype=torch.bool))
    state["right"][first : first + len(labels)] = (logits.argmax(1) == labels).cpu()


def _require_finite(subject: Subject, logits: Tensor) -> None:
    """Refuse a network that has diverged: of NaN, too, one is the largest."""
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{subject.name} gives logits that are not finite: has it diverged?")


def key_of(one: Pass, subject: Subject) -> dict[str, Any]:
    """Under which the result of a pass is kept."""
    return {
        "network": subject.fingerprint,
        "images": one.stream.fingerprint,
        "settings": dict(one.settings),
    }


def run(
    one: Pass, subject: Subject, store: Store, batch_size: int, workers: int, ahead: Ahead
) -> State:
    """The result of a pass: from the store, or by what is left of it.

    What is done is kept every half minute, and when something stops it.

    Raises:
        ValueError: labels that the network has no class for, or see attack and stream.
    """
    key, total = key_of(one, subject), len(one.stream)
    state, done = store.tensors(one.name, key) or ({}, 0)
    if done == total:
        return state
    saved = done
    last = time.monotonic()
    try:
        for images, labels in one.stream.batches(batch_size, workers, done):
            one.step(subject, subject.pixels(images), labels, done, state)
            done += len(images)
            ahead(len(images), f"{subject.name}: {one.name} of {one.stream.name}")
            if time.monotonic() - last > _EVERY:
                store.keep_tensors(one.name, key, state, done)
                saved, last = done, time.monotonic()
    finally:
        if done > saved:
            store.keep_tensors(one.name, key, state, done)
    return state
