"""The lines of a card's table: which number, how it is called, and which way is better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixplug.evaluation.card.job import Card
from mixplug.metrics.robustness import Attack

PERCENT = 100.0
OOD = {  # by key of :func:`mixplug.metrics.ood.ood_scores`: heading, and whether more is better
    "det_acc": ("Det Acc at 0.5", True),
    "det_acc_best": ("Det Acc, best", True),
    "auroc": ("AUROC", True),
    "aupr_in": ("AUPR (ID)", True),
    "aupr_out": ("AUPR (OOD)", True),
    "fpr95": ("FPR95", False),
}
SCORES = {
    "max_softmax": "maximum of softmax",
    "energy": "energy",
    "max_logit": "maximum of logits",
    "knn": "k-NN",
}


@dataclass(frozen=True)
class Line:
    """A number of every network.

    Attributes:
        section: under which heading.
        label: what it is, with its unit.
        values: one for each network, None where there is none.
        more: whether more is better; None if neither is.
        digits: behind the point.
        main: whether it is shown at first sight.
    """

    section: str
    label: str
    values: list[float | None]
    more: bool | None
    digits: int = 1
    main: bool = True

    @property
    def heading(self) -> str:
        """The label, with an arrow to where it is better."""
        return self.label + {True: " ↑", False: " ↓", None: ""}[self.more]

    @property
    def cells(self) -> list[str]:
        """As text."""
        return ["–" if v is None else f"{v:,.{self.digits}f}" for v in self.values]

    @property
    def best(self) -> list[bool]:
        """Which are the best, as printed; none where there is nothing to compare."""
        known = [float(cell.replace(",", "")) for cell in self.cells if cell != "–"]
        if self.more is None or len(known) < 2 or len(set(known)) < 2:
            return [False] * len(self.values)
        top = max(known) if self.more else min(known)
        return [cell != "–" and float(cell.replace(",", "")) == top for cell in self.cells]


def lines_of(card: Card) -> list[Line]:
    """The table of a card, in percent where a number is a share."""
    return [line for make in _MAKERS for line in make(card)]


def _clean(card: Card) -> Iterator[Line]:
    for key, name in (("top1", "top-1"), ("top5", "top-5")):
        yield from _line(card, "Clean images", f"{name} accuracy, %", ("clean", key), True, PERCENT)


def _robustness(card: Card) -> Iterator[Line]:
    for name, keys in card.facts["settings"]["attacks"].items():
        label = f"{Attack.of(name, keys)}: top-1 error, %"
        yield from _line(card, "Adversarial images", label, (name, "error"), False, PERCENT)


def _calibration(card: Card) -> Iterator[Line]:
    for suffix, when in (("", ""), ("_scaled", ", temperature scaled")):
        for key, name, scale, digits in (
            ("ece", "ECE, %", PERCENT, 2),
            ("oe", "OE, %", PERCENT, 2),
            ("nll", "NLL, nats", 1.0, 3),
        ):
            path = ("calibration", key + suffix)
            yield from _line(card, "Calibration", name + when, path, False, scale, digits)


def _ood(card: Card) -> Iterator[Line]:
    for one, score, key in _ood_paths(card):
        name, more = OOD[key]
        section, label = f"OOD: {one}", f"{name} by {SCORES[score]}, %"
        main = score == "max_softmax"  # the thesis'
        path = ("ood", one, score, key)
        yield from _line(card, section, label, path, more, PERCENT, main=main)


def _ood_paths(card: Card) -> Iterator[tuple[str, str, str]]:
    """(set, score, key) of all that some network has, in the order of the tables."""
    found = [card.results[name].get("ood", {}) for name in card.names]
    sets = list(dict.fromkeys(one for result in found for one in result))
    for one in sets:
        for score in SCORES:
            for key in OOD:
                if any(key in result.get(one, {}).get(score, {}) for result in found):
                    yield one, score, key


def _representation(card: Card) -> Iterator[Line]:
    for key, more in (("alignment", False), ("uniformity", False), ("intrusion_distance", True)):
        label = key.replace("_", " ")
        yield from _line(card, "Embeddings", label, ("representation", key), more, 1.0, 3)


def _speed(card: Card) -> Iterator[Line]:
    yield from _line(
        card, "Size and speed", "parameters, M", ("speed", "parameters"), None, 1e-6, 2
    )
    path = ("speed", "images_per_second")
    yield from _line(card, "Size and speed", "images a second", path, None, 1.0, 0)


_MAKERS = (_clean, _robustness, _calibration, _ood, _representation, _speed)


def _line(
    card: Card,
    section: str,
    label: str,
    path: tuple[str, ...],
    more: bool | None,
    scale: float,
    digits: int = 1,
    main: bool = True,
) -> Iterator[Line]:
    """A line, unless no network has the number."""
    found = card.of(*path)
    if any(value is not None for value in found):
        values = [None if value is None else scale * value for value in found]
        yield Line(section, label, values, more, digits, main)
