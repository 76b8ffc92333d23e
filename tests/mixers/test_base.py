"""What every mixer promises, and what the base class does for a new one."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from batches import batch, rows, toy
from torch import Tensor, nn
from torch.testing import assert_close
from toys import Forced

import mixplug
from mixplug import Mixed, Mixer, Plan, Stages, sampling

OPTIONS = {
    "AlignMixup": [{}, {"dense": True}, {"decoder": "vae", "image_shape": [3, 6, 8]}],
    "CutMix": [{}, {"dense": True}],
    "DenseMultiMix": [{"n": 6}, {"n": 6, "attention": "cam", "reduction": "global"}],
    "InputMixup": [{}, {"per_example": True, "prob": 0.5}],
    "ManifoldMixup": [{"layers": ["x", "A", "e", "hidden"]}, {"dense": True}],
    "MultiMix": [{"n": 6}, {"n": 6, "layer": "hidden", "alpha": [1, 2]}],
}
NAMES = [entry.name for entry in mixplug.entries("mixer")]
# OneOf, which is made of others, has tests of its own. A new mixer is tested with its defaults.
CASES = [
    (name, options) for name in NAMES for options in OPTIONS.get(name, [{}]) if name != "OneOf"
]
every_mixer = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


def build(name: str, options: dict[str, object]) -> Mixer:
    return mixplug.build(name, kind="mixer", **options)


@every_mixer
def test_settings_are_frozen(name: str, options: dict[str, object]) -> None:
    mixer = build(name, options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixer.off_epoch = 3


@every_mixer
def test_lists_from_configs_become_tuples(name: str, options: dict[str, object]) -> None:
    given = copy.deepcopy(options)
    mixer = build(name, given)
    for key, value in options.items():
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(mixer, key) == expected
    assert given == options  # the config itself is left alone
    assert hash(mixer) == hash(build(name, options)) and mixer == build(name, options)


@every_mixer
def test_repr_is_the_config(name: str, options: dict[str, object]) -> None:
    mixer = build(name, options)
    assert eval(repr(mixer), {type(mixer).__name__: type(mixer)}) == mixer
    for key in mixplug.catalog.find(name).defaults:
        assert f"{key}=" in repr(mixer)


@every_mixer
@pytest.mark.parametrize("size", [1, 2, 5])
def test_inputs_stay_and_gradients_are_finite(
    size: int, name: str, options: dict[str, object]
) -> None:
    """Over enough steps that every branch is taken, with one example, and with odd batches."""
    model, stages = toy(torch.float32)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32, size)
    soft = rows(y).float()
    before = x.clone(), y.clone(), soft.clone()
    branches = set()
    for step in range(24):
        generators = sampling.generators(0, step)
        branches.add(mixer.sample(x, sampling.generators(0, step)).branch)
        mixed = mixer(stages, x, soft if step % 2 else y, generators)
        loss = mixed.loss()
        assert loss.shape == () and loss.dtype == torch.float32
        model.zero_grad()
        loss.backward()
        used = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in used)
        assert any(bool(g.any()) for g in used)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and torch.equal(soft, before[2])
    drawn = getattr(mixer, "branches", lambda: {"x": 1, "hull": 1})()
    assert branches == {*drawn, *({"clean"} if options.get("prob") == 0.5 else ())}


@every_mixer
def test_a_step_is_decided_by_its_generators_alone(name: str, options: dict[str, object]) -> None:
    _, stages = toy(torch.float32)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    for step in range(6):
        torch.manual_seed(step)
        first = mixer(stages, x, y, sampling.generators(3, step)).loss().detach()
        torch.manual_seed(step + 100)
        again = mixer(stages, x, y, sampling.generators(3, step)).loss().detach()
        stages.model.eval()
        assert torch.equal(first, again)


@every_mixer
def test_ranks_take_one_branch_with_draws_of_their_own(
    name: str, options: dict[str, object]
) -> None:
    mixer, x = build(name, options), torch.zeros(7, 3, 6, 8)
    for step in range(12):
        plans = [mixer.sample(x, sampling.generators(0, step, rank)) for rank in range(6)]
        assert len({plan.branch for plan in plans}) == 1
        draws = {(tuple(p.permutation.tolist()), tuple(p.lam.tolist()), p.key) for p in plans}
        assert len(draws) == 6


@every_mixer
def test_off_epoch_leaves_batches_clean(name: str, options: dict[str, object]) -> None:
    model, stages = toy(torch.float32)
    mixer = build(name, {**options, "off_epoch": 2})
    mixer.attach(stages)
    x, y = batch(torch.float32)
    expected = torch.nn.functional.cross_entropy(model(x), y)
    for epoch in (2, 9):
        mixed = mixer(stages, x, y, sampling.generators(0, 0), epoch=epoch)
        assert_close(mixed.loss(), expected)
        assert_close(mixed.output, model(x))
    for epoch in (0, 1):
        steps = [mixer(stages, x, y, sampling.generators(0, k), epoch=epoch) for k in range(6)]
        assert max(float((m.loss() - expected).detach().abs()) for m in steps) > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [(*case, nn.Linear) for case in CASES]
    + [
        (*case, Forced) for case in CASES if case[1].get("attention") != "cam"
    ],  # needs a linear one
    ids=str,
)
def test_targets_are_exact_under_autocast(
    name: str, options: dict[str, object], head: type[nn.Linear]
) -> None:
    """Losses run in float32 whatever autocast says, and targets are half of a loss."""
    _, stages = toy(torch.float32, head=head)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    for step in range(6):
        outside = mixer(stages, x, y, sampling.generators(0, step))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = mixer(stages, x, y, sampling.generators(0, step))
            loss = inside.loss()
        assert loss.dtype == torch.float32
        if options.get("attention", "none") != "cam" and name != "DenseMultiMix":
            assert_close(inside.target, outside.target)
        assert_close(inside.target.sum(-1), torch.ones_like(outside.target.sum(-1)))


@every_mixer
def test_nan_features_are_named_by_mixer_branch_and_step(
    name: str, options: dict[str, object]
) -> None:
    _, stages = toy(torch.float32)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    next(stages.model.parameters()).data.fill_(torch.nan)  # as after a step that diverged
    branch = mixer.sample(x, sampling.generators(0, 4)).branch
    message = rf"{name}, branch \"?'?{branch}'?\"?, step 4: the features that reach the classifier"
    with pytest.raises(ValueError, match=message):
        mixer(stages, x, y, sampling.generators(0, 4), step=4)
    message = rf"{name}, branch \"?'?{branch}'?\"?: the features"
    with pytest.raises(ValueError, match=message):
        mixer(stages, x, y, sampling.generators(0, 4))


@every_mixer
def test_a_class_that_the_model_does_not_have(name: str, options: dict[str, object]) -> None:
    _, stages = toy(torch.float32)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32, 3)
    message = r"must be in 0 to 3 for a classifier with 4 classes, got 4\."
    with pytest.raises(ValueError, match=message):
        mixer(stages, x, y + 2, sampling.generators(0, 0))


def test_a_plan_has_nothing_that_was_not_drawn() -> None:
    plan = Plan("x")
    assert plan.permutation.numel() == 0 and plan.lam.numel() == 0
    assert plan.key == 0 and plan.box == (0, 0, 0, 0)


def test_a_new_mixer_needs_two_methods() -> None:
    """README's promise: what it draws and what it does with that; the rest is inherited."""

    @dataclass(frozen=True, kw_only=True)
    class Half(Mixer):
        weights: tuple[float, ...] = (1.0,)

        def sample(self, x: Tensor, generators: sampling.Generators) -> Plan:
            return Plan("half", sampling.permutation(len(x), generators.local))

        def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
            return Mixed(stages((x + x[plan.permutation]) / 2).logits, torch.eye(4)[y])

    model, stages = toy(torch.float32)
    mixer = Half(weights=[1.0, 2.0], off_epoch=1)
    assert mixer.weights == (1.0, 2.0) and not mixer.learns and mixer.edited_modules() == ()
    mixer.attach(stages)
    assert stages.learned is None
    x, y = batch(torch.float32, 3)
    plan = mixer.sample(x, sampling.generators(0, 0))
    mixed = mixer(stages, x, y, sampling.generators(0, 0), epoch=0)
    assert_close(mixed.logits, model((x + x[plan.permutation]) / 2))
    assert_close(mixer(stages, x, y, sampling.generators(0, 0), epoch=1).logits, model(x))
    with pytest.raises(ValueError, match=r"Half needs off_epoch >= 0 or None, got -1\."):
        Half(off_epoch=-1)


def test_an_off_epoch_needs_the_epoch() -> None:
    """It would never come in a loop that leaves the epoch out."""
    _, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    message = (
        r"InputMixup has off_epoch=2 and needs the epoch of every batch: pass mixer\(stages, x, y, "
        r"generators, epoch=epoch\), counted from 0, or leave off_epoch out\."
    )
    with pytest.raises(ValueError, match=message):
        mixplug.build("mixup", off_epoch=2)(stages, x, y, sampling.generators(0, 0))
    mixplug.build("mixup")(stages, x, y, sampling.generators(0, 0))  # needs none


def test_a_mixer_that_learns_is_asked_for_its_module() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Learner(Mixer):
        @property
        def learns(self) -> bool:
            return True

        def build_module(self, embed_dim: int) -> nn.Module:
            return nn.Linear(embed_dim, 2)

        def edited_modules(self) -> tuple[str, ...]:
            return ("hidden",)

    model, stages = toy(torch.float64)
    Learner().attach(stages)
    assert stages.learned is model.mixup and model.mixup.in_features == 6
    assert model.mixup.weight.dtype == torch.float64


@pytest.mark.parametrize("method", ["sample", "apply", "build_module"])
def test_the_base_does_nothing_itself(method: str) -> None:
    x = torch.zeros(1)
    arguments = {"sample": (x, None), "apply": (None, x, x, Plan("x")), "build_module": (3,)}
    with pytest.raises(NotImplementedError):
        getattr(Mixer(), method)(*arguments[method])


@every_mixer
def test_nan_inputs_are_refused_before_the_model_sees_them(
    name: str, options: dict[str, object]
) -> None:
    model, stages = toy(torch.float32)
    mixer = build(name, options)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    x[1, 0, 0, 0] = torch.nan
    seen: list[object] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args))
    with pytest.raises(ValueError, match=f"{name}, step 4: the input contains NaN"):
        mixer(stages, x, y, sampling.generators(0, 4), step=4)
    assert not seen


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(2, dtype=torch.long), r"one target per example.*targets of shape \(2,\)"),
        (torch.zeros(3, 4, dtype=torch.long), r"For rows pass y\.float\(\)"),
        (torch.tensor(1), "one target per example"),
    ],
)
def test_targets_that_do_not_fit_the_batch(y: Tensor, message: str) -> None:
    _, stages = toy(torch.float32)
    x, _ = batch(torch.float32, 3)
    with pytest.raises(ValueError, match=message):
        mixplug.build("mixup")(stages, x, y, sampling.generators(0, 0))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("AlignMixup", "alpha", "two"),
        ("AlignMixup", "alpha", float("inf")),
        ("AlignMixup", "iters", 2.5),
        ("AlignMixup", "align", 1),
        ("MultiMix", "n", True),
        ("MultiMix", "layer", 3),
        ("InputMixup", "off_epoch", "never"),
    ],
)
def test_settings_of_a_wrong_type(name: str, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} needs {key} of type .*, got"):
        mixplug.build(name, **{key: value})


def test_a_resolution_that_would_do_nothing() -> None:
    _, stages = toy(torch.float32)
    with pytest.raises(
        ValueError, match="InputMixup mixes no map with these settings, so resolution=2 needs"
    ):
        mixplug.build("mixup", resolution=2).attach(stages)
    mixplug.build("mixup", resolution=2, dense=True).attach(stages)
    mixplug.build("manifold", resolution=2).attach(stages)
