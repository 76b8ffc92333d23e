"""Real models of timm: A is the whole image, read as it is, and what cannot be mixed is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
from mixplug import sampling
from mixplug.functional import align, mix
from mixplug.hosts.timm import timm_stages
from mixplug.stages import Stages


def made(name: str, size: int, **options: object) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **options).eval()
    return model, torch.randn(4, 3, size, size)


def trained_a_little(model: nn.Module, x: Tensor) -> None:
    """Statistics of batch norm from x, and scales that are small before training made larger."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train(), setattr(norm, "momentum", 1.0)
    with torch.no_grad():
        model(x)
        for name, parameter in model.named_parameters():
            if "gamma" in name and float(parameter.abs().mean()) < 0.2:
                parameter.fill_(0.5)
    model.eval()


def placed(mixer: mixplug.Mixer, model: nn.Module, x: Tensor) -> Stages:
    stages = timm_stages(model)
    mixer.attach(stages)
    stages.place(mixer.needs(), x)
    return stages


def roll(t: Tensor) -> Tensor:
    return t.roll(1, 0)


@pytest.mark.parametrize(
    ("name", "size", "at"),
    [
        ("resnet18", 64, "layer4.0"),  # as before
        ("cspresnet50", 64, "stages.2"),  # half of the channels bypass each block
        ("selecsls42", 64, "head.1"),  # skip connections over several blocks
        ("hrnet_w18_small", 64, "final_layer.1"),  # four resolutions beside each other
        ("densenet121", 64, "features.denseblock3"),
        ("levit_128s", 224, "stages.2.blocks.2"),  # no single classifier
        ("deit_tiny_distilled_patch16_224", 224, "blocks.10"),
    ],
)
def test_the_whole_image_is_mixed(name: str, size: int, at: str) -> None:
    model, x = made(name, size)
    trained_a_little(model, x)
    stages = placed(mixplug.build("AlignMixup", modes=("A",)), model, x)
    assert stages.features == at
    with torch.no_grad():
        plain = model(x)
        spread = float((plain - plain.mean(0)).abs().max())
        assert spread > 1e-3
        swapped = stages(x, features=roll, prefix=roll).logits
    assert_close(swapped, roll(plain), rtol=0, atol=1e-3 * spread)


@pytest.mark.parametrize(
    ("name", "nhwc"), [("tiny_vit_5m_224", True), ("swinv2_cr_tiny_224", True)]
)
def test_alignment_is_that_of_the_true_map(name: str, nhwc: bool) -> None:
    """Blocks that give channels-last or windowed maps were read with channels first."""
    model, x = made(name, 224)
    mixer = mixplug.build("AlignMixup", modes=("A",))
    stages = placed(mixer, model, x)
    plan = mixer.sample(x, sampling.generators(0, 0))
    outputs = []

    def aligned(output: Tensor) -> Tensor:
        outputs.append(output)
        a = output.permute(0, 3, 1, 2) if nhwc else output
        other = align(a.contiguous(), a[plan.permutation].contiguous(), 0.1, 100)[0]
        mixed = mix(a, other, plan.lam)
        return mixed.permute(0, 2, 3, 1) if nhwc else mixed

    with torch.no_grad():
        found = mixer.apply(stages, x, torch.arange(4), plan).logits
        wanted = stages(x, layers={stages.features: aligned}).logits
    side = outputs[0].shape[1 if nhwc else 2]
    assert outputs[0].shape[2 if nhwc else 3] == side <= 14
    assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "size"), [("ghostnet_050", 96), ("repghostnet_050", 96), ("fastvit_t8", 96)]
)
def test_each_position_of_a_constant_map_gives_the_logits_of_the_map(name: str, size: int) -> None:
    """Layers behind the last map of feature_info look at neighboring positions in these."""
    model, x = made(name, size)
    trained_a_little(model, x)
    stages = placed(mixplug.build("DenseMultiMix", prob=1.0), model, x)

    def constant(a: Tensor) -> Tensor:
        return a.mean((2, 3), keepdim=True).expand_as(a).contiguous()

    with torch.no_grad():
        whole = stages(x, features=constant, at=stages.last).logits
        alone = stages(x, dense=constant).logits
        spread = float((whole - whole.mean(0)).abs().max())
    assert alone.shape[1] > 1
    assert_close(alone, whole[:, None].expand_as(alone), rtol=0, atol=2e-3 * spread)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_no_patch_is_taken_for_a_class_token(name: str) -> None:
    model, x = made(name, 224)
    stages = timm_stages(model)
    blocks = [n for n, _ in model.named_modules() if n.startswith("blocks.") and n.count(".") == 1]
    assert stages.with_map(x, at=blocks[0])[1].shape[2:] == (14, 14)


def test_the_linear_layer_of_timm_is_linear() -> None:
    model, x = made("mobilenetv3_small_050", 64)
    assert type(model.classifier) is not nn.Linear
    mixed = mixplug.build("DenseMultiMix", prob=1.0)(
        timm_stages(model), x, torch.arange(4), sampling.generators(0, 0)
    )
    assert isinstance(mixed, mixplug.HullMixed)


def refused() -> Iterator[tuple[str, str, str]]:
    beside = "The input of the classifier of {} cannot be mixed: a path through the model bypasses"
    yield "volo_d1_224", "MultiMix", beside.format("VOLO")
    yield "crossvit_tiny_240", "AlignMixup", "CrossVit has no module at which a feature map can"


@pytest.mark.parametrize(("name", "mixer", "message"), list(refused()))
def test_what_cannot_be_mixed_is_refused_before_the_first_step(
    name: str, mixer: str, message: str
) -> None:
    model, x = made(name, 240 if "cross" in name else 224)
    stages, y = timm_stages(model), torch.arange(4)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    built = mixplug.build(mixer)
    built.attach(stages)
    with pytest.raises(ValueError, match=message):
        built(stages, x, y, sampling.generators(0, 0))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    mixed = mixplug.build("InputMixup")(stages, x, y, sampling.generators(0, 0))
    plan = mixplug.build("InputMixup").sample(x, sampling.generators(0, 0))
    assert_close(mixed.logits, model(mix(x, x[plan.permutation], plan.lam)))


def test_two_outputs_in_training_are_refused() -> None:
    model, x = made("deit_tiny_distilled_patch16_224", 224)
    model.set_distilled_training(True)
    stages = timm_stages(model.train())
    with pytest.raises(
        ValueError, match=r"returns a tuple .* model\.set_distilled_training\(False\)"
    ):
        mixplug.build("CutMix")(stages, x, torch.arange(4), sampling.generators(0, 0))
