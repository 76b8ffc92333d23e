"""Base of mixers of pairs: λ ~ Beta(α, α), a permutation, and an optional dense loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from torch import Tensor

from mixplug import sampling
from mixplug.functional.targets import soft_targets
from mixplug.layouts import pool
from mixplug.mixed import Mixed
from mixplug.mixers.base import CLEAN, Mixer, Plan, pair
from mixplug.stages import DENSE, WHOLE, Edit, Forward, Need, Stages


@dataclass(frozen=True, kw_only=True)
class PairMixer(Mixer):
    """Base of mixers of pairs.

    A subclass overrides what differs: :meth:`mix_input` or :meth:`mix_images` to mix images in
    another way, :meth:`branches` to mix features, :meth:`refine` to draw more, and :meth:`share` to
    weigh targets by what it measures.

    Attributes:
        alpha: α of Beta(α, α), > 0.
        prob: probability that a batch is mixed.
        per_example: draw one λ per example instead of one per batch.
        dense: apply the loss at every position of the last map, with the target of the example
            (Table 5.9).
        resolution: average-pool this map, or the map that is mixed, to r x r; None leaves it.
    """

    alpha: float = 1.0
    prob: float = 1.0
    per_example: bool = False
    dense: bool = False
    resolution: int | None = None
    unsupported: ClassVar = {
        "mix_rows": "It mixes pairs of images, whose boxes do not come in pairs.",
        "mix_positions": "It mixes pairs of images that have one label each.",
    }

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.require(self.alpha > 0, "alpha", "> 0")
        self.require(0 <= self.prob <= 1, "prob", "in [0, 1]")
        self.require(self.resolution is None or self.resolution >= 1, "resolution", ">= 1 or None")

    def _check_resolution(self) -> None:
        maps = set(self.branches()) - {"x", "e"}
        if self.resolution is not None and not self.dense and not maps:
            raise ValueError(
                f"{self.name} mixes no map with these settings, so resolution={self.resolution} "
                f"needs dense=True."
            )

    def branches(self) -> dict[str, float]:
        """Ways of mixing, and their relative frequency."""
        return {"x": 1.0}

    def needs(self) -> list[Need]:
        """Every level other than the input is whole, and dense positions stand for themselves."""
        levels = [name for name in self.branches() if name not in ("x", CLEAN)]
        dense = [Need("last", (WHOLE, DENSE))] if self.dense else []
        return [*(Need(level, (WHOLE,)) for level in levels), *dense]

    def attach(self, stages: Stages) -> None:
        """Check the settings against each other, then as in the base."""
        self._check_resolution()
        super().attach(stages)

    def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw the branch (synced), then π and λ (per rank)."""
        ways = {name: self.prob * weight for name, weight in self.branches().items()}
        ways[CLEAN] = ways.get(CLEAN, 0.0) + (1 - self.prob) * sum(self.branches().values())
        branch = sampling.branch(list(ways), generators.synced, list(ways.values()))
        permutation = sampling.permutation(len(x), generators.local)
        lam = sampling.beta(self.alpha, len(x) if self.per_example else 1, generators.local)
        plan = Plan(branch, permutation, lam.expand(len(x)), sampling.key(generators.local))
        return plan if branch == CLEAN else self.refine(plan, x, generators)

    def refine(self, plan: Plan, x: Tensor, generators: sampling.Generators) -> Plan:
        """Add further draws of a subclass to the plan."""
        return plan

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """Run the model, mixed at the level that the branch names."""
        measured = None
        if plan.branch == "x":
            mixed = self.mix_images(stages, x, y, plan)
            images, measured = mixed if isinstance(mixed, tuple) else (mixed, None)
            forward = stages(images, dense=self.dense_edit())
        else:
            forward = self.forward(stages, x, plan)
        logits = forward.logits
        target = soft_targets(y, logits.shape[-1])
        if plan.branch != CLEAN:
            share = self.share(stages, x, plan, forward, measured)
            if share is None:
                target = pair(target, plan)
            else:
                target = self._weighed(stages, target, plan, share)
        if self.dense:  # one target for all positions of an example
            logits = logits.reshape(len(x), -1, logits.shape[-1])
            target = target[:, None].expand_as(logits)
        return Mixed(logits, target)

    def forward(self, stages: Stages, x: Tensor, plan: Plan) -> Forward:
        """Mix features: the branch is 'A' (map), 'e', or a module's name; or leave all clean."""
        dense = self.dense_edit()
        mixed = partial(pair, plan=plan)
        if plan.branch == CLEAN:
            return stages(x, dense=dense)
        if plan.branch == "A":
            return stages(x, features=lambda a: mixed(self.pool(a)), prefix=mixed, dense=dense)
        if plan.branch == "e":
            embedding = (lambda e: mixed(e).flatten(0, 1)) if self.dense else mixed
            return stages(x, embedding=embedding, dense=dense)
        return stages(x, layers={plan.branch: mixed}, dense=dense)

    def dense_edit(self) -> Edit | None:
        """The edit of the last map before a dense loss splits it into positions."""
        return self.pool if self.dense else None

    def pool(self, a: Tensor) -> Tensor:
        """The map A at ``resolution``."""
        return pool(a, self.resolution)

    def mix_input(self, x: Tensor, plan: Plan) -> Tensor | tuple[Tensor, Tensor]:
        """Mix the batch at level 'x', where nothing but the images is needed.

        Returns:
            The mixed batch; or the mixed batch and what was measured while mixing, for
            :meth:`share`.
        """
        return pair(x, plan)

    def mix_images(
        self, stages: Stages, x: Tensor, y: Tensor, plan: Plan
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As :meth:`mix_input`, for mixers that look at more than the images.

        They may ask for ``stages.probe(x, y, ...)``, ``stages.frozen[name]`` and ``stages.pixels``.
        """
        return self.mix_input(x, plan)

    def share(
        self, stages: Stages, x: Tensor, plan: Plan, forward: Forward, measured: Tensor | None
    ) -> Tensor | None:
        """Weight of the first operand in the target, in place of λ; called after a mixed pass.

        λ of the plan stays as it was drawn.

        Args:
            stages: the model; ``stages.attention()`` is that of the mixed batch, if :meth:`attach`
                called ``stages.keep_attention()``.
            x: the batch before mixing.
            plan: of this step.
            forward: what the mixed batch gave.
            measured: what :meth:`mix_input` returned beside the batch, None if nothing.

        Returns:
            (B,) in [0, 1], the weight of the first operand, where the second has the rest; or
            (B, 2), the weights of the first and of the second operand, which need not sum to 1; or
            None for λ. By default, what was measured. All weights must be finite and in [0, 1];
            others raise an error, on an accelerator one step late.
        """
        return measured

    def _weighed(self, stages: Stages, target: Tensor, plan: Plan, share: Tensor) -> Tensor:
        """Targets (B, K) of the pairs, weighed by a measured share."""
        size = len(target)
        if share.shape not in ((size,), (size, 2)):
            raise ValueError(
                f"{self.name} needs to measure a share of shape ({size},), or two of shape "
                f"({size}, 2), got {tuple(share.shape)}."
            )
        stages.watch_shares(share, f"{self.name}, branch {plan.branch!r}")
        share = share.detach().clamp(0, 1)  # of rounding
        if share.dim() == 1:
            return pair(target, replace(plan, lam=share))
        first, second = share.to(target).unsqueeze(-1).unbind(1)  # (B, 1) each
        other = target[plan.permutation.to(target.device, non_blocking=True)]
        return first * target + second * other
