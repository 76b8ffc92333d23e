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
from mixplug.functional import attacks

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
    batch = {"logits": found.logits, "embeddings": found.embedding, "labels": labels}
    for name, rows in batch.items():
        rows = rows.float().cpu() if rows.is_floating_point() else rows.cpu()
        if name not in state:
            state[name] = rows.new_zeros(total, *rows.shape[1:])
        state[name][first : first + len(rows)] = rows


def attacked(
    stream: Stream, attack: str, keys: Mapping[str, Any], seed: int, batch_size: int
) -> Pass:
    """How many images are classified right when each is changed so that it should not be.

    Args:
        stream: the images.
        attack: one of :data:`ATTACKS`.
        keys: of the attack.
        seed: of its random start, if it has one.
        batch_size: on which random starts depend.

    Raises:
        ValueError: another attack.
    """
    if attack not in ATTACKS:
        raise ValueError(f"card.attacks needs attacks among {(*ATTACKS,)}, got {attack!r}.")
    drawn = attack == "apgd" or bool(keys.get("random_start"))
    draws = {"seed": seed, "batch_size": batch_size} if drawn else {}
    cost = 1 + 3 * int(keys.get("iters", 1))  # a backward pass is two forward ones
    step = partial(_add_attacked, ATTACKS[attack], keys, seed)
    return Pass(attack, stream, step, cost, {**keys, **draws})


def _add_attacked(
    attack: Callable[..., Tensor],
    keys: Mapping[str, Any],
    seed: int,
    subject: Subject,
    pixels: Tensor,
    labels: Tensor,
    first: int,
    state: State,
) -> None:
    labels = labels.to(pixels.device)
    key = sampling.key(sampling.generators(seed, first).local)
    changed = attack(subject, pixels, labels, key, keys)
    with torch.no_grad():
        right = (subject(changed).argmax(1) == labels).sum().cpu()
    state["right"] = state["right"] + right if "right" in state else right


def _fgsm(subject: Subject, x: Tensor, y: Tensor, key: int, keys: Mapping[str, Any]) -> Tensor:
    return attacks.fgsm(subject, x, y, **keys)


def _pgd(subject: Subject, x: Tensor, y: Tensor, key: int, keys: Mapping[str, Any]) -> Tensor:
    return attacks.pgd(subject, x, y, generator=sampling.generator(key, x.device), **keys)


def _apgd(subject: Subject, x: Tensor, y: Tensor, key: int, keys: Mapping[str, Any]) -> Tensor:
    return attacks.apgd(subject, x, y, seed=key % (1 << 31), **keys)


ATTACKS = {"fgsm": _fgsm, "pgd": _pgd, "apgd": _apgd}


def key_of(one: Pass, subject: Subject) -> dict[str, Any]:
    """Under which the result of a pass is kept."""
    return {
        "network": subject.fingerprint,
        "images": one.stream.fingerprint,
        "settings": dict(one.settings),
    }


def kept(one: Pass, subject: Subject, store: Store) -> int:
    """How many images of a pass were done before."""
    found = store.tensors(one.name, key_of(one, subject))
    return 0 if found is None else found[1]


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
