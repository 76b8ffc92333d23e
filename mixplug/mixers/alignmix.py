"""AlignMixup: align feature maps by optimal transport, then mix them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.catalog import register
from mixplug.functional.aligned import align, mix
from mixplug.functional.targets import soft_targets
from mixplug.mixed import Mixed
from mixplug.mixers.base import CLEAN, Plan, pair
from mixplug.mixers.pairwise import PairMixer
from mixplug.models.heads.autoencoder import Autoencoder, VariationalAutoencoder
from mixplug.models.heads.decoder import WIDTH
from mixplug.stages import DENSE, USEFUL, WHOLE, Forward, Need, Stages

_LEVELS = ("x", "A", "A'", "e")
_RECONSTRUCT = "reconstruct"
_DECODERS = {"ae": Autoencoder, "vae": VariationalAutoencoder}


@register("AlignMixup", alias="alignmix", reference="thesis 3.3, Algorithm 1")
@dataclass(frozen=True, kw_only=True)
class AlignMixup(PairMixer):
    r"""AlignMixup [0]: mix inputs, embeddings, or feature maps after aligning them.

        mode A:   λ A + (1 - λ) A~,    target λ y + (1 - λ) y'                          (3.12)
        mode A':  λ A' + (1 - λ) A~',  target λ y' + (1 - λ) y                          (3.13)

    A~ puts features of A' at the positions of A (:func:`mixplug.functional.align`), so it has the
    pose of the first operand and the texture of the second. λ ~ Beta(α, α), one per example, weighs
    the first operand. In mode A' the first operand is the pair, because Algorithm 1 swaps inputs
    and targets (line 17). The mode is drawn per batch, uniformly. No gradient passes through the
    transport plan.

    With a decoder D there is one more mode, which reconstructs the clean batch. Its loss is
    ``|x - D(e)|^2``, summed over pixels and averaged over the batch. The decoder is saved with
    checkpoints and is not used in testing. For 'vae', e is the mean μ, and a linear map of e is
    log σ². The clean batch then adds the KL divergence from N(0, I), and mode e mixes μ and σ of
    both examples and classifies a draw.

    Attributes:
        modes: a subset of 'x', 'A', "A'", 'e'. Other names are modules whose maps are mixed like A
            (the tensor E of Table 3.8), or like A' if a prime follows the name. With a decoder the
            tuple may be empty: the model is then an autoencoder trained on clean images, to draw
            what mixing does (section 3.3.3).
        alpha: α of Beta(α, α).
        per_example: draw one λ per example; False draws one per batch.
        align: align maps before mixing; False mixes them unaligned (Table 3.8).
        eps: weight of the entropy, in the units of squared distances.
        iters: Sinkhorn iterations; 0 normalizes once (Table 3.9).
        tol: stop Sinkhorn early at this tolerance; not in the thesis.
        normalize_cost: divide costs by their maximum; not in the thesis.
        features: name of the module whose output is A; None uses the host's default, which in timm
            and mm is the module before the last block. Directly before average pooling alignment
            would have no effect, since it keeps the mean over positions.
        resolution: average-pool A to r x r before alignment (Table 3.8).
        decoder: None, 'ae' or 'vae'.
        image_shape: (channels, height, width) of the input, needed for a decoder.
        decoder_width: channels of the decoder's inner maps.
        reconstruction_weight: factor of the decoder's losses. 1 is the thesis' loss.
            A sum over pixels is about a thousand times a cross-entropy, so at the thesis' learning
            rate of 0.1 clip gradients or choose a smaller weight.

    - [0]: AlignMixup, 2022, https://arxiv.org/abs/2103.15375
    """

    alpha: float = 2.0
    per_example: bool = True
    modes: tuple[str, ...] = _LEVELS
    align: bool = True
    eps: float = 0.1
    iters: int = 100
    tol: float | None = None
    normalize_cost: bool = False
    features: str | None = None
    decoder: str | None = None
    image_shape: tuple[int, int, int] | None = None
    decoder_width: int = WIDTH
    reconstruction_weight: float = 1.0
    unsupported: ClassVar = {
        **PairMixer.unsupported,
        "mix_positions": "Its transport plan has N x N entries for N positions: 49 x 49 in a "
        "classifier, but 16384 x 16384 in a segmentor with features of stride 4 on 512 x 512.",
    }

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        names = "a non-empty tuple of 'x', 'A', \"A'\", 'e' and names of modules"
        given = bool(self.modes) or self.decoder is not None
        self.require(given and not isinstance(self.modes, str), "modes", names)
        self.require(self.eps > 0, "eps", "> 0")
        self.require(self.iters >= 0, "iters", ">= 0")
        self.require(self.decoder in (None, *_DECODERS), "decoder", f"None or in {(*_DECODERS,)}")
        self.require(self.decoder_width >= 1, "decoder_width", ">= 1")
        self.require(self.reconstruction_weight > 0, "reconstruction_weight", "> 0")
        if self.decoder is not None:
            shape = self.image_shape
            self.require(
                shape is not None and len(shape) == 3 and min(shape) > 0,
                "image_shape",
                "(channels, height, width) if there is a decoder",
            )

    @property
    def learns(self) -> bool:
        """Whether there is a decoder."""
        return self.decoder is not None

    def build_module(self, embed_dim: int) -> nn.Module:
        """The decoder D; for 'vae' also the layer that gives log σ²."""
        assert self.decoder is not None and self.image_shape is not None  # see __post_init__
        return _DECODERS[self.decoder](embed_dim, self.image_shape, self.decoder_width)

    def edited_modules(self) -> Sequence[str]:
        """The modules that modes and ``features`` name."""
        named = [mode.removesuffix("'") for mode in self.modes if mode not in _LEVELS]
        return [*named, *([self.features] if self.features else [])]

    def needs(self) -> list[Need]:
        """As in the base; where maps are aligned, their positions also have to matter."""
        checks = (WHOLE, USEFUL) if self.align and not self.dense else (WHOLE,)
        maps = {mode.removesuffix("'") for mode in self.modes} - {"x", "e"}
        places = sorted({self.features or "A" if level == "A" else level for level in maps})
        last = [Need("last", (WHOLE, DENSE))] if self.dense else []
        embedding = [Need("e", (WHOLE,))] if "e" in self.modes or self.learns else []
        return [*(Need(place, checks) for place in places), *embedding, *last]

    def branches(self) -> dict[str, float]:
        """All modes with the same probability, reconstruction among them if there is a decoder."""
        return dict.fromkeys([*self.modes, *([_RECONSTRUCT] if self.decoder else [])], 1.0)

    def refine(self, plan: Plan, x: Tensor, generators: sampling.Generators) -> Plan:
        """In a primed mode λ weighs the pair, since roles are swapped (Algorithm 1, line 17)."""
        return replace(plan, lam=1 - plan.lam) if plan.branch.endswith("'") else plan

    def leave_out(self, plan: Plan, known: Tensor) -> Plan:
        """As in the base; in a primed mode the pair is the first operand, so λ is 0 there."""
        left = super().leave_out(plan, known)
        if not plan.branch.endswith("'"):
            return left
        lam = plan.lam.to(known.device)
        both = known & known[plan.permutation.to(known.device)]
        return replace(left, lam=torch.where(both, lam, torch.zeros_like(lam)))

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """Mix in the plan's mode, or reconstruct. Unused parameters get zero gradients, for DDP."""
        if plan.branch != _RECONSTRUCT:
            return self._touch(super().apply(stages, x, y, plan), stages)
        forward = stages(x)
        noise = _noise(forward.embedding, plan)
        losses = self._autoencoder(stages).losses(x, forward.embedding, noise)
        extra = {name: self.reconstruction_weight * loss for name, loss in losses.items()}
        none = soft_targets(y, forward.logits.shape[-1])[:0]
        return Mixed(forward.logits[:0], none, extra=extra, output=forward.logits)

    def unmixed(self, stages: Stages, x: Tensor, y: Tensor) -> Mixed:
        """The batch as it is."""
        return self._touch(super().unmixed(stages, x, y), stages)

    def forward(self, stages: Stages, x: Tensor, plan: Plan) -> Forward:
        """Run the model with A mixed; embeddings as in the base."""
        level = plan.branch
        if level == "e" and self.learns:
            between = partial(self._between, stages=stages, plan=plan)
            return stages(x, embedding=between, dense=self.dense_edit())
        if level in ("e", CLEAN):
            return super().forward(stages, x, plan)
        at = self.features if level in ("A", "A'") else level.removesuffix("'")
        mixed = partial(self._mix_maps, plan=plan)
        prefix = partial(pair, plan=plan)
        return stages(x, features=mixed, prefix=prefix, dense=self.dense_edit(), at=at)

    def _between(self, e: Tensor, stages: Stages, plan: Plan) -> Tensor:
        mixed = self._autoencoder(stages).between(e, partial(pair, plan=plan), _noise(e, plan))
        return mixed.flatten(0, 1) if self.dense else mixed

    def _touch(self, mixed: Mixed, stages: Stages) -> Mixed:
        if not self.learns:
            return mixed
        return replace(mixed, extra={"unused": self._autoencoder(stages).untouched()})

    def _autoencoder(self, stages: Stages) -> Autoencoder:
        if not isinstance(stages.learned, Autoencoder):
            raise ValueError(f"{self.name} has a decoder, so call attach(stages) before training.")
        return stages.learned

    def _mix_maps(self, a: Tensor, plan: Plan) -> Tensor:
        a = self.pool(a)
        other = a[plan.permutation.to(a.device, non_blocking=True)]
        if not self.align:
            return mix(a, other, plan.lam)
        a_aligned, other_aligned = align(
            a, other, self.eps, self.iters, self.normalize_cost, self.tol
        )
        if plan.branch.endswith("'"):  # λ of the plan weighs a; in eq. 3.13 the pair is first
            return mix(other, other_aligned, 1 - plan.lam)
        return mix(a, a_aligned, plan.lam)


def _noise(e: Tensor, plan: Plan) -> Tensor:
    return sampling.normal(e.shape, plan.generator(e.device)).to(e)
