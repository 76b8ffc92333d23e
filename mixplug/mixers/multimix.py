"""MultiMix: many points of the batch's convex hull, in embedding space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.dense import dense_weights
from mixplug.functional.targets import soft_targets
from mixplug.mixed import HullMixed, Mixed, hull_targets
from mixplug.mixers.base import CLEAN, Mixer, Plan, pair
from mixplug.stages import Stages

_HULL, _INPUT = "hull", "x"


@register(
    "MultiMix",
    alias="multimix",
    reference="thesis 5.3.2",
    hosts=("timm", "mmpretrain", "mmdet", "torch"),
)
@dataclass(frozen=True, kw_only=True)
class MultiMix(Mixer):
    r"""MultiMix [0]: ``Z Λ`` and ``Y Λ`` for the batch, n columns of Λ ~ Dir(α) (5.6)-(5.8).

    The model trains on mixed examples only. With probability ``prob`` a batch is mixed in the
    convex hull; otherwise pairs of inputs are mixed (5.5), and λ weighs the example itself.

    Mixing commutes with a linear classifier. The B clean logits are then mixed instead of the B
    embeddings, which costs M x B x K instead of M x D x K. Other classifiers get mixed embeddings.

    In a two-stage detector the examples are the RoIs sampled on one rank, and the embeddings are
    the inputs of ``fc_cls``; see :meth:`mix_rows`. Boxes cannot be mixed, so the other batches stay
    clean instead of using input mixup. With m = B each mixed embedding averages hundreds of RoIs,
    most of them background. A small ``m``, such as 8, keeps objects visible in the mixture.

    Attributes:
        n: number of mixed examples per batch and rank, M.
        m: number of examples that each mixed one combines, at most B; None combines all B.
        alpha: concentration of the Dirichlet distribution; (low, high) draws one per mixed
            example, uniformly.
        layer: name of a module whose output is mixed instead of the embedding (Figure 5.4a);
            None mixes the embedding.
        prob: probability of mixing in the hull; otherwise pairs of inputs are mixed (5.4.1).
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
        "mix_positions": "Where every position has a label, mix position by position."
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

    def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
        """Draw the branch (synced), then a key for Λ, or π and λ (per rank)."""
        if self.m is not None and self.m > len(x):
            raise ValueError(f"{self.name} mixes m={self.m} examples, but the batch has {len(x)}.")
        ways = (self.prob, 1 - self.prob)
        if sampling.branch((_HULL, _INPUT), generators.synced, ways) == _HULL:
            return Plan(_HULL, key=sampling.key(generators.local))
        lam = sampling.beta(self.input_alpha, 1, generators.local).expand(len(x))
        return Plan(_INPUT, sampling.permutation(len(x), generators.local), lam)

    def require_way(self, way: str, host: str) -> None:
        """As the base class; also refuse ``layer``, since such a host mixes at the classifier."""
        super().require_way(way, host)
        self.require(self.layer is None, "layer", f"None in {host}: it mixes before the classifier")

    def sample_within(self, generators: sampling.Generators) -> Plan:
        """Draw whether to mix (synced), with probability ``prob``, and a key for Λ (per rank)."""
        ways = (self.prob, 1 - self.prob)
        branch = sampling.branch((_HULL, CLEAN), generators.synced, ways)
        return Plan(branch, key=sampling.key(generators.local))

    def mix_rows(self, logits: Tensor, y: Tensor, plan: Plan, weight: Tensor) -> HullMixed:
        r"""Mix B rows in their hull (5.6)-(5.7); the loss has the scale of the host's loss.

            M = diag(a) Λ,  s = column sums of M,  M̂ = M diag(s)^-1,  loss: mean of s_k H_k

        The weight a of a row acts as attention does in (5.10)-(5.14): a row of weight 0 takes no
        part. With all weights 1 this is plain MultiMix; with Λ = 1 it is the weighted mean over
        rows. Each mixed row combines ``m`` rows, or all of them if there are fewer.
        """
        m = None if self.m is None else min(self.m, len(logits))
        source = plan.generator(logits.device)
        drawn = sampling.hull_weights(self.n, len(logits), self.alpha, m, source)
        m_hat, s = dense_weights(drawn.to(logits.device)[..., None], weight[:, None])
        target = soft_targets(y, logits.shape[-1])
        return HullMixed(logits, target, m_hat[..., 0], s[:, 0] / len(s), output=logits)

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Run the model on the clean batch and mix, or on mixed inputs."""
        if plan.branch == _INPUT:
            return self.pairs(stages, x, y, plan)
        return self.hull(stages, x, y, plan)

    def pairs(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """Input mixup (5.5)."""
        logits = stages(pair(x, plan)).logits
        return Mixed(logits, pair(soft_targets(y, logits.shape[-1]), plan))

    def weights(self, x: Tensor, plan: Plan, positions: int | None = None) -> Tensor:
        """Λ of the plan, on the device of x."""
        source = plan.generator(x.device)
        drawn = sampling.hull_weights(self.n, len(x), self.alpha, self.m, source, positions)
        return drawn.to(x.device)

    def hull(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed | HullMixed:
        """Points of the hull (5.6)-(5.7)."""
        weights = self.weights(x, plan)
        if self.layer is None and stages.linear is not None:
            logits = stages(x).logits
            target = soft_targets(y, logits.shape[-1])
            return HullMixed(logits, target, weights, output=logits)

        def combine(t: Tensor) -> Tensor:
            return (weights.to(t.dtype) @ t.flatten(1)).view(self.n, *t.shape[1:])

        at = {"layers": {self.layer: combine}} if self.layer else {"embedding": combine}
        logits = stages(x, **at).logits
        return Mixed(logits, hull_targets(weights, y, logits.shape[-1]))
