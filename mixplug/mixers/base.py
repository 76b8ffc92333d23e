"""The base of all mixers: settings in a frozen dataclass, ``sample`` and ``apply``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import KINDS, entries
from mixplug.functional.aligned import mix
from mixplug.functional.targets import IGNORED
from mixplug.mixed import HullMixed, Mixed, clean
from mixplug.mixers.known import labeled, left_out, of_known
from mixplug.renamed import warn
from mixplug.stages import Need, Stages

CLEAN = "clean"


# Methods by which a mixer mixes what a detector or segmentor classifies, and what they mix.
WAYS = {
    "mix_rows": "classified rows with one label each, such as a detector's RoIs",
    "mix_positions": "classified positions with one label each, such as a segmentor's pixels",
}

_NOT_DRAWN = torch.empty(0)
_PLAIN = {"int", "float", "bool", "str"}


@dataclass(frozen=True)
class Plan:
    """All random draws of one training step.

    Attributes:
        branch: the way of mixing; equal on all ranks.
        permutation: π, (B,): example i is paired with example π(i).
        lam: λ, (B,), the weight of example i; its pair has 1 - λ.
        key: seed of a generator for draws whose shape is known only after the features.
        synced: the same, for draws that are equal on all ranks.
        box: top, bottom, left, right of a pasted rectangle, in pixels.
    """

    branch: str
    permutation: Tensor = _NOT_DRAWN
    lam: Tensor = _NOT_DRAWN
    key: int = 0
    synced: int = 0
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    def generator(self, device: torch.device) -> torch.Generator:
        """A generator that is seeded by ``key``."""
        return sampling.generator(self.key, device)


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """Base of all mixers. The fields of a subclass are its config keys.

    A subclass defines :meth:`sample` and :meth:`apply`. If it has parameters it also defines
    :meth:`learns` and :meth:`build_module`, if it mixes at named layers :meth:`edited_modules`, and
    if it uses frozen networks :meth:`frozen`.

    Detectors and segmentors classify many things in an image, and run their model themselves. They
    ask a mixer for a plan with :meth:`sample_within`, and then pass what they have classified to
    :meth:`mix_rows` or :meth:`mix_positions`. A mixer that defines one of the two works there.

    Attributes:
        off_epoch: mixing is off from this epoch on, counted from 0; None keeps it on.
    """

    off_epoch: int | None = None
    # Name of a method that it does not have, to the reason, for the message.
    unsupported: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Turn lists into tuples, since config files have no tuples, and check the types."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            self.require(_fits(value, str(field.type)), field.name, f"of type {field.type}, finite")
        if self.off_epoch is not None and self.off_epoch < 0:
            raise ValueError(f"{self.name} needs off_epoch >= 0 or None, got {self.off_epoch}.")

    @property
    def name(self) -> str:
        """Class name, for messages."""
        return type(self).__name__

    def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw a plan for the batch ``x`` (B, ...). Only the shape of ``x`` is used."""
        raise NotImplementedError

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Run the model on ``x``, mixed by the plan; ``y`` as in :func:`soft_targets`."""
        raise NotImplementedError

    def sample_within(self, generators: sampling.Generators) -> Plan:
        """Draw a plan, perhaps a ``CLEAN`` one, for :meth:`mix_rows` or :meth:`mix_positions`."""
        raise NotImplementedError

    def mix_rows(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        """Mix the logits of rows, which for a linear classifier is the same as mixing its inputs.

        Args:
            logits: (B, K) of the rows.
            y: (B,) class indices.
            plan: of :meth:`sample_within`.
            weight: (B,) >= 0, weight of each row in the host's loss.
        """
        raise NotImplementedError

    def mix_positions(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        """Mix the logits of a batch at every position, which a 1x1 convolution has classified.

        Args:
            logits: (B, K, N) of the positions.
            y: (B, N) class indices.
            plan: of :meth:`sample_within`.
            weight: (B, N) >= 0, weight of each position in the host's loss; 0 ignores it.
        """
        raise NotImplementedError

    def is_off(self, epoch: int | None) -> bool:
        """Whether batches are left clean in this epoch.

        Raises:
            ValueError: there is an ``off_epoch``, and the epoch is not known.
        """
        if self.off_epoch is None:
            return False
        if epoch is None:
            raise ValueError(
                f"{self.name} has off_epoch={self.off_epoch} and needs the epoch of every batch: "
                f"pass mixer(stages, x, y, generators, epoch=epoch), counted from 0, or leave "
                f"off_epoch out."
            )
        return epoch >= self.off_epoch

    @classmethod
    def has(cls, way: str) -> bool:
        """Whether it has this method, one of :data:`WAYS`."""
        return getattr(cls, way) is not getattr(Mixer, way)

    def require_way(self, way: str, host: str) -> None:
        """Raise ValueError if it lacks what ``host`` needs; the error lists mixers that have it."""
        if self.has(way):
            return
        able = [
            e.name for e in entries("mixer") if isinstance(e.target, type) and _has(e.target, way)
        ]
        why = self._reasons().get(way, "")
        raise ValueError(
            f"{self.name} does not work in {host}: it has no {way}, which mixes {WAYS[way]}."
            f"{why and ' ' + why} Mixers that have it: {', '.join(able)}."
        )

    def _reasons(self) -> Mapping[str, str]:
        if hasattr(self, "unfit"):
            warn(f"{self.name}.unfit", "Mixer.unsupported")
            old: Mapping[str, str] = self.unfit
            return old
        return self.unsupported

    @property
    def learns(self) -> bool:
        """Whether the mixer has parameters, which :meth:`build_module` makes."""
        return False

    def build_module(self, embed_dim: int) -> nn.Module:
        """The module with the mixer's parameters, for embeddings of width ``embed_dim``."""
        raise NotImplementedError

    def frozen(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Frozen helper networks: name to a function without arguments that builds the network.

        Each is built once, by :meth:`attach`, and is ``stages.frozen[name]`` from then on: in
        evaluation mode, without gradients of its parameters, on the model's device, and no part of
        the model, its state dict, its optimizer or its copies. A network with trained weights comes
        from :class:`mixplug.mixers.FromFile`.
        """
        return {}

    def edited_modules(self) -> Sequence[str]:
        """Names of the modules at which it mixes, other than features and embedding."""
        if hasattr(self, "points"):
            warn(f"{self.name}.points", "Mixer.edited_modules")
            names: Sequence[str] = self.points()
            return names
        return ()

    def needs(self) -> Sequence[Need]:
        """Places at which it mixes or splits what the model makes, and what has to hold there.

        They are checked once, before the first batch is mixed; see :class:`mixplug.stages.Need`.
        The input needs no entry.
        """
        return ()

    def attach(self, stages: Stages) -> None:
        """Check the model against the settings, and give it what the mixer needs.

        That is: taps at the edited modules, the mixer's own parameters, and frozen networks. It is
        to be called before the optimizer is built and before DDP or compile wrap the model. A mixer
        that looks at class attention calls ``stages.keep_attention()`` here.
        """
        if self.needs():
            stages.require_embedding(f"{self.name} mixes more than the input")
        stages.frozen.build(self.frozen(), self.name)
        for name in self.edited_modules():
            stages.require(name)
        if self.learns:
            like = next(stages.model.parameters())
            stages.learn(self.build_module(stages.embed_dim).to(like.device, like.dtype))

    def __call__(
        self,
        stages: Stages,
        x: Tensor,
        y: Tensor,
        generators: sampling.Generators,
        epoch: int | None = None,
        step: int | None = None,
        ignore_index: int = IGNORED,
    ) -> Mixed | HullMixed:
        """Mix one training batch: draw a plan, run the model, return the terms of the loss.

        An example whose label is ``ignore_index`` has no part in a mix. The other example of its
        pair stays clean, MultiMix mixes the examples that have a label, and the loss is averaged
        over these.

        Args:
            stages: the model.
            x: (B, ...) input.
            y: (B,) class indices, or (B, K) soft or multi-label rows.
            generators: of this step, see :func:`mixplug.sampling.generators`.
            epoch: counted from 0; needed where the mixer has an ``off_epoch``.
            step: for messages.
            ignore_index: class index of examples without a label, as in PyTorch's losses.

        Raises:
            ValueError: settings, model or batch do not fit each other, or features are NaN.
        """
        self._check_batch(x, y, step)
        off = self.is_off(epoch)
        if not off:
            stages.place(self.needs(), x)
        plan = Plan(CLEAN) if off else self.sample(x, generators)
        y, known = labeled(y, ignore_index)
        plan = plan if known is None else self.leave_out(plan, known)
        mixed = self.unmixed(stages, x, y) if off else self.apply(stages, x, y, plan)
        mixed = of_known(mixed, y, known)
        stages.check(
            f"{self.name}, branch {plan.branch!r}" + ("" if step is None else f", step {step}")
        )
        return mixed

    def leave_out(self, plan: Plan, known: Tensor) -> Plan:
        """The plan in which a pair with an example that is ignored is not mixed.

        Each of the two is then its own partner, with λ = 1.

        Args:
            plan: of this step.
            known: (B,) bool, whether an example has a label.
        """
        if not len(plan.permutation):
            return plan
        permutation, lam = left_out(plan.permutation, plan.lam, known)
        return replace(plan, permutation=permutation, lam=lam)

    def _check_batch(self, x: Tensor, y: Tensor, step: int | None) -> None:
        if y.dim() == 0 or len(y) != len(x) or not len(x):
            raise ValueError(
                f"{self.name} needs one target per example, and at least one example, got "
                f"{len(x)} examples and targets of shape {tuple(y.shape)}."
            )
        if not y.is_floating_point() and y.dim() != 1:
            raise ValueError(
                f"{self.name} needs class indices (B,), or soft or multi-label rows (B, K) of "
                f"floats, got {y.dtype} of shape {tuple(y.shape)}. For rows pass y.float()."
            )
        # Checked before the model runs: batch norm would put the NaN into its running averages.
        if x.device.type == "cpu" and x.is_floating_point() and bool(x.isnan().any()):
            at = "" if step is None else f", step {step}"
            raise ValueError(f"{self.name}{at}: the input contains NaN. The model did not run.")

    def unmixed(self, stages: Stages, x: Tensor, y: Tensor) -> Mixed:
        """Run the model on the batch without mixing."""
        return clean(stages(x).logits, y)

    def require(self, ok: bool, key: str, allowed: str) -> None:
        """Raise ValueError with the mixer, its key, the value and the allowed values, if not ok."""
        if not ok:
            raise ValueError(f"{self.name} needs {key} {allowed}, got {getattr(self, key)!r}.")


KINDS["mixer"] = Mixer


def _has(target: type, way: str) -> bool:
    return issubclass(target, Mixer) and target.has(way)


def _fits(value: object, annotation: str) -> bool:
    """Whether a setting has one of the types in the annotation of its field."""
    allowed = annotation.replace(" ", "").split("|")
    if isinstance(value, bool):
        return "bool" in allowed or not _PLAIN & set(allowed)
    if isinstance(value, (int, float)) and _PLAIN & set(allowed):
        whole = isinstance(value, int)
        return math.isfinite(value) and ("float" in allowed or (whole and "int" in allowed))
    if isinstance(value, str) and _PLAIN & set(allowed):
        return "str" in allowed
    return True


def pair(t: Tensor, plan: Plan) -> Tensor:
    """Mixup of a batch with its permutation; λ weighs the example itself (eq. 3.1)."""
    return mix(t, t[plan.permutation.to(t.device, non_blocking=True)], plan.lam)
