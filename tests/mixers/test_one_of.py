"""OneOf: which mixer is drawn, and that each then does what it does alone."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import torch
from batches import batch, plan_of, toy
from reference.compare import assert_near
from torch import Tensor, nn

import mixplug
from mixplug import Mixer, Plan, Stages, sampling
from mixplug.mixers import PairMixer, build_mixer
from mixplug.mixers.base import CLEAN
from mixplug.mixers.one_of import MemberPlan, OneOf

AE = {"type": "AlignMixup", "decoder": "ae", "image_shape": (3, 6, 8)}
VAE = {**AE, "decoder": "vae"}


def drawn(mixer: Mixer, size: int = 6, steps: int = 4000) -> Counter:
    x = torch.zeros(size, 3, 6, 8)
    plans = [mixer.sample(x, sampling.generators(0, step)) for step in range(steps)]
    return Counter(plan.member for plan in plans)


def test_a_list_is_one_of_them_with_equal_probabilities() -> None:
    mixer = build_mixer([{"type": "CutMix", "alpha": 0.5}, "alignmix", "MultiMix"])
    assert isinstance(mixer, OneOf)
    assert [type(member).__name__ for member in mixer.mixers] == [
        "CutMix",
        "AlignMixup",
        "MultiMix",
    ]
    assert mixer.mixers[0].alpha == 0.5
    counts = drawn(mixer)
    assert set(counts) == {0, 1, 2}
    assert all(abs(count / 4000 - 1 / 3) < 0.03 for count in counts.values())


def test_places_are_checked_for_every_mixer() -> None:
    """Else a mixer within the list would mix where it is refused alone."""
    members = [mixplug.build(name) for name in ("alignmix", "cutmix", "DenseMultiMix", "multimix")]
    needs = OneOf(mixers=tuple(members)).needs()
    assert set(needs) == {need for member in members for need in member.needs()}
    assert len(needs) == len(set(needs)) > 2


@pytest.mark.parametrize(
    ("probs", "expected"),
    [((0.5, 0.3), {0: 0.5, 1: 0.3, -1: 0.2}), ((0.25, 0.75), {0: 0.25, 1: 0.75}), ((0, 1), {1: 1})],
)
def test_probabilities(probs: tuple[float, ...], expected: dict[int, float]) -> None:
    counts = drawn(OneOf(mixers=("mixup", "cutmix"), probs=list(probs)))
    assert set(counts) == set(expected)
    for member, share in expected.items():
        assert abs(counts[member] / 4000 - share) < 0.03


def test_a_line_of_names_for_command_lines() -> None:
    line = build_mixer("mixplug.one_of", mixers="alignmix,cutmix")
    assert line == build_mixer(["alignmix", "cutmix"])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_mixes_as_it_does_alone(index: int, dtype: torch.dtype) -> None:
    specs = [{"type": "AlignMixup"}, {"type": "MultiMix", "n": 7}, {"type": "DenseMultiMix"}]
    mixer = build_mixer(specs)
    alone = build_mixer(specs[index])
    _, stages = toy(dtype)
    mixer.attach(stages)
    x, y = batch(dtype)
    for step in range(100):
        plan = mixer.sample(x, sampling.generators(0, step))
        if plan.member != index or plan.branch == "A":  # whose warning is told once
            continue
        mixed = mixer.apply(stages, x, y, plan)
        wanted = alone.apply(stages, x, y, plan.own)
        assert type(mixed) is type(wanted)
        assert_near(mixed.loss(), wanted.loss())
        assert plan.branch == plan.own.branch and plan.key == plan.own.key
        return
    raise AssertionError(f"{specs[index]} is never drawn.")


def test_the_draws_within_a_mixer_follow_those_of_the_branch() -> None:
    """The same generators, so the draws of a member are keyed by seed, step and rank as alone."""
    mixer = build_mixer(["mixup", "cutmix"])
    x = torch.zeros(5, 3, 6, 8)
    for step in range(20):
        draws = sampling.generators(3, step, rank=1)
        member = int(sampling.branch(["0", "1", "-1"], draws.synced, [0.5, 0.5, 0.0]))
        own = mixer.mixers[member].sample(x, draws)
        plan = mixer.sample(x, sampling.generators(3, step, rank=1))
        assert plan.member == member
        assert torch.equal(plan.lam, own.lam) and torch.equal(plan.permutation, own.permutation)
        assert plan.box == own.box


def test_all_ranks_draw_one_mixer_and_own_pairs() -> None:
    mixer = build_mixer(["mixup", "alignmix", "multimix"])
    x = torch.zeros(8, 3, 6, 8)
    plans = [
        [mixer.sample(x, sampling.generators(1, step, rank)) for step in range(100)]
        for rank in (0, 1)
    ]
    zero, one = ([(plan.member, plan.branch) for plan in rank] for rank in plans)
    assert zero == one and len({member for member, _ in zero}) == 3
    pairs = [(a, b) for a, b in zip(*plans, strict=True) if len(a.lam)]
    assert all((a.lam != b.lam).all() for a, b in pairs) and len(pairs) > 30


def test_what_mixers_learn_is_apart_and_trains_only_when_drawn() -> None:
    mixer = build_mixer([AE, "cutmix", VAE])
    model, stages = toy(torch.float32)
    mixer.attach(stages)
    names = {name.split(".")[1] for name in model.state_dict() if name.startswith("mixup.")}
    assert names == {"0", "2"}
    assert mixer.learns
    x, y = batch(torch.float32)
    seen = set()
    for step in range(200):
        plan = mixer.sample(x, sampling.generators(0, step))
        if plan.branch != "reconstruct" and plan.member != 1:
            continue
        seen.add(plan.member)
        model.zero_grad()
        mixer.apply(stages, x, y, plan).loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name  # else DDP waits for it
        for index in ("0", "2"):
            moved = any(p.grad.abs().sum() > 0 for p in model.mixup[index].parameters())
            assert moved == (plan.member == int(index))
        if seen == {0, 1, 2}:
            break
    assert seen == {0, 1, 2}
    assert isinstance(stages.learned, nn.ModuleDict)


def test_clean_batches_touch_all_that_is_learned() -> None:
    mixer = build_mixer({"type": "OneOf", "mixers": [AE, "cutmix"], "probs": [0.5, 0.2]})
    model, stages = toy(torch.float32)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    mixed = mixer.apply(stages, x, y, MemberPlan(CLEAN))
    assert_near(mixed.loss(), nn.functional.cross_entropy(model(x), y))
    mixed.loss().backward()
    assert all((p.grad == 0).all() for p in model.mixup.parameters())


class Frozen(PairMixer):
    """Mixes nothing, and asks its frozen network."""

    def frozen(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"teacher": lambda: nn.Linear(1, int(self.alpha))}

    def mix_images(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Tensor:
        assert [*stages.frozen] == ["teacher"]
        return x + 0 * stages.frozen["teacher"].weight.shape[0]


def test_frozen_networks_of_one_name_are_apart() -> None:
    mixer = OneOf(mixers=(Frozen(alpha=2), Frozen(alpha=3)))
    _, stages = toy(torch.float32)
    mixer.attach(stages)
    x, y = batch(torch.float32)
    assert {name: len(stages.frozen[name].weight) for name in stages.frozen} == {
        "0.teacher": 2,
        "1.teacher": 3,
    }
    for step in range(8):
        mixer(stages, x, y, sampling.generators(0, step)).loss()


def test_named_modules_of_all_mixers_are_edited() -> None:
    mixer = build_mixer([{"type": "ManifoldMixup", "layers": ["hidden"]}, "cutmix"])
    assert list(mixer.edited_modules()) == ["hidden"]
    with pytest.raises(ValueError, match="has no module 'nowhere'"):
        build_mixer([{"type": "ManifoldMixup", "layers": ["nowhere"]}]).attach(
            toy(torch.float32)[1]
        )


def test_a_copy_of_the_model_has_its_own() -> None:
    mixer = build_mixer([AE, "cutmix"])
    model, stages = toy(torch.float32)
    mixer.attach(stages)
    model.stages = stages
    other = copy.deepcopy(model)
    x, y = batch(torch.float32)
    mixer.apply(other.stages, x, y, plan_of(mixer, x)).loss().backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (True, r"A mixer needs a config such as dict\(type='AlignMixup'\).*got True"),
        (3, "got 3"),
        ([], r"needs mixers, a non-empty list of mixers, got \[\]"),
        ([True], "got True"),
        (["Metrix"], "is a metric loss"),
        ([{"type": "CutMix", "off_epoch": 3}], "off_epoch beside its mixers"),
        ({"type": "OneOf", "mixers": ["cutmix"], "probs": [0.5, 0.5]}, "one number >= 0 for each"),
        ({"type": "OneOf", "mixers": ["cutmix", "mixup"], "probs": [0.8, 0.4]}, r"sum in \(0, 1\]"),
        ({"type": "OneOf", "mixers": ["cutmix"], "probs": [0]}, "sum in"),
        ({"type": "OneOf", "mixers": ["cutmix"], "probs": [-0.1]}, "sum in"),
        ({"type": "OneOf", "mixers": ["cutmix"], "probs": 0.5}, "one number >= 0 for each"),
    ],
)
def test_wrong_settings(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_mixer(spec)


def test_unknown_names_and_keys_are_those_of_the_mixer() -> None:
    with pytest.raises(KeyError, match=r"There is no mixer 'CutMic'\. Did you mean 'CutMix'"):
        build_mixer(["CutMic"])
    with pytest.raises(KeyError, match="CutMix has no key 'alfa'"):
        build_mixer([{"type": "CutMix", "alfa": 1}])


def test_build_says_how_to_write_a_list() -> None:
    with pytest.raises(ValueError, match=r"dict\(type='OneOf', mixers=\[\.\.\.\]\)"):
        mixplug.build(["cutmix"], kind="mixer")
    with pytest.raises(ValueError, match="is a name, a dotted path or a class, got True"):
        mixplug.build(True, kind="mixer")


def test_within_a_detector_all_mixers_must_fit() -> None:
    mixer = build_mixer(["multimix", {"type": "MultiMix", "m": 8}])
    mixer.require_way("mix_rows", "a detector")
    with pytest.raises(ValueError, match="CutMix does not work in a detector"):
        build_mixer(["multimix", "cutmix"]).require_way("mix_rows", "a detector")
    plan = mixer.sample_within(sampling.generators(0, 1))
    while plan.branch == CLEAN:
        plan = mixer.sample_within(sampling.generators(0, plan.key + 2))
    logits, y, weight = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.ones(6)
    wanted = mixer.mixers[plan.member].mix_rows(logits, y, plan.own, weight)
    assert_near(mixer.mix_rows(logits, y, plan, weight).loss(), wanted.loss())
