"""A mixer of another package, which mixes images and their mirror images, and a number of cards."""

from dataclasses import dataclass

from torch import Tensor

import mixplug
from mixplug.functional import mix
from mixplug.mixed import Mixed
from mixplug.numbers import card_number
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


@card_number("margin", part="calibration", source="probabilities", label="mean margin")
def margin(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Difference of the two largest probabilities of each example."""
    first, second = probabilities.topk(2).values.unbind(1)
    return first - second
