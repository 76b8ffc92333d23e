"""A pass beside the step: what it sees, and that nothing shows that it was there."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable

import numpy
import pytest
import torch
import torch.nn.functional as F
from reference.compare import assert_near
from torch import Tensor, nn
from torch.testing import assert_close
from toys import CLASSES, ConvNet, TokenNet, by_hand, feature_map, stages_of

from mixplug import Stages
from mixplug.stages import Probe

Y = torch.tensor([2, 0, 1, 3])
ROWS = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0.25] * 4, [0, 0.5, 0, 0.5]])
EVERYTHING = {"input_grad", "logits", "map"}


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(4, 3, 6, 8, dtype=dtype)


class Restless(nn.Module):
    """Changes in every way that a network can: batch norm, dropout, draws, its own ``train``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.frozen_norm = nn.BatchNorm2d(8).eval()  # as a host that freezes its statistics has it
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, CLASSES)
        self.calls: list[bool] = []

    def train(self, mode: bool = True) -> Restless:
        self.calls.append(mode)
        super().train(mode)
        self.frozen_norm.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3), random.random(), numpy.random.rand()
        return self.fc(self.dropout(self.frozen_norm(self.body(x)).mean((2, 3))))


def restless(dtype: torch.dtype = torch.float64) -> tuple[Restless, Stages]:
    model = Restless().to(dtype)
    model.train()(images(dtype))  # statistics other than those at the start
    model.calls.clear()
    return model, Stages(model, features="body", classifier="fc")


def evaluated(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval()


def naive_grad(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Backward through a copy in evaluation mode."""
    leaf = x.clone().requires_grad_()
    loss(evaluated(model)(leaf)).backward()
    return leaf.grad


def rowwise(logits: Tensor, rows: Tensor) -> Tensor:
    return -(rows * logits.log_softmax(-1)).sum()


def smoothed(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, Y, label_smoothing=0.2, reduction="sum")


def binary(logits: Tensor) -> Tensor:
    """Mean over classes, sum over examples."""
    return F.binary_cross_entropy_with_logits(logits, ROWS.to(logits), reduction="sum") / CLASSES


@pytest.mark.parametrize(
    ("y", "criterion", "loss"),
    [
        (Y, None, lambda z: F.cross_entropy(z, Y, reduction="sum")),
        (ROWS, None, lambda z: rowwise(z, ROWS)),
        (Y, nn.CrossEntropyLoss(label_smoothing=0.2), smoothed),
        (ROWS, nn.BCEWithLogitsLoss(), binary),
        (Y, lambda z, t: (z * t).square().sum(-1), lambda z: z[range(4), Y].square().sum()),
        (Y, lambda z, t: (z * t).square().sum(-1).mean(), lambda z: z[range(4), Y].square().sum()),
    ],
    ids=["indices", "rows", "smoothed", "bce", "terms", "mean"],
)
def test_input_grad(y: Tensor, criterion: object, loss: Callable, dtype: torch.dtype) -> None:
    """Of the sum over examples, of a model in evaluation mode."""
    model, stages = restless(dtype)
    x = images(dtype)
    found = stages.probe(x, y, {"input_grad"}, criterion).input_grad
    assert found.dtype == dtype and not found.requires_grad
    assert_near(found, naive_grad(model, x, loss))
    one = stages.probe(x[1:2], y[1:2], {"input_grad"}, criterion).input_grad
    assert_near(found[1:2], one)  # an example's gradient does not depend on how many there are


def test_logits_and_maps(dtype: torch.dtype) -> None:
    model, x = ConvNet().to(dtype).train(), images(dtype)
    stages = stages_of(model, features="body.0", last="body")
    probe = stages.probe(x, want=["logits", "map"])
    assert_near(probe.logits, by_hand(model, x))
    for i in range(4):
        assert_near(probe.map[i], feature_map(model, x[i]))
    inner = F.conv2d(x, model.body[0].weight, model.body[0].bias, stride=2, padding=1)
    assert_near(stages.probe(x, want={"map"}, at="body.1").map, inner.tanh())


def test_maps_of_tokens() -> None:
    model, x = TokenNet(prefix=2).double(), torch.randn(3, 3, 4, 6, dtype=torch.float64)
    seen = []
    model.blocks[1].register_forward_hook(lambda module, args, out: seen.append(out))
    found = stages_of(model).probe(x, want={"map"}).map
    assert_close(found, seen[0][:, 2:].mT.unflatten(-1, (2, 3)))


def test_by_default_it_is_the_input_gradient() -> None:
    _, stages = restless()
    x = images()
    assert torch.equal(stages.probe(x, Y).input_grad, stages.probe(x, Y, EVERYTHING).input_grad)


@pytest.mark.parametrize("want", [EVERYTHING, {"logits"}])
def test_nothing_of_the_model_changes(want: set[str]) -> None:
    model, stages = restless()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    model.fc.bias.grad = None
    model.fc.weight.requires_grad_(False)
    model.body[2].eval()
    x = images()
    state = copy.deepcopy(model.state_dict())
    modes = {name: module.training for name, module in model.named_modules()}
    grads = {n: (p.requires_grad, copy.deepcopy(p.grad)) for n, p in model.named_parameters()}
    before = x.clone()

    probe = stages.probe(x, Y, want)

    assert list(model.state_dict()) == list(state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not modes["frozen_norm"] and not modes["body.2"] and modes["dropout"]
    assert model.calls == []
    for name, parameter in model.named_parameters():
        needs, grad = grads[name]
        assert parameter.requires_grad == needs
        assert (parameter.grad is None) == (grad is None), name
        assert grad is None or torch.equal(parameter.grad, grad), name
    assert torch.equal(x, before) and not x.requires_grad and x.grad is None
    assert not any(value.requires_grad for value in probe.values.values())


def test_an_input_with_a_graph_keeps_it() -> None:
    """A method may probe what it has made of learned parameters."""
    model, stages = restless()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = scale * images()
    stages.probe(x, Y)
    assert scale.grad is None
    stages(x).logits.sum().backward()
    assert scale.grad is not None and model.fc.weight.grad is not None


def test_generators_go_on_where_they_were() -> None:
    _, stages = restless()
    x = images()

    def draws() -> tuple:
        torch.manual_seed(3), random.seed(3), numpy.random.seed(3)
        return torch.rand(1), random.random(), numpy.random.rand()

    def draws_after_a_probe() -> tuple:
        torch.manual_seed(3), random.seed(3), numpy.random.seed(3)
        stages.probe(x, Y)
        return torch.rand(1), random.random(), numpy.random.rand()

    assert draws() == draws_after_a_probe()


def test_modes_come_back_after_an_error() -> None:
    model, stages = restless()
    small = torch.randn(2, 3, 1, 1, dtype=torch.float64)  # for a convolution of 3x3
    numpy.random.seed(5)
    state, drawn = torch.get_rng_state(), numpy.random.get_state()[1].copy()
    with pytest.raises(RuntimeError):
        stages.probe(small, Y[:2])
    assert model.training and model.dropout.training and not model.frozen_norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert (numpy.random.get_state()[1] == drawn).all()
    assert torch.is_autocast_cache_enabled()


def test_the_step_that_follows_is_the_same_bit_by_bit() -> None:
    results = []
    for probes in (False, True):
        torch.manual_seed(1)
        model, stages = restless(torch.float32)
        x = images(torch.float32)
        for _ in range(3):
            if probes:
                stages.probe(x, Y, EVERYTHING)
            loss = F.cross_entropy(stages(x).logits, Y)
            if probes:
                stages.probe(x, Y, {"logits"})
            loss.backward()
        grads = [p.grad for p in model.parameters()]
        results.append([loss.detach(), *grads, *model.state_dict().values()])
    for plain, probed in zip(*results, strict=True):
        assert torch.equal(plain, probed)


@pytest.mark.parametrize("want", [EVERYTHING, {"logits"}])
def test_under_autocast_the_step_keeps_its_gradients(want: set[str]) -> None:
    """In older torch, autocast gives the step casts of weights that the probe made, without graph.

    The version that is tested with may be a newer one, so the cache itself is looked at.
    """
    torch.manual_seed(1)
    model, stages = restless(torch.float32)
    x = images(torch.float32)
    grads, cached = [], []
    for probes in (False, True):
        twin = copy.deepcopy(model)
        stages = Stages(twin, features="body", classifier="fc")
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            twin.fc.register_forward_pre_hook(
                lambda module, args: cached.append(torch.is_autocast_cache_enabled())
            )
            if probes:
                assert stages.probe(x, Y, want | {"logits"}).logits.dtype == torch.bfloat16
            logits = stages(x).logits
        F.cross_entropy(logits.float(), Y).backward()
        grads.append([p.grad for p in twin.parameters()])
    for plain, probed in zip(*grads, strict=True):
        assert plain is not None and torch.equal(plain, probed)
    assert cached == [True, False, True]  # the plain step; the probe, and the step after it


def test_under_autocast_the_loss_is_a_float32_sum() -> None:
    model, stages = restless(torch.float32)
    x, seen = images(torch.float32), []

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        seen.append((logits.dtype, torch.is_autocast_enabled("cpu")))
        return F.cross_entropy(logits, target, reduction="none")

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stages.probe(x, Y, criterion=criterion).input_grad
        leaf = x.clone().requires_grad_()
        logits = evaluated(model)(leaf)
    F.cross_entropy(logits.float(), Y, reduction="sum").backward()
    assert seen == [(torch.float32, False)]
    assert found.dtype == torch.float32
    assert_close(found, leaf.grad, rtol=0.02, atol=1e-4)


def test_where_gradients_are_switched_off() -> None:
    model, stages = restless()
    x = images()
    expected = naive_grad(model, x, lambda z: F.cross_entropy(z, Y, reduction="sum"))
    with torch.no_grad():
        assert_near(stages.probe(x, Y).input_grad, expected)
        assert not torch.is_grad_enabled()


def test_within_a_pass_it_sees_the_model_without_edits() -> None:
    model, x = ConvNet().double().eval(), images()
    stages = stages_of(model)
    seen: list[Probe] = []

    def edit(a: Tensor) -> Tensor:
        seen.append(stages.probe(x, Y, EVERYTHING))
        return -a

    others = {"embedding": torch.neg, "layers": {"hidden": torch.neg, "body.0": torch.neg}}
    forward = stages(x, features=edit, **others)
    assert_near(seen[0].logits, by_hand(model, x))
    expected = stages_of(copy.deepcopy(model))(x, features=torch.neg, **others)
    assert_near(forward.logits, expected.logits)  # the edits after the probe still happened


def test_a_probe_is_not_what_a_step_is_checked_for() -> None:
    _, stages = restless()
    stages(images())
    stages.probe(torch.full((2, 3, 6, 8), torch.nan, dtype=torch.float64), want={"logits"})
    stages.check("a step")


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model_is_not_compiled_again(how: str) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        compiled.append(graph)
        return graph.forward

    class Plain(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.body(x)).mean((2, 3)))

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, CLASSES)

    model, x = Plain(), images(torch.float32)
    reference = stages_of(copy.deepcopy(model))
    if how == "wrapped":
        stages = stages_of(model, call=torch.compile(model, backend=backend))
    else:
        model.compile(backend=backend)
        stages = stages_of(model)
    stages(x), reference(x)
    count = len(compiled)
    assert count
    for _ in range(2):
        found, expected = stages.probe(x, Y, EVERYTHING), reference.probe(x, Y, EVERYTHING)
        for name in EVERYTHING:
            assert_close(found.values[name], expected.values[name])
        assert_close(stages(x).logits, reference(x).logits)
    assert len(compiled) == count
    torch._dynamo.reset()


def test_what_was_not_asked_for_is_refused() -> None:
    _, stages = restless()
    probe = stages.probe(images(), want={"logits", "map"})
    message = (
        r"This probe has no input_grad, it was asked for logits, map\. Add 'input_grad' to want\."
    )
    with pytest.raises(ValueError, match=message):
        _ = probe.input_grad
    with pytest.raises(ValueError, match=r"This probe has no attention"):
        _ = probe.attention
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.values = {}


@pytest.mark.parametrize(
    ("want", "got"),
    [({"grad", "logits"}, "'grad'"), ("logits", "'logits'"), ("map", "'map'"), ((), r"\(\)")],
)
def test_names_that_it_does_not_know(want: object, got: str) -> None:
    _, stages = restless()
    message = (
        rf"probe needs want to be a set of some of \('input_grad', 'logits', 'map', 'attention'\), "
        rf"got {got}\."
    )
    with pytest.raises(ValueError, match=message):
        stages.probe(images(), Y, want)


def test_a_gradient_needs_targets() -> None:
    _, stages = restless()
    with pytest.raises(ValueError, match=r"probe needs targets y for 'input_grad'"):
        stages.probe(images())


def test_a_module_without_a_map() -> None:
    _, stages = restless()
    with pytest.raises(
        ValueError,
        match=r"The output of 'fc', of shape \(4, 4\) for images of 6 x 8, holds no feature map",
    ):
        stages.probe(images(), want={"map"}, at="fc")
    with pytest.raises(ValueError, match=r"Restless has no module 'boddy'"):
        stages.probe(images(), want={"map"}, at="boddy")
