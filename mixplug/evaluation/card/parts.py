"""The parts of a card: which passes they need, and the numbers that they make of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixplug import sampling
from mixplug.evaluation.card.passes import Pass, State, attacked, outputs
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject
from mixplug.functional import ood
from mixplug.functional.calibration import (
    calibration_bins,
    ece_of_bins,
    fit_temperature,
    negative_log_likelihood,
    oe_of_bins,
)
from mixplug.functional.dense import attention_map
from mixplug.functional.representation import alignment, intrusion_distance, uniformity
from mixplug.metrics.ood import SCORES, THRESHOLDS, ood_scores
from mixplug.metrics.robustness import Attack

Numbers = Callable[[Subject, Sequence[State]], dict[str, Any]]
Sketch = Callable[[Subject, Sequence[State]], dict[str, Tensor]]

_TOP = 5
_BATCH = 128  # examples that are mixed with each other (3.4.2)
_DRAWN, _PER_CLASS = 10, 100  # classes of Figure 5.3, and examples of each
_SHOWN = 6  # images with their attention
_TIMED, _TURNS = 3.0, 50  # seconds of a network, and turns
_HALVES, _PAIRS, _CLASSES = 0, 1, 2  # purposes of draws


def _none(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Part:
    """A group of numbers.

    Attributes:
        name: as in the JSON.
        passes: what must be done with the images.
        numbers: made of the network and the results of the passes; shares are fractions.
        settings: on which the numbers depend, besides those of the passes.
        sketch: what figures need beside the numbers.
    """

    name: str
    passes: Sequence[Pass] = ()
    numbers: Numbers = _none
    settings: Mapping[str, Any] = field(default_factory=dict)
    sketch: Sketch = _none


def parts_of(data: Data, settings: Settings) -> list[Part]:
    """The parts that are asked for, in the order of the card; all but :func:`speeds`."""
    made: dict[str, list[Part]] = {
        "clean": [clean(data)],
        "robustness": [
            robustness(data, name, attack, settings) for name, attack in settings.suite.items()
        ],
        "calibration": [calibration(data, settings.bins, settings.seed)],
        "ood": [out_of_distribution(data, settings.neighbors)],
        "representation": [representation(data, settings.seed)],
        "attention": [Part("attention", sketch=partial(_attention, data.test))],
    }
    return [part for name, parts in made.items() if name in settings.parts for part in parts]


def clean(data: Data) -> Part:
    """Top-1 and top-5 accuracy."""
    return Part("clean", [outputs(data.test)], _accuracy)


def _accuracy(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    logits, labels = states[0]["logits"], states[0]["labels"]
    best = logits.topk(min(_TOP, logits.shape[1])).indices == labels[:, None]
    return {"top1": _share(best[:, 0]), "top5": _share(best.any(1))}


def robustness(data: Data, name: str, attack: Attack, settings: Settings) -> Part:
    """Top-1 error under an attack (Tables 3.3 and 5.4)."""
    return Part(name, [attacked(data.test, attack, settings.seed, settings.batch_size)], _error)


def _error(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    return {"error": 1 - _share(states[0]["right"])}


def calibration(data: Data, bins: int, seed: int) -> Part:
    """ECE and OE (Tables 3.6 and 5.6), and both after temperature scaling.

    The temperature of each half of the test set, drawn by seed, is fitted on the other one: every
    image counts, and none is judged by a temperature that it had a part in.
    """
    settings = {"bins": bins, "seed": seed}
    return Part("calibration", [outputs(data.test)], partial(_calibration, bins, seed), settings)


def _calibration(bins: int, seed: int, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    logits, labels = states[0]["logits"].double(), states[0]["labels"]
    scaled, temperatures = cross_scaled(logits, labels, seed)
    diagrams = [calibration_bins(values.softmax(1), labels, bins) for values in (logits, scaled)]
    found: dict[str, Any] = {}
    for suffix, values, diagram in zip(("", "_scaled"), (logits, scaled), diagrams, strict=True):
        found[f"ece{suffix}"] = float(ece_of_bins(*diagram))
        found[f"oe{suffix}"] = float(oe_of_bins(*diagram))
        found[f"nll{suffix}"] = float(negative_log_likelihood(values, labels))
    share, accuracy, confidence = diagrams[0]
    return {
        **found,
        "temperature": temperatures,
        "share": share.tolist(),
        "accuracy": accuracy.tolist(),
        "confidence": confidence.tolist(),
    }


def cross_scaled(logits: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, list[float]]:
    """Logits (N, K), each half divided by the temperature of the other; and the two of them.

    Args:
        logits: (N, K).
        labels: (N,).
        seed: by which halves are drawn.
    """
    halves = sampling.permutation(len(labels), _source(seed, _HALVES)).chunk(2)
    if len(halves) < 2:
        return logits, [1.0]
    scaled, temperatures = logits.clone(), []
    for half, other in (halves, halves[::-1]):
        temperature = fit_temperature(logits[other], labels[other])
        scaled[half] = logits[half] / temperature
        temperatures.append(float(temperature))
    return scaled, temperatures


def out_of_distribution(data: Data, neighbors: int) -> Part:
    """Test images told from those of other sets (Tables 3.4, 3.5 and 5.7)."""
    names = [one.name for one in data.outside]
    streams = [data.test, *data.outside, *([] if data.bank is None else [data.bank])]
    return Part(
        "ood",
        [outputs(stream) for stream in streams],
        partial(_ood, names, neighbors),
        {"neighbors": neighbors, "sets": names},
        partial(_confidences, [data.test.name, *names]),
    )


def _ood(
    names: Sequence[str], neighbors: int, subject: Subject, states: Sequence[State]
) -> dict[str, Any]:
    if not names:
        raise ValueError("no set is given that is out of distribution, and no noise.")
    sets = len(names) + 1
    bank = states[sets]["embeddings"].to(subject.device) if len(states) > sets else None
    k = 0 if bank is None else min(neighbors, len(bank))
    inside, *outside = (_scores(state, bank, k) for state in states[:sets])
    found: dict[str, Any] = {}
    for name, scores in zip(names, outside, strict=True):
        found[name] = {
            score: ood_scores(inside[score], values, THRESHOLDS.get(score))
            for score, values in scores.items()
        }
        if bank is not None:
            found[name]["knn"]["k"] = k
    return found


def _scores(state: State, bank: Tensor | None, k: int) -> dict[str, Tensor]:
    """By score, (N,): the larger, the more as in training."""
    logits = state["logits"].double()
    found = {name: score(logits) for name, score in SCORES.items()}
    if bank is not None:
        found["knn"] = ood.knn_score(state["embeddings"].to(bank.device), bank, k).cpu()
    return found


def _confidences(
    names: Sequence[str], subject: Subject, states: Sequence[State]
) -> dict[str, Tensor]:
    """Maximum of softmax (N,) of every set."""
    pairs = zip(names, states, strict=False)  # the bank comes last, and is not shown
    return {name: ood.max_softmax(state["logits"].double()) for name, state in pairs}


def representation(data: Data, seed: int) -> Part:
    """Alignment and uniformity (5.4.6), and intrusion distance (5.4.7), on the unit sphere.

    For the last, embeddings are mixed in pairs of a batch of 128, λ uniform: what it says is how
    empty the space between two classes is.
    """
    return Part(
        "representation",
        [outputs(data.test)],
        partial(_representation, seed),
        {"seed": seed, "batch": _BATCH},
        partial(_drawn_classes, seed),
    )


def _representation(seed: int, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    embeddings, labels = F.normalize(states[0]["embeddings"], dim=1), states[0]["labels"]
    found = {
        "alignment": float(alignment(embeddings, labels)),
        "uniformity": float(uniformity(embeddings)),
    }
    distances = []
    order = sampling.permutation(len(labels), _source(seed, _PAIRS))
    batches = order.split(_BATCH)
    whole = batches[: max(1, len(order) // _BATCH)]  # in a smaller one, all are further away
    for number, batch in enumerate(whole):
        if len(labels[batch].unique()) > 2:  # else no class is left but those that are mixed
            distances.append(_intrusion(embeddings[batch], labels[batch], seed, number))
    if distances:
        found["intrusion_distance"] = float(torch.stack(distances).mean())
    return found


def _intrusion(clean: Tensor, labels: Tensor, seed: int, number: int) -> Tensor:
    source = sampling.generators(seed, number).local
    pair = sampling.permutation(len(clean), source)
    lam = sampling.beta(1.0, len(clean), source)[:, None]
    eye = torch.eye(len(clean))
    weights = lam * eye + (1 - lam) * eye[pair]
    return intrusion_distance(weights @ clean, weights, clean, labels)


def _drawn_classes(seed: int, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
    """At most 100 embeddings of each of 10 classes, the same for all networks (Figure 5.3)."""
    labels = states[0]["labels"]
    classes = labels.unique()
    drawn = classes[sampling.permutation(len(classes), _source(seed, _CLASSES))][:_DRAWN]
    chosen = torch.cat([(labels == one).nonzero()[:_PER_CLASS, 0] for one in drawn])
    return {"embeddings": states[0]["embeddings"][chosen], "labels": labels[chosen]}


def _attention(stream: Stream, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
    """Images (n, C, H, W) from all over a stream, and where a network looks, (n, h, w).

    It is (5.9) with u as average pooling, and ReLU then l1 as h (Figure 5.6).
    """
    every = max(1, len(stream) // _SHOWN)
    chosen = [stream.dataset[i][0] for i in range(0, len(stream), every)][:_SHOWN]
    pixels = subject.pixels(torch.stack(chosen))
    maps = subject.maps(pixels)
    found = attention_map(maps.flatten(2)).unflatten(1, maps.shape[2:])
    return {"images": pixels.cpu(), "maps": found.cpu()}


@torch.no_grad()
def speeds(
    subjects: Sequence[Subject], stream: Stream, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Parameters, and images a second in the fastest forward pass, by network.

    They take turns for three seconds each, so that all meet what else the machine does; it can only
    slow them. Times are of this run alone, and are not kept for another one.

    Args:
        subjects: the networks.
        stream: its first images are taken.
        batch_size: how many.
    """
    images, _ = next(iter(stream.batches(batch_size)))
    ready = {subject.name: subject.pixels(images) for subject in subjects}
    seconds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    turn = 0
    while turn < 2 or (turn < _TURNS and sum(map(sum, seconds.values())) < _TIMED * len(subjects)):
        for subject in subjects:
            start = time.perf_counter()
            subject(ready[subject.name]).sum().item()  # waits for an accelerator
            if turn:  # the first one prepares
                seconds[subject.name].append(time.perf_counter() - start)
        turn += 1
    return {
        subject.name: {
            "parameters": subject.parameters,
            "images_per_second": len(images) / min(seconds[subject.name]),
            "batch_size": len(images),
            "device": called(subject.device),
        }
        for subject in subjects
    }


def called(device: torch.device) -> str:
    """A device, by which times differ."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _source(seed: int, purpose: int) -> torch.Generator:
    return sampling.generators(seed, purpose, rank=-3).local
