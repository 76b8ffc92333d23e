"""A metric loss in the place of a mixer: the network learns from it, the classifier beside it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from batches import batch, toy
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
from mixplug import Mixer, Stages, sampling
from mixplug.losses.base import MetricLoss
from mixplug.mixers.building import build_mixer
from mixplug.mixers.metric import MetricMixing, _features

DRAWS = (3, 5)


class Halves:
    """A tail that is written out: tanh, mean over positions, norm, hidden layer."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.kept = model, None

    def prepare(self) -> None:
        self.model.body.register_forward_hook(lambda module, args, out: setattr(self, "kept", out))

    def take(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        kept, self.kept = self.kept, None
        return kept, self.embed

    def embed(self, a: Tensor) -> Tensor:
        e = torch.tanh(a).mean((2, 3))
        return torch.tanh(self.model.hidden(self.model.norm(e)))


def attached(
    impl: str = "Metrix", dtype: torch.dtype = torch.float64, **keys: object
) -> tuple[nn.Module, Stages, Mixer]:
    model, stages = toy(dtype)
    stages.tail = Halves(model)
    mixer = build_mixer(impl, **keys)
    mixer.attach(stages)
    return model, stages, mixer


def embedding_of(model: nn.Module, x: Tensor) -> Tensor:
    return Halves(model).embed(model.body(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", ["input", "feature", "embed"])
def test_it_is_the_loss_of_embeddings_and_a_probe(level: str, dtype: torch.dtype) -> None:
    keys = {"loss": "MultiSimilarity", "level": level, "hardest": 2}
    model, stages, mixer = attached("Metrix", dtype, **keys)
    x, y = batch(dtype, 7)
    mixed = mixer(stages, x, y, sampling.generators(*DRAWS))
    total = mixed.loss(nn.CrossEntropyLoss())
    names, parameters = zip(*model.named_parameters(), strict=True)
    got = dict(zip(names, torch.autograd.grad(total, parameters), strict=True))

    # By hand, with the keys that the mixer draws for the loss.
    plan = mixer.sample(x, sampling.generators(*DRAWS))
    cpu = torch.device("cpu")
    draws = sampling.Generators(
        sampling.generator(plan.synced, cpu), sampling.generator(plan.key, cpu)
    )
    maps = model.body(x)
    e = Halves(model).embed(maps)
    loss = mixplug.build("Metrix", **keys)
    features, inputs = (maps, Halves(model).embed), (x, lambda images: embedding_of(model, images))
    metric = loss(e, y, features, inputs, draws)
    probe = F.cross_entropy(model.fc(e.detach()), y)
    want = torch.autograd.grad(metric + probe, parameters, allow_unused=True)
    assert_close(total, metric + probe)
    assert_close(mixed.extra["metric"], metric)
    for name, gradient in zip(names, want, strict=True):
        assert_close(got[name], gradient, msg=name)
    # The classifier's part does not reach the trunk, the loss does not reach the classifier.
    only_metric = torch.autograd.grad(mixed_again(mixer, stages, x, y), model.body[0].weight)
    assert_close(only_metric[0], got["body.0.weight"])


def mixed_again(mixer: Mixer, stages: Stages, x: Tensor, y: Tensor) -> Tensor:
    return mixer(stages, x, y, sampling.generators(*DRAWS)).extra["metric"]


def test_width_and_classes_come_from_the_model() -> None:
    model, stages, mixer = attached("Metrix", loss="ProxyAnchor", level="embed")
    assert model.mixup.loss.proxies.shape == (4, 6)
    x, y = batch(torch.float64, 7)
    mixer(stages, x, y, sampling.generators(0, 0)).loss().backward()
    assert model.mixup.loss.proxies.grad.abs().sum() > 0


def test_a_baseline_is_the_loss_alone() -> None:
    model, stages, mixer = attached("Contrastive")
    x, y = batch(torch.float64, 7)
    mixed = mixer(stages, x, y, sampling.generators(0, 0))
    want = mixplug.build("Contrastive")(embedding_of(model, x), y)
    assert_close(mixed.extra["metric"], want)


def test_from_off_epoch_on_the_loss_is_clean() -> None:
    model, stages, mixer = attached("Metrix", loss="Contrastive", level="embed", off_epoch=2)
    assert isinstance(mixer, MetricMixing) and mixer.off_epoch == 2
    x, y = batch(torch.float64, 7)
    clean = mixplug.build("Contrastive")(embedding_of(model, x), y)
    for epoch, alike in ((1, False), (2, True)):
        got = mixer(stages, x, y, sampling.generators(0, 0), epoch).extra["metric"]
        assert torch.allclose(got, clean) == alike


def test_no_map_is_kept_beyond_a_step() -> None:
    _, stages, mixer = attached("Metrix", loss="Contrastive", level="input", hardest=1)
    x, y = batch(torch.float64, 7)
    mixer(stages, x, y, sampling.generators(0, 0))
    assert stages.tail.kept is None


class Averages(Halves):
    """A tail that is average pooling, and as ``last`` wants it, something after it."""

    def __init__(self, model: nn.Module, last: nn.Module) -> None:
        super().__init__(model)
        self.last = last

    def embed(self, a: Tensor) -> Tensor:
        return self.last(a.mean((2, 3)))


@pytest.mark.parametrize(
    ("last", "closed"),
    [
        (nn.Identity(), True),
        (nn.LayerNorm(6, elementwise_affine=False), False),
        (nn.Dropout(0.1), False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_pooling_is_seen_in_what_it_gave(
    last: nn.Module, closed: bool, dtype: torch.dtype
) -> None:
    """Then the loss is that of a closed form, by which no mixed map is made."""
    tail, maps = Averages(nn.Module(), last), torch.randn(9, 6, 3, 2).relu().to(dtype)
    tail.kept = maps
    stages = SimpleNamespace(tail=tail, read=lambda output, x: output)
    source = _features(stages, torch.empty(9), tail.embed(maps))
    assert getattr(source[1], "commutes", False) == closed
    assert_close(source[1](source[0]), maps.mean((2, 3))) if closed else None
    assert tail.kept is None


def test_draws_are_those_of_seed_and_step() -> None:
    _, stages, mixer = attached("Metrix", loss="MultiSimilarity", level=("feature", "embed"))
    x, y = batch(torch.float64, 7)
    values = [float(mixed_at(mixer, stages, x, y, step)) for step in (0, 1, 0)]
    assert values[0] == values[2] != values[1]


def mixed_at(mixer: Mixer, stages: Stages, x: Tensor, y: Tensor, step: int) -> Tensor:
    return mixer(stages, x, y, sampling.generators(0, step)).extra["metric"].detach()


@pytest.mark.parametrize("y", [torch.rand(7, 4), torch.eye(4)[[0, 1, 2, 3, 0, 1, 2]]])
def test_soft_labels_have_no_pairs(y: Tensor) -> None:
    _, stages, mixer = attached("Contrastive")
    x, _ = batch(torch.float64, 7)
    with pytest.raises(ValueError, match="needs one class index per example"):
        mixer(stages, x, y, sampling.generators(0, 0))


def test_it_must_be_attached() -> None:
    _, stages = toy(torch.float64)
    x, y = batch(torch.float64, 7)
    with pytest.raises(ValueError, match="has a loss, so call attach\(stages\)"):
        build_mixer("Contrastive")(stages, x, y, sampling.generators(0, 0))


def test_a_mixer_stays_one() -> None:
    assert build_mixer("multimix", n=3) == mixplug.build("MultiMix", n=3)
    assert build_mixer({"type": "mixplug.MultiMix", "n": 3}).n == 3
    with pytest.raises(ValueError, match="is not a mixer: it gives a ReLU"):
        build_mixer("torch.nn.ReLU")
    assert issubclass(mixplug.Metrix, MetricLoss)
