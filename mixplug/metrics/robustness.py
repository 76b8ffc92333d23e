"""Adversarial attacks by name with all settings, as cards and evaluators run them."""

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

# From a key and a device to the argument that the random draws of an attack come from.
ATTACKS: Mapping[str, Callable[[int, torch.device], dict[str, Any]]] = {
    "fgsm": lambda key, device: {},
    "pgd": lambda key, device: {"generator": sampling.generator(key, device)},
    "apgd": lambda key, device: {"seed": key % (1 << 31)},
}
PART = "robustness"
_GIVEN = ("model", "x", "y", "generator", "seed")  # arguments that are no settings


@dataclass(frozen=True)
class Attack:
    """An attack of :mod:`mixplug.functional.attacks` with all of its settings.

    Attributes:
        name: a key of :data:`ATTACKS`.
        keys: settings of the attack; after construction also those that have their default.

    Raises:
        ValueError: an unknown attack, or a setting with a value that is not allowed.
        KeyError: a setting that the attack does not have.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings and add the defaults."""
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
                    f"{self.name} needs {key} in [0, 1], such as 8/255, where 1 is the difference "
                    f"of black and white, got {self.keys[key]}."
                )
        complete = {key: type(of)(self.keys.get(key, of)) for key, of in known.items()}
        object.__setattr__(self, "keys", complete)

    @classmethod
    def of(cls, name: str, keys: Mapping[str, Any]) -> Attack:
        """Attack of a config: the key ``type`` names it, else its name in the config.

        Raises:
            ValueError: see the class.
            KeyError: see the class.
        """
        rest = {key: value for key, value in keys.items() if key != "type"}
        return cls(keys.get("type", name), rest)

    @property
    def drawn(self) -> bool:
        """Whether the attack is random."""
        return self.name == "apgd" or bool(self.keys.get("random_start"))

    @property
    def steps(self) -> int:
        """Number of forward and backward passes of an image."""
        return int(self.keys.get("iters", 1))

    def __str__(self) -> str:
        """Name and settings, such as 'PGD 4/255, step 2/255, 10 iterations'."""
        parts = [_pixel(self.keys["eps"])]
        if "step" in self.keys:
            parts.append(f"step {_pixel(self.keys['step'])}")
        if "iters" in self.keys:
            parts.append(f"{self.keys['iters']} iterations")
        if self.keys.get("random_start"):
            parts.append("random start")
        return f"{self.name.upper()} {', '.join(parts)}"

    def __call__(self, model: attacks.Model, x: Tensor, y: Tensor, key: int) -> Tensor:
        """Change images (B, C, H, W) in [0, 1] so that a model classifies them wrongly.

        Args:
            model: from images in [0, 1] to logits (B, K).
            x: the images.
            y: classes of the images, (B,).
            key: determines the random draws.

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
    """A value in gray levels, such as 8/255, if it is an integer number of them."""
    levels = round(255 * value)
    return f"{levels}/255" if abs(255 * value - levels) < 1e-9 else f"{value:g}"
