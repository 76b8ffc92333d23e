"""Attacks by name with all their settings, as cards and evaluators run them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import suggest
from mixplug.functional import attacks
from mixplug.numbers import card_number

# What an attack draws from, made of a key and a device.
ATTACKS: Mapping[str, Callable[[int, torch.device], dict[str, Any]]] = {
    "fgsm": lambda key, device: {},
    "pgd": lambda key, device: {"generator": sampling.generator(key, device)},
    "apgd": lambda key, device: {"seed": key % (1 << 31)},
}
PART = "robustness"
_GIVEN = ("model", "x", "y", "generator", "seed")  # by whoever runs it


@dataclass(frozen=True)
class Attack:
    """An attack of :mod:`mixplug.functional.attacks` with all of its settings.

    Attributes:
        name: of :data:`ATTACKS`.
        keys: of the attack; after construction all of them, defaults included.

    Raises:
        ValueError: another attack, or a setting of another kind than its default.
        KeyError: a setting that the attack does not have.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings, and complete them."""
        if self.name not in ATTACKS:
            raise ValueError(f"There is no attack {self.name!r}, only {', '.join(ATTACKS)}.")
        known = {
            key: one.default
            for key, one in inspect.signature(getattr(attacks, self.name)).parameters.items()
            if key not in _GIVEN
        }
        for key, value in self.keys.items():
            if key not in known:
                near = suggest(key, list(known))
                raise KeyError(f"The attack {self.name!r} has no key {key!r}.{near}")
            whole = isinstance(known[key], int) and not isinstance(known[key], bool)
            if whole and (value != int(value) or value < 1):
                raise ValueError(f"{self.name} needs {key} to be a whole number >= 1, got {value}.")
        for key in ("eps", "step"):
            if not 0 <= self.keys.get(key, 0) <= 1:
                raise ValueError(
                    f"{self.name} needs {key} in [0, 1], where 1 is the step from black to white, "
                    f"such as 8/255, got {self.keys[key]}."
                )
        complete = {key: type(of)(self.keys.get(key, of)) for key, of in known.items()}
        object.__setattr__(self, "keys", complete)

    @classmethod
    def of(cls, name: str, keys: Mapping[str, Any]) -> Attack:
        """That of a config, whose ``type`` is its name if there is no such key.

        Raises:
            ValueError: see the class.
            KeyError: see the class.
        """
        rest = {key: value for key, value in keys.items() if key != "type"}
        return cls(keys.get("type", name), rest)

    @property
    def drawn(self) -> bool:
        """Whether it draws at random."""
        return self.name == "apgd" or bool(self.keys.get("random_start"))

    @property
    def steps(self) -> int:
        """Forward and backward passes of an image."""
        return int(self.keys.get("iters", 1))

    def __str__(self) -> str:
        """With its settings, such as 'PGD 4/255, step 2/255, 10 iterations'."""
        said = [_pixel(self.keys["eps"])]
        if "step" in self.keys:
            said.append(f"step {_pixel(self.keys['step'])}")
        if "iters" in self.keys:
            said.append(f"{self.keys['iters']} iterations")
        if self.keys.get("random_start"):
            said.append("random start")
        return f"{self.name.upper()} {', '.join(said)}"

    def __call__(self, model: attacks.Model, x: Tensor, y: Tensor, key: int) -> Tensor:
        """Images (B, C, H, W) in [0, 1], changed so that a model errs.

        Args:
            model: from such images to logits (B, K).
            x: the images.
            y: their classes, (B,).
            key: of what is drawn.

        Raises:
            ValueError: see :func:`mixplug.functional.fgsm`.
        """
        changed: Tensor = getattr(attacks, self.name)(
            model, x, y, **self.keys, **ATTACKS[self.name](key, x.device)
        )
        return changed


@card_number(
    "error", part=PART, source="correct", label="top-1 error", unit="%", higher_is_better=False
)
def top1_error(correct: Tensor) -> Tensor:
    """Share of attacked images, (N,) bool, that are not classified correctly."""
    return 1 - correct.double().mean()


def _pixel(value: float) -> str:
    """As a share of 255 where it is a whole one."""
    levels = round(255 * value)
    return f"{levels}/255" if abs(255 * value - levels) < 1e-9 else f"{value:g}"
