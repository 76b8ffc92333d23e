"""A mixer of somebody else's: the batch and its mirror image, half and half."""

from dataclasses import dataclass

from torch import Tensor

import mixplug
from mixplug.functional import mix
from mixplug.mixed import Mixed
from mixplug.stages import Stages


@mixplug.register("MirrorMix", alias="mirrormix", reference="an example")
@dataclass(frozen=True, kw_only=True)
class MirrorMix(mixplug.Mixer):
    """Embeddings of the images and of their mirror images, mixed at a fixed λ."""

    lam: float = 0.5

    def sample(self, x: Tensor, generators: mixplug.sampling.Generators) -> mixplug.Plan:
        """Nothing is random."""
        print(f"MirrorMix mixes at lam={self.lam}")
        return mixplug.Plan("mirror")

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: mixplug.Plan) -> Mixed:
        """Classify the mixed embeddings; the targets stay."""
        mirrored = stages(x.flip(-1)).embedding
        logits = stages(x, embedding=lambda e: mix(e, mirrored, self.lam)).logits
        return Mixed(logits, mixplug.functional.targets.soft_targets(y, logits.shape[-1]))
