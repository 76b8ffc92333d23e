"""What is measured, and how."""

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
    """The key ``card`` of an mm config, and the options of ``mixplug eval card``.

    ::

        card = dict(
            ood=[dict(name='LSUN (crop)', root='data/LSUN', fit='crop')],
            attacks=dict(fgsm=dict(eps=8 / 255)))

    Attributes:
        parts: which ones, of :data:`PARTS`.
        attacks: keyword arguments by attack: fgsm, pgd (:mod:`mixplug.functional.attacks`), apgd
            (of torchattacks). With a key ``type`` another name may stand in its place, for several
            of a kind. Those of the thesis (3.4.3) by default.
        ood: out-of-distribution sets: ``root``, a folder of images, ``name``, by default the root,
            and ``fit``, 'resize' (the shorter side to that of the test images, then the center) or
            'crop' (the center).
        noise: 'uniform', 'gaussian', or both: as many images as there are test images.
        bins: of calibration, of equal width.
        neighbors: k of the k-NN score.
        bank: training images that k-NN compares to, at most.
        batch_size: images of a pass.
        workers: processes that read images.
        seed: of noise, random starts, halves, pairs and of what is drawn.

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
        _ = self.suite  # refuses what is no attack

    @property
    def suite(self) -> dict[str, Attack]:
        """The attacks by name, all of their settings complete."""
        return {name: Attack.of(name, keys) for name, keys in self.attacks.items()}

    def bank_of(self, total: int) -> list[int]:
        """Which of so many training images k-NN compares to, drawn by seed, ascending."""
        order = sampling.permutation(total, sampling.generators(self.seed, 0).local)
        return order[: self.bank].sort().values.tolist()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """The key of a config.

        Raises:
            KeyError: an unknown key; it names the nearest.
            ValueError: a value that is not allowed.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise KeyError(f"card has no key {key!r}.{suggest(key, known)}")
        return cls(**given)

    def facts(self) -> dict[str, Any]:
        """All of it, for the JSON."""
        complete = {name: {"type": one.name, **one.keys} for name, one in self.suite.items()}
        return {**asdict(self), "attacks": complete}
