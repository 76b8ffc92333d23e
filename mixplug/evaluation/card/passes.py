"""Passes over a stream of images, which may stop anywhere and go on there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.evaluation.card.store import Store
from mixplug.evaluation.card.subject import Stream, Subject
from mixplug.functional import attacks

State = dict[str, Tensor]
Ahead = Callable[[int, str], None]  # images that were done, and of what

_EVERY = 30.0  # seconds between two times that a pass is kept


class Pass(Protocol):
    """What is done with every batch.

    Attributes:
        name: of the pass.
        stream: its images.
        cost: of an image, in forward passes; for the time that is left.
        settings: on which its result depends, besides images and weights.
    """

    @property
    def name(self) -> str: ...
    @property
    def stream(self) -> Stream: ...
    @property
    def cost(self) -> int: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...

    def step(
        self, subject: Subject, pixels: Tensor, labels: Tensor, first: int, state: State
    ) -> None:
        """Add a batch, whose first image has the number ``first``, to the state in place."""


@dataclass(frozen=True)
class Outputs:
    """Logits (N, K), embeddings (N, D) and labels (N,) of all images."""

    stream: Stream
    name: str = "outputs"
    cost: int = 1

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    @torch.no_grad()
    def step(
        self, subject: Subject, pixels: Tensor, labels: Tensor, first: int, state: State
    ) -> None:
        found = subject.outputs(pixels)
        batch = {"logits": found.logits, "embeddings": found.embedding, "labels": labels}
        for name, rows in batch.items():
            rows = rows.float().cpu() if rows.is_floating_point() else rows.cpu()
            if name not in state:
                state[name] = rows.new_zeros(len(self.stream), *rows.shape[1:])
            state[name][first : first + len(rows)] = rows


@dataclass(frozen=True)
class Attacked:
    """How many images are classified right when each is changed so that it should not be.

    Attributes:
        stream: the images.
        attack: 'fgsm', 'pgd' or 'apgd'.
        keys: of the attack.
        seed: of its random start, if it has one.
        batch_size: on which random starts depend.
    """

    stream: Stream
    attack: str
    keys: Mapping[str, Any]
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise ValueError(f"card.attacks needs attacks among {(*ATTACKS,)}, got {self.attack}.")

    @property
    def name(self) -> str:
        return self.attack

    @property
    def cost(self) -> int:
        return 1 + 3 * int(self.keys.get("iters", 1))  # a backward pass is two forward ones

    @property
    def settings(self) -> Mapping[str, Any]:
        draws = {"seed": self.seed, "batch_size": self.batch_size} if self._drawn else {}
        return {**self.keys, **draws}

    @property
    def _drawn(self) -> bool:
        return self.attack == "apgd" or bool(self.keys.get("random_start"))

    def step(
        self, subject: Subject, pixels: Tensor, labels: Tensor, first: int, state: State
    ) -> None:
        labels = labels.to(pixels.device)
        draws = sampling.key(sampling.generators(self.seed, first).local)
        changed = ATTACKS[self.attack](subject, pixels, labels, self._drawn, draws, self.keys)
        with torch.no_grad():
            right = subject(changed).argmax(1) == labels
        state["right"] = state.get("right", torch.zeros((), dtype=torch.int64)) + right.sum().cpu()


def _fgsm(
    subject: Subject, x: Tensor, y: Tensor, drawn: bool, key: int, keys: Mapping[str, Any]
) -> Tensor:
    return attacks.fgsm(subject, x, y, **keys)


def _pgd(
    subject: Subject, x: Tensor, y: Tensor, drawn: bool, key: int, keys: Mapping[str, Any]
) -> Tensor:
    return attacks.pgd(
        subject, x, y, generator=sampling.generator(key, x.device) if drawn else None, **keys
    )


def _apgd(
    subject: Subject, x: Tensor, y: Tensor, drawn: bool, key: int, keys: Mapping[str, Any]
) -> Tensor:
    return attacks.apgd(subject, x, y, **{"seed": key, **keys})


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
