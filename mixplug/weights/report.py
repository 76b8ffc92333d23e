"""Report of a load: which tensors of a checkpoint went into a model, with their shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixplug.names import shortened
from mixplug.weights.names import generic

_COUNTER = "num_batches_tracked"
Shape = tuple[int, ...]
Pair = tuple[Shape, Shape]  # in the checkpoint, in the model


@dataclass(frozen=True)
class Report:
    """Every tensor of a model and of a checkpoint is in one of these, under its name in the model.

    Attributes:
        loaded: tensors with the same shape in both.
        resized: position embeddings and biases that were loaded after interpolation.
        missing: tensors that only the model has.
        unexpected: tensors that only the checkpoint has.
        mismatched: tensors in both whose shapes do not fit; they are not loaded.
        source: description of the checkpoint's tensors.
        difference: description of how the two networks differ; '' if they do not or if it is
            unknown.
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
        """Share of the values in the model's state that were loaded, in [0, 1].

        Counters of batches that are missing are not counted: files of PyTorch before 0.4.1 have
        none, and no output depends on them.
        """
        loaded, missing = self._sizes()
        return loaded / (loaded + missing) if loaded + missing else 0.0

    @property
    def percent(self) -> str:
        """The share as text, rounded down, so 100 % means all values."""
        return f"{math.floor(self.share * 10_000) / 100:.2f} %"

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded."""
        return not self.missing and not self.mismatched

    def _sizes(self) -> tuple[int, int]:
        loaded = [*self.loaded.values(), *(shape for _, shape in self.resized.values())]
        absent = [shape for name, shape in self.missing.items() if not name.endswith(_COUNTER)]
        missing = [*absent, *(shape for _, shape in self.mismatched.values())]
        return sum(map(math.prod, loaded)), sum(map(math.prod, missing))

    def line(self) -> str:
        """Summary in one line, for a log."""
        loaded, missing = self._sizes()
        tensors = len(self.loaded) + len(self.resized)
        wanted = tensors + len(self.missing) + len(self.mismatched)
        facts = [
            f"{tensors} of {wanted} tensors ({self.percent} of {loaded + missing:,} numbers) "
            f"from {self.source}"
        ]
        for name, (given, own) in self.resized.items():
            facts.append(f"resized {name} from {given[1]} to {own[1]} positions")
        for what in ("missing", "mismatched", "unexpected"):
            names = getattr(self, what)
            if names:
                facts.append(f"{what}: {shortened(map(generic, names))}")
        return "; ".join(facts)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Rows of kind, name, shape in the checkpoint and shape in the model.

        Blocks with equal shapes share one row.
        """
        found = [("loaded", name, shape, shape) for name, shape in self.loaded.items()]
        for what in ("resized", "mismatched"):
            pairs: Mapping[str, Pair] = getattr(self, what)
            found += [(what, name, given, own) for name, (given, own) in pairs.items()]
        found += [("missing", name, (), shape) for name, shape in self.missing.items()]
        found += [("unexpected", name, shape, ()) for name, shape in self.unexpected.items()]
        return _merge_blocks(found)

    def text(self, only: Sequence[str] = ()) -> str:
        """The rows as a plain-text table; ``only`` selects kinds of rows, empty selects all."""
        rows = [row for row in self.rows() if not only or row[0] in only]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def _merge_blocks(
    found: Sequence[tuple[str, str, Shape, Shape]],
) -> list[tuple[str, str, str, str]]:
    """One row for all blocks with the same shapes, with their number."""
    count = Counter((what, generic(name), given, own) for what, name, given, own in found)
    absent = {"missing": 2, "unexpected": 3}  # column of the shape that does not exist
    rows = []
    for row, times in count.items():
        shapes = ["-" if absent.get(row[0]) == i else str(row[i]) for i in (2, 3)]
        rows.append((row[0], row[1] + (f" x{times}" if times > 1 else ""), shapes[0], shapes[1]))
    return rows
