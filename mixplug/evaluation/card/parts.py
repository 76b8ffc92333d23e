"""The parts of a card: the passes that each part needs, and how its numbers are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from mixplug.evaluation.card import sketches
from mixplug.evaluation.card.passes import Pass, State, attacked, outputs
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Subject
from mixplug.functional.ood import knn_score
from mixplug.metrics import embeddings
from mixplug.metrics.calibration import CalibrationMetrics, cross_scaled
from mixplug.metrics.ood import SCORES, ood_scores, scores_of_logits
from mixplug.metrics.robustness import Attack
from mixplug.numbers import DETAILS, compute, numbers

Compute = Callable[[Subject, Sequence[State]], dict[str, Any]]
Sketch = Callable[[Subject, Sequence[State]], dict[str, Tensor]]


def _nothing(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Part:
    """A group of numbers that are computed from the same passes.

    Attributes:
        name: key in the JSON.
        kind: part in the table of :mod:`mixplug.numbers`; '' if it has no numbers.
        passes: the passes over images that it needs.
        compute: from the network and the results of the passes to the numbers; shares are
            fractions.
        settings: settings that the numbers depend on, besides those of the passes.
        sketch: what figures need in addition to the numbers.
    """

    name: str
    kind: str = ""
    passes: Sequence[Pass] = ()
    compute: Compute = _nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    sketch: Sketch = _nothing

    @property
    def content(self) -> dict[str, Any]:
        """Which results it has, and in which version: cached results with another content are old.

        Numbers are compared by name and version, so a new number, a number of a plugin, and a new
        definition of a number make a part of an old folder compute again.
        """
        return {
            "numbers": {number.name: number.version for number in numbers(self.kind)},
            "details": list(DETAILS.get(self.kind, ())),
        }


def parts_of(data: Data, settings: Settings) -> list[Part]:
    """The parts that the settings ask for, in the order of the card, without the timing."""
    made: dict[str, list[Part]] = {
        "clean": [clean(data)],
        "robustness": [
            robustness(data, name, attack, settings) for name, attack in settings.suite.items()
        ],
        "calibration": [calibration(data, settings.bins, settings.seed)],
        "ood": [out_of_distribution(data, settings.neighbors)],
        "representation": [representation(data, settings.seed)],
        "attention": [Part("attention", sketch=partial(sketches.attention, data.test))],
    }
    return [part for name, parts in made.items() if name in settings.parts for part in parts]


def clean(data: Data) -> Part:
    """Accuracy on the test images as they are."""
    return Part("clean", "clean", [outputs(data.test)], _clean)


def _clean(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    logits, labels = states[0]["logits"], states[0]["labels"]
    return {
        number.name: float(number.function(logits, labels).double().mean())
        for number in numbers("clean", "logits")
    }


def robustness(data: Data, name: str, attack: Attack, settings: Settings) -> Part:
    """Top-1 error under an attack (thesis, Tables 3.3 and 5.4)."""
    attacks = attacked(data.test, attack, settings.seed, settings.batch_size)
    return Part(name, "robustness", [attacks], _robustness)


def _robustness(subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    return compute("robustness", "correct", states[0]["right"])


def calibration(data: Data, bins: int, seed: int) -> Part:
    """Calibration numbers (thesis, Tables 3.6 and 5.6), before and after temperature scaling.

    :func:`mixplug.metrics.calibration.cross_scaled` says on which images temperatures are fitted.
    """
    settings = {"bins": bins, "seed": seed}
    made = partial(_calibration, bins, seed)
    return Part("calibration", "calibration", [outputs(data.test)], made, settings)


def _calibration(bins: int, seed: int, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    logits, labels = states[0]["logits"].double(), states[0]["labels"]
    scaled, temperatures = cross_scaled(logits, labels, seed)
    plain, after = CalibrationMetrics(bins), CalibrationMetrics(bins)
    plain.update_logits(logits, labels)
    after.update_logits(scaled, labels)
    names = [number.name for number in numbers("calibration")]
    share, accuracy, confidence = plain.diagram()
    return {
        **{name: value for name, value in plain.compute().items() if name in names},
        **{f"{name}_scaled": value for name, value in after.compute().items() if name in names},
        "temperature": temperatures,
        "share": share.tolist(),
        "accuracy": accuracy.tolist(),
        "confidence": confidence.tolist(),
    }


def out_of_distribution(data: Data, neighbors: int) -> Part:
    """Detection of images of other sets among the test images (thesis, Tables 3.4, 3.5, 5.7)."""
    names = [one.name for one in data.outside]
    streams = [data.test, *data.outside, *([] if data.bank is None else [data.bank])]
    return Part(
        "ood",
        "ood",
        [outputs(stream) for stream in streams],
        partial(_ood, names, neighbors),
        {"neighbors": neighbors, "sets": names, "scores": list(SCORES)},
        partial(sketches.max_softmax_of, [data.test.name, *names]),
    )


def _ood(
    names: Sequence[str], neighbors: int, subject: Subject, states: Sequence[State]
) -> dict[str, Any]:
    if not names:
        raise ValueError("there is no out-of-distribution set and no noise.")
    sets = len(names) + 1
    bank = states[sets]["embeddings"].to(subject.device) if len(states) > sets else None
    k = 0 if bank is None else min(neighbors, len(bank))
    inside, *outside = (_scores(state, bank, k) for state in states[:sets])
    found: dict[str, Any] = {}
    for name, scores in zip(names, outside, strict=True):
        found[name] = {
            score: ood_scores(inside[score], values, SCORES[score].threshold)
            for score, values in scores.items()
        }
        if bank is not None:
            found[name]["knn"]["k"] = k
    return found


def _scores(state: State, bank: Tensor | None, k: int) -> dict[str, Tensor]:
    """Scores of all images of a set, (N,) by name; higher for images like the training images."""
    found = scores_of_logits(state["logits"].double())
    if bank is not None:
        found["knn"] = knn_score(state["embeddings"].to(bank.device), bank, k).cpu()
    return found


def representation(data: Data, seed: int) -> Part:
    """Numbers of embeddings (thesis 5.4.6 and 5.4.7), see :mod:`mixplug.metrics.embeddings`."""
    return Part(
        "representation",
        "representation",
        [outputs(data.test)],
        partial(_representation, seed),
        {"seed": seed, "batch": embeddings.BATCH},
        partial(sketches.embeddings_of_classes, seed),
    )


def _representation(seed: int, subject: Subject, states: Sequence[State]) -> dict[str, Any]:
    return embeddings.embedding_numbers(states[0]["embeddings"], states[0]["labels"], seed)
