"""The lines of a card's tables, made of the table of :mod:`mixplug.numbers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixplug.evaluation.card.job import Card
from mixplug.metrics.ood import SCORES
from mixplug.metrics.robustness import Attack
from mixplug.numbers import Number, numbers

_MAIN_SCORE = "max_softmax"  # the score of the thesis


@dataclass(frozen=True)
class Line:
    """A number of every network.

    Attributes:
        section: heading that it is under.
        label: name, with the unit.
        values: one per network, None if the network does not have it.
        higher_is_better: None if neither direction is better.
        digits: decimal places.
        main: whether it is in the first table, which is always open.
    """

    section: str
    label: str
    values: list[float | None]
    higher_is_better: bool | None
    digits: int = 1
    main: bool = True

    @property
    def arrow(self) -> str:
        """The direction that is better: '↑', '↓' or ''."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def heading(self) -> str:
        """Label and arrow."""
        return f"{self.label} {self.arrow}".rstrip()

    @property
    def cells(self) -> list[str]:
        """The values as text."""
        return ["–" if v is None else f"{v:,.{self.digits}f}" for v in self.values]

    @property
    def best(self) -> list[bool]:
        """Which cells are the best, as they are printed; none if there is nothing to compare."""
        known = [float(cell.replace(",", "")) for cell in self.cells if cell != "–"]
        if self.higher_is_better is None or len(known) < 2 or len(set(known)) < 2:
            return [False] * len(self.values)
        top = max(known) if self.higher_is_better else min(known)
        return [cell != "–" and float(cell.replace(",", "")) == top for cell in self.cells]


@dataclass(frozen=True)
class _Group:
    """Where the numbers of a part stand in the results, and how their lines are named.

    Attributes:
        section: heading.
        part: part in the table of numbers.
        path: keys that lead to the numbers in the results of a network.
        suffix: of the keys of the numbers.
        before: text before the name.
        by: text between name and unit.
        after: text after the unit.
        main: see :class:`Line`.
    """

    section: str
    part: str
    path: tuple[str, ...]
    suffix: str = ""
    before: str = ""
    by: str = ""
    after: str = ""
    main: bool = True

    def line(self, card: Card, number: Number) -> Line:
        unit = f", {number.unit}" if number.unit else ""
        found = card.of(*self.path, number.name + self.suffix)
        return Line(
            self.section,
            f"{self.before}{number.label}{self.by}{unit}{self.after}",
            [None if value is None else number.scale * value for value in found],
            number.higher_is_better,
            number.digits,
            self.main,
        )


def lines_of(card: Card) -> list[Line]:
    """The lines of a card: all numbers that at least one network has, shares in percent."""
    lines = [group.line(card, number) for group in _groups(card) for number in numbers(group.part)]
    return [line for line in lines if any(value is not None for value in line.values)]


def _groups(card: Card) -> Iterator[_Group]:
    """All groups in the order of the tables."""
    yield _Group("Clean images", "clean", ("clean",))
    for name, keys in card.facts["settings"]["attacks"].items():
        before = f"{Attack.of(name, keys)}: "
        yield _Group("Adversarial images", "robustness", (name,), before=before)
    yield _Group("Calibration", "calibration", ("calibration",))
    yield _Group(
        "Calibration", "calibration", ("calibration",), "_scaled", after=", temperature scaled"
    )
    found = [card.results[name].get("ood", {}) for name in card.names]
    for one in dict.fromkeys(name for result in found for name in result):
        for score, of in SCORES.items():
            by, main = f" by {of.label}", score == _MAIN_SCORE
            yield _Group(f"OOD: {one}", "ood", ("ood", one, score), by=by, main=main)
    yield _Group("Embeddings", "representation", ("representation",))
    yield _Group("Size and speed", "speed", ("speed",))
