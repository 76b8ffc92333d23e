"""Models in stages against forwards written by hand, for every layout and edit."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.testing import assert_close
from toys import (
    CLASSES,
    ChannelsLastNet,
    ConvHeadNet,
    ConvNet,
    Forced,
    PyramidNet,
    TokenNet,
    by_hand,
    classify,
    columns,
    embed,
    feature_map,
    stages_of,
)

import mixplug
from mixplug import Plan, Stages
from mixplug.layouts import pool

CONV_NETS = [ConvNet, ConvHeadNet, ChannelsLastNet, PyramidNet]
EDIT = torch.linspace(0.5, 2, 12).view(3, 4)  # of maps of 6x8 images: no symmetry


def images(dtype: torch.dtype = torch.float64, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 6, 8, dtype=dtype)


def edit_map(a: Tensor) -> Tensor:
    """Moves positions, channels and examples."""
    return a.flip(0).roll(1, 1) * EDIT.to(a.dtype)


def parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(model.named_parameters())


@pytest.mark.parametrize("net", [*CONV_NETS, TokenNet])
def test_without_edits_it_is_the_model(net: type[nn.Module], dtype: torch.dtype) -> None:
    model, x = net().to(dtype).eval(), images(dtype)
    expected = model(x)
    forward = stages_of(model)(x)
    assert torch.equal(forward.logits, expected)
    assert forward.embedding.shape == (3, model.fc.weight.shape[1])
    logits = torch.stack([classify(model, e) for e in forward.embedding])
    assert_near(logits, expected)


@pytest.mark.parametrize("net", CONV_NETS)
def test_an_edit_of_the_map(net: type[nn.Module], dtype: torch.dtype) -> None:
    """In value and gradient, with dropout switched off as in a test."""
    model, x = net().to(dtype).eval(), images(dtype)
    given: list[Tensor] = []

    def edit(a: Tensor) -> Tensor:
        given.append(a)
        return edit_map(a)

    forward = stages_of(model)(x, features=edit)
    for i in range(3):
        assert_near(given[0][i], feature_map(model, x[i]))
    expected = by_hand(model, x, edit_map)
    assert_near(forward.logits, expected)
    direction = torch.randn(3, CLASSES, dtype=dtype)
    assert_same_gradients(
        (forward.logits * direction).sum(), (expected * direction).sum(), parameters(model)
    )


@pytest.mark.parametrize("net", CONV_NETS)
def test_an_edit_may_change_the_grid(net: type[nn.Module], dtype: torch.dtype) -> None:
    model, x = net().to(dtype).eval(), images(dtype)
    edit = lambda a: a[..., :2, 1:]  # noqa: E731
    assert_near(stages_of(model)(x, features=edit).logits, by_hand(model, x, edit))


def test_an_edit_may_change_the_batch() -> None:
    model, x = ConvNet().double().eval(), images()
    edit = lambda a: torch.cat([a, 2 * a])  # noqa: E731
    assert_near(stages_of(model)(x, features=edit).logits, by_hand(model, x, edit))


@pytest.mark.parametrize("net", CONV_NETS)
def test_an_edit_of_the_embedding(net: type[nn.Module], dtype: torch.dtype) -> None:
    model, x = net().to(dtype).eval(), images(dtype)
    mixing = torch.randn(5, 3, dtype=dtype)  # also the number of rows may change
    given: list[Tensor] = []

    def edit(e: Tensor) -> Tensor:
        given.append(e)
        return mixing @ e

    forward = stages_of(model)(x, embedding=edit)
    clean = torch.stack([embed(model, feature_map(model, one)) for one in x])
    assert_near(given[0], clean)
    assert_near(forward.embedding, clean)  # what reached the edit, not what it made
    expected = torch.stack([classify(model, e) for e in mixing @ clean])
    assert_near(forward.logits, expected)
    direction = torch.randn(5, CLASSES, dtype=dtype)
    assert_same_gradients(
        (forward.logits * direction).sum(), (expected * direction).sum(), parameters(model)
    )


def test_an_edit_of_any_named_layer(dtype: torch.dtype) -> None:
    model, x = ConvNet().to(dtype).eval(), images(dtype)
    scale = lambda t: 3 * t  # noqa: E731
    forward = stages_of(model)(x, layers={"body.0": scale, "hidden": torch.neg})
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.body[0].parameters():
            parameter.mul_(3)
        for parameter in changed.hidden.parameters():
            parameter.neg_()
    assert_near(forward.logits, by_hand(changed, x))


def test_an_edit_of_the_classifiers_output(dtype: torch.dtype) -> None:
    """The logits are then what the edit makes of them."""
    model, x = ConvNet().to(dtype).eval(), images(dtype)
    forward = stages_of(model)(x, layers={"fc": lambda t: 3 * t.flip(0)})
    assert_near(forward.logits, 3 * by_hand(model, x).flip(0))


def test_the_map_of_another_module(dtype: torch.dtype) -> None:
    """Before the second convolution, whose map has four channels."""
    model, x = ConvNet().to(dtype).eval(), images(dtype)
    forward = stages_of(model)(x, features=edit_map, at="body.1")
    inner = torch.tanh(F.conv2d(x, model.body[0].weight, model.body[0].bias, stride=2, padding=1))
    maps = F.conv2d(edit_map(inner), model.body[2].weight, model.body[2].bias, padding=1)
    expected = torch.stack([classify(model, embed(model, a)) for a in maps])
    assert_near(forward.logits, expected)


@pytest.mark.parametrize("net", CONV_NETS)
def test_dense_is_the_head_at_every_position(net: type[nn.Module], dtype: torch.dtype) -> None:
    """Norm, hidden layer and classifier work on each column alone (5.3.3)."""
    model, x = net().to(dtype).eval(), images(dtype)
    forward = stages_of(model)(x, dense=lambda a: a)
    maps = [feature_map(model, one) for one in x]
    e = torch.stack([torch.stack([embed(model, c) for c in columns(a)]) for a in maps])
    logits = torch.stack([torch.stack([classify(model, c) for c in one]) for one in e])
    assert_near(forward.embedding, e)
    assert_near(forward.logits, logits)
    direction = torch.randn(3, 12, CLASSES, dtype=dtype)
    assert_same_gradients(
        (forward.logits * direction).sum(), (logits * direction).sum(), parameters(model)
    )


def test_dense_of_a_linear_head_is_a_1x1_convolution_of_the_map(dtype: torch.dtype) -> None:
    model, x = ConvHeadNet().to(dtype).eval(), images(dtype)
    dense = stages_of(model)(x, dense=lambda a: a).logits
    assert_close(dense, model.fc(model.body(x)).flatten(2).mT)
    assert_close(dense.mean(1), model(x))  # and its mean is the model's own logits


def test_dense_edit_dense_and_embedding_come_in_that_order(dtype: torch.dtype) -> None:
    """Features are mixed, pooled, split into positions, and then the embeddings are mixed."""
    model, x = ConvNet().to(dtype).eval(), images(dtype)
    mixing = torch.randn(7, 3, dtype=dtype)
    given: list[Tensor] = []

    def embedding(e: Tensor) -> Tensor:  # (B, N, D) to (7, D), of the third position
        given.append(e)
        return mixing @ e[:, 2]

    forward = stages_of(model)(
        x, features=edit_map, dense=lambda a: pool(a[..., :2, :2], 2), embedding=embedding
    )
    maps = edit_map(torch.stack([feature_map(model, one) for one in x]))
    third = torch.stack([embed(model, columns(a[:, :2, :2])[2]) for a in maps])
    assert given[0].shape == (3, 4, 6)
    assert_near(given[0][:, 2], third)
    assert_near(forward.logits, torch.stack([classify(model, e) for e in mixing @ third]))


def test_a_layer_edit_of_the_features_comes_before_the_map(dtype: torch.dtype) -> None:
    model, x = ConvNet().to(dtype).eval(), images(dtype)
    forward = stages_of(model)(x, layers={"body": lambda t: t + 1}, features=edit_map)
    assert_near(forward.logits, by_hand(model, x, lambda a: edit_map(a + 1)))


def tokens_by_hand(net: TokenNet, x: Tensor) -> Tensor:
    """(B, P + N, C) after the first block."""
    patches = F.conv2d(x, net.patches.weight, net.patches.bias, stride=2).flatten(2).mT
    return block_by_hand(net, 0, torch.cat([net.prefix.expand(len(x), -1, -1), patches], 1))


def block_by_hand(net: TokenNet, number: int, tokens: Tensor) -> Tensor:
    block = net.blocks[number]
    mean = tokens.sum(1, keepdim=True) / tokens.shape[1] @ block.mean.weight.T + block.mean.bias
    return tokens + torch.tanh(tokens @ block.own.weight.T + block.own.bias + mean)


def head_by_hand(net: TokenNet, pooled: Tensor) -> Tensor:
    e = torch.tanh(pooled @ net.hidden.weight.T + net.hidden.bias)
    return e @ net.fc.weight.T + net.fc.bias


@pytest.mark.parametrize("prefix", [1, 2])
def test_an_edit_of_patches_and_prefix_tokens(prefix: int, dtype: torch.dtype) -> None:
    """Mixed before the last block, patches reach the class token."""
    model, x = TokenNet(prefix).to(dtype).eval(), torch.randn(3, 3, 4, 4, dtype=dtype)
    given: list[Tensor] = []

    def patches(a: Tensor) -> Tensor:
        given.append(a)
        return a.flip(0).roll(1, 3)

    forward = stages_of(model)(x, features=patches, prefix=lambda t: 3 * t)
    tokens = tokens_by_hand(model, x)
    assert_near(given[0], tokens[:, prefix:].mT.reshape(3, 5, 2, 2))
    moved = tokens[:, prefix:].flip(0)[:, [1, 0, 3, 2]]
    tokens = block_by_hand(model, 1, torch.cat([3 * tokens[:, :prefix], moved], 1))
    assert_near(forward.logits, head_by_hand(model, tokens[:, 0]))


def test_prefix_tokens_without_an_edit_stay(dtype: torch.dtype) -> None:
    model, x = TokenNet().to(dtype).eval(), torch.randn(3, 3, 4, 4, dtype=dtype)
    forward = stages_of(model)(x, features=lambda a: -a)
    tokens = tokens_by_hand(model, x)
    tokens = block_by_hand(model, 1, torch.cat([tokens[:, :2], -tokens[:, 2:]], 1))
    assert_near(forward.logits, head_by_hand(model, tokens[:, 0]))


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_dense_tokens_are_patches_whatever_the_pooling(pooling: str, dtype: torch.dtype) -> None:
    model, x = TokenNet(pool=pooling).to(dtype).eval(), torch.randn(3, 3, 4, 6, dtype=dtype)
    forward = stages_of(model)(x, dense=lambda a: a)
    tokens = block_by_hand(model, 1, tokens_by_hand(model, x))
    assert forward.logits.shape == (3, 6, CLASSES)
    assert_near(forward.logits, head_by_hand(model, tokens[:, 2:]))


def test_dropout_in_training_is_the_models_own_business() -> None:
    model, x = ConvNet().train(), images(torch.float32)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    assert torch.equal(stages_of(model)(x).logits, expected)
    assert not torch.equal(stages_of(model)(x).logits, expected)


def test_another_call_runs_the_model() -> None:
    model, x = ConvNet().double().eval(), images()
    stages = stages_of(model, call=lambda x: model(2 * x))
    assert_near(stages(x).logits, by_hand(model, 2 * x))


def test_state_dict_keys_and_class_stay() -> None:
    model = ConvNet()
    before, kind = list(model.state_dict()), type(model)
    stages_of(model, last="norm").require("hidden")
    assert list(model.state_dict()) == before and type(model) is kind


def test_edits_end_with_the_pass_also_after_an_error() -> None:
    model, x = ConvNet().double().eval(), images()
    stages, expected = stages_of(model), by_hand(model, x)
    edits = {"features": edit_map, "embedding": torch.neg, "layers": {"hidden": torch.neg}}
    stages(x, **edits)
    assert_near(model(x), expected)

    def fail(e: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stages(x, **{**edits, "embedding": fail})
    assert_near(model(x), expected)
    assert_near(stages(x).logits, expected)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copied_model_has_taps_of_its_own_that_are_idle(how: str) -> None:
    model, x = ConvNet().double().eval(), images()
    stages = stages_of(model)
    if how == "deepcopy":
        other = copy.deepcopy(model)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        torch.save(model, buffer := io.BytesIO())
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    seen: list[Tensor] = []

    def edit(a: Tensor) -> Tensor:
        seen.append(other(x))  # while the first model's taps are busy
        return edit_map(a)

    forward = stages(x, features=edit)
    assert_near(seen[0], by_hand(model, x))
    assert_near(forward.logits, by_hand(model, x, edit_map))
    assert_near(stages_of(other)(x, features=edit_map).logits, by_hand(model, x, edit_map))


def test_two_stages_on_one_model_do_not_disturb_each_other() -> None:
    model, x = ConvNet().double().eval(), images()
    one, two = stages_of(model), stages_of(model)
    assert_near(one(x, features=edit_map).logits, by_hand(model, x, edit_map))
    assert_near(two(x, features=lambda a: -a).logits, by_hand(model, x, lambda a: -a))


def test_a_learned_module_is_saved_with_the_model() -> None:
    model = ConvNet()
    stages, before = stages_of(model), set(model.state_dict())
    stages.learn(nn.Linear(2, 2))
    assert stages.learned is model.mixup
    assert set(model.state_dict()) - before == {"mixup.weight", "mixup.bias"}


def test_linear_heads_are_known_by_what_they_do() -> None:
    model = ConvNet()
    assert stages_of(model).linear is model.fc
    conv = ConvHeadNet()
    assert stages_of(conv).linear is conv.fc
    assert stages_of(ConvNet(Forced)).linear is None
    for head in (
        nn.Sequential(nn.Linear(6, 4)),
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, 1, groups=2),
    ):
        model.fc = head
        assert stages_of(model).linear is None, head


def test_a_subclass_that_computes_what_a_linear_layer_does_is_linear() -> None:
    """timm's Linear is one; LoRA in its first step would be one if weights were not drawn anew."""

    class Same(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return (self.weight @ x.mT).mT + self.bias

    class Cosine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, nn.functional.normalize(self.weight), self.bias)

    class LowRank(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.down, self.up = nn.Linear(sizes[0], 2), nn.Linear(2, sizes[1])
            nn.init.zeros_(self.up.weight), nn.init.zeros_(self.up.bias)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.up(self.down(x).relu())

    model = ConvNet(Same)
    assert stages_of(model).linear is model.fc
    assert stages_of(ConvNet(timm.layers.Linear)).commutes
    assert stages_of(ConvNet(Cosine)).linear is None
    assert stages_of(ConvNet(LowRank)).linear is None


def test_a_linear_subclass_without_a_forward_of_its_own_is_linear() -> None:
    class Plain(nn.Linear):
        pass

    model = ConvNet(Plain)
    assert stages_of(model).linear is model.fc


def test_the_width_of_the_embedding() -> None:
    assert stages_of(ConvNet()).embed_dim == 6
    assert stages_of(ConvHeadNet()).embed_dim == 5
    model = ConvNet()
    model.fc = nn.Sequential(nn.Linear(6, 4))
    message = (
        r"A mixer with parameters needs the width of the embedding, which the classifier "
        r"Sequential does not declare \(in_features or in_channels\)\."
    )
    with pytest.raises(ValueError, match=message):
        _ = stages_of(model).embed_dim


@pytest.mark.parametrize("option", ["features", "classifier", "last"])
def test_an_unknown_module_lists_the_nearest(option: str) -> None:
    names = {"features": "body", "classifier": "fc", "last": "body", option: "hiden"}
    message = r"ConvNet has no module 'hiden'\. Nearest: 'hidden'"
    with pytest.raises(ValueError, match=message):
        Stages(ConvNet(), **names)


def test_an_unknown_module_with_nothing_near() -> None:
    message = r"has no module 'zzzz'\. Nearest: none, see model\.named_modules\(\)\."
    with pytest.raises(ValueError, match=message):
        stages_of(ConvNet()).require("zzzz")
    with pytest.raises(ValueError, match="has no module ''"):
        stages_of(ConvNet()).require("")


def test_unknown_modules_in_a_pass() -> None:
    stages, x = stages_of(ConvNet()), images(torch.float32)
    with pytest.raises(ValueError, match=r"ConvNet has no module 'body\.7'"):
        stages(x, layers={"body.7": torch.neg})
    with pytest.raises(ValueError, match=r"ConvNet has no module 'boddy'\. Nearest: 'body"):
        stages(x, features=edit_map, at="boddy")


def test_a_classifier_that_is_never_called() -> None:
    class Idle(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).mean((2, 3))

    with pytest.raises(ValueError, match=r"The model's forward never called its classifier module"):
        stages_of(Idle())(images(torch.float32))


def test_a_named_module_that_is_never_called() -> None:
    """An edit that never happened must not pass for one that did."""
    model = ConvNet()
    model.idle = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="idle"):
        stages_of(model)(images(torch.float32), layers={"idle": torch.neg})
    with pytest.raises(ValueError, match="idle"):
        stages_of(model)(images(torch.float32), features=edit_map, at="idle")


def test_features_without_a_map() -> None:
    stages = stages_of(ConvNet(), features="hidden")
    with pytest.raises(
        ValueError, match=r"'hidden', of shape \(3, 6\) .* Name a module before pooling\."
    ):
        stages(images(torch.float32), features=edit_map)


def test_a_convolution_that_classifies_before_pooling_is_no_linear_head() -> None:
    """Its logits are a grid, (B, K, h, w) and not (B, K): refuse it, or pool as the model does."""

    class ClassifyThenPool(ConvHeadNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(x)).mean((2, 3))

    model, x = ClassifyThenPool().double(), images()
    try:
        logits = stages_of(model)(x).logits
    except ValueError as error:
        assert "fc" in str(error) or "classifier" in str(error)
    else:
        assert_close(logits, model(x))


def test_nan_features_name_what_was_going_on() -> None:
    model = ConvNet()
    stages, x = stages_of(model), images(torch.float32)
    stages(x), stages.check("AlignMixup, branch 'A', step 7")  # nothing is wrong yet
    x[1, 0, 0, 0] = torch.nan
    stages(x)
    message = (
        r"AlignMixup, branch 'A', step 7: the features that reach the classifier are NaN\. The "
        r"input, the learning rate or mixed precision is the usual cause"
    )
    with pytest.raises(ValueError, match=message):
        stages.check("AlignMixup, branch 'A', step 7")
    stages.check("a step that ran no model")  # said once
    stages(images(torch.float32)), stages.check("the next step")


def test_infinite_features_are_no_nan() -> None:
    model = ConvNet()
    model.dropout = nn.Identity()
    stages = stages_of(model, features="body")
    stages(images(torch.float32), layers={"dropout": lambda e: e + torch.inf})
    stages.check("a step")


def test_logits_that_change_after_the_classifier_are_not_mixed() -> None:
    class Scaled(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 50

    stages, x = stages_of(Scaled().eval()), images(torch.float32)
    y = torch.arange(len(x)) % CLASSES
    assert_close(stages(x).logits, stages.model(x))  # for mixers of the input it is no matter
    assert stages.linear is stages.model.fc and not stages.commutes
    with pytest.raises(ValueError, match="The model changes its logits after the classifier"):
        mixplug.build("MultiMix").hull(stages_of(Scaled()), x, y, Plan("hull"))


def test_an_attribute_named_mixup_of_the_model_is_not_overwritten() -> None:
    model = ConvNet()
    model.mixup = 0.2
    stages = stages_of(model)
    with pytest.raises(ValueError, match="has an attribute 'mixup' of its own"):
        stages.learn(nn.Linear(2, 2))
    assert model.mixup == 0.2
