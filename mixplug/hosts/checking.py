"""Whether each mixer holds in a model: what ``mixplug doctor models`` prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mixplug
from mixplug import sampling
from mixplug.catalog import entries
from mixplug.mixers.base import Mixer
from mixplug.optional import version_of
from mixplug.stages import Need, Stages

OK, REFUSED, BROKEN = "ok", "refused", "broken"
_PACKAGES = {"timm": "timm", "mmpretrain": "onedl-mmpretrain"}  # by host
_BATCH = 3
_DRAWS = 40  # enough to see each of a mixer's few branches


@dataclass(frozen=True)
class Verdict:
    """What one mixer does with one model.

    Attributes:
        mixer: its name.
        state: 'ok'; 'refused', by an error before the first step; or 'broken', which is a fault.
        reason: why it is not ok, and where it mixes if it is.
    """

    mixer: str
    state: str
    reason: str

    def as_dict(self) -> Row:
        """For JSON."""
        return asdict(self)


Row = dict[str, str]  # a verdict as JSON has it


def takes_all(rows: Sequence[Row]) -> bool:
    """Whether every mixer works in a model."""
    return all(row["state"] == OK for row in rows)


def faults(rows: Sequence[Row]) -> dict[tuple[str, str], list[str]]:
    """State and reason of what does not work in a model, to the mixers that share them."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["state"] != OK:
            found.setdefault((row["state"], row["reason"]), []).append(row["mixer"])
    return found


class Record:
    """Verdicts on the models of one host, with date and versions, and the file that has them.

    Args:
        host: 'timm' or 'mmpretrain'.
        path: JSON file. What it has from the same versions is kept. None keeps no file.

    Attributes:
        models: rows of each model; a row has the fields of :class:`Verdict`.
    """

    def __init__(self, host: str, path: Path | None = None) -> None:
        packages = ("torch", _PACKAGES[host])
        self._path = path
        self._facts = {
            "command": f"mixplug doctor models --host {host}",
            "versions": {
                "mixplug": mixplug.__version__,
                **{name: version_of(name) for name in packages},
            },
        }
        found = json.loads(path.read_text()) if path is not None and path.exists() else {}
        same = found.get("versions") == self._facts["versions"]
        self.models: dict[str, list[Row]] = found["models"] if same else {}

    def add(self, name: str, found: Iterable[Verdict]) -> None:
        """Add a model, and write the file."""
        self.models[name] = [verdict.as_dict() for verdict in found]
        if self._path is not None:
            written = {**self._facts, "date": str(date.today()), "models": self.models}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def verdicts(stages: Callable[[], Stages], size: tuple[int, ...], host: str) -> Iterator[Verdict]:
    """Try every mixer of a host on a model.

    Args:
        stages: gives new stages of the same model, in evaluation mode.
        size: of an image, (C, H, W).
        host: name of the host, as mixers list it.
    """
    images = torch.randn(_BATCH, *size, generator=torch.Generator().manual_seed(0))
    for entry in entries("mixer"):
        if host in entry.hosts:
            yield _verdict(entry.name, entry.target, stages, images)


def _verdict(name: str, build: Any, stages: Callable[[], Stages], x: Tensor) -> Verdict:
    try:
        mixer: Mixer = build()
        placed = stages()
        mixer.attach(placed)
        placed.place(mixer.needs(), x)
    except ValueError as error:
        return Verdict(name, REFUSED, str(error))
    except Exception as error:  # the model's own code may raise anything
        return Verdict(name, BROKEN, f"{type(error).__name__}: {error}")
    try:
        with torch.no_grad():
            fault = _fault(mixer, placed, x)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        return Verdict(name, BROKEN, fault)
    return Verdict(name, OK, ", ".join(_where(placed, mixer.needs())))


def _fault(mixer: Mixer, stages: Stages, x: Tensor) -> str | None:
    """What is wrong with the mixer's places or with a step of one of its branches."""
    for need in mixer.needs():
        if not _whole(stages, need, x):
            return f"At {need.level} a part of an image is not mixed."
    y, seen = torch.arange(len(x)), set[str]()
    for step in range(_DRAWS):
        draws = sampling.generators(0, step)
        plan = mixer.sample(x, draws)
        if plan.branch in seen:
            continue
        seen.add(plan.branch)
        loss = mixer.apply(stages, x, y, plan).loss()
        if not bool(loss.isfinite()):
            return f"The loss of branch {plan.branch!r} is {float(loss):g}."
    return None


def _whole(stages: Stages, need: Need, x: Tensor) -> bool:
    """Whether the features of the other images give the logits of the other images."""

    def roll(t: Tensor) -> Tensor:
        return t.roll(1, 0)

    plain = stages(x)
    if need.level == "e":
        swapped = stages(x, embedding=roll)
    else:
        at = {"A": stages.features, "last": stages.last}.get(need.level, need.level)
        swapped = stages(x, features=roll, prefix=roll, at=at)
    wanted = roll(plain.logits)
    spread = (wanted - wanted.mean(0)).abs().max()
    return bool((swapped.logits - wanted).abs().max() <= 1e-2 * spread + 1e-6)


def _where(stages: Stages, needs: Sequence[Need]) -> Iterator[str]:
    levels = {"A": stages.features, "last": stages.last, "e": None}
    for need in needs:
        name = levels.get(need.level, need.level)
        if name:
            yield name
