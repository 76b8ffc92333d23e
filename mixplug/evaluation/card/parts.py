"""The parts of a card: which passes they need, and the numbers that they make of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.evaluation.card.passes import Attacked, Outputs, Pass, State
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Subject
from mixplug.functional import ood
from mixplug.functional.calibration import (
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    overconfidence_error,
)
from mixplug.functional.dense import attention_map
from mixplug.functional.representation import alignment, intrusion_distance, uniformity
from mixplug.metrics.ood import ood_scores

_TOP = 5
_BATCH = 128  # examples that are mixed with each other (3.4.2)
_HALVES, _PAIRS, _CLASSES = 0, 1, 2  # purposes of draws
_DRAWN, _PER_CLASS = 10, 100  # classes of Figure 5.3, and examples of each
_SHOWN = 6  # images with their attention
_TIMED = 3.0  # seconds


class Part(Protocol):
    """A group of numbers.

    Attributes:
        name: as in the JSON.
        settings: on which its numbers depend, besides those of its passes.
    """

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...

    def passes(self) -> Sequence[Pass]:
        """What must be done with the images."""

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        """Made of the results of the passes; fractions, as everywhere in functional."""

    def sketch(self, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
        """What figures need beside the numbers."""


class Plain:
    """A part whose numbers depend on its passes alone, and of which nothing more is drawn."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def sketch(self, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Clean(Plain):
    """Top-1 and top-5 accuracy."""

    data: Data
    name: str = "clean"

    def passes(self) -> Sequence[Pass]:
        return [Outputs(self.data.test)]

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        logits, labels = states[0]["logits"], states[0]["labels"]
        best = logits.topk(min(_TOP, logits.shape[1])).indices == labels[:, None]
        return {
            "top1": float(best[:, 0].double().mean()),
            "top5": float(best.any(1).double().mean()),
        }


@dataclass(frozen=True)
class Robustness(Plain):
    """Top-1 error under an attack (Tables 3.3 and 5.4)."""

    data: Data
    attack: str
    keys: Mapping[str, Any]
    seed: int
    batch_size: int

    @property
    def name(self) -> str:
        return self.attack

    def passes(self) -> Sequence[Pass]:
        return [Attacked(self.data.test, self.attack, self.keys, self.seed, self.batch_size)]

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        return {"error": 1 - int(states[0]["right"]) / len(self.data.test)}


@dataclass(frozen=True)
class Calibration(Plain):
    """ECE and OE (Tables 3.6 and 5.6), and both after temperature scaling.

    The temperature of each half of the test set, drawn by seed, is fitted on the other one: every
    image counts, and none is judged by a temperature that it had a part in.
    """

    data: Data
    bins: int
    seed: int
    name: str = "calibration"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"bins": self.bins, "seed": self.seed}

    def passes(self) -> Sequence[Pass]:
        return [Outputs(self.data.test)]

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        logits, labels = states[0]["logits"].double(), states[0]["labels"]
        scaled, temperatures = self._scaled(logits, labels)
        share, accuracy, confidence = calibration_bins(logits.softmax(1), labels, self.bins)
        return {
            **self._errors(logits, labels, ""),
            **self._errors(scaled, labels, "_scaled"),
            "temperature": temperatures,
            "share": share.tolist(),
            "accuracy": accuracy.tolist(),
            "confidence": confidence.tolist(),
        }

    def _errors(self, logits: Tensor, labels: Tensor, suffix: str) -> dict[str, float]:
        rows = logits.softmax(1)
        return {
            f"ece{suffix}": float(expected_calibration_error(rows, labels, self.bins)),
            f"oe{suffix}": float(overconfidence_error(rows, labels, self.bins)),
            f"nll{suffix}": float(negative_log_likelihood(logits, labels)),
        }

    def _scaled(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[float]]:
        order = sampling.permutation(len(labels), _source(self.seed, _HALVES))
        halves = order.chunk(2)
        if len(halves) < 2:
            return logits, [1.0]
        scaled, temperatures = logits.clone(), []
        for half, other in (halves, halves[::-1]):
            temperature = fit_temperature(logits[other], labels[other])
            scaled[half] = logits[half] / temperature
            temperatures.append(float(temperature))
        return scaled, temperatures


@dataclass(frozen=True)
class OutOfDistribution(Plain):
    """Test images told from those of other sets (Tables 3.4, 3.5 and 5.7)."""

    data: Data
    neighbours: int
    name: str = "ood"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"neighbours": self.neighbours, "sets": [one.name for one in self.data.outside]}

    def passes(self) -> Sequence[Pass]:
        streams = [self.data.test, *self.data.outside]
        bank = [] if self.data.bank is None else [Outputs(self.data.bank)]
        return [*(Outputs(stream) for stream in streams), *bank]

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        names = [one.name for one in self.data.outside]
        count = len(names) + 1
        bank = states[count]["embeddings"] if len(states) > count else None
        inside, *outside = (self.scores(state, bank) for state in states[:count])
        return {
            name: {
                score: ood_scores(inside[score], values, 0.5 if score == "max_softmax" else None)
                for score, values in scores.items()
            }
            for name, scores in zip(names, outside, strict=True)
        }

    def sketch(self, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
        """Scores (N,) of every set, by maximum of softmax."""
        streams = [self.data.test, *self.data.outside]
        pairs = zip(streams, states, strict=False)
        return {one.name: ood.max_softmax(state["logits"].double()) for one, state in pairs}

    def scores(self, state: State, bank: Tensor | None) -> dict[str, Tensor]:
        """By score, (N,): the larger, the more as in training."""
        logits, embeddings = state["logits"].double(), state["embeddings"]
        found = {
            "max_softmax": ood.max_softmax(logits),
            "energy": ood.energy(logits),
            "max_logit": ood.max_logit(logits),
        }
        if bank is not None:
            found["knn"] = ood.knn_score(embeddings, bank, min(self.neighbours, len(bank)))
        return found


@dataclass(frozen=True)
class Representation(Plain):
    """Alignment and uniformity (5.4.6), and intrusion distance (5.4.7), on the unit sphere.

    For the last, embeddings are mixed in pairs of a batch of 128, λ uniform: what it says is how
    empty the space between two classes is.
    """

    data: Data
    seed: int
    name: str = "representation"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "batch": _BATCH}

    def passes(self) -> Sequence[Pass]:
        return [Outputs(self.data.test)]

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        embeddings = F.normalize(states[0]["embeddings"], dim=1)
        labels = states[0]["labels"]
        found = {
            "alignment": float(alignment(embeddings, labels)),
            "uniformity": float(uniformity(embeddings)),
        }
        distances = []
        order = sampling.permutation(len(labels), _source(self.seed, _PAIRS))
        for number, batch in enumerate(order.split(_BATCH)):
            if len(batch) < 2 or len(labels[batch].unique()) < 3:
                continue  # no class is left but those that are mixed
            distances.append(self._intrusion(embeddings[batch], labels[batch], number))
        if distances:
            found["intrusion_distance"] = float(torch.stack(distances).mean())
        return found

    def sketch(self, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
        """At most 100 embeddings of each of 10 classes, the same for all networks (Figure 5.3)."""
        labels = states[0]["labels"]
        classes = labels.unique()
        drawn = classes[sampling.permutation(len(classes), _source(self.seed, _CLASSES))]
        rows = [(labels == one).nonzero()[:_PER_CLASS, 0] for one in drawn[:_DRAWN]]
        chosen = torch.cat(rows)
        return {"embeddings": states[0]["embeddings"][chosen], "labels": labels[chosen]}

    def _intrusion(self, clean: Tensor, labels: Tensor, number: int) -> Tensor:
        source = sampling.generators(self.seed, number).local
        pair = sampling.permutation(len(clean), source)
        lam = sampling.beta(1.0, len(clean), source)[:, None]
        eye = torch.eye(len(clean))
        weights = lam * eye + (1 - lam) * eye[pair]
        return intrusion_distance(weights @ clean, weights, clean, labels)


@dataclass(frozen=True)
class Speed(Plain):
    """Parameters, and images a second in one forward pass after another."""

    data: Data
    batch_size: int
    name: str = "speed"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"batch_size": self.batch_size, "threads": torch.get_num_threads()}

    def passes(self) -> Sequence[Pass]:
        return []

    @torch.no_grad()
    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        images, _ = next(iter(self.data.test.batches(self.batch_size)))
        pixels = subject.pixels(images)
        subject(pixels)  # the first one prepares
        seconds: list[float] = []
        while sum(seconds) < _TIMED and len(seconds) < 50:
            start = time.perf_counter()
            subject(pixels).sum().item()  # waits for an accelerator
            seconds.append(time.perf_counter() - start)
        rate = len(pixels) / sorted(seconds)[len(seconds) // 2]
        return {
            "parameters": subject.parameters,
            "images_per_second": rate,
            "device": str(subject.device),
        }


@dataclass(frozen=True)
class Attention(Plain):
    """Where networks look, (5.9) with u as average pooling and ReLU then l1 as h (Figure 5.6)."""

    data: Data
    name: str = "attention"

    def passes(self) -> Sequence[Pass]:
        return []

    def numbers(self, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
        return {}

    def sketch(self, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
        """Images (n, C, H, W) from all over the test set, and maps (n, h, w)."""
        images = self.data.test.dataset
        every = max(1, len(self.data.test) // _SHOWN)
        chosen = [images[i][0] for i in range(0, len(self.data.test), every)][:_SHOWN]
        pixels = subject.pixels(torch.stack(chosen))
        maps = subject.maps(pixels)
        found = attention_map(maps.flatten(2)).unflatten(1, maps.shape[2:])
        return {"images": pixels.cpu(), "maps": found.cpu()}


def parts_of(data: Data, settings: Settings) -> list[Part]:
    """The parts that are asked for, in the order of the card."""
    made: dict[str, list[Part]] = {
        "clean": [Clean(data)],
        "robustness": [
            Robustness(data, name, keys, settings.seed, settings.batch_size)
            for name, keys in settings.attacks.items()
        ],
        "calibration": [Calibration(data, settings.bins, settings.seed)],
        "ood": [OutOfDistribution(data, settings.neighbours)] if data.outside else [],
        "representation": [Representation(data, settings.seed)],
        "attention": [Attention(data)],
        "speed": [Speed(data, settings.batch_size)],
    }
    return [part for name, parts in made.items() if name in settings.parts for part in parts]


def _source(seed: int, purpose: int) -> torch.Generator:
    return sampling.generators(seed, purpose, rank=-3).local
