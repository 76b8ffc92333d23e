"""Old keys and names are accepted with a warning; old and new ones together are an error."""

import importlib
import inspect
import io
from pathlib import Path

import pytest
import torch

import mixplug
from mixplug import functional, sampling
from mixplug.data.multicrop import MultiCrop
from mixplug.data.view import View
from mixplug.evaluation.card import Settings
from mixplug.functional import teacher_probabilities, updated_center
from mixplug.functional.calibration import calibration_sums
from mixplug.models.self_distillation import DINO
from mixplug.models.tracking.box_decoder import DecoderBlock
from mixplug.renamed import OLD_NAMES, renamed_keys


@renamed_keys(colour="color")
def paint(size: int, color: str = "red") -> tuple[int, str]:
    return size, color


@renamed_keys(colour="color")
class Paint:
    def __init__(self, color: str = "red") -> None:
        self.color = color


def test_a_function_takes_the_old_key_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="key 'colour' of paint is now 'color'"):
        assert paint(1, colour="blue") == (1, "blue")
    assert paint(2, color="green") == (2, "green")
    assert list(inspect.signature(paint).parameters) == ["size", "color"]


def test_a_class_takes_the_old_key_also_by_build() -> None:
    with pytest.warns(DeprecationWarning, match="of Paint is now 'color'"):
        assert Paint(colour="blue").color == "blue"
    with pytest.warns(DeprecationWarning):
        assert mixplug.build(Paint, colour="blue").color == "blue"
    with pytest.raises(KeyError, match=r"no key 'colours'.*Did you mean 'color'"):
        mixplug.build(Paint, colours="blue")


@pytest.mark.parametrize("old", sorted(OLD_NAMES))
def test_an_old_name_is_the_object_of_the_new_one(old: str) -> None:
    home, _, name = f"mixplug.{old}".rpartition(".")
    new_home, _, new = f"mixplug.{OLD_NAMES[old]}".rpartition(".")
    with pytest.warns(DeprecationWarning, match=rf"{home}\.{name} is now {new_home}\.{new}"):
        found = getattr(importlib.import_module(home), name)
    assert found is getattr(importlib.import_module(new_home), new)


def test_a_name_that_never_was_is_none_of_the_old_ones() -> None:
    from mixplug.weights import vit

    with pytest.raises(
        AttributeError, match=r"module 'mixplug\.weights\.vit' has no attribute 'x'"
    ):
        vit.x  # noqa: B018


def test_both_keys_at_once_raise() -> None:
    with pytest.raises(ValueError, match="both 'colour' and 'color', two names of the same key"):
        paint(1, colour="blue", color="red")


def test_old_keys_of_data_and_cards() -> None:
    with pytest.warns(DeprecationWarning):
        crops = mixplug.build(MultiCrop, grey=0.5, solarise=(0.0, 0.1, 0.2))
    assert (crops.gray, crops.solarize) == (0.5, (0.0, 0.1, 0.2))
    with pytest.warns(DeprecationWarning):
        assert Settings(neighbours=7).neighbors == 7


def test_old_keys_of_distillation() -> None:
    logits, center = torch.randn(3, 4), torch.randn(4)
    with pytest.warns(DeprecationWarning):
        old = teacher_probabilities(logits, centre=center, temperature=0.1)
    assert torch.equal(old, teacher_probabilities(logits, center, 0.1))
    with pytest.warns(DeprecationWarning, match=r"functional\.updated_centre"):
        assert functional.updated_centre is updated_center
    with pytest.warns(DeprecationWarning, match=r"sampling\.apart"):
        assert sampling.apart is sampling.derive_seed
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        functional.nothing  # noqa: B018


def test_a_checkpoint_with_the_old_name_of_the_center_loads() -> None:
    pytest.importorskip("timm")
    keys = {"name": "vit_tiny_patch16_224", "depth": 1, "img_size": 32}
    method = DINO(keys, method_head())
    method.center.copy_(torch.arange(8.0))
    state = method.state_dict()
    state["centre"] = state.pop("center")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with pytest.warns(DeprecationWarning, match="centre_decay"):
        other = DINO(keys, method_head(), centre_decay=0.5)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.center_decay == 0.5 and torch.equal(other.center, torch.arange(8.0))
    assert "center" in other.state_dict() and "centre" not in other.state_dict()


def test_old_names_in_openmmlab(tmp_path: Path) -> None:
    """Keys of a config, and a checkpoint by mmengine's own loading, which ignores other names."""
    pytest.importorskip("mmengine")
    from mmengine.registry import DefaultScope
    from mmengine.runner import load_checkpoint

    import mixplug.mm  # noqa: F401  registers
    from mixplug.registry import MODELS

    vit = {"type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224", "depth": 1}
    config = {"type": "mixplug.DINO", "backbone": vit, "head": method_head()}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        with pytest.warns(DeprecationWarning, match="'centre_decay' of DINO is now 'center_decay'"):
            model = MODELS.build({**config, "centre_decay": 0.3})
        other = MODELS.build(config)
    assert model.method.center_decay == 0.3
    model.method.center.copy_(torch.arange(8.0))
    state = model.state_dict()
    state["method.centre"] = state.pop("method.center")
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "old.pth")
    load_checkpoint(other, str(tmp_path / "old.pth"), map_location="cpu")
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    assert "method.center" in other.state_dict()


def test_old_keys_of_a_method_that_passes_its_settings_on() -> None:
    class Mine(DINO):
        def __init__(self, backbone: object, **settings: object) -> None:
            super().__init__(backbone, **settings)

    keys = {"name": "vit_tiny_patch16_224", "depth": 1, "img_size": 32}
    with pytest.warns(DeprecationWarning, match="centre_decay"):
        assert Mine(keys, head=method_head(), centre_decay=0.3).center_decay == 0.3
    with pytest.warns(DeprecationWarning, match="centre_decay"):
        built = mixplug.build(Mine, backbone=keys, head=method_head(), centre_decay=0.3)
    assert built.center_decay == 0.3


def method_head() -> dict[str, int]:
    return {"out_dim": 8, "hidden": 8, "bottleneck": 4}


def test_old_attributes_of_distillation() -> None:
    method = DINO({"name": "vit_tiny_patch16_224", "depth": 1, "img_size": 32}, method_head())
    with pytest.warns(DeprecationWarning, match=r"attribute DINO\.centre is now center"):
        assert method.centre is method.center
    with pytest.warns(DeprecationWarning, match=r"attribute Own\.views_key is now loss_name"):

        class Own(DINO):
            views_key = "loss_own"

    assert Own.loss_name == "loss_own"


def test_old_keys_of_views_and_blocks() -> None:
    with pytest.warns(DeprecationWarning):
        view = View(0, 0, 8, 8, 4, grey=True, solarise=True)
    assert view == View(0, 0, 8, 8, 4, gray=True, solarize=True)
    block = DecoderBlock(8, 2, 16, 0.0).eval()
    x, position, memory = torch.randn(2, 3, 8), torch.randn(3, 8), torch.randn(2, 5, 8)
    with pytest.warns(DeprecationWarning, match="'place' of DecoderBlock.forward is now 'pos"):
        old = block(x, place=position, memory=memory, keys=memory)
    assert torch.equal(old, block(x, position, memory, memory))


def test_sums_of_calibration_from_probabilities_are_refused() -> None:
    """They took probabilities and labels, and now take confidences."""
    message = r"needs confidences \(B,\) and 0 or 1 .* got \(4, 3\) and \(4,\)\. For probabilities"
    with pytest.raises(ValueError, match=message):
        calibration_sums(torch.rand(4, 3), torch.arange(4) % 3)
