"""What a card evaluates, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mixplug import sampling
from mixplug.catalog import suggest
from mixplug.data.noise import NOISE
from mixplug.data.unlabeled import FITS
from mixplug.metrics.robustness import Attack
from mixplug.renamed import renamed_keys

PARTS = ("clean", "robustness", "calibration", "ood", "representation", "attention", "speed")
FIT = "resize"
NOISES = tuple(NOISE)


@renamed_keys(neighbours="neighbors")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a card: the key ``card`` of an mm config, and options of ``mixplug eval card``.

    ::

        card = dict(
            ood=[dict(name='LSUN (crop)', root='data/LSUN', fit='crop')],
            attacks=dict(fgsm=dict(eps=8 / 255)))

    Attributes:
        parts: the parts to evaluate, of :data:`PARTS`.
        attacks: keyword arguments by attack: fgsm and pgd (:mod:`mixplug.functional.attacks`), and
            apgd of torchattacks. An entry with the key ``type`` may have any name, which allows
            several settings of one attack. The default are the attacks of the thesis (3.4.3).
        ood: out-of-distribution sets. Each has ``root``, a folder of images, and may have ``name``,
            by default the root, and ``fit``: 'resize' (resize the shorter side to that of the test
            images, then crop the center) or 'crop' (crop the center).
        noise: 'uniform', 'gaussian', or both. Each has as many images as the test set.
        bins: number of calibration bins of equal width.
        neighbors: k of the k-NN score.
        bank: maximum number of training images for k-NN.
        batch_size: images per batch.
        workers: processes that read images.
        seed: of noise, random starts, halves, pairs, and the images in figures.

    Raises:
        ValueError: a value that is not allowed.
    """

    parts: Sequence[str] = PARTS
    attacks: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "fgsm": {"eps": 8 / 255},
            "pgd": {"eps": 4 / 255, "step": 2 / 255, "iters": 10},
        }
    )
    ood: Sequence[Mapping[str, str]] = ()
    noise: Sequence[str] = NOISES
    bins: int = 15
    neighbors: int = 50
    bank: int = 50_000
    batch_size: int = 256
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("parts", PARTS), ("noise", NOISES)):
            wrong = [value for value in getattr(self, name) if value not in allowed]
            if wrong or isinstance(getattr(self, name), str):
                raise ValueError(
                    f"A card needs {name} among {allowed}, got {getattr(self, name)!r}."
                )
        for name in ("bins", "neighbors", "bank", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"A card needs {name} >= 1, got {getattr(self, name)}.")
        for one in self.ood:
            if "root" not in one or set(one) - {"root", "name", "fit"}:
                raise ValueError(
                    f"A set of card.ood needs the key root, and may have name and fit, got {one}."
                )
            if one.get("fit", FIT) not in FITS:
                raise ValueError(f"card.ood needs fit in {FITS}, got {one['fit']!r}.")
        _ = self.suite  # checks the attacks

    @property
    def suite(self) -> dict[str, Attack]:
        """The attacks by name, with all of their settings."""
        return {name: Attack.of(name, keys) for name, keys in self.attacks.items()}

    def bank_of(self, total: int) -> list[int]:
        """Indices of the training images for k-NN, drawn with the seed, in ascending order."""
        order = sampling.permutation(total, sampling.generators(self.seed, 0).local)
        return order[: self.bank].sort().values.tolist()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Settings from the key ``card`` of a config.

        Raises:
            KeyError: an unknown key; the message suggests the nearest one.
            ValueError: a value that is not allowed.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise KeyError(f"card has no key {key!r}.{suggest(key, known)}")
        return cls(**given)

    def facts(self) -> dict[str, Any]:
        """All settings, for the JSON."""
        complete = {name: {"type": one.name, **one.keys} for name, one in self.suite.items()}
        return {**asdict(self), "attacks": complete}
