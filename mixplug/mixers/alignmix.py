"""AlignMixup: feature maps aligned by optimal transport, then mixed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from mixplug import sampling
from mixplug.blocks import before_last_block
from mixplug.catalog import register
from mixplug.functional.aligned import align, mix
from mixplug.functional.targets import soft_targets
from mixplug.mixed import Mixed
from mixplug.mixers.base import CLEAN, Plan, pair
from mixplug.mixers.pairwise import PairMixer
from mixplug.models.heads.autoencoder import Autoencoder, VariationalAutoencoder
from mixplug.models.heads.decoder import WIDTH
from mixplug.stages import Forward, Stages

_LEVELS = ("x", "A", "A'", "e")
_RECONSTRUCT = "reconstruct"
_DECODERS = {"ae": Autoencoder, "vae": VariationalAutoencoder}


@register("AlignMixup", alias="alignmix", reference="thesis 3.3, Algorithm 1")
@dataclass(frozen=True, kw_only=True)
class AlignMixup(PairMixer):
    r"""AlignMixup [0]: mix inputs, embeddings, or feature maps after aligning them.

        mode A:   λ A + (1 - λ) A~,    target λ y + (1 - λ) y'                          (3.12)
        mode A':  λ A' + (1 - λ) A~',  target λ y' + (1 - λ) y                          (3.13)

    A~ is A rebuilt from the features of A' (:func:`mixplug.functional.align`): it has the pose of
    the first operand and the texture of the other. λ ~ Beta(α, α), drawn per example, weighs the
    first operand. In mode A' the first operand is the pair, since inputs and targets are swapped
    (Algorithm 1, line 17). Each batch uses one mode; all modes are equally likely. No gradient
    passes through the transport plan.

    A decoder D adds one mode, on the clean batch. Its loss is ``|x - D(e)|^2``, summed over pixels
    and averaged over the batch. Checkpoints contain the decoder; testing does not use it. For
    'vae', e is the mean μ, and a linear map of e gives log σ². The loss of the clean batch then
    includes the KL divergence from N(0, I), and mode e mixes μ and σ of both examples and
    classifies a sample.

    Attributes:
        modes: a subset of 'x', 'A', "A'" and 'e', or names of modules. The map of a named module is
            mixed like A (the tensor E of Table 3.8), or like A' if a prime follows the name. With a
            decoder the tuple may be empty: the model is then an autoencoder, trained on clean
            images only, to visualize mixed features (3.3.3).
        alpha: α of Beta(α, α).
        per_example: draw one λ per example; False draws one per batch.
        align: align maps before mixing; False mixes them unaligned (Table 3.8).
        eps: entropy weight, in the units of squared distances.
        iters: number of Sinkhorn iterations; 0 normalizes once (Table 3.9).
        tol: stop Sinkhorn below this change of the marginals; not in the thesis. None runs all
            iterations.
        normalize_cost: divide costs by their maximum; not in the thesis.
        features: name of the module whose output is A. None takes the default of the model's
            stages: in timm and mm, the output before the last block. Alignment keeps the mean over
            positions, so it has no effect directly before average pooling.
        resolution: average-pool A to r x r before alignment (Table 3.8); None keeps its size.
        decoder: None, 'ae' or 'vae'.
        image_shape: (channels, height, width) of the input; required with a decoder.
        decoder_width: channels of the decoder's inner maps.
        reconstruction_weight: factor of the decoder's losses, 1 in the thesis. A sum over pixels is
            about 1000 times a cross-entropy. At a learning rate of 0.1, clip the gradient or use a
            smaller weight.

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
        "mix_positions": "Its transport plan has N x N entries for maps of N positions: 49 x 49 in "
        "a classifier, 16384 x 16384 in a segmentor with features of stride 4 on 512 x 512 images.",
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
        """Build the decoder D, with a variance head for 'vae'."""
        assert self.decoder is not None and self.image_shape is not None  # checked at the start
        return _DECODERS[self.decoder](embed_dim, self.image_shape, self.decoder_width)

    def edited_modules(self) -> Sequence[str]:
        """Names of the modules that the settings name."""
        named = [mode.removesuffix("'") for mode in self.modes if mode not in _LEVELS]
        return [*named, *([self.features] if self.features else [])]

    def branches(self) -> dict[str, float]:
        """All modes, equally likely; a decoder adds clean reconstruction."""
        return dict.fromkeys([*self.modes, *([_RECONSTRUCT] if self.decoder else [])], 1.0)

    def refine(self, plan: Plan, x: Tensor, generators: sampling.Generators) -> Plan:
        """In a primed mode, let λ weigh the pair: operands are swapped (Algorithm 1, line 17)."""
        return replace(plan, lam=1 - plan.lam) if plan.branch.endswith("'") else plan

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        """Mix in the mode of the plan, or reconstruct. Unused parameters get zero gradients."""
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
        """Run the model with mixed maps; other levels as in the base class."""
        level = plan.branch
        if level == "e" and self.learns:
            between = partial(self._between, stages=stages, plan=plan)
            return stages(x, embedding=between, dense=self.dense_edit())
        if level in ("e", CLEAN):
            return super().forward(stages, x, plan)
        at = self.features if level in ("A", "A'") else level.removesuffix("'")
        point, means = at or stages.features, list[Tensor]()
        judge = self.align and not self.dense and point not in stages.judged

        def aligned(a: Tensor) -> Tensor:
            mixed = self._mix_maps(a, plan)
            if judge:
                means.append(mixed.detach().mean((2, 3)))
            return mixed

        prefix = partial(pair, plan=plan)
        out = stages(x, features=aligned, prefix=prefix, dense=self.dense_edit(), at=at)
        if judge:
            _warn_if_only_pooled(stages, point, means[0], out.embedding.detach())
        return out

    def _between(self, e: Tensor, stages: Stages, plan: Plan) -> Tensor:
        mixed = self._autoencoder(stages).between(e, partial(pair, plan=plan), _noise(e, plan))
        return mixed.flatten(0, 1) if self.dense else mixed

    def _touch(self, mixed: Mixed, stages: Stages) -> Mixed:
        if not self.learns:
            return mixed
        return replace(mixed, extra={"unused": self._autoencoder(stages).untouched()})

    def _autoencoder(self, stages: Stages) -> Autoencoder:
        if not isinstance(stages.learned, Autoencoder):
            raise ValueError(f"{self.name} has a decoder: call attach(stages) before training.")
        return stages.learned

    def _mix_maps(self, a: Tensor, plan: Plan) -> Tensor:
        a = self.pool(a)
        other = a[plan.permutation.to(a.device, non_blocking=True)]
        if not self.align:
            return mix(a, other, plan.lam)
        a_aligned, other_aligned = align(
            a, other, self.eps, self.iters, self.normalize_cost, self.tol
        )
        if plan.branch.endswith("'"):  # λ of the plan weighs a; in (3.13) the pair comes first
            return mix(other, other_aligned, 1 - plan.lam)
        return mix(a, a_aligned, plan.lam)


def _warn_if_only_pooled(stages: Stages, at: str, mean: Tensor, e: Tensor) -> None:
    """Warn once if alignment has no effect: it keeps the mean, and e is that mean."""
    stages.judged.add(at)
    if mean.shape == e.shape and torch.allclose(mean.float(), e.float(), rtol=1e-3, atol=1e-5):
        name = before_last_block(stages.model)
        hint = f", such as {name!r}" if name else ""
        warnings.warn(
            f"The embedding is the mean of the map at {at!r}. Alignment does not change that mean, "
            f"so mode 'A' mixes embeddings only. Name an earlier module as features{hint}.",
            stacklevel=2,
        )


def _noise(e: Tensor, plan: Plan) -> Tensor:
    return sampling.normal(e.shape, plan.generator(e.device)).to(e)
