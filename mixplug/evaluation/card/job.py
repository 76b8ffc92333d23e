"""Make a card: run what is not in the cache, and collect the numbers."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.evaluation.card.parts import Part, parts_of
from mixplug.evaluation.card.passes import Advance, Pass, State, key_of, run
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.store import Store
from mixplug.evaluation.card.subject import Data, Subject
from mixplug.evaluation.card.timing import device_name, speeds
from mixplug.evaluation.results import Tick, no_progress
from mixplug.optional import version_of

_PACKAGES = ("mixplug", "torch", "timm", "onedl-mmpretrain", "mmpretrain", "scikit-learn", "numpy")


@dataclass
class Card:
    """Numbers of several networks on the same data.

    Attributes:
        names: of the networks.
        results: by network and part.
        missing: by network and part, the reason why a part has no numbers.
        facts: networks, data, settings and versions, for reproduction.
        sketches: by network and part, what figures need in addition to the numbers.
    """

    names: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    sketches: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)

    def of(self, part: str, *path: str) -> list[Any]:
        """A number of every network; None where a network does not have it."""
        return [_at(self.results[name], (part, *path)) for name in self.names]

    def as_json(self) -> dict[str, Any]:
        """Everything but the sketches."""
        networks = [
            {
                "name": name,
                **self.facts["networks"][name],
                "results": self.results[name],
                "missing": self.missing[name],
            }
            for name in self.names
        ]
        rest = {key: value for key, value in self.facts.items() if key != "networks"}
        return {**rest, "networks": networks}


def make_card(
    subjects: Sequence[Subject],
    data: Data,
    settings: Settings,
    out: Path,
    tick: Tick = no_progress,
) -> Card:
    """Evaluate networks on the same data; a second call with the same folder resumes.

    A part that cannot be evaluated (an attack on a network without gradients, say) is skipped, and
    the card records the reason.

    Args:
        subjects: the networks.
        data: the images.
        settings: what is evaluated, and how.
        out: folder; results are cached in OUT/cache.
        tick: progress callback (done, total, description); the unit is a forward pass of an image.

    Raises:
        ValueError: no network, two networks with the same name, or a network with fewer classes
            than the data.
    """
    subjects = _merged(subjects)
    _check(subjects, data)
    store = Store(out / "cache")
    parts = parts_of(data, settings)
    card = Card(facts=_facts(subjects, data, settings))
    progress = _Progress(subjects, parts, store, tick)
    for subject in subjects:
        card.names.append(subject.name)
        numbers, missing = card.results[subject.name], card.missing[subject.name] = {}, {}
        sketches = card.sketches[subject.name] = {}
        for part in parts:
            try:
                loading = settings.batch_size, settings.workers
                states = [
                    run(one, subject, store, *loading, progress.of(one)) for one in part.passes
                ]
                progress.show(f"{subject.name}: numbers of {part.name}")
                numbers[part.name] = _numbers(part, subject, store, states)
                sketches[part.name] = part.sketch(subject, states)
            except (ValueError, ImportError) as error:
                missing[part.name] = str(error)
    if "speed" in settings.parts:
        progress.show("speed")
        for name, numbers in speeds(subjects, data.test, settings.batch_size).items():
            card.results[name]["speed"] = numbers
    progress.end()
    return card


class _Progress:
    """Counts finished and remaining images, weighted by the cost of their pass."""

    def __init__(
        self, subjects: Sequence[Subject], parts: Sequence[Part], store: Store, tick: Tick
    ) -> None:
        self.tick, self.done, self.total = tick, 0, 0
        for subject in subjects:
            left = {}  # parts share passes: each is counted once
            for part in parts:
                for one in part.passes:
                    key = key_of(one, subject)
                    todo = len(one.stream) - store.done(one.name, key)
                    left[one.name, one.stream.name, str(key)] = todo * one.cost
            self.total += sum(left.values())

    def of(self, one: Pass) -> Advance:
        """The callback of a pass."""

        def advance(images: int, what: str) -> None:
            self.done += images * one.cost
            self.tick(self.done, self.total, what)

        return advance

    def show(self, what: str) -> None:
        self.tick(self.done, self.total, what)

    def end(self) -> None:
        self.tick(self.total, self.total, "done")


def _numbers(part: Part, subject: Subject, store: Store, states: Sequence[State]) -> dict[str, Any]:
    key = {
        "content": part.content,
        "settings": dict(part.settings),
        "network": subject.fingerprint,
        "device": device_name(subject.device),
        "passes": [key_of(one, subject) for one in part.passes],
    }
    found = store.numbers(part.name, key)
    if found is None:
        found = part.compute(subject, states)
        store.save_numbers(part.name, key, found)
    return found


def _merged(subjects: Sequence[Subject]) -> list[Subject]:
    """Merge networks with equal weights, such as the last and the best epoch of a run."""
    by_fingerprint: dict[str, Subject] = {}
    for subject in subjects:
        first = by_fingerprint.get(subject.fingerprint)
        together = first and replace(first, name=f"{first.name} = {subject.name}")
        by_fingerprint[subject.fingerprint] = together or subject
    return list(by_fingerprint.values())


def _check(subjects: Sequence[Subject], data: Data) -> None:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"A card needs networks of different names, got {names}.")
    for subject in subjects:
        classes = subject.stages.num_classes
        if classes < len(data.classes):
            raise ValueError(
                f"{subject.name} has {classes:,} classes and the data {len(data.classes):,}: it "
                f"was trained on other classes."
            )
        own, given = list(subject.classes), list(data.classes)
        if own != given and sorted(own) == sorted(given):
            index = next(i for i, (a, b) in enumerate(zip(own, given, strict=True)) if a != b)
            raise ValueError(
                f"{subject.name} has the classes in another order than the data: class {index} is "
                f"{own[index]} in the checkpoint and {given[index]} in the data."
            )


def _facts(subjects: Sequence[Subject], data: Data, settings: Settings) -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "threads": torch.get_num_threads(),
        "settings": settings.facts(),
        "data": {
            one.name: {"images": len(one), "fingerprint": one.fingerprint} for one in data.streams
        },
        "classes": len(data.classes),
        "warnings": [*data.warnings, *_other_names(subjects, data), *_no_bank(data, settings)],
        "networks": {
            subject.name: {
                **subject.facts,
                "fingerprint": subject.fingerprint,
                "classes": subject.stages.num_classes,
            }
            for subject in subjects
        },
    }


def _other_names(subjects: Sequence[Subject], data: Data) -> list[str]:
    """Warnings about checkpoints with class names that the data do not have."""
    return [
        f"{subject.name} was trained on classes with other names, such as "
        f"{min(set(subject.classes) - set(data.classes))}."
        for subject in subjects
        if set(subject.classes) - set(data.classes)
    ]


def _no_bank(data: Data, settings: Settings) -> list[str]:
    missing = data.bank is None and "ood" in settings.parts
    return ["The k-NN score is missing, because there are no training images."] if missing else []


def _versions() -> dict[str, str]:
    found = {name: version_of(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version is not None}


def _at(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree
