"""MultiMix: mix many examples at once, as points in the convex hull of the batch's embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.dense import dense_weights
from mixplug.functional.targets import soft_targets
from mixplug.mixed import HullMixed, Mixed, hull_targets
from mixplug.mixers.base import CLEAN, Mixer, Plan, pair
from mixplug.mixers.known import labeled
from mixplug.stages import WHOLE, Need, Stages

_HULL, _INPUT = "hull", "x"


@register(
    "MultiMix",
    alias="multimix",
    reference="thesis 5.3.2",
    hosts=("timm", "mmpretrain", "mmdet", "torch"),
)
@dataclass(frozen=True, kw_only=True)
class MultiMix(Mixer):
    r"""MultiMix [0]: mix embeddings ``Z Λ`` and targets ``Y Λ``, Λ ~ Dir(α) (eq. 5.6-5.8).

    The loss is on mixed examples only. With probability ``prob`` the embeddings of a batch are
    mixed. Otherwise its inputs are mixed in pairs, where λ weighs the example itself (eq. 5.5).

    With a linear classifier, the B clean logits are mixed instead of the B embeddings. The result
    is the same, and the cost is M x B x K instead of M x D x K.

    In a two-stage detector the examples are the sampled RoIs of a rank's images, and their
    embeddings are the input of ``fc_cls``, see :meth:`mix_rows`. Boxes cannot be mixed, so batches
    whose embeddings are not mixed stay clean. With m = B every mixed embedding is an average of
    hundreds of RoIs, most of them background, so few mixed examples represent objects. A small
    ``m`` avoids this.

    Attributes:
        n: number M of mixed examples per batch and per rank.
        m: number of examples that each is mixed from, or all B where a batch has fewer; None always
            uses all B.
        alpha: concentration of the Dirichlet; (low, high) draws it uniformly per mixed example.
        layer: name of a module whose output is mixed instead of the embedding (Figure 5.4a).
        prob: probability of mixing embeddings rather than pairs of inputs (section 5.4.1).
        input_alpha: α of Beta(α, α) for pairs of inputs.

    - [0]: Embedding Space Interpolation Beyond Mini-Batch, Beyond Pairs and Beyond Examples, 2023,
      https://arxiv.org/abs/2311.05538
    """

    n: int = 1000
    m: int | None = None
    alpha: float | tuple[float, float] = (0.5, 2.0)
    layer: str | None = None
    prob: float = 0.5
    input_alpha: float = 1.0
    unsupported: ClassVar = {
        "mix_positions": "DenseMultiMix mixes where every position has its own label."
    }

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.require(self.n >= 1, "n", ">= 1")
        self.require(self.m is None or self.m >= 1, "m", ">= 1 or None")
        self.require(0 <= self.prob <= 1, "prob", "in [0, 1]")
        self.require(self.input_alpha > 0, "input_alpha", "> 0")
        try:
            sampling.concentration_range(self.alpha)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def edited_modules(self) -> tuple[str, ...]:
        """The named layer."""
        return (self.layer,) if self.layer else ()

    def needs(self) -> list[Need]:
        """What it mixes is all that the classifier gets of an image."""
        return [Need(self.layer or "e", (WHOLE,))] if self.prob else []

    def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw the branch (synced); then a key for Λ, or π and λ (per rank)."""
        ways = (self.prob, 1 - self.prob)
        if sampling.branch((_HULL, _INPUT), generators.synced, ways) == _HULL:
            return Plan(_HULL, key=sampling.key(generators.local))
        lam = sampling.beta(self.input_alpha, 1, generators.local).expand(len(x))
        return Plan(_INPUT, sampling.permutation(len(x), generators.local), lam)

    def require_way(self, way: str, host: str) -> None:
        """As in the base; these hosts mix at the classifier, so ``layer`` must be None."""
        super().require_way(way, host)
        self.require(self.layer is None, "layer", f"None in {host}: it mixes before the classifier")

    def sample_within(self, generators: sampling.Generators) -> Plan:
        """Draw whether to mix (synced), with probability ``prob``, and a key for Λ (per rank)."""
        ways = (self.prob, 1 - self.prob)
        branch = sampling.branch((_HULL, CLEAN), generators.synced, ways)
        return Plan(branch, key=sampling.key(generators.local))

    def mix_rows(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        r"""Mix B rows (eq. 5.6-5.7); the loss has the scale of the host's own.

            M = diag(a) Λ,  s = column sums of M,  M̂ = M diag(s)^-1,  loss: mean of s_k H_k

        The weight a of a row acts as attention does in Dense MultiMix (eq. 5.10-5.14): a row of
        weight 0 is not mixed. If all weights are 1 this is MultiMix, and if Λ is the identity it is
        the weighted mean over rows. Each mixed example is made of ``m`` rows, or of all if there
        are fewer.
        """
        source = plan.generator(logits.device)
        m = self._at_most(len(logits))
        drawn = sampling.hull_weights(self.n, len(logits), self.alpha, m, source)
        m_hat, s = dense_weights(drawn.to(logits.device)[..., None], weight[:, None])
        target = soft_targets(y, logits.shape[-1])
        return HullMixed(logits, target, m_hat[..., 0], s[:, 0] / len(s), output=logits)

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Run the model on the clean batch and mix its embeddings, or run it on mixed inputs."""
        if plan.branch == _INPUT:
            return self.pairs(stages, x, y, plan)
        return self.hull(stages, x, y, plan)

    def pairs(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """Input mixup (eq. 5.5)."""
        logits = stages(pair(x, plan)).logits
        return Mixed(logits, pair(soft_targets(y, logits.shape[-1]), plan))

    def require_commuting(self, stages: Stages) -> None:
        """Raise ValueError if a pass has shown that mixing logits is not mixing embeddings."""
        if not stages.commutes:
            raise ValueError(
                f"The model changes its logits after the classifier, so {self.name} cannot mix "
                f"them. Return the logits as they are."
            )

    def weights(self, x: Tensor, plan: Plan, positions: int | None = None) -> Tensor:
        """Λ of the plan, on the device of x."""
        source = plan.generator(x.device)
        m = self._at_most(len(x))
        return sampling.hull_weights(self.n, len(x), self.alpha, m, source, positions).to(x.device)

    def _at_most(self, size: int) -> int | None:
        """How many of ``size`` examples are mixed: a last batch may have fewer than ``m``."""
        return None if self.m is None else min(self.m, size)

    def hull(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Mixed embeddings (eq. 5.6-5.7)."""
        weights, share = self.known_weights(self.weights(x, plan), y)
        if self.layer is None and stages.commutes:
            logits = stages(x).logits
            self.require_commuting(stages)
            target = soft_targets(y, logits.shape[-1])
            return HullMixed(logits, target, weights, output=logits, share=share)

        def combine(t: Tensor) -> Tensor:
            return (weights.to(t.dtype) @ t.flatten(1)).view(self.n, *t.shape[1:])

        at = {"layers": {self.layer: combine}} if self.layer else {"embedding": combine}
        logits = stages(x, **at).logits
        return Mixed(logits, hull_targets(weights, y, logits.shape[-1]), share=share)

    def known_weights(self, weights: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """Λ (M, B) on the examples that have a label, and which rows (M,) have one; None is all."""
        known = labeled(y)[1]
        if known is None:
            return weights, None
        m_hat, s = dense_weights(weights[..., None], known.to(weights)[:, None])
        m_hat, s = m_hat[..., 0], s[:, 0]
        return torch.where(known.all(), weights, m_hat), (s > 0).to(weights)
