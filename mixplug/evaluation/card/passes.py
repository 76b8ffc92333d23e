"""Passes over a stream of images, which can be interrupted and resumed."""

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
Advance = Callable[[int, str], None]  # called with the number of new images, and what is running

_SAVE_EVERY = 30.0  # seconds


@dataclass(frozen=True)
class Pass:
    """A computation on every batch of a stream.

    Attributes:
        name: of the pass.
        stream: its images.
        step: adds a batch to a state in place, given the network, pixels (B, C, H, W), labels (B,)
            and the index of the first image.
        cost: cost of an image in forward passes, for the progress bar.
        settings: settings that the result depends on, besides images and weights.
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
    """Whether each image is classified correctly after an attack, (N,) bool.

    Args:
        stream: the images.
        attack: changes the images so that they are classified wrongly.
        seed: of the random start, if the attack has one.
        batch_size: random starts depend on it.
    """
    draws = {"seed": seed, "batch_size": batch_size} if attack.drawn else {}
    cost = 1 + 3 * attack.steps  # a backward pass costs as much as two forward passes
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
    """Refuse a network that has diverged, since argmax of NaN would still be a class."""
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{subject.name} gives logits that are not finite: has it diverged?")


def key_of(one: Pass, subject: Subject) -> dict[str, Any]:
    """Cache key of the result of a pass."""
    return {
        "network": subject.fingerprint,
        "images": one.stream.fingerprint,
        "settings": dict(one.settings),
    }


def run(
    one: Pass, subject: Subject, store: Store, batch_size: int, workers: int, advance: Advance
) -> State:
    """The result of a pass: from the cache as far as possible, else by running the network.

    Progress is saved every half minute, and when the pass is interrupted.

    Raises:
        ValueError: a label without a class of the network; see also the attack and the stream.
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
            advance(len(images), f"{subject.name}: {one.name} of {one.stream.name}")
            if time.monotonic() - last > _SAVE_EVERY:
                store.save_tensors(one.name, key, state, done)
                saved, last = done, time.monotonic()
    finally:
        if done > saved:
            store.save_tensors(one.name, key, state, done)
    return state
