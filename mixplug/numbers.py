"""The numbers of the reliability card: one table that card, evaluators and accumulators share.

A number is registered once, where its function is defined. From then on it is in the JSON, the
Markdown table and the page of a card, in the accumulator and the mm evaluator of its part, and
mmengine's ``save_best`` knows whether higher or lower is better. ``docs/definitions.md`` explains
every number of mixplug under its label; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mixplug.catalog import load

F = TypeVar("F", bound=Callable[..., Any])

SOURCES: Mapping[str, Mapping[str, str]] = {
    "clean": {
        "logits": "logits (N, K) and labels (N,), to a value per example (N,), which is averaged",
    },
    "robustness": {
        "correct": "whether each attacked image is classified correctly, (N,) bool, to a scalar",
    },
    "calibration": {
        "diagram": "share, accuracy and confidence of each bin, (bins,) each, to a scalar",
        "probabilities": "probabilities (N, K) and labels (N,), to a value per example (N,), which "
        "is averaged",
        "logits": "logits (N, K) and labels (N,), to a value per example (N,), which is averaged",
    },
    "ood": {
        "scores": "scores of in- (N,) and out-of-distribution examples (M,), to a scalar",
        "threshold": "the same and a threshold, to a scalar; only for scores that have one",
    },
    "representation": {
        "embeddings": "embeddings (N, D) of length 1 and labels (N,), to a scalar",
        "unlabeled": "embeddings (N, D) of length 1, to a scalar",
        "mixtures": "mixed embeddings (M, D), their weights (M, N), clean embeddings (N, D) and "
        "labels (N,) of a batch, to a scalar, which is averaged over batches",
    },
    "speed": {
        "timing": "a mixplug.metrics.speed.Timing, to a scalar",
    },
}
"""What the function of a number is called with and returns, by part of the card and source."""

# Other keys that the results of a part have in the JSON.
DETAILS: Mapping[str, tuple[str, ...]] = {
    "calibration": ("temperature", "share", "accuracy", "confidence"),
    "ood": ("threshold_best", "k"),
    "speed": ("batch_size", "device"),
}
_SCALES = {"%": 100.0, "M": 1e-6}  # of a unit other than that of the function


@dataclass(frozen=True)
class Number:
    """A row of the table.

    Attributes:
        name: key in the JSON and of evaluators.
        part: part of the card, a key of :data:`SOURCES`.
        source: what the function is computed from, a key of ``SOURCES[part]``.
        function: computes the number; shares are fractions.
        label: name in tables, and its heading in docs/definitions.md.
        unit: '%' (of a fraction), 'M' (millions), another one, or '' for none.
        higher_is_better: None if neither direction is better.
        digits: decimal places in tables.
        version: increased when the definition changes, so that cached values are recomputed.
    """

    name: str
    part: str
    source: str
    function: Callable[..., Any]
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    digits: int = 1
    version: int = 1

    @property
    def scale(self) -> float:
        """Factor from the value of the function to the value in tables and of evaluators."""
        return _SCALES.get(self.unit, 1.0)


_table: dict[tuple[str, str], Number] = {}


def card_number(
    name: str,
    *,
    part: str,
    source: str,
    label: str,
    unit: str = "",
    higher_is_better: bool | None = None,
    digits: int = 1,
    version: int = 1,
) -> Callable[[F], F]:
    """Register a function as a number of the card; the function itself stays as it is.

    ::

        @card_number("margin", part="calibration", source="probabilities", label="mean margin")
        def margin(probabilities: Tensor, labels: Tensor) -> Tensor:  # (N, K), (N,) to (N,)
            first, second = probabilities.topk(2).values.unbind(1)
            return first - second

    A package of its own names the module in the entry-point group ``mixplug.plugins``.

    Args:
        name: key in the JSON and of evaluators.
        part: part of the card, see :data:`SOURCES`.
        source: what the function is called with, see :data:`SOURCES`.
        label: name in tables.
        unit: see :class:`Number`.
        higher_is_better: None if neither direction is better.
        digits: decimal places in tables.
        version: increase it when the definition changes.

    Raises:
        ValueError: an unknown part or source.
        KeyError: a name that another function or another result of that part has.
    """
    if source not in SOURCES.get(part, {}):
        pairs = [f"{p}/{s}" for p, sources in SOURCES.items() for s in sources]
        raise ValueError(
            f"The number {name!r} needs part/source among {', '.join(pairs)}, got {part}/{source}."
        )

    def decorate(function: F) -> F:
        known = _table.get((part, name))
        owner = _path(known.function) if known else f"the card ({part}/{name})"
        if name in DETAILS.get(part, ()) or (known and owner != _path(function)):
            raise KeyError(
                f"The number {name!r} of {part} is already registered by {owner}, so "
                f"{_path(function)} needs another name."
            )
        _table[part, name] = Number(
            name, part, source, function, label, unit, higher_is_better, digits, version
        )
        return function

    return decorate


def numbers(part: str | None = None, source: str | None = None) -> list[Number]:
    """The numbers of a part and a source, or of all, in the order of registration."""
    load()  # imports all modules that register, plugins included
    return [
        number
        for number in _table.values()
        if part in (None, number.part) and source in (None, number.source)
    ]


def compute(part: str, source: str, *arguments: Any) -> dict[str, float]:
    """Values of all numbers of a part and a source whose function returns a scalar."""
    return {n.name: float(n.function(*arguments)) for n in numbers(part, source)}


def scaled(part: str, values: Mapping[str, float]) -> dict[str, float]:
    """Values in the units of tables, by the names of a part; other keys are left out."""
    return {n.name: n.scale * values[n.name] for n in numbers(part) if n.name in values}


class ScoreNames:
    """Class attribute of an evaluator: names of its scores that are better in one direction.

    Names are looked up when the attribute is read, so numbers that are registered after the class
    is defined are included.

    Args:
        part: part of the card whose numbers the evaluator returns.
        higher_is_better: which direction.
        prefixes: beginnings of the names.
    """

    def __init__(self, part: str, higher_is_better: bool, prefixes: Sequence[str] = ("",)) -> None:
        self.part, self.higher_is_better, self.prefixes = part, higher_is_better, prefixes

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]:
        """The names."""
        names = [n.name for n in numbers(self.part) if n.higher_is_better is self.higher_is_better]
        return tuple(prefix + name for prefix in self.prefixes for name in names)


def _path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
