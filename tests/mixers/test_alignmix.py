"""AlignMixup against Algorithm 1, example by example, in every mode and variant."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import exp, sqrt

import pytest
import torch
import torch.nn.functional as F
from batches import batch, by_stages, factors, parameters, partners, plan_of, rows, toy
from reference.algorithm import Network, Terms, algorithm_1
from reference.aligned import align, mix
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor, nn
from torch.testing import assert_close
from toys import (
    ChannelsLastNet,
    ConvHeadNet,
    ConvNet,
    PyramidNet,
    TokenNet,
    classify,
    columns,
    embed,
    pool,
    stages_of,
)

from mixplug import Plan, Stages, sampling
from mixplug.mixers.alignmix import AlignMixup

MODES = {"x": "input", "e": "embed", "A": "feat", "A'": "feat'"}
SHAPE = (3, 6, 8)


def first_operand(plan: Plan) -> list[float]:
    """λ of line 9, which weighs the first operand; in A' that is the pair (line 17)."""
    return [1 - lam if plan.branch.endswith("'") else lam for lam in factors(plan)]


def expected_of(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    plan: Plan,
    mode: str,
    net: Network | None = None,
    **options: object,
) -> Terms:
    net = net or by_stages(model)
    return algorithm_1(net, x, rows(y), mode, partners(plan), first_operand(plan), **options)


def with_decoder(
    dtype: torch.dtype, decoder: str, **options: object
) -> tuple[nn.Module, object, AlignMixup]:
    model, stages = toy(dtype)
    mixer = AlignMixup(decoder=decoder, image_shape=SHAPE, **options)
    mixer.attach(stages)
    if decoder == "vae":  # away from its start, where W is zero and all σ are equal
        nn.init.normal_(model.mixup.log_variance.log_var.weight)
        nn.init.zeros_(model.mixup.log_variance.log_var.bias)
    return model.eval(), stages, mixer


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_equals_algorithm_1(mode: str, size: int, dtype: torch.dtype) -> None:
    """Values, targets and gradients in every parameter, with R held constant."""
    model, stages = toy(dtype)
    x, y = batch(dtype, size)
    mixer = AlignMixup()
    plan = plan_of(mixer, x, mode)
    assert len(set(factors(plan))) == size  # one λ per example
    expected = expected_of(model, x, y, plan, MODES[mode])
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.logits, expected.logits)
    assert_near(mixed.target, expected.target)
    assert mixed.weight is None
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_line_17_to_the_letter_is_the_same_plan_once_converged() -> None:
    """Swapped beforehand, Sinkhorn ends with the rows of the same matrix instead of its columns."""
    model, stages = toy(torch.float64)
    x, y = batch(torch.float64, 2)
    mixer = AlignMixup(eps=1.0, iters=300)
    plan = plan_of(mixer, x, "A'")
    expected = expected_of(model, x, y, plan, "feat'", eps=1.0, iters=300, swap_before=True)
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


@pytest.mark.parametrize("net", [ConvHeadNet, ChannelsLastNet, PyramidNet])
@pytest.mark.parametrize("mode", MODES)
def test_equals_algorithm_1_in_other_layouts(mode: str, net: type, dtype: torch.dtype) -> None:
    model, stages = toy(dtype, net)
    x, y = batch(dtype, 3)
    mixer = AlignMixup(iters=10)
    plan = plan_of(mixer, x, mode)
    expected = expected_of(model, x, y, plan, MODES[mode], iters=10)
    assert_same_gradients(mixer.apply(stages, x, y, plan).loss(), expected.loss, parameters(model))


@pytest.mark.parametrize(
    "options",
    [
        {"aligned": False},
        {"eps": 1.0, "iters": 5},
        {"iters": 0},
        {"normalize_cost": True, "eps": 0.05, "iters": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["A", "A'"])
def test_options_of_the_alignment(
    mode: str, options: dict[str, object], dtype: torch.dtype
) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    settings = dict(options)
    mixer = AlignMixup(align=settings.pop("aligned", True), **settings)
    plan = plan_of(mixer, x, mode)
    expected = expected_of(model, x, y, plan, MODES[mode], **options)
    assert_same_gradients(mixer.apply(stages, x, y, plan).loss(), expected.loss, parameters(model))


def test_tolerance_reaches_sinkhorn(dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    plan = plan_of(AlignMixup(), x, "A")
    expected = expected_of(model, x, y, plan, "feat", iters=1)
    assert_near(AlignMixup(tol=1.0).apply(stages, x, y, plan).logits, expected.logits)


@pytest.mark.parametrize("mode", ["A", "A'"])
def test_resolution_pools_before_alignment(mode: str, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = AlignMixup(resolution=2, iters=10)
    plan = plan_of(mixer, x, mode)
    expected = expected_of(model, x, y, plan, MODES[mode], iters=10, prepare=lambda a: pool(a, 2))
    assert_same_gradients(mixer.apply(stages, x, y, plan).loss(), expected.loss, parameters(model))


def test_a_resolution_above_the_map() -> None:
    _, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    mixer = AlignMixup(resolution=4)
    message = r"resolution=4 needs a feature map of at least 4x4, got 3x4: use larger images"
    with pytest.raises(ValueError, match=message):
        mixer.apply(stages, x, y, plan_of(mixer, x, "A"))


@pytest.mark.parametrize("mode", ["body.1", "body.1'"])
def test_maps_of_further_modules(mode: str, dtype: torch.dtype) -> None:
    """The tensor E of Table 3.8: any module's map, aligned either way."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = AlignMixup(modes=["x", mode], iters=10)
    mixer.attach(stages)
    plan = plan_of(mixer, x, mode)
    expected = expected_of(
        model, x, y, plan, "feat'" if mode.endswith("'") else "feat", inner(model), iters=10
    )
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def inner(model: ConvNet) -> Network:
    """The toy cut behind its first non-linearity."""
    first, second = model.body[0], model.body[2]
    return Network(
        lambda x: torch.tanh(F.conv2d(x[None], first.weight, first.bias, stride=2, padding=1)[0]),
        lambda a: embed(model, F.conv2d(a[None], second.weight, second.bias, padding=1)[0]),
        lambda e: classify(model, e),
    )


@pytest.mark.parametrize("mode", ["A", "A'"])
def test_features_name_another_map_as_a(mode: str, dtype: torch.dtype) -> None:
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = AlignMixup(features="body.1", iters=10)
    mixer.attach(stages)
    plan = plan_of(mixer, x, mode)
    expected = expected_of(model, x, y, plan, MODES[mode], inner(model), iters=10)
    assert_near(mixer.apply(stages, x, y, plan).logits, expected.logits)


@pytest.mark.parametrize("mode", ["A", "A'"])
def test_patch_tokens_are_aligned_and_prefix_tokens_mixed(mode: str, dtype: torch.dtype) -> None:
    model = TokenNet().to(dtype)
    stages = stages_of(model)
    x, y = torch.randn(3, 3, 4, 4, dtype=dtype), torch.tensor([0, 1, 2])
    mixer = AlignMixup(iters=10)
    plan = plan_of(mixer, x, mode)
    seen: list[Tensor] = []
    hook = model.blocks[0].register_forward_hook(lambda m, i, out: seen.append(out))
    model(x)
    hook.remove()
    tokens = []
    for i, (j, lam) in enumerate(zip(partners(plan), first_operand(plan), strict=True)):
        one, two = seen[0][i], seen[0][j]
        a, other = (t[2:].T.reshape(5, 2, 2) for t in (one, two))
        a_aligned, other_aligned = align(a, other, 0.1, 10)
        if mode == "A'":
            one, two, a, a_aligned = two, one, other, other_aligned
        patches = mix(a, a_aligned, lam).flatten(1).T
        tokens.append(torch.cat([mix(one[:2], two[:2], lam), patches]))
    expected = model.fc(torch.tanh(model.hidden(model.blocks[1](torch.stack(tokens))[:, 0])))
    assert_near(mixer.apply(stages, x, y, plan).logits, expected)


@pytest.mark.parametrize("resolution", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_dense_loss_equals_the_loop(mode: str, resolution: int | None, dtype: torch.dtype) -> None:
    """Mixed as always; then every position has the example's target (Table 5.9)."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    mixer = AlignMixup(dense=True, resolution=resolution, iters=10)
    plan = plan_of(mixer, x, mode)
    net, logits, target = by_stages(model), [], []

    def pooled(a: Tensor) -> Tensor:
        return a if resolution is None else pool(a, resolution)

    for i, (j, lam) in enumerate(zip(partners(plan), first_operand(plan), strict=True)):
        if mode == "x":
            embeddings = [net.embed(c) for c in columns(pooled(net.encode(mix(x[i], x[j], lam))))]
        elif mode == "e":
            own, other = ([net.embed(c) for c in columns(pooled(net.encode(x[k])))] for k in (i, j))
            embeddings = [mix(e, f, lam) for e, f in zip(own, other, strict=True)]
        else:
            a, other = pooled(net.encode(x[i])), pooled(net.encode(x[j]))
            a_aligned, other_aligned = align(a, other, 0.1, 10)
            if mode == "A'":
                i, j, a, a_aligned = j, i, other, other_aligned
            embeddings = [net.embed(c) for c in columns(mix(a, a_aligned, lam))]
        logits += [net.classify(e) for e in embeddings]
        target += [mix(rows(y)[i], rows(y)[j], lam)] * len(embeddings)
    expected = Terms(torch.stack(logits), torch.stack(target))
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.logits.flatten(0, 1), expected.logits)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


def test_a_pair_with_itself_is_mixed_into_what_the_plan_says(dtype: torch.dtype) -> None:
    """λ = 1 leaves the first operand, whatever is aligned."""
    model, stages = toy(dtype)
    x, y = batch(dtype, 3)
    for mode in MODES:
        plan = plan_of(AlignMixup(), x, mode)
        lam = torch.zeros(3) if mode == "A'" else torch.ones(3)  # of the example, not the pair
        order = plan.permutation if mode == "A'" else torch.arange(3)
        mixed = AlignMixup().apply(stages, x, y, replace(plan, lam=lam))
        assert_near(mixed.logits, model(x[order]))
        assert torch.equal(mixed.target.double(), rows(y[order]))


def test_alignment_matters_and_its_direction_too() -> None:
    """The tests above could not tell, were the network blind to where features are."""
    _, stages = toy(torch.float64)
    x, y = batch(torch.float64, 3)
    plan = plan_of(AlignMixup(), x, "A")
    logits = AlignMixup().apply(stages, x, y, plan).logits
    plain = AlignMixup(align=False).apply(stages, x, y, plan).logits
    primed = AlignMixup().apply(stages, x, y, replace(plan, branch="A'")).logits
    assert float((logits - plain).detach().abs().max()) > 1e-3
    assert float((logits - primed).detach().abs().max()) > 1e-3


def test_a_map_that_is_only_pooled_is_refused() -> None:
    """R is doubly stochastic, so the mean of A~ is that of A', and alignment is in vain."""
    x, y = batch(torch.float64, 3)
    _, stages = toy(torch.float64, ConvHeadNet)
    plan = plan_of(AlignMixup(), x, "A")
    logits = AlignMixup().apply(stages, x, y, plan).logits
    assert_close(logits, AlignMixup(align=False).apply(stages, x, y, plan).logits)
    message = r"Do not mix at 'body' in ConvHeadNet: its positions are only averaged afterwards"
    with pytest.raises(ValueError, match=message):
        AlignMixup()(stages, x, y, sampling.generators(0, 0))
    stages = Stages(stages.model, "body", "fc", strict=False)
    with pytest.warns(UserWarning, match=message):
        AlignMixup()(stages, x, y, sampling.generators(0, 0))
    AlignMixup(align=False)(stages, x, y, sampling.generators(0, 0))
    for net in (ConvNet, ChannelsLastNet):
        _, stages = toy(torch.float64, net)
        AlignMixup()(stages, x, y, sampling.generators(0, 0))


def test_the_draw_weighs_the_pair_in_a_primed_mode() -> None:
    """Line 9 draws λ for the first operand, which line 17 makes the pair."""
    x = torch.zeros(5, *SHAPE)
    for step in range(3):
        one, primed = (
            AlignMixup(modes=(mode,)).sample(x, sampling.generators(0, step))
            for mode in ("A", "A'")
        )
        assert torch.equal(one.permutation, primed.permutation)
        assert_close(one.lam + primed.lam, torch.ones(5))
        assert float((one.lam - primed.lam).abs().max()) > 1e-2


@pytest.mark.parametrize("decoder", [None, "ae", "vae"])
def test_modes_are_drawn_uniformly(decoder: str | None) -> None:
    """Four, and reconstruction as a fifth: n/c +- 5 sqrt(n/c (1 - 1/c)) of 1500 steps."""
    shape = SHAPE if decoder else None
    mixer, x = AlignMixup(decoder=decoder, image_shape=shape), torch.zeros(2, *SHAPE)
    names = {*MODES, "reconstruct"} if decoder else {*MODES}
    count = Counter(mixer.sample(x, sampling.generators(0, k)).branch for k in range(1500))
    assert set(count) == names
    mean = 1500 / len(names)
    assert max(abs(c - mean) for c in count.values()) < 5 * sqrt(mean * (1 - 1 / len(names)))


def test_prob_goes_before_the_modes() -> None:
    """Half of the batches are left clean, and the rest shared by two modes."""
    mixer, x = AlignMixup(modes=("A", "e"), prob=0.5), torch.zeros(2, *SHAPE)
    count = Counter(mixer.sample(x, sampling.generators(0, k)).branch for k in range(1200))
    assert set(count) == {"A", "e", "clean"}
    assert abs(count["clean"] - 600) < 5 * sqrt(1200 / 4)
    assert abs(count["A"] - 300) < 5 * sqrt(1200 * 3 / 16)


def test_the_default_is_the_thesis() -> None:
    mixer = AlignMixup()
    assert mixer.alpha == 2 and mixer.per_example and mixer.modes == ("x", "A", "A'", "e")
    assert mixer.eps == 0.1 and mixer.iters == 100 and mixer.tol is None
    assert mixer.align and not mixer.normalize_cost and mixer.decoder is None
    assert not mixer.learns and mixer.reconstruction_weight == 1


def clean_embeddings(model: nn.Module, x: Tensor) -> Tensor:
    net = by_stages(model)
    return torch.stack([net.embed(net.encode(one)) for one in x])


def noise_of(plan: Plan, like: Tensor) -> Tensor:
    source = torch.Generator().manual_seed(plan.key)
    return torch.randn(like.shape, generator=source).to(like)


def squared_error(x: Tensor, image: Tensor) -> Tensor:
    """|x - x^|^2 over pixels, mean over the batch."""
    total = torch.zeros((), dtype=x.dtype)
    for i in range(len(x)):
        for c in range(x.shape[1]):
            total = total + ((x[i, c] - image[i, c]) ** 2).sum()
    return total / len(x)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_clean_branch_of_an_autoencoder(weight: float, dtype: torch.dtype) -> None:
    """L_r on the clean batch and nothing else (Algorithm 1, lines 5 to 7)."""
    model, stages, mixer = with_decoder(dtype, "ae", reconstruction_weight=weight)
    x, y = batch(dtype, 3)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "reconstruct"))
    image = model.mixup.decoder(clean_embeddings(model, x))
    assert set(mixed.extra) == {"reconstruction"}
    assert_same_gradients(
        mixed.loss().to(dtype), weight * squared_error(x, image), parameters(model)
    )
    assert_near(mixed.output, model(x))
    assert mixed.logits.shape == mixed.target.shape == (0, 4)  # no term of a criterion


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_clean_branch_of_a_variational_autoencoder(weight: float, dtype: torch.dtype) -> None:
    """Decodes a draw of N(e, σ²), and adds KL(N(e, σ²) | N(0, 1)), by a loop over D."""
    model, stages, mixer = with_decoder(dtype, "vae", reconstruction_weight=weight)
    x, y = batch(dtype, 3)
    plan = plan_of(mixer, x, "reconstruct")
    mixed = mixer.apply(stages, x, y, plan)
    e = clean_embeddings(model, x)
    log_variance = model.mixup.log_variance.log_var(e)
    image = model.mixup.decoder(e + torch.exp(log_variance / 2) * noise_of(plan, e))
    kl = torch.zeros((), dtype=dtype)
    for i in range(3):
        for d in range(e.shape[1]):
            variance = torch.exp(log_variance[i, d])
            kl = kl - 0.5 * (1 + torch.log(variance) - e[i, d] ** 2 - variance) / 3
    assert set(mixed.extra) == {"reconstruction", "kl"}
    assert_near(mixed.extra["kl"].to(dtype), weight * kl)
    assert_same_gradients(
        mixed.loss().to(dtype), weight * (squared_error(x, image) + kl), parameters(model)
    )


def test_the_divergence_of_a_standard_normal_is_zero() -> None:
    model, stages, mixer = with_decoder(torch.float32, "vae")
    x, y = batch(torch.float32, 3)
    nn.init.zeros_(model.mixup.log_variance.log_var.weight)
    nn.init.zeros_(model.hidden.weight), nn.init.zeros_(model.hidden.bias)  # e = 0, σ = 1
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "reconstruct"))
    assert_close(mixed.extra["kl"], torch.tensor(0.0))
    nn.init.constant_(model.mixup.log_variance.log_var.bias, 1.0)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "reconstruct"))
    assert_close(mixed.extra["kl"], torch.tensor(6 * 0.5 * (exp(1) - 1 - 1)))


def test_mode_e_of_a_variational_autoencoder_mixes_mean_and_deviation(dtype: torch.dtype) -> None:
    """A draw from N(mix(μ, μ'), mix(σ, σ')²) is classified (Table 3.8, (μ, σ))."""
    model, stages, mixer = with_decoder(dtype, "vae")
    x, y = batch(dtype, 3)
    plan = plan_of(mixer, x, "e")
    e = clean_embeddings(model, x)
    sigma = torch.exp(model.mixup.log_variance.log_var(e) / 2)
    noise, logits, target = noise_of(plan, e), [], []
    for i, (j, lam) in enumerate(zip(partners(plan), factors(plan), strict=True)):
        draw = mix(e[i], e[j], lam) + mix(sigma[i], sigma[j], lam) * noise[i]
        logits.append(classify(model, draw))
        target.append(mix(rows(y)[i], rows(y)[j], lam))
    expected = Terms(torch.stack(logits), torch.stack(target))
    mixed = mixer.apply(stages, x, y, plan)
    assert_near(mixed.target, expected.target)
    assert_same_gradients(mixed.loss(), expected.loss, parameters(model))


@pytest.mark.parametrize("decoder", ["ae", "vae"])
def test_mode_e_with_a_decoder_can_be_dense(decoder: str, dtype: torch.dtype) -> None:
    model, stages, mixer = with_decoder(dtype, decoder, dense=True)
    x, y = batch(dtype, 3)
    plan = plan_of(mixer, x, "e")
    net = by_stages(model)
    e = torch.stack([torch.stack([net.embed(c) for c in columns(net.encode(one))]) for one in x])
    noise = noise_of(plan, e)
    sigma = (
        torch.exp(model.mixup.log_variance.log_var(e) / 2)
        if decoder == "vae"
        else torch.zeros_like(e)
    )
    expected = torch.stack(
        [
            mix(e[i], e[j], lam) + mix(sigma[i], sigma[j], lam) * noise[i]
            for i, (j, lam) in enumerate(zip(partners(plan), factors(plan), strict=True))
        ]
    )
    logits = torch.stack([torch.stack([classify(model, c) for c in one]) for one in expected])
    assert_near(mixer.apply(stages, x, y, plan).logits, logits)


@pytest.mark.parametrize("decoder", ["ae", "vae"])
@pytest.mark.parametrize("mode", ["x", "A", "A'"])
def test_other_modes_with_a_decoder_are_those_without(
    mode: str, decoder: str, dtype: torch.dtype
) -> None:
    model, stages, mixer = with_decoder(dtype, decoder)
    x, y = batch(dtype, 3)
    plan = plan_of(mixer, x, mode)
    expected = AlignMixup().apply(stages, x, y, plan)
    assert_same_gradients(
        mixer.apply(stages, x, y, plan).loss(), expected.loss(), parameters(model)
    )


@pytest.mark.parametrize("decoder", ["ae", "vae"])
@pytest.mark.parametrize("branch", [*MODES, "reconstruct", "clean", "off"])
def test_every_parameter_has_a_gradient_in_every_branch(branch: str, decoder: str) -> None:
    """DDP waits for each; what is out of use has zeros."""
    model, stages, mixer = with_decoder(torch.float32, decoder, prob=0.9, off_epoch=3)
    model.train()
    x, y = batch(torch.float32, 3)
    if branch == "off":
        mixed = mixer(stages, x, y, sampling.generators(0, 0), epoch=3)
    else:
        mixed = mixer.apply(stages, x, y, plan_of(mixer, x, branch))
    mixed.loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    moved = {name.partition(".")[0] for name, p in model.named_parameters() if bool(p.grad.any())}
    if branch == "reconstruct":
        assert moved == {"body", "norm", "hidden", "mixup"}  # not the classifier
    else:
        used = {"mixup"} if (decoder, branch) == ("vae", "e") else set()
        assert moved == {"body", "norm", "hidden", "fc"} | used


def test_without_modes_only_clean_images_are_reconstructed(dtype: torch.dtype) -> None:
    """The autoencoder of 3.3.3, by whose decoder mixing is looked at; its width is a setting."""
    model, stages, mixer = with_decoder(dtype, "ae", modes=(), decoder_width=5)
    x, y = batch(dtype, 3)
    assert mixer.branches() == {"reconstruct": 1.0}
    mixed = mixer(stages, x, y, sampling.generators(0, 0))
    image = model.mixup.decoder(clean_embeddings(model, x))
    assert_same_gradients(mixed.loss().to(dtype), squared_error(x, image), parameters(model))
    assert model.mixup.decoder.conv.in_channels == 5


def test_a_decoder_is_saved_and_absent_without_one() -> None:
    model, stages, _ = with_decoder(torch.float64, "ae")
    names = {name for name in model.state_dict() if name.startswith("mixup.")}
    assert names and all(name.startswith("mixup.decoder.") for name in names)
    assert {p.dtype for p in model.mixup.parameters()} == {torch.float64}  # as the model's
    assert stages.learned is model.mixup
    model, stages = toy(torch.float32)
    AlignMixup().attach(stages)
    assert stages.learned is None and not hasattr(model, "mixup")


def test_a_decoder_has_no_part_in_testing() -> None:
    model, stages = toy(torch.float32)
    x, _ = batch(torch.float32, 3)
    before = model(x)
    AlignMixup(decoder="vae", image_shape=SHAPE).attach(stages)
    assert torch.equal(model.eval()(x), before)


@pytest.mark.parametrize("branch", ["reconstruct", "e", "A", "off"])
def test_a_decoder_that_was_never_attached(branch: str) -> None:
    _, stages = toy(torch.float32)
    x, y = batch(torch.float32, 3)
    mixer = AlignMixup(decoder="ae", image_shape=SHAPE, off_epoch=1)
    message = r"AlignMixup has a decoder, so call attach\(stages\) before training\."
    with pytest.raises(ValueError, match=message):
        if branch == "off":
            mixer(stages, x, y, sampling.generators(0, 0), epoch=1)
        else:
            mixer.apply(stages, x, y, plan_of(mixer, x, branch))


def test_images_that_the_decoder_was_not_built_for() -> None:
    _, stages, mixer = with_decoder(torch.float32, "ae")
    x, y = batch(torch.float32, 3, side=(8, 8))
    message = r"The decoder needs images of image_shape=\(3, 6, 8\), got \(3, 8, 8\)\."
    with pytest.raises(ValueError, match=message):
        mixer.apply(stages, x, y, plan_of(mixer, x, "reconstruct"))


def test_unknown_modules_are_found_before_training() -> None:
    _, stages = toy(torch.float32)
    for options in ({"modes": ("A", "hiden'")}, {"features": "hiden"}):
        with pytest.raises(ValueError, match=r"ConvNet has no module 'hiden'\. Nearest: 'hidden'"):
            AlignMixup(**options).attach(stages)


MODES_TEXT = r"AlignMixup needs modes a non-empty tuple of 'x', 'A', \"A'\", 'e' and names of"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ()}, MODES_TEXT + r" modules, got \(\)\."),
        ({"modes": "A"}, MODES_TEXT + r" modules, got 'A'\."),
        ({"eps": 0.0}, r"AlignMixup needs eps > 0, got 0\.0\."),
        ({"iters": -1}, r"AlignMixup needs iters >= 0, got -1\."),
        ({"alpha": 0}, r"AlignMixup needs alpha > 0, got 0\."),
        ({"prob": 2}, r"AlignMixup needs prob in \[0, 1\], got 2\."),
        ({"resolution": 0}, r"AlignMixup needs resolution >= 1 or None, got 0\."),
        ({"decoder": "gan"}, r"AlignMixup needs decoder None or in \('ae', 'vae'\), got 'gan'\."),
        (
            {"decoder": "ae"},
            r"AlignMixup needs image_shape \(channels, height, width\) if .*"
            r"decoder, got None\.",
        ),
        ({"decoder": "vae", "image_shape": (3, 32)}, r"AlignMixup needs image_shape .*\(3, 32\)\."),
        ({"modes": "A", "decoder": "ae"}, MODES_TEXT + r" modules, got 'A'\."),
        ({"decoder_width": 0}, r"AlignMixup needs decoder_width >= 1, got 0\."),
        ({"reconstruction_weight": 0.0}, r"needs reconstruction_weight > 0, got 0\.0\."),
        ({"decoder": "ae", "image_shape": [3, 0, 8]}, r"image_shape .*got \(3, 0, 8\)\."),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignMixup(**options)


def test_a_config_list_as_image_shape_is_the_tuple(dtype: torch.dtype) -> None:
    _, stages = toy(dtype)
    mixer = AlignMixup(decoder="ae", image_shape=list(SHAPE), modes=["x"])
    mixer.attach(stages)
    x, y = batch(dtype, 3)
    mixed = mixer.apply(stages, x, y, plan_of(mixer, x, "reconstruct"))
    assert mixed.extra["reconstruction"].isfinite()
