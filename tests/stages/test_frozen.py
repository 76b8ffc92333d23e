"""Frozen helper networks: built once, and no part of the model."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import ConvNet, stages_of

import mixplug
from mixplug import Mixer
from mixplug.mixers import FromFile, PairMixer
from mixplug.stages import FrozenNetworks


def teacher() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


@dataclass(frozen=True, kw_only=True)
class Taught(PairMixer):
    def frozen(self) -> dict[str, Callable[[], nn.Module]]:
        return {"teacher": teacher, "other": nn.Identity}


def attached() -> tuple[nn.Module, mixplug.Stages]:
    model = ConvNet()
    stages = stages_of(model)
    Taught().attach(stages)
    return model, stages


def test_a_network_is_built_once_at_attach() -> None:
    built = []

    @dataclass(frozen=True, kw_only=True)
    class Counting(PairMixer):
        def frozen(self) -> dict[str, Callable[[], nn.Module]]:
            return {"net": lambda: built.append(1) or nn.Linear(2, 2)}

    stages = stages_of(ConvNet())
    Counting().attach(stages)
    assert built == [1]
    assert stages.frozen["net"] is stages.frozen["net"]
    assert list(stages.frozen) == ["net"] and len(stages.frozen) == len(built) == 1


def test_it_is_no_part_of_the_model() -> None:
    plain = ConvNet()
    model, stages = attached()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    mine = {id(p) for p in stages.frozen["teacher"].parameters()}
    assert mine and not mine & {id(p) for p in model.parameters()}


def test_it_stays_in_evaluation_mode_and_learns_nothing() -> None:
    model, stages = attached()
    network = stages.frozen["teacher"]
    state = copy.deepcopy(network.state_dict())
    model.train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    x = torch.randn(2, 3, 6, 8, requires_grad=True)
    out = network(x)
    assert torch.equal(out, network(x))  # without dropout
    (out.sum() + model(x).sum()).backward()
    assert x.grad is not None and bool(x.grad.any())  # what it says of its input has a gradient
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_building_draws_nothing_from_the_host() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    stages = stages_of(ConvNet())
    torch.manual_seed(3)
    Taught().attach(stages)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_building_draws_nothing_on_the_devices_of_the_model() -> None:
    @dataclass(frozen=True, kw_only=True)
    class OnGPU(PairMixer):
        def frozen(self) -> dict[str, Callable[[], nn.Module]]:
            return {"net": lambda: nn.Linear(4, 4, device="cuda")}

    stages = stages_of(ConvNet().cuda())
    state = torch.cuda.get_rng_state()
    OnGPU().attach(stages)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_of_the_model_has_no_second_one(how: str) -> None:
    """An average of the model is a copy of it; in mm it holds the stages as well."""
    model, stages = attached()
    model.stages = stages
    if how == "deepcopy":
        other = copy.deepcopy(model)
        assert other.stages.frozen["teacher"] is stages.frozen["teacher"]
        assert other.stages.model is other
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        torch.save(model, buffer := io.BytesIO())
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    assert list(other.state_dict()) == list(ConvNet().state_dict())
    assert not other.train().stages.frozen["teacher"].training


def test_it_follows_the_model_to_its_device() -> None:
    model, stages = attached()
    assert next(stages.frozen["teacher"].parameters()).device.type == "cpu"
    model.to("meta")
    assert next(stages.frozen["teacher"].parameters()).device.type == "meta"


def test_a_name_that_is_not_there() -> None:
    _, stages = attached()
    message = (
        r"There is no frozen network 'vgg', there is 'teacher', 'other'\. A mixer declares them in "
        r"frozen\(\), and attach\(stages\) builds them\."
    )
    with pytest.raises(KeyError, match=message):
        _ = stages.frozen["vgg"]
    with pytest.raises(KeyError, match="there is none"):
        _ = FrozenNetworks(ConvNet())["vgg"]


def test_most_mixers_have_none() -> None:
    stages = stages_of(ConvNet())
    mixplug.build("mixup").attach(stages)
    assert len(stages.frozen) == 0 and Mixer().frozen() == {}


def test_a_builder_of_something_else() -> None:
    frozen = FrozenNetworks(ConvNet())
    message = r"MyMixer, frozen network 'net': the builder must return an nn\.Module, got dict\."
    with pytest.raises(ValueError, match=message):
        frozen.build({"net": dict}, "MyMixer")


def saved(path: Path, state: object) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("digits", [8, 64, None])
def test_weights_from_a_file(digits: int | None, nested: str | None, tmp_path: Path) -> None:
    source = teacher()
    state = source.state_dict() if nested is None else {nested: source.state_dict(), "epoch": 3}
    digest = saved(tmp_path / "teacher.pth", state)
    sha256 = None if digits is None else digest[:digits].upper()
    frozen = FrozenNetworks(ConvNet())
    frozen.build({"net": FromFile(teacher, tmp_path / "teacher.pth", sha256)}, "MyMixer")
    for name, value in frozen["net"].state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_a_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    builder = FromFile(teacher, "weights/vgg.pth", "0" * 64, "https://example.org/vgg.pth")
    message = (
        rf"MyMixer, frozen network 'vgg': its weights {tmp_path}/weights/vgg\.pth do not exist\. "
        r"Get it from https://example\.org/vgg\.pth\."
    )
    with pytest.raises(ValueError, match=message):
        FrozenNetworks(ConvNet()).build({"vgg": builder}, "MyMixer")


def test_a_file_of_another_hash(tmp_path: Path) -> None:
    digest = saved(path := tmp_path / "teacher.pth", teacher().state_dict())
    message = rf"another file than the one needed: its sha256 is {digest}, and not 00000000\."
    with pytest.raises(ValueError, match=message):
        FromFile(teacher, path, "00000000")()
    with pytest.raises(ValueError, match=r"sha256 needs at least 8 digits, got 'abc'\."):
        FromFile(teacher, path, "abc")()


def test_weights_of_another_network(tmp_path: Path) -> None:
    saved(path := tmp_path / "teacher.pth", nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match=r"100 % of Sequential must be loaded"):
        FromFile(teacher, path)()


def test_weights_that_run_something_are_refused(tmp_path: Path) -> None:
    saved(path := tmp_path / "teacher.pth", {"a": Tensor([1.0]), "b": Path("x")})
    with pytest.raises(ValueError, match="is not a checkpoint of weights"):
        FromFile(teacher, path)()
