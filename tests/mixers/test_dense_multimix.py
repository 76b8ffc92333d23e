"""Dense MultiMix against loops over positions, mixed examples and examples, on both paths."""

from __future__ import annotations

import pytest
import torch
from batches import batch, by_stages, factors, parameters, partners, plan_of, rows, toy
from reference import dense as naive
from reference.algorithm import algorithm_1
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.testing import assert_close
from toys import ChannelsLastNet, ConvHeadNet, Forced, TokenNet, columns, pool, stages_of

from mixplug import HullMixed, Mixed, Plan, sampling
from mixplug.mixers.dense_multimix import DenseMultiMix

QUERIES = ("gap", "cam", "none")


def weights_of(mixer: DenseMultiMix, plan: Plan, size: int, positions: int) -> Tensor:
    source = torch.Generator().manual_seed(plan.key)
    return sampling.hull_weights(mixer.n, size, mixer.alpha, mixer.m, source, positions)


def dense_embeddings(model: nn.Module, x: Tensor, resolution: int | None) -> Tensor:
    """(B, D, r), each position on its own through what follows the map."""
    net, out = by_stages(model), []
    for one in x:
        a = net.encode(one)
        a = a if resolution is None else pool(a, resolution)
        out.append(torch.stack([net.embed(column) for column in columns(a)], 1))
    return torch.stack(out)


def expected_of(
    model: nn.Module, x: Tensor, y: Tensor, plan: Plan, mixer: DenseMultiMix
) -> tuple[Tensor, Tensor, Tensor]:
    """(5.9)-(5.14): mixed logits (M, K, r), targets (M, K, r), loss."""
    z = dense_embeddings(model, x, mixer.resolution)
    weights = weights_of(mixer, plan, len(x), z.shape[2])
    a = naive.attention_maps(
        z, mixer.attention, mixer.normalize, model.fc.weight.detach().flatten(1), y
    )
    z_mixed, y_mixed, s = naive.dense_multimix(z, y.double(), weights, a)
    net = by_stages(model)
    logits = torch.stack(
        [torch.stack([net.classify(one[:, j]) for j in range(z.shape[2])], 1) for one in z_mixed]
    )
    return logits, y_mixed, naive.dense_loss(logits, y_mixed, s, mixer.reduction)


CASES = [
    (query, normalize, reduction)
    for query in QUERIES
    for normalize in ("l1", "softmax")
    for reduction in ("position_mean", "global")
    if query != "none" or normalize == "l1"
]


@pytest.mark.parametrize(
    ("query", "normalize", "reduction", "head"),
    [(*case, nn.Linear) for case in CASES]
    + [(*case, Forced) for case in CASES if case[0] != "cam"],  # which needs a linear classifier
)
def test_equals_the_loop(
    query: str, normalize: str, reduction: str, head: type[nn.Linear], dtype: torch.dtype
) -> None:
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, 3)
    mixer = DenseMultiMix(
        n=5, attention=query, normalize=normalize, reduction=reduction, resolution=2
    )
    mixer.attach(stages)
    plan = plan_of(mixer, x, "hull")
    mixed = mixer.apply(stages, x, y, plan)
    assert isinstance(mixed, HullMixed if head is nn.Linear else Mixed)
    logits, target, loss = expected_of(model, x, rows(y), plan, mixer)
    order = (2, 0, 1) if head is nn.Linear else (0, 2, 1)  # (N, M, K) or (M, N, K)
    assert_near(mixed.logits, logits.permute(order))
    assert_near(mixed.target, target.permute(order))
    assert_same_gradients(mixed.loss(), loss, parameters(model))


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("resolution", [None, 1, 3])
def test_resolution_and_subsets(
    resolution: int | None, m: int, head: type[nn.Linear], dtype: torch.dtype
) -> None:
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, 5)
    mixer = DenseMultiMix(n=3, m=m, resolution=resolution, alpha=1.5)
    plan = plan_of(mixer, x, "hull")
    _, _, loss = expected_of(model, x, rows(y), plan, mixer)
    assert_same_gradients(mixer.apply(stages, x, y, plan).loss(), loss, parameters(model))


@pytest.mark.parametrize("net", [ConvHeadNet, ChannelsLastNet])
@pytest.mark.parametrize("query", QUERIES)
def test_other_layouts(query: str, net: type[nn.Module], dtype: torch.dtype) -> None:
    """A convolution's weight is (K, D, 1, 1), also for cam."""
    model, stages = toy(dtype, net)
    x, y = batch(dtype, 3)
    mixer = DenseMultiMix(n=4, attention=query)
    plan = plan_of(mixer, x, "hull")
    mixed = mixer.apply(stages, x, y, plan)
    assert isinstance(mixed, HullMixed)
    _, _, loss = expected_of(model, x, rows(y), plan, mixer)
    assert_same_gradients(mixed.loss(), loss, parameters(model))


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_patch_tokens_are_positions(pooling: str, dtype: torch.dtype) -> None:
    model = TokenNet(pool=pooling).to(dtype)
    stages = stages_of(model)
    x, y = torch.randn(3, 3, 4, 4, dtype=dtype), torch.tensor([0, 1, 2])
    mixer = DenseMultiMix(n=4)
    plan = plan_of(mixer, x, "hull")
    seen: list[Tensor] = []
    hook = model.blocks[1].register_forward_hook(lambda m, i, out: seen.append(out))
    model(x)
    hook.remove()
    z = torch.tanh(model.hidden(seen[0][:, 2:])).mT
    a, weights = naive.attention_maps(z, "gap"), weights_of(mixer, plan, 3, 4)
    z_mixed, y_mixed, s = naive.dense_multimix(z, rows(y), weights, a)
    loss = naive.dense_loss(model.fc(z_mixed.to(dtype).mT).mT, y_mixed, s, "position_mean")
    assert_same_gradients(mixer.apply(stages, x, y, plan).loss(), loss, parameters(model))


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
def test_a_batch_of_one_is_the_clean_example(head: type[nn.Linear], dtype: torch.dtype) -> None:
    """M̂ is 1 everywhere, so s cancels: the dense loss of one example."""
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, 1)
    mixer = DenseMultiMix(n=3, attention="none")
    loss = mixer.apply(stages, x, y, plan_of(mixer, x, "hull")).loss()
    dense = stages(x, dense=lambda a: a).logits[0]
    expected = torch.nn.functional.cross_entropy(dense, y.expand(12))
    assert_same_gradients(loss, expected, parameters(model))


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
@pytest.mark.parametrize("reduction", ["position_mean", "global"])
def test_no_attention_anywhere_is_a_loss_of_zero(
    reduction: str, head: type[nn.Linear], dtype: torch.dtype
) -> None:
    """Embeddings of zero have scores of zero: M̂ = Λ, s = 0, never NaN."""
    model, stages = toy(dtype, head=head)
    nn.init.zeros_(model.hidden.weight), nn.init.zeros_(model.hidden.bias)
    x, y = batch(dtype, 3)
    mixer = DenseMultiMix(n=4, reduction=reduction)
    plan = plan_of(mixer, x, "hull")
    mixed = mixer.apply(stages, x, y, plan)
    loss = mixed.loss()
    loss.backward()
    assert torch.equal(loss.detach(), torch.zeros((), dtype=loss.dtype))
    assert all(bool((p.grad == 0).all()) for p in model.parameters())
    targets = naive.combine_targets(rows(y), weights_of(mixer, plan, 3, 12))
    assert_near(mixed.target, targets.transpose(0, 1) if head is nn.Linear else targets)


@pytest.mark.parametrize("head", [nn.Linear, Forced], ids=["fused", "plain"])
def test_one_position_without_attention(head: type[nn.Linear], dtype: torch.dtype) -> None:
    """It has no terms, and the mean over positions still counts it."""
    model, stages = toy(dtype, head=head)
    x, y = batch(dtype, 3)
    hook = model.hidden.register_forward_hook(
        lambda m, i, out: out * (torch.arange(len(out)) % 12 != 5).to(out)[:, None]
    )
    mixer = DenseMultiMix(n=4)
    plan = plan_of(mixer, x, "hull")
    loss = mixer.apply(stages, x, y, plan).loss()
    hook.remove()
    z = dense_embeddings(model, x, None)
    z = z * (torch.arange(12) != 5).to(z)
    a, weights = naive.attention_maps(z, "gap"), weights_of(mixer, plan, 3, 12)
    assert not bool(a[:, 5].any())
    z_mixed, y_mixed, s = naive.dense_multimix(z, rows(y), weights, a)
    logits = (model.fc.weight @ z_mixed.to(dtype)) + model.fc.bias[:, None]
    expected = naive.dense_loss(logits, y_mixed, s, "position_mean")
    assert_same_gradients(loss, expected, parameters(model))


CRITERIA = {
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "binary": nn.BCEWithLogitsLoss(),
    "own": lambda logits, target: (logits - target).square().sum(-1),
}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("reduction", ["position_mean", "global"])
def test_both_paths_agree_for_any_criterion(
    reduction: str, criterion: str, dtype: torch.dtype
) -> None:
    model, stages = toy(dtype)
    other, other_stages = toy(dtype, head=Forced)
    other.load_state_dict(model.state_dict())
    x, _ = batch(dtype, 3)
    y = torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 0], [0, 0.5, 0, 0.25]])
    mixer = DenseMultiMix(n=5, reduction=reduction)
    plan = plan_of(mixer, x, "hull")
    fused = mixer.apply(stages, x, y, plan).loss(CRITERIA[criterion])
    plain = mixer.apply(other_stages, x, y, plan).loss(CRITERIA[criterion])
    assert_near(fused, plain)
    for (name, p), (_, q) in zip(parameters(model), parameters(other), strict=True):
        mine = torch.autograd.grad(fused, p, retain_graph=True)[0]
        assert_near(mine, torch.autograd.grad(plain, q, retain_graph=True)[0], name)


def test_soft_targets_and_cam(dtype: torch.dtype) -> None:
    """u = W y of a soft target is a mixture of class vectors."""
    model, stages = toy(dtype)
    x, _ = batch(dtype, 3)
    y = torch.rand(3, 4, dtype=torch.float64).softmax(-1)
    mixer = DenseMultiMix(n=5, attention="cam", resolution=2)
    plan = plan_of(mixer, x, "hull")
    _, _, loss = expected_of(model, x, y, plan, mixer)
    assert_same_gradients(mixer.apply(stages, x, y.to(dtype), plan).loss(), loss, parameters(model))


@pytest.mark.parametrize("size", [1, 3])
def test_the_other_branch_is_input_mixup(size: int, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = DenseMultiMix(n=7)
    plan = plan_of(mixer, x, "x")
    expected = algorithm_1(by_stages(model), x, rows(y), "input", partners(plan), factors(plan))
    mixed = mixer.apply(stages, x, y, plan)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_weights_of_the_terms_sum_to_one(dtype: torch.dtype) -> None:
    """Per position to 1/N, or over all terms; so that the loss stays a mean."""
    _, stages = toy(dtype)
    x, y = batch(dtype, 3)
    for reduction in ("position_mean", "global"):
        mixer = DenseMultiMix(n=5, attention="none", reduction=reduction)
        weight = mixer.apply(stages, x, y, plan_of(mixer, x, "hull")).weight
        assert_close(weight.sum(1), torch.full_like(weight.sum(1), 1 / 12))


def test_the_host_sees_logits_per_example() -> None:
    """The mean over positions, which for a linear head after pooling is the model's own output."""
    model, stages = toy(torch.float32, ConvHeadNet)
    x, y = batch(torch.float32, 3)
    mixer = DenseMultiMix(n=5)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "hull"))
    assert_close(mixed.output, model(x))


def test_cam_needs_a_linear_classifier() -> None:
    _, stages = toy(torch.float32, head=Forced)
    mixer = DenseMultiMix(attention="cam")
    message = (
        r"DenseMultiMix with attention='cam' needs a linear classifier \(nn\.Linear or a 1x1 "
        r"nn\.Conv2d\), got Forced\. Use attention='gap'\."
    )
    with pytest.raises(ValueError, match=message):
        mixer.attach(stages)
    x, y = batch(torch.float32, 3)
    with pytest.raises(ValueError, match=message):
        mixer.apply(stages, x, y, plan_of(mixer, x, "hull"))
    DenseMultiMix().attach(stages)


def test_a_resolution_above_the_map() -> None:
    _, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    mixer = DenseMultiMix(resolution=5)
    with pytest.raises(ValueError, match=r"resolution=5 needs a feature map of at least 5x5, got"):
        mixer.apply(stages, x, y, plan_of(mixer, x, "hull"))


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_fewer_than_m_examples_mixes_all(size: int, dtype: torch.dtype) -> None:
    _, stages = toy(dtype)
    x, y = batch(dtype, size)
    losses = []
    for m in (12, None):
        mixer = DenseMultiMix(m=m, n=9, prob=1)
        losses.append(mixer.apply(stages, x, y, plan_of(mixer, x)).loss())
    assert_near(*losses)


def test_the_default_is_the_thesis() -> None:
    mixer = DenseMultiMix()
    assert (mixer.n, mixer.m, mixer.alpha, mixer.prob) == (1000, None, (0.5, 2.0), 0.5)
    assert (mixer.attention, mixer.normalize, mixer.reduction) == ("gap", "l1", "position_mean")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attention": "max"},
            r"DenseMultiMix needs attention in \('gap', 'cam', 'none'\), got 'max'",
        ),
        (
            {"normalize": "uniform"},
            r"DenseMultiMix needs normalize in \('l1', 'softmax'\), got 'uni",
        ),
        ({"reduction": "mean"}, r"needs reduction in \('position_mean', 'global'\), got 'mean'\."),
        ({"resolution": 0}, r"DenseMultiMix needs resolution >= 1 or None, got 0\."),
        (
            {"layer": "body"},
            r"DenseMultiMix needs layer None, since it mixes the last map, got 'body'",
        ),
        ({"n": 0}, r"DenseMultiMix needs n >= 1, got 0\."),
        ({"alpha": -1.0}, r"DenseMultiMix: alpha must be a number > 0"),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseMultiMix(**options)
