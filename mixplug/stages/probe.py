"""What a pass beside the training step has seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mixplug.functional.targets import soft_targets
from mixplug.mixed import Mixed
from mixplug.stages.attention import class_attention, see_attention
from mixplug.stages.isolation import undisturbed
from mixplug.stages.passes import Passes
from mixplug.stages.taps import Step

NAMES = ("input_grad", "logits", "map", "attention")


@dataclass(frozen=True)
class Probe:
    """Result of :meth:`mixplug.Stages.probe`. Nothing in it carries a gradient.

    Reading what was not asked for raises a ValueError.

    Attributes:
        values: what was asked for, by name.
    """

    values: Mapping[str, Tensor]

    @property
    def input_grad(self) -> Tensor:
        """Gradient of the summed loss with respect to x, in the shape and dtype of x."""
        return self._value("input_grad")

    @property
    def logits(self) -> Tensor:
        """Logits (B, K)."""
        return self._value("logits")

    @property
    def map(self) -> Tensor:
        """Feature map (B, C, H, W)."""
        return self._value("map")

    @property
    def attention(self) -> Tensor:
        """Class-to-patch attention (B, N), see :meth:`mixplug.Stages.attention`."""
        return self._value("attention")

    def _value(self, name: str) -> Tensor:
        if name not in self.values:
            raise ValueError(
                f"This probe has no {name}, it was asked for {', '.join(sorted(self.values))}. "
                f"Add {name!r} to want."
            )
        return self.values[name]


def look(
    passes: Passes,
    x: Tensor,
    y: Tensor | None,
    want: Collection[str],
    criterion: object,
    at: str | None,
    block: int | None,
) -> Probe:
    """See :meth:`mixplug.Stages.probe`."""
    names = _checked(want, y)
    found: dict[str, Tensor] = {}
    steps: dict[str, list[Step]] = {}
    if "map" in names and at is not None:

        def see_map(output: object) -> object:
            found["map"] = passes.read(at, output)
            return output

        steps.setdefault(at, []).append(see_map)
    if "attention" in names:
        attention = class_attention(passes.model, passes.layout, block)
        note = partial(found.__setitem__, "attention")
        steps.setdefault(attention.projection, []).append(partial(see_attention, attention, note))
    graded = "input_grad" in names
    with undisturbed(passes.model, x.device), torch.set_grad_enabled(graded):
        leaf = x.detach().requires_grad_(graded)
        found["logits"] = passes.edited(passes.model, leaf, steps).logits
        if y is not None and graded:
            loss = _summed_loss(found["logits"], y, criterion)
            (found["input_grad"],) = torch.autograd.grad(loss, leaf)
    return Probe({name: found[name].detach() for name in names})


def _checked(want: Collection[str], y: Tensor | None) -> frozenset[str]:
    """The names to look for.

    Raises:
        ValueError: none, an unknown one, a string in place of a collection, or an input gradient
            without targets.
    """
    names = frozenset([want] if isinstance(want, str) else want)
    unknown = sorted(names - set(NAMES))
    if isinstance(want, str) or unknown or not names:
        found = ", ".join(map(repr, unknown)) if unknown else repr(want)
        raise ValueError(f"probe needs want to be a set of some of {NAMES}, got {found}.")
    if "input_grad" in names and y is None:
        raise ValueError("probe needs targets y for 'input_grad', the gradient of a loss.")
    return names


def _summed_loss(logits: Tensor, y: Tensor, criterion: object) -> Tensor:
    """Sum over examples of the loss, a float32 (float64 if given) scalar.

    A mean over the batch would divide gradients by B, and half precision would lose the small ones.
    """
    mixed = Mixed(logits, soft_targets(y, logits.shape[-1]))
    return mixed.loss(criterion) * len(logits)
