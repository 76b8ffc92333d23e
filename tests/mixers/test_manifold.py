"""Manifold mixup against a loop over examples, at every level."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from batches import batch, by_stages, factors, parameters, partners, plan_of, rows, toy
from reference.algorithm import Network, Terms, algorithm_1
from reference.aligned import mix
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from toys import ConvNet, TokenNet, classify, columns, embed, pool, stages_of

from mixplug import sampling
from mixplug.mixers.manifold import ManifoldMixup

MODES = {"x": "input", "A": "feat", "e": "embed"}


def from_the_first_layer(model: ConvNet) -> Network:
    """The toy cut behind its first convolution, before the non-linearity."""
    first, second = model.body[0], model.body[2]

    def encode(x: Tensor) -> Tensor:
        return F.conv2d(x[None], first.weight, first.bias, stride=2, padding=1)[0]

    def rest(a: Tensor) -> Tensor:
        a = F.conv2d(torch.tanh(a)[None], second.weight, second.bias, padding=1)[0]
        return embed(model, a)

    return Network(encode, rest, lambda e: classify(model, e))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("level", MODES)
def test_equals_the_loop(level: str, size: int, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = ManifoldMixup(layers=(level,))
    plan = plan_of(mixer, x, level)
    expected = algorithm_1(
        by_stages(model), x, rows(y), MODES[level], partners(plan), factors(plan), aligned=False
    )
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.logits, expected.logits)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_a_named_layer_equals_the_loop(dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = ManifoldMixup(layers=["body.0"], per_example=True)
    mixer.attach(stages)
    plan = plan_of(mixer, x, "body.0")
    expected = algorithm_1(
        from_the_first_layer(model),
        x,
        rows(y),
        "feat",
        partners(plan),
        factors(plan),
        aligned=False,
    )
    mixed = mixer.apply(stages, x, y, plan)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


@pytest.mark.parametrize("level", [*MODES, "body.0"])
@pytest.mark.parametrize("resolution", [None, 2])
def test_dense_loss_equals_the_loop(level: str, resolution: int | None, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = ManifoldMixup(layers=(level,), dense=True, resolution=resolution)
    plan = plan_of(mixer, x, level)
    net, logits, target = by_stages(model), [], []

    def split(a: Tensor) -> list[Tensor]:
        return columns(a if resolution is None else pool(a, resolution))

    for i, (j, lam) in enumerate(zip(partners(plan), factors(plan), strict=True)):
        if level == "x":
            embeddings = [net.embed(c) for c in split(net.encode(mix(x[i], x[j], lam)))]
        elif level == "A":
            a = mix(net.encode(x[i]), net.encode(x[j]), lam)
            embeddings = [net.embed(c) for c in split(a)]
        elif level == "e":
            own, other = ([net.embed(c) for c in split(net.encode(x[k]))] for k in (i, j))
            embeddings = [mix(e, f, lam) for e, f in zip(own, other, strict=True)]
        else:
            cut = from_the_first_layer(model)
            inner = torch.tanh(mix(cut.encode(x[i]), cut.encode(x[j]), lam))
            a = F.conv2d(inner[None], model.body[2].weight, model.body[2].bias, padding=1)[0]
            embeddings = [net.embed(c) for c in split(a)]
        logits += [net.classify(e) for e in embeddings]
        target += [mix(rows(y)[i], rows(y)[j], lam)] * len(embeddings)
    expected = Terms(torch.stack(logits), torch.stack(target))
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.logits.flatten(0, 1), expected.logits)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_patches_and_prefix_tokens_are_mixed_alike(dtype: torch.dtype) -> None:
    """So the tokens behind the first block are those of the pairs, mixed."""
    model = TokenNet().to(dtype)
    stages = stages_of(model)
    x, y = torch.randn(3, 3, 4, 4, dtype=dtype), torch.tensor([0, 1, 2])
    mixer = ManifoldMixup(layers=("A",))
    plan = plan_of(mixer, x)
    seen: list[Tensor] = []
    hook = model.blocks[0].register_forward_hook(lambda m, i, out: seen.append(out))
    model(x)
    hook.remove()
    tokens = torch.stack(
        [
            mix(seen[0][i], seen[0][j], lam)
            for i, (j, lam) in enumerate(zip(partners(plan), factors(plan), strict=True))
        ]
    )
    expected = model.fc(torch.tanh(model.hidden(model.blocks[1](tokens)[:, 0])))
    assert_near(mixer.apply(stages, x, y, plan).logits, expected)


@pytest.mark.parametrize("level", ["A", "e"])
def test_resolution_pools_the_map_that_is_mixed(level: str, dtype: torch.dtype) -> None:
    """Also without a dense loss, as the settings promise; level 'e' has no map to pool."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = ManifoldMixup(layers=(level,), resolution=2)
    plan = plan_of(mixer, x)
    expected = algorithm_1(
        by_stages(model),
        x,
        rows(y),
        MODES[level],
        partners(plan),
        factors(plan),
        aligned=False,
        prepare=lambda a: pool(a, 2),
    )
    assert_near(mixer.apply(stages, x, y, plan).logits, expected.logits)


def test_layers_are_drawn_uniformly() -> None:
    """Counts of 1500 steps: 500 +- 5 sqrt(1500 / 3 * 2 / 3)."""
    x, mixer = torch.zeros(2, 1, 2, 2), ManifoldMixup(layers=("x", "A", "body.0"))
    count = Counter(mixer.sample(x, sampling.generators(0, k)).branch for k in range(1500))
    assert set(count) == {"x", "A", "body.0"}
    assert max(abs(c - 500) for c in count.values()) < 5 * sqrt(1500 / 3 * 2 / 3)


def test_an_unknown_layer_is_found_before_training() -> None:
    _, stages = toy(torch.float32)
    with pytest.raises(ValueError, match=r"ConvNet has no module 'hiden'\. Nearest: 'hidden'"):
        ManifoldMixup(layers=("x", "hiden")).attach(stages)
    ManifoldMixup(layers=("x", "A", "e")).attach(stages)


@pytest.mark.parametrize("layers", [(), "x", []])
def test_layers_must_be_a_tuple(layers: object) -> None:
    message = r"ManifoldMixup needs layers a non-empty tuple of 'x', 'A', 'e' and names of modules"
    with pytest.raises(ValueError, match=message):
        ManifoldMixup(layers=layers)
