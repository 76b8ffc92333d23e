"""Where a mix holds: nothing passes beside A, positions matter, and layouts are read right."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from toys import CLASSES, ConvNet, TokenNet

import mixplug
from mixplug import Layout, Stages, sampling
from mixplug.mixers import AlignMixup, CutMix, DenseMultiMix, InputMixup, ManifoldMixup, MultiMix
from mixplug.stages import USEFUL, WHOLE, Need

SIZE = (3, 12, 16)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *SIZE)


def roll(t: Tensor) -> Tensor:
    return t.roll(1, 0)


class Bypass(nn.Module):
    """As in CSP: half of the channels go through the block, half pass it by."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.join = nn.Conv2d(8, 6, 1)
        self.last = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.stem(x).chunk(2, 1)
        a = self.join(torch.cat([self.block(one), other], 1))
        return self.fc(torch.tanh(self.last(a)).mean((2, 3)))


def test_what_bypasses_the_map_is_found_and_another_place_named() -> None:
    model = Bypass()
    stages = Stages(model, features="block", classifier="fc")
    message = (
        r"Do not mix at 'block' in Bypass: a path through the model bypasses it.* Use 'join'\."
    )
    for mixer in (AlignMixup(modes=("A",)), ManifoldMixup(layers=("block",))):
        with pytest.raises(ValueError, match=message):
            mixer(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))


@pytest.mark.parametrize("mixer", [AlignMixup(modes=("A",)), ManifoldMixup(layers=("A",))])
def test_a_host_moves_on_to_a_place_that_is_whole(mixer: mixplug.Mixer) -> None:
    model, x = Bypass().eval(), images()
    stages = Stages(model, features="block", classifier="fc", search=True)
    mixer(stages, x, torch.arange(4) % CLASSES, sampling.generators(0, 0))
    assert stages.features == "join"
    assert_close(stages(x, features=roll).logits, roll(model(x)))
    assert not torch.allclose(stages(x, features=roll, at="block").logits, roll(model(x)))


def test_without_a_suggestion_a_place_is_found() -> None:
    stages = Stages(Bypass(), features=None, classifier="fc", search=True)
    AlignMixup()(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))
    assert stages.features == "join"
    stages = Stages(Bypass(), features=None, classifier="fc")
    with pytest.raises(ValueError, match=r"The map A of Bypass is not known\. Name a module"):
        stages(images(), features=roll)


def test_an_edit_without_a_mixer_is_placed_too() -> None:
    """Whoever calls the stages of a host by hand edits the map that a mixer would."""
    model, x = Bypass().eval(), images()
    stages = Stages(model, "block", "fc", search=True)
    wanted = roll(stages(x).logits)
    assert stages.features == "block"  # a plain pass looks for nothing
    assert_close(stages(x, features=roll).logits, wanted)
    assert stages.features == "join"
    stages = Stages(model, "block", "fc", search=True)
    stages.with_map(x, at="stem")  # whoever names modules reads the names of both
    assert (stages.features, stages.last) == ("join", "last")


class Early(nn.Module):
    """As PiT: only the first map can be read, and attention follows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 8) for _ in range(2)))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).permute(2, 0, 1)  # (N, B, C), which nothing reads
        return self.fc(self.blocks(tokens).mean(0))


def test_positions_do_not_go_through_a_whole_network_each() -> None:
    """A constant map gives the same at each position there, but that is another network's loss."""
    stages, y = Stages(Early(), "stem", "fc", search=True), torch.arange(4) % CLASSES
    with pytest.raises(ValueError, match=r"every position of the last map .* most of the network"):
        DenseMultiMix(prob=1.0, n=5)(stages, images(), y, sampling.generators(0, 0))
    AlignMixup(modes=("A",))(stages, images(), y, sampling.generators(0, 0))
    assert stages.features == "stem"


class Pointwise(nn.Module):
    """As MobileNetV3: a 1x1 convolution follows the last block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.early = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Tanh())
        self.late = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Tanh())
        self.wide = nn.Conv2d(8, 9, 1)
        self.fc = nn.Linear(9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.wide(self.late(self.early(self.stem(x))))).mean((2, 3)))


def test_a_place_before_a_layer_that_looks_at_neighbors_is_preferred() -> None:
    """At 'late' alignment matters only by the nonlinearity of the 1x1 convolution."""
    for mixer, place in (
        (AlignMixup(modes=("A",)), "early"),
        (ManifoldMixup(layers=("A",)), "late"),
    ):
        stages = Stages(Pointwise(), "late", "fc", search=True)
        mixer(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))
        assert stages.features == place
    stages = Stages(Pointwise(), "late", "fc")  # of one's own loop: what was named is useful
    AlignMixup()(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))


def test_a_map_of_one_position_is_mixed_with_a_warning() -> None:
    """It depends on the size of the images and not on the model, and targets are right."""
    x = torch.randn(4, 3, 2, 2)
    mixer = AlignMixup(modes=("A",))
    stages = Stages(Pointwise(), "early", "fc")
    with pytest.warns(UserWarning, match="'early' in Pointwise has one position for images of"):
        mixer(stages, x, torch.arange(4) % CLASSES, sampling.generators(0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        mixer(stages, x, torch.arange(4) % CLASSES, sampling.generators(0, 1))


class First(Bypass):
    """As SelecSLS: blocks give a list, of which the model goes on with the first."""

    class Listing(nn.Sequential):
        def forward(self, x: Tensor) -> list[Tensor]:
            x = super().forward(x)
            return [x, x]

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Listing(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.join(self.block(self.stem(x))[0])
        return self.fc(torch.tanh(self.last(a)).mean((2, 3)))


def test_an_output_of_which_another_part_is_used() -> None:
    """An edit of the last part has no effect, which no path of autograd shows."""
    model, x = First().eval(), images()
    stages = Stages(model, "block", "fc", search=True)
    assert_close(stages(x, features=roll).logits, roll(model(x)))
    assert stages.features == "join"


class Beside(Bypass):
    """No map holds all of an image: its colors pass by."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.last(self.join(self.stem(x)))
        return self.fc(a.mean((2, 3)) + x.mean().expand(len(x), 6) * x.mean((1, 2, 3))[:, None])


def test_a_place_that_is_refused_is_searched_once() -> None:
    model, x, passes = Beside(), images(), []
    stages = Stages(model, "join", "fc", search=True)
    model.fc.register_forward_hook(lambda *_: passes.append(1))
    for searches in (True, False, False):
        passes.clear()
        with pytest.raises(ValueError, match="Beside has no module at which a feature map can be"):
            stages(x, features=roll)
        assert bool(passes) is searches
    stages(x)  # works as it is


class Scaled(nn.Module):
    """A residual block whose scale starts at zero, as LayerScale and zero-init norms nearly do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.conv, self.norm = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        nn.init.zeros_(self.norm.weight)
        self.fc = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        return self.fc((a + torch.tanh(self.norm(self.conv(a)))).mean((2, 3)))


def test_a_layer_that_does_nothing_yet_counts() -> None:
    """Else alignment before it would be in vain, and a dense loss would be let through."""
    stages, y = Stages(Scaled(), "stem", "fc"), torch.arange(4) % CLASSES
    stages.place([Need("A", (WHOLE, USEFUL))], images())
    with pytest.raises(ValueError, match=r"at 'stem' in Scaled: layers behind it look at neighb"):
        DenseMultiMix(prob=1.0)(stages, images(), y, sampling.generators(0, 0))
    with pytest.raises(ValueError, match=r"at 'norm' in Scaled: a path through the model bypasses"):
        stages.place([Need("norm", (WHOLE,))], images())


def test_a_check_leaves_no_trace() -> None:
    model = Scaled().train()
    model.norm.momentum = 0.3
    state = copy.deepcopy(model.state_dict())
    own = [p.data_ptr() for p in model.parameters()] + [b.data_ptr() for b in model.buffers()]
    stages, random = Stages(model, "stem", "fc"), torch.get_rng_state()
    x = images()
    after = torch.get_rng_state()
    stages.place([Need("A", (WHOLE, USEFUL))], x)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(random, after)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    now = [p.data_ptr() for p in model.parameters()] + [b.data_ptr() for b in model.buffers()]
    assert now == own and model.norm.momentum == 0.3
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(
        module._forward_hooks for name, module in model.named_modules() if name == "norm"
    )


def test_it_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    model = Bypass()
    model.register_forward_hook(lambda *_: calls.append(1))
    stages, y = Stages(model, "join", "fc"), torch.arange(4) % CLASSES
    mixer = ManifoldMixup(layers=("A",))
    mixer(stages, images(), y, sampling.generators(0, 0))
    first = len(calls)
    mixer(stages, images(), y, sampling.generators(0, 1))
    assert first > 2 and len(calls) == first + 1


def test_mixers_of_the_input_check_nothing() -> None:
    calls = []
    model = Bypass()
    model.register_forward_hook(lambda *_: calls.append(1))
    stages = Stages(model, "block", "fc")
    for mixer in (InputMixup(), CutMix()):
        mixer(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))
    assert len(calls) == 2


# ---------------------------------------------------------------- layouts


class Last(nn.Module):
    """Channels-last maps (B, H, W, C), as in Swin, with as many channels as columns if need be."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.block = nn.Linear(channels, channels)
        self.head = nn.Linear(channels, channels)
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.block(self.stem(x).permute(0, 2, 3, 1))
        return self.fc(torch.tanh(self.head(a)).mean((1, 2)))


@pytest.mark.parametrize("channels", [5, 6, 8])  # the map has 6 rows and 8 columns
def test_channels_last_are_seen(channels: int) -> None:
    model, x = Last(channels), images()
    seen = []
    model.block.register_forward_hook(lambda module, args, out: seen.append(out))
    found = Stages(model, "block", "fc").with_map(x)[1]
    assert found.shape == (4, channels, 6, 8)
    assert torch.equal(found, seen[0].permute(0, 3, 1, 2))
    assert torch.equal(Stages(model, "stem", "fc").with_map(x)[1], model.stem(x))


class Windows(Last):
    """Maps in windows (B, T, N, C): no grid of the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)  # (B, C, 6, 8)
        a = a.unflatten(-1, (2, 4)).unflatten(-3, (3, 2))  # (B, C, 3, 2, 2, 4)
        a = a.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # (B, 6, 8, C)
        return self.fc(torch.tanh(self.head(self.block(a[:, :, :4]))).mean((1, 2)))


def test_windows_are_no_map() -> None:
    stages = Stages(Windows(5), "block", "fc")
    with pytest.raises(ValueError, match=r"'block', of shape \(4, 6, 4, 5\) for images of 12 x 16"):
        stages.with_map(images())


def test_windows_as_columns_are_no_tokens() -> None:
    """(B, C, N), of which C happens to be a square, as ``nn.Unfold`` gives."""

    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Unfold(4, stride=4)  # (B, 48, 12) of 12 x 16 images
            self.fc = nn.Linear(48, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.stem(x)).mean(-1))

    with pytest.raises(ValueError, match=r"'stem', of shape \(4, 48, 12\) .*holds no feature map"):
        Stages(Columns(), "stem", "fc").with_map(images())


def test_tokens_before_the_patches_that_nobody_named() -> None:
    """As in torchvision's ViT, which says nothing of its class token."""
    model, x = TokenNet(prefix=3), images()
    message = (
        r"the first 3 of its 51 tokens are no patches .*pass layout=mixplug.Layout\(prefix=3\)"
    )
    with pytest.raises(ValueError, match=message):
        Stages(model, "blocks.0", "fc").with_map(x)
    assert Stages(model, "blocks.0", "fc", layout=Layout(prefix=3)).with_map(x)[1].shape[2:] == (
        6,
        8,
    )


def test_a_layout_that_contradicts_the_shapes_is_refused() -> None:
    stages = Stages(Last(5), "block", "fc", layout=Layout())
    with pytest.raises(
        ValueError, match=r"Do not mix at 'block' in Last: the output cannot be rea"
    ):
        AlignMixup(modes=("A",))(
            stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0)
        )


class LateToken(TokenNet):
    """The class token is put before the last block, as in CaiT and XCiT."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks[0](self.patches(x).flatten(2).mT)
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], 1)
        return self.fc(torch.tanh(self.hidden(self.blocks[1](tokens)[:, 0])))


def test_the_layout_is_that_of_the_last_map() -> None:
    """What a host says is a suggestion, as the places are."""
    stages = Stages(Last(5), "block", "fc", layout=Layout(), search=True)
    stages.with_map(images(), at="block")
    assert stages.layout == Layout(channels_last=True)


def test_tokens_before_and_after_a_class_token() -> None:
    model, x = LateToken(prefix=1), images()
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    stages = Stages(model, "blocks.0", "fc", layout=Layout(prefix=1), search=True)
    early = stages.with_map(x, at="blocks.0")[1]
    assert early.shape == (4, 5, 6, 8)
    assert torch.equal(early.flatten(2).mT, seen[-2])
    late = stages.with_map(x, at="blocks.1")[1]
    assert late.shape == (4, 5, 6, 8)
    assert torch.equal(late.flatten(2).mT, seen[-1][:, 1:])


@pytest.mark.parametrize(
    ("size", "grid"), [((8, 32), (4, 16)), ((16, 16), (8, 8)), ((32, 8), (16, 4))]
)
def test_the_grid_comes_from_the_images_of_the_pass(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    stages = Stages(TokenNet(prefix=1), "blocks.0", "fc", layout=Layout(prefix=1))
    assert stages.with_map(torch.randn(2, 3, *size))[1].shape == (2, 5, *grid)


# ---------------------------------------------------------------- heads


class TwoHeads(ConvNet):
    """Returns the mean of two heads over two embeddings, as distilled networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc2 = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.tanh(self.body(x)).mean((2, 3))
        e = torch.tanh(self.hidden(self.norm(pooled)))
        return (self.fc(e) + self.fc2(pooled)) / 2


def test_several_heads_are_mixed_together() -> None:
    model, x, y = TwoHeads().double().eval(), images().double(), torch.arange(4) % CLASSES
    stages = Stages(model, "body.1", ["fc", "fc2"])
    plain = model(x)
    assert stages.embed_dim == 11 and stages.num_classes == CLASSES
    assert stages.linear is None and stages.commutes
    found = stages(x, embedding=lambda e: 0.3 * e + 0.7 * roll(e))
    assert_close(found.logits, 0.3 * plain + 0.7 * roll(plain))
    assert_close(found.embedding.shape, torch.Size([4, 11]))
    draws = sampling.generators(0, 0)
    fused = MultiMix(prob=1.0, n=7)(stages, x, y, draws)
    assert_close(fused.clean_logits, plain)
    aligned = AlignMixup(modes=("e",))(stages, x, y, sampling.generators(0, 0))
    assert aligned.logits.shape == plain.shape


def test_one_of_two_heads_is_not_all_of_the_image() -> None:
    stages = Stages(TwoHeads(), "body.1", "fc")
    with pytest.raises(
        ValueError, match=r"The input of the classifier of TwoHeads cannot be mixed"
    ):
        MultiMix(prob=1.0)(stages, images(), torch.arange(4) % CLASSES, sampling.generators(0, 0))


def test_without_a_classifier_inputs_are_mixed() -> None:
    model, x, y = TwoHeads().eval(), images(), torch.arange(4) % CLASSES
    stages = Stages(model, None, None, search=True)
    mixed = InputMixup()(stages, x, y, sampling.generators(0, 0))
    plan = InputMixup().sample(x, sampling.generators(0, 0))
    lam = plan.lam[:, None, None, None]
    assert_close(mixed.logits, model(lam * x + (1 - lam) * x[plan.permutation]))
    with pytest.raises(
        ValueError, match=r"MultiMix mixes more than the input: TwoHeads has no cla"
    ):
        MultiMix().attach(stages)


def test_two_outputs_are_no_logits() -> None:
    class Pair(TwoHeads):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = super().forward(x)
            return logits, logits

    stages = Stages(Pair(), "body.1", ["fc", "fc2"])
    with pytest.raises(ValueError, match=r"Pair returns a tuple instead of one row of logits"):
        stages(images())
