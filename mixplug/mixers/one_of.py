"""OneOf: draw for every batch which of several mixers mixes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import register
from mixplug.mixed import HullMixed, Mixed
from mixplug.mixers.base import CLEAN, Mixer, Plan
from mixplug.mixers.building import build_mixer
from mixplug.mixers.metric import MetricMixing
from mixplug.stages import Need, Stages
from mixplug.stages.frozen import FrozenNetworks

Spec = Mapping[str, Any] | str | type | Mixer
_NOT_MIXED = -1


@dataclass(frozen=True)
class MemberPlan(Plan):
    """The plan of the mixer that was drawn.

    Attributes:
        member: its index; -1 if the batch stays clean.
        own: the plan as the mixer has drawn it.
    """

    member: int = _NOT_MIXED
    own: Plan = field(default_factory=lambda: Plan(CLEAN))


@register(
    "OneOf",
    alias="one_of",
    reference="mmpretrain's augments, timm's switch_prob",
    hosts=("timm", "mmpretrain", "mmdet", "mmseg", "torch"),
)
@dataclass(frozen=True, kw_only=True)
class OneOf(Mixer):
    """One of several mixers, drawn for every batch.

    All ranks draw the same mixer. Its own draws (π, λ, Λ) follow, per rank. In a config a plain
    list, ``mixup=[dict(type='CutMix'), dict(type='AlignMixup')]``, is OneOf with equal
    probabilities.

    Attributes:
        mixers: configs, names or aliases of mixers; one string with commas between names is a list
            of them, for command lines.
        probs: probability of each mixer. Their sum is at most 1; the rest of the batches stays
            clean, as with mmpretrain's ``augments``. None gives all the same probability.
    """

    mixers: tuple[Any, ...] = ("InputMixup", "CutMix")
    probs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Build the mixers, and check the settings."""
        given = self.mixers.split(",") if isinstance(self.mixers, str) else self.mixers
        if not isinstance(given, (list, tuple)) or not given:
            raise ValueError(
                f"{self.name} needs mixers, a non-empty list of mixers, got {self.mixers!r}."
            )
        object.__setattr__(self, "mixers", tuple(map(_member, given)))
        super().__post_init__()
        if self.probs is not None:
            self._check_probs()

    def _check_probs(self) -> None:
        count, probs = len(self.mixers), self.probs
        fits = isinstance(probs, tuple) and len(probs) == count and all(map(_is_share, probs))
        total = sum(probs) if fits and probs is not None else math.inf
        allowed = f"one number >= 0 for each of {count} mixers, with a sum in (0, 1]"
        self.require(0 < total <= 1 + 1e-6, "probs", allowed)

    @property
    def learns(self) -> bool:
        """Whether one of the mixers has parameters."""
        return any(mixer.learns for mixer in self.mixers)

    def edited_modules(self) -> Sequence[str]:
        """Those of all mixers."""
        return [name for mixer in self.mixers for name in mixer.edited_modules()]

    def needs(self) -> list[Need]:
        """Those of all mixers."""
        return list(dict.fromkeys(need for mixer in self.mixers for need in mixer.needs()))

    def attach(self, stages: Stages) -> None:
        """Attach every mixer. What they learn is saved as ``mixup.<index>``."""
        modules: dict[str, nn.Module] = {}
        for index, mixer in enumerate(self.mixers):
            with _member_of(stages, index, modules.__setitem__):
                mixer.attach(stages)
        if modules:
            stages.learn(nn.ModuleDict(modules))

    def sample(self, x: Tensor, generators: sampling.Generators) -> MemberPlan:
        """Draw a mixer (synced), then its plan."""
        return self._sample(generators, lambda mixer: mixer.sample(x, generators))

    def sample_within(self, generators: sampling.Generators) -> MemberPlan:
        """As :meth:`sample`, for detectors and segmentors."""
        return self._sample(generators, lambda mixer: mixer.sample_within(generators))

    def _sample(
        self, generators: sampling.Generators, sample: Callable[[Mixer], Plan]
    ) -> MemberPlan:
        probs = self.probs or (1 / len(self.mixers),) * len(self.mixers)
        names = [*map(str, range(len(probs))), str(_NOT_MIXED)]
        ways = [*probs, max(0.0, 1 - math.fsum(probs))]
        member = int(sampling.branch(names, generators.synced, ways))
        if member == _NOT_MIXED:
            return MemberPlan(CLEAN)
        own = sample(self.mixers[member])
        shared = {name: getattr(own, name) for name in Plan.__dataclass_fields__}
        return MemberPlan(**shared, member=member, own=own)

    def leave_out(self, plan: Plan, known: Tensor) -> Plan:
        """As the mixer that was drawn."""
        left = super().leave_out(plan, known)
        if not isinstance(left, MemberPlan) or left.member == _NOT_MIXED:
            return left
        return replace(left, own=self.mixers[left.member].leave_out(left.own, known))

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Mix by the mixer that was drawn. Parameters of the others get zero gradients, for DDP."""
        mixer, own = self._drawn(plan)
        if mixer is None:
            return self.unmixed(stages, x, y)
        index = plan.member if isinstance(plan, MemberPlan) else _NOT_MIXED
        with _member_of(stages, index):
            mixed = mixer.apply(stages, x, y, own)
        return _touched(mixed, stages, index)

    def unmixed(self, stages: Stages, x: Tensor, y: Tensor) -> Mixed:
        """The batch as it is."""
        return _touched(super().unmixed(stages, x, y), stages)

    def mix_rows(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        """As the mixer that was drawn."""
        return self._within(plan)[0].mix_rows(logits, y, self._within(plan)[1], weight)

    def mix_positions(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        """As the mixer that was drawn."""
        return self._within(plan)[0].mix_positions(logits, y, self._within(plan)[1], weight)

    def require_way(self, way: str, host: str) -> None:
        """As in the base, for every mixer."""
        for mixer in self.mixers:
            mixer.require_way(way, host)

    def _drawn(self, plan: Plan) -> tuple[Mixer | None, Plan]:
        """The mixer, and its plan. A host that draws a key again for each head has set it here."""
        if not isinstance(plan, MemberPlan) or plan.member == _NOT_MIXED:
            return None, plan
        return self.mixers[plan.member], replace(plan.own, key=plan.key)

    def _within(self, plan: Plan) -> tuple[Mixer, Plan]:
        mixer, own = self._drawn(plan)
        if mixer is None:
            raise ValueError(f"{self.name} was asked to mix by a plan that leaves the batch clean.")
        return mixer, own


def _member(spec: Spec) -> Mixer:
    mixer = spec if isinstance(spec, Mixer) else build_mixer(spec)
    if isinstance(mixer, MetricMixing):
        raise ValueError(
            f"OneOf draws among mixers, but {spec!r} is a metric loss, with which the classifier "
            f"is no longer trained with the network. Use it alone."
        )
    if mixer.off_epoch is not None:
        raise ValueError(
            f"OneOf needs off_epoch beside its mixers and not within {mixer.name}, got "
            f"off_epoch={mixer.off_epoch} there. It holds for all of them."
        )
    return mixer


def _is_share(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value >= 0


@contextmanager
def _member_of(
    stages: Stages, index: int, learn: Callable[[str, nn.Module], None] | None = None
) -> Iterator[None]:
    """Within this context the stages hold what one mixer learns, and its frozen networks alone."""
    learned, frozen = stages.learned, stages.frozen
    name = str(index)
    own = isinstance(learned, nn.ModuleDict) and name in learned
    stages.learned = learned[name] if own else None  # type: ignore[index]
    stages.frozen = _MemberNetworks(frozen, name)
    if learn is not None:
        vars(stages)["learn"] = lambda module: learn(name, module)
    try:
        yield
    finally:
        stages.learned, stages.frozen = learned, frozen
        vars(stages).pop("learn", None)


def _touched(mixed: Mixed | HullMixed, stages: Stages, drawn: int = _NOT_MIXED) -> Any:
    """The same loss, with a gradient of zero for what the mixers that were not drawn learn."""
    learned = stages.learned
    if not isinstance(learned, nn.ModuleDict):
        return mixed
    others = [module for name, module in learned.items() if name != str(drawn)]
    unused = [p.flatten()[:0].sum() for module in others for p in module.parameters()]
    if not unused:
        return mixed
    return replace(mixed, extra={**mixed.extra, "others": torch.stack(unused).sum()})


class _MemberNetworks(FrozenNetworks):
    """The frozen networks of one mixer, among those of all."""

    def __init__(self, networks: FrozenNetworks, name: str) -> None:
        self._all, self._prefix = networks, f"{name}."

    def build(self, builders: Mapping[str, Callable[[], nn.Module]], owner: str) -> None:
        self._all.build({self._prefix + name: make for name, make in builders.items()}, owner)

    def __getitem__(self, name: str) -> nn.Module:
        return self._all[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        own = (name for name in self._all if name.startswith(self._prefix))
        return (name.removeprefix(self._prefix) for name in own)

    def __len__(self) -> int:
        return sum(1 for _ in self)
