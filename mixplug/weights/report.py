"""What of a checkpoint a model got, shape by shape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixplug.names import shortened
from mixplug.weights.names import generic

Shape = tuple[int, ...]
Pair = tuple[Shape, Shape]  # in the checkpoint, in the model


@dataclass(frozen=True)
class Report:
    """Every tensor of a model and of a checkpoint is in one of these, by its name in the model.

    Attributes:
        loaded: of the same shape in both.
        resized: position embeddings, loaded after interpolation.
        missing: what the model has and the checkpoint has not.
        unexpected: what the checkpoint has and the model has not.
        mismatched: in both, of shapes that do not fit; not loaded.
        source: where the checkpoint's tensors come from, in words.
        difference: of the two networks, in words; '' where there is none, or none is known.
    """

    loaded: Mapping[str, Shape] = field(default_factory=dict)
    resized: Mapping[str, Pair] = field(default_factory=dict)
    missing: Mapping[str, Shape] = field(default_factory=dict)
    unexpected: Mapping[str, Shape] = field(default_factory=dict)
    mismatched: Mapping[str, Pair] = field(default_factory=dict)
    source: str = "a state dict"
    difference: str = ""

    @property
    def share(self) -> float:
        """How many of the numbers in the model's state were loaded, in [0, 1]."""
        got, lacking = self._sizes()
        return got / (got + lacking) if got + lacking else 0.0

    @property
    def percent(self) -> str:
        """The share in words, rounded down, so that 100 % is all of it."""
        return f"{math.floor(self.share * 10_000) / 100:.2f} %"

    @property
    def complete(self) -> bool:
        """Whether the model lacks nothing."""
        return not self.missing and not self.mismatched

    def _sizes(self) -> tuple[int, int]:
        got = [*self.loaded.values(), *(shape for _, shape in self.resized.values())]
        lacking = [*self.missing.values(), *(shape for _, shape in self.mismatched.values())]
        return sum(map(math.prod, got)), sum(map(math.prod, lacking))

    def line(self) -> str:
        """All of it in one line, for a log."""
        got, lacking = self._sizes()
        tensors = len(self.loaded) + len(self.resized)
        wanted = tensors + len(self.missing) + len(self.mismatched)
        said = [
            f"{tensors} of {wanted} tensors ({self.percent} of {got + lacking:,} numbers) "
            f"from {self.source}"
        ]
        for name, (given, has) in self.resized.items():
            said.append(f"resized {name} from {given[1]} to {has[1]} positions")
        for what in ("missing", "mismatched", "unexpected"):
            names = getattr(self, what)
            if names:
                said.append(f"{what}: {shortened(map(generic, names))}")
        return "; ".join(said)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What happened, name, shape in the checkpoint, shape in the model; blocks in one row."""
        found = [("loaded", name, shape, shape) for name, shape in self.loaded.items()]
        for what in ("resized", "mismatched"):
            pairs: Mapping[str, Pair] = getattr(self, what)
            found += [(what, name, given, has) for name, (given, has) in pairs.items()]
        found += [("missing", name, (), shape) for name, shape in self.missing.items()]
        found += [("unexpected", name, shape, ()) for name, shape in self.unexpected.items()]
        return _together(found)

    def text(self, only: Sequence[str] = ()) -> str:
        """The rows as a table of plain text; ``only`` those of these kinds, if any are named."""
        rows = [row for row in self.rows() if not only or row[0] in only]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def _together(found: Sequence[tuple[str, str, Shape, Shape]]) -> list[tuple[str, str, str, str]]:
    """Blocks with the same shapes as one row, which says how many."""
    count = Counter((what, generic(name), given, has) for what, name, given, has in found)
    absent = {"missing": 2, "unexpected": 3}  # which of the two shapes there is not; () is a number
    rows = []
    for row, times in count.items():
        shapes = ["-" if absent.get(row[0]) == i else str(row[i]) for i in (2, 3)]
        rows.append((row[0], row[1] + (f" x{times}" if times > 1 else ""), shapes[0], shapes[1]))
    return rows
